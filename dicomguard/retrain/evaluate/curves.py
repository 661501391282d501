"""Curves, pure: ROC, FROC, reliability, and the area from which on forgeries are found.

FROC after Chakraborty 1989; reliability in bins of equal mass after Nixon et al. 2019 (arXiv 1904.01685).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from dicomguard.retrain.evaluate.metrics import Drawn, Interval, patient_weights

# False marks per study at which sensitivity is stated.
FROC_RATES = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0)
_BINS = 15
_POINTS = 80


def roc(positive: Sequence[float], negative: Sequence[float]) -> tuple[tuple[float, float], ...]:
    """(false alarm rate, sensitivity) from (0, 0) to (1, 1), thinned to at most some eighty points."""
    if not positive or not negative:
        return ()
    high, low = np.sort(positive), np.sort(negative)
    thresholds = np.unique(np.concatenate((high, low)))[::-1]
    true = 1 - np.searchsorted(high, thresholds, side="left") / len(high)
    false = 1 - np.searchsorted(low, thresholds, side="left") / len(low)
    kept = np.unique(np.linspace(0, len(thresholds) - 1, min(_POINTS, len(thresholds))).round().astype(int))
    return ((0.0, 0.0), *((round(float(false[i]), 4), round(float(true[i]), 4)) for i in kept))


@dataclass(frozen=True, slots=True, kw_only=True)
class Marked:
    """The marks on one unit (a study, or a slice) and whether there is something to be found in it."""

    patient: str
    # (score, whether it hits what is to be found); several hits count once.
    marks: tuple[tuple[float, bool], ...]
    wanted: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Froc:
    """Sensitivity against false marks per unit."""

    units: int
    wanted: int
    # (false marks per unit, sensitivity), from no mark to all marks.
    curve: tuple[tuple[float, float], ...]
    # Sensitivity at each of FROC_RATES.
    at: tuple[float, ...]
    at_half: Interval
    # Mean of `at`: the area over rates on a logarithmic scale.
    area: float


def froc(units: Sequence[Marked], *, draws: int = 500, seed: int = 0) -> Froc | None:
    """FROC of units; None when nothing is to be found. A rate beyond the last mark has the last sensitivity."""
    wanted = sum(unit.wanted for unit in units)
    if not wanted:
        return None
    patients = sorted({unit.patient for unit in units})
    place = {patient: index for index, patient in enumerate(patients)}
    events: list[tuple[float, int, int]] = []
    for unit in units:
        hits = [score for score, hit in unit.marks if hit]
        if unit.wanted and hits:
            events.append((max(hits), place[unit.patient], 1))
        events += [(score, place[unit.patient], 0) for score, hit in unit.marks if not hit]
    events.sort(key=lambda event: -event[0])
    owner = np.array([event[1] for event in events], np.intp)
    is_hit = np.array([event[2] for event in events], bool)
    scores = np.array([event[0] for event in events])
    # A threshold takes all marks of its score or none.
    ends = np.flatnonzero(np.append(scores[1:] != scores[:-1], True)) if len(events) else np.zeros(0, np.intp)
    per_patient = np.bincount([place[unit.patient] for unit in units], minlength=len(patients)).astype(float)
    wanted_of = np.bincount([place[unit.patient] for unit in units if unit.wanted], minlength=len(patients)).astype(
        float
    )

    def curve(weights: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        weight = weights[owner]
        false = np.cumsum(np.where(is_hit, 0.0, weight))[ends] / max(float(weights @ per_patient), 1e-12)
        found = np.cumsum(np.where(is_hit, weight, 0.0))[ends] / max(float(weights @ wanted_of), 1e-12)
        return np.append(0.0, false), np.append(0.0, found)

    false, found = curve(np.ones(len(patients)))
    at = tuple(_at(false, found, rate) for rate in FROC_RATES)
    drawn = np.array([_at(*curve(row), 0.5) for row in patient_weights(len(patients), draws, seed)])
    kept = np.unique(np.linspace(0, len(false) - 1, min(_POINTS, len(false))).round().astype(int))
    return Froc(
        units=len(units),
        wanted=wanted,
        curve=tuple((round(float(false[i]), 4), round(float(found[i]), 4)) for i in kept),
        at=at,
        at_half=Drawn(value=at[FROC_RATES.index(0.5)], draws=drawn).interval(),
        area=float(np.mean(at)),
    )


def _at(false: NDArray[np.float64], found: NDArray[np.float64], rate: float) -> float:
    """Best sensitivity with at most `rate` false marks."""
    return float(found[np.searchsorted(false, rate, side="right") - 1])


@dataclass(frozen=True, slots=True, kw_only=True)
class Reliability:
    """How far probabilities can be taken at their word."""

    count: int
    ece: float
    brier: float
    # (mean probability, share that was true, share of the weight), ascending.
    bins: tuple[tuple[float, float, float], ...]


def reliability(probabilities: Sequence[float], truth: Sequence[bool], *, prevalence: float) -> Reliability | None:
    """Expected calibration error and Brier score with positives weighted to `prevalence`; None when a side is empty."""
    p, y = np.asarray(probabilities, float), np.asarray(truth, bool)
    if not y.any() or y.all():
        return None
    weight = np.where(y, prevalence / y.mean(), (1 - prevalence) / (1 - y.mean()))
    weight = weight / weight.sum()
    order = np.argsort(p, kind="stable")
    p, y, weight = p[order], y[order], weight[order]
    cut = np.minimum((np.cumsum(weight) - weight / 2) * _BINS, _BINS - 1e-9).astype(int)
    bins = []
    for index in range(_BINS):
        inside = cut == index
        mass = float(weight[inside].sum())
        if mass > 0:
            share = weight[inside] / mass
            bins.append((float(p[inside] @ share), float(y[inside] @ share), mass))
    return Reliability(
        count=len(p),
        ece=float(sum(mass * abs(said - true) for said, true, mass in bins)),
        brier=float(weight @ (p - y) ** 2),
        bins=tuple((round(said, 4), round(true, 4), round(mass, 4)) for said, true, mass in bins),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """Area at which half of the forged slices are found; None outside what was seen."""

    area_px: float | None
    # Chance to be found per octave of area, in logits: not above 0 means that size does not help.
    slope: float


def detection_limit(areas_px: Sequence[int], found: Sequence[bool]) -> Limit | None:
    """Logistic regression of found on the logarithm of the area; None with fewer than ten slices or one outcome.

    An area below the smallest or above the largest slice seen is an extrapolation and is not stated.
    """
    y = np.asarray(found, float)
    if len(y) < 10 or y.min() == y.max():
        return None
    octaves = np.log2(np.asarray(areas_px, float))
    middle = float(octaves.mean())
    x = octaves - middle

    def loss(w: NDArray[np.float64]) -> float:
        z = w[0] + w[1] * x
        # A weak prior keeps separable outcomes finite.
        return float(np.logaddexp(0, z).sum() - (y * z).sum() + 0.005 * w[1] ** 2)

    bias, slope = minimize(loss, np.zeros(2)).x
    if slope <= 0:
        return Limit(area_px=None, slope=float(slope))
    at = middle - bias / slope
    inside = octaves.min() <= at <= octaves.max()
    return Limit(area_px=float(2**at) if inside else None, slope=float(slope))
