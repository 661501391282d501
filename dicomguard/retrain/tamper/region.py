"""Where the forger works: the footprint of an edit, its outline and its course through the slices.

A footprint is a Z×h×w mask inside a crop of the canvas, so that all later work costs what the edit costs and not
what the slice costs. Knows nothing of how the footprint is filled.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from dicomguard.retrain.tamper.filters import (
    close,
    depth_inside,
    dilate,
    hull,
    largest,
    polygon,
    signed_distance,
    smooth_noise,
)
from dicomguard.retrain.tamper.forged import Canvas, Mask, Pixels

# Below this no forgery is worth the name, and no metric counts it.
SMALLEST_AREA_PX = 40
# An edit above this share of the head is no longer a local forgery.
LARGEST_SHARE = 0.30
SMALLEST_SIDE_PX = 24


@dataclass(frozen=True, slots=True, kw_only=True)
class Region:
    """A footprint inside its crop of the canvas."""

    # Z×h×w.
    core: Mask
    rows: slice
    cols: slice
    # How the outline was made.
    outline: str
    # The slice in which the footprint is largest.
    centre: int

    def of(self, stack: Pixels) -> Pixels:
        return stack[:, self.rows, self.cols]

    def of_mask(self, stack: Mask) -> Mask:
        return stack[:, self.rows, self.cols]


def workable(canvas: Canvas) -> bool:
    """Is there a head with contrast, large enough to forge in?"""
    _, height, width = canvas.pixels.shape
    if min(height, width) < SMALLEST_SIDE_PX:
        return False
    middle = canvas.pixels.shape[0] // 2
    inside = canvas.pixels[middle][canvas.head[middle]]
    return inside.size >= 8 * SMALLEST_AREA_PX and float(inside.std()) > 1.0


def crop(core: Mask, *, margin: int, outline: str, centre: int) -> Region | None:
    """The smallest crop around a Z×H×W footprint with a margin in pixels; None when the footprint is too small."""
    if not core.any() or int(core[centre].sum()) < SMALLEST_AREA_PX:
        return None
    rows = np.flatnonzero(core.any(axis=(0, 2)))
    cols = np.flatnonzero(core.any(axis=(0, 1)))
    height, width = core.shape[1:]
    row_range = slice(max(0, int(rows[0]) - margin), min(height, int(rows[-1]) + 1 + margin))
    col_range = slice(max(0, int(cols[0]) - margin), min(width, int(cols[-1]) + 1 + margin))
    return Region(core=core[:, row_range, col_range], rows=row_range, cols=col_range, outline=outline, centre=centre)


def _harmonic_blob(radius: float, rng: np.random.Generator) -> Mask:
    angles = np.linspace(0, 2 * np.pi, 72, endpoint=False)
    reach = np.ones_like(angles)
    for order in range(1, 7):
        reach += rng.normal(0, 0.22 / order) * np.cos(order * angles + rng.uniform(0, 2 * np.pi))
    reach = radius * np.clip(reach, 0.35, 1.7)
    half = int(np.ceil(reach.max())) + 1
    points = np.stack([half + reach * np.cos(angles), half + reach * np.sin(angles)], axis=1)
    return polygon(2 * half + 1, points.astype(np.float32))


def _noise_blob(radius: float, rng: np.random.Generator) -> Mask:
    half = int(np.ceil(1.6 * radius)) + 1
    axis = np.arange(-half, half + 1, dtype=np.float32)
    distance = np.hypot(axis[:, None], axis[None, :]) / radius
    field = smooth_noise(distance.shape, max(1.0, rng.uniform(0.2, 0.5) * radius), rng)
    return largest(np.asarray(1.0 - distance + 0.25 * field > 0))


def _ellipse(radius: float, rng: np.random.Generator) -> Mask:
    ratio = np.sqrt(rng.uniform(1.0, 2.4))
    turn = rng.uniform(0, np.pi)
    half = int(np.ceil(radius * ratio)) + 1
    axis = np.arange(-half, half + 1, dtype=np.float32)
    along = axis[None, :] * np.cos(turn) + axis[:, None] * np.sin(turn)
    across = -axis[None, :] * np.sin(turn) + axis[:, None] * np.cos(turn)
    return np.asarray((along / (radius * ratio)) ** 2 + (across * ratio / radius) ** 2 <= 1)


def _scattered_hull(radius: float, rng: np.random.Generator) -> Mask:
    half = int(np.ceil(1.3 * radius)) + 1
    count = int(rng.integers(5, 11))
    angles = rng.uniform(0, 2 * np.pi, count)
    reach = radius * np.sqrt(rng.uniform(0.4, 1.6, count))
    scattered = np.zeros((2 * half + 1, 2 * half + 1), np.bool_)
    rows = np.clip(half + reach * np.sin(angles), 0, 2 * half).astype(int)
    cols = np.clip(half + reach * np.cos(angles), 0, 2 * half).astype(int)
    scattered[rows, cols] = True
    return hull(scattered)


_OUTLINES = {"harmonic": _harmonic_blob, "noise": _noise_blob, "ellipse": _ellipse, "hull": _scattered_hull}


def stamp(radius: float, rng: np.random.Generator) -> tuple[Mask, str]:
    """A plane outline of about the given radius in pixels, in its own small square."""
    name = str(rng.choice(list(_OUTLINES)))
    return _OUTLINES[name](radius, rng), name


def turned(shape: Mask, *, scale: float, angle_deg: float, flip: bool) -> Mask:
    """A lesion's outline scaled, turned and mirrored, in a square that holds it."""
    source = shape[:, ::-1] if flip else shape
    half = int(np.ceil(0.5 * scale * np.hypot(*shape.shape))) + 2
    matrix = cv2.getRotationMatrix2D(((shape.shape[1] - 1) / 2, (shape.shape[0] - 1) / 2), angle_deg, scale)
    matrix[:, 2] += np.array([half - (shape.shape[1] - 1) / 2, half - (shape.shape[0] - 1) / 2])
    warped = cv2.warpAffine(
        np.ascontiguousarray(source, dtype=np.float32), matrix, (2 * half + 1, 2 * half + 1), flags=cv2.INTER_LINEAR
    )
    return np.asarray(warped > 0.5)


