"""Noise as this hand measures and makes it: level from twisted differences, colour from the spectrum of near tissue."""

import cv2
import numpy as np

from dicomguard.retrain.tamper.filters import float32
from dicomguard.retrain.tamper.forged import Mask, Pixels
from dicomguard.retrain.tamper.third_hand.smooth import blurred

_PATCH = 16
_PATCHES = 6


def level(plane: Pixels, where: Mask) -> float:
    """Noise sigma in stored values: median of |x00 - x01 - x10 + x11| / 2, of white noise; 0 where nothing is seen."""
    if min(plane.shape) < 3:
        return 0.0
    twist = np.abs(plane[1:, 1:] - plane[1:, :-1] - plane[:-1, 1:] + plane[:-1, :-1]) / 2
    seen = where[1:, 1:] & where[:-1, :-1]
    return float(np.median(twist[seen])) / 0.6745 if int(seen.sum()) >= 12 else 0.0


def fine(plane: Pixels, sigma: float = 1.2) -> Pixels:
    """What a blur takes away."""
    return plane - blurred(plane, sigma)


def spectrum(detail: Pixels, where: Mask, rng: np.random.Generator) -> Pixels | None:
    """Mean power 16×16 of windowed patches of `detail` that lie in `where`; None without such patches."""
    if min(detail.shape) < _PATCH:
        return None
    share = cv2.boxFilter(where.astype(np.float32), -1, (_PATCH, _PATCH), anchor=(0, 0), borderType=cv2.BORDER_CONSTANT)
    rows, cols = np.nonzero(share[: 1 - _PATCH, : 1 - _PATCH] > 0.85)
    if rows.size == 0:
        return None
    taper = np.hanning(_PATCH + 2)[1:-1]
    taper = np.outer(taper, taper)
    # Of twice as many the calmer half: an edge is no noise.
    picks = rng.integers(rows.size, size=2 * _PATCHES)
    patches = np.stack([detail[rows[p] : rows[p] + _PATCH, cols[p] : cols[p] + _PATCH] for p in picks])
    calm = np.argsort(patches.std(axis=(1, 2)))[:_PATCHES]
    patches = patches[calm] - patches[calm].mean(axis=(1, 2), keepdims=True)
    power = (np.abs(np.fft.fft2(patches * taper)) ** 2).mean(axis=0) / float((taper**2).sum())
    return float32(power)


def random_phase(power: Pixels, shape: tuple[int, int], rng: np.random.Generator) -> Pixels:
    """A field with the power spectrum of a patch and phases of its own (Galerne et al. 2011)."""
    amplitude = np.fft.fftshift(np.sqrt(np.maximum(power, 0))).astype(np.float32)
    whole = np.fft.ifftshift(cv2.resize(amplitude, (shape[1], shape[0]), interpolation=cv2.INTER_LINEAR))
    return float32(np.fft.ifft2(np.fft.fft2(rng.standard_normal(shape)) * whole).real)


def kernel_noise(shape: tuple[int, int], sigma: float, width: float, rng: np.random.Generator) -> Pixels:
    """Gaussian noise of standard deviation `sigma`, correlated over `width` px; white when that is 0."""
    field = rng.standard_normal(shape, dtype=np.float32)
    if width > 0.2:
        field = blurred(field, width)
        field /= max(float(field.std()), 1e-6)
    return field * np.float32(sigma)


def rician(signal: Pixels, sigma: float, width: float, rng: np.random.Generator) -> Pixels:
    """Magnitude of the signal with complex noise, its bias taken off (Gudbjartsson 1995): it fades where dark."""
    real, imaginary = (kernel_noise(signal.shape, sigma, width, rng) for _ in range(2))
    bright = np.sqrt(np.maximum(signal, 0) ** 2 - np.minimum(np.float32(sigma) ** 2, np.maximum(signal, 0) ** 2))
    return float32(np.hypot(bright + real, imaginary))


def like(plane: Pixels, tissue: Mask, shape: tuple[int, int], how: str, rng: np.random.Generator) -> Pixels:
    """A noise field as in the tissue of a crop; `how` is spectrum, white, or stitched (small tiles of the detail)."""
    sigma = max(level(plane, tissue), 0.05)
    if how == "white":
        return kernel_noise(shape, sigma, 0.0, rng)
    detail = fine(plane, 1.6)
    if how == "stitched" and min(plane.shape) > _PATCH:
        return _stitched(detail, tissue, shape, rng)
    power = spectrum(detail, tissue, rng)
    if power is None:
        return kernel_noise(shape, sigma, 0.5, rng)
    return random_phase(power, shape, rng)


def _stitched(detail: Pixels, tissue: Mask, shape: tuple[int, int], rng: np.random.Generator) -> Pixels:
    """Tiles of eight pixels cut from anywhere in the tissue, turned at random, crossfaded so that variance stays."""
    size, half = 12, 6
    share = cv2.boxFilter(tissue.astype(np.float32), -1, (size, size), anchor=(0, 0), borderType=cv2.BORDER_CONSTANT)
    rows, cols = np.nonzero(share[: 1 - size, : 1 - size] > 0.7)
    if rows.size == 0:
        return kernel_noise(shape, float(detail.std()), 0.4, rng)
    ramp = np.sin(0.5 * np.pi * (np.arange(size) + 0.5) / half).clip(0, 1)
    ramp = np.where(np.arange(size) < half, ramp, ramp[::-1])
    weight = np.outer(ramp, ramp).astype(np.float32)
    field = np.zeros((shape[0] + size, shape[1] + size), np.float32)
    tops, lefts = range(0, shape[0], half), range(0, shape[1], half)
    picks = iter(rng.integers(rows.size, size=len(tops) * len(lefts)))
    turns = iter(rng.integers(4, size=len(tops) * len(lefts)))
    for top in tops:
        for left in lefts:
            pick = next(picks)
            tile = detail[rows[pick] : rows[pick] + size, cols[pick] : cols[pick] + size]
            field[top : top + size, left : left + size] += weight * np.rot90(tile, next(turns))
    return field[half // 2 : half // 2 + shape[0], half // 2 : half // 2 + shape[1]]
