"""Tissue that looks like the surroundings of a hole, found elsewhere in the same head, and donor lesions.

The search is the full template match of exemplar inpainting (Criminisi, Pérez and Toyama, IEEE TIP 2004), once for all
slices, so that an edit stays one through the slices.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from scipy import ndimage

from dicomguard.retrain.tamper.filters import depth_inside, erode, float32, gaussian
from dicomguard.retrain.tamper.forged import Canvas, Mask, Pixels
from dicomguard.retrain.tamper.sixth_hand.scene import Site, free_place, head_scale, healthy, inner, window, workable

_AXES = (-1, 0, 1)
_FEWEST_RING_PX = 60
# Share of the hole that may lie over something that is no healthy tissue, and what such a share costs.
_MOST_BAD = 0.25
_BAD_COSTS = 25.0
# An offset in brightness is evened out later and costs less than a difference in structure.
_OFFSET_FORGIVEN = 0.8
_APART_PX = 5
# A mirrored hemisphere lies this far at most, as a share of the head's width, from where the outline puts it.
_MIRROR_SLACK = 0.08


@dataclass(frozen=True, slots=True, kw_only=True)
class Graft:
    """A donor's lesion with its surroundings, moved over the canvas; Z×H×W."""

    pixels: Pixels
    core: Mask
    # Donor tissue that may come along, and the healthy part of it.
    inner: Mask
    healthy: Mask


def _flip(plane: Pixels, axis: int) -> Pixels:
    return plane if axis < 0 else np.ascontiguousarray(np.flip(plane, axis))


def lookalikes(canvas: Canvas, site: Site, count: int, *, mirror: bool = False) -> list[Pixels]:
    """Up to `count` stacks moved over the hole, best first; `mirror`: only about where the other hemisphere lies."""
    z = site.strongest
    hole = np.asarray(site.hole.any(axis=0))
    cut = window(hole, round(14 * site.scale) + 4)
    around = (site.healthy[z] & ~hole)[cut].astype(np.float32)
    if around.sum() < _FEWEST_RING_PX:
        return []
    smooth, sound = gaussian(canvas.pixels[z], 1.0), float32(site.healthy.all(axis=0))
    ranked: list[tuple[float, int, int, int]] = []
    for axis in _AXES[mirror:]:
        cost = _costs(_flip(smooth, axis), _flip(sound, axis), smooth[cut], around, hole[cut].astype(np.float32))
        if mirror:
            cost = _near_mirror(cost, canvas.head[z], cut, axis, _MIRROR_SLACK * 150 * site.scale)
        for _ in range(count):
            row, col = (int(v) for v in np.unravel_index(int(np.argmin(cost)), cost.shape))
            if not np.isfinite(cost[row, col]):
                break
            ranked.append((float(cost[row, col]), axis, row - cut[0].start, col - cut[1].start))
            cost[max(0, row - _APART_PX) : row + _APART_PX + 1, max(0, col - _APART_PX) : col + _APART_PX + 1] = np.inf
    ranked.sort()
    return [_moved(canvas.pixels, axis, down, right) for _, axis, down, right in ranked[:count]]


def _costs(plane: Pixels, sound: Pixels, template: Pixels, around: Pixels, hole: Pixels) -> Pixels:
    """Mean squared difference over the ring for each place of the template; infinite where the source is unsound."""
    squared = cv2.matchTemplate(plane, template, cv2.TM_SQDIFF, mask=around) / around.sum()
    offset = (cv2.matchTemplate(plane, around, cv2.TM_CCORR) - float((template * around).sum())) / around.sum()
    bad = np.clip(cv2.matchTemplate(1 - sound, hole, cv2.TM_CCORR) / hole.sum(), 0, 1)
    cost = np.maximum(squared - _OFFSET_FORGIVEN * offset**2, 0) * (1 + _BAD_COSTS * bad)
    return np.where(bad <= _MOST_BAD, cost, np.inf).astype(np.float32)


def _near_mirror(cost: Pixels, head: Mask, cut: tuple[slice, slice], axis: int, slack: float) -> Pixels:
    box = window(head, 0)
    middles = [(side.start + side.stop - 1) / 2 for side in box]
    expected = [float(side.start) for side in cut]
    expected[axis] += head.shape[axis] - 1 - 2 * middles[axis]
    rows, cols = np.ogrid[: cost.shape[0], : cost.shape[1]]
    return np.where(np.hypot(rows - expected[0], cols - expected[1]) <= slack, cost, np.inf).astype(np.float32)


