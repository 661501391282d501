"""Smooth fields over a hole. Planes are h×w float32 stored values."""

import numpy as np
from scipy import ndimage

from dicomguard.retrain.tamper.filters import float32, gaussian, resize
from dicomguard.retrain.tamper.forged import Mask, Pixels


def filled(plane: Pixels, known: Mask) -> Pixels:
    """The plane where known, else interpolated by a pyramid of means of what is known (push-pull, Gortler 1996)."""
    if not known.any():
        return plane
    return float32(np.where(known, plane, _pulled(float32(plane * known), float32(known))))


def _pulled(values: Pixels, weights: Pixels) -> Pixels:
    """`values` are zero where `weights` are."""
    if min(values.shape) <= 2 or weights.min() >= 1:
        return float32(np.where(weights > 0, values, values.sum() / max(float(weights.sum()), 1e-6)))
    half = (-(-values.shape[0] // 2), -(-values.shape[1] // 2))
    mean = resize(gaussian(weights, 1.0), half)
    coarse = resize(gaussian(values * weights, 1.0), half) / np.maximum(mean, 1e-6)
    known = float32(mean > 1e-3)
    up = gaussian(resize(_pulled(float32(coarse * known), known), values.shape), 1.0)
    return float32(np.where(weights > 0, values, up))


def depth_share(mask: Mask, width: float) -> Pixels:
    """0 at the outline and outside, rising to 1 at `width` px of depth (less in a thin mask)."""
    depth = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
    return float32(np.clip(depth / max(min(width, float(depth.max())), 1e-3), 0, 1))
