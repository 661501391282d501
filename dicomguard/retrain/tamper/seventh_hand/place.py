"""Where a forgery goes and which outline it has.

Lengths are pixels of the slice; areas are shares of the head, so that a matrix of 512 gets what one of 256 gets.
"""

import math
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from scipy import ndimage, special
from skimage.graph import MCP_Geometric

from dicomguard.retrain.tamper.filters import dilate, erode, float32, gaussian, hull, largest
from dicomguard.retrain.tamper.forged import Canvas, Mask, Pixels

_Kind = TypeVar("_Kind", Pixels, Mask)

OUTLINES = ("brush", "ellipse", "hull")
SHAPES = ("metaballs", "front")
_LEAST_PX = 12
# Less than this is a dot that nobody would take for an edit; the brush is widened until it is met.
_BRUSH_PX = 110
_LARGEST_SHARE = 0.15
_LEAST_RING_PX = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """A window of the slices with what is edited in it; all arrays are Z×h×w."""

    rows: slice
    cols: slice
    # What is removed or made a lesion; empty in slices that stay as they are.
    hole: Mask
    # Healthy tissue outside the hole: what a forger may learn from.
    healthy: Mask
    # Where an edit may reach at all.
    inside: Mask
    outline: str

    def cut(self, stack: _Kind) -> _Kind:
        return stack[:, self.rows, self.cols]

    @property
    def slices(self) -> list[int]:
        return [int(z) for z in np.flatnonzero(self.hole.any(axis=(1, 2)))]


def inner_head(canvas: Canvas) -> Mask:
    """Z×H×W head without its outermost pixel."""
    return np.stack([erode(plane, 1) for plane in canvas.head])


def brain(canvas: Canvas) -> Mask:
    """Z×H×W head without its outer seventh, where scalp, skull and fluid are."""
    depths = [ndimage.distance_transform_edt(np.pad(plane, 1))[1:-1, 1:-1] for plane in canvas.head]
    return np.stack([depth > max(1.5, depth.max() / 7) for depth in depths])


def site_of(canvas: Canvas, hole: Mask, outline: str, margin: int) -> Site | None:
    """The window around a Z×H×W hole; None when too little healthy head is left around it in a slice."""
    inside = inner_head(canvas)
    hole = hole & inside
    areas = hole.sum(axis=(1, 2))
    head_areas = np.maximum(canvas.head.sum(axis=(1, 2)), 1)
    if areas.max() < _LEAST_PX or (areas / head_areas).max() > _LARGEST_SHARE:
        return None
    rows, cols = (np.flatnonzero(hole.any(axis=axes)) for axes in ((0, 2), (0, 1)))
    window = tuple(slice(max(0, int(v[0]) - margin), int(v[-1]) + 1 + margin) for v in (rows, cols))
    lesion = np.stack([dilate(plane, 2) for plane in canvas.lesion])
    box = np.s_[:, window[0], window[1]]
    healthy = (inside & ~lesion & ~hole)[box]
    for z in np.flatnonzero(areas):
        healthy[z] = _like_tissue(canvas.pixels[box][z], healthy[z])
    if healthy[areas > 0].sum(axis=(1, 2)).min() < _LEAST_RING_PX:
        return None
    return Site(
        rows=window[0], cols=window[1], hole=hole[box], healthy=healthy, inside=inside[box].copy(), outline=outline
    )


def _like_tissue(plane: Pixels, healthy: Mask) -> Mask:
    """Healthy pixels without the tails of their histogram: skull, fluid and vessels are no tissue to learn from."""
    if not healthy.any():
        return healthy
    even = gaussian(plane, 0.8)
    middle = float(np.median(even[healthy]))
    spread = max(4 * float(np.median(np.abs(even[healthy] - middle))), 0.08 * abs(middle))
    return np.asarray(healthy & (np.abs(even - middle) <= spread))


