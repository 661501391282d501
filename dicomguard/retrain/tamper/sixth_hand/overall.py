"""An attacker's mild pass over whole slices, so that the edit does not stand alone as processed.

Laundering after the edit is what anti-forensics recommends (Böhme and Kirchner, "Counter-forensics: attacking image
forensics", 2013): light denoising, faint noise, sharpening, resampling, requantisation, a changed display curve.
"""

from collections.abc import Callable

import numpy as np
from scipy import ndimage

from dicomguard.retrain.tamper.filters import bilateral, each, float32, gaussian, noise_sigma, unsharp
from dicomguard.retrain.tamper.forged import Canvas, Pixels

NAMES = ("denoise", "noise", "sharpen", "resample", "requantise", "gamma")

# Fewer stored levels than this leave nothing to requantise.
_FEWEST_LEVELS = 64


def draw_overall(canvas: Canvas, rng: np.random.Generator) -> tuple[Callable[[Pixels], Pixels], str]:
    """One pass, the same for a forgery and its twin, and its name."""
    name = str(rng.choice(NAMES))
    sigma = max(float(np.median([noise_sigma(p, h) for p, h in zip(canvas.pixels, canvas.head, strict=True)])), 0.5)
    pass_of = {
        "denoise": _denoise,
        "noise": _noise,
        "sharpen": _sharpen,
        "resample": _resample,
        "requantise": _requantise,
        "gamma": _gamma,
    }[name]
    operate = pass_of(canvas, sigma, rng)

    def on_grid(stack: Pixels) -> Pixels:
        return float32(np.clip(np.rint(operate(stack)), canvas.low, canvas.high) + 0.0)

    return on_grid, name


def _denoise(canvas: Canvas, sigma: float, rng: np.random.Generator) -> Callable[[Pixels], Pixels]:
    value, share = sigma * rng.uniform(1.5, 2.5), np.float32(rng.uniform(0.4, 0.8))
    return lambda stack: stack + share * (each(stack, lambda p: bilateral(p, sigma_value=value, sigma_px=1.2)) - stack)


def _noise(canvas: Canvas, sigma: float, rng: np.random.Generator) -> Callable[[Pixels], Pixels]:
    field = each(rng.standard_normal(canvas.pixels.shape, dtype=np.float32), lambda p: gaussian(p, 0.5))
    # The empty background of a masked head stays empty.
    field *= np.float32(sigma * rng.uniform(0.3, 0.7)) * (canvas.pixels > canvas.low)
    return lambda stack: stack + field


def _sharpen(canvas: Canvas, sigma: float, rng: np.random.Generator) -> Callable[[Pixels], Pixels]:
    width, amount = rng.uniform(0.8, 1.6), rng.uniform(0.1, 0.35)
    return lambda stack: each(stack, lambda p: unsharp(p, sigma=width, amount=amount))


def _resample(canvas: Canvas, sigma: float, rng: np.random.Generator) -> Callable[[Pixels], Pixels]:
    shift = (0.0, *(float(v) for v in rng.uniform(-0.4, 0.4, 2)))
    order = int(rng.choice((1, 3)))
    return lambda stack: float32(ndimage.shift(stack, shift, order=order, mode="nearest"))


def _requantise(canvas: Canvas, sigma: float, rng: np.random.Generator) -> Callable[[Pixels], Pixels]:
    top = float(canvas.pixels.max()) - canvas.low
    levels = rng.uniform(0.35, 0.85) * min(top, 255)
    step = np.float32(top / levels) if top >= _FEWEST_LEVELS else np.float32(1)
    return lambda stack: float32(np.rint(stack / step) * step)


def _gamma(canvas: Canvas, sigma: float, rng: np.random.Generator) -> Callable[[Pixels], Pixels]:
    power, top = rng.uniform(0.9, 1.1), max(float(canvas.pixels.max()) - canvas.low, 1.0)
    return lambda stack: float32(canvas.low + top * np.clip((stack - canvas.low) / top, 0, 1) ** power)
