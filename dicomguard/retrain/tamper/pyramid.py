"""Band-wise fusion with the target's own noise put back: Laplacian pyramid, à-trous wavelet, Fourier bands.

A real attacker would use an image-fusion script and transplant grain from the ring around the edit. Sources: Burt and
Adelson 1983; Starck and Murtagh (à-trous wavelet).
"""

from collections.abc import Callable

import numpy as np

from dicomguard.retrain.tamper.blend import blend_plane, match_ring
from dicomguard.retrain.tamper.filters import float32, gaussian, signed_distance
from dicomguard.retrain.tamper.finish import finish
from dicomguard.retrain.tamper.forged import Canvas, Forged, Mask, Pixels
from dicomguard.retrain.tamper.grain import grain
from dicomguard.retrain.tamper.splice import healthy_content, lesion_content

_TRANSPLANTS = ("transplanted", "spectral", "signal", "none")


def _ramp(core: Mask, width: float) -> Pixels:
    return float32(np.clip(signed_distance(core) / width + 0.5, 0, 1))


def _wavelet(base: Pixels, content: Pixels, core: Mask, keep: float) -> tuple[Pixels, Pixels]:
    """À-trous planes: each scale blended over its own width; the finest may stay the target's (`keep` of it)."""
    result, alpha = np.zeros_like(base), np.zeros_like(base)
    low_base, low_content = base, content
    for level, sigma in enumerate((0.8, 1.6, 3.2)):
        next_base, next_content = gaussian(low_base, sigma), gaussian(low_content, sigma)
        weight = _ramp(core, 1.5 * 2**level)
        if level == 0:
            weight = weight * np.float32(1 - keep)
        detail = low_base - next_base
        result += detail + weight * ((low_content - next_content) - detail)
        alpha = np.maximum(alpha, weight)
        low_base, low_content = next_base, next_content
    weight = _ramp(core, 12.0)
    return result + low_base + weight * (low_content - low_base), np.maximum(alpha, weight)


def _fourier(base: Pixels, content: Pixels, core: Mask, cut: float) -> tuple[Pixels, Pixels]:
    """Low frequencies of the content, high ones of the target, split at `cut` cycles per pixel."""
    frequency = np.hypot(np.fft.fftfreq(base.shape[0])[:, None], np.fft.rfftfreq(base.shape[1])[None, :])
    low_pass = 1 / (1 + (frequency / cut) ** 4)
    step = np.fft.irfft2(np.fft.rfft2(content - base) * low_pass, s=base.shape).astype(np.float32)
    weight = _ramp(core, 5.0)
    return base + weight * step, weight


def _laplace(
    base: Pixels, content: Pixels, core: Mask, width: float, rng: np.random.Generator
) -> tuple[Pixels, Pixels]:
    return blend_plane(base, content, core, "multiband", width, rng)


def forge(canvas: Canvas, donor: Canvas | None, rng: np.random.Generator) -> Forged | None:
    source = canvas if donor is None else donor
    adds = bool(rng.random() < 0.7)
    brought = lesion_content(canvas, source, rng, free=bool(rng.random() < 0.5)) if adds else None
    if brought is not None:
        region, content, inserted, method = brought
        lesion = region.of_mask(canvas.lesion) | inserted
    else:
        adds = False
        replaced = healthy_content(canvas, source, rng)
        if replaced is None:
            return None
        region, content, method = replaced
        lesion = region.of_mask(canvas.lesion) & ~region.core
    # Where the target's fine detail stays, a removed lesion would shine through.
    way = str(rng.choice(["laplace", "wavelet", "fourier"] if adds else ["laplace", "wavelet"]))
    keep, cut, width = (
        float(rng.choice([0.0, 0.5, 1.0] if adds else [0.0, 0.2])),
        float(rng.uniform(0.06, 0.25)),
        float(rng.uniform(1.0, 6.0)),
    )
    transplant = str(rng.choice(_TRANSPLANTS))
    spread = bool(rng.random() < 0.5)
    ways: dict[str, Callable[[Pixels, Pixels, Mask], tuple[Pixels, Pixels]]] = {
        "laplace": lambda b, c, m: _laplace(b, c, m, width, rng),
        "wavelet": lambda b, c, m: _wavelet(b, c, m, keep),
        "fourier": lambda b, c, m: _fourier(b, c, m, cut),
    }
    base = region.of(canvas.pixels)
    edited, alpha = base.copy(), np.zeros_like(base)
    for z in np.flatnonzero(region.core.any(axis=(1, 2))):
        fitted = match_ring(content[z], base[z], region.core[z], spread=spread)
        if transplant != "none" and way != "fourier":
            smooth = gaussian(fitted, 0.9)
            fitted = smooth + grain(smooth, base[z], region.core[z], transplant, 1.0, rng)
        edited[z], weight = ways[way](base[z], fitted, region.core[z])
        alpha[z] = np.where(weight < 0.02, 0, weight)
        edited[z] = np.where(alpha[z] > 0, edited[z], base[z])
    return finish(
        canvas,
        region,
        edited,
        alpha,
        rng,
        kind="added" if adds else "removed",
        lesion=lesion,
        family="pyramid",
        variant=way,
        parameters={"interpolation": method, "grain": transplant},
    )
