"""This hand's passes over the whole slice: what opening and saving in some program does to all of it."""

from collections.abc import Callable
from typing import TypeAlias

import cv2
import numpy as np
from scipy import fft

from dicomguard.retrain.tamper.filters import each, float32, gaussian, resize, unsharp
from dicomguard.retrain.tamper.forged import Canvas, Pixels
from dicomguard.retrain.tamper.fourth_hand import texture

Pass: TypeAlias = Callable[[Pixels], Pixels]

_METHODS = (cv2.INTER_LINEAR, cv2.INTER_CUBIC, cv2.INTER_LANCZOS4, cv2.INTER_AREA)


def _smoothed(canvas: Canvas, rng: np.random.Generator) -> Pass:
    sigma = float(rng.uniform(0.35, 0.65))
    return lambda stack: each(stack, lambda plane: gaussian(plane, sigma))


def _guided(canvas: Canvas, rng: np.random.Generator) -> Pass:
    """The guided filter of He, the slice its own guide."""
    radius, grain = int(rng.integers(1, 3)), _grain(canvas)
    epsilon = max(float(rng.uniform(0.5, 1.5)) * grain, 1e-3) ** 2

    def plane_pass(plane: Pixels) -> Pixels:
        size = (2 * radius + 1, 2 * radius + 1)
        mean = cv2.blur(plane, size)
        variance = np.maximum(cv2.blur(plane * plane, size) - mean * mean, 0)
        slope = variance / (variance + np.float32(epsilon))
        return float32(cv2.blur(slope, size) * plane + cv2.blur(mean - slope * mean, size))

    return lambda stack: each(stack, plane_pass)


def _anisotropic(canvas: Canvas, rng: np.random.Generator) -> Pass:
    """A few steps of Perona and Malik's diffusion."""
    steps, edge = int(rng.integers(2, 5)), max(float(rng.uniform(1.5, 3.0)) * _grain(canvas), 1e-3)

    def plane_pass(plane: Pixels) -> Pixels:
        current = plane.copy()
        for _ in range(steps):
            framed = np.pad(current, 1, mode="edge")
            flow = np.zeros_like(current)
            for near in (framed[:-2, 1:-1], framed[2:, 1:-1], framed[1:-1, :-2], framed[1:-1, 2:]):
                slope = near - current
                flow += slope * np.exp(-((slope / edge) ** 2))
            current = current + np.float32(0.15) * flow
        return float32(current)

    return lambda stack: each(stack, plane_pass)


def _unsharp(canvas: Canvas, rng: np.random.Generator) -> Pass:
    sigma, amount = float(rng.uniform(0.7, 2.0)), float(rng.uniform(0.1, 0.45))
    return lambda stack: each(stack, lambda plane: unsharp(plane, sigma=sigma, amount=amount))


def _resampled(canvas: Canvas, rng: np.random.Generator) -> Pass:
    factor = float(rng.uniform(0.8, 0.97))
    down, up = (_METHODS[int(k)] for k in rng.integers(len(_METHODS), size=2))

    def plane_pass(plane: Pixels) -> Pixels:
        small = (max(2, round(plane.shape[0] * factor)), max(2, round(plane.shape[1] * factor)))
        return resize(resize(plane, small, down), (plane.shape[0], plane.shape[1]), up)

    return lambda stack: each(stack, plane_pass)


def _gamma(canvas: Canvas, rng: np.random.Generator) -> Pass:
    floor, top = float(canvas.pixels.min()), float(canvas.pixels.max())
    exponent, span = float(rng.uniform(0.88, 1.14)), max(top - floor, 1.0)
    return lambda stack: float32(np.clip((stack - floor) / span, 0, 1) ** exponent * span + floor)


def _bias_field(canvas: Canvas, rng: np.random.Generator) -> Pass:
    rows = np.linspace(-1, 1, canvas.pixels.shape[1])[:, None]
    cols = np.linspace(-1, 1, canvas.pixels.shape[2])[None, :]
    weights = rng.uniform(-0.05, 0.05, 5)
    terms = weights[0] * rows + weights[1] * cols + weights[2] * rows * cols
    gain = float32(1 + terms + weights[3] * rows**2 + weights[4] * cols**2)
    return lambda stack: stack * gain


def _rician(canvas: Canvas, rng: np.random.Generator) -> Pass:
    """Noise of magnitude images; forged and authentic slice get the same draw."""
    sigma = max(0.3 * _grain(canvas), 0.4) * float(rng.uniform(0.6, 1.4))
    real, imaginary = (rng.normal(0, sigma, canvas.pixels.shape).astype(np.float32) for _ in range(2))
    floor = np.float32(canvas.low)
    # Air that was cut to nothing stays nothing.
    air = canvas.pixels <= floor
    return lambda stack: float32(np.where(air, stack, np.hypot(stack - floor + real, imaginary) + floor))


def _quantised(canvas: Canvas, rng: np.random.Generator) -> Pass:
    """JPEG's rounding of 8×8 cosine coefficients, in floats and at the slice's own depth."""
    span = max(float(canvas.pixels.max() - canvas.pixels.min()), 1.0)
    ramp = np.add.outer(np.arange(8), np.arange(8)).astype(np.float32)
    steps = np.float32(rng.uniform(0.004, 0.012)) * np.float32(span) * (1 + 0.45 * ramp)

    def plane_pass(plane: Pixels) -> Pixels:
        rows, cols = plane.shape
        framed = np.pad(plane, ((0, -rows % 8), (0, -cols % 8)), mode="edge")
        blocks = framed.reshape(framed.shape[0] // 8, 8, framed.shape[1] // 8, 8).transpose(0, 2, 1, 3)
        cosines = fft.dctn(blocks, axes=(2, 3), norm="ortho")
        back = fft.idctn(np.round(cosines / steps) * steps, axes=(2, 3), norm="ortho")
        return float32(back.transpose(0, 2, 1, 3).reshape(framed.shape)[:rows, :cols])

    return lambda stack: each(stack, plane_pass)


def _grain(canvas: Canvas) -> float:
    middle = canvas.pixels.shape[0] // 2
    return texture.level(canvas.pixels[middle], canvas.head[middle])


PASSES: dict[str, Callable[[Canvas, np.random.Generator], Pass]] = {
    "smoothed": _smoothed,
    "guided filter": _guided,
    "anisotropic diffusion": _anisotropic,
    "unsharp mask": _unsharp,
    "resampled and back": _resampled,
    "gamma": _gamma,
    "bias field": _bias_field,
    "Rician noise": _rician,
    "cosines quantised": _quantised,
}


def draw_overall(canvas: Canvas, rng: np.random.Generator) -> tuple[Pass, str]:
    """One pass over whole slices, drawn at random, and its title."""
    titles = tuple(PASSES)
    title = titles[int(rng.integers(len(titles)))]
    return PASSES[title](canvas, rng), title
