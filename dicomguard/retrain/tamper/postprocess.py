"""What happens to scans on their way, forged or not: recompression, rescaling, denoising, windowing, turning.

One draw is applied to a forged run of slices and to its authentic twin alike, so that processing is never the label.
Some operations are kept for the test alone (`HELD_BACK`): a detector must hold where it was not trained. Some of those
move pixels (`MOVES`), and a mask has to go with them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TypeAlias

import cv2
import numpy as np

from dicomguard.errors import Unavailable
from dicomguard.retrain.tamper.filters import each, float32, gaussian, jpeg, median, noise_sigma, resize, unsharp
from dicomguard.retrain.tamper.forged import Mask, Pixels
from dicomguard.retrain.tamper.resample import affine_grid, sample, zero_fill

# One operation: Z×H×W float32 in and out, low, high, amount 0…1, seed. A quarter turn gives Z×W×H.
Operation: TypeAlias = Callable[[Pixels, float, float, float, int], Pixels]

_SHARE = 0.6


def _jpeg(stack: Pixels, low: float, high: float, amount: float, seed: int) -> Pixels:
    del low, high, seed
    # Quality 98 down to 75; low amounts, which are drawn more often, are mild.
    quality = round(98 - 23 * amount)
    floor, ceiling = float(stack.min()), float(stack.max())
    return each(stack, lambda plane: jpeg(plane, quality, low=floor, high=ceiling))


def _resized(stack: Pixels, low: float, high: float, amount: float, seed: int) -> Pixels:
    del low, high
    factor = (1 + amount) if seed % 2 else (1 - 0.35 * amount)
    methods = (cv2.INTER_LINEAR, cv2.INTER_CUBIC, cv2.INTER_LANCZOS4, cv2.INTER_AREA)
    there, back = methods[seed // 2 % 4], methods[seed // 8 % 4]

    def round_trip(plane: Pixels) -> Pixels:
        shape = (plane.shape[0], plane.shape[1])
        other = (max(2, round(shape[0] * factor)), max(2, round(shape[1] * factor)))
        return resize(resize(plane, other, there), shape, back)

    return each(stack, round_trip)


def _noise(stack: Pixels, low: float, high: float, amount: float, seed: int) -> Pixels:
    del low, high
    plane = stack[stack.shape[0] // 2]
    # The level follows the middle slice; a floor of half a grey level keeps noiseless scans from staying so.
    sigma = max(0.5, noise_sigma(plane, plane > plane.mean()))
    noise = np.random.default_rng(seed).standard_normal(stack.shape, dtype=np.float32)
    return stack + np.float32((0.2 + 1.3 * amount) * sigma) * noise


def _median(stack: Pixels, low: float, high: float, amount: float, seed: int) -> Pixels:
    del low, high, seed
    share = np.float32(0.4 + 0.6 * amount)
    return each(stack, lambda plane: float32(plane + share * (median(plane, 3) - plane)))


def _blur(stack: Pixels, low: float, high: float, amount: float, seed: int) -> Pixels:
    del low, high, seed
    return each(stack, lambda plane: gaussian(plane, 0.3 + 0.5 * amount))


def _sharpen(stack: Pixels, low: float, high: float, amount: float, seed: int) -> Pixels:
    del low, high, seed
    return each(stack, lambda plane: unsharp(plane, sigma=1.0, amount=0.2 + 0.8 * amount))


def _gamma(stack: Pixels, low: float, high: float, amount: float, seed: int) -> Pixels:
    del low, high
    floor, span = stack.min(), max(float(np.ptp(stack)), 1e-3)
    power = 1 + (0.3 if seed % 2 else -0.22) * amount
    return float32(np.clip((stack - floor) / span, 0, 1) ** power * span + floor)


def _windowed(stack: Pixels, low: float, high: float, amount: float, seed: int) -> Pixels:
    """256 grey levels between two percentiles, as a viewer burns them in; the grid of values stays the scan's own."""
    del seed
    bottom, top = np.percentile(stack[:, ::3, ::3], [0.5 * amount, 99.9 - 0.9 * amount])
    span = max(float(top - bottom), 1e-3)
    eight = np.rint(np.clip((stack - bottom) / span, 0, 1) * 255)
    step = max(1.0, np.floor((high - low) / 255)) if span > 255 else 1.0
    return float32(eight * step)


