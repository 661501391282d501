"""What a careful forger runs over the whole stack in the end, so that nothing in it stands out.

He denoises lightly, exports through 8 bit, or resamples there and back; the authentic twin gets the same.
"""

from collections.abc import Callable
from functools import partial

import cv2
import numpy as np

from dicomguard.retrain.tamper.filters import bilateral, box, each, float32, noise_sigma, resize
from dicomguard.retrain.tamper.forged import Canvas, Pixels


def draw_overall(canvas: Canvas, rng: np.random.Generator) -> tuple[Callable[[Pixels], Pixels], str]:
    """A drawn pass from Z×H×W to Z×H×W, and its name with what was drawn."""
    name = str(rng.choice(("guided denoise", "bilateral denoise", "8-bit export", "resampled")))
    middle = len(canvas.pixels) // 2
    level = noise_sigma(canvas.pixels[middle], canvas.head[middle]) + 0.3
    if name == "guided denoise":
        strength, radius = float(rng.uniform(0.8, 2.0)), int(rng.integers(1, 4))
        operator = partial(_guided, side=2 * radius + 1, floor=(strength * level) ** 2)
        return partial(each, operator=operator), f"{name}, radius {radius}, strength {strength:.2f}"
    if name == "bilateral denoise":
        strength = float(rng.uniform(1.0, 2.5))
        operator = partial(bilateral, sigma_value=strength * level, sigma_px=1.5)
        return partial(each, operator=operator), f"{name}, strength {strength:.2f}"
    if name == "8-bit export":
        cut = float(rng.uniform(0, 0.3))
        low, high = (float(edge) for edge in np.percentile(canvas.pixels, (cut, 100 - cut)))
        return partial(_exported, low=low, span=max(high - low, 1.0)), f"{name}, cut {cut:.2f}"
    factor = float(rng.choice((rng.uniform(0.85, 0.96), rng.uniform(1.04, 1.3))))
    method, label = ((cv2.INTER_CUBIC, "cubic"), (cv2.INTER_LINEAR, "linear"))[int(rng.integers(2))]
    operator = partial(_there_and_back, factor=factor, method=method)
    return partial(each, operator=operator), f"{name}, {label}, factor {factor:.2f}"


def _guided(plane: Pixels, *, side: int, floor: float) -> Pixels:
    """Guided filter with the plane as its own guide."""
    mean = box(plane, side)
    variance = np.maximum(box(plane * plane, side) - mean * mean, 0)
    slope = float32(variance / (variance + floor))
    return float32(box(slope, side) * plane + box(mean * (1 - slope), side))


def _exported(stack: Pixels, *, low: float, span: float) -> Pixels:
    eight = np.rint(np.clip((stack - low) / span, 0, 1) * 255)
    return float32(low + eight / 255 * span)


def _there_and_back(plane: Pixels, *, factor: float, method: int) -> Pixels:
    rows, cols = plane.shape
    return resize(resize(plane, (round(rows * factor), round(cols * factor)), method), (rows, cols), method)
