"""Families by another hand, for choosing among models and for the test; training must never import this module.

A detector learns its forger's habits. These families therefore share nothing with the others but the two values of
`forged`: own outlines, own interpolation, own seams, own label. Each follows a different published method.

* `quilted seam`: tissue laid in along the cheapest cut through the overlap (Efros and Freeman 2001), no feather at all.
* `total variation`: TV inpainting (Chan and Shen 2001) by Chambolle's projection, noise from an autoregressive model.
* `low rank`: a stack of the nearest patches rebuilt from its first singular vectors (BM3D's cousin), over a lesion.
* `guided`: a synthetic growth whose edge follows the scan through a guided filter (He, Sun, Tang 2010), texture by
  a random walk of the scan's own detail.
"""

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, signal
from skimage import draw as shapes
from skimage import transform
from skimage.graph import route_through_array

from dicomguard.retrain.tamper.families import Family
from dicomguard.retrain.tamper.forged import Canvas, Forged, Kind, Mask, Pixels

_MARGIN = 18
_DISC = np.hypot(*np.mgrid[-2:3, -2:3]) < 2.5


def _sound(canvas: Canvas) -> bool:
    middle = canvas.pixels.shape[0] // 2
    head = canvas.head[middle]
    return min(canvas.pixels.shape[1:]) >= 32 and int(head.sum()) > 600 and float(canvas.pixels[middle][head].std()) > 1


def _splat(canvas: Canvas, rng: np.random.Generator, *, low: float, high: float) -> tuple[Mask, tuple[int, int]] | None:
    """A footprint made of two to four overlapping discs somewhere well inside the head, away from lesions."""
    z = canvas.pixels.shape[0] // 2
    size = float(np.sqrt(canvas.head[z].sum()))
    radius = max(4.0, float(rng.uniform(low, high)) * size)
    depth = ndimage.distance_transform_edt(np.pad(canvas.head[z] & ~canvas.lesion[z], 1))[1:-1, 1:-1]
    rows, cols = np.nonzero(depth > min(radius + 0.08 * size, 0.9 * float(depth.max())))
    if rows.size == 0 or depth.max() < 6:
        return None
    pick = int(rng.integers(rows.size))
    mask = np.zeros(canvas.pixels.shape[1:], np.bool_)
    for _ in range(int(rng.integers(2, 5))):
        row, col = rows[pick] + rng.normal(0, 0.45 * radius), cols[pick] + rng.normal(0, 0.45 * radius)
        mask[shapes.disk((row, col), float(rng.uniform(0.55, 0.95)) * radius, shape=mask.shape)] = True
    return mask & canvas.head[z], (int(rows[pick]), int(cols[pick]))


def _lesion_splat(canvas: Canvas, rng: np.random.Generator) -> tuple[Mask, int] | None:
    """The lesion of the slice where it is largest, opened, grown by a square brush."""
    areas = canvas.lesion.sum(axis=(1, 2))
    z = int(areas.argmax())
    if areas[z] < 60 or areas[z] > 0.25 * max(1, canvas.head[z].sum()):
        return None
    grown = ndimage.binary_dilation(canvas.lesion[z], iterations=int(rng.integers(1, 5)), structure=np.ones((3, 3)))
    return np.asarray(ndimage.binary_fill_holes(grown), np.bool_) & canvas.head[z], z


def _window(mask: Mask, margin: int = _MARGIN) -> tuple[slice, slice]:
    rows, cols = np.nonzero(mask)
    return (
        slice(max(0, int(rows.min()) - margin), int(rows.max()) + margin + 1),
        slice(max(0, int(cols.min()) - margin), int(cols.max()) + margin + 1),
    )


def _close(
    canvas: Canvas,
    z: int,
    where: tuple[slice, slice],
    edited: Pixels,
    footprint: Mask,
    *,
    kind: Kind,
    lesion: Mask,
    family: str,
    variant: str,
    parameters: Mapping[str, float | str],
) -> Forged | None:
    """Own finish: round half up, clip to what the slice reaches, label by majority."""
    before = canvas.pixels[z][where]
    after = np.floor(np.clip(edited, before.min(), max(before.max(), canvas.pixels[z].max())) + 0.5)
    after = np.where(footprint, np.clip(after, canvas.low, canvas.high), before).astype(np.float32)
    apart = ndimage.uniform_filter((np.abs(after - before) > 0.5).astype(np.float32), 5, mode="constant") > 0.5
    apart = ndimage.binary_closing(np.pad(apart, 3), structure=_DISC)[3:-3, 3:-3] & footprint
    if int(apart.sum()) < 24:
        return None
    pixels, mask = canvas.pixels.copy(), np.zeros(canvas.pixels.shape, np.bool_)
    alpha, truth = np.zeros_like(canvas.pixels), canvas.lesion.copy()
    pixels[z][where], mask[z][where], alpha[z][where] = after, apart, footprint
    truth[z][where] = lesion
    return Forged(
        pixels=pixels,
        twin=canvas.pixels,
        mask=mask,
        alpha=alpha,
        lesion=truth,
        kind=kind,
        family=family,
        variant=variant,
        parameters=parameters,
    )