def head_radius(canvas: Canvas, centre: int) -> float:
    """Radius in pixels of the disc that has the head's area."""
    return float(np.sqrt(canvas.head[centre].sum() / np.pi))


def random_radius(canvas: Canvas, centre: int, rng: np.random.Generator) -> float:
    """Log-uniform between a small metastasis and a large glioma, as a share of the head; at least 5 px."""
    share = np.exp(rng.uniform(np.log(0.07), np.log(0.32)))
    return max(5.0, float(share) * head_radius(canvas, centre))


def _course(count: int, centre: int, rng: np.random.Generator) -> list[float]:
    """Relative size of the footprint per slice, 0 where untouched: one slice, or an ellipsoid's taper."""
    if count == 1 or rng.random() < 0.35:
        return [1.0 if z == centre else 0.0 for z in range(count)]
    reach = rng.uniform(1.3, max(1.6, 0.75 * count + 0.5))
    return [float(np.sqrt(max(0.0, 1 - ((z - centre) / reach) ** 2))) for z in range(count)]


def through(shape: Mask, count: int, centre: int, rng: np.random.Generator) -> Mask:
    """Extend an H×W outline through `count` slices, shrinking away from the centre."""
    depth = depth_inside(shape)
    deepest = float(depth.max())
    sizes = _course(count, centre, rng)
    return np.stack([shape & (depth > (1 - size) * deepest) if size > 0.25 else np.zeros_like(shape) for size in sizes])


