"""How this hand covers its tracks: locally in the footprint, or over the whole slice.

What goes over the whole slice goes over the authentic twin too, so that it is no sign of forgery.
"""

from collections.abc import Callable
from types import MappingProxyType

import cv2
import numpy as np

from dicomguard.retrain.tamper.filters import float32, signed_distance
from dicomguard.retrain.tamper.forged import Canvas, Mask, Pixels
from dicomguard.retrain.tamper.third_hand import texture

_BORDER_PX = 3.0


def _matched_spectrum(edited: Pixels, core: Mask, tissue: Mask, rng: np.random.Generator) -> Pixels:
    """Fine detail of the footprint filtered so that power and colour are those of the tissue around it."""
    detail = texture.fine(edited, 1.8)
    wanted, found = texture.spectrum(detail, tissue, rng), texture.spectrum(detail, core, rng)
    if wanted is None:
        return edited
    if found is None:
        there, here = texture.level(edited, tissue), texture.level(edited, core)
        gain = np.clip(there / here, 0.5, 2.0) if here > 0 else 1.0
        return float32(np.where(core, edited + detail * np.float32(gain - 1), edited))
    gain = np.clip(np.sqrt(wanted / np.maximum(found, 1e-6)), 0.4, 2.5)
    whole = cv2.resize(np.fft.fftshift(gain).astype(np.float32), (edited.shape[1], edited.shape[0]))
    filtered = np.fft.ifft2(np.fft.fft2(detail) * np.fft.ifftshift(whole)).real
    return float32(np.where(core, edited - detail + filtered, edited))


def _topped_up(edited: Pixels, core: Mask, tissue: Mask, rng: np.random.Generator) -> Pixels:
    """The noise that the footprint lacks beside the tissue, in the tissue's colour."""
    lacking = texture.level(edited, tissue) ** 2 - texture.level(edited, core) ** 2
    if lacking <= 0:
        return edited
    grain = texture.like(edited, tissue, edited.shape, "spectrum", rng)
    own = texture.level(grain, np.ones_like(core))
    return float32(np.where(core, edited + grain * np.float32(np.sqrt(lacking) / max(own, 1e-3)), edited))


def _rim(core: Mask) -> Mask:
    return core & (signed_distance(core) < _BORDER_PX)


def _median_rim(edited: Pixels, core: Mask, tissue: Mask, rng: np.random.Generator) -> Pixels:
    soft = float32(cv2.medianBlur(edited, 3))
    return float32(np.where(_rim(core), edited + np.float32(rng.uniform(0.3, 0.8)) * (soft - edited), edited))


def _wiener_rim(edited: Pixels, core: Mask, tissue: Mask, rng: np.random.Generator) -> Pixels:
    """Adaptive smoothing of the seam (Lee's local statistics)."""
    mean = float32(cv2.blur(edited, (5, 5)))
    variance = np.maximum(float32(cv2.blur(edited * edited, (5, 5))) - mean * mean, 1e-3)
    noise = texture.level(edited, tissue) ** 2 * np.float32(rng.uniform(0.3, 0.8))
    kept = np.clip(1 - noise / variance, 0, 1)
    return float32(np.where(_rim(core), mean + kept * (edited - mean), edited))


def _non_local_rim(edited: Pixels, core: Mask, tissue: Mask, rng: np.random.Generator) -> Pixels:
    """Light non-local means of the seam: each pixel with the like of its 5×5 surroundings, 3×3 patches."""
    width = max(texture.level(edited, tissue), 0.5) * float(rng.uniform(0.5, 1.0))
    total, weights = edited.copy(), np.ones_like(edited)
    for row in range(-2, 3):
        for col in range(-2, 3):
            if row or col:
                moved = np.roll(edited, (row, col), (0, 1))
                apart = cv2.blur((moved - edited) ** 2, (3, 3))
                weight = np.exp(-np.maximum(apart - 2 * width**2, 0) / np.float32(width**2))
                total += weight * moved
                weights += weight
    return float32(np.where(_rim(core), total / weights, edited))


