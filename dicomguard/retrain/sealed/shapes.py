"""Shapes of places to forge: blobs with a wavy outline, and the square patch that a small network looks at."""

from dataclasses import dataclass
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

Plane: TypeAlias = NDArray[np.float32]
Mask: TypeAlias = NDArray[np.bool_]

# Harmonics of the outline; amplitudes fall with their number, so that outlines stay smooth.
_WAVES = 5


def blob(shape: tuple[int, int], centre: tuple[float, float], radius: float, rng: np.random.Generator) -> Mask:
    """H×W true inside a closed outline around `centre` (row, column) of mean `radius` px, stretched up to 1.6:1."""
    stretch = float(np.exp(rng.uniform(-0.24, 0.24)))
    tilt = rng.uniform(0, np.pi)
    amplitudes = rng.normal(0, 0.11, _WAVES) / np.arange(1, _WAVES + 1)
    phases = rng.uniform(0, 2 * np.pi, _WAVES)
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    down, right = rows - centre[0], columns - centre[1]
    along = (right * np.cos(tilt) + down * np.sin(tilt)) / stretch
    across = (down * np.cos(tilt) - right * np.sin(tilt)) * stretch
    angle = np.arctan2(across, along)
    outline = np.ones(shape, np.float64)
    for order, (amplitude, phase) in enumerate(zip(amplitudes, phases, strict=True), start=2):
        outline += amplitude * np.cos(order * angle + phase)
    return np.asarray(np.hypot(along, across) <= radius * np.maximum(outline, 0.3))


@dataclass(frozen=True, slots=True, kw_only=True)
class Patch:
    """A square of a slice, seen by the network at its own matrix."""

    row: int
    column: int
    # Pixels of the slice.
    side: int

    def cut(self, plane: Plane, matrix: int) -> Plane:
        """The square at matrix × matrix; outside the slice it is 0."""
        square = np.zeros((self.side, self.side), np.float32)
        top, left = max(0, -self.row), max(0, -self.column)
        inside = plane[max(0, self.row) : self.row + self.side, max(0, self.column) : self.column + self.side]
        square[top : top + inside.shape[0], left : left + inside.shape[1]] = inside
        if self.side == matrix:
            return square
        return np.asarray(cv2.resize(square, (matrix, matrix), interpolation=cv2.INTER_AREA), np.float32)

    def put(self, plane: Plane, seen: Plane) -> Plane:
        """The slice with the square replaced by what was seen, back at the slice's pixels (cubic)."""
        square = seen
        if seen.shape[0] != self.side:
            square = cv2.resize(seen, (self.side, self.side), interpolation=cv2.INTER_CUBIC)
        result = plane.copy()
        top, left = max(0, -self.row), max(0, -self.column)
        target = result[max(0, self.row) : self.row + self.side, max(0, self.column) : self.column + self.side]
        target[...] = square[top : top + target.shape[0], left : left + target.shape[1]]
        return result


def patch_around(centre: tuple[float, float], side: int) -> Patch:
    """The patch of this side with its middle at `centre` (row, column)."""
    return Patch(row=round(centre[0] - side / 2), column=round(centre[1] - side / 2), side=side)