def _autoregressive(before: Pixels, outside: Mask, rng: np.random.Generator) -> Pixels:
    """Noise of a causal 2-D autoregression (left, up) fitted to the scan's detail outside the footprint."""
    detail = before - ndimage.uniform_filter(before, 3)
    left, up, here = detail[1:, :-1], detail[:-1, 1:], detail[1:, 1:]
    usable = (outside[1:, 1:] & outside[1:, :-1] & outside[:-1, 1:]) & (
        np.abs(here) < 3 * np.median(np.abs(here)) + 1e-3
    )
    if usable.sum() < 30:
        return np.zeros_like(before)
    design = np.stack([left[usable], up[usable]], axis=1)
    weights = np.linalg.lstsq(design, here[usable], rcond=None)[0]
    weights *= min(1.0, 0.9 / max(1e-6, float(np.abs(weights).sum())))
    spread = float((here[usable] - design @ weights).std())
    white = rng.standard_normal(before.shape) * spread
    rows = np.zeros_like(white)
    carry = np.zeros(before.shape[1])
    for row in range(before.shape[0]):
        carry = signal.lfilter([1.0], [1.0, -float(weights[0])], white[row] + weights[1] * carry)
        rows[row] = carry
    return rows.astype(np.float32)


def quilted_seam(canvas: Canvas, donor: Canvas | None, rng: np.random.Generator) -> Forged | None:
    """A rectangle of the donor laid in; its four edges wander along the cheapest path through a border of overlap."""
    source = donor if donor is not None and donor.lesion.any() else canvas
    if not (_sound(canvas) and source.lesion.any()):
        return None
    zs = int(source.lesion.sum(axis=(1, 2)).argmax())
    rows, cols = np.nonzero(source.lesion[zs])
    overlap = int(rng.integers(5, 10))
    top, left = int(rows.min()) - overlap, int(cols.min()) - overlap
    height, width = int(np.ptp(rows)) + 2 * overlap + 1, int(np.ptp(cols)) + 2 * overlap + 1
    z = canvas.pixels.shape[0] // 2
    free = ndimage.uniform_filter((canvas.head[z] & ~canvas.lesion[z]).astype(np.float32), (height, width)) > 0.985
    free[: height // 2 + 1] = free[-(height // 2 + 1) :] = False
    free[:, : width // 2 + 1] = free[:, -(width // 2 + 1) :] = False
    spots = np.argwhere(free)
    inside = (
        top >= 0 and left >= 0 and top + height <= source.pixels.shape[1] and left + width <= source.pixels.shape[2]
    )
    if len(spots) == 0 or not inside or height > 120 or width > 120:
        return None
    row, col = spots[int(rng.integers(len(spots)))] - np.array([height // 2, width // 2])
    where = (slice(int(row), int(row) + height), slice(int(col), int(col) + width))
    before, piece = canvas.pixels[z][where], source.pixels[zs, top : top + height, left : left + width]
    own = source.lesion[zs, top : top + height, left : left + width]
    if rng.random() < 0.5:
        piece, own = piece[:, ::-1], own[:, ::-1]
    here, there = canvas.pixels[z][canvas.head[z]], source.pixels[zs][source.head[zs]]
    scale = float(np.median(here)) / max(1.0, float(np.median(there)) if there.size else 1.0)
    piece = piece * np.float32(np.clip(scale, 0.3, 3))
    footprint = _cut(np.abs(piece - before), overlap)
    return _close(
        canvas,
        z,
        where,
        piece,
        footprint,
        kind="added",
        lesion=canvas.lesion[z][where] | (own & footprint),
        family="quilted seam",
        variant="cheapest cut",
        parameters={"overlap": float(overlap), "gain": round(scale, 3)},
    )


def _cut(cost: Pixels, overlap: int) -> Mask:
    """Inside of the four cheapest paths, one through each border of the rectangle."""
    keep = np.ones(cost.shape, np.bool_)
    for turn in range(4):
        turned = np.rot90(cost, turn)
        strip = turned[:overlap] + 0.05 * float(cost.mean()) + 1e-3
        path, _ = route_through_array(
            strip, (overlap // 2, 0), (overlap // 2, strip.shape[1] - 1), fully_connected=True
        )
        inside = np.ones(turned.shape, np.bool_)
        for at_row, at_col in path:
            inside[: at_row + 1, at_col] = False
        keep &= np.rot90(inside, -turn)
    return keep


def _total_variation(before: Pixels, hole: Mask, rounds: int) -> Pixels:
    """Chambolle's dual iteration for TV, with the data term switched off inside the hole."""
    filled = before.copy()
    ring = ndimage.binary_dilation(hole, iterations=4) & ~hole
    filled[hole] = np.median(before[ring]) if ring.any() else before.mean()
    dual_down, dual_right = np.zeros_like(filled), np.zeros_like(filled)
    step = np.float32(0.24)
    span = max(1.0, float(np.ptp(before)))
    for _ in range(rounds):
        down = np.diff(filled, axis=0, append=filled[-1:]) / span
        right = np.diff(filled, axis=1, append=filled[:, -1:]) / span
        norm = 1 + step * np.hypot(down, right) * 20
        dual_down, dual_right = (dual_down + 20 * step * down) / norm, (dual_right + 20 * step * right) / norm
        divergence = np.diff(dual_down, axis=0, prepend=0) + np.diff(dual_right, axis=1, prepend=0)
        filled[hole] += (0.05 * span * divergence)[hole]
    return filled.astype(np.float32)


def total_variation(canvas: Canvas, donor: Canvas | None, rng: np.random.Generator) -> Forged | None:
    """A lesion (or healthy tissue) flattened by TV inpainting, then dusted with autoregressive noise."""
    del donor
    if not _sound(canvas):
        return None
    found = _lesion_splat(canvas, rng) if rng.random() < 0.75 else None
    if found is None:
        splat = _splat(canvas, rng, low=0.05, high=0.14)
        if splat is None:
            return None
        found = (splat[0], canvas.pixels.shape[0] // 2)
    mask, z = found
    where = _window(mask)
    hole, before = mask[where], canvas.pixels[z][where]
    if hole.all() or not hole.any():
        return None
    rounds = int(rng.integers(60, 140))
    strength = float(rng.uniform(0.6, 1.1))
    smooth = ndimage.gaussian_filter(_total_variation(before, hole, rounds), 1.0)
    edited = np.where(hole, smooth, before) + np.float32(strength) * _autoregressive(before, ~hole, rng)
    return _close(
        canvas,
        z,
        where,
        edited,
        hole,
        kind="removed",
        lesion=canvas.lesion[z][where] & ~hole,
        family="total variation",
        variant="autoregressive noise",
        parameters={"rounds": float(rounds), "noise": strength},
    )


def _low_rank(before: Pixels, hole: Mask, taboo: Mask, rank: int, rng: np.random.Generator) -> Pixels | None:
    size = 8
    anchors = np.argwhere(~ndimage.maximum_filter(taboo, size, origin=-(size // 2 - 1), mode="constant", cval=True))
    anchors = anchors[(anchors[:, 0] + size <= before.shape[0]) & (anchors[:, 1] + size <= before.shape[1])]
    if len(anchors) < 40:
        return None
    anchors = anchors[rng.permutation(len(anchors))[:500]]
    book = np.stack([before[r : r + size, c : c + size].ravel() for r, c in anchors])
    start = ndimage.gaussian_filter(_total_variation(before, hole, 30), 1.5)
    total, votes = np.zeros_like(before), np.zeros_like(before)
    rows, cols = np.nonzero(hole)
    for row in range(max(0, rows.min() - 4), min(before.shape[0] - size, rows.max()) + 1, 4):
        for col in range(max(0, cols.min() - 4), min(before.shape[1] - size, cols.max()) + 1, 4):
            wanted = start[row : row + size, col : col + size].ravel()
            near = book[np.argsort(((book - wanted) ** 2).sum(axis=1))[:24]]
            mean = near.mean(axis=0)
            _, values, vectors = np.linalg.svd(near - mean, full_matrices=False)
            scores = rng.standard_normal(rank) * values[:rank] / np.sqrt(len(near))
            patch = (mean + 0.3 * (wanted - mean) + scores @ vectors[:rank]).reshape(size, size)
            total[row : row + size, col : col + size] += patch
            votes[row : row + size, col : col + size] += 1
    return np.where(hole & (votes > 0), total / np.maximum(votes, 1), before).astype(np.float32)


def low_rank(canvas: Canvas, donor: Canvas | None, rng: np.random.Generator) -> Forged | None:
    """Tissue sampled patch by patch from a local principal-component model of the slice."""
    del donor
    if not _sound(canvas):
        return None
    found = _lesion_splat(canvas, rng) if rng.random() < 0.7 else None
    if found is None:
        splat = _splat(canvas, rng, low=0.05, high=0.12)
        if splat is None:
            return None
        found = (splat[0], canvas.pixels.shape[0] // 2)
    mask, z = found
    where = _window(mask, 30)
    hole, before = mask[where], canvas.pixels[z][where]
    if not hole.any():
        return None
    taboo = ndimage.binary_dilation(hole | canvas.lesion[z][where] | ~canvas.head[z][where], iterations=1)
    rank = int(rng.integers(6, 20))
    edited = _low_rank(before, hole, np.asarray(taboo, np.bool_), rank, rng)
    if edited is None:
        return None
    edited = edited + np.float32(rng.uniform(0.5, 1.0)) * _autoregressive(before, ~hole, rng)
    return _close(
        canvas,
        z,
        where,
        edited,
        hole,
        kind="removed",
        lesion=canvas.lesion[z][where] & ~hole,
        family="low rank",
        variant="local components",
        parameters={"rank": float(rank)},
    )


def _guided(
    guide: NDArray[np.float64], wish: NDArray[np.float64], radius: int, smoothness: float
) -> NDArray[np.float64]:
    size = 2 * radius + 1
    mean_guide, mean_wish = ndimage.uniform_filter(guide, size), ndimage.uniform_filter(wish, size)
    variance = ndimage.uniform_filter(guide * guide, size) - mean_guide**2
    slope = (ndimage.uniform_filter(guide * wish, size) - mean_guide * mean_wish) / (variance + smoothness)
    offset = mean_wish - slope * mean_guide
    smooth: NDArray[np.float64] = ndimage.uniform_filter(slope, size) * guide + ndimage.uniform_filter(offset, size)
    return smooth


def guided_growth(canvas: Canvas, donor: Canvas | None, rng: np.random.Generator) -> Forged | None:
    """A growth whose edge follows the tissue (guided filter), textured with the scan's own detail walked elsewhere."""
    del donor
    if not _sound(canvas):
        return None
    splat = _splat(canvas, rng, low=0.05, high=0.14)
    if splat is None:
        return None
    mask, _ = splat
    if not mask.any():
        return None
    z = canvas.pixels.shape[0] // 2
    where = _window(mask, 14)
    core, before = mask[where].astype(np.float64), canvas.pixels[z][where].astype(np.float64)
    inside = canvas.pixels[z][canvas.head[z]]
    spread = float(np.subtract(*np.percentile(inside, [85, 30])))
    soft = np.clip(_guided(before / max(spread, 1), core, int(rng.integers(3, 7)), float(rng.uniform(0.01, 0.2))), 0, 1)
    soft *= np.clip(
        ndimage.gaussian_filter(np.asarray(ndimage.binary_dilation(core > 0, iterations=3), np.float64), 1.5), 0, 1
    )
    soft[soft < 0.03] = 0
    height = float(rng.uniform(0.35, 1.1)) * spread * float(rng.choice([1.0, 1.0, -0.7]))
    detail = before - ndimage.gaussian_filter(before, 1.2)
    walked = transform.rotate(detail, float(rng.uniform(40, 320)), order=3, mode="reflect")
    calm = float(rng.uniform(0.2, 0.9))
    edited = before + soft * (height - calm * detail + calm * walked)
    footprint = np.asarray(soft > 0, np.bool_)
    return _close(
        canvas,
        z,
        where,
        edited.astype(np.float32),
        footprint,
        kind="added",
        lesion=canvas.lesion[z][where] | np.asarray((soft > 0.4 * soft.max()) & (core > 0), np.bool_),
        family="guided",
        variant="growth",
        parameters={"height": round(height, 2), "detail": round(calm, 2)},
    )


SECOND_HAND: Mapping[str, Family] = MappingProxyType(
    {
        "quilted seam": Family(name="quilted seam", group="second hand", kinds=("added",), forge=quilted_seam),
        "total variation": Family(
            name="total variation", group="second hand", kinds=("removed",), forge=total_variation
        ),
        "low rank": Family(name="low rank", group="second hand", kinds=("removed",), forge=low_rank),
        "guided": Family(name="guided", group="second hand", kinds=("added",), forge=guided_growth),
    }
)