_Local = Callable[[Pixels, Mask, Mask, np.random.Generator], Pixels]
LOCAL: MappingProxyType[str, _Local] = MappingProxyType(
    {
        "matched spectrum": _matched_spectrum,
        "topped up": _topped_up,
        "median rim": _median_rim,
        "wiener rim": _wiener_rim,
        "non-local rim": _non_local_rim,
    }
)
_NO_LOCAL_SHARE = 0.4
_PARTIAL_SHARE = 0.25


def strength(rng: np.random.Generator) -> float:
    """Most edits are whole; a quarter leave some of what was there."""
    return float(rng.uniform(0.7, 0.97)) if rng.random() < _PARTIAL_SHARE else 1.0


def draw_local(rng: np.random.Generator) -> tuple[str, ...]:
    """Names of the local passes of one forgery, mostly none or one."""
    if rng.random() < _NO_LOCAL_SHARE:
        return ()
    names = list(LOCAL)
    count = 2 if rng.random() < 0.25 else 1
    return tuple(names[i] for i in sorted(rng.choice(len(names), size=count, replace=False)))


def _jpeg(plane: Pixels, quality: int, low: float, high: float) -> Pixels:
    scale = max(high - low, 1.0) / 255
    eight = np.rint(np.clip((plane - low) / scale, 0, 255)).astype(np.uint8)
    done, stream = cv2.imencode(".jpg", eight, [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not done:
        return plane
    # What eight bits cannot hold stays: the round trip adds its error to the deep value.
    decoded = float32(cv2.imdecode(stream, cv2.IMREAD_GRAYSCALE))
    return float32(plane + (decoded - eight.astype(np.float32)) * np.float32(scale))


def _shifted(plane: Pixels, rows: float, cols: float, how: int) -> Pixels:
    matrix = np.array([[1, 0, cols], [0, 1, rows]], np.float32)
    size = (plane.shape[1], plane.shape[0])
    return float32(cv2.warpAffine(plane, matrix, size, flags=how, borderMode=cv2.BORDER_REPLICATE))


def draw_overall(canvas: Canvas, rng: np.random.Generator) -> tuple[Callable[[Pixels], Pixels], str]:
    """A pass over whole slices and its name; the same operation on whatever stack it is given."""
    middle = canvas.pixels[canvas.pixels.shape[0] // 2]
    low, high = float(middle.min()), float(canvas.pixels.max())
    sigma = max(texture.level(middle, canvas.head[canvas.pixels.shape[0] // 2]), 0.3)
    pick = int(rng.integers(6))
    seed = int(rng.integers(2**32))
    amount = float(rng.uniform(0, 1))
    rows, cols = (float(v) for v in rng.uniform(-0.5, 0.5, 2))
    how = int(rng.choice([cv2.INTER_LINEAR, cv2.INTER_CUBIC, cv2.INTER_LANCZOS4]))

    def over(one: Callable[[Pixels], Pixels]) -> Callable[[Pixels], Pixels]:
        return lambda stack: np.stack([one(plane) for plane in stack])

    def noisy(plane: Pixels) -> Pixels:
        fresh = np.random.default_rng(seed)
        grain = texture.kernel_noise(plane.shape, sigma * (0.3 + 0.6 * amount), 0.5, fresh)
        return float32(plane + grain * (plane > low + 2 * sigma))

    def requantised(plane: Pixels) -> Pixels:
        step = max(1.0, (high - low) / (255 * (0.5 + amount)))
        return float32(np.rint((plane - low) / step) * step + low)

    def sharpened(plane: Pixels) -> Pixels:
        return float32(plane + (0.15 + 0.5 * amount) * texture.fine(plane, 0.8 + amount))

    passes: tuple[tuple[str, Callable[[Pixels], Pixels]], ...] = (
        ("re-noised", noisy),
        ("requantised", requantised),
        ("sharpened", sharpened),
        ("JPEG round trip", lambda plane: _jpeg(plane, round(82 + 16 * amount), low, high)),
        ("sub-pixel shift", lambda plane: _shifted(plane, rows, cols, how)),
        ("there and back", lambda plane: _shifted(_shifted(plane, rows, cols, how), -rows, -cols, how)),
    )
    name, one = passes[pick]
    return over(one), name
