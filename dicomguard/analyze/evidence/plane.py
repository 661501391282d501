"""One slice on its stored grid, and roughly where its head is."""

from collections.abc import Sequence
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

Plane: TypeAlias = NDArray[np.float32]
Mask: TypeAlias = NDArray[np.bool_]

# No stored value is larger.
_LARGEST = 2.0**31
_COUNTED = 1 << 16
# Tissue is brighter than this share of the brightest.
_TISSUE = 0.2


def stored_of(plane: Plane, rescale: Sequence[float] | None) -> Plane:
    """Stored values, whole numbers, of modality units (slope and intercept; None: as they are)."""
    slope, intercept = rescale or (1.0, 0.0)
    with np.errstate(over="ignore"):
        values = np.rint((plane - np.float32(intercept)) / np.float32(slope))
    return np.asarray(np.clip(values, -_LARGEST, _LARGEST), np.float32)


def head_of(plane: Plane) -> Mask:
    """H×W pixels in tissue: the local mean is above a fifth of the way from the darkest to the brightest."""
    smooth = cv2.blur(plane, (5, 5))
    low, high = (float(value) for value in np.percentile(smooth[::4, ::4], (1, 99)))
    return np.asarray(smooth > low + _TISSUE * (high - low))


def widened(head: Mask) -> Mask:
    """The head with a margin, in which ringing and motion are no background."""
    return np.asarray(cv2.dilate(head.astype(np.uint8), np.ones((15, 15), np.uint8)) > 0)


def usual(values: Plane) -> int:
    """The most frequent value; the median where the values are too many to count."""
    low, high = float(values.min()), float(values.max())
    if high - low >= _COUNTED:
        return round(float(np.median(values)))
    return int(np.bincount((values - low).astype(np.int64).ravel()).argmax()) + int(low)
