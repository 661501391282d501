import time
from datetime import UTC, datetime, timedelta

import pytest

from dicomguard.clock import FakeClock
from dicomguard.errors import Refused, Unavailable
from dicomguard.retrain.schedule import Schedule, due, trigger

SATURDAY = "0 2 * * 6"
NIGHT = datetime(2026, 11, 28, 1, 0, tzinfo=UTC)  # 02:00 in Berlin
LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("cron", "zone", "now", "expected"),
    [
        (SATURDAY, "Europe/Berlin", NIGHT, "retrain-2026-W48"),
        (SATURDAY, "Europe/Berlin", NIGHT - timedelta(seconds=1), "retrain-2026-W47"),
        # 01:00 UTC is not yet two o'clock there.
        (SATURDAY, "UTC", NIGHT, "retrain-2026-W47"),
        (SATURDAY, "Europe/Berlin", NIGHT + timedelta(days=6, hours=23), "retrain-2026-W48"),
        # The first days of January belong to the last week of the year before (ISO 8601).
        ("0 2 * * fri", "UTC", datetime(2027, 1, 1, 3, tzinfo=UTC), "retrain-2026-W53"),
        # Cron's Sunday is 0 and 7.
        ("0 2 * * 0", "UTC", datetime(2026, 11, 29, 3, tzinfo=UTC), "retrain-2026-W48"),
        ("0 2 * * 7", "UTC", datetime(2026, 11, 29, 3, tzinfo=UTC), "retrain-2026-W48"),
        ("0 2 * * 1-5", "UTC", datetime(2026, 11, 29, 3, tzinfo=UTC), "retrain-2026-11-27"),
        ("0 2 * * *", "UTC", datetime(2026, 11, 29, 3, tzinfo=UTC), "retrain-2026-11-29"),
        ("30 */6 * * *", "UTC", datetime(2026, 11, 29, 7, tzinfo=UTC), "retrain-2026-11-29T0630"),
        # Once a month: nothing in the last eight days.
        ("0 2 1 * *", "UTC", datetime(2026, 11, 29, 3, tzinfo=UTC), None),
    ],
)
def test_period_that_is_due(cron: str, zone: str, now: datetime, expected: str | None) -> None:
    assert due(cron, zone, now=now, since=LONG_AGO) == expected


@pytest.mark.parametrize(
    ("weekdays", "expected"),
    [
        ("0-4", "sun mon tue wed thu"),
        ("0-6", "sun mon tue wed thu fri sat"),
        ("0-7", "sun mon tue wed thu fri sat"),
        ("1-5", "mon tue wed thu fri"),
        ("5-7", "sun fri sat"),
        ("5-0", "sun fri sat"),
        ("sun-thu", "sun mon tue wed thu"),
        ("SAT-SUN", "sun sat"),
        ("7", "sun"),
        ("0,3", "sun wed"),
        ("0-1,fri", "sun mon fri"),
        ("0-6/2", "sun tue thu sat"),
        ("1-5/2", "mon wed fri"),
        ("*/2", "sun tue thu sat"),
        ("1/3", "sun mon thu"),
        ("*", "sun mon tue wed thu fri sat"),
    ],
)
def test_weekdays_are_those_of_cron(weekdays: str, expected: str) -> None:
    sunday = datetime(2026, 11, 22, tzinfo=UTC)
    days = [sunday + timedelta(days=day, hours=3) for day in range(7)]
    firings = trigger(f"0 2 * * {weekdays}", "UTC")
    fired = [day for day in days if firings.get_next_fire_time(None, day - timedelta(hours=2)) < day]
    assert [f"{day:%a}".lower() for day in fired] == expected.split()


@pytest.mark.parametrize("weekdays", ["8", "4-2", "0-8", "*/0", "1-5/8", "mon/x", "someday", "1-", "*-3", ","])
def test_weekdays_that_are_none_are_refused(weekdays: str) -> None:
    with pytest.raises(Refused, match="Write minute hour day month weekday"):
        trigger(f"0 2 * * {weekdays}", "UTC")


def test_a_new_node_owes_no_run_for_the_time_before_it() -> None:
    monday = datetime(2026, 11, 30, 9, tzinfo=UTC)
    assert due(SATURDAY, "UTC", now=monday, since=monday - timedelta(hours=1)) is None
    assert due(SATURDAY, "UTC", now=monday + timedelta(days=6), since=monday) == "retrain-2026-W49"


@pytest.mark.parametrize("cron", ["", "every saturday", "0 25 * * 6", "0 2 * *"])
def test_an_impossible_cron_is_refused_with_an_example(cron: str) -> None:
    with pytest.raises(Refused, match="Write minute hour day month weekday"):
        due(cron, "UTC", now=NIGHT)


def test_at_start_a_missed_period_is_asked_for_and_again_when_that_failed() -> None:
    clock = FakeClock(NIGHT + timedelta(hours=5))
    asked: list[str] = []

    def enqueue(period: str) -> None:
        if not asked:
            asked.append("failed")
            raise Unavailable("The database does not answer. Wait.")
        asked.append(period)

    with Schedule(enqueue, cron=SATURDAY, timezone="Europe/Berlin", clock=clock, since=LONG_AGO, look_s=0.05):
        deadline = time.monotonic() + 5
        while len(asked) < 3 and time.monotonic() < deadline:
            time.sleep(0.02)
    assert asked[:3] == ["failed", "retrain-2026-W48", "retrain-2026-W48"]


def test_no_cron_never_asks() -> None:
    def enqueue(period: str) -> None:
        raise AssertionError(period)

    with Schedule(enqueue, cron="", timezone="UTC", clock=FakeClock(NIGHT), since=LONG_AGO) as schedule:
        schedule.close()


def test_trap_18_a_clock_that_jumps_and_a_second_scheduler_ask_for_no_more_than_the_periods() -> None:
    """Three weeks forward in one step owe one run, backward none that is new; two schedulers name the same period."""
    clock = FakeClock(NIGHT + timedelta(hours=5))
    asked: list[str] = []
    schedules = [
        Schedule(asked.append, cron=SATURDAY, timezone="Europe/Berlin", clock=clock, since=LONG_AGO) for _ in range(2)
    ]
    for jump in (timedelta(0), timedelta(weeks=3), timedelta(weeks=-3)):
        clock.advance(jump)
        for schedule in schedules:
            schedule.look()
    assert asked == ["retrain-2026-W48"] * 2 + ["retrain-2026-W51"] * 2 + ["retrain-2026-W48"] * 2
