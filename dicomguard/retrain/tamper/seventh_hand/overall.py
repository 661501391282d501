"""Passes over whole slices, by which a careful forger makes all of them equally worn.

Each is a fixed function of the stack: its parameters and its noise's seed are drawn once from the authentic canvas, so
forged slices and their twins get the same.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TypeAlias

import cv2
import numpy as np
from scipy import ndimage, signal

from dicomguard.retrain.tamper.filters import each, float32, gaussian
from dicomguard.retrain.tamper.finish import on_grid
from dicomguard.retrain.tamper.forged import Canvas, Pixels
from dicomguard.retrain.tamper.seventh_hand.grain import fine_level

Operate: TypeAlias = Callable[[Pixels], Pixels]


def draw_overall(canvas: Canvas, rng: np.random.Generator) -> tuple[Operate, str]:
    """A drawn pass (Z×H×W stored values to the same, on the grid) and its name."""
    name = NAMES[rng.integers(len(NAMES))]
    operate = _PASSES[name](canvas, rng)
    return lambda stack: on_grid(operate(stack), canvas), name


def _noise(canvas: Canvas) -> float:
    """Noise level of the slices in stored values, at least 0.8 so that a pass leaves something on the grid."""
    return max(float(np.median([fine_level(*pair) for pair in zip(canvas.pixels, canvas.head, strict=True)])), 0.8)


def _top(canvas: Canvas) -> float:
    return max(float(canvas.pixels.max()), canvas.low + 1)


def _rician(canvas: Canvas, rng: np.random.Generator) -> Operate:
    """Complex noise added under the magnitude (Gudbjartsson 1995), 0.3 to 0.7 of what is there."""
    sigma, seed = _noise(canvas) * rng.uniform(0.3, 0.7), int(rng.integers(2**32))

    def operate(stack: Pixels) -> Pixels:
        real, imaginary = np.random.default_rng(seed).normal(0, sigma, (2, *stack.shape))
        return float32(np.hypot(stack - canvas.low + real, imaginary) + canvas.low)

    return operate


def _there_and_back(canvas: Canvas, rng: np.random.Generator) -> Operate:
    """Moved by a part of a pixel with a spline, stored, and moved back."""
    offset, order = rng.uniform(0.2, 0.5, size=2) * rng.choice((-1, 1), size=2), int(rng.choice((3, 5)))

    def moved(plane: Pixels) -> Pixels:
        there = np.rint(ndimage.shift(plane, offset, order=order, mode="mirror"))
        return float32(ndimage.shift(there, -offset, order=order, mode="mirror"))

    return lambda stack: each(stack, moved)


def _sharper(canvas: Canvas, rng: np.random.Generator) -> Operate:
    sigma, amount = rng.uniform(0.7, 1.6), np.float32(rng.uniform(0.15, 0.4))
    return lambda stack: each(stack, lambda plane: plane + amount * (plane - gaussian(plane, sigma)))


def _apodised(canvas: Canvas, rng: np.random.Generator) -> Operate:
    """Edges of k-space faded by a Tukey window, as reconstructions do."""
    fade = rng.uniform(0.3, 0.7)

    def operate(stack: Pixels) -> Pixels:
        weights = np.outer(*(np.fft.ifftshift(signal.windows.tukey(n + 1, fade)[:n]) for n in stack.shape[1:]))
        return float32(np.fft.ifft2(np.fft.fft2(stack) * weights).real)

    return operate


def _requantised(canvas: Canvas, rng: np.random.Generator) -> Operate:
    """Through an 8-bit picture whose window is not the file's."""
    step = max((_top(canvas) - canvas.low) / rng.uniform(90, 250), rng.uniform(1.2, 1.8))
    return lambda stack: float32(np.rint((stack - canvas.low) / step) * step + canvas.low)


def _jpeg(canvas: Canvas, rng: np.random.Generator) -> Operate:
    quality, step = int(rng.integers(88, 98)), (_top(canvas) - canvas.low) / 255

    def operate(plane: Pixels) -> Pixels:
        picture = np.clip(np.rint((plane - canvas.low) / step), 0, 255).astype(np.uint8)
        _, code = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])
        return float32(cv2.imdecode(code, cv2.IMREAD_GRAYSCALE)) * np.float32(step) + np.float32(canvas.low)

    return lambda stack: each(stack, operate)


def _gain(canvas: Canvas, rng: np.random.Generator) -> Operate:
    """A slow field of a few per cent, as after another correction of the coil's bias."""
    shape = canvas.pixels.shape[1:]
    coarse = rng.uniform(-1, 1, (4, 4)).astype(np.float32)
    field = cv2.resize(coarse, (shape[1], shape[0]), interpolation=cv2.INTER_CUBIC)
    gain = float32(1 + rng.uniform(0.015, 0.04) * field)
    return lambda stack: (stack - np.float32(canvas.low)) * gain + np.float32(canvas.low)


def _diffused(canvas: Canvas, rng: np.random.Generator) -> Operate:
    """Two to four steps of anisotropic diffusion (Perona and Malik 1990) at the scale of the noise."""
    scale, steps = 2.5 * _noise(canvas) * rng.uniform(0.7, 1.2), int(rng.integers(2, 5))

    def operate(stack: Pixels) -> Pixels:
        for _ in range(steps):
            flow = np.zeros_like(stack)
            for axis in (1, 2):
                slope = np.diff(stack, axis=axis, append=stack.take([-1], axis=axis))
                passed = slope * np.exp(-((slope / scale) ** 2))
                flow += np.diff(passed, axis=axis, prepend=0)
            stack = float32(stack + 0.12 * flow)
        return stack

    return operate


_PASSES: Mapping[str, Callable[[Canvas, np.random.Generator], Operate]] = MappingProxyType(
    {
        "rician": _rician,
        "there and back": _there_and_back,
        "sharper": _sharper,
        "apodised": _apodised,
        "requantised": _requantised,
        "jpeg": _jpeg,
        "gain": _gain,
        "diffused": _diffused,
    }
)
NAMES = tuple(_PASSES)
