"""Dates and times as DICOM writes them."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicomguard.core import dicomtime
from dicomguard.errors import Refused

ZONES = st.integers(-12 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
MOMENTS = st.builds(
    lambda seconds, micro, zone: (datetime(2026, 1, 1, tzinfo=UTC) + timedelta(0, seconds, micro)).astimezone(zone),
    st.integers(-(10**9), 10**9), st.sampled_from([0, 1, 999999]), ZONES,
)  # fmt: skip


@given(MOMENTS)
def test_dt_round_trip(moment: datetime) -> None:
    text = dicomtime.dt(moment)
    assert len(text) <= 26
    assert dicomtime.parse_dt(text, default=UTC) == moment
    assert dicomtime.zone(dicomtime.offset(moment)) == moment.tzinfo


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026", "2026-01-01T00:00:00+00:00"),
        ("20261124003000.5+0200", "2026-11-24T00:30:00.500000+02:00"),
        ("202611240030-0330", "2026-11-24T00:30:00-03:30"),
    ],
)
def test_partial_values(text: str, expected: str) -> None:
    assert dicomtime.parse_dt(text, default=UTC).isoformat() == expected


@pytest.mark.parametrize("text", ["", "2026-11-24", "20261301", "20260230", "20261124000000+9900", "2026112400+0260"])
def test_impossible_values_are_refused(text: str) -> None:
    with pytest.raises(Refused, match=r"Write|Use|Correct"):
        dicomtime.parse_dt(text, default=UTC)


@pytest.mark.parametrize("text", ["", "0200", "+2", "+1500", "-1300", "+0260", "+02:00"])
def test_malformed_offset_is_none(text: str) -> None:
    assert dicomtime.zone(text) is None


def test_text() -> None:
    moment = datetime(2026, 11, 24, 0, 30, tzinfo=timezone(timedelta(hours=-3, minutes=-30)))
    assert (dicomtime.da(moment), dicomtime.tm(moment), dicomtime.offset(moment)) == ("20261124", "003000", "-0330")
    assert dicomtime.tm(moment.replace(microsecond=120)) == "003000.000120"
    assert dicomtime.zone("-0330 ") == moment.tzinfo


def test_naive_time_is_a_bug() -> None:
    with pytest.raises(ValueError, match="no zone"):
        dicomtime.da(datetime(2026, 11, 24))  # noqa: DTZ001
