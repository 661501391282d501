"""Putting content into a slice: the seam, in the ways that programs and careful people make it.

Sources: Burt and Adelson 1983 (multiband); Pérez 2003 (gradient domain, by way of `membrane`); plain feathering as
in every paint program. Each way returns the blended slice and its alpha.
"""

import numpy as np

from dicomguard.retrain.tamper.filters import dilate, erode, float32, gaussian, resize, signed_distance, smooth_noise
from dicomguard.retrain.tamper.forged import Mask, Pixels
from dicomguard.retrain.tamper.membrane import push_pull, relaxed

FEATHERS = ("gaussian", "inner", "smoothstep", "ragged", "hard")
WAYS = (*FEATHERS, "multiband", "twoband", "gradient", "statistics")
_WEIGHTS = (0.16, 0.12, 0.12, 0.1, 0.04, 0.14, 0.1, 0.12, 0.1)
# Alpha below this is cut to 0: it would alter nothing on an 8-bit grid and only widen the label.
_FAINTEST = 0.02


def draw_way(rng: np.random.Generator) -> str:
    return str(rng.choice(WAYS, p=_WEIGHTS))


def feather(core: Mask, way: str, width: float, rng: np.random.Generator) -> Pixels:
    """Alpha of an h×w footprint: 1 well inside, 0 well outside, `width` pixels between."""
    if way == "hard":
        return core.astype(np.float32)
    if way == "gaussian":
        alpha = gaussian(core.astype(np.float32), max(0.5, width / 2))
    elif way == "inner":
        alpha = np.clip(signed_distance(core) / width, 0, 1)
    else:
        distance = signed_distance(core)
        if way == "ragged":
            distance = distance + 0.5 * width * smooth_noise((core.shape[0], core.shape[1]), 2.0, rng)
        ramp = np.clip(distance / width + 0.5, 0, 1)
        alpha = ramp * ramp * (3 - 2 * ramp)
    return np.where(alpha < _FAINTEST, 0, alpha).astype(np.float32)


def _multiband(base: Pixels, content: Pixels, core: Mask, levels: int) -> tuple[Pixels, Pixels]:
    """Laplacian pyramids of both, merged level by level with a Gaussian pyramid of the footprint."""
    weight = core.astype(np.float32)
    low_base, low_content, low_weight = base, content, weight
    bands: list[Pixels] = []
    for _ in range(levels):
        shape = (low_base.shape[0], low_base.shape[1])
        half = ((shape[0] + 1) // 2, (shape[1] + 1) // 2)
        if min(half) < 4:
            break
        next_base, next_content = resize(gaussian(low_base, 1.0), half), resize(gaussian(low_content, 1.0), half)
        band_base = low_base - resize(next_base, shape)
        band_content = low_content - resize(next_content, shape)
        bands.append(band_base + low_weight * (band_content - band_base))
        low_base, low_content, low_weight = next_base, next_content, resize(gaussian(low_weight, 1.0), half)
    merged = low_base + low_weight * (low_content - low_base)
    for band in reversed(bands):
        merged = resize(merged, (band.shape[0], band.shape[1])) + band
    # The coarsest band reaches far; a last fade keeps the edit local, and is the alpha that the label knows.
    reach = 1.5 * 2.0**levels
    alpha = np.clip(1 + signed_distance(core) / reach, 0, 1)
    alpha = np.where(alpha < _FAINTEST, 0, alpha * alpha).astype(np.float32)
    return base + np.minimum(1, 2 * alpha) * (merged - base), np.where(core, 1, 0.8 * alpha).astype(np.float32)


def _twoband(
    base: Pixels, content: Pixels, core: Mask, width: float, rng: np.random.Generator
) -> tuple[Pixels, Pixels]:
    """Brightness blended widely, detail narrowly."""
    sigma = float(rng.uniform(1.5, 4.0))
    wide = feather(core, "smoothstep", 2.5 * width + 2, rng)
    narrow = feather(core, "gaussian", max(0.8, 0.4 * width), rng)
    low_base, low_content = gaussian(base, sigma), gaussian(content, sigma)
    result = base + wide * (low_content - low_base) + narrow * ((content - low_content) - (base - low_base))
    return result, np.maximum(wide, narrow)


def match_ring(content: Pixels, base: Pixels, core: Mask, *, spread: bool) -> Pixels:
    """Shift (and stretch) content so that in a ring around the footprint it has the mean (and σ) of the base."""
    ring = dilate(core, 5) & ~erode(core, 1)
    if not ring.any():
        return content
    there, here = content[ring], base[ring]
    gain = 1.0
    if spread:
        gain = float(np.clip(here.std() / max(float(there.std()), 1e-3), 0.6, 1.6))
    return float32((content - there.mean()) * np.float32(gain) + here.mean())


def _membrane(base: Pixels, content: Pixels, core: Mask, sweeps: int) -> Pixels:
    """Content plus the smooth surface that makes it meet the base at the outline (Poisson's membrane)."""
    step = gaussian(base - content, 0.8)
    surface = relaxed(step, core, sweeps) if sweeps else push_pull(step, core)
    return content + surface


def blend_plane(
    base: Pixels, content: Pixels, core: Mask, way: str, width: float, rng: np.random.Generator
) -> tuple[Pixels, Pixels]:
    if way == "multiband":
        return _multiband(base, content, core, 2 if width < 3 else 3)
    if way == "twoband":
        return _twoband(base, content, core, width, rng)
    if way == "gradient":
        content = _membrane(base, content, core, 12)
        alpha = feather(core, "gaussian", min(width, 1.6), rng)
    elif way == "statistics":
        content = match_ring(content, base, core, spread=True)
        alpha = feather(core, "smoothstep", width, rng)
    else:
        alpha = feather(core, way, width, rng)
    return base + alpha * (content - base), alpha


def blend(
    base: Pixels,
    content: Pixels,
    core: Mask,
    rng: np.random.Generator,
    *,
    ways: tuple[str, ...] | None = None,
) -> tuple[Pixels, Pixels, str]:
    """Blend Z×h×w content into the base over the footprint; one way and width for all slices.

    Returns the slices, alpha and the way's name. Slices without footprint come back as they are.
    """
    way = draw_way(rng) if ways is None else str(rng.choice(ways))
    width = float(np.exp(rng.uniform(np.log(1.0), np.log(6.0))))
    opacity = np.float32(1.0 if rng.random() < 0.8 else rng.uniform(0.8, 1.0))
    result, alphas = base.copy(), np.zeros_like(base)
    for z in range(base.shape[0]):
        if core[z].any():
            mixed, alpha = blend_plane(base[z], content[z], core[z], way, width, rng)
            result[z] = base[z] + opacity * (mixed - base[z])
            alphas[z] = alpha * opacity
    return result, alphas, way
