"""Masks of findings as measures: disjoint pixels, outline, area, extent, centre, volume.

Works on boolean arrays H×W at native pixels; knows no score beyond the order it is given and no network.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray
from skimage.measure import approximate_polygon, find_contours

Mask: TypeAlias = NDArray[np.bool_]

# Most points of an outline, and how far in pixels it may leave the border of the mask.
MOST_POINTS = 400
TOLERANCE_PX = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One mask on one slice."""

    pixels: int
    # 0 where the object does not say how large a pixel is.
    area_mm2: float
    # Half-open [row0, column0, row1, column1).
    box_px: tuple[int, int, int, int]
    # Closed, (column, row), the outer corner of the first pixel is (0, 0).
    outline_px: tuple[tuple[float, float], ...]
    # Largest distance of two points of the outline, mm; 0 like the area.
    extent_mm: float
    # Mean row and column, centre of the first pixel is 0.
    centre_px: tuple[float, float]


def disjoint(masks: Sequence[Mapping[int, Mask]], strengths: Sequence[float]) -> list[dict[int, Mask]]:
    """Give each pixel of each slice to one region: the stronger, ties to the earlier.

    `masks[r][i]` is region r on slice i. Slices that lose all their pixels are dropped; a region may end empty.
    """
    result: list[dict[int, Mask]] = [{} for _ in masks]
    taken: dict[int, Mask] = {}
    for region in sorted(range(len(masks)), key=lambda r: (-strengths[r], r)):
        for index, mask in sorted(masks[region].items()):
            own = mask.astype(bool)
            if index in taken:
                own &= ~taken[index]
            if own.any():
                result[region][index] = own
                taken[index] = own | taken[index] if index in taken else own.copy()
    return result


def measure(mask: Mask, spacing_mm: tuple[float, float] | None) -> Measured:
    """Measures of a mask with at least one pixel; spacing between rows, then between columns."""
    rows, columns = np.nonzero(mask)
    outline = _outline(mask)
    by_row, by_column = spacing_mm or (0.0, 0.0)
    return Measured(
        pixels=len(rows),
        area_mm2=len(rows) * by_row * by_column,
        box_px=(int(rows.min()), int(columns.min()), int(rows.max()) + 1, int(columns.max()) + 1),
        outline_px=outline,
        extent_mm=_extent(outline, by_row, by_column),
        centre_px=(float(rows.mean()), float(columns.mean())),
    )


def _outline(mask: Mask) -> tuple[tuple[float, float], ...]:
    """Border of the largest component between the pixels' centres, at most 400 points (PS3.3 C.18.6.1.2 corners)."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=4)
    largest = 1 + int(np.argmax(stats[1:count, cv2.CC_STAT_AREA]))
    left, top = int(stats[largest, cv2.CC_STAT_LEFT]), int(stats[largest, cv2.CC_STAT_TOP])
    width, height = int(stats[largest, cv2.CC_STAT_WIDTH]), int(stats[largest, cv2.CC_STAT_HEIGHT])
    own = np.pad(labels[top : top + height, left : left + width] == largest, 1)
    contours = find_contours(own.astype(np.float32), 0.5, fully_connected="low")
    border = max(contours, key=len)
    tolerance = TOLERANCE_PX
    points = approximate_polygon(border, tolerance)
    while len(points) > MOST_POINTS:
        tolerance *= 1.5
        points = approximate_polygon(border, tolerance)
    # The padding moved everything by one; centres lie half a pixel from the corner.
    result = [(round(float(c) + left - 0.5, 2), round(float(r) + top - 0.5, 2)) for r, c in points]
    if result[0] != result[-1]:
        result.append(result[0])
    return tuple(result)


def _extent(outline: Sequence[tuple[float, float]], by_row: float, by_column: float) -> float:
    points = np.asarray([(x * by_column, y * by_row) for x, y in outline], dtype=np.float32)
    hull = cv2.convexHull(points).reshape(-1, 2)
    longest = 0.0
    for point in hull:
        longest = max(longest, float(np.sqrt(((hull - point) ** 2).sum(axis=1).max())))
    return longest


def volume_mm3(areas_mm2: Sequence[float], slabs_mm: Sequence[float | None]) -> float:
    """Σ area × slab; 0 where a slab is not known."""
    if any(slab is None for slab in slabs_mm):
        return 0.0
    return math.fsum(area * (slab or 0.0) for area, slab in zip(areas_mm2, slabs_mm, strict=True))
