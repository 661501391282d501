"""When a study is complete: a table without a clock."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicomguard.core.completion import Activity, Close, Patience, Wait, decide

START = datetime(2026, 11, 24, 8, 0, tzinfo=UTC)
PATIENCE = Patience(quiet=timedelta(seconds=60), longest=timedelta(minutes=30))


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("last", "open_associations", "now", "forced_by", "on_hold", "expected"),
    [
        # last + quiet = 10 + 60
        (10, 0, 69, "", False, Wait(at(70))),
        (10, 0, 70, "", False, Close("no instance for 0:01:00")),
        # An open association holds the study up to the longest wait …
        (10, 1, 500, "", False, Wait(at(1800))),
        # … and not longer.
        (1799, 1, 1800, "", False, Close("longest wait of 0:30:00 is over")),
        # The quiet time may not reach past the longest wait.
        (1790, 0, 1795, "", False, Wait(at(1800))),
        (10, 2, 11, "admin", False, Close("forced by admin")),
        (10, 0, 5000, "admin", True, Wait(at(5060))),
    ],
)
def test_table(
    last: float, open_associations: int, now: float, forced_by: str, on_hold: bool, expected: Close | Wait
) -> None:
    activity = Activity(first_received_at=START, last_received_at=at(last), associations_open=open_associations)
    assert decide(activity, PATIENCE, now=at(now), forced_by=forced_by, on_hold=on_hold) == expected


@given(last=st.integers(0, 4000), open_associations=st.integers(0, 3), now=st.integers(0, 6000))
def test_asking_at_the_time_named_gives_an_answer_or_a_later_time(last: int, open_associations: int, now: int) -> None:
    activity = Activity(first_received_at=START, last_received_at=at(last), associations_open=open_associations)
    answer = decide(activity, PATIENCE, now=at(now))
    if isinstance(answer, Wait):
        assert answer.until > at(now)
        assert isinstance(decide(activity, PATIENCE, now=answer.until), Close)


@pytest.mark.parametrize(
    ("released", "open_associations", "quiet_s", "expected"),
    [
        (False, 0, 60, Wait(at(70))),
        (True, 0, 60, Wait(at(30))),
        # Never longer than the general patience.
        (True, 0, 5, Wait(at(15))),
        # One that is open still holds the study, whatever the others did.
        (True, 1, 60, Wait(at(1800))),
    ],
)
def test_an_orderly_release_shortens_the_wait(
    released: bool, open_associations: int, quiet_s: int, expected: Wait
) -> None:
    activity = Activity(
        first_received_at=START, last_received_at=at(10), associations_open=open_associations, released=released
    )
    patience = Patience(quiet=timedelta(seconds=quiet_s), longest=timedelta(minutes=30))
    assert decide(activity, patience, now=at(11)) == expected
    if not open_associations:
        assert isinstance(decide(activity, patience, now=expected.until), Close)
