"""Grain: what a forger does so that a filled region is not smoother than its surroundings.

A scan's noise has a level that depends on brightness, a colour (correlation over pixels) and never repeats. Each way
here gets some of that right and some wrong. Sources: Gardella 2021 (J. Imaging 7, 119) on noise curves; CT-GAN's two
noise modes (ymirsky/CT-GAN, `attack_pipeline.py`).
"""

import cv2
import numpy as np

from dicomguard.retrain.tamper.filters import box, dilate, float32, gaussian, noise_sigma, residual, resize
from dicomguard.retrain.tamper.forged import Mask, Pixels

WAYS = ("transplanted", "spectral", "signal", "white", "coloured", "rician", "interpolated", "none")
_WEIGHTS = (0.24, 0.2, 0.16, 0.08, 0.12, 0.06, 0.06, 0.08)


def draw_way(rng: np.random.Generator) -> str:
    return str(rng.choice(WAYS, p=_WEIGHTS))


def _texture(base: Pixels, core: Mask, rng: np.random.Generator) -> Pixels:
    """The fine residual, or one that also holds texture of middle size, with edges damped to the level of the noise."""
    noise = residual(base) if rng.random() < 0.5 else base - gaussian(base, float(rng.uniform(1.0, 3.5)))
    local = np.sqrt(np.maximum(box(noise * noise, 7), 0))
    usual = float(np.median(local[~core]))
    return noise * np.minimum(1, 1.3 * usual / np.maximum(local, 1e-3)).astype(np.float32)


def _transplanted(base: Pixels, core: Mask, rng: np.random.Generator) -> Pixels:
    """The residual of tissue outside the footprint, moved in; where the source falls inside, a second piece."""
    noise = _texture(base, core, rng)
    grown = dilate(core, 1)
    flip = bool(rng.random() < 0.5)
    height, width = base.shape
    moved = np.zeros_like(base)
    missing = core.copy()
    for _ in range(4):
        down, right = int(rng.integers(3, max(4, height))), int(rng.integers(3, max(4, width)))
        piece, taken = np.roll(noise, (down, right), (0, 1)), np.roll(grown, (down, right), (0, 1))
        if flip:
            piece, taken = piece[:, ::-1], taken[:, ::-1]
        usable = missing & ~taken
        moved[usable] = piece[usable]
        missing &= taken
    return moved


def _spectral(base: Pixels, core: Mask, rng: np.random.Generator) -> Pixels:
    """White noise shaped by the amplitude spectrum of the residual outside the footprint."""
    noise = _texture(base, core, rng)
    noise[core] = 0
    amplitude = np.abs(np.fft.rfft2(noise))
    shaped = np.fft.irfft2(np.fft.rfft2(rng.standard_normal(base.shape)) * amplitude, s=base.shape)
    return np.asarray(shaped / max(float(shaped.std()), 1e-6), np.float32)


def _signal_gain(content: Pixels, base: Pixels, core: Mask) -> Pixels:
    """σ of the residual as a straight line over brightness, fitted outside the footprint."""
    spread, level = np.abs(residual(base))[~core], gaussian(base, 1.5)[~core]
    centred = level - level.mean()
    slope = float((centred * spread).sum() / max(float((centred**2).sum()), 1e-6))
    curve = 1.4826 * (spread.mean() + slope * (gaussian(content, 1.0) - level.mean()))
    return float32(np.clip(curve, 0, None))


def grain(content: Pixels, base: Pixels, core: Mask, way: str, strength: float, rng: np.random.Generator) -> Pixels:
    """Noise (h×w) to be added to smooth `content` so that it resembles `base` outside `core`."""
    if way == "none" or core.all():
        return np.zeros_like(content)
    if way == "transplanted":
        return np.float32(strength) * _transplanted(base, core, rng)
    near = dilate(core, 8) & ~core
    sigma = np.float32(strength * noise_sigma(base, near if near.any() else ~core))
    white = rng.standard_normal(content.shape, dtype=np.float32)
    if way == "spectral":
        return sigma * _spectral(base, core, rng)
    if way == "signal":
        return np.float32(strength) * _signal_gain(content, base, core) * white
    if way == "coloured":
        soft = gaussian(white, float(rng.uniform(0.45, 0.9)))
        return sigma * soft / max(float(soft.std()), 1e-6)
    if way == "rician":
        other = rng.standard_normal(content.shape, dtype=np.float32)
        positive = np.maximum(content, 0)
        return float32(np.hypot(positive + sigma * white, sigma * other) - positive)
    if way == "interpolated":
        factor = float(rng.uniform(1.3, 2.2))
        small = (max(2, int(content.shape[0] / factor)), max(2, int(content.shape[1] / factor)))
        coarse = rng.standard_normal(small, dtype=np.float32)
        large = resize(coarse, (content.shape[0], content.shape[1]), cv2.INTER_CUBIC)
        return sigma * large / max(float(large.std()), 1e-6)
    return sigma * white


def regrain(
    content: Pixels, base: Pixels, core: Mask, rng: np.random.Generator, *, way: str | None = None
) -> tuple[Pixels, str]:
    """Add grain to a Z×h×w stack of smooth content, one way and strength for all slices."""
    chosen = draw_way(rng) if way is None else way
    strength = float(rng.uniform(0.75, 1.2))
    grained = [
        plane + grain(plane, around, inside, chosen, strength, rng)
        for plane, around, inside in zip(content, base, core, strict=True)
    ]
    return np.stack(grained).astype(np.float32, copy=False), chosen
