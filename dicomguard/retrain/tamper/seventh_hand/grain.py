"""Base and grain of a slice: how to part them, make more of the same grain, and mix two grains.

Planes are h×w float32 stored values.
"""

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
from scipy import fft, ndimage, special
from skimage.restoration import denoise_nl_means, denoise_tv_chambolle

from dicomguard.retrain.tamper.filters import box, float32, gaussian
from dicomguard.retrain.tamper.forged import Mask, Pixels

_PATCH = 25
# Deviation of white noise of unit deviation in each scale of the starlet transform.
_STARLET_NOISE = (0.889, 0.2, 0.086)


def _deviation(values: Pixels, share: float) -> float:
    """Of Gaussian values, from the quantile of their size."""
    return float(np.quantile(np.abs(values), share)) / float(special.ndtri((1 + share) / 2)) if values.size else 0.0


def level(residual: Pixels, where: Mask) -> float:
    """Standard deviation of the grain in stored values, from the median absolute value."""
    return _deviation(residual[where], 0.5)


def fine_level(plane: Pixels, where: Mask) -> float:
    """Noise level of an undivided plane: lower half of its diagonal Haar details (after Donoho 1995)."""
    if min(plane.shape) < 2:
        return 0.0
    details = np.zeros_like(plane)
    details[1:, 1:] = (plane[1:, 1:] - plane[:-1, 1:] - plane[1:, :-1] + plane[:-1, :-1]) / 2
    return _deviation(details[where], 0.4)


def guided(plane: Pixels, guide: Pixels, radius: int, epsilon: float) -> Pixels:
    """Guided filter (He 2010): local linear model of the guide; `epsilon` is a variance in stored values squared."""
    size = 2 * radius + 1
    mean, mean_guide = box(plane, size), box(guide, size)
    slope = (box(plane * guide, size) - mean * mean_guide) / (box(guide * guide, size) - mean_guide**2 + epsilon)
    return float32(box(slope, size) * guide + box(mean - slope * mean_guide, size))


def _guided_base(plane: Pixels, sigma: float) -> Pixels:
    return guided(plane, plane, 2, (3 * sigma) ** 2)


def _tv(plane: Pixels, sigma: float) -> Pixels:
    return float32(denoise_tv_chambolle(plane, weight=1.3 * sigma, max_num_iter=40))


def _starlet(plane: Pixels, sigma: float) -> Pixels:
    """Undecimated B3-spline wavelets, firmly thresholded (Starck 2007)."""
    smooth, base = plane, np.zeros_like(plane)
    for scale, share in enumerate(_STARLET_NOISE):
        taps = np.zeros(4 * 2**scale + 1, np.float32)
        taps[:: 2**scale] = np.array((1, 4, 6, 4, 1), np.float32) / 16
        coarser = ndimage.convolve1d(ndimage.convolve1d(smooth, taps, axis=0), taps, axis=1)
        detail = smooth - coarser
        base += detail * np.clip(np.abs(detail) / (2 * share * sigma) - 1, 0, 1)
        smooth = coarser
    return float32(base + smooth)


def _nlm(plane: Pixels, sigma: float) -> Pixels:
    return float32(denoise_nl_means(plane, patch_size=3, patch_distance=4, h=0.9 * sigma, sigma=sigma))


DENOISERS: Mapping[str, Callable[[Pixels, float], Pixels]] = MappingProxyType(
    {"guided": _guided_base, "tv": _tv, "starlet": _starlet, "nlm": _nlm}
)


def part(plane: Pixels, where: Mask, how: str = "guided") -> tuple[Pixels, Pixels]:
    """Base and residual; `where` is the healthy tissue that tells the noise level."""
    if min(plane.shape) < 16:
        base = gaussian(plane, 1.0)
    else:
        base = DENOISERS[how](plane, max(fine_level(plane, where), 0.3))
    return base, plane - base


def more(residual: Pixels, where: Mask, rng: np.random.Generator, *, isotropic: bool = False) -> Pixels:
    """h×w of new grain with spectrum and level of the residual in `where`: random phases (Galerne 2011).

    Both are means over the calmest third of drawn patches, for edges leave more than noise in a residual. What is
    coarser than noise is wanted `isotropic`: few patches have few folds, whose direction would show as streaks.
    """
    wanted = level(residual, where)
    white = rng.standard_normal(residual.shape, dtype=np.float32)
    half = _PATCH // 2
    share = box(where.astype(np.float32), _PATCH)
    share[:half], share[-half:], share[:, :half], share[:, -half:] = 0, 0, 0, 0
    places = np.argwhere(share > 0.75)
    if not len(places) or wanted <= 0:
        return white * np.float32(wanted)
    patches = []
    for row, col in places[rng.integers(len(places), size=18)]:
        window = np.s_[row - half : row + half + 1, col - half : col + half + 1]
        patch = np.where(where[window], np.clip(residual[window], -3.5 * wanted, 3.5 * wanted), 0)
        patches.append((patch - patch.mean()) / math.sqrt(share[row, col]))
    calm = np.stack(sorted(patches, key=lambda patch: float(patch.std()))[: len(patches) // 3])
    # The window keeps the patches' rims, which do not meet, out of the spectrum.
    spectra = np.abs(fft.rfft2(calm * np.outer(*2 * [np.hanning(_PATCH + 2)[1:-1]]), s=residual.shape)) ** 2
    spectrum = spectra.mean(axis=0)
    if isotropic:
        rows, cols = (np.fft.fftfreq(n) for n in residual.shape)
        ring = np.rint(64 * np.hypot(rows[:, None], cols[None, : spectrum.shape[1]])).astype(int)
        spectrum = (np.bincount(ring.ravel(), spectrum.ravel()) / np.maximum(np.bincount(ring.ravel()), 1))[ring]
    texture = fft.irfft2(fft.rfft2(white) * np.sqrt(spectrum), s=residual.shape)
    return float32(texture * (float(calm.std()) / max(float(texture.std()), 1e-6)))


def matched(noise: Pixels, base: Pixels, hole: Mask, plane: Pixels, where: Mask) -> Pixels:
    """The noise, scaled so that with `base` it has in the hole the fine level of the undivided plane in `where`.

    A denoiser leaves some noise in every base, so residuals alone are too faint. Coarse noise has no fine level to
    speak of: it is never made stronger than all that the plane has at the scale of noise.
    """
    wanted, there = fine_level(plane, where), fine_level(base, hole)
    left = math.sqrt(max(wanted**2 - there**2, (0.3 * wanted) ** 2))
    most = level(plane - gaussian(plane, 2.0), where) / max(level(noise, hole), 1e-6)
    return noise * np.float32(min(left / max(fine_level(noise, hole), 1e-6), most))


def mixed(old: tuple[Pixels, Pixels], new: tuple[Pixels, Pixels], alpha: Pixels, *, power: bool) -> Pixels:
    """(base, residual) of before and after laid over each other.

    With `power` the residuals keep their variance across the seam, where a plain mean of two grains is too smooth.
    """
    norm = np.sqrt(alpha**2 + (1 - alpha) ** 2) if power else np.float32(1)
    base = old[0] + alpha * (new[0] - old[0])
    return float32(base + (old[1] + alpha * (new[1] - old[1])) / norm)
