"""A patch pasted along the seam that shows least, its bands matched to the place.

An attacker cuts as Efros and Freeman ("Image quilting for texture synthesis and transfer", SIGGRAPH 2001: dynamic
programming) or Kwatra et al. ("Graphcut textures", SIGGRAPH 2003: minimum cut) and evens out the look band by band as
Sunkavalli et al. ("Multi-scale image harmonization", SIGGRAPH 2010).
"""

from collections.abc import Callable

import cv2
import numpy as np
from scipy import ndimage, sparse
from scipy.sparse import csgraph

from dicomguard.retrain.tamper.filters import dilate, erode, float32, gaussian
from dicomguard.retrain.tamper.forged import Canvas, Forged, Mask, Pixels
from dicomguard.retrain.tamper.sixth_hand.bands import joined, split
from dicomguard.retrain.tamper.sixth_hand.borrow import graft, lookalikes
from dicomguard.retrain.tamper.sixth_hand.closing import seal, settle
from dicomguard.retrain.tamper.sixth_hand.grain import ring
from dicomguard.retrain.tamper.sixth_hand.scene import head_scale, healthy, lesion_site, soft, window

VARIANTS = ("polar-added", "graph-added", "polar-removed", "graph-removed")

_ANGLES = 160
_RADII = 14
_BAND_SIGMAS = (1.0, 2.5, 6.0)
_GAIN_RANGE = (0.5, 2.0)
_LEAST_CONTRAST = 1.5
_MOST_CONTRAST = 4.0
# Capacities of a minimum cut are integers.
_CAPACITY = 1000
_UNCUTTABLE = 10**8


def forge(canvas: Canvas, donor: Canvas | None, rng: np.random.Generator) -> Forged | None:
    possible = [kind for kind, there in (("added", donor is not None), ("removed", canvas.lesion.any())) if there]
    if not possible:
        return None
    cutter, seam = [("polar", _polar_seam), ("graph", _graph_seam)][int(rng.integers(2))]
    if rng.choice(possible) == "added":
        return _added(canvas, donor, rng, cutter, seam)
    return _removed(canvas, rng, cutter, seam)


_Seam = Callable[[Pixels, Mask, Mask], Mask]


def _removed(canvas: Canvas, rng: np.random.Generator, cutter: str, seam: _Seam) -> Forged | None:
    site = lesion_site(canvas, rng)
    found = lookalikes(canvas, site, 3) if site is not None else []
    if site is None or not found:
        return None
    source = found[int(rng.integers(len(found)))]
    margin = max(4, round(rng.uniform(5, 8) * site.scale))
    edited, alpha = canvas.pixels.copy(), np.zeros_like(canvas.pixels)
    for z in np.flatnonzero(site.core.any(axis=(1, 2))):
        core = site.alpha[z] > 0.95
        edited[z] = joined(source[z], canvas.pixels[z], site.healthy[z], site.hole[z])
        alpha[z] = _cut(canvas, int(z), edited[z], core, margin, seam)
    settled = settle(canvas, edited, alpha, site.healthy, rng)
    return seal(
        canvas,
        settled,
        alpha,
        kind="removed",
        lesion=site.rest,
        family="seamcut",
        variant=f"{cutter}-removed",
        parameters={"margin": margin},
    )


def _added(canvas: Canvas, donor: Canvas | None, rng: np.random.Generator, cutter: str, seam: _Seam) -> Forged | None:
    laid = graft(canvas, donor, rng)
    if laid is None:
        return None
    margin = max(4, round(rng.uniform(5, 9) * head_scale(canvas)))
    edited, alpha = canvas.pixels.copy(), np.zeros_like(canvas.pixels)
    around = healthy(canvas, np.stack([dilate(plane, margin) for plane in laid.core]))
    for z in np.flatnonzero(laid.core.sum(axis=(1, 2)) >= 12):
        core = dilate(laid.core[z], 1)
        beside = dilate(core, margin + 4) & laid.healthy[z] & ~core
        edited[z] = matched(laid.pixels[z], canvas.pixels[z], beside, ring(core, around[z], 16), core)
        alpha[z] = _cut(canvas, int(z), edited[z], core, margin, seam, laid.inner[z])
    settled = settle(canvas, edited, alpha, around, rng)
    return seal(
        canvas,
        settled,
        alpha,
        kind="added",
        lesion=canvas.lesion | (laid.core & (alpha > 0.5)),
        family="seamcut",
        variant=f"{cutter}-added",
        parameters={"margin": margin},
    )


