"""Is something due that is done once a day at a time of day."""

from datetime import datetime, time, timedelta


def due(now: datetime, last: datetime | None, *, at: time) -> bool:
    """Whether the time `at` in the zone of `now` has come since `last`; what was missed is due at once.

    Both times are aware; `last` None: never yet.
    """
    moment = now.replace(hour=at.hour, minute=at.minute, second=0, microsecond=0)
    if moment > now:
        moment -= timedelta(days=1)
    return last is None or last < moment
