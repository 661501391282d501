"""Other scanners: the same head in another contrast, under other coils, at another matrix, with other noise.

Laid on the authentic slices of a training patient *before* anything is forged, so that forger and detector both work on
a scan of an unknown hospital. Four archives are few scanners; the noise of the next one has another level and colour,
its coils another shading, its sequences another contrast.
Sources: Fermi windows of reconstruction (Bernstein, King and Zhou, Handbook of MRI Pulse Sequences, 13.1); Rician noise
(Gudbjartsson and Patz 1995); sum of squares of an array of coils (Roemer et al. 1990), each as a loop falls off on its
axis; contrast by Bézier curves (Zhou et al., Models Genesis, 2021).
"""

from dataclasses import dataclass, replace

import cv2
import numpy as np

from dicomguard.retrain.tamper.filters import each, float32, noise_sigma, resize
from dicomguard.retrain.tamper.forged import Canvas, Mask, Pixels

_SHARE = 0.5
# A donor's slice comes from the same scanner in this share of the draws.
_SAME_SCANNER_SHARE = 0.7
_SMALLEST_SIDE, _LARGEST_SIDE = 112, 576
_METHODS = (cv2.INTER_AREA, cv2.INTER_LINEAR, cv2.INTER_CUBIC, cv2.INTER_LANCZOS4)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scanner:
    """One draw; each value at its neutral place leaves the slices alone."""

    # Grey levels between none and the brightest pass through a cubic Bézier curve with these heights at its two inner
    # points; heights of 1/3 and 2/3 change nothing.
    contrast: tuple[float, float] = (1 / 3, 2 / 3)
    # How much of the shading of a ring of coils is left, 0 (normalised away) to 1, and how many coils.
    shading: float = 0.0
    coils: int = 8
    # Rows and columns are multiplied by this.
    scale: float = 1.0
    method: int = cv2.INTER_LINEAR
    # Cut-off of the Fermi window as shares of Nyquist (rows, columns), and its width; 0 for no window.
    cut: tuple[float, float] = (0.0, 0.0)
    width: float = 0.05
    # Standard deviation of added noise in units of the scan's own.
    noise: float = 0.0
    # Grey levels are divided by this.
    coarser: float = 1.0
    seed: int = 0

    def apply(self, canvas: Canvas) -> Canvas:
        """The canvas as this scanner would have shown it, on the stored grid."""
        pixels, lesion, head = canvas.pixels, canvas.lesion, canvas.head
        if self.contrast != (1 / 3, 2 / 3):
            pixels = _curved(pixels, self.contrast)
        if self.shading > 0:
            pixels = pixels * self._shade(pixels.shape[1:], head)
            # A scanner scales its images so that nothing is cut off.
            pixels = pixels * np.float32(min(1.0, canvas.high / max(1.0, float(pixels.max()))))
        height, width = pixels.shape[1:]
        scale = float(np.clip(self.scale, _SMALLEST_SIDE / min(height, width), _LARGEST_SIDE / max(height, width)))
        if self.scale != 1.0 and abs(scale - 1.0) > 0.02:
            # Even sides: the half scale keeps its grid.
            shape = (round(height * scale / 2) * 2, round(width * scale / 2) * 2)
            pixels = each(pixels, lambda plane: resize(plane, shape, self.method))
            lesion, head = _resized(lesion, shape), _resized(head, shape)
        if self.cut[0] > 0:
            pixels = each(pixels, lambda plane: _windowed(plane, self.cut, self.width))
        if self.noise > 0:
            pixels = self._noisier(pixels, head)
        if self.coarser > 1:
            pixels = pixels / np.float32(self.coarser)
        pixels = np.clip(np.rint(pixels), canvas.low, canvas.high).astype(np.float32)
        return replace(canvas, pixels=pixels, lesion=lesion, head=head)

    def _shade(self, shape: tuple[int, ...], head: Mask) -> Pixels:
        """Sensitivity of a ring of coils around the head, 1 in its mean, to the power of what is left of it."""
        rng = np.random.default_rng((self.seed, 1))
        rows, columns = (np.flatnonzero(head.any(axis=axes)) for axes in ((0, 2), (0, 1)))
        y, x = np.ogrid[: shape[0], : shape[1]]
        centre = [((v[0] + v[-1]) / 2, max(1.0, (v[-1] - v[0]) / 2)) for v in (rows, columns)]
        # In half diameters of the head; coils stand 1.1 to 1.6 of them from its centre, as far as the holder allows.
        down, across = (y - centre[0][0]) / centre[0][1], (x - centre[1][0]) / centre[1][1]
        squares = np.zeros(shape)
        start = rng.uniform(0, 2 * np.pi)
        for angle in start + 2 * np.pi * np.arange(self.coils) / self.coils:
            away, reach = rng.uniform(1.1, 1.6), rng.uniform(0.5, 0.9)
            distance = np.hypot(down - away * np.sin(angle), across - away * np.cos(angle)) / reach
            squares += rng.uniform(0.5, 1.5) * (1 + distance**2) ** -3
        field = np.sqrt(squares)
        return float32((field / field[head.any(axis=0)].mean()) ** self.shading)

    def _noisier(self, pixels: Pixels, head: Mask) -> Pixels:
        middle = pixels.shape[0] // 2
        sigma = np.float32(self.noise * max(0.5, noise_sigma(pixels[middle], head[middle])))
        noise = np.random.default_rng(self.seed).standard_normal((2, *pixels.shape), dtype=np.float32)
        noisy = np.hypot(pixels + sigma * noise[0], sigma * noise[1])
        # Background that was set to zero stays so.
        return np.where(pixels > 0, noisy, pixels).astype(np.float32)


