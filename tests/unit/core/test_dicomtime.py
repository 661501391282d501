"""Dates and times as DICOM writes them."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicomguard.core import dicomtime

ZONES = st.integers(-12 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
MOMENTS = st.builds(
    lambda seconds, micro, zone: (datetime(2026, 1, 1, tzinfo=UTC) + timedelta(0, seconds, micro)).astimezone(zone),
    st.integers(-(10**9), 10**9), st.sampled_from([0, 1, 999999]), ZONES,
)  # fmt: skip


@given(MOMENTS)
def test_dt_round_trip(moment: datetime) -> None:
    text = dicomtime.dt(moment)
    assert len(text) <= 26
    whole = text if "." in text else f"{text[:14]}.0{text[14:]}"
    assert datetime.strptime(whole, "%Y%m%d%H%M%S.%f%z") == moment
    assert dicomtime.zone(dicomtime.offset(moment)) == moment.tzinfo


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
