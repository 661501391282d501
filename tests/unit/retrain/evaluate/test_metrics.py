"""Each figure against a value worked out by hand or by another formula."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicomguard.retrain.evaluate import metrics

scores = st.lists(st.integers(0, 5).map(float), min_size=1, max_size=12)


def test_auc_by_hand() -> None:
    # Pairs: 3>1, 3>2, 3>3 half, 2>1, 2=2 half, 2<3: 4 of 6.
    assert metrics.auc([3, 2], [1, 2, 3]) == pytest.approx(4 / 6)
    assert metrics.auc([], [1.0]) is None
    assert metrics.auc([1.0], []) is None


@given(scores, scores)
def test_auc_is_the_share_of_won_pairs(positive: list[float], negative: list[float]) -> None:
    won = np.mean([(p > n) + 0.5 * (p == n) for p in positive for n in negative])
    assert metrics.auc(positive, negative) == pytest.approx(won)


@given(scores, scores, st.integers(0, 100))
def test_the_interval_holds_the_same_estimate(positive: list[float], negative: list[float], seed: int) -> None:
    names = [f"p{i % 3}" for i in range(12)]
    found = metrics.draw_auc(positive, names[: len(positive)], negative, names[: len(negative)], draws=50, seed=seed)
    assert found is not None
    between = found.interval()
    assert between.value == pytest.approx(metrics.auc(positive, negative))
    assert 0 <= between.low <= between.high <= 1


def test_one_patient_has_no_spread_and_many_have() -> None:
    rng = np.random.default_rng(0)
    positive, negative = (rng.normal(1, 1, 40)).tolist(), rng.normal(0, 1, 40).tolist()
    names = [f"p{i}" for i in range(40)]
    one, each = (metrics.draw_auc(positive, of, negative, of) for of in (["a"] * 40, names))
    assert one is not None and each is not None
    alone, many = one.interval(), each.interval()
    assert alone.low == alone.high == pytest.approx(alone.value)
    assert many.high - many.low > 0.1
    assert many.low < many.value < many.high


def test_slices_of_few_patients_widen_the_interval() -> None:
    rng = np.random.default_rng(1)
    shift = np.repeat(rng.normal(0, 1, 6), 20)
    positive, negative = (1 + shift + rng.normal(0, 0.3, 120)).tolist(), (shift + rng.normal(0, 0.3, 120)).tolist()
    people, slices = [f"p{i // 20}" for i in range(120)], [f"s{i}" for i in range(120)]
    drawn = [metrics.draw_auc(positive, of, negative, of) for of in (people, slices)]
    by_person, by_slice = (one.interval() for one in drawn if one is not None)
    assert by_person.high - by_person.low > 1.3 * (by_slice.high - by_slice.low)


@pytest.mark.parametrize(
    ("flagged", "of", "bound"),
    [(0, 30, 0.095), (0, 60, 0.0487), (1, 60, 0.0766), (0, 100, 0.0295), (2, 100, 0.0617), (3, 150, 0.0511)],
)
def test_the_upper_bound_of_published_tables(flagged: int, of: int, bound: float) -> None:
    assert metrics.upper_bound(flagged, of) == pytest.approx(bound, abs=6e-4)


def test_the_upper_bound_at_its_ends() -> None:
    assert metrics.upper_bound(0, 0) == 1.0
    assert metrics.upper_bound(5, 5) == 1.0


def test_overlap() -> None:
    predicted, true = np.zeros((4, 4), np.bool_), np.zeros((4, 4), np.bool_)
    predicted[0, :3], true[0, 1:] = True, True
    found = metrics.overlap(predicted, true)
    assert found.f1 == pytest.approx(2 / 3)
    assert found.iou == pytest.approx(1 / 2)
    ignored = np.zeros((4, 4), np.bool_)
    ignored[0, 0] = True
    assert metrics.overlap(predicted, true, ignored).f1 == pytest.approx(4 / 5)
    nothing = np.zeros((4, 4), np.bool_)
    assert metrics.overlap(nothing, true).f1 == 0
    assert metrics.overlap(nothing, nothing).f1 == 1


def test_confusion() -> None:
    table = metrics.confusion(["a", "a", "b", "b"], ["a", "b", "b", "b"], ["a", "b", "c"])
    assert table.counts == ((1, 1, 0), (0, 2, 0), (0, 0, 0))
    # a: 2·1/(2+1), b: 2·2/(2+3); c never occurs.
    assert table.macro_f1 == pytest.approx((2 / 3 + 4 / 5) / 2)
    many = metrics.confusion(["a", "a", *["b"] * 20], ["a", "b", *["b"] * 20], ["a", "b", "c"])
    assert many.even_f1 == pytest.approx(table.even_f1), "as many of one truth as of the other, however many were made"
    with pytest.raises(ValueError, match="'x'"):
        metrics.confusion(["a"], ["x"], ["a"])


def test_alike_compares_within_strata_only() -> None:
    # Between strata every pair is won, within them every other one.
    positive, negative = [3.0, 1.0, 13.0, 11.0], [2.0, 2.0, 12.0, 12.0]
    strata = (["no", "no", "yes", "yes"], ["no", "no", "yes", "yes"])
    people = ["a", "b", "a", "b"]
    alike = metrics.draw_auc(positive, people, negative, people, alike=strata, draws=50)
    whole = metrics.draw_auc(positive, people, negative, people, draws=50)
    assert alike is not None and whole is not None
    assert alike.value == 0.5
    assert whole.value == metrics.auc(positive, negative) == 0.5
    moved = metrics.draw_auc([*positive[:2], 31.0, 33.0], people, negative, people, alike=strata, draws=50)
    assert moved is not None and moved.value == 0.75


def test_nothing_alike_is_no_figure() -> None:
    assert metrics.draw_auc([1.0], ["a"], [0.0], ["a"], alike=(["lesion"], ["no lesion"])) is None


def test_a_stratum_that_tells_all_tells_nothing() -> None:
    score = {"lesion": 1.0, "no lesion": 0.0}
    forged, authentic = ["lesion"] * 9 + ["no lesion"], ["lesion"] + ["no lesion"] * 9
    people = [str(number % 5) for number in range(10)]
    sides = [score[one] for one in forged], people, [score[one] for one in authentic], people
    whole, alike = metrics.draw_auc(*sides), metrics.draw_auc(*sides, alike=(forged, authentic))
    assert whole is not None and whole.value > 0.8
    assert alike is not None and alike.value == 0.5


def test_means_share_their_draws() -> None:
    rng = np.random.default_rng(3)
    people = [f"p{i}" for i in range(20)]
    score = rng.normal(0, 1, 20)
    one = metrics.draw_auc((score + 1).tolist(), people, score.tolist(), people)
    other = metrics.draw_auc((score + 1).tolist(), people, score.tolist(), people)
    assert one is not None
    assert other is not None
    # The same patients are drawn, so the mean of two equal estimates is no surer than each.
    both = metrics.mean_of([one, other])
    assert both is not None
    assert both.interval() == one.interval()
    assert metrics.mean_of([]) is None


def test_a_mean_over_patients() -> None:
    found = metrics.draw_mean([0.0, 0.0, 1.0, 1.0], ["a", "a", "b", "b"])
    assert found is not None
    assert found.value == 0.5
    # Two patients: none, one or both of the two are b.
    assert set(np.unique(found.draws)) == {0.0, 0.5, 1.0}
    assert metrics.draw_mean([], []) is None
