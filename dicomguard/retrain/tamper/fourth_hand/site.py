"""Where a forgery takes place: a window around a lesion, a spot or a free place in the brain."""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from dicomguard.retrain.tamper.filters import depth_inside, dilate, gaussian
from dicomguard.retrain.tamper.forged import Canvas, Mask, Pixels
from dicomguard.retrain.tamper.fourth_hand import outline

_SMALLEST_SIDE_PX = 24
_SMALLEST_LESION_PX = 20
# Scalp and skull take about this share of the way to the middle of a head.
_SHELL = 0.16
# Nobody takes away, unseen, what fills more of the head than this.
_LARGEST_SHARE = 0.13


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """A window of the canvas; all stacks are Z×h×w in it."""

    rows: slice
    cols: slice
    pixels: Pixels
    head: Mask
    lesion: Mask
    # Where pixels may change: brain, and lesions with a margin; skull and scalp stay.
    field: Mask
    # Tissue that may serve as a model: in the brain, well away from every lesion, not the hole.
    healthy: Mask
    # What is to be exchanged or changed.
    hole: Mask
    outline: str

    def planes(self) -> list[int]:
        """The slices that hold something to do."""
        return [int(z) for z in np.flatnonzero(self.hole.any(axis=(1, 2)))]

    def cut(self, stack: Pixels) -> Pixels:
        return stack[:, self.rows, self.cols]


def usable(canvas: Canvas) -> bool:
    """Whether there is a head to work in at all."""
    return min(canvas.pixels.shape[1:]) >= _SMALLEST_SIDE_PX and int(canvas.head.sum(axis=(1, 2)).max()) >= 400


def brain(head: Mask) -> Mask:
    """One slice's head without scalp and skull, roughly."""
    depth = depth_inside(head)
    return depth > max(2.0, _SHELL * float(depth.max()))


def around(canvas: Canvas, hole: Mask, name: str, *, margin: float) -> Site | None:
    """The window around a Z×H×W hole, with a margin for models of healthy tissue."""
    hole = hole & canvas.head
    flat = np.logical_or.reduce(hole, axis=0)
    if int(flat.sum()) < _SMALLEST_LESION_PX:
        return None
    rows, cols = np.flatnonzero(flat.any(axis=1)), np.flatnonzero(flat.any(axis=0))
    room = int(margin)
    window = (
        slice(max(0, int(rows[0]) - room), min(hole.shape[1], int(rows[-1]) + 1 + room)),
        slice(max(0, int(cols[0]) - room), min(hole.shape[2], int(cols[-1]) + 1 + room)),
    )
    near = (slice(None), *window)
    # Skull is no model for brain, unless nothing else is left in the window.
    inner = np.stack([brain(plane) for plane in canvas.head])[near]
    ill = np.stack([dilate(plane, 4) for plane in canvas.lesion[near] | hole[near]])
    field = canvas.head[near] & (inner | np.stack([dilate(plane, 3) for plane in canvas.lesion[near]]))
    hole = hole.copy()
    hole[near] &= field
    healthy = inner & ~ill
    for z in range(healthy.shape[0]):
        healthy[z] = common(canvas.pixels[near][z], healthy[z])
    scarce = healthy.sum(axis=(1, 2)) < 80
    healthy[scarce] = (canvas.head[near] & ~ill)[scarce]
    return Site(
        rows=window[0],
        cols=window[1],
        pixels=canvas.pixels[near],
        head=canvas.head[near],
        lesion=canvas.lesion[near],
        field=field,
        healthy=healthy,
        hole=hole[near],
        outline=name,
    )


def common(plane: Pixels, tissue: Mask) -> Mask:
    """The tissue without vessels, ventricles and fat: what is far from its median."""
    if int(tissue.sum()) < 200:
        return tissue
    smooth = gaussian(plane, 1.0)
    low, middle, high = np.percentile(smooth[tissue], [16, 50, 84])
    bound = 2.1 * max(float(high - low) / 2, 1e-3)
    common = tissue & (np.abs(smooth - middle) < bound)
    return common if int(common.sum()) >= 150 else tissue


