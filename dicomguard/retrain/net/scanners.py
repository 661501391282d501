"""Other scanners: the same head at another matrix, through another filter of k-space, with more noise.

Laid on the authentic slices of a training patient *before* anything is forged, so that forger and detector both work on
a scan of an unknown hospital. Four archives are few scanners; the noise of the next one has another level and colour.
Sources: Fermi windows of reconstruction (Bernstein, King and Zhou, Handbook of MRI Pulse Sequences, 13.1); Rician noise
(Gudbjartsson and Patz 1995).
"""

from dataclasses import dataclass, replace

import cv2
import numpy as np

from dicomguard.retrain.tamper.filters import each, float32, noise_sigma, resize
from dicomguard.retrain.tamper.forged import Canvas, Mask, Pixels

_SHARE = 0.4
# A donor's slice comes from the same scanner in this share of the draws.
_SAME_SCANNER_SHARE = 0.7
_SMALLEST_SIDE, _LARGEST_SIDE = 112, 576
_METHODS = (cv2.INTER_AREA, cv2.INTER_LINEAR, cv2.INTER_CUBIC, cv2.INTER_LANCZOS4)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scanner:
    """One draw; each value at its neutral place leaves the slices alone."""

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

    def _noisier(self, pixels: Pixels, head: Mask) -> Pixels:
        middle = pixels.shape[0] // 2
        sigma = np.float32(self.noise * max(0.5, noise_sigma(pixels[middle], head[middle])))
        noise = np.random.default_rng(self.seed).standard_normal((2, *pixels.shape), dtype=np.float32)
        noisy = np.hypot(pixels + sigma * noise[0], sigma * noise[1])
        # Background that was set to zero stays so.
        return np.where(pixels > 0, noisy, pixels).astype(np.float32)


def _resized(stack: Mask, shape: tuple[int, int]) -> Mask:
    return np.stack([resize(plane.astype(np.float32), shape) >= 0.5 for plane in stack])


def _windowed(plane: Pixels, cut: tuple[float, float], width: float) -> Pixels:
    rows = np.abs(np.fft.fftfreq(plane.shape[0]))[:, None] * 2 / cut[0]
    columns = np.abs(np.fft.rfftfreq(plane.shape[1]))[None, :] * 2 / cut[1]
    radius = np.hypot(rows, columns)
    window = 1 / (1 + np.exp(np.clip((radius - 1) / width, -30, 30)))
    return float32(np.maximum(np.fft.irfft2(np.fft.rfft2(plane) * window, s=plane.shape), 0))


def draw(rng: np.random.Generator) -> Scanner | None:
    """None (the scan as it is) in three of five draws, else one to four changes."""
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
    if rng.random() < 0.25:
        drawn = replace(drawn, coarser=float(rng.uniform(1.0, 2.5)))
    return drawn


def of_donor(scanner: Scanner | None, rng: np.random.Generator) -> Scanner | None:
    """Mostly the same scanner as the target's; else as the donor's scan is."""
    return scanner if rng.random() < _SAME_SCANNER_SHARE else None
