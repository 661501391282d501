"""One number a slice: its strongest region against its own level and against the rest of its series."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicomguard.analyze import scores
from dicomguard.analyze.scores import UNCALIBRATED, Calibration, Look, Terms
from dicomguard.errors import Broken

C = replace(UNCALIBRATED, native_share=1.0, series_spread=2.0, series_zero=1.0, loose_zero=1.0)


def look(raw: float, level: float = -5.0, colour: float = 0.7, half: float = 0.0) -> Look:
    return Look(native=Terms(raw=raw, level=level), half=Terms(raw=half, level=level), colour=colour, smoothing=2.0)


def test_strongest_share_of_the_head_makes_the_raw_term() -> None:
    logits = np.full((100, 100), -4.0, dtype=np.float32)
    logits[10:20, 10:17] = 3.0
    head = np.ones((100, 100), dtype=bool)
    assert scores.terms(logits, head) == Terms(raw=3.0, level=-4.0)
    assert scores.terms(logits, ~head).raw < -10


def test_a_loud_series_is_no_alarm_but_its_loudest_slice_is() -> None:
    """A scanner whose every slice looks odd: raw strengths flag all, the middle of the series none."""
    values = scores.values([look(4.0)] * 7 + [look(9.0)], C)
    assert (values[:7] < 0).all() and values[7] > 0


def test_a_series_forged_throughout_is_louder_than_a_quiet_one() -> None:
    """Only a share of the middle is taken off."""
    assert scores.values([look(6.0)] * 8, C)[0] > scores.values([look(0.0)] * 8, C)[0]


def test_a_middle_that_no_authentic_series_has_is_not_taken_off() -> None:
    """Most slices forged: beside each other they are nothing special, beside authentic series they are."""
    loud, capped = [look(4.0)] * 8, replace(C, middle_most=2.0)
    assert (scores.values(loud, C) < 0).all()
    assert (scores.values(loud, capped) > 0).all()
    assert scores.edited_alike(loud, capped)
    assert not scores.edited_alike(loud, C)


def test_a_series_with_an_authentic_middle_is_scored_as_without_a_cap() -> None:
    slices = [look(0.0), look(0.5), look(-0.5), look(0.2), look(0.1), look(9.0)]
    capped = replace(C, middle_most=2.0)
    assert scores.values(slices, capped) == pytest.approx(scores.values(slices, C))
    assert not scores.edited_alike(slices, capped)


@given(st.lists(st.floats(-12, 12), min_size=5, max_size=40), st.integers(1, 50))
def test_each_slice_stands_beside_all_others_however_many_are_counted_at_once(
    strength: list[float], at_once: int
) -> None:
    """One slice after the other, as the text says it."""
    c, given_strengths = replace(C, middle_most=2.0), np.array(strength)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scores, "_AT_ONCE", at_once)
        found = scores.against_series(given_strengths, c)
    for i, value in enumerate(found):
        rest = np.delete(given_strengths, i)
        usual = np.median(rest)
        spread = 1.4826 * np.median(np.abs(rest - usual))
        assert value == (strength[i] - c.middle_share * min(usual, 2.0)) / np.hypot(c.series_spread, spread)


def test_loose_pictures_have_no_middle_to_be_edited_alike() -> None:
    assert not scores.edited_alike([look(9.0)] * 4, replace(C, middle_most=2.0))
    assert not scores.edited_alike([], C)


def test_a_slice_odd_everywhere_shows_less_than_one_odd_spot() -> None:
    spot = scores.values([look(0.0)] * 7 + [look(7.0)], C)[7]
    assert scores.values([look(0.0)] * 7 + [look(7.0, level=6.5)], C)[7] < spot


def test_few_slices_are_judged_each_alone() -> None:
    """(raw - level / 2) / spread - zero, whatever the others are."""
    assert scores.values([look(2.0)], C)[0] == pytest.approx((2.0 + 2.5) / 2 - 1)
    assert scores.values([look(2.0), look(9.0)], C)[0] == pytest.approx((2.0 + 2.5) / 2 - 1)


def test_white_noise_is_read_at_the_half_scale() -> None:
    c = replace(C, native_share_white=0.0)
    assert scores.strengths([look(9.0, half=1.0, colour=1.2)], c, 0.0)[0] == 1.0
    assert scores.strengths([look(9.0, half=1.0, colour=0.7)], c, 0.0)[0] == 9.0
    between = scores.strengths([look(9.0, half=1.0, colour=0.975)], c, 0.0)[0]
    assert between == pytest.approx(5.0), "no step: series of one archive lie on both sides of any line"


def test_calibration_survives_its_record_and_refuses_another() -> None:
    assert Calibration.from_record(UNCALIBRATED.to_record()) == UNCALIBRATED
    earlier = {name: value for name, value in UNCALIBRATED.to_record().items() if name != "middle_most"}
    assert Calibration.from_record(earlier).middle_most == scores.NO_MOST
    with pytest.raises(Broken):
        Calibration.from_record({**UNCALIBRATED.to_record(), "extra": 1.0})
    with pytest.raises(Broken):
        Calibration.from_record({"slope": 1.0})


@given(st.floats(-20, 20))
def test_logit_inverts_the_sigmoid(value: float) -> None:
    assert scores.logit(scores.probability(value, 1.0, 0.0)) == pytest.approx(value, abs=1e-3)