def lesion_site(canvas: Canvas, rng: np.random.Generator, *, margin: int) -> Site | None:
    """A lesion through its slices with the outline that a forger would draw around it; None without a lesion."""
    labels, count = ndimage.label(canvas.lesion, np.ones((3, 3, 3)))
    if count == 0:
        return None
    sizes = np.sqrt(np.bincount(labels.ravel())[1:])
    chosen = labels == 1 + rng.choice(count, p=sizes / sizes.sum())
    outline = OUTLINES[rng.integers(len(OUTLINES))]
    reach, gather = int(rng.integers(2, 5)), int(rng.integers(2, 9))
    hole = np.zeros_like(chosen)
    for z in np.flatnonzero(chosen.any(axis=(1, 2))):
        # Neighbouring spots are taken along in one stroke.
        spot = canvas.lesion[z] & dilate(chosen[z], gather)
        drawn = dilate({"brush": lambda m: m, "ellipse": _ellipse, "hull": hull}[outline](spot), reach)
        for _ in range(4):
            if drawn.sum() < _BRUSH_PX:
                drawn = dilate(drawn, 2)
        # Nobody paints over skull or wide fluid unless the lesion touches it.
        even = gaussian(canvas.pixels[z], 1.0) - canvas.low
        tissue = float(np.median(even[canvas.head[z]])) if canvas.head[z].any() else 0.0
        drawn &= ((even > 0.55 * tissue) & (even < 1.7 * tissue)) | dilate(spot, 2)
        hole[z] = (gaussian(drawn.astype(np.float32), 1.5) > 0.45) | spot
    return site_of(canvas, hole, outline, margin)


def _ellipse(spot: Mask) -> Mask:
    """The ellipse of the spot's second moments (two standard deviations), with the spot."""
    points = np.argwhere(spot)
    centre = points.mean(axis=0)
    spread = np.cov(points.T) + np.eye(2) if len(points) > 2 else np.eye(2)
    apart = np.indices(spot.shape).reshape(2, -1).T - centre
    near = np.einsum("ni,ij,nj->n", apart, np.linalg.inv(spread), apart) < 4.0
    return np.asarray(spot | near.reshape(spot.shape))


def draw_radius(canvas: Canvas, rng: np.random.Generator) -> float:
    """Radius in pixels of a new lesion: 0.6 to 6 % of the head, log-uniform."""
    area = float(canvas.head.sum(axis=(1, 2)).max()) * math.exp(rng.uniform(math.log(0.006), math.log(0.06)))
    return math.sqrt(max(area, 60.0) / math.pi)


def spot(canvas: Canvas, radius: float, rng: np.random.Generator) -> tuple[int, int, int] | None:
    """Slice, row and column of a healthy place of this radius inside the brain, among 30 drawn; None without one.

    Wanted is even tissue of middle brightness: not the skull, not a ventricle.
    """
    z = round((len(canvas.pixels) - 1) * rng.beta(2, 2))
    depth = ndimage.distance_transform_edt(np.pad(canvas.head[z], 1))[1:-1, 1:-1]
    if depth.max() < 8:
        return None
    free = depth > max(0.3 * depth.max(), 0.75 * radius + depth.max() / 7)
    if canvas.lesion[z].any():
        free &= ndimage.distance_transform_edt(~canvas.lesion[z]) > radius + 3
    deep = depth > 0.3 * depth.max()
    even = gaussian(canvas.pixels[z], 2.0)
    darkest, brightest = np.quantile(even[deep], (0.25, 0.95))
    places = np.argwhere(free & (even >= darkest) & (even <= brightest))
    if not len(places):
        return None
    local = gaussian(canvas.pixels[z], max(radius / 2, 1.0))
    rough = gaussian((even - local) ** 2, max(radius / 2, 1.0))
    drawn = places[rng.integers(len(places), size=30)]
    ranked = drawn[np.argsort(rough[drawn[:, 0], drawn[:, 1]], kind="stable")]
    row, col = ranked[rng.integers(10)]
    return z, int(row), int(col)


