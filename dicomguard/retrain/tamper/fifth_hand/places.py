"""Where the fifth hand works: the lesion to take away, a free place in the brain, the tissue to take from.

An attacker picks these by eye in a viewer: he looks for a lesion, a quiet place, or the other hemisphere.
"""

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from dicomguard.retrain.tamper.filters import (
    box,
    depth_inside,
    dilate,
    erode,
    float32,
    gaussian,
    largest,
    remap,
    smooth_noise,
)
from dicomguard.retrain.tamper.forged import Canvas, Kind, Mask, Pixels

_SMALLEST_LESION_PX = 12
# Quantiles by which two places are compared: a ventricle shows in the lowest, bone in the highest.
_PROFILE = (0.02, 0.1, 0.5, 0.9, 0.98)


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """A region in neighbouring slices, and how strongly each slice is edited."""

    # Z×H×W, true where content shall change.
    region: Mask
    # Z×1×1, 1 in the middle slice, less towards the ends.
    weights: Pixels

    @property
    def run(self) -> list[int]:
        """Indices of the slices that are edited."""
        return [z for z, plane in enumerate(self.region) if plane.any()]

    @property
    def middle(self) -> int:
        """Index of the slice that holds most of the region."""
        return int(self.region.sum(axis=(1, 2)).argmax())


@dataclass(frozen=True, slots=True, kw_only=True)
class Growth:
    """A free place with an irregular outline for a new mass."""

    site: Site
    row: float
    col: float
    radius: float
    stretch: float
    angle: float
    # Z×H×W, smooth field that bends the outline.
    bends: Pixels

    def inside(self, z: int, down: float = 0.0, right: float = 0.0) -> Pixels:
        """H×W field at slice `z`, sampled that far off the pixel centres: 1 at the centre, 0 on the outline."""
        rows, cols = grids(self.bends[z])
        y, x = rows + np.float32(down - self.row), cols + np.float32(right - self.col)
        along = (np.cos(self.angle) * x + np.sin(self.angle) * y) / self.stretch
        across = (np.cos(self.angle) * y - np.sin(self.angle) * x) * self.stretch
        return float32(1 - np.hypot(along, across) / self.radius + self.bends[z])


def grids(plane: Pixels) -> tuple[Pixels, Pixels]:
    """Row and column number of every pixel, each H×W."""
    return float32(np.indices(plane.shape)[0]), float32(np.indices(plane.shape)[1])


def unit(canvas: Canvas) -> float:
    """How many pixels of this canvas span what one pixel spans in a usual 256×256 slice."""
    area = float(canvas.head.sum(axis=(1, 2)).max())
    return float(np.clip(np.sqrt(area) / 150, 0.4, 2.5))


def drawn_kind(canvas: Canvas, rng: np.random.Generator) -> Kind:
    return "removed" if canvas.lesion.any() and rng.random() < 0.5 else "added"


def brain(canvas: Canvas) -> Mask:
    """Z×H×W, the head without scalp and skull, guessed by depth."""
    depths = [depth_inside(plane) for plane in canvas.head]
    return np.stack([depth > max(1.0, 0.2 * float(depth.max())) for depth in depths])


def healthy(canvas: Canvas) -> Mask:
    """Z×H×W, brain at some distance from every lesion."""
    margin = round(3 * unit(canvas)) + 1
    return brain(canvas) & ~np.stack([dilate(plane, margin) for plane in canvas.lesion])


def lesion_site(canvas: Canvas, rng: np.random.Generator) -> Site | None:
    """One lesion, followed through a drawn number of slices; None where none is large enough."""
    marked = canvas.lesion & canvas.head
    areas = marked.sum(axis=(1, 2))
    if areas.max() < _SMALLEST_LESION_PX:
        return None
    middle = int(rng.choice(np.flatnonzero(areas >= max(_SMALLEST_LESION_PX, areas.max() / 2))))
    labels, count = ndimage.label(marked[middle], np.ones((3, 3)))
    sizes = np.bincount(np.ravel(labels), minlength=count + 1)[1:].astype(np.float64)
    sizes[sizes < _SMALLEST_LESION_PX] = 0
    if not sizes.any():
        return None
    region = np.zeros_like(canvas.lesion)
    region[middle] = labels == 1 + rng.choice(count, p=sizes / sizes.sum())
    first, last = _drawn_run(middle, len(areas), rng)
    for here, before in [(z, z - 1) for z in range(middle + 1, last + 1)] + [
        (z, z + 1) for z in range(middle - 1, first - 1, -1)
    ]:
        region[here] = _touching(marked[here], dilate(region[before], 2))
    return Site(region=region, weights=_fading(region, middle, rng.uniform(0.8, 1.0)))