def matched(source: Pixels, target: Pixels, beside: Mask, around: Mask, core: Mask) -> Pixels:
    """`source` with mean and contrast of each band as around the place: its healthy rim `beside` gives the measure."""
    if beside.sum() < 40 or around.sum() < 40:
        return source
    result = np.zeros_like(source)
    gain = 1.0
    for own, there in zip(split(source, _BAND_SIGMAS), split(target, _BAND_SIGMAS), strict=True):
        gain = float(np.clip(there[around].std() / max(float(own[beside].std()), 1e-3), *_GAIN_RANGE))
        middle = float(np.median(own[beside]))
        result += float(np.median(there[around])) + np.float32(gain) * (own - middle)
    if (beside & around).sum() >= 40:
        result = joined(result, target, beside & around, core)
    return _visible(_bounded(result, target, around), target, around, core)


def _bounded(result: Pixels, target: Pixels, around: Mask) -> Pixels:
    """Contrast of another scan is bent so that nothing runs into black or white."""
    middle = float(np.median(target[around]))
    most = max(_MOST_CONTRAST * float(target[around].std()), 0.25 * abs(middle), 1.0)
    return float32(middle + most * np.tanh((result - middle) / most))


def _visible(result: Pixels, target: Pixels, around: Mask, core: Mask) -> Pixels:
    """A lesion from a sequence that hardly shows it is made to differ by as much as tissue varies."""
    needed = _LEAST_CONTRAST * float(gaussian(target, 1.5)[around].std())
    contrast = float(result[core].mean() - target[around].mean())
    lacking = max(0.0, needed - abs(contrast)) * (1 if contrast >= 0 else -1)
    return result + np.float32(lacking) * gaussian(core.astype(np.float32), 1.5)


def _cut(
    canvas: Canvas, z: int, source: Pixels, core: Mask, margin: int, seam: _Seam, usable: Mask | None = None
) -> Pixels:
    """Blend weight of one slice: the seam runs between the core and `margin` px around it, where source is usable."""
    full = np.zeros(core.shape, np.float32)
    if not core.any():
        return full
    cut = window(core, margin + 4)
    target = canvas.pixels[z][cut]
    apart = np.abs(gaussian(source[cut], 0.8) - gaussian(target, 0.8))
    edges = np.abs(ndimage.sobel(gaussian(target, 0.8), 0)) + np.abs(ndimage.sobel(gaussian(target, 0.8), 1))
    allowed = dilate(core[cut], margin) & erode(canvas.head[z], 2)[cut]
    if usable is not None:
        allowed &= usable[cut]
    inside = seam(float32(apart + 0.05 * edges), core[cut], allowed | core[cut])
    feather = max(2.0, 2.5 * head_scale(canvas))
    full[cut] = soft(inside, canvas.head[z][cut], grow=-1.0, feather=feather)
    return full


