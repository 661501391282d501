"""The last pass of a forger over his work: on the seam and inside it, or over the whole slice.

A whole-slice pass is drawn once and laid on the forged slices and on their authentic twins alike, so that it never
tells the two apart.
"""

from collections.abc import Callable

import cv2
import numpy as np

from dicomguard.retrain.tamper.filters import (
    bilateral,
    each,
    gaussian,
    jpeg,
    median,
    noise_sigma,
    resize,
    signed_distance,
    unsharp,
)
from dicomguard.retrain.tamper.forged import Canvas, Mask, Pixels
from dicomguard.retrain.tamper.resample import zero_fill

LOCAL = ("none", "seam median", "seam blur", "sharpen", "soften", "denoise", "noise", "jpeg", "requantise")
_LOCAL_WEIGHTS = (0.44, 0.09, 0.09, 0.09, 0.08, 0.06, 0.07, 0.04, 0.04)


def local(edited: Pixels, base: Pixels, core: Mask, rng: np.random.Generator) -> tuple[Pixels, str]:
    """Touch up one Z×h×w edit near its footprint; further out the slices stay as they were."""
    way = str(rng.choice(LOCAL, p=_LOCAL_WEIGHTS))
    amount = float(rng.uniform(0.3, 1.0))
    if way == "none":
        return edited, way
    result = edited.copy()
    for z in range(edited.shape[0]):
        if core[z].any():
            result[z] = _touched(edited[z], base[z], core[z], way, amount, rng)
    return result, way


def _touched(edited: Pixels, base: Pixels, core: Mask, way: str, amount: float, rng: np.random.Generator) -> Pixels:
    distance = signed_distance(core)
    if way.startswith("seam"):
        where = np.clip(2.5 - np.abs(distance), 0, 1)
        other = median(edited, 3) if way == "seam median" else gaussian(edited, 0.5 + 0.6 * amount)
        return edited + where * (other - edited)
    where = np.clip(distance + 1.0, 0, 1)
    if way == "sharpen":
        other = unsharp(edited, sigma=1.0, amount=0.7 * amount)
    elif way == "soften":
        other = gaussian(edited, 0.35 + 0.35 * amount)
    elif way == "denoise":
        other = bilateral(edited, sigma_value=3 * amount * max(noise_sigma(base, ~core), 0.5), sigma_px=1.2)
    elif way == "noise":
        sigma = np.float32(0.5 * amount * noise_sigma(base, ~core))
        other = edited + sigma * rng.standard_normal(edited.shape, dtype=np.float32)
    elif way == "jpeg":
        other = jpeg(edited, int(80 + 17 * amount), low=float(base.min()), high=float(base.max()))
    else:
        step = np.float32(max(1.0, float(base.max() - base.min()) / (120 + 130 * amount)))
        other = np.round(edited / step) * step
    return (edited + where * (other - edited)).astype(np.float32)


def _shifted(plane: Pixels, down: float, right: float) -> Pixels:
    """A sub-pixel shift by the Fourier phase, as a registration program does."""
    spectrum = np.fft.rfft2(plane)
    rows = np.fft.fftfreq(plane.shape[0])[:, None]
    cols = np.fft.rfftfreq(plane.shape[1])[None, :]
    shifted = np.fft.irfft2(spectrum * np.exp(-2j * np.pi * (rows * down + cols * right)), s=plane.shape)
    return np.asarray(shifted, np.float32)


def draw_overall(canvas: Canvas, rng: np.random.Generator) -> tuple[Callable[[Pixels], Pixels], str]:
    """A whole-slice pass (Z×H×W in and out, float) with its parameters fixed, and its name."""
    seed = int(rng.integers(2**32))
    amount = float(rng.uniform(0.3, 1.0))
    way = str(rng.choice(["denoise", "soften", "renoise", "shift", "sharpen", "round trip"]))
    middle = canvas.pixels.shape[0] // 2
    sigma = max(0.3, noise_sigma(canvas.pixels[middle], canvas.head[middle]))

    def renoise(stack: Pixels) -> Pixels:
        noise = np.random.default_rng(seed).standard_normal((2, *stack.shape), dtype=np.float32)
        level = np.float32(amount * sigma)
        # Rician, and nothing where the background is exactly zero.
        noisy = np.hypot(stack + level * noise[0], level * noise[1])
        return np.where(stack > 0, noisy, stack).astype(np.float32)

    def round_trip(plane: Pixels) -> Pixels:
        shape = (plane.shape[0], plane.shape[1])
        if seed % 3 == 0:
            return resize(zero_fill(plane, 2), shape, cv2.INTER_AREA)
        other = (round(shape[0] * (1.15 + 0.6 * amount)), round(shape[1] * (1.15 + 0.6 * amount)))
        return resize(resize(plane, other, cv2.INTER_CUBIC), shape, cv2.INTER_LINEAR)

    def shift(plane: Pixels) -> Pixels:
        return _shifted(plane, amount - 0.65, 0.65 - 0.9 * amount)

    passes: dict[str, Callable[[Pixels], Pixels]] = {
        "denoise": lambda s: each(s, lambda p: bilateral(p, sigma_value=2.0 * amount * sigma, sigma_px=1.0)),
        "soften": lambda s: each(s, lambda p: gaussian(p, 0.3 + 0.25 * amount)),
        "renoise": renoise,
        "shift": lambda s: each(s, shift),
        "sharpen": lambda s: each(s, lambda p: unsharp(p, sigma=1.0, amount=0.5 * amount)),
        "round trip": lambda s: each(s, round_trip),
    }
    return passes[way], way
