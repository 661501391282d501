"""Copy-move: a lesion or healthy tissue taken from another place or slice of the same scan, bent a little on its way.

What an attacker does with lasso, paste and warp, and a seam that is cut where it shows least.
"""

import cv2
import numpy as np

from dicomguard.retrain.tamper.filters import float32, signed_distance
from dicomguard.retrain.tamper.forged import Canvas, Forged, Pixels
from dicomguard.retrain.tamper.region import head_radius
from dicomguard.retrain.tamper.third_hand import carry, seams
from dicomguard.retrain.tamper.third_hand.closing import close_up, without
from dicomguard.retrain.tamper.third_hand.ground import Ground, middle, new_place, removal_place, window

_SEAMS = ("cut", "dithered", "smoothstep", "erf", "multiband")
_MATCHES = ("none", "offset", "linear", "histogram")


def seamed(
    pixels: Pixels, content: Pixels, ground: Ground, z: int, how: str, rng: np.random.Generator
) -> tuple[Pixels, Pixels]:
    """Content laid into slice z of the crop with one of the seams; gives the edited plane and alpha."""
    core, level = ground.region.core[z], ground.level[z]
    if how == "cut":
        cut = seams.cheapest_path(pixels, content, level, core)
        alpha = seams.of_cut(cut, float(rng.uniform(1.0, 2.5)))
        return seams.mixed(pixels, content, alpha), alpha
    width = float(rng.uniform(2.0, 6.0))
    if how == "multiband":
        alpha = seams.ramp(level, core, "smoothstep", 0.5 * width, rng)
        return seams.multiband(pixels, content, alpha), alpha
    alpha = seams.ramp(level, core, how, width, rng)
    return seams.mixed(pixels, content, alpha), alpha


def outline_of(find: carry.Find, turn: float, scale: float, flip: bool, wider: float) -> Pixels:
    """The lesion's level plane as it will lie at its new place, a few pixels wider."""
    half = int(np.ceil(2.2 * find.radius * scale + wider)) + 4
    source = signed_distance(find.mask).clip(-60, 60)
    journey = carry.Journey(
        source=(find.row, find.col), pivot=(half, half), turn=turn, scale=scale, flip=flip, wobble=0, method="bilinear"
    )
    rows, cols = journey.grid((2 * half + 1, 2 * half + 1), np.random.default_rng(0))
    level = cv2.remap(source, cols, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=-60)
    return float32(level * scale + wider)


def _aim(canvas: Canvas, ground: Ground) -> float:
    """Brightness of the tissue around the footprint."""
    pixels, _, tissue = window(ground, canvas, ground.region.centre)
    return float(np.median(pixels[tissue]))


def forge(canvas: Canvas, donor: Canvas | None, rng: np.random.Generator) -> Forged | None:
    find = carry.lesion_of(canvas, rng) if rng.random() < 0.5 else None
    flip = bool(rng.random() < 0.4)
    plain = rng.random() < 0.3
    turn = 0.0 if plain else float(rng.uniform(-np.pi, np.pi))
    scale = 1.0 if plain else float(np.exp(rng.normal(0, 0.2)))
    wider = float(rng.uniform(1, 5))
    if find is not None:
        # Under half of the head's radius it still looks like one more lesion.
        scale = min(scale, max(0.4, 0.4 * head_radius(canvas, find.z) / find.radius))
        level = outline_of(find, turn, scale, flip, wider)
        ground = new_place(canvas, rng, drawn=(level, "lesion"))
    else:
        ground = removal_place(canvas, rng)
    if ground is None:
        return None
    at = middle(ground)
    if find is not None:
        source: tuple[float, float] = (find.row, find.col)
        source_z = find.z
    else:
        source_z = int(rng.integers(canvas.pixels.shape[0]))
        radius = float(np.sqrt(ground.region.core[ground.region.centre].sum() / np.pi))
        found = carry.healthy_of(canvas, source_z, radius / scale, _aim(canvas, ground), rng)
        if found is None:
            return None
        source = found
        # Next to itself it would bring itself.
        top, left = ground.region.rows.start, ground.region.cols.start
        if np.hypot(source[0] - at[0] - top, source[1] - at[1] - left) < 0.5 * radius:
            return None
    journey = carry.Journey(
        source=source,
        pivot=at,
        turn=turn,
        scale=scale,
        flip=flip,
        wobble=0.0 if plain else float(rng.uniform(0, 2.5)),
        method="nearest" if plain else carry.draw_method(rng),
    )
    how = _SEAMS[int(rng.integers(len(_SEAMS)))]
    match = _MATCHES[int(rng.integers(len(_MATCHES)))]
    rows, cols = journey.grid(ground.level.shape[1:], rng)
    planes, weights = {}, {}
    truth = ground.region.of_mask(canvas.lesion).copy()
    for z in ground.planes():
        origin = int(np.clip(source_z + z - ground.region.centre, 0, canvas.pixels.shape[0] - 1))
        pixels, core, tissue = window(ground, canvas, z)
        content = carry.sampled(canvas.pixels[origin], rows, cols, journey.method)
        brought = cv2.remap(canvas.lesion[origin].astype(np.float32), cols, rows, cv2.INTER_LINEAR) > 0.5
        content = carry.matched(content, tissue & ~brought, pixels, tissue, match)
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
        family="third/moved",
        variant=f"{how}, {journey.method}",
        parameters={"match": match, "turn": turn, "scale": scale, "flip": float(flip)},
    )
