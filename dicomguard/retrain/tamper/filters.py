"""Image operators on one float32 slice, typed.

OpenCV and SciPy stop here: everything above gets and gives float32 or boolean H×W arrays. Knows no forgery.
"""

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from dicomguard.retrain.tamper.forged import Mask, Pixels

_BORDER = cv2.BORDER_REFLECT_101


def each(stack: Pixels, operator: Callable[[Pixels], Pixels]) -> Pixels:
    """Apply an H×W operator to each slice of a Z×H×W stack."""
    return np.stack([operator(plane) for plane in stack]).astype(np.float32, copy=False)


def float32(array: object) -> Pixels:
    return np.ascontiguousarray(array, dtype=np.float32)


def gaussian(plane: Pixels, sigma: float) -> Pixels:
    return float32(cv2.GaussianBlur(plane, (0, 0), sigma, borderType=_BORDER))


def box(plane: Pixels, size: int) -> Pixels:
    return float32(cv2.boxFilter(plane, cv2.CV_32F, (size, size), borderType=_BORDER))


def median(plane: Pixels, size: int) -> Pixels:
    """Median in a window of 3 or 5 pixels (OpenCV takes float32 for these only)."""
    return float32(cv2.medianBlur(np.ascontiguousarray(plane), size))


def bilateral(plane: Pixels, *, sigma_value: float, sigma_px: float) -> Pixels:
    return float32(cv2.bilateralFilter(np.ascontiguousarray(plane), 5, sigma_value, sigma_px, borderType=_BORDER))


def unsharp(plane: Pixels, *, sigma: float, amount: float) -> Pixels:
    return float32(plane + np.float32(amount) * (plane - gaussian(plane, sigma)))


def _disc(radius: int) -> NDArray[np.uint8]:
    return np.asarray(cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1)), np.uint8)


def dilate(mask: Mask, radius: int) -> Mask:
    if radius <= 0:
        return mask
    return np.asarray(cv2.dilate(mask.astype(np.uint8), _disc(radius)) > 0)


def erode(mask: Mask, radius: int) -> Mask:
    if radius <= 0:
        return mask
    return np.asarray(cv2.erode(mask.astype(np.uint8), _disc(radius)) > 0)


def close(mask: Mask, radius: int) -> Mask:
    closed = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_CLOSE, _disc(radius))
    return np.asarray(closed > 0)


def largest(mask: Mask) -> Mask:
    """The largest connected component, or the mask itself when it is empty."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    if count <= 2:
        return mask
    return np.asarray(labels == 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA])))


def hull(mask: Mask) -> Mask:
    rows, cols = np.nonzero(mask)
    if rows.size < 3:
        return mask
    points = np.stack([cols, rows], axis=1).astype(np.int32)
    filled = np.zeros(mask.shape, np.uint8)
    cv2.fillConvexPoly(filled, cv2.convexHull(points), 1)
    return filled > 0


def polygon(size: int, points: Pixels) -> Mask:
    """Fill a closed polygon; `points` is N×2, x and y in pixels of a size×size square."""
    filled = np.zeros((size, size), np.uint8)
    cv2.fillPoly(filled, [np.round(points).astype(np.int32)], 1)
    return filled > 0


def depth_inside(mask: Mask) -> Pixels:
    """Distance in pixels to the nearest pixel outside; 0 outside. The frame of the image counts as outside."""
    framed = np.pad(mask, 1).astype(np.uint8)
    return float32(cv2.distanceTransform(framed, cv2.DIST_L2, cv2.DIST_MASK_5)[1:-1, 1:-1])


def signed_distance(mask: Mask) -> Pixels:
    """Positive inside, negative outside, about 0.5 on either side of the outline, in pixels."""
    if not mask.any():
        return np.full(mask.shape, -1e3, np.float32)
    outside = float32(cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5))
    inside = depth_inside(mask)
    return np.where(mask, inside - 0.5, 0.5 - outside).astype(np.float32)


def resize(plane: Pixels, shape: tuple[int, int], method: int = cv2.INTER_LINEAR) -> Pixels:
    """To `shape` (rows, columns)."""
    return float32(cv2.resize(plane, (max(1, shape[1]), max(1, shape[0])), interpolation=method))


def residual(plane: Pixels) -> Pixels:
    """Noise estimate: the slice minus a median of it, which leaves edges behind better than a blur would."""
    return plane - median(plane, 3) if min(plane.shape) >= 3 else np.zeros_like(plane)


def noise_sigma(plane: Pixels, where: Mask) -> float:
    """Robust noise level in stored values: median absolute value of the 3×3 second difference (Immerkær)."""
    if min(plane.shape) < 3 or not where.any():
        return 0.0
    kernel = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32) / 6
    response = np.abs(cv2.filter2D(plane, cv2.CV_32F, kernel, borderType=_BORDER))
    return float(np.median(response[where])) / 0.6745


def smooth_noise(shape: tuple[int, int], sigma: float, rng: np.random.Generator) -> Pixels:
    """Low-frequency Gaussian field of unit standard deviation."""
    field = gaussian(rng.standard_normal(shape, dtype=np.float32), sigma)
    return field / max(float(field.std()), 1e-6)


def jpeg(plane: Pixels, quality: int, *, low: float, high: float) -> Pixels:
    """Through an 8-bit JPEG file and back, scaled between low and high."""
    span = max(high - low, 1e-6)
    eight = np.clip(np.round((plane - low) / span * 255), 0, 255).astype(np.uint8)
    _, code = cv2.imencode(".jpg", eight, [cv2.IMWRITE_JPEG_QUALITY, quality])
    back = cv2.imdecode(code, cv2.IMREAD_GRAYSCALE)
    return float32(back) * np.float32(span / 255) + np.float32(low)


def spline_map(plane: Pixels, rows: Pixels, cols: Pixels) -> Pixels:
    """Cubic B-spline (prefiltered) interpolation at the given coordinates."""
    return float32(ndimage.map_coordinates(plane, [rows, cols], order=3, mode="reflect"))


def remap(plane: Pixels, rows: Pixels, cols: Pixels, method: int) -> Pixels:
    return float32(cv2.remap(plane, cols, rows, method, borderMode=_BORDER))
