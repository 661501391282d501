"""Where this hand works: outlines as level functions, their course through the slices, and a place for them.

An outline is a plane that is positive inside and falls by about one a pixel, so that one threshold shrinks it from
slice to slice and one ramp makes a soft edge of it.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from types import MappingProxyType

import cv2
import numpy as np

from dicomguard.retrain.tamper.filters import depth_inside, float32, signed_distance
from dicomguard.retrain.tamper.forged import Canvas, Mask, Pixels
from dicomguard.retrain.tamper.region import LARGEST_SHARE, SMALLEST_AREA_PX, Region, crop, head_radius, workable

_MARGIN = 14
# A lesion is the aim of most removals; the rest alter healthy tissue, so that content is not the label.
_ON_LESION_SHARE = 0.7
_ALONE_SHARE = 0.3
_LEAST_TISSUE = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """A footprint with its soft shape: `level` is Z×h×w, positive inside, about one a pixel."""

    region: Region
    level: Pixels

    def planes(self) -> list[int]:
        return [int(z) for z in np.flatnonzero(self.region.core.any(axis=(1, 2)))]


def _axes(radius: float, reach: float) -> tuple[Pixels, Pixels]:
    half = int(np.ceil(reach * radius)) + 3
    axis = np.arange(-half, half + 1, dtype=np.float32)
    return axis[:, None], axis[None, :]


def _metaballs(radius: float, rng: np.random.Generator) -> Pixels:
    """Two to five drops that flow together."""
    rows, cols = _axes(radius, 1.9)
    field = np.zeros((rows.size, cols.size), np.float32)
    for _ in range(int(rng.integers(2, 6))):
        away, turn = radius * rng.uniform(0, 0.75), rng.uniform(0, 2 * np.pi)
        size = radius * rng.uniform(0.45, 0.9)
        field += np.exp(
            -((rows - away * np.sin(turn)) ** 2 + (cols - away * np.cos(turn)) ** 2) / np.float32(size**2)
        ).astype(np.float32)
    return signed_distance(field > rng.uniform(0.45, 0.65))


def _freehand(radius: float, rng: np.random.Generator) -> Pixels:
    """A polygon clicked around by hand, its corners cut twice (Chaikin)."""
    count = int(rng.integers(6, 15))
    angles = np.sort(np.linspace(0, 2 * np.pi, count, endpoint=False) + rng.uniform(-0.2, 0.2, count))
    reach = radius * rng.uniform(0.65, 1.3, count)
    points = np.stack([reach * np.cos(angles), reach * np.sin(angles) * rng.uniform(0.6, 1.0)], axis=1)
    for _ in range(int(rng.integers(0, 3))):
        following = np.roll(points, -1, axis=0)
        points = np.stack([0.75 * points + 0.25 * following, 0.25 * points + 0.75 * following], axis=1).reshape(-1, 2)
    turn = rng.uniform(0, 2 * np.pi)
    spin = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    half = int(np.ceil(1.4 * radius)) + 3
    filled = np.zeros((2 * half + 1, 2 * half + 1), np.uint8)
    cv2.fillPoly(filled, [np.rint(points @ spin.T + half).astype(np.int32)], 1)
    return signed_distance(filled > 0)


def _superellipse(radius: float, rng: np.random.Generator) -> Pixels:
    """From a lozenge to a rounded box, bent like a bean."""
    rows, cols = _axes(radius, 1.8)
    turn, stretch, power = rng.uniform(0, np.pi), rng.uniform(1.0, 1.6), rng.uniform(1.4, 3.5)
    along = (cols * np.cos(turn) + rows * np.sin(turn)) / (radius * stretch)
    across = (rows * np.cos(turn) - cols * np.sin(turn)) * stretch / radius
    across = across - rng.uniform(-0.5, 0.5) * (along**2 - 0.4)
    return signed_distance(np.abs(along) ** power + np.abs(across) ** power <= 1)


def _terrain(radius: float, rng: np.random.Generator) -> Pixels:
    """A contour line of a rough hill: spectrum 1/f^2 on a slope."""
    rows, cols = _axes(radius, 1.7)
    hill = 1 - np.hypot(rows, cols) / radius + 0.3 * power_noise((rows.size, cols.size), 2.4, rng)
    _, labels, stats, _ = cv2.connectedComponentsWithStats((hill > 0).astype(np.uint8), connectivity=4)
    if stats.shape[0] < 2:
        return signed_distance(np.hypot(rows, cols) <= radius)
    return signed_distance(labels == 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA])))


def _stroke(radius: float, rng: np.random.Generator) -> Pixels:
    """What a wide brush leaves along a bent line."""
    half = int(np.ceil(1.9 * radius)) + 3
    filled = np.zeros((2 * half + 1, 2 * half + 1), np.uint8)
    width = radius * rng.uniform(0.5, 0.85)
    heading, steps = rng.uniform(0, 2 * np.pi), int(rng.integers(3, 8))
    at = np.array([half, half]) - radius * 0.45 * np.array([np.cos(heading), np.sin(heading)])
    for _ in range(steps):
        cv2.circle(filled, (round(float(at[0])), round(float(at[1]))), max(2, round(float(width))), 1, -1)
        at = at + 0.9 * radius / steps * np.array([np.cos(heading), np.sin(heading)])
        heading += rng.normal(0, 0.5)
        width *= rng.uniform(0.85, 1.15)
    return signed_distance(filled > 0)


_SHAPES: MappingProxyType[str, Callable[[float, np.random.Generator], Pixels]] = MappingProxyType(
    {
        "metaballs": _metaballs,
        "freehand": _freehand,
        "superellipse": _superellipse,
        "terrain": _terrain,
        "stroke": _stroke,
    }
)


def power_noise(shape: tuple[int, int], beta: float, rng: np.random.Generator) -> Pixels:
    """Noise whose amplitude falls as 1/f^(beta/2), zero mean, unit variance."""
    rows, cols = np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1])[None, :]
    frequency = np.hypot(rows, cols)
    frequency[0, 0] = np.inf
    spectrum = np.fft.rfft2(rng.standard_normal(shape)) * frequency ** (-beta / 2)
    field = np.fft.irfft2(spectrum, s=shape)
    return (field / max(float(field.std()), 1e-9)).astype(np.float32)


def shape(radius: float, rng: np.random.Generator) -> tuple[Pixels, str]:
    """An outline of about the given radius in pixels as a level plane in its own square."""
    name = list(_SHAPES)[int(rng.integers(len(_SHAPES)))]
    return _SHAPES[name](radius, rng), name


def _shrinking(count: int, centre: int, rng: np.random.Generator) -> list[float]:
    """Per slice the share of the depth that is taken off, above 1 where untouched."""
    if count == 1 or rng.random() < _ALONE_SHARE:
        return [0.0 if z == centre else 2.0 for z in range(count)]
    reach = rng.uniform(1.2, 0.6 * count + 1.0)
    steps = [abs(z - centre) / reach for z in range(count)]
    if rng.random() < 0.5:
        return [float(1 - np.cos(0.5 * np.pi * step)) if step < 1 else 2.0 for step in steps]
    return [float(0.9 * step) if step < 1 else 2.0 for step in steps]


def _stack(level: Pixels, count: int, centre: int, rng: np.random.Generator) -> Pixels:
    deepest = float(level.max())
    taken = _shrinking(count, centre, rng)
    return np.stack([level - share * deepest if share < 0.85 else np.full_like(level, -1e3) for share in taken])


def ground(canvas: Canvas, level: Pixels, *, outline: str, centre: int, margin: int = _MARGIN) -> Ground | None:
    """A Z×H×W level as ground; None when it is too small, or too large to be a local forgery."""
    core = (level > 0) & canvas.head
    area = int(core[centre].sum())
    if area < SMALLEST_AREA_PX or area > LARGEST_SHARE * max(1, int(canvas.head[centre].sum())):
        return None
    region = crop(core, margin=margin, outline=outline, centre=centre)
    if region is None:
        return None
    return Ground(region=region, level=level[:, region.rows, region.cols])


def laid(level: Pixels, size: tuple[int, int], row: int, col: int) -> Pixels:
    """A small level plane with its middle at (row, col) of an H×W plane; far below zero elsewhere."""
    plane = np.full(size, -1e3, np.float32)
    top, left = row - level.shape[0] // 2, col - level.shape[1] // 2
    rows = slice(max(0, top), min(size[0], top + level.shape[0]))
    cols = slice(max(0, left), min(size[1], left + level.shape[1]))
    if rows.start < rows.stop and cols.start < cols.stop:
        plane[rows, cols] = level[rows.start - top : rows.stop - top, cols.start - left : cols.stop - left]
    return plane


def spot(canvas: Canvas, z: int, radius: float, rng: np.random.Generator) -> tuple[int, int] | None:
    """A place in brain for a footprint of this radius, off lesions; bright or dark outliers are avoided."""
    depth = depth_inside(canvas.head[z])
    clear = depth_inside(canvas.head[z] & ~canvas.lesion[z])
    rind = head_radius(canvas, z) * (0.04 if rng.random() < 0.15 else 0.14)
    rows, cols = np.nonzero((depth > 0.8 * radius + rind) & (clear > 0.8 * radius))
    if rows.size == 0:
        return None
    side = max(3, int(radius) | 1)
    around = cv2.blur(canvas.pixels[z], (side, side))
    middle = float(np.median(canvas.pixels[z][canvas.head[z]]))
    picks = rng.integers(rows.size, size=3)
    best = min(picks, key=lambda pick: abs(float(around[rows[pick], cols[pick]]) - middle))
    return int(rows[best]), int(cols[best])


def new_place(
    canvas: Canvas, rng: np.random.Generator, *, drawn: tuple[Pixels, str] | None = None, margin: int = _MARGIN
) -> Ground | None:
    """Ground on tissue without lesion: the outline given, or one of this hand's."""
    if not workable(canvas):
        return None
    count, height, width = canvas.pixels.shape
    centre = count // 2
    if drawn is None:
        # Areas are drawn, not radii: a third of the draws are small nodules.
        share = rng.uniform(0.004, 0.09) if rng.random() < 0.65 else rng.uniform(0.003, 0.02)
        drawn = shape(max(4.5, float(np.sqrt(share)) * head_radius(canvas, centre)), rng)
    level, outline = drawn
    at = spot(canvas, centre, float(np.sqrt(max(1, (level > 0).sum()) / np.pi)), rng)
    if at is None:
        return None
    stack = _stack(level, count, centre, rng)
    drift = rng.normal(0, 0.7, 2)
    laid_down = [
        laid(
            plane,
            (height, width),
            at[0] + round(float(drift[0]) * (z - centre)),
            at[1] + round(float(drift[1]) * (z - centre)),
        )
        for z, plane in enumerate(stack)
    ]
    return ground(canvas, np.stack(laid_down), outline=outline, centre=centre, margin=margin)


