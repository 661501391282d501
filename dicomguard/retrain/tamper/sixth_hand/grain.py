"""Noise of a scan: its level and spatial correlation, measured on healthy tissue and given to an edit.

A careful attacker knows that detectors look at noise (Lyu, Pan and Zhang, "Exposing region splicing forgeries with
blind local noise estimation", IJCV 2014): what he drew gets grain of the same level and the same spectrum.
"""

import cv2
import numpy as np

from dicomguard.retrain.tamper.filters import dilate, float32, gaussian, noise_sigma
from dicomguard.retrain.tamper.forged import Mask, Pixels

_GRAIN_WINDOW_PX = 16
_TEXTURE_WINDOW_PX = 32
_FEWEST_PX = 60
# Energies that differ by rounding only are equal.
_EQUAL = 1e-6
# Rounding to the grid adds this variance by itself.
_ROUNDING_VARIANCE = 1 / 12
# Immerkær's kernel; its response to white noise has the noise's own deviation.
_SECOND_DIFFERENCE = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32) / 6
_MEAN_ABSOLUTE = 0.7979


def _kernel(detail: Pixels, where: Mask, size: int, quantiles: tuple[float, float]) -> Pixels:
    """Filter that colours white noise like `detail` in windows whose energy lies between two quantiles."""
    filled = cv2.boxFilter(where.astype(np.float32), -1, (size, size))[size // 2 :: size // 2, size // 2 :: size // 2]
    corners = np.argwhere(filled > 0.85) * (size // 2)
    spots = [detail[r : r + size, c : c + size] for r, c in corners]
    spots = [spot for spot in spots if spot.shape == (size, size)]
    if not spots:
        return np.zeros((1, 1), np.float32)
    taper = np.outer(np.hanning(size), np.hanning(size))
    power = np.abs(np.fft.fft2(np.stack(spots) * taper)) ** 2 / float((taper**2).sum())
    energy = power.mean(axis=(1, 2))
    low, high = np.quantile(energy, quantiles)
    chosen = power[(energy >= low * (1 - _EQUAL)) & (energy <= high * (1 + _EQUAL))].mean(axis=0)
    kernel = np.fft.fftshift(np.fft.ifft2(np.sqrt(chosen)).real)
    # An odd side keeps the filter centred.
    return float32(kernel[1:, 1:])


def grain_kernel(plane: Pixels, where: Mask) -> Pixels:
    """Filter of the fine grain, from the quietest windows of healthy tissue."""
    kernel = _kernel(plane - gaussian(plane, 2.5), where, _GRAIN_WINDOW_PX, (0.0, 0.35))
    return kernel if kernel.any() else np.ones((1, 1), np.float32)


def texture(plane: Pixels, where: Mask, rng: np.random.Generator, *, fine: float = 1.0, coarse: float = 6.0) -> Pixels:
    """H×W random field with the spectrum and level that tissue has between two widths in px."""
    band = gaussian(plane, fine) - gaussian(plane, coarse)
    kernel = _kernel(band, where, _TEXTURE_WINDOW_PX, (0.0, 0.4))
    return float32(cv2.filter2D(rng.standard_normal(plane.shape, dtype=np.float32), cv2.CV_32F, kernel))


def ring(hole: Mask, healthy: Mask, reach: int) -> Mask:
    """Healthy pixels near a hole, or all of them when too few are near."""
    near = dilate(hole, reach) & healthy & ~dilate(hole, 1)
    return near if near.sum() >= _FEWEST_PX else healthy & ~hole


def _response(plane: Pixels) -> Pixels:
    return float32(np.abs(cv2.filter2D(plane, cv2.CV_32F, _SECOND_DIFFERENCE, borderType=cv2.BORDER_REFLECT_101)))


def levelled(plane: Pixels, twin: Pixels, alpha: Pixels, healthy: Mask, rng: np.random.Generator) -> Pixels:
    """One edited slice with grain of the surroundings: added where it lacks, damped where the edit is too noisy."""
    hole = alpha > 0
    target = noise_sigma(twin, ring(hole, healthy, 12))
    inside = alpha > 0.5
    if not inside.any():
        return plane
    found = noise_sigma(plane, inside)
    if found > 1.1 * target:
        base = gaussian(plane, 0.9)
        plane = base + np.float32(max(target / found, 0.3)) * (plane - base)
    weight = hole.astype(np.float32)
    local = gaussian(_response(plane) * weight, 3.0) / np.maximum(gaussian(weight, 3.0), 0.05) / _MEAN_ABSOLUTE
    lacking = np.sqrt(np.maximum(target**2 - local**2 - _ROUNDING_VARIANCE, 0)).astype(np.float32)
    white = rng.standard_normal(plane.shape, dtype=np.float32)
    field = float32(cv2.filter2D(white, cv2.CV_32F, grain_kernel(twin, healthy)))
    return plane + lacking * field / np.float32(max(noise_sigma(field, np.ones_like(hole)), 1e-6))
