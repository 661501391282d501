"""Calibration: the rule holds on the source where it is hardest, and 0.5 is the alert."""

from dataclasses import replace

import numpy as np
import pytest

from dicomguard.analyze import scores
from dicomguard.analyze.regions_map import Candidate
from dicomguard.errors import Refused
from dicomguard.retrain.net import calibrate
from dicomguard.retrain.net.shown import Run
from tests.unit.retrain.net.looks import run, runs


def kinds() -> list[Run]:
    """Forged runs whose region says, with noise, whether it was put in; its lesion logit says nothing."""
    rng = np.random.default_rng(1)
    made = []
    box = np.zeros((4, 4), dtype=bool)
    box[1:3, 1:3] = True
    for k in range(40):
        kind, side = (("added", 1.0), ("removed", -1.0))[k % 2]
        one = run("quiet", list(rng.normal(0, 0.5, 10)), family="splice", forged=(4,))
        region = Candidate(
            box=(1.0, 1.0, 3.0, 3.0), mask=box, weaker=0.0, lesion=rng.normal(), added=3.0 + side + 0.6 * rng.normal()
        )
        seen = [replace(s, regions=(region,)) if i == 4 else s for i, s in enumerate(one.seen)]
        made.append(replace(one, kind=kind, seen=tuple(seen), masks={4: box}))
    return made


def test_added_and_removed_are_told_apart_without_a_lean() -> None:
    c = calibrate.fit([*runs(), *kinds()]).calibration
    assert c.added_slope > 5 * c.added_lesion_slope
    # The map leans by three logits to "added"; the fit takes that back.
    assert -c.added_bias / c.added_slope == pytest.approx(3.0, abs=0.3)


def test_alert_is_rare_in_every_source_and_finds_what_stands_out() -> None:
    made = runs()
    fitted = calibrate.fit(made)
    c = fitted.calibration
    values = calibrate.slice_values(made, c)
    for source in ("quiet", "loud"):
        authentic = np.concatenate(
            [v for r, v in zip(made, values, strict=True) if not r.family and r.pixels.series.source == source]
        )
        assert (authentic >= 0).mean() <= 0.08
    forged, authentic = calibrate._split(made, calibrate.slice_values(made, c))
    assert (forged >= 0).mean() > 0.6
    assert fitted.point.forgery == calibrate.ALERT and fitted.point.n_authentic == 240
    assert fitted.point.flagged == int((authentic >= 0).sum())


def test_slices_looked_at_alone_set_the_alert_of_loose_pictures_and_nothing_else() -> None:
    made = runs()
    pictures = [run("pictures", [float(v)]) for v in np.random.default_rng(1).normal(0, 1, 40)]
    alone = [replace(run("loud", [float(v)]), excerpt=True) for v in np.random.default_rng(2).normal(4, 1, 40)]
    without, fitted = calibrate.fit([*made, *pictures]), calibrate.fit([*made, *pictures, *alone])
    assert fitted.point.n_authentic == without.point.n_authentic
    assert fitted.calibration.series_zero == without.calibration.series_zero
    values = np.concatenate([scores.values([seen.look for seen in r.seen], fitted.calibration) for r in alone])
    assert (values >= 0).mean() <= 0.05


def test_few_people_are_flagged_by_any_of_their_pictures() -> None:
    """Of three pictures each with a point that one in twenty pictures reaches, one person in seven would be."""
    pictures = []
    for k, values in enumerate(np.random.default_rng(3).normal(4, 1, (60, 3))):
        for value in values:
            one = run("pictures", [float(value)])
            series = replace(one.pixels.series, patient=f"p{k}")
            pictures.append(replace(one, pixels=replace(one.pixels, series=series)))
    c = calibrate.fit([*runs(), *pictures]).calibration
    flagged = {r.pixels.series.patient for r in pictures if scores.values([s.look for s in r.seen], c)[0] >= 0}
    assert 1 <= len(flagged) <= 3