def profile(count: int, centre: int, rng: np.random.Generator) -> Pixels:
    """Share of the largest cross-section in each of `count` slices: an ellipsoid of drawn half height."""
    half = rng.uniform(0.8, 3.2)
    return np.sqrt(np.maximum(0, 1 - ((np.arange(count) - centre) / half) ** 2)).astype(np.float32)


def healthy_site(canvas: Canvas, rng: np.random.Generator, *, margin: int) -> Site | None:
    """A drawn outline in healthy tissue, tapering over the slices: metaballs, or a front that keeps to one tissue.

    Metaballs after Blinn (1982); the front is the arrival time of a wave that edges slow down (Sethian 1996).
    """
    radius = draw_radius(canvas, rng)
    found = spot(canvas, radius, rng)
    if found is None:
        return None
    centre, row, col = found
    shape = SHAPES[rng.integers(len(SHAPES))]
    field = (_metaballs if shape == "metaballs" else _front)(canvas.pixels[centre], row, col, radius, rng)
    drift = rng.normal(0, 0.12 * radius, size=2)
    hole = np.zeros(canvas.pixels.shape, np.bool_)
    for z, share in enumerate(profile(len(hole), centre, rng)):
        area = int(math.pi * radius**2 * share)
        if area < _LEAST_PX:
            continue
        moved = ndimage.shift(field, (z - centre) * drift, order=1, mode="nearest") if z != centre else field
        level = np.partition(moved.ravel(), -area)[-area] if area < moved.size else moved.min()
        hole[z] = largest(gaussian((moved >= level).astype(np.float32), 1.2) > 0.5)
    # A lesion of old stays what it is.
    return site_of(canvas, hole & brain(canvas) & ~canvas.lesion, shape, margin)


def _metaballs(plane: Pixels, row: int, col: int, radius: float, rng: np.random.Generator) -> Pixels:
    rows, cols = np.ogrid[: plane.shape[0], : plane.shape[1]]
    field = np.zeros(plane.shape, np.float32)
    for _ in range(int(rng.integers(3, 7))):
        r, c = rng.normal((row, col), 0.5 * radius)
        field += np.exp(-((rows - r) ** 2 + (cols - c) ** 2) / (2 * (radius * rng.uniform(0.4, 0.8)) ** 2))
    # The distance breaks ties far away, where the balls have faded to nothing.
    return float32(field - 1e-4 * np.hypot(rows - row, cols - col))


def _front(plane: Pixels, row: int, col: int, radius: float, rng: np.random.Generator) -> Pixels:
    even = gaussian(plane, 1.2)
    reach = math.ceil(3 * radius) + 2
    top, left = max(0, row - reach), max(0, col - reach)
    part = even[top : row + reach + 1, left : col + reach + 1]
    unlike = np.abs(part - even[row, col]) / max(float(part.std()), 1e-3)
    rough = np.abs(gaussian(rng.standard_normal(part.shape, dtype=np.float32), radius / 4))
    cost = 1 + rng.uniform(0.5, 2.5) * unlike + 2 * rough / max(float(rough.mean()), 1e-6)
    arrival, _ = MCP_Geometric(cost).find_costs([(row - top, col - left)])
    field = np.full(plane.shape, -float(arrival.max()) - 1, np.float32)
    field[top : row + reach + 1, left : col + reach + 1] = -arrival
    return field


def feather(site: Site, width: float, *, outward: bool) -> Pixels:
    """Z×h×w weight 0…1 of the edit, an error function across `width` px.

    Outward the whole hole has weight 1 and the seam lies around it; otherwise it straddles the outline.
    """
    weights = np.zeros(site.hole.shape, np.float32)
    for z in site.slices:
        depth = ndimage.distance_transform_edt(site.hole[z]) - ndimage.distance_transform_edt(~site.hole[z])
        soft = 0.5 + 0.5 * special.erf((depth + (width if outward else 0.0)) / (0.6 * width))
        weights[z] = np.where(soft < 0.02, 0, np.where(soft > 0.98, 1, soft)) * site.inside[z]
    return weights
