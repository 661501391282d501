"""Pixels of a series as the channels that the detector looks at: image, noise-reduced image, forensic residuals.

Works at native pixels (no interpolation; the half scale is an exact 2×2 mean) with the noise curve of the whole
series, so that a region is compared with tissue of the same brightness in the same scan. Knows no network, no file.

Filters: KB 3×3 and KV 5×5 of the steganalysis rich model (Fridrich & Kodovský 2012); noise curve after
Mahdian & Saic 2009 and Gardella et al. 2021; bilateral filter as the noise reduction.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_fill_holes
from scipy.optimize import isotonic_regression

Plane: TypeAlias = NDArray[np.float32]
Mask: TypeAlias = NDArray[np.bool_]
# (top, left, bottom, right) inside a slice, native pixels.
Window: TypeAlias = tuple[int, int, int, int]
# Image, noise-reduced image, its residual, four second differences, two local noise levels against the curve,
# likeness to and difference from the neighbouring slices, and whether neighbours were there.
NAMES = ("I", "N", "R", "K1", "K2", "K3", "K4", "V1", "V2", "Z1", "Z2", "A")
# Rows or columns below which a slice is not analysed: the deepest feature map would hold three pixels.
SMALLEST_SIDE = 96
# A slice whose head covers less than this share shows air, a localiser or a corner.
SMALLEST_HEAD_SHARE = 0.04
# Pixels around a region that the widest filter reaches (11×11 variance of a 3×3 residual, 9×9 correlation of 5×5).
MARGIN = 8
# Noise-reduced windows that are kept: those of a slice and of its two neighbours.
_KEPT = 3
_CURVE_BINS = 16
# Hounsfield units: values below this are CT's, or of a real image or padding; what separates a head from air in CT.
_CT_AIR_HU = -500.0
_CT_SKIN_HU = -300.0
# Air of CT, and the share of a plane that it covers at least: a third around most heads, a sixth around the closest.
_CT_AIR_RANGE_HU = (-1100.0, -900.0)
_LEAST_CT_AIR = 0.1

_H = np.array([[0, 0, 0], [1, -2, 1], [0, 0, 0]], dtype=np.float32)
_KB = np.array([[-1, 2, -1], [2, -4, 2], [-1, 2, -1]], dtype=np.float32) / 4
_KV = (
    np.array(
        [[-1, 2, -2, 2, -1], [2, -6, 8, -6, 2], [-2, 8, -12, 8, -2], [2, -6, 8, -6, 2], [-1, 2, -2, 2, -1]],
        dtype=np.float32,
    )
    / 12
)
_RESIDUAL_KERNELS = (_H, _H.T.copy(), _KB, _KV)
_KB_GAIN = float(np.sqrt(np.square(_KB).sum()))


def halve(pixels: Plane) -> Plane:
    """H×W → ⌊H/2⌋×⌊W/2⌋, the mean of each 2×2 block."""
    height, width = pixels.shape[0] // 2, pixels.shape[1] // 2
    even = pixels[: 2 * height, : 2 * width]
    summed = cv2.resize(np.ascontiguousarray(even), (width, height), interpolation=cv2.INTER_AREA)
    return np.asarray(summed, dtype=np.float32)


def head_mask(pixels: Plane) -> Mask:
    """H×W true inside the head: threshold, opening, largest component, filled; all false when there is none."""
    low_values = float(pixels.min()) < _CT_AIR_HU
    ct = low_values and _shows_air_of_ct(pixels)
    smooth = cv2.blur(_from_air(pixels) if low_values and not ct else pixels, (5, 5))
    if ct:
        threshold = _CT_SKIN_HU
    else:
        low, high = (float(v) for v in np.percentile(smooth.ravel()[::7], (0, 99)))
        if high <= low:
            return np.zeros(pixels.shape, dtype=bool)
        grey = np.clip((smooth - low) * (255.0 / (high - low)), 0, 255).astype(np.uint8)
        otsu, _ = cv2.threshold(grey, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
        # Half of Otsu's value: dark brain and fluid belong to the head, background noise hardly reaches a quarter.
        threshold = low + 0.5 * otsu * (high - low) / 255.0
    above = (smooth > threshold).astype(np.uint8)
    opened = cv2.morphologyEx(above, cv2.MORPH_OPEN, np.ones((5, 5), np.uint8))
    count, labels, stats, _ = cv2.connectedComponentsWithStats(opened, connectivity=8)
    if count < 2:
        return np.zeros(pixels.shape, dtype=bool)
    largest = 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))
    closed = cv2.morphologyEx((labels == largest).astype(np.uint8), cv2.MORPH_CLOSE, np.ones((9, 9), np.uint8))
    return np.asarray(binary_fill_holes(closed), dtype=bool)


def _shows_air_of_ct(pixels: Plane) -> bool:
    lowest, highest = _CT_AIR_RANGE_HU
    return float(((pixels >= lowest) & (pixels <= highest)).mean()) >= _LEAST_CT_AIR


def _from_air(pixels: Plane) -> Plane:
    """H×W distance of each value from that of air, for planes far below zero that are no CT.

    Real images of inversion recovery have tissue on both sides of the air. Padding that no header declares is the
    lowest value; it shows nothing, as air does.
    """
    padding = pixels == pixels.min()
    edge = np.ones_like(padding)
    edge[1:-1, 1:-1] = False
    rim = pixels[edge & ~padding]
    # Padded all around, the plane has air as the lowest value inside.
    air = np.median(rim) if len(rim) else pixels.min(where=~padding, initial=pixels.max())
    return np.where(padding, np.float32(0), np.abs(pixels - np.float32(air)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """What one series has in common: window, noise curve, gains of the residual filters."""

    # Values that become 0 and 1 in the image channel.
    low: float
    high: float
    # Local means (ascending) and the noise level at each, in units of the KB residual of white noise.
    levels: NDArray[np.float64]
    sigmas: NDArray[np.float64]
    # Robust spread of R, K1–K4 divided by the curve; makes them comparable among noise spectra.
    gains: tuple[float, float, float, float, float]

    @property
    def colour(self) -> float:
        """KV against KB residual: about 0.7 for noise that reconstruction has low-passed, above 1 for white noise."""
        return self.gains[4] / self.gains[3]

    def sigma_at(self, local_mean: Plane) -> Plane:
        """Noise level at each pixel's local mean."""
        # A table is several times faster than np.interp over every pixel.
        table = np.interp(np.linspace(self.levels[0], self.levels[-1], 256), self.levels, self.sigmas)
        span = max(float(self.levels[-1] - self.levels[0]), 1e-6)
        index = np.clip((local_mean - np.float32(self.levels[0])) * np.float32(255.0 / span), 0, 255).astype(np.uint8)
        return np.asarray(table.astype(np.float32)[index], dtype=np.float32)


