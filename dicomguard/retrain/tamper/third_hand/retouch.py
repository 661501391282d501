"""Retouched by hand: many small dabs of a soft clone stamp or healing brush, over a lesion or making one.

What an attacker does in GIMP or Photoshop with the stamp, the healing brush and the dodge tool: a source beside the
place, strokes of overlapping dabs, each dab reading what earlier dabs have left.
"""

import numpy as np
from numpy.typing import NDArray

from dicomguard.retrain.tamper.forged import Canvas, Forged, Mask, Pixels
from dicomguard.retrain.tamper.third_hand import texture
from dicomguard.retrain.tamper.third_hand.closing import close_up, without
from dicomguard.retrain.tamper.third_hand.ground import Ground, new_place, removal_place, window
from dicomguard.retrain.tamper.third_hand.smooth import blurred, masked_blur

_TOOLS = ("stamp", "heal", "stamp and heal")
_MARGIN = 26
_MOST_DABS = 160
# Places that the hand considers before a stroke.
_LOOKS = 10


def _brush(radius: int, hardness: float) -> Pixels:
    axis = np.arange(-radius, radius + 1, dtype=np.float32)
    away = np.hypot(axis[:, None], axis[None, :]) / (radius + 0.5)
    share = np.clip((1 - away) / max(1 - hardness, 0.05), 0, 1)
    return (share * share * (3 - 2 * share)).astype(np.float32)


def _dabs(core: Mask, radius: int, rng: np.random.Generator) -> NDArray[np.intp]:
    """Middles of dabs that cover the footprint, row by row with an unsteady hand."""
    step = max(1, round(0.8 * radius))
    rows, cols = np.nonzero(core)
    grid = core[rows.min() :: step, cols.min() :: step]
    at = np.argwhere(grid) * step + np.array([rows.min(), cols.min()])
    if len(at) == 0:
        at = np.array([[int(rows.mean()), int(cols.mean())]])
    unsteady = np.rint(rng.normal(0, 0.25 * radius, at.shape)).astype(np.intp)
    return np.asarray(at + unsteady)[:_MOST_DABS]


def _source(
    at: NDArray[np.intp], calm: Pixels, tissue: Mask, reach: tuple[int, int], rng: np.random.Generator
) -> NDArray[np.intp] | None:
    """An offset from a dab to tissue beside the footprint that is about as bright as the dab's place should be."""
    away, turn = rng.uniform(*reach, _LOOKS), rng.uniform(0, 2 * np.pi, _LOOKS)
    offsets = np.rint(np.stack([away * np.sin(turn), away * np.cos(turn)], axis=1)).astype(np.intp)
    fitting: list[NDArray[np.intp]] = [offset for offset in offsets if _lies(at + offset, tissue)]
    if not fitting:
        return None
    row, col = np.clip(at, 0, np.array(calm.shape) - 1)
    apart = [abs(float(calm[tuple(at + offset)] - calm[row, col])) for offset in fitting]
    return fitting[int(np.argmin(apart))]


def _painted(
    pixels: Pixels, core: Mask, tissue: Mask, tool: str, radius: int, hardness: float, rng: np.random.Generator
) -> tuple[Pixels, Pixels]:
    """The plane after all dabs, and how much each pixel was painted over."""
    work, cover = pixels.copy(), np.zeros_like(pixels)
    brush = _brush(radius, hardness)
    height, width = pixels.shape
    calm = masked_blur(pixels, tissue, max(3.0, 0.8 * radius))
    span = int(np.sqrt(core.sum() / np.pi)) + radius
    opacity = float(rng.uniform(0.75, 1.0))
    offset: NDArray[np.intp] | None = None
    for number, at in enumerate(_dabs(core, radius, rng)):
        # One source a stroke; a new one after some dabs, or where it would leave the tissue.
        if offset is None or number % 5 == 0 or not _lies(at + offset, tissue):
            offset = _source(at, calm, tissue, (radius, 2 * span + 4), rng)
            if offset is None:
                continue
        top, left, bottom, right = at[0] - radius, at[1] - radius, at[0] + radius + 1, at[1] + radius + 1
        edges = [top, left, top + offset[0], left + offset[1], height - bottom, width - right]
        edges += [height - bottom - offset[0], width - right - offset[1]]
        if min(edges) < 0:
            continue
        here = np.s_[top:bottom, left:right]
        there = np.s_[top + offset[0] : bottom + offset[0], left + offset[1] : right + offset[1]]
        taken = work[there]
        if tool == "heal" or (tool == "stamp and heal" and number % 2):
            taken = taken - blurred(taken, 0.6 * radius) + calm[here]
        weight = opacity * brush * core[here]
        work[here] = work[here] + weight * (taken - work[here])
        cover[here] = 1 - (1 - cover[here]) * (1 - weight)
    return work, cover