def test_a_number_means_the_same_for_a_picture_and_a_slice_of_a_stack() -> None:
    """The alert of pictures is far from most of them; in a spread of their own they would all lie below any stack."""
    rng = np.random.default_rng(4)
    pictures = [run("pictures", [float(value)]) for value in (*rng.normal(0, 1, 38), 9.0, 10.0)]
    made = [*runs(), *pictures]
    c = calibrate.fit(made).calibration
    values = calibrate.slice_values(made, c)
    stacks, alone = (
        np.concatenate([v for r, v in zip(made, values, strict=True) if not r.family and (len(v) < 5) == loose])
        for loose in (False, True)
    )
    assert np.median(alone) == pytest.approx(np.median(stacks), abs=0.05)
    assert 0 < (alone >= 0).sum() <= 2


def test_a_scale_that_only_brings_pictures_to_the_level_of_stacks_has_no_share_for_that() -> None:
    """Within pictures and within stacks the native scale tells everything here, and the half scale is noise."""
    rng = np.random.default_rng(5)

    def seen_twice(one: Run, level: float) -> Run:
        seen = []
        for s in one.seen:
            native = replace(s.look.native, raw=s.look.native.raw + level)
            half = replace(s.look.half, raw=float(rng.normal(-level, 2)))
            seen.append(replace(s, look=replace(s.look, native=native, half=half)))
        return replace(one, seen=tuple(seen))

    pictures = [run("quiet", [float(v)]) for v in rng.normal(0, 0.5, 40)]
    pictures += [run("quiet", [float(v)], family="splice", forged=(0,)) for v in rng.normal(5, 0.5, 40)]
    stacks = [one for one in runs() if one.pixels.series.source == "quiet"]
    made = [*(seen_twice(one, 0.0) for one in stacks), *(seen_twice(one, 20.0) for one in pictures)]
    assert calibrate.fit(made).calibration.native_share >= 0.8


def test_a_stack_forged_throughout_is_found_and_no_authentic_one_is_scored_otherwise_for_that() -> None:
    made = runs()
    c = calibrate.fit(made).calibration
    uncapped = replace(c, middle_most=scores.NO_MOST)
    throughout = run("quiet", [6.0, 6.5, 5.5, 6.2, 5.8, 6.1, 5.9, 6.4], family="splice", forged=tuple(range(8)))
    assert (calibrate.slice_values([throughout], uncapped)[0] < 0).all()
    assert (calibrate.slice_values([throughout], c)[0] >= 0).all()
    authentic = [one for one in made if not one.family]
    for before, after in zip(
        calibrate.slice_values(authentic, uncapped), calibrate.slice_values(authentic, c), strict=True
    ):
        assert (before == after).all()


def test_short_stacks_have_part_in_what_middle_authentic_series_have_and_pictures_have_none() -> None:
    whole = [run("quiet", [0.0] * 10), run("quiet", [0.0] * 10, family="splice", forged=(4,))]
    loud = replace(run("quiet", [2.0] * 6), excerpt=True)
    picture = replace(run("quiet", [9.0]), excerpt=True)
    c = scores.UNCALIBRATED
    # Strengths are one logit above `raw`, a quarter of the level.
    assert calibrate._middle_most([*whole, picture], c) == pytest.approx(1.0 + calibrate._MIDDLE_MARGIN)
    assert calibrate._middle_most([*whole, picture, loud], c) == pytest.approx(3.0 + calibrate._MIDDLE_MARGIN)
    assert calibrate._middle_most([picture], c) == scores.NO_MOST


def test_only_one_kind_of_runs_is_refused() -> None:
    with pytest.raises(Refused):
        calibrate.fit([r for r in runs() if not r.family])


def test_upper_bound_is_the_books() -> None:
    assert calibrate.upper_bound(0, 30) == pytest.approx(0.095, abs=0.001)
    assert calibrate.upper_bound(2, 100) == pytest.approx(0.062, abs=0.001)
    assert calibrate.upper_bound(5, 5) == 1.0


