"""Grain: how strong it is, what spectrum it has, and more of the same."""

import numpy as np
from scipy import fft

from dicomguard.retrain.tamper.filters import gaussian
from dicomguard.retrain.tamper.forged import Mask, Pixels


def rest(plane: Pixels, sigma: float = 1.3) -> Pixels:
    """What a Gaussian takes away: grain, with some fine structure."""
    return plane - gaussian(plane, sigma)


def level(plane: Pixels, where: Mask) -> float:
    """Robust spread of the rest; edges are few, so that the median does not see them."""
    if not where.any():
        return 0.0
    return float(np.median(np.abs(rest(plane)[where]))) / 0.6745


def _quiet_square(healthy: Mask, strength: Pixels, side: int, rng: np.random.Generator) -> tuple[int, int] | None:
    """Corner of a square that lies in healthy tissue, of the calmer ones."""
    places = np.argwhere(healthy[side // 2 : -(side // 2) or None, side // 2 : -(side // 2) or None])
    if len(places) == 0:
        return None
    picks = places[rng.integers(len(places), size=60)]
    sums = [
        (healthy[r : r + side, c : c + side].mean(), float(strength[r : r + side, c : c + side].mean()), int(r), int(c))
        for r, c in picks
    ]
    good = sorted((calm, r, c) for inside, calm, r, c in sums if inside > 0.95)
    if not good:
        return None
    _, row, col = good[int(rng.integers(1 + len(good) // 3))]
    return row, col


def grain(plane: Pixels, healthy: Mask, rng: np.random.Generator, *, sigma: float = 1.3) -> Pixels:
    """A field of the plane's size with the spectrum and strength of the grain in healthy tissue.

    Amplitudes of calm squares' Fourier transforms, phases of chance; where no square fits, blurred white noise.
    """
    detail = rest(plane, sigma)
    wanted = float(np.median(np.abs(detail[healthy]))) / 0.6745 if healthy.any() else 0.0
    noise = rng.standard_normal(plane.shape).astype(np.float32)
    made = rest(gaussian(noise, 0.6), sigma)
    for side in (32, 20, 14):
        if min(plane.shape) <= side:
            continue
        corners = [_quiet_square(healthy, np.abs(detail), side, rng) for _ in range(3)]
        power = np.zeros((side, side), np.float32)
        bell = np.outer(np.hanning(side), np.hanning(side))
        for row, col in (corner for corner in corners if corner is not None):
            power += np.abs(fft.fft2(detail[row : row + side, col : col + side] * bell)).astype(np.float32) ** 2
        if not power.any():
            continue
        # A few realisations are spiky; their neighbours in the spectrum speak for the mean.
        amplitude = np.sqrt(gaussian(fft.fftshift(power), 0.07 * side))
        height, width = plane.shape
        rows = np.minimum((np.arange(height) * side / height + 0.5).astype(int), side - 1)
        cols = np.minimum((np.arange(width) * side / width + 0.5).astype(int), side - 1)
        shaped = fft.ifftshift(amplitude[np.ix_(rows, cols)])
        made = fft.ifft2(fft.fft2(noise) * shaped).real.astype(np.float32)
        break
    return made * np.float32(wanted / max(float(np.median(np.abs(made))) / 0.6745, 1e-6))


def topped_up(plane: Pixels, filled: Pixels, healthy: Mask, hole: Mask, rng: np.random.Generator) -> Pixels:
    """The filled plane with as much grain in the hole as healthy tissue has; never less than it had."""
    if not hole.any():
        return filled
    have, wanted = level(filled, hole), level(plane, healthy)
    lacking = np.sqrt(max(0.0, wanted**2 - have**2))
    if lacking < 0.05 * max(wanted, 1e-6):
        return filled
    return filled + np.float32(lacking / max(wanted, 1e-6)) * grain(plane, healthy, rng)


def fitted(plane: Pixels, made: Pixels, healthy: Mask, hole: Mask, rng: np.random.Generator) -> Pixels:
    """Foreign pixels with the grain of the plane: damped where theirs is stronger, topped up where it is weaker."""
    own, wanted = level(made, hole), level(plane, healthy)
    if own > 1.15 * wanted > 0:
        return made - np.float32(1 - wanted / own) * rest(made)
    return topped_up(plane, made, healthy, hole, rng)
