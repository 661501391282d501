"""DA, TM, DT and Timezone Offset From UTC (PS3.5 6.2, PS3.3 C.12.1.1.8) from aware times; the offset also back."""

import re
from datetime import datetime, timedelta, timezone

_OFFSET = re.compile(r"([+-])(\d{2})(\d{2})")
# Offsets in use on Earth; PS3.5 allows −1200 to +1400.
_EARLIEST, _LATEST = timedelta(hours=-12), timedelta(hours=14)


def da(moment: datetime) -> str:
    """Date of an aware time, in its own zone."""
    return _aware(moment).strftime("%Y%m%d")


def tm(moment: datetime) -> str:
    """Time of day of an aware time, in its own zone; fractions only when there are any."""
    text = _aware(moment).strftime("%H%M%S")
    return f"{text}.{moment.microsecond:06d}" if moment.microsecond else text


def dt(moment: datetime) -> str:
    """Date, time and offset of an aware time."""
    return f"{da(moment)}{tm(moment)}{offset(moment)}"


def offset(moment: datetime) -> str:
    """Offset from UTC of an aware time as ±HHMM; seconds of historic zones are cut."""
    delta = _aware(moment).utcoffset() or timedelta()
    minutes = int(delta.total_seconds() / 60)
    return f"{'-' if minutes < 0 else '+'}{abs(minutes) // 60:02d}{abs(minutes) % 60:02d}"


def zone(text: str) -> timezone | None:
    """The zone that a Timezone Offset From UTC names; None when the text is malformed or impossible."""
    match = _OFFSET.fullmatch(text.strip())
    if match is None or int(match[3]) > 59:
        return None
    delta = timedelta(hours=int(match[2]), minutes=int(match[3])) * (-1 if match[1] == "-" else 1)
    return timezone(delta) if _EARLIEST <= delta <= _LATEST else None


def _aware(moment: datetime) -> datetime:
    if moment.utcoffset() is None:
        raise ValueError(f"{moment.isoformat()} has no zone; give an aware time.")
    return moment
