"""Removal by a smooth fill with new texture on it.

What an attacker does with "Fill" or "Interpolate" in ImageJ or a biharmonic inpaint of scikit-image, followed by adding
noise: low frequencies from the surroundings, texture resynthesised from near tissue or regenerated as the scanner's.
"""

import numpy as np

from dicomguard.retrain.tamper.filters import float32
from dicomguard.retrain.tamper.forged import Canvas, Forged, Pixels
from dicomguard.retrain.tamper.third_hand import care, seams, texture
from dicomguard.retrain.tamper.third_hand.closing import close_up, without
from dicomguard.retrain.tamper.third_hand.ground import removal_place, window
from dicomguard.retrain.tamper.third_hand.smooth import blurred, masked_blur, surface

_SURFACES = ("harmonic", "biharmonic", "tv", "normalised blur")
_GRAINS = ("spectrum", "stitched", "rician", "white")


def _grained(calm: Pixels, pixels: Pixels, tissue: np.ndarray, grain: str, rng: np.random.Generator) -> Pixels:
    if grain != "rician":
        return calm + texture.like(pixels, tissue, calm.shape, grain, rng)
    sigma = texture.level(pixels, tissue)
    return texture.rician(calm, max(sigma, 0.05), float(rng.uniform(0, 0.7)), rng)


def forge(canvas: Canvas, donor: Canvas | None, rng: np.random.Generator) -> Forged | None:
    ground = removal_place(canvas, rng)
    if ground is None:
        return None
    how = _SURFACES[int(rng.integers(len(_SURFACES)))]
    grain = _GRAINS[int(rng.choice(4, p=[0.4, 0.25, 0.2, 0.15]))]
    # Texture coarser than noise: a fill without it looks like plastic at a glance.
    mottle = float(rng.uniform(0.3, 1.0)) if rng.random() < 0.7 else 0.0
    strength, sigma = care.strength(rng), float(rng.uniform(1.0, 2.5))
    planes, weights = {}, {}
    blend = int(rng.integers(3))
    for z in ground.planes():
        pixels, core, tissue = window(ground, canvas, z)
        if how == "normalised blur":
            calm = masked_blur(pixels, tissue, 5.0)
        else:
            calm = surface(pixels, core, tissue, how, sigma=sigma)
        if mottle:
            coarse = blurred(pixels, 1.6) - masked_blur(pixels, tissue, 6.0)
            power = texture.spectrum(coarse, tissue, rng)
            if power is not None:
                mirrored = np.roll(power[:, ::-1], 1, axis=1)
                # Of one direction only it would be ripples.
                even = float32((power + power.T + mirrored + mirrored.T) / 4)
                calm = calm + np.float32(mottle) * texture.random_phase(even, calm.shape, rng)
        made = _grained(calm, pixels, tissue, grain, rng)
        alpha, ramp = seams.draw_ramp(ground.level[z], core, rng, hard=blend == 0)
        mixed = seams.multiband(pixels, made, alpha) if blend == 1 else seams.mixed(pixels, made, alpha)
        planes[z] = (seams.mixed(pixels, mixed, np.full_like(pixels, strength)), alpha)
        weights[z] = alpha
    return close_up(
        canvas,
        ground,
        planes,
        rng,
        kind="removed",
        lesion=without(canvas, ground, weights),
        family="third/diffuse",
        variant=f"{how}, {grain}",
        parameters={"strength": strength, "mottle": mottle, "ramp": ramp},
    )