def clear_places(canvas: Canvas, z: int, radius: float, *, rind: float) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Rows and columns where a footprint of this radius keeps off lesions and lies `rind` pixels under the scalp."""
    free = depth_inside(canvas.head[z] & ~canvas.lesion[z]) > 0.75 * radius
    rows, cols = np.nonzero(free & (depth_inside(canvas.head[z]) > 0.85 * radius + rind))
    return rows, cols


def _calmest(
    canvas: Canvas, z: int, radius: float, places: tuple[NDArray[np.intp], NDArray[np.intp]], rng: np.random.Generator
) -> tuple[int, int]:
    """Of a few places drawn at random the one whose surroundings vary least: a forger avoids skull base and air."""
    picks = rng.integers(places[0].size, size=int(rng.integers(1, 6)))
    reach = max(3, int(1.3 * radius))

    def restless(pick: np.int64) -> float:
        row, col = int(places[0][pick]), int(places[1][pick])
        around = canvas.pixels[z, max(0, row - reach) : row + reach : 2, max(0, col - reach) : col + reach : 2]
        return float(around.std())

    best = min(picks, key=restless)
    return int(places[0][best]), int(places[1][best])


def put(shape: Mask, canvas: Canvas, row: int, col: int) -> Mask:
    """Lay a small outline on an empty H×W plane with its middle at (row, col); what hangs over the edge is cut."""
    height, width = canvas.pixels.shape[1:]
    plane = np.zeros((height, width), np.bool_)
    top, left = row - shape.shape[0] // 2, col - shape.shape[1] // 2
    rows = slice(max(0, top), min(height, top + shape.shape[0]))
    cols = slice(max(0, left), min(width, left + shape.shape[1]))
    if rows.start < rows.stop and cols.start < cols.stop:
        plane[rows, cols] = shape[rows.start - top : rows.stop - top, cols.start - left : cols.stop - left]
    return plane


def on_healthy(
    canvas: Canvas, rng: np.random.Generator, *, shape: Mask | None = None, margin: int = 20
) -> Region | None:
    """A footprint on tissue without lesion: the given outline, or one drawn at random."""
    if not workable(canvas):
        return None
    count = canvas.pixels.shape[0]
    centre = count // 2
    outline = "lesion"
    if shape is None:
        shape, outline = stamp(random_radius(canvas, centre, rng), rng)
    radius = float(np.sqrt(max(1, shape.sum()) / np.pi))
    # Scalp and skull are about a sixth of the head's radius; now and then an edit lies against them.
    rind = head_radius(canvas, centre) * float(rng.choice([0.17, 0.05], p=[0.88, 0.12]))
    places = clear_places(canvas, centre, radius, rind=rind)
    if places[0].size == 0:
        return None
    row, col = _calmest(canvas, centre, radius, places, rng)
    plane = put(shape, canvas, row, col) & canvas.head[centre]
    core = through(plane, count, centre, rng) & canvas.head
    return crop(core, margin=margin, outline=outline, centre=centre)


def _cover(lesion: Mask, how: str, reach: int, wobble: Pixels) -> Mask:
    if how == "lesion":
        return dilate(lesion, reach)
    if how == "hull":
        return dilate(hull(lesion), max(1, reach - 1))
    if how == "blob":
        return np.asarray(signed_distance(close(lesion, 3)) + reach + 1.5 * wobble > 0)
    rows, cols = np.nonzero(lesion)
    centre, spread = (rows.mean(), cols.mean()), (2.1 * rows.std() + reach + 1, 2.1 * cols.std() + reach + 1)
    row_axis = (np.arange(lesion.shape[0]) - centre[0]) / spread[0]
    col_axis = (np.arange(lesion.shape[1]) - centre[1]) / spread[1]
    return np.asarray(row_axis[:, None] ** 2 + col_axis[None, :] ** 2 <= 1)


def over_lesion(canvas: Canvas, rng: np.random.Generator, *, margin: int = 20) -> Region | None:
    """A footprint that covers the lesion of one slice or of all slices; None without lesion or when it is too large."""
    if not workable(canvas):
        return None
    areas = canvas.lesion.sum(axis=(1, 2))
    count = canvas.pixels.shape[0]
    centre = count // 2 if areas[count // 2] >= SMALLEST_AREA_PX else int(np.argmax(areas))
    if areas[centre] < SMALLEST_AREA_PX:
        return None
    how = str(rng.choice(["lesion", "hull", "blob", "ellipse"], p=[0.45, 0.2, 0.2, 0.15]))
    reach = int(rng.integers(1, 7))
    alone = bool(rng.random() < 0.25)
    main = bool(rng.random() < 0.5)
    height, width = canvas.pixels.shape[1:]
    wobble = smooth_noise((height, width), 4.0, rng) if how == "blob" else np.zeros((height, width), np.float32)
    core = np.zeros(canvas.lesion.shape, np.bool_)
    for z in range(count):
        if areas[z] == 0 or (alone and z != centre):
            continue
        lesion = largest(canvas.lesion[z]) if main else canvas.lesion[z]
        core[z] = _cover(lesion, how, reach, wobble) & canvas.head[z]
    if core[centre].sum() > LARGEST_SHARE * max(1, canvas.head[centre].sum()):
        return None
    return crop(core, margin=margin, outline=how, centre=centre)


def for_removal(canvas: Canvas, rng: np.random.Generator, *, margin: int = 20) -> Region | None:
    """A lesion in two of three draws where there is one; else healthy tissue, so that content is not the label."""
    if rng.random() < 0.67:
        region = over_lesion(canvas, rng, margin=margin)
        if region is not None:
            return region
    return on_healthy(canvas, rng, margin=margin)