def free_growth(canvas: Canvas, rng: np.random.Generator) -> Growth | None:
    """A place for a new mass of drawn size in tissue without lesion; None where the head has no room."""
    head_radius = np.sqrt(float(canvas.head.sum(axis=(1, 2)).max()) / np.pi)
    radius = float(rng.uniform(0.15, 0.28) * head_radius)
    centre = _free_centre(canvas, radius, rng)
    if centre is None:
        return None
    middle, row, col = centre
    count, *shape = canvas.pixels.shape
    first, last = _drawn_run(middle, count, rng)
    common, lobes, notches = (smooth_noise((shape[0], shape[1]), radius / part, rng) for part in (2.2, 4.0, 8.0))
    half = max(middle - first, last - middle) + 1
    bends = np.full(canvas.pixels.shape, -9, np.float32)
    amount = rng.uniform(0.12, 0.26)
    for z in range(first, last + 1):
        own = smooth_noise((shape[0], shape[1]), radius / 2.2, rng)
        bends[z] = amount * (0.8 * common + 0.3 * own + 0.6 * lobes + 0.3 * notches) - 0.5 * ((z - middle) / half) ** 2
    blank = Site(region=np.zeros_like(canvas.head), weights=np.ones((count, 1, 1), np.float32))
    growth = Growth(
        site=blank,
        row=row,
        col=col,
        radius=radius,
        stretch=float(rng.uniform(1.0, 1.3)),
        angle=float(rng.uniform(0, np.pi)),
        bends=bends,
    )
    region = np.stack([largest(growth.inside(z) > 0) for z in range(count)]) & brain(canvas) & ~canvas.lesion
    if not region[middle].any():
        return None
    site = Site(region=region, weights=_fading(region, middle, rng.uniform(0.55, 0.9)))
    return replace(growth, site=site)


def implant(canvas: Canvas, donor: Canvas, rng: np.random.Generator) -> tuple[Site, Pixels] | None:
    """The donor's lesion turned, scaled and brought to this head's grey levels, at a free place.

    Gives the site and the Z×H×W donor pixels seen from this canvas. `donor` may be the canvas itself.
    """
    origin = int(donor.lesion.sum(axis=(1, 2)).argmax())
    spot = largest(donor.lesion[origin])
    if spot.sum() < _SMALLEST_LESION_PX or not canvas.head.any():
        return None
    scale = np.sqrt(canvas.head.sum(axis=(1, 2)).max() / max(1, donor.head[origin].sum())) * rng.uniform(0.8, 1.1)
    limit = rng.uniform(0.2, 0.32) * np.sqrt(canvas.head.sum(axis=(1, 2)).max() / np.pi)
    scale *= min(1.0, limit / (scale * np.sqrt(spot.sum() / np.pi)))
    centre = _free_centre(canvas, float(scale * np.sqrt(spot.sum() / np.pi)), rng)
    if centre is None:
        return None
    middle, row, col = centre
    turn, side = rng.uniform(-0.5, 0.5), float(rng.choice((-1, 1)))
    rows, cols = grids(canvas.pixels[middle])
    y, x = (rows - row) / scale, side * (cols - col) / scale
    from_row, from_col = ndimage.center_of_mass(spot)
    source_rows = float32(from_row + np.cos(turn) * y - np.sin(turn) * x)
    source_cols = float32(from_col + np.sin(turn) * y + np.cos(turn) * x)
    first, last = _drawn_run(middle, len(canvas.pixels), rng)
    region, seen = np.zeros_like(canvas.head), canvas.pixels.copy()
    room = brain(canvas) & ~canvas.lesion
    levels = _levels(donor, canvas)
    for z in range(first, last + 1):
        source = int(np.clip(origin + z - middle, 0, len(donor.pixels) - 1))
        shape = remap(float32(_touching(donor.lesion[source], spot)), source_rows, source_cols, cv2.INTER_LINEAR) > 0.5
        # A mass shrinks towards its poles, also when the donor has one slice only.
        region[z] = largest(erode(shape, abs(z - middle))) & room[z]
        seen[z] = levels[0] + levels[1] * remap(donor.pixels[source], source_rows, source_cols, cv2.INTER_CUBIC)
    if not region[middle].any():
        return None
    return Site(region=region, weights=_fading(region, middle, rng.uniform(0.6, 0.95))), seen