def _lies(at: NDArray[np.intp], where: Mask) -> bool:
    row, col = at
    return bool(0 <= row < where.shape[0] and 0 <= col < where.shape[1] and where[row, col])


def _dodged(pixels: Pixels, core: Mask, height: float, radius: int, rng: np.random.Generator) -> tuple[Pixels, Pixels]:
    """A lesion made by strokes of dodge or burn: brightness multiplied dab by dab, grain kept or smeared a little."""
    gain, cover = np.zeros_like(pixels), np.zeros_like(pixels)
    frame = radius + 1
    gain, cover = np.pad(gain, frame), np.pad(cover, frame)
    for at in _dabs(core, radius, rng):
        brush = _brush(radius, float(rng.uniform(0, 0.5)))
        row, col = np.clip(at, 0, np.array(pixels.shape) - 1) + frame
        here = np.s_[row - radius : row + radius + 1, col - radius : col + radius + 1]
        gain[here] += brush * np.float32(rng.uniform(0.5, 1.0))
        cover[here] = 1 - (1 - cover[here]) * (1 - brush)
    inside = np.s_[frame:-frame, frame:-frame]
    gain, cover = gain[inside] * core, cover[inside] * core
    gain = gain / max(float(np.percentile(gain[core], 90)), 1e-3)
    gain = np.minimum(gain, 1.3)
    return pixels + np.float32(height) * gain * (0.6 + 0.4 * pixels / max(float(pixels[core].mean()), 1.0)), cover


def forge(canvas: Canvas, donor: Canvas | None, rng: np.random.Generator) -> Forged | None:
    makes = rng.random() < 0.35
    ground = new_place(canvas, rng, margin=_MARGIN) if makes else removal_place(canvas, rng, margin=_MARGIN)
    if ground is None:
        return None
    area = int(ground.region.core[ground.region.centre].sum())
    radius = max(2, round(float(rng.uniform(0.18, 0.45) * np.sqrt(area / np.pi))) + 1)
    hardness = float(rng.uniform(0.0, 0.7))
    tool = ("dodge" if rng.random() < 0.7 else "burn") if makes else _TOOLS[int(rng.integers(len(_TOOLS)))]
    seed = int(rng.integers(2**32))
    planes, weights = {}, {}
    truth = ground.region.of_mask(canvas.lesion).copy()
    for z in ground.planes():
        pixels, core, tissue = window(ground, canvas, z)
        if makes:
            # The same strokes in each slice: one body.
            made, cover = _dodged(pixels, core, _height(canvas, ground, tool), radius, np.random.default_rng(seed))
            truth[z] |= core & (cover > 0.5)
        else:
            made, cover = _painted(pixels, core, tissue, tool, radius, hardness, rng)
        planes[z] = (made.astype(np.float32), cover)
        weights[z] = cover
    return close_up(
        canvas,
        ground,
        planes,
        rng,
        kind="added" if makes else "removed",
        lesion=truth if makes else without(canvas, ground, weights),
        family="third/retouch",
        variant=tool,
        parameters={"brush": float(radius), "hardness": hardness},
    )


def _height(canvas: Canvas, ground: Ground, tool: str) -> float:
    inside = canvas.pixels[ground.region.centre][canvas.head[ground.region.centre]]
    low, middle, high = (float(v) for v in np.percentile(inside[::5], [10, 50, 95]))
    noise = texture.level(canvas.pixels[ground.region.centre], canvas.head[ground.region.centre])
    return max(0.7 * (high - middle), 5 * noise, 4.0) if tool == "dodge" else -max(0.7 * (middle - low), 5 * noise, 4.0)
