"""Content from elsewhere: a lesion or healthy tissue of another slice or patient, brought to a footprint.

Keeps the donor's geometry and the target's brightness apart: coordinates first, then values.
"""

from dataclasses import dataclass

import numpy as np

from dicomguard.retrain.tamper.filters import dilate, largest
from dicomguard.retrain.tamper.forged import Canvas, Mask, Pixels
from dicomguard.retrain.tamper.region import SMALLEST_AREA_PX, Region, head_radius, turned
from dicomguard.retrain.tamper.resample import affine_grid, draw_method, sample


@dataclass(frozen=True, slots=True, kw_only=True)
class Lesion:
    """The lesion of one slice that a forger will bring elsewhere."""

    z: int
    # Middle of the lesion (row, column) in the donor.
    row: float
    col: float
    # The lesion's tight outline.
    shape: Mask


def pick_lesion(donor: Canvas, rng: np.random.Generator) -> Lesion | None:
    """A lesion of the donor, its slice drawn in proportion to area; None without one of useful size."""
    areas = donor.lesion.sum(axis=(1, 2)).astype(np.float64)
    areas[areas < SMALLEST_AREA_PX] = 0
    if areas.sum() == 0:
        return None
    z = int(rng.choice(areas.size, p=areas / areas.sum()))
    shape = largest(donor.lesion[z])
    rows, cols = np.nonzero(shape)
    tight = shape[rows.min() : rows.max() + 1, cols.min() : cols.max() + 1]
    if tight.sum() < SMALLEST_AREA_PX:
        return None
    return Lesion(z=z, row=float(rows.min() + rows.max()) / 2, col=float(cols.min() + cols.max()) / 2, shape=tight)


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """How donor content is turned and scaled on its way."""

    scale: float
    angle_rad: float
    flip: bool
    method: str


def draw_placement(canvas: Canvas, donor: Canvas, lesion: Lesion, rng: np.random.Generator, *, free: bool) -> Placement:
    """Scale that suits the target's head and keeps the lesion under a quarter of its width; `free` allows any turn."""
    middle = canvas.pixels.shape[0] // 2
    target, source = max(1.0, head_radius(canvas, middle)), max(1.0, head_radius(donor, lesion.z))
    natural = float(np.clip(target / source, 0.4, 2.5))
    radius = float(np.sqrt(lesion.shape.sum() / np.pi))
    ceiling = 0.42 * target / radius
    scale = min(natural * float(np.exp(rng.normal(0, 0.22))), ceiling)
    if rng.random() < 0.12 and natural == 1.0 and ceiling >= 1.0:
        return Placement(scale=1.0, angle_rad=0.0, flip=bool(rng.random() < 0.5), method="nearest")
    angle = float(rng.uniform(-np.pi, np.pi)) if free else float(rng.normal(0, 0.3))
    return Placement(scale=scale, angle_rad=angle, flip=bool(rng.random() < 0.5), method=draw_method(rng))


def outline(lesion: Lesion, placement: Placement, rng: np.random.Generator) -> tuple[Mask, Mask]:
    """The lesion's own outline at its new place, and the wider footprint that is cut out with it."""
    own = turned(
        lesion.shape, scale=placement.scale, angle_deg=float(np.degrees(placement.angle_rad)), flip=placement.flip
    )
    reach = int(rng.integers(1, 6))
    framed = np.pad(own, reach)
    return framed, dilate(framed, reach)


def bring(
    donor: Canvas,
    z: int,
    source: tuple[float, float],
    region: Region,
    centre: tuple[float, float],
    placement: Placement,
) -> Pixels:
    """Donor values on the region's crop, Z×h×w; neighbouring target slices take neighbouring donor slices."""
    height, width = region.core.shape[1:]
    grid = affine_grid(
        (height, width),
        centre=centre,
        source=source,
        scale=placement.scale,
        angle_rad=placement.angle_rad,
        flip=placement.flip,
    )
    count = donor.pixels.shape[0]
    # Interpolation needs only the donor's neighbourhood; Fourier methods would otherwise cost the whole slice.
    top, bottom = int(max(0, grid[0].min() - 8)), int(min(donor.pixels.shape[1], grid[0].max() + 9))
    left, right = int(max(0, grid[1].min() - 8)), int(min(donor.pixels.shape[2], grid[1].max() + 9))
    if bottom - top < 8 or right - left < 8:
        top, bottom, left, right = 0, donor.pixels.shape[1], 0, donor.pixels.shape[2]
    rows, cols = grid[0] - np.float32(top), grid[1] - np.float32(left)
    planes = []
    for offset in range(region.core.shape[0]):
        at = int(np.clip(z + offset - region.centre, 0, count - 1))
        if region.core[offset].any():
            planes.append(sample(donor.pixels[at, top:bottom, left:right], rows, cols, placement.method))
        else:
            planes.append(np.zeros((height, width), np.float32))
    return np.stack(planes)


def tissue_scale(canvas: Canvas, z: int) -> tuple[float, float]:
    """Middle brightness and spread of the head in slice z (median and half of the 10–90 % range)."""
    inside = canvas.pixels[z][canvas.head[z]]
    if inside.size == 0:
        return 0.0, 1.0
    low, middle, high = np.percentile(inside[::7] if inside.size > 2000 else inside, [10, 50, 90])
    return float(middle), max(1.0, float(high - low) / 2)


def to_scale(content: Pixels, donor: Canvas, z: int, canvas: Canvas, centre: int) -> Pixels:
    """Donor values on the target's grey scale: head median onto head median, spread onto spread."""
    there, spread_there = tissue_scale(donor, z)
    here, spread_here = tissue_scale(canvas, centre)
    return ((content - there) * np.float32(spread_here / spread_there) + here).astype(np.float32)
