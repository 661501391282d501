"""The only source of time: aware UTC for records, monotonic seconds for deadlines.

Functions and classes that need time are given a `Clock`; tests give them a `FakeClock`.
"""

import time
from datetime import UTC, datetime, timedelta
from typing import Protocol

# Machines of one node are taken to agree to this: a time of the others' that lies further ahead comes of a clock that
# was wrong, and no hurry may come of a few minutes' difference.
CLOCKS_APART = timedelta(hours=1)


class Clock(Protocol):
    """What the product asks of time."""

    def now(self) -> datetime:
        """Aware UTC time of day."""
        ...

    def monotonic(self) -> float:
        """Seconds that never run backwards; only differences mean anything."""
        ...


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        """Aware UTC time of day."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Seconds since an arbitrary moment."""
        return time.monotonic()


class FakeClock:
    """A clock that stands still until a test moves it."""

    def __init__(self, start: datetime) -> None:
        self._start = start
        self._elapsed = timedelta()

    def now(self) -> datetime:
        """The start plus all advances."""
        return self._start + self._elapsed

    def monotonic(self) -> float:
        """Seconds advanced so far."""
        return self._elapsed.total_seconds()

    def advance(self, delta: timedelta) -> None:
        """Let time pass."""
        self._elapsed += delta
