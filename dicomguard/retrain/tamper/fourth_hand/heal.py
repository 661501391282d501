"""fourth/heal: the healing brush.

A real attacker opens the slice in a photo editor, takes the healing brush (Photoshop, GIMP's heal, OpenCV's seamless
clone) and dabs over the lesion from its rim to its middle, each dab from healthy tissue close by. The editor carries
the offset on the dab's rim into the dab as a membrane.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from dicomguard.retrain.tamper.filters import depth_inside, gaussian
from dicomguard.retrain.tamper.forged import Canvas, Forged, Mask, Pixels
from dicomguard.retrain.tamper.fourth_hand.cover import cover
from dicomguard.retrain.tamper.fourth_hand.site import Site
from dicomguard.retrain.tamper.fourth_hand.surface import blurred_rim, spread

VARIANTS = ("nearest dabs", "best dabs", "turned dabs", "hard dabs")
_CANDIDATES = 24


@lru_cache(maxsize=32)
def _disc(radius: int) -> tuple[NDArray[np.intp], NDArray[np.intp], Pixels]:
    """Offsets of a disc's pixels and of its rim's, and the harmonic weights rim -> disc (rows sum to one)."""
    side = np.arange(-radius - 1, radius + 2)
    grid = np.stack(np.meshgrid(side, side, indexing="ij"), axis=-1).reshape(-1, 2)
    reach = np.hypot(grid[:, 0], grid[:, 1])
    inside, near = grid[reach <= radius], {tuple(p) for p in grid[reach <= radius]}
    steps = ((1, 0), (-1, 0), (0, 1), (0, -1))
    touching = {(int(r) + dr, int(c) + dc) for r, c in inside for dr, dc in steps}
    rim = sorted(p for p in touching if p not in near)
    number = {(int(r), int(c)): k for k, (r, c) in enumerate(inside)}
    at_rim = {p: k for k, p in enumerate(rim)}
    system, right = np.eye(len(inside)), np.zeros((len(inside), len(rim)))
    for (r, c), k in number.items():
        for dr, dc in steps:
            p = (r + dr, c + dc)
            if p in number:
                system[k, number[p]] -= 0.25
            else:
                right[k, at_rim[p]] += 0.25
    weights = np.linalg.solve(system, right).astype(np.float32)
    return inside.astype(np.intp), np.array(rim, np.intp), weights


def _dab_places(hole: Mask, radius: int, rng: np.random.Generator) -> NDArray[np.intp]:
    """Centres that cover the hole with overlap, from the rim inward."""
    depth = depth_inside(hole)
    left, centres = hole.copy(), []
    order = np.argwhere(hole)
    order = order[np.argsort(depth[hole] + rng.uniform(0, 0.8 * radius, len(order)))]
    reach = max(1.0, 0.62 * radius)
    rows, cols = np.arange(hole.shape[0])[:, None], np.arange(hole.shape[1])[None, :]
    for row, col in order:
        if left[row, col]:
            centres.append((int(row), int(col)))
            r = slice(max(0, int(row) - radius), int(row) + radius + 1)
            c = slice(max(0, int(col) - radius), int(col) + radius + 1)
            left[r, c] &= np.hypot(rows[r] - row, cols[:, c] - col) > reach
    return np.array(centres, np.intp)


def healed(
    plane: Pixels, hole: Mask, healthy: Mask, head: Mask, radius: int, variant: str, rng: np.random.Generator
) -> Pixels | None:
    """The plane with the hole dabbed over; None where no healthy disc is near."""
    inside, rim, weights = _disc(radius)
    pad = radius + 2
    framed = np.pad(plane, pad, mode="reflect" if min(plane.shape) > pad else "edge")
    well = np.pad(healthy, pad)
    known = np.pad(head & ~hole, pad)
    # A first idea of the brightness to come, for rims that still lie in the lesion.
    idea = np.pad(blurred_rim(plane, hole, healthy), pad, mode="edge")
    shade = spread(plane, healthy, 2.0)
    local = np.pad(shade, pad, mode="edge")
    # Vessels and folds, dabbed again and again, give the brush away.
    rough = np.pad(gaussian(np.abs(plane - shade), 0.6 * radius), pad, mode="edge")
    sources = np.argwhere(np.pad(healthy & (depth_inside(healthy) > radius + 1), pad))
    if len(sources) == 0:
        return None
    sources = sources[rng.permutation(len(sources))[:1200]]
    current, clean = framed.copy(), known & well
    feather = np.clip((radius + 0.7 - np.hypot(inside[:, 0], inside[:, 1])) / max(1.0, 0.4 * radius), 0, 1)
    if variant == "hard dabs":
        feather = np.ones_like(feather)
    hole_framed = np.pad(hole, pad)
    for centre in _dab_places(hole, radius, rng) + pad:
        away = np.hypot(sources[:, 0] - centre[0], sources[:, 1] - centre[1])
        count = len(sources) // (8 if variant == "nearest dabs" else 2)
        near = sources[np.argpartition(away, count)[: count + 1]]
        tried = near[rng.integers(len(near), size=_CANDIDATES)]
        disc_at, rim_at = centre + inside, centre + rim
        quarter = int(rng.integers(4)) if variant == "turned dabs" else 0
        take_in, take_rim = _turned(inside, quarter), _turned(rim, quarter)
        sure = clean[rim_at[:, 0], rim_at[:, 1]]
        there = np.where(sure, current[rim_at[:, 0], rim_at[:, 1]], idea[rim_at[:, 0], rim_at[:, 1]])
        r, c = tried[:, None, 0] + take_rim[None, :, 0], tried[:, None, 1] + take_rim[None, :, 1]
        # Against the idea, which is smooth, the source counts by its own smooth part.
        theirs = np.where(sure[None], framed[r, c], local[r, c])
        offset = there[None] - theirs
        cost = np.abs(offset - offset.mean(axis=1, keepdims=True)).mean(axis=1) + 0.5 * np.abs(offset.mean(axis=1))
        cost += 1.5 * rough[tried[:, 0], tried[:, 1]]
        best = int(np.argmin(cost))
        source = tried[best] + take_in
        patch = framed[source[:, 0], source[:, 1]] + weights @ offset[best].astype(np.float32)
        # The first dab over lesion pixels covers them whole; later ones overlap softly.
        fresh = hole_framed[disc_at[:, 0], disc_at[:, 1]] & ~clean[disc_at[:, 0], disc_at[:, 1]]
        weight = np.where(fresh, 1, feather)
        weight = np.where(hole_framed[disc_at[:, 0], disc_at[:, 1]], weight, 0).astype(np.float32)
        before = current[disc_at[:, 0], disc_at[:, 1]]
        current[disc_at[:, 0], disc_at[:, 1]] = before + weight * (patch - before)
        clean[disc_at[:, 0], disc_at[:, 1]] |= weight > 0
    return current[pad:-pad, pad:-pad]


def _turned(offsets: NDArray[np.intp], quarters: int) -> NDArray[np.intp]:
    for _ in range(quarters):
        offsets = np.stack([offsets[:, 1], -offsets[:, 0]], axis=1)
    return offsets


def forge(canvas: Canvas, donor: Canvas | None, rng: np.random.Generator) -> Forged | None:
    """Dab over a lesion, or over a normal spot where there is none."""
    variant = VARIANTS[int(rng.integers(len(VARIANTS)))]
    share = float(rng.uniform(0.22, 0.45))

    def fill(site: Site, z: int, wide: Mask) -> Pixels | None:
        size = float(np.sqrt(site.hole.sum(axis=(1, 2)).max() / np.pi))
        radius = int(np.clip(size * share, 3, 11))
        for smaller in (radius, max(2, radius // 2), 2):
            filled = healed(site.pixels[z], wide, site.healthy[z] & ~wide, site.head[z], smaller, variant, rng)
            if filled is not None:
                return filled
        return None

    return cover(canvas, rng, fill, reach=1.2, family="fourth/heal", variant=variant, parameters={"dab": share})