def _jpeg2000(stack: Pixels, low: float, high: float, amount: float, seed: int) -> Pixels:
    del seed
    # 10:1 at half amount, as archives that store lossy do.
    rate = round(1000 / (4 + 12 * amount))
    span = max(1.0, high - low)

    def through(plane: Pixels) -> Pixels:
        if min(plane.shape) < 32:
            return plane
        sixteen = np.clip(np.rint((plane - low) / span * 65535), 0, 65535).astype(np.uint16)
        written, code = cv2.imencode(".jp2", sixteen, [cv2.IMWRITE_JPEG2000_COMPRESSION_X1000, rate])
        if not written:
            raise Unavailable("This OpenCV writes no JPEG 2000. Install opencv-python-headless from its wheel.")
        back = cv2.imdecode(code, cv2.IMREAD_UNCHANGED)
        return float32(back) / np.float32(65535 / span) + np.float32(low)

    return each(stack, through)


def _zero_filled(stack: Pixels, low: float, high: float, amount: float, seed: int) -> Pixels:
    """Half the matrix acquired, the rest of k-space zero: low-passed by a sharp edge at half the bandwidth."""
    del low, high, amount, seed

    def cut(plane: Pixels) -> Pixels:
        height, width = plane.shape[0] // 2 * 2, plane.shape[1] // 2 * 2
        spectrum = np.fft.fftshift(np.fft.fft2(plane[:height, :width]))
        inner = spectrum[height // 4 : height // 4 + height // 2, width // 4 : width // 4 + width // 2]
        small = float32(np.abs(np.fft.ifft2(np.fft.ifftshift(inner)))) / 4
        filled = plane.copy()
        large = zero_fill(float32(small), 2)
        filled[: large.shape[0], : large.shape[1]] = large
        return filled

    return each(stack, cut)


def _bias(stack: Pixels, low: float, high: float, amount: float, seed: int) -> Pixels:
    """A smooth multiplicative field of up to ±15 %."""
    del low, high
    field = np.random.default_rng(seed).standard_normal((4, 4), dtype=np.float32)
    smooth = resize(field, (stack.shape[1], stack.shape[2]), cv2.INTER_CUBIC)
    return float32(stack * (1 + 0.15 * amount * smooth / max(float(np.abs(smooth).max()), 1e-3)))


def _non_local_means(stack: Pixels, low: float, high: float, amount: float, seed: int) -> Pixels:
    del low, high, seed

    def denoised(plane: Pixels) -> Pixels:
        floor, span = float(plane.min()), max(float(np.ptp(plane)), 1e-3)
        sixteen = np.asarray((plane - floor) / span * 65535, np.uint16)
        sigma = max(0.3, noise_sigma(plane, plane > plane.mean())) / span * 65535
        strength = [float((0.6 + 0.6 * amount) * sigma)]
        clean = cv2.fastNlMeansDenoising(
            sixteen, strength, templateWindowSize=5, searchWindowSize=13, normType=cv2.NORM_L1
        )
        return float32(clean) * np.float32(span / 65535) + np.float32(floor)

    return each(stack, denoised)


def _rotated(stack: Pixels, low: float, high: float, amount: float, seed: int) -> Pixels:
    """A head set straight by hand: about the middle, by 3 degrees at half amount; corners take the darkest value."""
    del low, high
    shape = (stack.shape[1], stack.shape[2])
    middle = ((shape[0] - 1) / 2, (shape[1] - 1) / 2)
    angle = np.deg2rad(6 * amount) * (1 if seed % 2 else -1)
    rows, cols = affine_grid(shape, centre=middle, source=middle, scale=1.0, angle_rad=float(angle), flip=False)
    inside = (rows >= 0) & (rows <= shape[0] - 1) & (cols >= 0) & (cols <= shape[1] - 1)
    method = ("linear", "cubic", "lanczos")[seed // 2 % 3]
    darkest = stack.min()
    return each(stack, lambda plane: float32(np.where(inside, sample(plane, rows, cols, method), darkest)))


def _turned(stack: Pixels, low: float, high: float, amount: float, seed: int) -> Pixels:
    """A quarter turn to either side, then left and right exchanged: no value changes."""
    del low, high, amount
    return np.rot90(stack, 1 if seed % 2 else -1, axes=(1, 2))[:, :, ::-1]


def _cropped(stack: Pixels, low: float, high: float, amount: float, seed: int) -> Pixels:
    """Each side cut by its own share, up to a tenth at half amount; the rest put into the middle of the old size."""
    del low, high
    rng = np.random.default_rng(seed)
    kept, placed = [], []
    for side in stack.shape[1:]:
        first, last = (int(cut) for cut in rng.integers(1, max(2, round(0.2 * amount * side)), 2, endpoint=True))
        kept.append(slice(first, side - last))
        placed.append(slice((first + last) // 2, (first + last) // 2 + side - first - last))
    padded = np.full_like(stack, stack.min())
    padded[:, placed[0], placed[1]] = stack[:, kept[0], kept[1]]
    return padded


OPERATIONS: Mapping[str, Operation] = MappingProxyType(
    {
        "jpeg": _jpeg,
        "resize": _resized,
        "noise": _noise,
        "median": _median,
        "blur": _blur,
        "sharpen": _sharpen,
        "gamma": _gamma,
        "window": _windowed,
    }
)
_WEIGHTS = (0.26, 0.15, 0.14, 0.09, 0.1, 0.09, 0.09, 0.08)
# Of those held back: what is in a pixel goes to another one.
MOVES: Mapping[str, Operation] = MappingProxyType(
    {"rotation": _rotated, "quarter turn and flip": _turned, "crop and pad": _cropped}
)
# For the test alone.
HELD_BACK: Mapping[str, Operation] = MappingProxyType(
    {
        "jpeg2000": _jpeg2000,
        "zero fill": _zero_filled,
        "bias field": _bias,
        "non-local means": _non_local_means,
        **MOVES,
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Postprocess:
    """One draw of processing, to be applied to a forged run of slices and to its twin."""

    # Names of operations in order; none means untouched.
    steps: tuple[str, ...] = ()
    # Strength 0…1 of each step.
    amounts: tuple[float, ...] = ()
    # Chance inside the steps (noise, interpolation methods) comes from here.
    seed: int = 0

    def apply(self, pixels: Pixels, low: float, high: float) -> Pixels:
        """Z×H×W stored values, processed, rounded to the grid and clipped to low…high."""
        result = pixels
        for step, amount in zip(self.steps, self.amounts, strict=True):
            operation = OPERATIONS[step] if step in OPERATIONS else HELD_BACK[step]
            result = operation(result, low, high, amount, self.seed)
        if result is pixels:
            return pixels
        return np.clip(np.rint(result), low, high).astype(np.float32)

    def moved(self, mask: Mask) -> Mask:
        """H×W mask of a slice → where its pixels lie after `apply`; most steps leave it as it is."""
        stack = mask[None].astype(np.float32)
        for step, amount in zip(self.steps, self.amounts, strict=True):
            if step in MOVES:
                stack = MOVES[step](stack, 0.0, 1.0, amount, self.seed)
        return np.asarray(stack[0] > 0.5)


def draw(rng: np.random.Generator, *, strength: float = 1.0) -> Postprocess:
    """Nothing in two of five draws; else one operation, sometimes two. `strength` scales all amounts."""
    if rng.random() >= _SHARE:
        return Postprocess()
    count = 1 if rng.random() < 0.8 else 2
    steps = tuple(str(name) for name in rng.choice(list(OPERATIONS), size=count, replace=False, p=_WEIGHTS))
    # The square over-samples mild strengths.
    amounts = tuple(float(strength * rng.uniform(0, 1) ** 2) for _ in steps)
    return Postprocess(steps=steps, amounts=amounts, seed=int(rng.integers(2**32)))


def held_back(name: str, rng: np.random.Generator) -> Postprocess:
    """An operation kept for the test, at middle strength."""
    if name not in HELD_BACK:
        raise KeyError(f"No operation {name!r} is held back. Choose among {', '.join(HELD_BACK)}.")
    return Postprocess(steps=(name,), amounts=(float(rng.uniform(0.4, 0.6)),), seed=int(rng.integers(2**32)))
