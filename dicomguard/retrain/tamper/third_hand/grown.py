"""A lesion grown from procedural texture: 1/f noise, a rim, a core, a halo of oedema.

What a painter with a noise plug-in does, or somebody who scripts a phantom: the brightness of a tumor laid on the
slice, multiplied or added, with partial volume at its edge; the slice's own noise kept, or the region calmed and noised
anew.
"""

import cv2
import numpy as np

from dicomguard.retrain.tamper.filters import float32, signed_distance
from dicomguard.retrain.tamper.forged import Canvas, Forged, Pixels
from dicomguard.retrain.tamper.third_hand import seams, texture
from dicomguard.retrain.tamper.third_hand.closing import close_up
from dicomguard.retrain.tamper.third_hand.ground import Ground, new_place, power_noise, window
from dicomguard.retrain.tamper.third_hand.smooth import blurred

_FORMS = ("solid", "rim", "necrotic", "halo", "patchy")
_LAYS = ("add", "multiply", "screen")


def _profile(level: Pixels, form: str, deepest: float, rng: np.random.Generator, field: Pixels) -> Pixels:
    """Strength of the lesion -0.5…1 by depth, at twice the resolution brought back: partial volume at each edge."""
    size = (2 * level.shape[1], 2 * level.shape[0])
    deep = float32(cv2.resize(np.maximum(level, -20), size, interpolation=cv2.INTER_CUBIC))
    rough = float32(cv2.resize(field, size, interpolation=cv2.INTER_CUBIC))
    deep = deep + np.float32(rng.uniform(0.06, 0.2) * deepest) * rough
    inside = (deep > 0).astype(np.float32)
    share = np.clip(deep / max(deepest, 1.0), 0, 1)
    if form == "rim":
        thick = rng.uniform(0.12, 0.3)
        # Uneven around the lesion: no real rim is a ring.
        body = 0.25 + (0.6 + 0.3 * np.tanh(rough)) * np.exp(-(((share - thick) / thick) ** 2))
    elif form == "necrotic":
        edge = rng.uniform(0.35, 0.6)
        body = np.where(share < edge, 1.0, rng.uniform(-0.4, 0.3))
    elif form == "halo":
        edge = rng.uniform(0.25, 0.5)
        body = np.where(share < edge, rng.uniform(0.25, 0.5), 1.0)
    elif form == "patchy":
        body = 0.65 + 0.35 * np.tanh(1.5 * rough)
    else:
        body = np.ones_like(deep)
    painted = float32(inside * body)
    return float32(cv2.resize(painted, (level.shape[1], level.shape[0]), interpolation=cv2.INTER_AREA))


def _height(canvas: Canvas, ground: Ground, rng: np.random.Generator) -> float:
    """How much brighter or darker than tissue, in stored values."""
    centre = ground.region.centre
    inside = canvas.pixels[centre][canvas.head[centre]]
    low, middle, high = (float(v) for v in np.percentile(inside[::5], [5, 50, 95]))
    if rng.random() < 0.25:
        return -float(rng.uniform(0.25, 0.7)) * (middle - low)
    return float(rng.uniform(0.35, 1.0)) * max(high - middle, 0.15 * (high - low))


def _laid(base: Pixels, strength: Pixels, height: float, lay: str, level: float) -> Pixels:
    if lay == "multiply":
        return float32(base * (1 + strength * (height / max(level, 1.0))))
    if lay == "screen" and height > 0:
        # Towards the lesion's own brightness: structure under it fades.
        return float32(base + strength * 0.8 * (level + height - base))
    return float32(base + strength * height)


def forge(canvas: Canvas, donor: Canvas | None, rng: np.random.Generator) -> Forged | None:
    ground = new_place(canvas, rng)
    if ground is None:
        return None
    form = _FORMS[int(rng.integers(len(_FORMS)))]
    lay = _LAYS[int(rng.integers(len(_LAYS)))]
    noise = str(rng.choice(["own", "calmed and noised", "amplified"], p=[0.5, 0.35, 0.15]))
    height = _height(canvas, ground, rng)
    beta, mottle = float(rng.uniform(1.6, 3.2)), float(rng.uniform(0.03, 0.2))
    field = power_noise(ground.level.shape[1:], beta, rng)
    soft = float(rng.uniform(0.5, 2.2))
    # Parameters of the form are drawn once: the lesion is one body through its slices.
    form_seed = int(rng.integers(2**32))
    edge = float(rng.uniform(0, 2.5))
    planes = {}
    truth = ground.region.of_mask(canvas.lesion).copy()
    for z in ground.planes():
        pixels, core, tissue = window(ground, canvas, z)
        level = signed_distance(core) - np.float32(edge)
        profile = blurred(
            _profile(level, form, float(level.max()), np.random.default_rng(form_seed), field), soft
        ) * core.astype(np.float32)
        drift = power_noise(field.shape, beta, rng)
        strength = profile * (1 + np.float32(mottle) * (0.8 * field + 0.6 * drift))
        middle = float(np.median(pixels[core]))
        base, grain = pixels, np.zeros_like(pixels)
        if noise != "own":
            sigma = max(texture.level(pixels, tissue), 0.05)
            calm = float32(cv2.bilateralFilter(pixels, -1, 3.0 * sigma, 1.6))
            where = np.clip(np.abs(profile) * 3, 0, 1)
            if noise == "calmed and noised":
                fresh = texture.rician(
                    _laid(calm, strength, height, lay, middle), sigma, float(rng.uniform(0, 0.6)), rng
                )
                grain = float32(where * (fresh - _laid(calm, strength, height, lay, middle)))
                base = seams.mixed(pixels, calm, where)
            else:
                grain = float32(where * rng.uniform(-0.3, 0.4) * texture.fine(pixels, 1.0))
        made = _laid(base, strength, height, lay, middle) + grain
        # Full where the lesion is about as strong as anywhere in this slice.
        ruling = max(0.6 * float(np.abs(profile).max()), 1e-3)
        planes[z] = (float32(np.where(core, made, pixels)), float32(np.clip(np.abs(profile) / ruling, 0, 1)))
        truth[z] |= core & (blurred((level > 0).astype(np.float32), soft) > 0.5)
    return close_up(
        canvas,
        ground,
        planes,
        rng,
        kind="added",
        lesion=truth,
        family="third/grown",
        variant=f"{form}, {lay}",
        parameters={"noise": noise, "beta": beta, "height": height},
    )
