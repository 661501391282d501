"""Removal that keeps every grain of the slice: only the lesion's smooth excess over its surroundings is taken off.

What a careful attacker does with curves, dodge and burn, or a few lines of NumPy: the region is brought to the
brightness of tissue while its own noise and fine structure stay, edges of the lesion are flattened.
"""

import cv2
import numpy as np

from dicomguard.retrain.tamper.filters import float32
from dicomguard.retrain.tamper.forged import Canvas, Forged, Mask, Pixels
from dicomguard.retrain.tamper.third_hand import care, seams, texture
from dicomguard.retrain.tamper.third_hand.closing import close_up, without
from dicomguard.retrain.tamper.third_hand.ground import removal_place, window
from dicomguard.retrain.tamper.third_hand.smooth import blurred, masked_blur, surface

_WAYS = ("subtract", "bilateral", "median", "quantiles")
_KNOTS = 12


def _smooth(pixels: Pixels, way: str, sigma: float, noise: float) -> Pixels:
    if way == "bilateral":
        return float32(cv2.bilateralFilter(pixels, -1, 4 * max(noise, 0.5), 1.5 * sigma))
    if way == "median":
        return blurred(float32(cv2.medianBlur(pixels, 5)), 0.7 * sigma)
    return blurred(pixels, sigma)


def _onto_quantiles(smooth: Pixels, core: Mask, tissue: Mask) -> Pixels:
    """The footprint's smooth values mapped rank for rank onto those of the tissue around it."""
    knots = np.linspace(0.03, 0.97, _KNOTS)
    here, there = np.quantile(smooth[core], knots), np.quantile(smooth[tissue], knots)
    rising = here + np.arange(_KNOTS) * 1e-3
    return float32(np.interp(smooth, rising, there))


def _flattened(pixels: Pixels, smooth: Pixels, base: Pixels, keep: float) -> Pixels:
    """Detail on a new base, what is coarser than noise weakened: outlines of the lesion sink into the tissue."""
    detail = pixels - smooth
    fine = texture.fine(detail, 1.0)
    return float32(base + fine + np.float32(keep) * (detail - fine))


def forge(canvas: Canvas, donor: Canvas | None, rng: np.random.Generator) -> Forged | None:
    ground = removal_place(canvas, rng)
    if ground is None:
        return None
    way = _WAYS[int(rng.integers(len(_WAYS)))]
    kind = str(rng.choice(["harmonic", "tv", "biharmonic"]))
    sigma, keep = float(rng.uniform(1.2, 3.0)), float(rng.uniform(0.25, 0.9))
    strength = float(rng.uniform(0.8, 1.0)) * care.strength(rng)
    planes, weights = {}, {}
    for z in ground.planes():
        pixels, core, tissue = window(ground, canvas, z)
        smooth = _smooth(pixels, way, sigma, texture.level(pixels, tissue))
        if way == "quantiles":
            base = _onto_quantiles(smooth, core, tissue)
            if rng.random() < 0.5:
                base = 0.5 * base + 0.5 * masked_blur(pixels, tissue, 6.0)
        else:
            base = surface(pixels, core, tissue, kind)
        made = _flattened(pixels, smooth, base, keep)
        alpha, ramp = seams.draw_ramp(ground.level[z], core, rng, hard=False)
        planes[z] = (seams.mixed(pixels, made, alpha * np.float32(strength)), alpha)
        weights[z] = alpha
    return close_up(
        canvas,
        ground,
        planes,
        rng,
        kind="removed",
        lesion=without(canvas, ground, weights),
        family="third/attenuate",
        variant=way if way == "quantiles" else f"{way}, {kind}",
        parameters={"strength": strength, "keep": keep, "ramp": ramp},
    )
