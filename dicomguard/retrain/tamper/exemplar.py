"""Fill from the slice's own texture: one shifted piece, a quilt of patches, or votes of nearest patches.

A real attacker would use Photoshop's content-aware fill, GIMP's resynthesizer or a PatchMatch script. Sources:
Efros and Freeman 2001 (quilting), Wexler et al. 2007 (patch votes), Barnes et al. 2009 (PatchMatch).
"""

import cv2
import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from dicomguard.retrain.tamper.blend import FEATHERS, blend, match_ring
from dicomguard.retrain.tamper.filters import box, dilate, float32, gaussian, resize
from dicomguard.retrain.tamper.finish import finish
from dicomguard.retrain.tamper.forged import Canvas, Forged, Mask, Pixels
from dicomguard.retrain.tamper.grain import regrain
from dicomguard.retrain.tamper.membrane import push_pull
from dicomguard.retrain.tamper.region import for_removal

_WAYS = ("shift", "shift", "quilt", "votes")


def _shift(plane: Pixels, hole: Mask, taboo: Mask, rng: np.random.Generator) -> Pixels | None:
    """The whole hole from one place: where the ring around the hole is matched best (masked squared difference)."""
    rows, cols = np.nonzero(hole)
    ring_width = int(rng.integers(3, 8))
    top, bottom = max(0, rows.min() - ring_width), min(plane.shape[0], rows.max() + ring_width + 1)
    left, right = max(0, cols.min() - ring_width), min(plane.shape[1], cols.max() + ring_width + 1)
    template = plane[top:bottom, left:right]
    ring = (dilate(hole, ring_width) & ~hole)[top:bottom, left:right].astype(np.float32)
    if template.shape[0] >= plane.shape[0] - 2 or template.shape[1] >= plane.shape[1] - 2:
        return None
    cost = float32(cv2.matchTemplate(plane, np.ascontiguousarray(template), cv2.TM_SQDIFF, mask=ring))
    inside = hole[top:bottom, left:right].astype(np.float32)
    # A source that takes tissue from the hole or from outside the head would bring back what it hides.
    overlap = float32(cv2.matchTemplate(taboo.astype(np.float32), inside, cv2.TM_CCORR))
    cost[~np.isfinite(cost) | (overlap > 0.02 * inside.sum())] = np.inf
    if not np.isfinite(cost).any():
        return None
    order = np.argpartition(cost.ravel(), min(4, cost.size - 1))[:5]
    order = order[np.isfinite(cost.ravel()[order])]
    row, col = divmod(int(rng.choice(order)), cost.shape[1])
    filled = plane.copy()
    piece = plane[row : row + template.shape[0], col : col + template.shape[1]]
    filled[top:bottom, left:right] = piece
    return match_ring(filled, plane, hole, spread=False)


def _sources(plane: Pixels, taboo: Mask, size: int, most: int, rng: np.random.Generator) -> NDArray[np.float32] | None:
    """N×size×size patches that touch nothing forbidden."""
    blocked = box(taboo.astype(np.float32), size) > 1e-6
    half = size // 2
    rows, cols = np.nonzero(~blocked[half : plane.shape[0] - half, half : plane.shape[1] - half])
    if rows.size < 12:
        return None
    pick = rng.integers(rows.size, size=min(most, rows.size))
    windows = sliding_window_view(plane, (size, size))
    return windows[rows[pick], cols[pick]]


