"""A lesion painted in: core, rim, oedema and texture made from nothing, or an existing lesion made to grow.

A real attacker would be a careful painter with soft brushes and layers, or a lesion simulator's output laid over the
scan. The slice's own noise is kept (values are shifted, not replaced) or made anew.
"""

import numpy as np

from dicomguard.retrain.tamper.donor import tissue_scale
from dicomguard.retrain.tamper.filters import dilate, gaussian, largest, signed_distance, smooth_noise
from dicomguard.retrain.tamper.finish import finish
from dicomguard.retrain.tamper.forged import Canvas, Forged, Pixels
from dicomguard.retrain.tamper.grain import regrain
from dicomguard.retrain.tamper.liquify import displaced, mass_effect
from dicomguard.retrain.tamper.region import Region, crop, on_healthy

_LOOKS = ("bright", "ring", "dark", "mixed", "flat")


def _grown(canvas: Canvas, rng: np.random.Generator) -> Region | None:
    """A footprint around an existing lesion, 2 to 7 px larger on a random side."""
    areas = canvas.lesion.sum(axis=(1, 2))
    centre = int(np.argmax(areas))
    if areas[centre] == 0:
        return None
    reach = int(rng.integers(2, 8))
    wobble = smooth_noise((canvas.pixels.shape[1], canvas.pixels.shape[2]), 6.0, rng)
    core = np.zeros(canvas.lesion.shape, np.bool_)
    for z in np.flatnonzero(areas > 0):
        lesion = largest(canvas.lesion[z])
        core[z] = (signed_distance(lesion) + reach + 0.5 * reach * wobble > 0) & dilate(lesion, 2 * reach)
    core &= canvas.head
    return crop(core, margin=20, outline="grown", centre=centre)


def _profile(depth: Pixels, look: str, radius: float, rng: np.random.Generator) -> Pixels:
    """Brightness offset over depth below the outline (h×w, pixels), about -1…1."""
    soft = float(rng.uniform(1.0, max(1.5, 0.5 * radius)))
    body = 1 / (1 + np.exp(np.clip(-depth / soft * 2, -30, 30)))
    if look == "flat":
        return np.asarray(body, np.float32)
    shape = (depth.shape[0], depth.shape[1])
    texture = smooth_noise(shape, float(rng.uniform(1.5, 4.0)), rng)
    rim_at, rim_width = float(rng.uniform(0.15, 0.4) * radius), float(rng.uniform(0.9, 2.5))
    rim = np.exp(-(((depth - rim_at) / rim_width) ** 2))
    necrosis = 1 / (1 + np.exp(np.clip(-(depth - rim_at - 2 * rim_width) / rim_width * 2, -30, 30)))
    if look == "ring":
        painted = rim + 0.15 * body - float(rng.uniform(0.2, 0.8)) * necrosis
    elif look == "mixed":
        painted = body * (0.7 + 0.4 * texture) + 0.5 * rim
    else:
        painted = body * (1 + float(rng.uniform(0.05, 0.2)) * texture)
    return np.asarray(-painted if look == "dark" else painted, np.float32)


def forge(canvas: Canvas, donor: Canvas | None, rng: np.random.Generator) -> Forged | None:
    del donor
    grows = bool(rng.random() < 0.25)
    region = (_grown(canvas, rng) if grows else None) or on_healthy(canvas, rng, margin=24)
    if region is None:
        return None
    grows = region.outline == "grown"
    base = region.of(canvas.pixels)
    look = str(rng.choice(_LOOKS))
    _, spread = tissue_scale(canvas, region.centre)
    height = float(np.exp(rng.uniform(np.log(0.25), np.log(1.2)))) * spread
    keeps_fluid = bool(rng.random() < 0.6)
    multiplies, fresh = bool(rng.random() < 0.3), bool(rng.random() < 0.3)
    radius = float(np.sqrt(region.core[region.centre].sum() / np.pi))
    pushes = bool(not grows and rng.random() < 0.4)
    push = float(rng.uniform(0.1, 0.3)) * radius
    seed = int(rng.integers(2**32))
    edited, alpha = base.copy(), np.zeros_like(base)
    touched = region.core.copy()
    for z in np.flatnonzero(region.core.any(axis=(1, 2))):
        core = region.core[z]
        # The same seed for each slice: profile and texture go through the lesion as one body.
        # A brush rounds corners.
        depth = gaussian(signed_distance(core), 0.2 * radius)
        offset = height * _profile(depth, look, radius, np.random.default_rng(seed))
        ground = base[z]
        weight = np.clip(np.abs(offset) / height, 0, 1)
        if pushes:
            ground, moved = displaced(ground, *mass_effect(core, push), "cubic")
            weight = np.maximum(weight, moved)
        if multiplies:
            middle = max(1.0, float(np.median(base[z][core])))
            painted = ground * (1 + offset / middle)
        else:
            painted = ground + offset
        if keeps_fluid:
            # Fluid and air under the brush stay dark.
            dark = 0.5 * float(np.median(base[z][core]))
            painted = ground + (painted - ground) * np.clip(gaussian(base[z], 0.8) / max(dark, 1.0) - 0.5, 0, 1)
        fade = np.clip(1 + signed_distance(core) / 14, 0, 1)
        alpha[z] = np.where(fade * weight > 0.02, fade * weight, 0)
        edited[z] = base[z] + np.where(alpha[z] > 0, fade, 0) * (painted - base[z])
    way = "slice's own"
    if fresh:
        smooth = np.stack([gaussian(plane, 1.0) for plane in edited])
        grained, way = regrain(smooth, base, region.core, rng)
        edited = edited + alpha * (grained - edited)
    lesion = region.of_mask(canvas.lesion) | touched
    return finish(
        canvas,
        region,
        edited.astype(np.float32),
        alpha.astype(np.float32),
        rng,
        kind="altered" if grows else "added",
        lesion=lesion,
        family="painted",
        variant=look,
        parameters={
            "grain": way,
            "height": round(height, 2),
            "blend": "multiply" if multiplies else "add",
            "mass effect": round(push, 2) if pushes else 0.0,
        },
    )
