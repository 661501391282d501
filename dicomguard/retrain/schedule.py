"""When the next training run is due: cron from the configuration in, one call of `enqueue(period)` a period out.

APScheduler keeps nothing on disk: the name of the period is the memory, since asking for a period twice is asking once.
At start and every hour the current period is asked for again, so a node that slept through the minute skips no week.
Knows neither DBOS nor SQL; what `enqueue` does is the caller's affair.
"""

import re
from datetime import datetime, timedelta
from typing import Protocol, Self
from zoneinfo import ZoneInfo

from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.cron import CronTrigger

from dicomguard import log
from dicomguard.clock import Clock
from dicomguard.errors import DicomguardError, Refused

# How late a firing may be and still count; later, the hourly look does it.
MISFIRE_GRACE_S = 3600
# As cron counts them; Sunday is 7 too.
_WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_DAY = f"[0-7]|{'|'.join(_WEEKDAYS)}"
_DAYS = re.compile(rf"(?:\*|(?P<first>{_DAY})(?:-(?P<last>{_DAY}))?)(?:/(?P<step>[1-7]))?")
_LOOK_BACK = timedelta(days=8)


class Enqueue(Protocol):
    """Ask for the run of a period; asking again for the same period does nothing."""

    def __call__(self, period: str) -> None:
        """`period` as `retrain-2026-W48`."""
        ...


def trigger(cron: str, timezone: str) -> CronTrigger:
    """The firings of a cron line (minute hour day month weekday) in a zone; raise `Refused` for an impossible one."""
    try:
        return CronTrigger.from_crontab(_named_weekdays(cron), timezone=ZoneInfo(timezone))
    except ValueError as error:
        raise Refused(
            f'[retrain] cron = "{cron}" is no time: {error}. Write minute hour day month weekday, as in "0 2 * * 6".'
        ) from error


def _named_weekdays(cron: str) -> str:
    """Every weekday by its name: APScheduler counts from Monday, knows no range from Sunday and no steps of names."""
    fields = cron.split()
    if len(fields) == 5 and fields[4] != "*":
        days = {day % 7 for part in fields[4].lower().split(",") for day in _weekdays(part)}
        fields[4] = ",".join(_WEEKDAYS[day] for day in sorted(days))
    return " ".join(fields)


def _weekdays(part: str) -> range:
    """What one part of the list means: a day, a range, or every so many days of a range."""
    found = _DAYS.fullmatch(part)
    if found is None:
        raise ValueError(f'"{part}" names no weekday')
    first, last = _number(found["first"] or "0"), 7
    if found["last"]:
        # A range ends on the Sunday after its first day.
        last = _number(found["last"]) or (7 if first else 0)
    elif found["first"] and not found["step"]:
        last = first
    if last < first:
        raise ValueError(f'the weekdays "{part}" end before they begin')
    return range(first, last + 1, int(found["step"] or 1))


def _number(day: str) -> int:
    return int(day) if day.isdecimal() else _WEEKDAYS.index(day)


def period(firing: datetime, cron: str, timezone: str) -> str:
    """The deterministic id of a firing: its ISO week; its day or hour where a cron line fires more often."""
    gap = _shortest_gap(trigger(cron, timezone), firing)
    year, week, _ = firing.isocalendar()
    if gap >= timedelta(days=6):
        return f"retrain-{year}-W{week:02d}"
    return f"retrain-{firing:%Y-%m-%d}" if gap >= timedelta(hours=20) else f"retrain-{firing:%Y-%m-%dT%H%M}"


def _shortest_gap(firings: CronTrigger, start: datetime) -> timedelta:
    # A fixed start, so that every firing of a line gives the same answer; a day of quarter hours is enough to look at.
    at = firings.get_next_fire_time(None, start.replace(year=2026, month=1, day=1))
    gap = timedelta.max
    for _ in range(96):
        after = firings.get_next_fire_time(at, at + timedelta(seconds=1)) if at else None
        if after is None:
            break
        gap, at = min(gap, after - at), after
    return gap


def due(cron: str, timezone: str, *, now: datetime, since: datetime | None = None) -> str | None:
    """The period of the last firing at or before `now`; None when there was none since `since` (or in eight days).

    `since` is when the schedule came to be: a node that is set up on a Monday owes no run for the Saturday before.
    """
    firings = trigger(cron, timezone)
    begin = now - _LOOK_BACK if since is None else max(since, now - _LOOK_BACK)
    last: datetime | None = None
    at: datetime | None = firings.get_next_fire_time(None, begin)
    while at is not None and at <= now:
        last = at
        at = firings.get_next_fire_time(at, at + timedelta(seconds=1))
    return period(last, cron, timezone) if last else None


class Schedule:
    """A running schedule; use it in a `with`. Any number of nodes may run one."""

    def __init__(
        self, enqueue: Enqueue, *, cron: str, timezone: str, clock: Clock, since: datetime, look_s: float = 3600
    ) -> None:
        self._enqueue, self._cron, self._timezone = enqueue, cron, timezone
        self._clock, self._since = clock, since
        self._log = log.get("retrain")
        self._scheduler = BackgroundScheduler(
            timezone=ZoneInfo(timezone),
            job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": MISFIRE_GRACE_S},
        )
        if cron:
            self._scheduler.add_job(self.look, trigger(cron, timezone), id="due")
            self._scheduler.add_job(self.look, "interval", seconds=look_s, id="hourly")

    def look(self) -> None:
        """Ask for the current period; what fails now is tried again within the hour."""
        owed = due(self._cron, self._timezone, now=self._clock.now(), since=self._since)
        if owed is None:
            return
        try:
            self._enqueue(owed)
        except DicomguardError as error:
            self._log.warning("run.not_asked", period=owed, error=str(error))

    def __enter__(self) -> Self:
        if self._cron:
            self.look()
        self._scheduler.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop firing; a running look ends first."""
        if self._scheduler.running:
            self._scheduler.shutdown(wait=True)