def _moved(stack: Pixels, axis: int, down: int, right: int) -> Pixels:
    """The stack flipped in its slices and shifted by whole pixels (noise stays as it is), edges repeated."""
    rows = np.clip(np.arange(stack.shape[1]) + down, 0, stack.shape[1] - 1)
    cols = np.clip(np.arange(stack.shape[2]) + right, 0, stack.shape[2] - 1)
    flipped = stack if axis < 0 else np.flip(stack, axis + 1)
    return np.ascontiguousarray(flipped[:, rows][:, :, cols])


def graft(canvas: Canvas, donor: Canvas | None, rng: np.random.Generator) -> Graft | None:
    """A lesion of the donor turned, scaled to the head and laid over a free place of the canvas."""
    if donor is None or not workable(canvas) or not workable(donor) or not donor.lesion.any():
        return None
    labels, count = ndimage.label(donor.lesion, np.ones((3, 3, 3)))
    areas = np.bincount(labels.ravel(), minlength=count + 1)[1:].astype(np.float64)
    lesion = labels == 1 + int(rng.choice(count, p=areas / areas.sum()))
    top = int(np.argmax(lesion.sum(axis=(1, 2))))
    union = lesion.any(axis=0)
    rows, cols = np.nonzero(union)
    centre = (float(rows.mean()), float(cols.mean()))
    reach = float(np.hypot(rows - centre[0], cols - centre[1]).max()) + 1
    zoom = head_scale(canvas) / head_scale(donor) * rng.uniform(0.75, 1.15)
    zoom = min(zoom, rng.uniform(20, 30) * head_scale(canvas) / reach)
    place = free_place(canvas, reach * zoom, rng)
    if place is None:
        return None
    zoom *= min(1.0, 1.1 * place[2] / (reach * zoom))
    if float(lesion[top].sum()) * zoom**2 < 40:
        return None
    return _laid(
        canvas, donor, lesion, _affine(centre, place[:2], zoom, rng), top, int(rng.integers(len(canvas.pixels)))
    )


def _affine(centre: tuple[float, float], place: tuple[int, int], zoom: float, rng: np.random.Generator) -> Pixels:
    """Donor to canvas, (x, y)."""
    angle = np.deg2rad(rng.uniform(-25, 25) + 90 * rng.integers(4))
    turn = zoom * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    turn[:, 0] *= rng.choice((-1, 1))
    shift = np.array(place[::-1]) - turn @ np.array(centre[::-1])
    return float32(np.column_stack([turn, shift]))


def _laid(canvas: Canvas, donor: Canvas, lesion: Mask, affine: Pixels, top: int, under: int) -> Graft:
    shape = canvas.pixels.shape
    pixels, core = np.zeros(shape, np.float32), np.zeros(shape, np.bool_)
    deep, sound = np.zeros(shape, np.bool_), np.zeros(shape, np.bool_)
    donor_inner, donor_healthy = inner(donor), healthy(donor, np.zeros_like(donor.lesion))
    # Reducing without a blur would alias.
    zoom = float(np.hypot(affine[0, 0], affine[1, 0]))
    for z in range(shape[0]):
        source = int(np.clip(z - under + top, 0, len(lesion) - 1))
        # Where the donor's run ends within the lesion, its last slice tapers off.
        beyond = abs(z - under + top - source)
        own = lesion[source]
        own = erode(own, round(0.4 * beyond * float(depth_inside(own).max())))
        size = (shape[2], shape[1])
        plane = donor.pixels[source] if zoom > 0.8 else gaussian(donor.pixels[source], 0.4 / zoom)
        pixels[z] = cv2.warpAffine(plane, affine, size, flags=cv2.INTER_CUBIC)
        core[z] = cv2.warpAffine(own.astype(np.float32), affine, size) > 0.5
        deep[z] = cv2.warpAffine(donor_inner[source].astype(np.float32), affine, size) > 0.9
        sound[z] = cv2.warpAffine(donor_healthy[source].astype(np.float32), affine, size) > 0.5
    return Graft(pixels=pixels, core=core & canvas.head, inner=deep, healthy=sound)
