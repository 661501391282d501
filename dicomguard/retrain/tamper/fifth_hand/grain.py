"""The noise of a slice: its level and its autocorrelation, measured, made anew, kept through a blend.

An attacker who knows that noise gives him away measures it where the picture is flat and puts back what he lost.
"""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from dicomguard.retrain.tamper.filters import box, erode, float32, gaussian
from dicomguard.retrain.tamper.forged import Mask, Pixels

_BLOCK_PX = 15
_BLOCKS = 14
# What is finer than this Gaussian counts as grain.
_GRAIN_SIGMA_PX = 1.6


@dataclass(frozen=True, slots=True, kw_only=True)
class Grain:
    """Standard deviation in stored values, and the filter of unit energy that colours white noise alike."""

    sigma: float
    kernel: Pixels

    def field(self, shape: tuple[int, int], rng: np.random.Generator) -> Pixels:
        """H×W noise of standard deviation 1 with the autocorrelation of the slice."""
        white = rng.standard_normal(shape, dtype=np.float32)
        return float32(ndimage.convolve(white, self.kernel, mode="wrap"))


def fine(plane: Pixels) -> Pixels:
    """The part of an H×W plane that counts as grain (with the finest structure)."""
    return plane - gaussian(plane, _GRAIN_SIGMA_PX)


def measure(plane: Pixels, where: Mask) -> Grain:
    """Grain of an H×W slice, from the flattest blocks inside `where`."""
    rough = fine(plane)
    whole = np.argwhere(erode(np.pad(where, 1), _BLOCK_PX // 2 + 1)[1:-1, 1:-1])
    if not len(whole):
        level = float(np.median(np.abs(rough[where]))) / 0.6745 if where.any() else 0.0
        return Grain(sigma=level, kernel=np.ones((1, 1), np.float32))
    smooth = gaussian(plane, _GRAIN_SIGMA_PX)
    bumps = box(smooth * smooth, _BLOCK_PX) - box(smooth, _BLOCK_PX) ** 2
    order = np.argsort(bumps[whole[:, 0], whole[:, 1]], kind="stable")
    # Spread over the flattest quarter, so that one odd place does not decide.
    picked = whole[order[np.linspace(0, len(order) // 4, _BLOCKS).astype(int)]]
    half = _BLOCK_PX // 2
    blocks = np.stack([rough[r - half : r + half + 1, c - half : c + half + 1] for r, c in picked])
    power = (np.abs(np.fft.fft2(blocks - blocks.mean(axis=(1, 2), keepdims=True))) ** 2).mean(axis=0)
    kernel = np.fft.fftshift(np.fft.ifft2(np.sqrt(power)).real)
    energy = float(np.sqrt((kernel**2).sum()))
    if energy < 1e-6:
        return Grain(sigma=0.0, kernel=np.ones((1, 1), np.float32))
    return Grain(sigma=float(np.median(np.abs(blocks))) / 0.6745, kernel=float32(kernel / energy))


def missing(plane: Pixels, grain: Grain) -> Pixels:
    """H×W standard deviation of the noise that a smoothed plane lacks."""
    present = box(fine(plane) ** 2, 7)
    return float32(np.sqrt(np.maximum(grain.sigma**2 - present, 0)))


def topped(plane: Pixels, grain: Grain, rng: np.random.Generator, share: float) -> Pixels:
    """H×W with a `share` of the missing noise put back."""
    return plane + np.float32(share) * missing(plane, grain) * grain.field((plane.shape[0], plane.shape[1]), rng)


def merged(base: Pixels, filled: Pixels, alpha: Pixels) -> Pixels:
    """Blend two H×W planes of independent noise so that the noise is not averaged away in the soft edge."""
    rest = 1 - alpha
    fine_base, fine_filled = fine(base), fine(filled)
    coarse = rest * (base - fine_base) + alpha * (filled - fine_filled)
    return float32(coarse + (rest * fine_base + alpha * fine_filled) / np.sqrt(rest**2 + alpha**2))