def lesion_place(canvas: Canvas, rng: np.random.Generator, *, margin: int = _MARGIN) -> Ground | None:
    """Ground over the lesion, a little or a good deal wider than its outline, in one slice or in all."""
    if not workable(canvas) or not canvas.lesion.any():
        return None
    areas = canvas.lesion.sum(axis=(1, 2))
    centre = int(np.argmax(areas))
    alone = rng.random() < _ALONE_SHARE
    wider = float(rng.choice([rng.uniform(0.5, 2.5), rng.uniform(2.5, 7.0)]))
    height, width = canvas.lesion.shape[1:]
    # Uneven over many pixels: a quarter of the resolution holds it.
    field = power_noise((height // 4 + 2, width // 4 + 2), 3.0, rng) * np.float32(rng.uniform(0, 0.35) * wider)
    uneven = float32(cv2.resize(field, (width, height), interpolation=cv2.INTER_CUBIC))
    level = np.full(canvas.lesion.shape, -1e3, np.float32)
    for z in range(areas.size):
        if areas[z] and (z == centre or not alone):
            level[z] = signed_distance(canvas.lesion[z]) + np.float32(wider) + uneven
    return ground(canvas, level, outline="lesion", centre=centre, margin=margin)


def removal_place(canvas: Canvas, rng: np.random.Generator, *, margin: int = _MARGIN) -> Ground | None:
    """Over a lesion where there is one, in most draws; else on healthy tissue."""
    over = lesion_place(canvas, rng, margin=margin) if rng.random() < _ON_LESION_SHARE else None
    return over or new_place(canvas, rng, margin=margin)


def window(ground: Ground, canvas: Canvas, z: int) -> tuple[Pixels, Mask, Mask]:
    """Of slice z in the crop: pixels, footprint, and tissue that a forger may look at.

    Tissue is head off the footprint and off lesions, without what stands out of it: skull, fluid, vessels.
    """
    region = ground.region
    core = region.core[z]
    pixels = float32(canvas.pixels[z, region.rows, region.cols])
    head = canvas.head[z, region.rows, region.cols]
    lesion = canvas.lesion[z, region.rows, region.cols]
    tissue = head & ~core & ~lesion
    if int(tissue.sum()) < _LEAST_TISSUE:
        tissue = head & ~core
    if int(tissue.sum()) < _LEAST_TISSUE:
        return pixels, core, ~core
    calm = cv2.GaussianBlur(pixels, (0, 0), 1.5)
    low, middle, high = np.quantile(calm[tissue], [0.2, 0.5, 0.8])
    usual = tissue & (calm > middle - 2.2 * (middle - low) - 1) & (calm < middle + 2.2 * (high - middle) + 1)
    return pixels, core, usual if int(usual.sum()) >= _LEAST_TISSUE else tissue


def middle(ground: Ground) -> tuple[float, float]:
    """Row and column in the crop of the middle of the footprint's box in its main slice."""
    rows, cols = np.nonzero(ground.region.core[ground.region.centre])
    return float(rows.min() + rows.max()) / 2, float(cols.min() + cols.max()) / 2


def only(ground: Ground, z: int) -> Ground | None:
    """The same ground in slice z alone; None when too little of it lies there."""
    core = np.zeros_like(ground.region.core)
    core[z] = ground.region.core[z]
    if int(core[z].sum()) < SMALLEST_AREA_PX:
        return None
    return Ground(region=replace(ground.region, core=core, centre=z), level=ground.level)
