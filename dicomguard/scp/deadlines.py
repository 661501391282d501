"""Absolute deadlines of all connections in one heap, and the one thread that carries them out.

A timeout of a socket call starts anew with each byte, and a blocked call looks at no clock. So the deadline is kept
here, and its end comes from outside.
"""

import heapq
import itertools
import threading
from collections.abc import Callable

from dicomguard import log
from dicomguard.clock import Clock

_LOG = log.get("scp")
# A timer is looked at this often at least, so that one that was dropped leaves the heap although its time is far away.
_LONGEST_S = 60.0


class Timer:
    """At most one deadline at a time; arming it later than before costs no more than setting a number."""

    __slots__ = ("_deadlines", "_expire", "at", "queued_at", "reason")

    def __init__(self, deadlines: "Deadlines", expire: Callable[[str], None]) -> None:
        self._deadlines = deadlines
        self._expire: Callable[[str], None] | None = expire
        self.at: float | None = None
        self.queued_at: float | None = None
        self.reason = ""

    def arm(self, at: float, reason: str) -> None:
        """Call `expire(reason)` once the monotonic time `at` is reached, unless armed anew or disarmed before."""
        self.reason = reason
        self.at = at
        if self.queued_at is None or at < self.queued_at:
            self._deadlines.queue(self, at)

    def disarm(self) -> None:
        """Nothing is waited for now."""
        self.at = None

    def drop(self) -> None:
        """For good; what `expire` holds is let go."""
        self.at = None
        self._expire = None

    def fire(self) -> None:
        """Its time has come."""
        expire, self.at = self._expire, None
        if expire is not None:
            expire(self.reason)


class Deadlines:
    """The heap and its thread."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._heap: list[tuple[float, int, Timer]] = []
        self._number = itertools.count()
        self._changed = threading.Condition()
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="deadlines", daemon=True)

    def start(self) -> None:
        """Begin to carry them out."""
        self._thread.start()

    def stop(self) -> None:
        """No deadline is carried out any more."""
        with self._changed:
            self._stopped = True
            self._changed.notify()
        self._thread.join()

    def timer(self, expire: Callable[[str], None]) -> Timer:
        """A timer that is not armed."""
        return Timer(self, expire)

    def queue(self, timer: Timer, at: float) -> None:
        """Look at the timer at this time."""
        at = min(at, self._clock.monotonic() + _LONGEST_S)
        with self._changed:
            timer.queued_at = at
            heapq.heappush(self._heap, (at, next(self._number), timer))
            if self._heap[0][2] is timer:
                self._changed.notify()

    def carry_out(self) -> None:
        """Fire what is due."""
        now = self._clock.monotonic()
        due = []
        with self._changed:
            while self._heap and self._heap[0][0] <= now:
                at, _, timer = heapq.heappop(self._heap)
                if timer.queued_at == at:
                    timer.queued_at = None
                    due.append(timer)
        for timer in due:
            # After `queued_at`: a thread that armed it meanwhile has either been seen here or queues it anew.
            armed_at = timer.at
            if armed_at is not None and armed_at > now:
                self.queue(timer, armed_at)
            elif armed_at is not None:
                timer.fire()

    def _run(self) -> None:
        while not self._stopped:
            try:
                self.carry_out()
            except Exception:  # noqa: BLE001 -- the top of the thread; without it no peer would be cut any more
                _LOG.crashed("deadline.failed")
            with self._changed:
                wait_s = max(0.0, self._heap[0][0] - self._clock.monotonic()) if self._heap else None
                if not self._stopped:
                    self._changed.wait(wait_s)
