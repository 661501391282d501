"""Curves against values worked out by hand, and against plants whose answer is known."""

import numpy as np
import pytest

from dicomguard.retrain.evaluate import curves, metrics
from dicomguard.retrain.evaluate.curves import Marked


def test_roc_by_hand_and_its_area() -> None:
    assert curves.roc([3, 2], [1, 2]) == ((0.0, 0.0), (0.0, 0.5), (0.5, 1.0), (1.0, 1.0))
    assert curves.roc([], [1.0]) == ()
    rng = np.random.default_rng(0)
    positive, negative = rng.normal(1, 1, 30).tolist(), rng.normal(0, 1, 40).tolist()
    points = curves.roc(positive, negative)
    area = np.trapezoid([y for _, y in points], [x for x, _ in points])
    assert area == pytest.approx(metrics.auc(positive, negative), abs=2e-3)


def units() -> list[Marked]:
    """Four studies: found at 0.9; found at 0.5 behind a false mark at 0.7; missed; authentic with a false mark 0.2."""
    return [
        Marked(patient="a", marks=((0.9, True), (0.3, True)), wanted=True),
        Marked(patient="b", marks=((0.5, True), (0.7, False)), wanted=True),
        Marked(patient="c", marks=(), wanted=True),
        Marked(patient="d", marks=((0.2, False),), wanted=False),
    ]


def test_froc_by_hand() -> None:
    found = curves.froc(units())
    assert found is not None
    assert (found.units, found.wanted) == (4, 3)
    assert [false for false, _ in found.curve] == [0, 0, 0.25, 0.25, 0.5]
    assert [hit for _, hit in found.curve] == pytest.approx([0, 1 / 3, 1 / 3, 2 / 3, 2 / 3], abs=1e-4)
    assert found.at == pytest.approx((1 / 3, 2 / 3, 2 / 3, 2 / 3, 2 / 3, 2 / 3))
    assert found.at_half.low <= 2 / 3 <= found.at_half.high
    assert curves.froc([units()[3]]) is None


def test_false_marks_that_outscore_every_hit_cost_sensitivity() -> None:
    noisy = [
        Marked(patient=u.patient, marks=(*u.marks, (0.95, False), (0.96, False)), wanted=u.wanted) for u in units()
    ]
    found = curves.froc(noisy)
    assert found is not None
    assert found.at[2] == 0.0
    assert found.at[-1] == pytest.approx(2 / 3)


def test_reliability_of_honest_and_of_boastful_probabilities() -> None:
    rng = np.random.default_rng(1)
    p = rng.uniform(0, 1, 20000)
    truth = (rng.uniform(0, 1, 20000) < p).tolist()
    honest = curves.reliability(p.tolist(), truth, prevalence=0.5)
    boastful = curves.reliability(np.sqrt(p).tolist(), truth, prevalence=0.5)
    assert honest is not None
    assert boastful is not None
    assert honest.ece < 0.02
    assert honest.brier == pytest.approx(1 / 6, abs=0.01)
    # The mean of √p − p over 0…1 is 1/6.
    assert boastful.ece == pytest.approx(1 / 6, abs=0.02)
    assert len(honest.bins) == 15
    assert sum(mass for _, _, mass in honest.bins) == pytest.approx(1, abs=1e-3)
    assert curves.reliability([0.5], [True], prevalence=0.5) is None


def test_prevalence_weighs_the_two_sides() -> None:
    said, truth = [0.5] * 100, [True] * 50 + [False] * 50
    rare = curves.reliability(said, truth, prevalence=0.01)
    assert rare is not None
    assert rare.ece == pytest.approx(0.49)


def test_the_detection_limit_that_was_planted() -> None:
    rng = np.random.default_rng(2)
    areas = np.exp2(rng.uniform(6, 12, 3000)).astype(int)
    chance = 1 / (1 + np.exp(-2 * (np.log2(areas) - np.log2(400))))
    limit = curves.detection_limit(areas.tolist(), (rng.uniform(0, 1, 3000) < chance).tolist())
    assert limit is not None
    assert limit.area_px == pytest.approx(400, rel=0.1)
    assert limit.slope == pytest.approx(2, rel=0.15)


def test_no_limit_where_size_does_not_help_or_lies_outside() -> None:
    areas = [100, 200, 400, 800] * 10
    against = curves.detection_limit(areas, [area < 300 for area in areas])
    assert against is not None
    assert against.area_px is None
    assert curves.detection_limit(areas, [True] * 40) is None
    rarely = curves.detection_limit(areas, [area == 800 and index % 20 == 3 for index, area in enumerate(areas)])
    assert rarely is not None
    assert rarely.area_px is None
