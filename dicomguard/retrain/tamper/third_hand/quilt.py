"""Removal by patches of own tissue: image quilting, or an average of the patches that fit best.

What a texture-synthesis script or a content-aware brush does: blocks from elsewhere in the slice, each chosen to agree
with what lies there already, joined along the path of least difference (Efros & Freeman 2001), or patches averaged by
likeness as in non-local inpainting, with the noise that averaging takes made up.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from dicomguard.retrain.tamper.filters import float32
from dicomguard.retrain.tamper.forged import Canvas, Forged, Mask, Pixels
from dicomguard.retrain.tamper.third_hand import seams, texture
from dicomguard.retrain.tamper.third_hand.closing import close_up, without
from dicomguard.retrain.tamper.third_hand.ground import Ground, removal_place, window
from dicomguard.retrain.tamper.third_hand.smooth import blurred, masked_blur, surface

_MARGIN = 18
_PATCHES = 120
_MOST_BLOCKS_A_SIDE = 6
_WAYS = ("quilting", "quilting", "non-local average", "best patch")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stock:
    """N patches b×b from tissue, without their own mean level."""

    patches: Pixels
    flat: Pixels
    # How often each was taken: the same block twice in a row is a wallpaper.
    uses: Pixels


def _stock(plane: Pixels, calm: Pixels, where: Mask, size: int, rng: np.random.Generator) -> _Stock | None:
    share = cv2.boxFilter(where.astype(np.float32), -1, (size, size), anchor=(0, 0), borderType=cv2.BORDER_CONSTANT)
    rows, cols = np.nonzero(share[: 1 - size, : 1 - size] > 0.97)
    if rows.size < 12:
        return None
    picks = rng.integers(rows.size, size=_PATCHES)
    detail = plane - calm
    windows = np.lib.stride_tricks.sliding_window_view(detail, (size, size))
    patches = float32(windows[rows[picks], cols[picks]])
    # Without the liveliest third: skull and vessels.
    patches = patches[np.argsort(patches.std(axis=(1, 2)))[: 2 * _PATCHES // 3]]
    if rng.random() < 0.5:
        patches = np.concatenate([patches, patches[:, :, ::-1]])
    return _Stock(patches=patches, flat=patches.reshape(len(patches), -1), uses=np.zeros(len(patches), np.float32))


def _path(error: Pixels) -> Mask:
    """Top-to-bottom path of least error; true from the path to the right (new content)."""
    total = error.astype(np.float64)
    width = error.shape[1]
    columns = np.arange(width)
    back = np.zeros(error.shape, np.intp)
    steps = np.full((3, width), np.inf)
    for row in range(1, error.shape[0]):
        last = total[row - 1]
        steps[0, 1:], steps[1], steps[2, :-1] = last[:-1], last, last[1:]
        best = steps.argmin(axis=0)
        back[row] = columns + best - 1
        total[row] += steps[best, columns]
    at = int(total[-1].argmin())
    new = np.zeros(error.shape, np.bool_)
    for row in range(error.shape[0] - 1, -1, -1):
        new[row] = columns >= at
        at = int(back[row, at])
    return new


def _block(stock: _Stock, here: Pixels, known: Mask, way: str, rng: np.random.Generator) -> Pixels:
    """Content for a block that agrees with its known pixels."""
    weight = known.ravel().astype(np.float32)
    wanted = here.ravel() * weight
    # |p - w|^2 over known pixels without an N×b×b difference.
    apart = np.maximum((stock.flat**2) @ weight - 2 * stock.flat @ wanted + float(wanted @ wanted), 0)
    apart = (apart + float(apart.mean()) * 0.1) * (1 + stock.uses)
    if way == "non-local average":
        best = np.argpartition(apart, 8)[:8]
        gaps = apart[best] - apart[best].min()
        shares = np.exp(-gaps / max(float(gaps.mean()), 1e-6))
        return float32(np.tensordot(shares / shares.sum(), stock.patches[best], axes=1))
    pick = int(apart.argmin()) if way == "best patch" else int(rng.choice(np.argpartition(apart, 3)[:3]))
    stock.uses[pick] += 1
    return float32(stock.patches[pick])


def _filled(
    pixels: Pixels, calm: Pixels, core: Mask, stock: _Stock, size: int, way: str, rng: np.random.Generator
) -> Pixels:
    """The footprint filled block by block over its smooth fill, each block joined to what is known already."""
    detail, known = np.where(core, 0, pixels - calm).astype(np.float32), ~core
    overlap = max(2, size // 3)
    rows, cols = np.nonzero(core)
    height, width = pixels.shape
    for top in range(int(rows.min()) - overlap, int(rows.max()) + 1, size - overlap):
        for left in range(int(cols.min()) - overlap, int(cols.max()) + 1, size - overlap):
            top_in, left_in = int(np.clip(top, 0, height - size)), int(np.clip(left, 0, width - size))
            box = np.s_[top_in : top_in + size, left_in : left_in + size]
            if not core[box].any():
                continue
            block = _block(stock, detail[box], known[box], way, rng)
            free = ~known[box]
            if way == "quilting" and known[box].any():
                error = np.where(known[box], (detail[box] - block) ** 2, 0).astype(np.float32)
                # Known content lies left and above: one cut from the left edge, one from the top.
                across = _path(error[:, :overlap])
                down = _path(np.ascontiguousarray(error[:overlap].T)).T
                new = np.ones_like(free)
                new[:, :overlap] &= across
                new[:overlap] &= down
                free = (free | new) & core[box]
            detail[box] = np.where(free & core[box], block, detail[box])
            known[box] = True
    return float32(calm + detail)


def forge(canvas: Canvas, donor: Canvas | None, rng: np.random.Generator) -> Forged | None:
    ground = removal_place(canvas, rng, margin=_MARGIN)
    if ground is None:
        return None
    way = _WAYS[int(rng.integers(len(_WAYS)))]
    low = str(rng.choice(["harmonic", "tv", "blur"]))
    core = ground.region.core[ground.region.centre]
    rows, cols = np.nonzero(core)
    side = max(int(np.ptp(rows)), int(np.ptp(cols)))
    size = max(int(rng.integers(9, 16)), int(1.5 * side / _MOST_BLOCKS_A_SIDE))
    planes, weights = {}, {}
    for z in ground.planes():
        made = _replaced(canvas, ground, z, size, way, low, rng)
        if made is None:
            continue
        alpha, ramp = seams.draw_ramp(ground.level[z], ground.region.core[z], rng, hard=way == "quilting")
        pixels = ground.region.of(canvas.pixels)[z]
        planes[z], weights[z] = (seams.mixed(pixels, made, alpha), alpha), alpha
    if not planes:
        return None
    return close_up(
        canvas,
        ground,
        planes,
        rng,
        kind="removed",
        lesion=without(canvas, ground, weights),
        family="third/quilt",
        variant=f"{way}, {low}",
        parameters={"block": float(size), "ramp": ramp},
    )


def _replaced(
    canvas: Canvas, ground: Ground, z: int, size: int, way: str, low: str, rng: np.random.Generator
) -> Pixels | None:
    """Slice z of the crop with its footprint filled; None where there is too little tissue to take from."""
    pixels, core, tissue = window(ground, canvas, z)
    if min(pixels.shape) <= size + 2:
        return None
    calm_all = blurred(canvas.pixels[z], 3.5)
    calm = masked_blur(pixels, tissue, 4.0) if low == "blur" else surface(pixels, core, tissue, low, sigma=2.5)
    # Outside the footprint the blocks compare details over the same blur that the stock was taken from.
    soft = blurred(core.astype(np.float32), 1.0)
    calm = soft * calm + (1 - soft) * masked_blur(pixels, ~core, 3.5)
    where = canvas.head[z] & ~canvas.lesion[z]
    where[ground.region.rows, ground.region.cols] &= ~core
    stock = _stock(canvas.pixels[z], calm_all, where, size, rng)
    if stock is None:
        return None
    made = _filled(pixels, float32(calm), core, stock, size, way, rng)
    if way == "non-local average":
        lacking = texture.level(pixels, tissue) ** 2 - texture.level(made, core) ** 2
        if lacking > 0:
            grain = texture.like(pixels, tissue, made.shape, "spectrum", rng)
            own = max(texture.level(grain, np.ones_like(core)), 1e-3)
            made = float32(made + grain * np.float32(np.sqrt(lacking) / own))
    return made