def _grey_step(pixels: Plane) -> float:
    values = np.unique(pixels[::4, ::4])
    steps = np.diff(values)
    return float(steps.min()) if len(steps) else 1.0


def _denoise(pixels: Plane, sigma: float) -> Plane:
    return np.asarray(cv2.bilateralFilter(pixels, 5, 3.0 * sigma, 1.5), dtype=np.float32)


def measure(slices: Sequence[Plane], heads: Sequence[Mask]) -> Scale:
    """Window and noise curve over all slices of a series that show a head (at most 24, evenly spread)."""
    usable = [i for i in range(len(slices)) if heads[i].mean() >= SMALLEST_HEAD_SHARE] or list(range(len(slices)))
    chosen = [usable[i] for i in np.unique(np.linspace(0, len(usable) - 1, min(24, len(usable))).astype(int))]
    values, means, residuals = [], [], []
    for i in chosen:
        inside = heads[i] if heads[i].any() else np.ones_like(heads[i])
        stride = max(1, int(np.sqrt(inside.sum() / 6000)))
        grid = np.zeros_like(inside)
        grid[::stride, ::stride] = True
        inside = inside & grid
        values.append(slices[i][inside])
        means.append(cv2.blur(slices[i], (5, 5))[inside])
        residuals.append(np.abs(cv2.filter2D(slices[i], -1, _KB))[inside])
    pooled = np.concatenate(values)
    low, high = (float(v) for v in np.percentile(pooled, (0.5, 99.5)))
    if high <= low:
        high = low + 1.0
    levels, sigmas = _curve(np.concatenate(means), np.concatenate(residuals))
    floor = max(0.5 * min(_grey_step(slices[i]) for i in chosen[:3]), 1e-4 * (high - low))
    curve = Scale(low=low, high=high, levels=levels, sigmas=np.maximum(sigmas, floor), gains=(1.0,) * 5)
    gains = _gains([slices[i] for i in chosen[:6]], [heads[i] for i in chosen[:6]], curve)
    return Scale(low=low, high=high, levels=curve.levels, sigmas=curve.sigmas, gains=gains)


