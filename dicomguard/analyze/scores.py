"""From maps to one number a slice, and from slices to one number a study. Pure arrays; knows no network.

A slice is judged three ways, at two scales: by its strongest region (raw), by that region against the rest of the same
slice (own), and against the other slices of its series (series). Raw scores flag half of the slices of a scanner never
seen; the other two hold there, and both must pass for an alert. The one number is the smaller of the calibrated terms,
so that a threshold on it is that rule and its ranking is the product's.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from dicomguard.errors import Broken

Plane: TypeAlias = NDArray[np.float32]
Mask: TypeAlias = NDArray[np.bool_]

# Share of the head's area over which the strongest logits are averaged: 50 of 7,000 at half of 256 pixels.
_PEAK_SHARE = 0.007
_FEWEST_PEAK = 12
# Fewer slices than this have no middle to be compared with.
FEWEST_FOR_SERIES = 5
# Colour above which noise counts as white: scans at their own matrix lie at 0.65 to 0.9, enlarged pictures above 1.
WHITE = 0.95


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
    count = min(len(inside), max(_FEWEST_PEAK, round(_PEAK_SHARE * len(inside))))
    return Terms(raw=float(inside[-count:].mean()), level=float(inside[int(0.9 * (len(inside) - 1))]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """One slice at both scales, and the colour of its series' noise (`channels.Scale.colour`)."""

    native: Terms
    half: Terms
    colour: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """Fitted on validation patients only; stored in the head of the weights."""

    # Share of the native scale in every term, the rest is the half scale's: for noise as reconstruction leaves it, and
    # for white noise (rounding of an enlarged picture, or none but that), where the native scale shows little.
    native_share: float
    native_share_white: float
    # Median raw score of authentic slices of either kind: stands for the series where there is none.
    typical_raw: float
    typical_raw_white: float
    # Term = slope · (value - zero): at 0 the term is at its authentic percentile.
    own_zero: float
    own_slope: float
    series_zero: float
    # Least spread of a series' raw scores (logits) that its slices are measured in.
    series_spread: float
    # Without a series the raw score stands against the typical one, which varies more among scanners.
    loose_zero: float
    loose_zero_white: float
    # Spread of authentic raw scores there, logits: brings them to the units of the series term.
    loose_spread: float
    loose_spread_white: float
    # Probability = sigmoid(slope · smaller term + bias), at 50 % prevalence.
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

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> "Calibration":
        """Read from the head of a weights file; unknown names are refused, so are missing ones."""
        names = {field.name for field in fields(cls)}
        if set(record) != names:
            raise Broken(f"The calibration names {sorted(set(record) ^ names)} wrongly. Restore the weights file.")
        return cls(**{name: float(record[name]) for name in names})

    def to_record(self) -> dict[str, float]:
        """For the head of a weights file; six digits are more than validation can tell."""
        return {field.name: round(float(getattr(self, field.name)), 6) for field in fields(self)}


# What stands before anything was fitted: terms pass as they are.
UNCALIBRATED = Calibration(
    native_share=0.8,
    native_share_white=0.2,
    typical_raw=0.0,
    typical_raw_white=0.0,
    own_zero=2.0,
    own_slope=1.0,
    series_zero=1.0,
    series_spread=1.0,
    loose_zero=1.0,
    loose_zero_white=1.0,
    loose_spread=1.0,
    loose_spread_white=1.0,
    slope=1.0,
    bias=0.0,
    study_slope=1.0,
    study_bias=0.0,
    lone_cost=0.0,
    tumor_slope=1.0,
    tumor_bias=0.0,
    study_tumor_slope=1.0,
    study_tumor_bias=0.0,
)


def own_values(slices: Sequence[Look], c: Calibration) -> NDArray[np.float64]:
    """Strongest region minus the slice's own level, both scales mixed."""
    return np.array([_mix(s, s.native.raw - s.native.level, s.half.raw - s.half.level, c) for s in slices])


def raw_values(slices: Sequence[Look], c: Calibration) -> NDArray[np.float64]:
    """Strongest region, both scales mixed, minus what is typical of such noise."""
    return np.array(
        [
            _mix(s, s.native.raw, s.half.raw, c) - (c.typical_raw_white if s.colour > WHITE else c.typical_raw)
            for s in slices
        ]
    )


def smaller_terms(slices: Sequence[Look], c: Calibration) -> NDArray[np.float64]:
    """N slices of one series → N values; 0 is the alert.

    The middle of the series is that of the *other* slices; it assumes that most slices of a series are authentic.
    """
    if not slices:
        return np.zeros(0)
    own = c.own_slope * (own_values(slices, c) - c.own_zero)
    raw = raw_values(slices, c)
    against = against_series(raw, c.series_spread)
    other = _loose(slices, raw, c) if against is None else against - c.series_zero
    return np.asarray(np.minimum(own, other), dtype=np.float64)


def _loose(slices: Sequence[Look], raw: NDArray[np.float64], c: Calibration) -> NDArray[np.float64]:
    white = np.array([one.colour > WHITE for one in slices])
    spread = np.where(white, c.loose_spread_white, c.loose_spread)
    return np.asarray(raw / spread - np.where(white, c.loose_zero_white, c.loose_zero), dtype=np.float64)


def _mix(one: Look, native: float, half: float, c: Calibration) -> float:
    share = c.native_share_white if one.colour > WHITE else c.native_share
    return share * native + (1 - share) * half


def against_series(raw: NDArray[np.float64], least_spread: float) -> NDArray[np.float64] | None:
    """N raw scores → each minus the median of the others, in units of their spread; None with too few slices.

    A scan whose slices differ much among themselves needs more to stand out. The spread is the median deviation of
    the others (as a standard deviation), with `least_spread` added in squares: a still series is no microscope.
    """
    if len(raw) < FEWEST_FOR_SERIES:
        return None
    values = np.empty(len(raw))
    for i in range(len(raw)):
        rest = np.delete(raw, i)
        middle = np.median(rest)
        spread = 1.4826 * float(np.median(np.abs(rest - middle)))
        values[i] = (raw[i] - middle) / np.hypot(least_spread, spread)
    return values


def probability(value: float, slope: float, bias: float) -> float:
    """Sigmoid of a calibrated logit."""
    return float(1.0 / (1.0 + np.exp(-np.clip(slope * value + bias, -30.0, 30.0))))


def logit(p: float) -> float:
    """Inverse of the sigmoid, within ±30."""
    clipped = min(max(p, 1e-13), 1 - 1e-13)
    return float(np.log(clipped / (1 - clipped)))
