"""Dense motion between two pictures of the same anatomy, and what follows a motion.

Dense inverse search (Kroeger et al. 2016) or polynomial expansion (Farnebäck 2003) on eight-bit copies.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from dicomguard.retrain.tamper.filters import float32
from dicomguard.retrain.tamper.forged import Mask, Pixels
from dicomguard.retrain.tamper.third_hand.smooth import blurred, masked_blur

ENGINES = ("dense inverse search", "polynomial")
# Below this side neither engine has a pyramid to stand on.
_SMALLEST_SIDE = 24
_MOST_MOTION_PX = 12.0


def _eight(plane: Pixels, low: float, high: float) -> NDArray[np.uint8]:
    return np.asarray(np.clip((plane - low) * (255 / max(high - low, 1.0)), 0, 255), np.uint8)


def motion(fixed: Pixels, moving: Pixels, engine: str) -> Pixels:
    """h×w×2 (x, y) in px: fixed(p) looks like moving(p + motion(p)); zero for tiny pictures."""
    still = np.zeros((*fixed.shape, 2), np.float32)
    if min(fixed.shape) < _SMALLEST_SIDE:
        return still
    low, high = (float(v) for v in np.percentile(fixed, [1, 99]))
    first, second = _eight(blurred(fixed, 0.8), low, high), _eight(blurred(moving, 0.8), low, high)
    if engine == "polynomial":
        found = cv2.calcOpticalFlowFarneback(first, second, still, 0.5, 3, 13, 3, 5, 1.1, 0)
    else:
        search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
        search.setFinestScale(1)
        found = search.calc(first, second, still)
    return float32(np.clip(found, -_MOST_MOTION_PX, _MOST_MOTION_PX))


def calmed(field: Pixels, trusted: Mask, sigma: float) -> Pixels:
    """The motion smoothed over `sigma` px, where it is not trusted taken from its surroundings."""
    parts = [masked_blur(float32(np.ascontiguousarray(field[..., i])), trusted, sigma) for i in range(2)]
    return float32(np.stack(parts, axis=-1))


def followed(plane: Pixels, field: Pixels, how: int) -> Pixels:
    """plane(p + field(p))."""
    rows = np.arange(plane.shape[0], dtype=np.float32)[:, None] + field[..., 1]
    cols = np.arange(plane.shape[1], dtype=np.float32)[None, :] + field[..., 0]
    return float32(cv2.remap(plane, cols, rows, how, borderMode=cv2.BORDER_REFLECT))