def mirrored(canvas: Canvas, z: int) -> tuple[Pixels, Mask]:
    """The stack flipped over the midline found in slice `z`, and where that shows healthy tissue (both Z×H×W)."""
    plane, head = gaussian(canvas.pixels[z], 2.0), canvas.head[z]
    rows, cols = grids(plane)
    middle_row, middle_col = ndimage.center_of_mass(head) if head.any() else (0.0, 0.0)
    step = max(1, plane.shape[0] // 64)
    thin = (slice(None, None, step), slice(None, None, step))
    best, best_score = (0.0, middle_col), -np.inf
    for tilt in np.deg2rad((-8, -4, -2, 0, 2, 4, 8)):
        for shift in np.linspace(-0.05, 0.05, 9) * plane.shape[1]:
            there = _reflected(rows[thin], cols[thin], middle_row, middle_col + shift, tilt)
            flipped = remap(plane, there[0], there[1], cv2.INTER_LINEAR)
            score = -float(np.abs(flipped - plane[thin])[head[thin]].mean()) if head[thin].any() else 0.0
            if score > best_score:
                best, best_score = (float(tilt), middle_col + shift), score
    there = _reflected(rows, cols, middle_row, best[1], best[0])
    fit = healthy(canvas)
    pixels = np.stack([remap(slice_, there[0], there[1], cv2.INTER_CUBIC) for slice_ in canvas.pixels])
    return pixels, np.stack([remap(float32(slice_), there[0], there[1], cv2.INTER_LINEAR) > 0.5 for slice_ in fit])


def shifted(stack: Pixels, offset: tuple[int, int]) -> Pixels:
    """What lies `offset` (down, right) away from every pixel; the frame repeats its last line. Z×H×W."""
    rows = np.clip(np.arange(stack.shape[1]) + offset[0], 0, stack.shape[1] - 1)
    cols = np.clip(np.arange(stack.shape[2]) + offset[1], 0, stack.shape[2] - 1)
    return stack[:, rows[:, None], cols[None, :]]


def healthy_offset(canvas: Canvas, fit: Mask, region: Mask, z: int, rng: np.random.Generator) -> tuple[int, int] | None:
    """The offset to a healthy place (`fit`, Z×H×W) whose rim looks like the rim of `region` (H×W) in slice `z`."""
    plane = gaussian(canvas.pixels[z], 1.0)
    rim = dilate(region, 4) & ~dilate(region, 1) & fit[z]
    level = np.quantile(plane[rim if rim.any() else canvas.head[z]], _PROFILE)
    spread = max(float(plane[canvas.head[z]].std()), 1e-3)
    points = np.argwhere(dilate(region, 2))
    radius = np.sqrt(region.sum() / np.pi)
    best, best_score = None, 1.0
    for _ in range(48):
        reach, course = rng.uniform(1.4, 5.0) * radius + 2, rng.uniform(0, 2 * np.pi)
        offset = (round(reach * np.sin(course)), round(reach * np.cos(course)))
        there = points + offset
        kept = there[((there >= 0) & (there < plane.shape)).all(axis=1)]
        good = fit[z][kept[:, 0], kept[:, 1]]
        if not good.any():
            continue
        found = np.quantile(plane[kept[:, 0], kept[:, 1]][good], _PROFILE)
        apart = float(np.abs(found - level).mean()) / spread
        score = 5 * (1 - good.sum() / len(points)) + apart
        if score < best_score:
            best, best_score = offset, score
    return best


def lesion_contrast(canvas: Canvas, donor: Canvas | None, z: int, rng: np.random.Generator) -> float:
    """How far a believable lesion stands above healthy tissue here, in stored values."""
    fit = brain(canvas)[z] & ~canvas.lesion[z]
    if not fit.any():
        return 0.0
    low, middle, high = (float(level) for level in np.percentile(canvas.pixels[z][fit], (10, 50, 95)))
    room = float(canvas.pixels[z].max()) - middle
    for example in (canvas, donor):
        if example is not None and example.lesion.any():
            calm = example.pixels[brain(example) & ~example.lesion]
            apart = float(np.median(example.pixels[example.lesion]) - np.median(calm)) if calm.size else 0.0
            gain = 1.0 if example is canvas else _levels(example, canvas)[1]
            return float(np.clip(rng.uniform(0.8, 1.1) * gain * apart, 0.3 * (high - low), 0.85 * room))
    return float(min(rng.uniform(0.6, 1.1) * (high - low), 0.85 * room))


def crop_around(region: Mask, margin: int) -> tuple[slice, slice]:
    """Rows and columns that hold an H×W region and `margin` pixels about it."""
    rows, cols = np.nonzero(region.any(axis=1))[0], np.nonzero(region.any(axis=0))[0]
    return (
        slice(max(0, int(rows[0]) - margin), int(rows[-1]) + margin + 1),
        slice(max(0, int(cols[0]) - margin), int(cols[-1]) + margin + 1),
    )


def _drawn_run(middle: int, count: int, rng: np.random.Generator) -> tuple[int, int]:
    length = int(rng.integers(1, count + 1))
    first = max(0, middle - int(rng.integers(0, length)))
    return first, min(count - 1, first + length - 1)


def _fading(region: Mask, middle: int, end: float) -> Pixels:
    away = np.abs(np.arange(len(region)) - middle) * region.any(axis=(1, 2))
    return float32(1 - (1 - end) * (away / max(1, away.max())) ** 2)[:, None, None]


def _touching(mask: Mask, seed: Mask) -> Mask:
    if mask.shape != seed.shape or not (mask & seed).any():
        return np.zeros_like(mask)
    labels, _ = ndimage.label(mask, np.ones((3, 3)))
    return np.isin(labels, np.unique(np.asarray(labels)[mask & seed])) & mask


def _free_centre(canvas: Canvas, radius: float, rng: np.random.Generator) -> tuple[int, float, float] | None:
    tissue = brain(canvas)
    areas = tissue.sum(axis=(1, 2))
    if not areas.any():
        return None
    z = int(rng.choice(np.flatnonzero(areas >= 0.6 * areas.max())))
    smooth = gaussian(canvas.pixels[z], max(1.0, radius / 3))
    low, high = np.percentile(smooth[tissue[z]], (30, 97))
    deep = depth_inside(tissue[z]) > 0.6 * radius
    free = deep & ~dilate(canvas.lesion[z], round(radius)) & (smooth >= low) & (smooth <= high)
    if not free.any():
        return None
    # A mass over a ventricle or a fissure looks glued on: take the calmer places.
    window = 2 * round(0.8 * radius) + 1
    uneven = box(canvas.pixels[z] ** 2, window) - box(canvas.pixels[z], window) ** 2
    free &= uneven <= np.percentile(uneven[free], 30)
    places: NDArray[np.int64] = np.argwhere(free)
    row, col = places[rng.integers(len(places))]
    return z, float(row), float(col)


def _levels(donor: Canvas, canvas: Canvas) -> tuple[float, float]:
    """Offset and gain that bring the donor's brain to the grey levels of this canvas."""
    ends = []
    for each_canvas in (donor, canvas):
        tissue = each_canvas.pixels[brain(each_canvas) & ~each_canvas.lesion]
        ends.append(np.percentile(tissue, (10, 90)) if tissue.size else np.array([0.0, 1.0]))
    gain = float((ends[1][1] - ends[1][0]) / max(ends[0][1] - ends[0][0], 1e-3))
    return float(ends[1][0] - gain * ends[0][0]), gain


def _reflected(rows: Pixels, cols: Pixels, row: float, col: float, tilt: float) -> tuple[Pixels, Pixels]:
    down, right = np.sin(tilt), np.cos(tilt)
    apart = 2 * ((rows - row) * down + (cols - col) * right)
    return float32(rows - apart * down), float32(cols - apart * right)
