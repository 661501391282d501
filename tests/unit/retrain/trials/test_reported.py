"""The tables of what is reported, on stacks made so that every figure is known."""

from dataclasses import replace

import numpy as np
import pytest

from dicomguard.analyze.net.detector import Seen
from dicomguard.analyze.regions_map import Candidate
from dicomguard.analyze.scores import UNCALIBRATED, Look, Terms
from dicomguard.retrain.net.shown import Run
from dicomguard.retrain.trials import reported
from tests.unit.retrain.net import looks

CALIBRATION = replace(UNCALIBRATED, series_spread=1.0, series_zero=3.0, study_slope=1.0, study_bias=0.0)


def disc(radius: int) -> np.ndarray:
    y, x = np.mgrid[0:40, 0:40]
    return np.hypot(y - 20, x - 20) <= radius


def stack(raw: list[float], *, forged: tuple[int, ...] = ()) -> Run:
    """Every slice has its strongest place in the middle, three pixels short of what was forged there."""
    run = looks.run("clinic", raw, family="splice" if forged else "", forged=forged)
    seen = tuple(
        Seen(
            look=Look(native=Terms(raw=r, level=0.0), half=Terms(raw=r, level=0.0), colour=0.7, smoothing=2.0),
            regions=(Candidate(box=(15, 15, 25, 25), mask=disc(6), weaker=0.0, lesion=0.0, added=0.0),),
        )
        for r in raw
    )
    return replace(run, seen=seen, masks={plane: disc(9) for plane in forged})


FORGED = stack([0, 0, 0, 0, 9, 9, 0, 0, 0, 0], forged=(4, 5))
QUIET = stack([0.0] * 10)


def test_ends_that_no_slice_shows_are_counted_apart() -> None:
    assert reported.ends([FORGED, QUIET], CALIBRATION) == {"kept": [2, 2], "cut": [0, 8]}


def test_slices_of_real_lesions_are_counted_apart_too() -> None:
    (first, *_) = QUIET.seen
    tumor = {2: 6.0, 3: 6.0, 4: 6.0, 5: -1.0, 6: -3.0}
    seen = tuple(
        replace(first, regions=(replace(first.regions[0], lesion=tumor[i]),) if i in tumor else ()) for i in range(10)
    )
    lesions = {i: disc(6) if 2 <= i <= 4 else disc(0) & False for i in range(10)}
    run = replace(QUIET, seen=seen, lesions=lesions)
    assert run.pixels.series.lesion_known
    assert reported.lesion_ends([run, FORGED], CALIBRATION) == {"kept": [3, 4], "cut": [0, 1]}


def test_the_rim_that_fits_has_the_best_figures() -> None:
    rows = [reported.fit([FORGED, QUIET], CALIBRATION, rim_px=rim) for rim in (0, 3)]
    assert [row["slices"] for row in rows] == [2, 2]
    assert rows[0]["f1"] < 0.65 and rows[1]["f1"] > 0.95
    assert rows[1]["iou"] == pytest.approx(rows[1]["f1"] / (2 - rows[1]["f1"]), abs=1e-3)
    assert reported.fit([QUIET], CALIBRATION, rim_px=0) == {"slices": 0, "f1": None, "iou": None}


def test_the_same_stack_counts_for_less_among_others() -> None:
    alone, among = (reported.flagged([FORGED, QUIET], CALIBRATION, stacks=k) for k in (1, 100_000))
    assert alone == {"forged": [1, 1], "authentic": [0, 1]}
    assert among == {"forged": [0, 1], "authentic": [0, 1]}
    scores = (0.2, 0.5, 0.6, 0.9)
    assert reported.known(scores, CALIBRATION, stacks=1) == {"known_authentic": [3, 4]}
    assert reported.known(scores, CALIBRATION, stacks=2) == {"known_authentic": [1, 4]}


def test_the_tables_are_sentences() -> None:
    table = {
        "ends": reported.ends([FORGED], CALIBRATION),
        "lesion_ends": reported.lesion_ends([FORGED], CALIBRATION),
        "rims": [{"rim_px": 0, **reported.fit([FORGED], CALIBRATION, rim_px=0)}],
        "stacks": [
            {"stacks": 1, **reported.flagged([FORGED], CALIBRATION, stacks=1), "known_authentic": [1, 4]},
        ],
    }
    assert reported.lines(table)[0] == "slices of flagged regions, kept: 2 of 2 show the forgery"
    assert reported.lines(table)[-1].endswith("forged 1 of 1, authentic 0 of 0, known authentic 1 of 4")
