"""Outlines of findings on a slice as a picture; the page draws its own, with the same strokes.

A region is never filled and never covered: the line runs outside it, so that the pixels in question stay visible.
Colours are those of Okabe and Ito, and each category has its own stroke, so that colour is not needed to read the
picture. Knows arrays only, no DICOM.
"""

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from dicomguard.errors import Broken

# sRGB of Okabe-Ito: bluish green, vermilion, reddish purple.
COLOURS: dict[str, tuple[int, int, int]] = {
    "real": (0, 158, 115),
    "added": (213, 94, 0),
    "removed": (204, 121, 167),
}
# Lengths of line and gap along the outline, in source pixels; no gap means a solid line.
_STROKES: dict[str, tuple[int, int]] = {"real": (1, 0), "added": (6, 4), "removed": (2, 3)}
# Source pixels between the region and the line.
_DISTANCE_PX = 2
_HALO = (0, 0, 0)
_LARGEST_SCALE = 16


def render(
    pixels: NDArray[np.uint8], masks: Sequence[tuple[NDArray[np.bool_], str]], *, scale: int = 1
) -> NDArray[np.uint8]:
    """Windowed slice H×W and (mask H×W, category) pairs → RGB (H·scale)×(W·scale)×3.

    Pixels are repeated, never interpolated. Raises `Broken` for a mask of another size, an unknown category or a scale
    outside 1 to 16.
    """
    if not 1 <= scale <= _LARGEST_SCALE:
        raise Broken(f"The overlay scale {scale} is impossible. Use 1 to {_LARGEST_SCALE}.")
    grown = np.repeat(np.repeat(pixels, scale, axis=0), scale, axis=1)
    rgb = np.repeat(grown[:, :, None], 3, axis=2)
    regions = [_grow(mask, category, pixels.shape, scale) for mask, category in masks]
    covered = np.zeros(grown.shape, bool)
    for region in regions:
        covered |= region
    for region, (_, category) in zip(regions, masks, strict=True):
        _outline(rgb, region, category=str(category), covered=covered, scale=scale)
    return rgb


def _grow(mask: NDArray[np.bool_], category: str, shape: tuple[int, ...], scale: int) -> NDArray[np.bool_]:
    if mask.shape != shape:
        raise Broken(f"A mask of {mask.shape} does not fit a slice of {shape}. Build both from the same instance.")
    if str(category) not in COLOURS:
        raise Broken(f'The category "{category}" has no colour. Known are {", ".join(COLOURS)}.')
    return np.repeat(np.repeat(mask.astype(bool), scale, axis=0), scale, axis=1)


def _outline(
    rgb: NDArray[np.uint8],
    region: NDArray[np.bool_],
    *,
    category: str,
    covered: NDArray[np.bool_],
    scale: int,
) -> None:
    """Draw halo and stroke of one region into `rgb`, leaving all `covered` pixels as they are."""
    if not region.any():
        return
    thickness = max(1, round(scale / 2))
    wide = cv2.dilate(region.astype(np.uint8), _disc(_DISTANCE_PX * scale))
    contours, _ = cv2.findContours(wide, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    line = np.zeros(region.shape, np.uint8)
    stroke = np.zeros(region.shape, np.uint8)
    on, off = (length * scale for length in _STROKES[category])
    for contour in contours:
        cv2.drawContours(line, [contour], -1, 1, thickness=thickness)
        points = contour[:, 0, :]
        drawn = np.arange(len(points)) % (on + off) < on
        stroke[points[drawn, 1], points[drawn, 0]] = 1
    if thickness > 1:
        stroke = cv2.dilate(stroke, _disc(thickness // 2))
    # The halo follows the whole outline, gaps included: a dash is then legible on white and on black.
    halo = cv2.dilate(line, _disc(max(1, scale // 2)))
    rgb[(halo > 0) & ~covered] = _HALO
    rgb[(stroke > 0) & ~covered] = COLOURS[category]


def _disc(radius: int) -> Any:
    side = 2 * radius + 1
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
