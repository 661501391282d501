"""Figures of merit, pure: arrays and counts in, numbers out.

Slices and studies of one patient are not independent, so intervals resample patients (Efron 1979) and bounds on false
alarms count them (Clopper and Pearson 1934).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta, rankdata


def digits(value: float | None) -> float | None:
    """Four digits are more than test patients can tell."""
    return None if value is None else round(value, 4)


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """An estimate with its 95 % percentile interval."""

    value: float
    low: float
    high: float


def auc(positive: Sequence[float], negative: Sequence[float]) -> float | None:
    """Chance that a positive scores above a negative, ties count half; None when a side is empty."""
    if not positive or not negative:
        return None
    ranks = rankdata([*positive, *negative])
    count = len(positive)
    total = float(ranks[:count].sum()) - count * (count + 1) / 2
    return total / (count * len(negative))


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """An estimate and what it was in each draw of patients; NaN where a draw held nobody that counts."""

    value: float
    draws: NDArray[np.float64]

    def interval(self) -> Interval:
        """The 95 % percentile interval."""
        known = self.draws[~np.isnan(self.draws)]
        low, high = np.percentile(known, [2.5, 97.5]) if known.size else (self.value, self.value)
        return Interval(value=self.value, low=float(low), high=float(high))


def mean_of(estimates: Sequence[Drawn]) -> Drawn | None:
    """Mean of estimates, draw by draw; None when there are none."""
    if not estimates:
        return None
    draws = np.stack([one.draws for one in estimates])
    known = ~np.isnan(draws)
    counts = known.sum(axis=0)
    sums = np.where(known, draws, 0.0).sum(axis=0)
    mean = np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
    return Drawn(value=float(np.mean([one.value for one in estimates])), draws=mean)


def patient_weights(count: int, draws: int, seed: int) -> NDArray[np.float64]:
    """draws×count: how often each patient is taken when `count` are taken with replacement."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(count, np.full(count, 1 / count), size=draws).astype(np.float64)


def draw_auc(
    positive: Sequence[float],
    positive_patients: Sequence[str],
    negative: Sequence[float],
    negative_patients: Sequence[str],
    *,
    alike: tuple[Sequence[str], Sequence[str]] | None = None,
    draws: int = 2000,
    seed: int = 0,
) -> Drawn | None:
    """AUC with a patient bootstrap; None when there is no pair to compare.

    Patients are resampled with replacement; a draw without a positive or a negative says nothing. Two calls about the
    same patients draw the same ones, so that their difference is paired. `alike` names the stratum of each positive
    and of each negative: only pairs within a stratum are compared (Janes and Pepe 2009), so that what the strata
    differ in tells nothing.
    """
    if not positive or not negative:
        return None
    patients = sorted({*positive_patients, *negative_patients})
    place = {patient: index for index, patient in enumerate(patients)}
    wins, pairs = _pair_counts(
        np.asarray(positive), [place[p] for p in positive_patients], np.asarray(negative),
        [place[p] for p in negative_patients], len(patients), alike,
    )  # fmt: skip
    if pairs.sum() == 0:
        return None
    value = float(wins.sum() / pairs.sum())
    weights = patient_weights(len(patients), draws, seed)
    above = ((weights @ wins) * weights).sum(axis=1)
    of = ((weights @ pairs) * weights).sum(axis=1)
    return Drawn(value=value, draws=np.where(of > 0, above / np.maximum(of, 1e-12), np.nan))


def draw_mean(values: Sequence[float], patients: Sequence[str], *, draws: int = 2000, seed: int = 0) -> Drawn | None:
    """Mean over values with a patient bootstrap; None when there are none."""
    if not values:
        return None
    names = sorted(set(patients))
    place = {patient: index for index, patient in enumerate(names)}
    sums, counts = np.zeros(len(names)), np.zeros(len(names))
    for value, patient in zip(values, patients, strict=True):
        sums[place[patient]] += value
        counts[place[patient]] += 1
    weights = patient_weights(len(names), draws, seed)
    return Drawn(value=float(np.mean(values)), draws=(weights @ sums) / (weights @ counts))


def _pair_counts(
    positive: NDArray[np.float64],
    positive_at: list[int],
    negative: NDArray[np.float64],
    negative_at: list[int],
    n: int,
    alike: tuple[Sequence[str], Sequence[str]] | None,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """n×n: won pairs and all pairs between the positives of one patient and the negatives of another."""
    won = (positive[:, None] > negative[None, :]) + 0.5 * (positive[:, None] == negative[None, :])
    counted = np.ones_like(won)
    if alike is not None:
        counted = (np.asarray(alike[0])[:, None] == np.asarray(alike[1])[None, :]).astype(np.float64)
    rows = np.zeros((n, len(positive)))
    rows[positive_at, np.arange(len(positive))] = 1
    cols = np.zeros((len(negative), n))
    cols[np.arange(len(negative)), negative_at] = 1
    return rows @ (won * counted) @ cols, rows @ counted @ cols


def upper_bound(flagged: int, of: int, *, confidence: float = 0.95) -> float:
    """One-sided Clopper–Pearson upper bound of a share; 1 when nothing was counted."""
    if of == 0 or flagged >= of:
        return 1.0
    return float(beta.ppf(confidence, flagged + 1, of - flagged))


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlap:
    """How well a predicted mask covers the true one."""

    f1: float
    iou: float


def overlap(predicted: NDArray[np.bool_], true: NDArray[np.bool_], ignored: NDArray[np.bool_] | None = None) -> Overlap:
    """F1 and IoU of two H×W masks; `ignored` pixels count nowhere. A miss is 0, two empty masks are 1."""
    if ignored is not None:
        predicted, true = predicted & ~ignored, true & ~ignored
    both = int((predicted & true).sum())
    total = int(predicted.sum()) + int(true.sum())
    if total == 0:
        return Overlap(f1=1.0, iou=1.0)
    return Overlap(f1=2 * both / total, iou=both / (total - both))


@dataclass(frozen=True, slots=True, kw_only=True)
class Confusion:
    """Truth (rows) against answer (columns), in the order of `labels`."""

    labels: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]
    # Mean F1 over the labels that occur in truth or answer.
    macro_f1: float
    # The same with every truth weighing alike: how often a truth occurs among the forged studies made here says nothing
    # of a hospital.
    even_f1: float


def confusion(truth: Sequence[str], answer: Sequence[str], labels: Sequence[str]) -> Confusion:
    """Count pairs; an answer outside the labels raises ValueError."""
    at = {label: index for index, label in enumerate(labels)}
    unknown = {*truth, *answer} - set(at)
    if unknown:
        raise ValueError(f"The answer {sorted(unknown)[0]!r} is not among {', '.join(labels)}. Add it to the labels.")
    counts = np.zeros((len(labels), len(labels)), np.int64)
    for true, given in zip(truth, answer, strict=True):
        counts[at[true], at[given]] += 1
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    return Confusion(
        labels=tuple(labels),
        counts=tuple(tuple(int(value) for value in row) for row in counts),
        macro_f1=_macro_f1(counts),
        even_f1=_macro_f1(shares),
    )


def _macro_f1(table: NDArray[np.int64] | NDArray[np.float64]) -> float:
    total = table.sum(axis=0) + table.sum(axis=1)
    f1 = 2 * np.diag(table)[total > 0] / total[total > 0]
    return float(f1.mean()) if f1.size else 0.0