def _curve(
    means: NDArray[np.float32], residuals: NDArray[np.float32]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Median residual in equal-count bins of the local mean, made monotone."""
    order = np.argsort(means)
    bins = np.array_split(order, _CURVE_BINS)
    filled = [b for b in bins if len(b)]
    levels = np.array([means[b].mean() for b in filled], dtype=np.float64)
    sigmas = np.array([np.median(residuals[b]) for b in filled], dtype=np.float64) * (1.4826 / _KB_GAIN)
    return levels, np.asarray(isotonic_regression(sigmas).x, dtype=np.float64)


def _gains(slices: Sequence[Plane], heads: Sequence[Mask], scale: Scale) -> tuple[float, float, float, float, float]:
    rows = []
    for pixels, head in zip(slices, heads, strict=True):
        inside = head if head.any() else np.ones_like(head)
        sigma = scale.sigma_at(cv2.blur(pixels, (5, 5)))
        planes = [pixels - _denoise(pixels, float(np.median(scale.sigmas)))]
        planes += [cv2.filter2D(pixels, -1, kernel) for kernel in _RESIDUAL_KERNELS]
        rows.append([1.4826 * float(np.median(np.abs((plane / sigma)[inside][::3]))) for plane in planes])
    a, b, c, d, e = (max(float(v), 0.05) for v in np.median(np.asarray(rows), axis=0))
    return (a, b, c, d, e)


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A series at one scale, ready to give channels of any slice or region."""

    # H×W each; all of one shape.
    slices: Sequence[Plane]
    heads: Sequence[Mask]
    # contiguous[i]: slice i+1 is the spatial neighbour of slice i; one shorter than slices.
    contiguous: Sequence[bool]
    scale: Scale

    @cached_property
    def _denoised(self) -> Callable[[int, Window], tuple[Plane, Plane]]:
        """Window of a slice, as it is and noise-reduced; a walk along the series wants each three times in a row."""
        # Without `self` in it: a circle would keep the whole series until the collector comes by.
        slices, sigma = self.slices, float(np.median(self.scale.sigmas))

        @lru_cache(maxsize=_KEPT)
        def denoised(index: int, window: Window) -> tuple[Plane, Plane]:
            pixels = np.ascontiguousarray(slices[index][window[0] : window[2], window[1] : window[3]])
            return pixels, _denoise(pixels, sigma)

        return denoised

    def stack(self, index: int, region: Window | None = None) -> Plane:
        """C×h×w float32 channels of a slice, or of a region of it."""
        height, width = self.slices[index].shape
        top, left, bottom, right = region or (0, 0, height, width)
        outer = (max(top - MARGIN, 0), max(left - MARGIN, 0), min(bottom + MARGIN, height), min(right + MARGIN, width))
        x, denoised = self._denoised(index, outer)
        sigma = self.scale.sigma_at(cv2.blur(x, (5, 5)))
        inverse = np.float32(1.0) / sigma
        span = np.float32(self.scale.high - self.scale.low)
        residual = (x - denoised) * inverse
        planes = [np.clip((x - np.float32(self.scale.low)) / span, 0.0, 1.5)]
        planes.append(np.clip((denoised - np.float32(self.scale.low)) / span, 0.0, 1.5))
        planes.append(_squash(residual, self.scale.gains[0]))
        filtered = [cv2.filter2D(x, -1, kernel) * inverse for kernel in _RESIDUAL_KERNELS]
        planes += [_squash(filtered[i], self.scale.gains[i + 1]) for i in range(4)]
        energy = np.square(filtered[2] / np.float32(self.scale.gains[3]))
        planes += [_level(energy, 5), _level(energy, 11)]
        planes += self._through_plane(index, outer, x, residual, inverse)
        head = self.heads[index][outer[0] : outer[2], outer[1] : outer[3]].astype(np.uint8)
        inside = cv2.dilate(head, np.ones((5, 5), np.uint8)).astype(np.float32)
        stacked = np.stack(planes).astype(np.float32) * inside
        y, x0 = top - outer[0], left - outer[1]
        return np.ascontiguousarray(stacked[:, y : y + bottom - top, x0 : x0 + right - left])

    def _through_plane(self, index: int, outer: Window, x: Plane, residual: Plane, inverse: Plane) -> list[Plane]:
        """Z1 likeness of the residual to a neighbour's, Z2 difference from the neighbours' mean, A available."""
        neighbours = []
        if index > 0 and self.contiguous[index - 1]:
            neighbours.append(self._denoised(index - 1, outer))
        if index + 1 < len(self.slices) and self.contiguous[index]:
            neighbours.append(self._denoised(index + 1, outer))
        if not neighbours:
            return [np.zeros_like(x), np.zeros_like(x), np.zeros_like(x)]
        likeness = np.full_like(x, -1.0)
        own = cv2.blur(residual * residual, (9, 9))
        for other, smooth in neighbours:
            theirs = (other - smooth) * inverse
            shared = cv2.blur(residual * theirs, (9, 9))
            energy = np.sqrt(np.maximum(own * cv2.blur(theirs * theirs, (9, 9)), 0)) + np.float32(1e-3)
            likeness = np.maximum(likeness, shared / energy)
        others = [other for other, _ in neighbours]
        mean = others[0] if len(others) == 1 else (others[0] + others[1]) * np.float32(0.5)
        return [likeness, np.tanh((x - mean) * inverse * np.float32(1 / 24)), np.ones_like(x)]


def _squash(plane: Plane, gain: float) -> Plane:
    return np.asarray(np.tanh(plane * np.float32(1.0 / (4.0 * gain))), dtype=np.float32)


def _level(energy: Plane, window: int) -> Plane:
    """Logarithm of the local variance over what the noise curve lets expect, about -2…2."""
    local = cv2.blur(energy, (window, window))
    return np.asarray(np.clip(np.log(local + np.float32(1e-3)), -4.0, 4.0) * np.float32(0.5), dtype=np.float32)


def prepare(slices: Sequence[Plane], contiguous: Sequence[bool], *, heads: Sequence[Mask] | None = None) -> Prepared:
    """Measure a series; `heads` when the caller has them already."""
    found = list(heads) if heads is not None else [head_mask(pixels) for pixels in slices]
    return Prepared(slices=slices, heads=found, contiguous=contiguous, scale=measure(slices, found))


def halved(prepared: Prepared) -> Prepared:
    """The same series at half the scale, measured anew: noise spectrum and curve change with binning."""
    slices = [halve(pixels) for pixels in prepared.slices]
    heads = []
    for head, small in zip(prepared.heads, slices, strict=True):
        heads.append(head[: 2 * small.shape[0] : 2, : 2 * small.shape[1] : 2])
    return Prepared(slices=slices, heads=heads, contiguous=prepared.contiguous, scale=measure(slices, heads))


def smoothing(prepared: Prepared, small: Prepared) -> float:
    """Noise of the half scale over noise of the native scale, of a series and `halved` of it.

    Most authentic scans give 1.3 to 3.4; where the outer half of k-space is empty binning loses hardly any noise, and
    the ratio is 4 to 5.
    """
    return float(np.median(small.scale.sigmas) / np.median(prepared.scale.sigmas))
