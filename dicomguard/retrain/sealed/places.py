"""Where a sealed family works, and what it leaves: the place through neighbouring slices, the outcome on the grid."""

from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from dicomguard.retrain.sealed.shapes import Mask, Plane, blob
from dicomguard.retrain.tamper.forged import Canvas, Forged, Kind

# A lesion, and a forged place, from this many pixels on.
_LEAST_PX = 64
_REMOVAL_SHARE = 0.5
# Mean radius of an added lesion over the radius of the head (as a disc).
_RADII = (0.10, 0.34)
_ATTEMPTS = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """What is to be changed."""

    kind: Kind
    # Z×H×W: where a lesion is to be (added), or the lesion with its rim (removed).
    region: Mask
    # Row and column of the middle.
    centre: tuple[float, float]
    # Of the slice in which the region is largest.
    radius: float


def choose(canvas: Canvas, rng: np.random.Generator) -> Place | None:
    """The marked lesion to remove, or an unmarked place to add one; None when the canvas has room for neither."""
    areas = canvas.lesion.sum(axis=(1, 2))
    if areas.max() >= _LEAST_PX and rng.random() < _REMOVAL_SHARE:
        return _removal(canvas, rng)
    return _addition(canvas, rng)


def _removal(canvas: Canvas, rng: np.random.Generator) -> Place:
    largest = canvas.lesion[int(np.argmax(canvas.lesion.sum(axis=(1, 2))))]
    radius = float(np.sqrt(largest.sum() / np.pi))
    # A lesion's outline is drawn tight; whoever removes it takes the rim too.
    margin = max(2, round(radius * rng.uniform(0.1, 0.3)))
    brush = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * margin + 1, 2 * margin + 1))
    region = np.stack(
        [
            (cv2.dilate(lesion.astype(np.uint8), brush) > 0) & head
            for lesion, head in zip(canvas.lesion, canvas.head, strict=True)
        ]
    )
    rows, columns = np.nonzero(region.any(axis=0))
    centre = ((rows.min() + rows.max()) / 2, (columns.min() + columns.max()) / 2)
    return Place(kind="removed", region=region, centre=(float(centre[0]), float(centre[1])), radius=radius + margin)


def _addition(canvas: Canvas, rng: np.random.Generator) -> Place | None:
    middle = canvas.pixels.shape[0] // 2
    head = canvas.head[middle].astype(np.uint8)
    head_radius = float(np.sqrt(head.sum() / np.pi))
    radius = max(6.0, head_radius * float(np.exp(rng.uniform(*np.log(_RADII)))))
    depth = cv2.distanceTransform(np.pad(head, 1), cv2.DIST_L2, 5)[1:-1, 1:-1]
    places = np.argwhere((depth > 0.15 * head_radius + 0.6 * radius) & ~canvas.lesion.any(axis=0))
    if not len(places):
        return None
    for _ in range(_ATTEMPTS):
        row, column = (float(value) for value in places[rng.integers(len(places))])
        outline = blob(head.shape, (row, column), radius, rng) & canvas.head[middle]
        if outline.sum() >= _LEAST_PX and not (outline & canvas.lesion.any(axis=0)).any():
            break
    else:
        return None
    region = np.zeros(canvas.pixels.shape, np.bool_)
    thickness = rng.uniform(1.2, 3.5)
    for z in range(len(region)):
        share = 1 - ((z - middle) / thickness) ** 2
        if share > 0:
            region[z] = _shrunk(outline, float(np.sqrt(share))) & canvas.head[z]
    return Place(kind="added", region=region, centre=(row, column), radius=radius)


def _shrunk(outline: Mask, factor: float) -> Mask:
    if factor > 0.99:
        return outline
    inside = cv2.distanceTransform(outline.astype(np.uint8), cv2.DIST_L2, 5)
    return np.asarray(inside > (1 - factor) * inside.max())


def soft(region: Mask, width: float) -> Plane:
    """Z×H×W weight 0…1: 1 deep inside, falling over about `width` px on either side of the outline."""
    weights = [cv2.GaussianBlur(plane.astype(np.float32), (0, 0), max(0.3, width)) for plane in region]
    return np.stack([np.where(weight < 0.01, 0, weight) for weight in weights]).astype(np.float32)


def outcome(
    canvas: Canvas,
    *,
    forged: NDArray[np.floating],
    twin: NDArray[np.floating],
    alpha: Plane,
    place: Place,
    family: str,
    variant: str,
    parameters: Mapping[str, float | str],
) -> Forged | None:
    """Both stacks on the stored grid with the mask of what differs; None when no slice has 64 px of it."""
    grid = [np.clip(np.rint(stack), canvas.low, canvas.high).astype(np.float32) for stack in (forged, twin)]
    differs = (np.abs(grid[0] - grid[1]) > 0.5) & (alpha > 0.05)
    closing = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (5, 5))
    masks = []
    for plane in differs:
        majority = cv2.blur(plane.astype(np.float32), (5, 5)) > 0.5
        masks.append(cv2.morphologyEx(majority.astype(np.uint8), cv2.MORPH_CLOSE, closing) > 0)
    mask = np.stack(masks)
    if mask.sum(axis=(1, 2)).max() < _LEAST_PX:
        return None
    inside = place.region & (alpha > 0.5)
    return Forged(
        pixels=grid[0],
        twin=grid[1],
        mask=mask,
        alpha=np.where((alpha == 0) & mask, np.float32(0.1), alpha),
        lesion=canvas.lesion | inside if place.kind == "added" else canvas.lesion & ~inside,
        kind=place.kind,
        family=family,
        variant=variant,
        parameters=parameters,
    )