def _quilt(plane: Pixels, hole: Mask, taboo: Mask, rng: np.random.Generator) -> Pixels | None:
    """Patch after patch from the outline inwards, each chosen to fit what is already there, feathered together."""
    size = int(rng.choice([9, 11, 13, 15]))
    sources = _sources(plane, taboo, size, 350, rng)
    if sources is None:
        return None
    filled, known = push_pull(plane, hole), (~hole).astype(np.float32)
    step = max(3, round(size * float(rng.uniform(0.45, 0.7))))
    ramp = np.minimum(np.arange(1, size + 1), np.arange(size, 0, -1)).astype(np.float32)
    window = np.minimum(np.minimum(ramp[:, None], ramp[None, :]) / max(1.0, 0.3 * size), 1)
    rows, cols = np.nonzero(hole)
    for row in range(max(0, rows.min() - size // 3), min(plane.shape[0] - size, rows.max()) + 1, step):
        for col in range(max(0, cols.min() - size // 3), min(plane.shape[1] - size, cols.max()) + 1, step):
            at = (slice(row, row + size), slice(col, col + size))
            if not (known[at] < 1).any():
                continue
            # What is only interpolated yet counts little.
            weight = known[at] + np.float32(0.05)
            cost = (weight * (sources - filled[at]) ** 2).sum(axis=(1, 2))
            best = sources[int(rng.choice(np.argpartition(cost, 3)[:3]))]
            share = np.where(known[at] >= 1, 0, window) if rng.random() < 0.5 else window * hole[at]
            filled[at] += share * (best - filled[at])
            known[at] = np.maximum(known[at], (share > 0.3).astype(np.float32))
    return np.where(hole, filled, plane)


def _votes(plane: Pixels, hole: Mask, taboo: Mask, rng: np.random.Generator) -> Pixels | None:
    """Each patch over the hole looks up its nearest authentic patch; every pixel is the mean of its votes."""
    size = int(rng.choice([5, 7]))
    half_shape = (plane.shape[0] // 2, plane.shape[1] // 2)
    coarse = hole.sum() > 900
    work = resize(plane, half_shape, cv2.INTER_AREA) if coarse else plane
    gap = resize(hole.astype(np.float32), half_shape) > 0.2 if coarse else hole
    forbidden = resize(taboo.astype(np.float32), half_shape) > 0.2 if coarse else taboo
    sources = _sources(work, forbidden, size, 900, rng)
    if sources is None or not gap.any():
        return None
    filled = push_pull(work, gap) + float(sources.std(axis=(1, 2)).mean()) * 0.5 * gap * rng.standard_normal(
        work.shape, dtype=np.float32
    )
    half = size // 2
    rows, cols = np.nonzero(gap[half : work.shape[0] - half, half : work.shape[1] - half])
    if rows.size == 0:
        return None
    flat = sources.reshape(len(sources), -1)
    norms = (flat * flat).sum(axis=1)
    for _ in range(3):
        wanted = sliding_window_view(filled, (size, size))[rows, cols].reshape(rows.size, -1)
        nearest = flat[np.argmin(norms - 2 * (wanted @ flat.T), axis=1)].reshape(-1, size, size)
        total, votes = np.zeros_like(work), np.zeros_like(work)
        for down in range(size):
            for right in range(size):
                # Windows start at distinct pixels, so plain indexing adds each vote once.
                total[rows + down, cols + right] += nearest[:, down, right]
                votes[rows + down, cols + right] += 1
        filled = np.where(gap & (votes > 0), total / np.maximum(votes, 1), work).astype(np.float32)
    if not coarse:
        return filled
    large = resize(filled, (plane.shape[0], plane.shape[1]), cv2.INTER_CUBIC)
    return np.where(hole, large, plane)


def forge(canvas: Canvas, donor: Canvas | None, rng: np.random.Generator) -> Forged | None:
    del donor
    region = for_removal(canvas, rng, margin=int(rng.integers(24, 44)))
    if region is None:
        return None
    way = str(rng.choice(_WAYS))
    fill = {"shift": _shift, "quilt": _quilt, "votes": _votes}[way]
    base = region.of(canvas.pixels)
    filled = base.copy()
    for z in np.flatnonzero(region.core.any(axis=(1, 2))):
        hole = dilate(region.core[z], 1)
        taboo = hole | region.of_mask(canvas.lesion)[z] | ~region.of_mask(canvas.head)[z]
        plane = fill(base[z], hole, taboo, rng)
        if plane is None:
            return None
        filled[z] = plane
    grained, grain_way = filled, "own"
    if way == "votes" or rng.random() < 0.2:
        smooth = filled if way == "votes" else np.stack([gaussian(p, 0.7) for p in filled])
        grained, grain_way = regrain(smooth, base, region.core, rng)
    edited, alpha, seam = blend(base, grained, region.core, rng, ways=(*FEATHERS, "gradient", "twoband", "multiband"))
    return finish(
        canvas,
        region,
        edited,
        alpha,
        rng,
        kind="removed",
        lesion=region.of_mask(canvas.lesion) & ~region.core,
        family="exemplar",
        variant=way,
        parameters={"grain": grain_way, "seam": seam},
    )
