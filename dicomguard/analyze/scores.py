"""From maps to one number a slice, and from slices to one number a study. Pure arrays; knows no network.

A slice's strength is its strongest region against its own level, at two scales. Raw strength flags half of the slices
of a scanner never seen, so a slice is measured against the other slices of its series, in units of their spread; but
not against a middle that no authentic series has, for then the series may be forged throughout. A loose picture has no
series: it stands against its own level twice as much. At 0 a slice is at the alert.
"""

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from dicomguard.errors import Broken

Plane: TypeAlias = NDArray[np.float32]
Mask: TypeAlias = NDArray[np.bool_]
Values: TypeAlias = NDArray[np.float64]

# Share of the head's area over which the strongest logits are averaged: 50 of 7,000 at half of 256 pixels.
PEAK_SHARE = 0.007
FEWEST_PEAK = 12
# Fewer slices than this have no middle to be compared with.
FEWEST_FOR_SERIES = 5
# Slices whose others are counted in one array: thousands of slices have no square of memory.
_AT_ONCE = 256
# More than any middle: logits are summed over two scales and a level, each within ±12 or so.
NO_MOST = 30.0
# Colour of noise (`channels.Scale.colour`): scans at their own matrix lie at 0.65 to 0.9, enlarged pictures above 1.
# Between the two the share of the native scale goes from one value to the other.
_AS_RECONSTRUCTED, _WHITE = 0.85, 1.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What one slice shows at one scale; logits."""

    # Mean of the strongest logits inside the head.
    raw: float
    # 90th percentile of the logits inside the head.
    level: float


def terms(logits: Plane, head: Mask) -> Terms:
    """Terms of smoothed forgery logits h×w inside the head h×w."""
    inside = np.sort(logits[head])
    if not len(inside):
        return Terms(raw=-12.0, level=-12.0)
    count = min(len(inside), max(FEWEST_PEAK, round(PEAK_SHARE * len(inside))))
    return Terms(raw=float(inside[-count:].mean()), level=float(inside[int(0.9 * (len(inside) - 1))]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """One slice at both scales, and its series' noise: `channels.Scale.colour` and `channels.smoothing`."""

    native: Terms
    half: Terms
    colour: float
    smoothing: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """Fitted on patients who do not test (`retrain.net.calibrate`); stored in the head of the weights."""

    # Share of the native scale in a strength, the rest is the half scale's: for noise as reconstruction leaves it, and
    # for white noise (rounding of an enlarged picture, or none but that), where the native scale shows little.
    native_share: float
    native_share_white: float
    # Strength = strongest region - share · level of the slice: in a series, and alone.
    level_share: float
    loose_level_share: float
    # Share of the middle of the other slices that is taken off: below 1, so that a loud series stays louder.
    middle_share: float
    # Least spread of a series' strengths (logits) that its slices are measured in; and the alert, in that unit.
    series_spread: float
    series_zero: float
    # The same for a loose picture, from authentic pictures.
    loose_spread: float
    loose_zero: float
    # Probability = sigmoid(slope · value + bias), at 50 % prevalence.
    slope: float
    bias: float
    # A study's strongest track: the same on the mean logit of its best slices; a lone slice pays `lone_cost`.
    study_slope: float
    study_bias: float
    lone_cost: float
    # Lesion: probability of a region = sigmoid(slope · logit + bias); of a track, on the mean of its best slices.
    tumor_slope: float
    tumor_bias: float
    study_tumor_slope: float
    study_tumor_bias: float
    # A forged track was put in: sigmoid(slope · logit of addition + lesion_slope · logit of lesion + bias).
    added_slope: float
    added_lesion_slope: float
    added_bias: float
    # The middle of the other slices counts as this (logits) where it is above: no authentic series' is. Weights of
    # before version 0.9.0 do not have it.
    middle_most: float = NO_MOST

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> "Calibration":
        """Read from the head of a weights file; unknown names are refused, so are missing ones without a default."""
        names = {field.name for field in fields(cls)}
        needed = {field.name for field in fields(cls) if field.default is MISSING}
        wrong = (set(record) - names) | (needed - set(record))
        if wrong:
            raise Broken(f"The calibration names {sorted(wrong)} wrongly. Restore the weights file.")
        return cls(**{name: float(value) for name, value in record.items()})

    def to_record(self) -> dict[str, float]:
        """For the head of a weights file; six digits are more than validation can tell."""
        return {field.name: round(float(getattr(self, field.name)), 6) for field in fields(self)}