def over_lesion(canvas: Canvas, rng: np.random.Generator, *, reach: float = 1.0) -> Site | None:
    """A site over one lesion of the canvas, drawn by size; the hole covers it in every slice."""
    if not usable(canvas) or not canvas.lesion.any():
        return None
    labels, count = ndimage.label(canvas.lesion, np.ones((3, 3, 3)))
    sizes = np.bincount(labels.ravel(), minlength=count + 1)[1:].astype(np.float64)
    head = float(canvas.head.sum(axis=(1, 2)).max())
    widest = np.array([int((labels == k).sum(axis=(1, 2)).max()) for k in range(1, count + 1)])
    sizes[(sizes < _SMALLEST_LESION_PX) | (widest > _LARGEST_SHARE * head)] = 0
    if sizes.sum() == 0:
        return None
    chosen = labels == 1 + int(rng.choice(count, p=np.sqrt(sizes) / np.sqrt(sizes).sum()))
    hole, name = outline.covering(canvas.pixels, chosen & canvas.head, rng)
    radius = float(np.sqrt(hole.sum(axis=(1, 2)).max() / np.pi))
    return around(canvas, hole, name, margin=10 + reach * radius)


def over_spot(canvas: Canvas, rng: np.random.Generator, *, reach: float = 1.5) -> Site | None:
    """A site over a small bright or dark normal spot of a slice, as somebody would take for a finding."""
    if not usable(canvas):
        return None
    z = int(rng.integers(canvas.pixels.shape[0]))
    inner = brain(canvas.head[z]) & ~dilate(canvas.lesion[z], 6)
    if int(inner.sum()) < 200:
        return None
    size = float(np.sqrt(inner.sum() / np.pi))
    sigma = float(rng.uniform(0.05, 0.11)) * size + 1.0
    plane = canvas.pixels[z]
    contrast = (gaussian(plane, sigma) - gaussian(plane, 2.2 * sigma)) * (1 if rng.random() < 0.6 else -1)
    contrast[~inner | (depth_inside(inner) < sigma)] = -np.inf
    peaks = (contrast == ndimage.maximum_filter(contrast, size=int(2 * sigma) + 1)) & np.isfinite(contrast)
    places = np.argwhere(peaks & (contrast > 0))
    if len(places) == 0:
        return None
    strength = np.array([contrast[r, c] for r, c in places], np.float64)
    row, col = places[int(rng.choice(len(places), p=strength / strength.sum()))]
    levels, name = outline.free((1, *plane.shape), (0, int(row), int(col)), 1.6 * sigma, rng, span=1.0)
    hole = np.zeros_like(canvas.lesion)
    hole[z] = (levels[0] > 0) & canvas.head[z]
    return around(canvas, hole, name, margin=12 + reach * 2 * sigma)


def free_place(canvas: Canvas, radius: float, rng: np.random.Generator) -> tuple[tuple[int, int, int], float] | None:
    """A place in the brain for a lesion of about the radius: its centre, and the radius that fits there."""
    if not usable(canvas):
        return None
    for z in rng.permutation(canvas.pixels.shape[0]):
        inner = brain(canvas.head[z])
        if int(inner.sum()) < 150:
            continue
        smooth = gaussian(canvas.pixels[z], max(1.0, 0.4 * radius))
        low, high = np.percentile(smooth[inner], [18, 96])
        fine = gaussian(canvas.pixels[z], 1.0)
        rough = gaussian((fine - smooth) ** 2, max(1.0, 0.5 * radius))
        # Neither ventricle nor vessel nor fat: a tumor grows in parenchyma.
        tissue = inner & (smooth >= low) & (smooth <= high)
        depth = depth_inside(inner & ~dilate(canvas.lesion[z], 3))
        for shrink in (1.0, 0.75, 0.55):
            # A tumor may reach the surface of the brain; it does not grow through it.
            places = np.argwhere(tissue & (depth > 0.85 * shrink * radius) & (depth > 2.5))
            if len(places):
                tried = places[rng.integers(len(places), size=6)]
                # Among a few, the one with the least structure underneath.
                calm = [float(rough[r, c]) for r, c in tried]
                row, col = tried[int(np.argmin(calm))]
                return (int(z), int(row), int(col)), radius * shrink
    return None


def draw_radius(canvas: Canvas, rng: np.random.Generator) -> float:
    """A lesion's radius in pixels, by the size of the head."""
    head = float(np.sqrt(canvas.head.sum(axis=(1, 2)).max() / np.pi))
    return max(4.0, head * float(rng.uniform(0.08, 0.3)))
