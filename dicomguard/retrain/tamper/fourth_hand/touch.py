"""Clean-ups of an edit, as a careful forger makes before he saves. Each changes pixels of the edit alone."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TypeAlias

import numpy as np

from dicomguard.retrain.tamper.filters import float32, gaussian, median, unsharp
from dicomguard.retrain.tamper.forged import Mask, Pixels
from dicomguard.retrain.tamper.fourth_hand import texture
from dicomguard.retrain.tamper.fourth_hand.outline import field

# Edited slice, authentic slice, blend weight, healthy tissue.
Touch: TypeAlias = Callable[[Pixels, Pixels, Pixels, Mask, np.random.Generator], Pixels]

_UNTOUCHED_SHARE = 0.4


def _rim(alpha: Pixels) -> Pixels:
    """Weight that is 1 half-way over the edge and 0 inside and outside."""
    return (4 * alpha * (1 - alpha)).astype(np.float32)


def _rim_blur(edited: Pixels, base: Pixels, alpha: Pixels, healthy: Mask, rng: np.random.Generator) -> Pixels:
    soft = gaussian(edited, float(rng.uniform(0.6, 1.1)))
    return edited + 0.7 * _rim(alpha) * (soft - edited)


def _regrain(edited: Pixels, base: Pixels, alpha: Pixels, healthy: Mask, rng: np.random.Generator) -> Pixels:
    """Take the edit's grain off and give it the grain of the slice."""
    sigma = float(rng.uniform(0.9, 1.4))
    fresh = gaussian(edited, 0.5 * sigma)
    inside = alpha > 0.9
    grained = texture.topped_up(base, fresh, healthy, inside, rng)
    return edited + alpha * (grained - edited)


def _seam_median(edited: Pixels, base: Pixels, alpha: Pixels, healthy: Mask, rng: np.random.Generator) -> Pixels:
    share = np.float32(rng.uniform(0.5, 1.0))
    return float32(edited + share * _rim(alpha) * (median(edited, 3) - edited))


def _sharpen(edited: Pixels, base: Pixels, alpha: Pixels, healthy: Mask, rng: np.random.Generator) -> Pixels:
    sharp = unsharp(edited, sigma=float(rng.uniform(0.8, 1.6)), amount=float(rng.uniform(0.08, 0.25)))
    return edited + alpha * (sharp - edited)


def _bias_ramp(edited: Pixels, base: Pixels, alpha: Pixels, healthy: Mask, rng: np.random.Generator) -> Pixels:
    """Let the edit brighten along some direction by up to three per cent to either side, as a coil would."""
    rows = np.linspace(-1, 1, edited.shape[0], dtype=np.float32)[:, None]
    cols = np.linspace(-1, 1, edited.shape[1], dtype=np.float32)[None, :]
    way, strength = float(rng.uniform(0, 2 * np.pi)), float(rng.uniform(0.01, 0.03))
    ramp = rows * np.float32(np.sin(way)) + cols * np.float32(np.cos(way))
    return edited * (1 + np.float32(strength) * alpha * ramp)


def _scanner_step(edited: Pixels, base: Pixels, alpha: Pixels, healthy: Mask, rng: np.random.Generator) -> Pixels:
    """Only values that the slice itself uses: rescaled slices skip some, and a fresh value would stand out."""
    used = np.unique(base)
    if used.size < 8:
        return edited
    after = np.clip(np.searchsorted(used, edited), 1, used.size - 1)
    below, above = used[after - 1], used[after]
    return np.where(alpha > 0, np.where(edited - below < above - edited, below, above), edited)


def _mottle(edited: Pixels, base: Pixels, alpha: Pixels, healthy: Mask, rng: np.random.Generator) -> Pixels:
    """A little shading of a few pixels' width, so that the fill is as uneven as tissue."""
    shade = field(edited.shape, float(rng.uniform(2.5, 6.0)), rng)
    return edited + alpha * shade * np.float32(0.4 * texture.level(base, healthy))


TOUCHES: Mapping[str, Touch] = MappingProxyType(
    {
        "rim blur": _rim_blur,
        "re-grained": _regrain,
        "median on the seam": _seam_median,
        "sharpened": _sharpen,
        "bias ramp": _bias_ramp,
        "scanner's step": _scanner_step,
        "mottled": _mottle,
    }
)


def draw(edited: Pixels, base: Pixels, alpha: Pixels, healthy: Mask, rng: np.random.Generator) -> tuple[Pixels, str]:
    """One clean-up drawn at random, or none, over all slices of an edit; and its name."""
    if rng.random() < _UNTOUCHED_SHARE:
        return edited, "none"
    names = tuple(TOUCHES)
    name = names[int(rng.integers(len(names)))]
    out, seed = edited.copy(), int(rng.integers(2**32))
    for z in np.flatnonzero(alpha.any(axis=(1, 2))):
        changed = TOUCHES[name](edited[z], base[z], alpha[z], healthy[z], np.random.default_rng([seed, int(z)]))
        out[z] = np.where(alpha[z] > 0, changed, edited[z])
    return out, name