def _polar_seam(cost: Pixels, core: Mask, allowed: Mask) -> Mask:
    """Closed path of least cost around the core: one radius for each angle, neighbours at most one step apart."""
    rows, cols = np.nonzero(core)
    centre = (float(rows.mean()), float(cols.mean()))
    around, reach = _polar(cost.shape, centre)
    spoke = np.minimum((around * _ANGLES).astype(np.intp), _ANGLES - 1)
    inner = _outermost(spoke, reach, core)
    outer = np.maximum(_outermost(spoke, reach, allowed), inner + 2)
    angles = (np.arange(_ANGLES) + 0.5) / _ANGLES * 2 * np.pi
    steps = np.linspace(0, 1, _RADII)
    radii = inner[:, None] + (outer - inner)[:, None] * steps
    sampled = ndimage.map_coordinates(
        cost,
        [centre[0] + radii * np.sin(angles)[:, None], centre[1] + radii * np.cos(angles)[:, None]],
        order=1,
        mode="nearest",
    )
    first = _path(np.roll(sampled, _ANGLES // 2, axis=0), None)
    # The second pass begins and ends where the first one passed, which closes the path.
    chosen = _path(sampled, int(first[_ANGLES // 2]))
    border = float32(ndimage.gaussian_filter1d(radii[np.arange(_ANGLES), chosen], 1.5, mode="wrap"))
    return np.asarray(((reach <= border[spoke]) & allowed) | core)


def _polar(shape: tuple[int, ...], centre: tuple[float, float]) -> tuple[Pixels, Pixels]:
    """Angle as a share of the circle, and radius, of each pixel."""
    rows, cols = np.mgrid[: shape[0], : shape[1]]
    down, right = rows - centre[0], cols - centre[1]
    return float32(np.arctan2(down, right) / (2 * np.pi) % 1), float32(np.hypot(down, right))


def _outermost(spoke: np.typing.NDArray[np.intp], reach: Pixels, mask: Mask) -> Pixels:
    """Largest radius of the mask for each angle, smooth around the circle."""
    radius = np.zeros(_ANGLES)
    np.maximum.at(radius, spoke[mask], reach[mask])
    radius = ndimage.maximum_filter1d(radius, 5, mode="wrap")
    return float32(ndimage.gaussian_filter1d(radius, 2, mode="wrap"))


def _path(cost: Pixels, end: int | None) -> np.typing.NDArray[np.intp]:
    total = cost.astype(np.float64).copy()
    if end is not None:
        total[0, np.arange(cost.shape[1]) != end] = np.inf
    came = np.zeros(cost.shape, np.intp)
    columns = np.arange(cost.shape[1])
    for i in range(1, len(cost)):
        padded = np.pad(total[i - 1], 1, constant_values=np.inf)
        options = np.stack([padded[:-2], padded[1:-1], padded[2:]])
        step = options.argmin(axis=0)
        came[i] = np.clip(columns + step - 1, 0, cost.shape[1] - 1)
        total[i] += options.min(axis=0)
    path = np.zeros(len(cost), np.intp)
    path[-1] = int(total[-1].argmin()) if end is None else end
    for i in range(len(cost) - 1, 0, -1):
        path[i - 1] = came[i, path[i]]
    return path


def _graph_seam(cost: Pixels, core: Mask, allowed: Mask) -> Mask:
    """Minimum cut between the core and everything outside the allowed zone."""
    free = allowed & ~core
    count = int(free.sum())
    if count == 0:
        return core
    number = np.where(core, count, count + 1)
    number[free] = np.arange(count)
    scaled = cost / max(float(np.median(cost[free])), 1e-3)
    pairs = []
    for axis in (0, 1):
        ahead, behind = [slice(None)] * 2, [slice(None)] * 2
        ahead[axis], behind[axis] = slice(1, None), slice(None, -1)
        one, two = number[tuple(behind)].ravel(), number[tuple(ahead)].ravel()
        price = (scaled[tuple(behind)] + scaled[tuple(ahead)]).ravel()
        pairs.append((one, two, np.minimum(price * _CAPACITY, _UNCUTTABLE).astype(np.int32) + 1))
    one, two, price = (np.concatenate(parts) for parts in zip(*pairs, strict=True))
    kept = (one != two) & ~((one >= count) & (two >= count))
    one, two, price = one[kept], two[kept], price[kept]
    graph = sparse.csr_array(
        (np.tile(price, 2), (np.concatenate([one, two]), np.concatenate([two, one]))), shape=(count + 2, count + 2)
    ).astype(np.int32)
    remaining = graph - csgraph.maximum_flow(graph, count, count + 1).flow
    remaining.data = np.maximum(remaining.data, 0)
    remaining.eliminate_zeros()
    reached = csgraph.breadth_first_order(remaining, count, return_predecessors=False)
    inside = core.copy()
    own = np.zeros(count + 2, np.bool_)
    own[reached] = True
    inside[free] = own[:count]
    return np.asarray(cv2.medianBlur(inside.astype(np.uint8), 3) > 0) | core
