"""Interpolation, each in the several ways that programs do it: the periodic trace differs from one to the next.

Sources: OpenCV and SciPy interpolation kernels; zero-padding in the Fourier domain as scanner consoles do it.
"""

import cv2
import numpy as np

from dicomguard.retrain.tamper.filters import float32, remap, spline_map
from dicomguard.retrain.tamper.forged import Pixels

METHODS = ("linear", "cubic", "lanczos", "spline", "fourier", "supersampled", "nearest")
_WEIGHTS = (0.24, 0.22, 0.16, 0.14, 0.12, 0.08, 0.04)
_FLAGS = {
    "linear": cv2.INTER_LINEAR,
    "cubic": cv2.INTER_CUBIC,
    "lanczos": cv2.INTER_LANCZOS4,
    "nearest": cv2.INTER_NEAREST,
}


def draw_method(rng: np.random.Generator) -> str:
    return str(rng.choice(METHODS, p=_WEIGHTS))


def zero_fill(plane: Pixels, factor: int) -> Pixels:
    """Enlarge by an integer factor through zero-padding of the centred spectrum; values stay at the old samples."""
    height, width = plane.shape
    padded = np.zeros((height * factor, width * factor), np.complex64)
    top, left = (height * factor) // 2 - height // 2, (width * factor) // 2 - width // 2
    padded[top : top + height, left : left + width] = np.fft.fftshift(np.fft.fft2(plane))
    return float32(np.fft.ifft2(np.fft.ifftshift(padded)).real * factor * factor)


def sample(plane: Pixels, rows: Pixels, cols: Pixels, method: str) -> Pixels:
    """Values of an H×W plane at float coordinates (h×w arrays of rows and columns), by the named method."""
    if method in _FLAGS:
        return remap(plane, rows, cols, _FLAGS[method])
    if method == "spline":
        return spline_map(plane, rows, cols)
    if method == "fourier":
        return remap(zero_fill(plane, 2), rows * 2, cols * 2, cv2.INTER_CUBIC)
    quarter = np.float32(0.25)
    parts = [
        remap(plane, rows + dr * quarter, cols + dc * quarter, cv2.INTER_LINEAR) for dr in (-1, 1) for dc in (-1, 1)
    ]
    return float32(np.mean(parts, axis=0))


def affine_grid(
    shape: tuple[int, int],
    *,
    centre: tuple[float, float],
    source: tuple[float, float],
    scale: float,
    angle_rad: float,
    flip: bool,
) -> tuple[Pixels, Pixels]:
    """Source coordinates for each pixel of an h×w target.

    The target point `centre` (row, column) takes the source point `source`; `scale` > 1 enlarges the content.
    """
    row_axis = np.arange(shape[0], dtype=np.float32)[:, None] - np.float32(centre[0])
    col_axis = np.arange(shape[1], dtype=np.float32)[None, :] - np.float32(centre[1])
    if flip:
        col_axis = -col_axis
    cosine, sine = np.float32(np.cos(angle_rad) / scale), np.float32(np.sin(angle_rad) / scale)
    rows = np.float32(source[0]) + row_axis * cosine - col_axis * sine
    cols = np.float32(source[1]) + row_axis * sine + col_axis * cosine
    return float32(rows), float32(cols)
