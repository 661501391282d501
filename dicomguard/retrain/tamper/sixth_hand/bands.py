"""Frequency bands of a slice and smooth continuation into a hole."""

import cv2
import numpy as np

from dicomguard.retrain.tamper.filters import gaussian
from dicomguard.retrain.tamper.forged import Mask, Pixels

# Widths of the continuation: near the border the narrow ones decide, deep in the hole the wide ones.
_WIDTHS_PX = (2.0, 4.0, 8.0, 16.0, 32.0)
_WIDER_COUNTS = 1 / 12


def split(plane: Pixels, sigmas: tuple[float, ...]) -> list[Pixels]:
    """Difference-of-Gaussian bands, finest first, and what is left; their sum is the slice."""
    levels = [plane, *(gaussian(plane, sigma) for sigma in sigmas)]
    return [*(levels[i] - levels[i + 1] for i in range(len(sigmas))), levels[-1]]


def masked_mean(plane: Pixels, known: Mask, sigma: float) -> Pixels:
    """Gaussian mean over the known pixels only; their overall mean where none is near."""
    weight = known.astype(np.float32)
    total, near = gaussian(plane * weight, sigma), gaussian(weight, sigma)
    fallback = float(plane[known].mean()) if known.any() else 0.0
    return np.where(near > 1e-4, total / np.maximum(near, 1e-4), fallback).astype(np.float32)


def continued(plane: Pixels, known: Mask, widths: tuple[float, ...] = _WIDTHS_PX) -> Pixels:
    """Smooth surface through the known pixels that also covers the unknown ones."""
    if not known.any():
        return np.zeros_like(plane)
    weight, total, near = known.astype(np.float32), np.zeros_like(plane), np.full_like(plane, 1e-9)
    total += np.float32(1e-9 * float(plane[known].mean()))
    for i, width in enumerate(widths):
        share = np.float32(_WIDER_COUNTS**i)
        total += share * gaussian(plane * weight, width)
        near += share * gaussian(weight, width)
    return total / near


def joined(source: Pixels, target: Pixels, known: Mask, hole: Mask) -> Pixels:
    """`source` with its offset to the target smoothly evened out over the hole (a membrane, as Poisson editing has)."""
    near = known & (cv2.distanceTransform((~hole).astype(np.uint8), cv2.DIST_L2, 3) < 14)
    known = near if near.sum() >= 40 else known
    if not known.any():
        return source
    apart = target - source
    # A vessel or sulcus on one side only is no offset of the tissue.
    low, high = np.quantile(apart[known], (0.15, 0.85))
    return source + continued(np.clip(apart, low, high).astype(np.float32), known)
