"""Where a head is its own mirror image: the line through its middle about which left looks like right."""

from dataclasses import dataclass

import cv2
import numpy as np

from dicomguard.retrain.tamper.filters import float32
from dicomguard.retrain.tamper.forged import Mask, Pixels

_SIDE = 56
_LEAST_LIKENESS = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Midline:
    """A line by its normal: points p with p·(cos, sin) = offset, p = (column, row) in pixels of the slice."""

    angle: float
    offset: float
    # Correlation of the head with its mirror image.
    likeness: float

    def matrix(self) -> Pixels:
        """2×3: (column, row) to its mirror image, which is also the way back."""
        cosine, sine = np.cos(2 * self.angle), np.sin(2 * self.angle)
        shift = 2 * self.offset * np.array([np.cos(self.angle), np.sin(self.angle)])
        return float32(np.array([[-cosine, -sine, shift[0]], [-sine, cosine, shift[1]]]))


def _likeness(small: Pixels, head: Pixels, line: Midline) -> float:
    matrix, size = line.matrix(), (small.shape[1], small.shape[0])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    there = cv2.warpAffine(small, matrix, size, flags=flags)
    weight = head * cv2.warpAffine(head, matrix, size, flags=flags)
    total = float(weight.sum())
    if total < 0.5 * float(head.sum()) or total < 1:
        return -1.0
    here = small - float((small * weight).sum()) / total
    there = there - float((there * weight).sum()) / total
    power = float((here * here * weight).sum()) * float((there * there * weight).sum())
    return float((here * there * weight).sum()) / float(np.sqrt(max(power, 1e-6)))


def find(plane: Pixels, head: Mask) -> Midline | None:
    """The best of lines near the head's axes, refined; None when the head does not look like its mirror image."""
    factor = max(1.0, max(plane.shape) / _SIDE)
    size = (max(8, round(plane.shape[1] / factor)), max(8, round(plane.shape[0] / factor)))
    small = float32(cv2.resize(plane, size, interpolation=cv2.INTER_AREA))
    inside = float32(cv2.resize(head.astype(np.float32), size, interpolation=cv2.INTER_AREA))
    rows, cols = np.nonzero(inside > 0.5)
    if rows.size < 30:
        return None
    centre = np.array([cols.mean(), rows.mean()])
    spread = np.cov(np.stack([cols, rows]))
    main = 0.5 * np.arctan2(2 * spread[0, 1], spread[0, 0] - spread[1, 1])

    def line(angle: float, shift: float) -> Midline:
        offset = float(centre @ np.array([np.cos(angle), np.sin(angle)])) + shift
        tried = Midline(angle=angle, offset=offset, likeness=0.0)
        return Midline(angle=angle, offset=offset, likeness=_likeness(small, inside, tried))

    starts = [main + quarter + turn for quarter in (0, np.pi / 2) for turn in np.radians([-16, -8, 0, 8, 16])]
    starts += [0.0, np.pi / 2]
    best, shift = max(((line(a, s), s) for a in starts for s in (-1.5, 0.0, 1.5)), key=lambda pair: pair[0].likeness)
    for step in (4.0, 2.0, 1.0):
        around = [
            (best.angle + np.radians(turn), shift + move)
            for turn in (-step, 0, step)
            for move in (-0.4 * step, 0, 0.4 * step)
        ]
        best, shift = max(((line(a, s), s) for a, s in around), key=lambda pair: pair[0].likeness)
    if best.likeness < _LEAST_LIKENESS:
        return None
    return Midline(angle=best.angle, offset=best.offset * plane.shape[1] / size[0], likeness=best.likeness)
