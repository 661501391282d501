from datetime import UTC, datetime, timedelta

from dicomguard.clock import FakeClock
from dicomguard.scp.deadlines import Deadlines


class World:
    """Deadlines on a clock that a test moves."""

    def __init__(self) -> None:
        self.clock = FakeClock(datetime(2026, 1, 1, tzinfo=UTC))
        self.deadlines = Deadlines(self.clock)
        self.fired: list[str] = []

    def wait(self, seconds: float) -> list[str]:
        """What fires in this time, looked at each tenth of a second."""
        before = len(self.fired)
        for _ in range(round(10 * seconds)):
            self.clock.advance(timedelta(seconds=0.1))
            self.deadlines.carry_out()
        return self.fired[before:]


def test_a_deadline_fires_once_with_its_reason() -> None:
    world = World()
    world.deadlines.timer(world.fired.append).arm(5.0, "idle")
    assert world.wait(4.9) == []
    assert world.wait(0.2) == ["idle"]
    assert world.wait(100) == []


def test_the_latest_arming_counts_whether_later_or_earlier() -> None:
    world = World()
    timer = world.deadlines.timer(world.fired.append)
    timer.arm(5.0, "idle")
    timer.arm(9.0, "later")
    assert world.wait(6) == []
    timer.arm(7.0, "earlier")
    assert world.wait(1.1) == ["earlier"]


def test_a_disarmed_or_dropped_timer_does_not_fire() -> None:
    world = World()
    one, two = world.deadlines.timer(world.fired.append), world.deadlines.timer(world.fired.append)
    one.arm(1.0, "one")
    two.arm(1.0, "two")
    one.disarm()
    two.drop()
    two.arm(2.0, "two")
    assert world.wait(5) == []
    one.arm(6.0, "again")
    assert world.wait(2) == ["again"]


def test_a_timer_may_be_armed_when_it_fires() -> None:
    world = World()

    def fire(reason: str) -> None:
        world.fired.append(reason)
        if reason == "first":
            timer.arm(3.0, "second")

    timer = world.deadlines.timer(fire)
    timer.arm(1.0, "first")
    assert world.wait(3.1) == ["first", "second"]


def test_dropped_timers_with_far_deadlines_leave_the_heap() -> None:
    world = World()
    for _ in range(100):
        timer = world.deadlines.timer(world.fired.append)
        timer.arm(86400.0, "idle")
        timer.drop()
    assert world.wait(61) == []
    assert world.deadlines._heap == []


def test_a_thousand_arms_of_a_busy_connection_queue_few_entries() -> None:
    world = World()
    timer = world.deadlines.timer(world.fired.append)
    for _ in range(1000):
        now = world.clock.monotonic()
        timer.arm(now + 10, "stalled")
        timer.disarm()
        timer.arm(now + 60, "idle")
        world.wait(0.1)
    assert world.fired == []
    assert len(world.deadlines._heap) < 20


def test_the_thread_carries_them_out() -> None:
    import threading
    import time

    from dicomguard.clock import SystemClock

    deadlines = Deadlines(SystemClock())
    deadlines.start()
    fired = threading.Event()
    deadlines.timer(lambda _: None).arm(time.monotonic() + 30, "far")
    deadlines.timer(lambda _: fired.set()).arm(time.monotonic() + 0.1, "near")
    assert fired.wait(5)
    deadlines.stop()
