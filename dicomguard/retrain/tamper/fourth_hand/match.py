"""Bring a grey scale over: means, spreads and quantiles of one tissue to those of another."""

import numpy as np

from dicomguard.retrain.tamper.filters import float32
from dicomguard.retrain.tamper.forged import Mask, Pixels
from dicomguard.retrain.tamper.fourth_hand.surface import spread


def moments(plane: Pixels, where: Mask) -> tuple[float, float]:
    """Median and robust spread."""
    if not where.any():
        return float(np.median(plane)), 1.0
    low, middle, high = np.percentile(plane[where], [16, 50, 84])
    return float(middle), max(float(high - low) / 2, 1e-3)


def linear(plane: Pixels, theirs: Mask, target: Pixels, ours: Mask) -> Pixels:
    """One gain and one offset for the whole piece, by the tissue on either side."""
    mean_from, spread_from = moments(plane, theirs)
    mean_to, spread_to = moments(target, ours)
    # Gain between that of the spreads and that of the means: a spread alone is fooled by a gyrus in the ring.
    by_mean = abs(mean_to) / max(abs(mean_from), 1e-3)
    gain = float(np.sqrt(np.clip(spread_to / spread_from, 0.5 * by_mean, 2 * by_mean) * by_mean))
    return float32((plane - mean_from) * gain + mean_to)


def quantiles(plane: Pixels, theirs: Mask, target: Pixels, ours: Mask) -> Pixels:
    """The curve that gives their tissue our histogram, continued straight beyond its ends."""
    if int(theirs.sum()) < 30 or int(ours.sum()) < 30:
        return linear(plane, theirs, target, ours)
    shares = np.linspace(3, 97, 25)
    from_, to = np.percentile(plane[theirs], shares), np.percentile(target[ours], shares)
    from_ = np.maximum.accumulate(from_ + np.arange(from_.size) * 1e-3)
    made = np.interp(plane, from_, to)
    gain = float(np.clip((to[-1] - to[0]) / max(from_[-1] - from_[0], 1e-3), 0.2, 5))
    made = np.where(plane > from_[-1], to[-1] + gain * (plane - from_[-1]), made)
    return float32(np.where(plane < from_[0], to[0] - gain * (from_[0] - plane), made))


def local(plane: Pixels, theirs: Mask, target: Pixels, ours: Mask, sigma: float, *, whole: bool) -> Pixels:
    """Mean and spread of their neighbourhood to ours, pixel by pixel.

    `whole` takes their statistics from the tissue alone, so that a lesion keeps its contrast; otherwise from what lies
    at the place.
    """
    basis = theirs if whole else np.ones_like(theirs)
    mean_from, mean_to = spread(plane, basis, sigma), spread(target, ours, sigma)
    var_from = spread((plane - mean_from) ** 2, basis, sigma)
    var_to = spread((target - mean_to) ** 2, ours, sigma)
    gain = np.sqrt(np.maximum(var_to, 1e-3) / np.maximum(var_from, 1e-3))
    by_mean = np.abs(mean_to) / np.maximum(np.abs(mean_from), 1e-3)
    gain = np.clip(gain, 0.65 * by_mean, 1.3 * by_mean)
    return float32((plane - mean_from) * gain + mean_to)