def test_auc_counts_ties_half() -> None:
    assert calibrate.auc(np.array([1.0, 2.0]), np.array([0.0, 1.0])) == 0.875


@pytest.mark.parametrize(("stacks", "at_most"), [(9, 0.10), (19, 0.05), (60, 0.05), (200, 0.05)])
def test_a_new_authentic_stack_is_flagged_as_rarely_as_said(stacks: int, at_most: float) -> None:
    """Of a percentile of 19 stacks, 0.90, twelve in a hundred new ones would lie above."""
    rng = np.random.default_rng(4)
    passed = [rng.normal() >= calibrate._rarely_passed(rng.normal(size=stacks)) for _ in range(4000)]
    assert 0.6 * at_most < np.mean(passed) < at_most + 0.012


@pytest.mark.parametrize("of", ["part", "trained"])
def test_stacks_of_every_origin_have_part_in_the_score_of_studies_and_in_nothing_else(of: str) -> None:
    """Of 24 whole ones none stands out; with six that do, parts or trained stacks, the alert lies at them."""
    made = [*runs(), *kinds()]
    loud = [replace(one, family="", kind="", forged=(), masks={}, excerpt=of == "part") for one in kinds()[:6]]
    without = calibrate.fit(made).calibration
    fitted = (calibrate.fit([*made, *loud]) if of == "part" else calibrate.fit(made, trained=iter(loud))).calibration
    assert all(calibrate.study_scores(one, without)[0] > calibrate.ALERT for one in loud)
    assert sum(calibrate.study_scores(one, fitted)[0] >= calibrate.ALERT for one in loud) <= 1
    named = ("study_slope", "study_bias", "lone_cost")
    same = {name: getattr(without, name) for name in named}
    assert replace(fitted, **same) == without


def test_where_costs_of_a_lone_slice_cannot_be_told_apart_the_most_careful_is_taken() -> None:
    assert calibrate.fit([*runs(), *kinds()]).calibration.lone_cost == max(calibrate._LONE_COSTS)


def tracked(logit: float, *slices: int, family: str = "") -> Run:
    """A stack of ten slices with one region on some of them, of this logit there by the uncalibrated numbers."""
    box = np.zeros((4, 4), dtype=bool)
    box[1:3, 1:3] = True
    region = Candidate(box=(1.0, 1.0, 3.0, 3.0), mask=box, weaker=0.0, lesion=0.0, added=0.0)
    c = scores.UNCALIBRATED
    # Strengths are one logit above `raw` (a quarter of the level), the others' middle is 1 and their spread the least.
    raw = (logit + c.series_zero) * c.series_spread + c.middle_share - 1
    one = run("quiet", [raw if i in slices else 0.0 for i in range(10)], family=family, forged=slices if family else ())
    return replace(
        one, seen=tuple(replace(s, regions=(region,) if i in slices else ()) for i, s in enumerate(one.seen))
    )


@pytest.mark.parametrize(("authentic", "taken"), [(0.5, 1.0), (1.25, 0.5), (1.75, 0.0)])
def test_a_cost_that_puts_lone_forgeries_below_authentic_tracks_is_not_taken(authentic: float, taken: float) -> None:
    """Forged on a lone slice with a logit of 2, authentic over three slices: the cost is theirs who are forged."""
    made = [tracked(2.0, 4, family="splice") for _ in range(12)] + [tracked(authentic, 4, 5, 6) for _ in range(12)]
    assert calibrate._study(made, [], scores.UNCALIBRATED).lone_cost == taken


def test_a_cost_that_loses_less_than_can_be_told_is_taken() -> None:
    forged = [tracked(logit, 4, family="splice") for logit in (2.0, *[4.0] * 19)]
    made = [*forged, tracked(1.25, 4, 5, 6), *(tracked(0.0, 4, 5, 6) for _ in range(19))]
    # One pair of 400 changes places at the dearest.
    assert calibrate._study(made, [], scores.UNCALIBRATED).lone_cost == 1.0