# What stands before anything was fitted.
UNCALIBRATED = Calibration(
    native_share=0.9,
    native_share_white=0.4,
    level_share=0.25,
    loose_level_share=0.5,
    middle_share=0.8,
    series_spread=4.0,
    series_zero=1.0,
    loose_spread=2.0,
    loose_zero=1.0,
    slope=1.0,
    bias=0.0,
    study_slope=1.0,
    study_bias=0.0,
    lone_cost=0.0,
    tumor_slope=1.0,
    tumor_bias=0.0,
    study_tumor_slope=1.0,
    study_tumor_bias=0.0,
    added_slope=1.0,
    added_lesion_slope=0.0,
    added_bias=0.0,
)


def values(slices: Sequence[Look], c: Calibration) -> Values:
    """N slices of one series → N values; 0 is the alert. Fewer than five slices are judged as loose pictures.

    The middle of the series is that of the *other* slices, as long as an authentic series may have it.
    """
    if len(slices) < FEWEST_FOR_SERIES:
        return strengths(slices, c, c.loose_level_share) / c.loose_spread - c.loose_zero
    return against_series(strengths(slices, c, c.level_share), c) - c.series_zero


def edited_alike(slices: Sequence[Look], c: Calibration) -> bool:
    """Whether most slices of a series look more edited than those of any authentic series (`middle_most`).

    Forged throughout, or of a scanner or a processing that is not known: this cannot tell which.
    """
    return len(slices) >= FEWEST_FOR_SERIES and middle(slices, c) > c.middle_most


def middle(slices: Sequence[Look], c: Calibration) -> float:
    """Median strength of a series of one slice and more; logits."""
    return float(np.median(strengths(slices, c, c.level_share)))


def strengths(slices: Sequence[Look], c: Calibration, level_share: float) -> Values:
    """N strengths in logits: strongest region minus a share of the slice's level, both scales mixed."""
    found = np.empty(len(slices))
    for i, one in enumerate(slices):
        white = float(np.clip((one.colour - _AS_RECONSTRUCTED) / (_WHITE - _AS_RECONSTRUCTED), 0.0, 1.0))
        share = c.native_share + white * (c.native_share_white - c.native_share)
        native, half = (term.raw - level_share * term.level for term in (one.native, one.half))
        found[i] = share * native + (1 - share) * half
    return found


def against_series(strength: Values, c: Calibration) -> Values:
    """N strengths → each minus a share of the median of the others, in units of their spread.

    A scan whose slices differ much among themselves needs more to stand out. The spread is the median deviation of
    the others (as a standard deviation), with `series_spread` added in squares: a still series is no microscope.
    """
    n = len(strength)
    usual, spread = np.empty(n), np.empty(n)
    for first in range(0, n, _AT_ONCE):
        rows = np.arange(first, min(first + _AT_ONCE, n))
        others = np.arange(n) != rows[:, None]
        rest = np.broadcast_to(strength, others.shape)[others].reshape(len(rows), n - 1)
        usual[rows] = np.median(rest, axis=1)
        spread[rows] = 1.4826 * np.median(np.abs(rest - usual[rows, None]), axis=1)
    found: Values = (strength - c.middle_share * np.minimum(usual, c.middle_most)) / np.hypot(c.series_spread, spread)
    return found


def probability(value: float, slope: float, bias: float) -> float:
    """Sigmoid of a calibrated logit."""
    return float(1.0 / (1.0 + np.exp(-np.clip(slope * value + bias, -30.0, 30.0))))


def logit(p: float) -> float:
    """Inverse of the sigmoid, within ±30."""
    clipped = min(max(p, 1e-13), 1 - 1e-13)
    return float(np.log(clipped / (1 - clipped)))
