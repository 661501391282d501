"""Splice: another patient's lesion, or healthy tissue, resampled, matched in contrast and cloned in seamlessly.

What an attacker does who holds a second scan: SciPy or ITK resampling, histogram matching, then seamless cloning by
mean-value coordinates (Farbman et al. 2009), by a screened Poisson equation, or a soft or dithered paste.
"""

import cv2
import numpy as np

from dicomguard.retrain.tamper.filters import float32
from dicomguard.retrain.tamper.forged import Canvas, Forged, Mask, Pixels
from dicomguard.retrain.tamper.region import SMALLEST_AREA_PX, head_radius
from dicomguard.retrain.tamper.third_hand import carry, seams
from dicomguard.retrain.tamper.third_hand.closing import close_up, without
from dicomguard.retrain.tamper.third_hand.ground import middle, new_place, removal_place, window
from dicomguard.retrain.tamper.third_hand.moved import outline_of, seamed
from dicomguard.retrain.tamper.third_hand.smooth import blurred, membrane

_CLONES = ("mean value", "screened", "screened", "cut", "dithered", "erf", "multiband")
_MOST_RIM = 72
_STRIDE = 3


def mean_value_clone(pixels: Pixels, content: Pixels, core: Mask) -> Pixels:
    """Content plus the rim's offset carried inwards by mean-value coordinates of the largest outline."""
    contours, _ = cv2.findContours(core.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    rim = max(contours, key=len)[:, 0, :].astype(np.float32)
    if len(rim) < 8:
        return content
    rim = rim[np.linspace(0, len(rim) - 1, min(len(rim), _MOST_RIM)).astype(int)]
    offset = blurred(pixels - content, 1.0)
    values = offset[rim[:, 1].astype(int), rim[:, 0].astype(int)]
    height, width = core.shape
    rows, cols = np.arange(0, height, _STRIDE, dtype=np.float32), np.arange(0, width, _STRIDE, dtype=np.float32)
    points = np.stack(np.meshgrid(cols + 0.13, rows + 0.17), axis=-1).reshape(-1, 1, 2)
    spokes = rim[None] - points
    length = np.maximum(np.linalg.norm(spokes, axis=2), 1e-3)
    following, next_length = np.roll(spokes, -1, axis=1), np.roll(length, -1, axis=1)
    cross = spokes[..., 0] * following[..., 1] - spokes[..., 1] * following[..., 0]
    dot = (spokes * following).sum(axis=2)
    # tan(a/2) = sin a / (1 + cos a)
    half = cross / np.maximum(length * next_length + dot, 1e-3)
    weights = (half + np.roll(half, 1, axis=1)) / length
    total = weights.sum(axis=1)
    carried = (weights @ values) / np.where(np.abs(total) < 1e-6, 1e-6, total)
    carried = np.clip(carried, values.min(), values.max()).reshape(rows.size, cols.size)
    places = np.meshgrid(np.arange(width, dtype=np.float32) / _STRIDE, np.arange(height, dtype=np.float32) / _STRIDE)
    whole = cv2.remap(carried.astype(np.float32), *places, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return float32(content + whole)


def _scale(canvas: Canvas, donor: Canvas, z: int, radius: float, rng: np.random.Generator) -> float:
    """Head onto head, varied; the lesion stays under half of the head's radius."""
    here, there = head_radius(canvas, canvas.pixels.shape[0] // 2), max(1.0, head_radius(donor, z))
    wanted = here / there * float(np.exp(rng.normal(0, 0.18)))
    return float(np.clip(min(wanted, 0.45 * here / radius), 0.35, 2.5))


def forge(canvas: Canvas, donor: Canvas | None, rng: np.random.Generator) -> Forged | None:
    if donor is None:
        return None
    find = carry.lesion_of(donor, rng) if rng.random() < 0.65 else None
    flip, turn = bool(rng.random() < 0.5), float(rng.uniform(-np.pi, np.pi))
    if find is not None:
        scale = _scale(canvas, donor, find.z, find.radius, rng)
        ground = new_place(canvas, rng, drawn=(outline_of(find, turn, scale, flip, float(rng.uniform(1, 6))), "lesion"))
        source_z, source = find.z, (find.row, find.col)
    else:
        ground = removal_place(canvas, rng)
        source_z = int(rng.integers(donor.pixels.shape[0]))
        scale = _scale(canvas, donor, source_z, 1e-3, rng)
    head = donor.pixels[source_z][donor.head[source_z] & ~donor.lesion[source_z]]
    if ground is None or head.size < SMALLEST_AREA_PX:
        return None
    if find is None:
        radius = float(np.sqrt(ground.region.core[ground.region.centre].sum() / np.pi))
        found = carry.healthy_of(donor, source_z, radius / scale, float(np.median(head)), rng)
        if found is None:
            return None
        source = (float(found[0]), float(found[1]))
    journey = carry.Journey(
        source=source,
        pivot=middle(ground),
        turn=turn,
        scale=scale,
        flip=flip,
        wobble=float(rng.uniform(0, 1.5)),
        method=carry.draw_method(rng),
    )
    how = _CLONES[int(rng.integers(len(_CLONES)))]
    match = str(rng.choice(["histogram", "linear", "offset"], p=[0.5, 0.3, 0.2]))
    screen = float(np.exp(rng.uniform(np.log(0.001), np.log(0.03))))
    rows, cols = journey.grid(ground.level.shape[1:], rng)
    planes, weights = {}, {}
    truth = ground.region.of_mask(canvas.lesion).copy()
    for z in ground.planes():
        origin = int(np.clip(source_z + z - ground.region.centre, 0, donor.pixels.shape[0] - 1))
        pixels, core, tissue = window(ground, canvas, z)
        content = carry.sampled(donor.pixels[origin], rows, cols, journey.method)
        brought = cv2.remap(donor.lesion[origin].astype(np.float32), cols, rows, cv2.INTER_LINEAR) > 0.5
        content = _contrast(content, head, canvas, z, match)
        if how in ("mean value", "screened"):
            alpha, _ = seams.draw_ramp(ground.level[z], core, rng)
            if how == "screened":
                content = content + membrane(blurred(pixels - content, 1.0), core, screen=screen)
            else:
                content = mean_value_clone(pixels, content, core)
            planes[z] = (seams.mixed(pixels, content, alpha), alpha)
        else:
            content = carry.matched(content, tissue & ~brought, pixels, tissue, "offset")
            planes[z] = seamed(pixels, content, ground, z, how, rng)
        weights[z] = planes[z][1]
        truth[z] |= brought & core & (weights[z] > 0.5)
    if find is None:
        truth = without(canvas, ground, weights)
    return close_up(
        canvas,
        ground,
        planes,
        rng,
        kind="removed" if find is None else "added",
        lesion=truth,
        family="third/transplant",
        variant=f"{how}, {journey.method}",
        parameters={"match": match, "turn": turn, "scale": scale, "flip": float(flip)},
    )


def _contrast(content: Pixels, head: Pixels, canvas: Canvas, z: int, match: str) -> Pixels:
    """The donor's grey scale onto that of the slice, by the tissue of both heads."""
    own = canvas.pixels[z][canvas.head[z] & ~canvas.lesion[z]]
    stack = np.concatenate([content.ravel(), head[::7]])
    seen = np.zeros(stack.size, np.bool_)
    seen[content.size :] = True
    whole = np.ones(own[::7].size, np.bool_)
    return carry.matched(stack, seen, own[::7], whole, match)[: content.size].reshape(content.shape)
