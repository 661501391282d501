"""Grey levels of a series: values that a comb leaves out everywhere else and one region of one slice has."""

import cv2
import numpy as np
from numpy.typing import NDArray

from dicomguard.analyze.evidence.plane import Mask, Plane

# Values are counted up to this range; beyond it they are too thin to have gaps.
_WIDEST = 1 << 16
# A comb: so many of the values between dark and bright tissue are never used, though each would be this often.
_GAPS = 0.3
_PIXELS_A_VALUE = 20
_THIN = 0.25
# Pixels of a slice whose values say what tissue has.
_SAMPLE = 5000
# Pixels with foreign values, and how many of them lie together.
_FEWEST = 40
_TOGETHER = 0.6
_LARGEST_SHARE = 0.25
_NEAR_PX = 9
_DENSE = 0.15


class Levels:
    """How often a series has each value: first what values there are (`span`), then how often (`count`)."""

    def __init__(self) -> None:
        self._lowest, self._highest, self._slices = np.inf, -np.inf, 0
        self._tissue: list[Plane] = []
        self._counts = np.zeros(0, np.int64)
        self._low = self._high = 0

    def span(self, plane: Plane, head: Mask) -> None:
        """Take note of one slice's values."""
        self._slices += 1
        self._lowest = min(self._lowest, float(plane.min()))
        self._highest = max(self._highest, float(plane.max()))
        values = plane[head]
        self._tissue.append(values[:: max(1, values.size // _SAMPLE)])

    @property
    def countable(self) -> bool:
        """Enough slices, and a range that is not too wide."""
        return self._slices >= 3 and self._highest - self._lowest < _WIDEST and any(t.size for t in self._tissue)

    def count(self, plane: Plane) -> None:
        """Count one slice's values."""
        if not self._counts.size:
            self._counts = np.zeros(int(self._highest - self._lowest) + 1, np.int64)
            self._low, self._high = (int(value) for value in np.percentile(np.concatenate(self._tissue), (2, 98)))
        self._counts += self._of(plane)

    def _of(self, plane: Plane) -> NDArray[np.int64]:
        return np.bincount((plane.ravel() - self._lowest).astype(np.int64), minlength=len(self._counts))

    @property
    def _between(self) -> slice:
        """Places of the values of tissue."""
        return slice(int(self._low - self._lowest), int(self._high - self._lowest) + 1)

    @property
    def comb(self) -> bool:
        """Whether the series leaves many values of tissue out, or has them so seldom that one region may hold them."""
        between = self._counts[self._between]
        mean = float(between.mean()) if between.size else 0.0
        return mean >= _PIXELS_A_VALUE and bool((between < _THIN * mean).mean() >= _GAPS)

    def foreign(self, plane: Plane, head: Mask) -> bool:
        """Whether values that no other slice has lie together in one region of this one."""
        elsewhere = self._counts - self._of(plane)
        if (elsewhere[self._between] == 0).mean() < _GAPS:
            return False
        places = (plane - self._lowest).astype(np.int64)
        foreign = (elsewhere == 0)[places] & (plane >= self._low) & (plane <= self._high)
        count = int(foreign.sum())
        if count < _FEWEST:
            return False
        dense = cv2.blur(foreign.astype(np.float32), (_NEAR_PX, _NEAR_PX)) > _DENSE
        _, labels = cv2.connectedComponents(dense.astype(np.uint8))
        held = np.bincount(labels[foreign & dense], minlength=2)
        held[0] = 0
        region = labels == int(np.argmax(held))
        return bool(held.max() >= _TOGETHER * count and region.sum() <= _LARGEST_SHARE * max(1, int(head.sum())))