def _curved(pixels: Pixels, heights: tuple[float, float]) -> Pixels:
    top = max(1.0, float(pixels.max()))
    t = np.linspace(0.0, 1.0, 257)
    curve = 3 * (1 - t) ** 2 * t * heights[0] + 3 * (1 - t) * t**2 * heights[1] + t**3
    return float32(np.interp(pixels, t * top, curve * top))


def _resized(stack: Mask, shape: tuple[int, int]) -> Mask:
    return np.stack([resize(plane.astype(np.float32), shape) >= 0.5 for plane in stack])


def _windowed(plane: Pixels, cut: tuple[float, float], width: float) -> Pixels:
    rows = np.abs(np.fft.fftfreq(plane.shape[0]))[:, None] * 2 / cut[0]
    columns = np.abs(np.fft.rfftfreq(plane.shape[1]))[None, :] * 2 / cut[1]
    radius = np.hypot(rows, columns)
    window = 1 / (1 + np.exp(np.clip((radius - 1) / width, -30, 30)))
    return float32(np.maximum(np.fft.irfft2(np.fft.rfft2(plane) * window, s=plane.shape), 0))


def draw(rng: np.random.Generator) -> Scanner | None:
    """None (the scan as it is) in half of the draws, else some changes, at times none."""
    if rng.random() >= _SHARE:
        return None
    drawn = Scanner(seed=int(rng.integers(2**32)))
    if rng.random() < 0.5:
        scale = float(np.exp(rng.uniform(np.log(0.7), np.log(1.4))))
        drawn = replace(drawn, scale=scale, method=int(rng.choice(_METHODS)))
    if rng.random() < 0.45:
        cut = (float(rng.uniform(0.55, 1.2)), float(rng.uniform(0.55, 1.2)))
        drawn = replace(drawn, cut=cut, width=float(rng.uniform(0.02, 0.12)))
    if rng.random() < 0.4:
        drawn = replace(drawn, noise=float(rng.uniform(0.3, 1.5)))
    if rng.random() < 0.35:
        low, high = sorted(rng.uniform(0.05, 1.0, 2))
        drawn = replace(drawn, contrast=(float(low), float(high)))
    if rng.random() < 0.4:
        drawn = replace(drawn, shading=float(rng.uniform(0.2, 1.0)), coils=int(rng.integers(1, 13)))
    if rng.random() < 0.25:
        drawn = replace(drawn, coarser=float(rng.uniform(1.0, 2.5)))
    return drawn


def of_donor(scanner: Scanner | None, rng: np.random.Generator) -> Scanner | None:
    """Mostly the same scanner as the target's; else as the donor's scan is."""
    return scanner if rng.random() < _SAME_SCANNER_SHARE else None
