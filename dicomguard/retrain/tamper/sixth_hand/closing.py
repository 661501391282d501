"""From an edited stack to a `Forged`: grain, blend, stored levels, label."""

from collections.abc import Mapping

import numpy as np

from dicomguard.retrain.tamper.filters import box, close, float32, gaussian
from dicomguard.retrain.tamper.forged import Canvas, Forged, Kind, Mask, Pixels
from dicomguard.retrain.tamper.sixth_hand.grain import levelled
from dicomguard.retrain.tamper.sixth_hand.scene import window

_SMALLEST_MASK_PX = 24
_COMB_PIXELS_PER_LEVEL = 10
_BLEND_SIGMA_PX = 1.2
# Around the edit, for filters and for the noise of the surroundings.
_MARGIN_PX = 40


def settle(
    canvas: Canvas, edited: Pixels, alpha: Pixels, healthy: Mask, rng: np.random.Generator, *, own_grain: bool = False
) -> Pixels:
    """Grain matched and blended in by `alpha`; `own_grain` says that the edit still carries the slice's own noise."""
    result = canvas.pixels.copy()
    for z in np.flatnonzero(alpha.any(axis=(1, 2))):
        cut = (int(z), *window(alpha[z] > 0, _MARGIN_PX))
        twin, weight = canvas.pixels[cut], alpha[cut]
        plane = levelled(edited[cut], twin, weight, healthy[cut], rng)
        blended = weight * plane + (1 - weight) * twin if own_grain else _crossfade(plane, twin, weight)
        result[cut] = blended
    return result


def _crossfade(plane: Pixels, twin: Pixels, weight: Pixels) -> Pixels:
    """Blend that keeps the power of two independent noises: a plain one has less noise where both count half."""
    low, under = gaussian(plane, _BLEND_SIGMA_PX), gaussian(twin, _BLEND_SIGMA_PX)
    fine = weight * (plane - low) + (1 - weight) * (twin - under)
    power = np.sqrt(weight**2 + (1 - weight) ** 2)
    return float32(weight * low + (1 - weight) * under + fine / power)


def _comb_gap(values: Pixels) -> float:
    """Usual step between the levels in use: over 1 where a rescaled scan has a comb for a histogram."""
    if values.size == 0:
        return 1.0
    low, high = np.quantile(values, (0.05, 0.95))
    busy = values[(values >= low) & (values <= high)]
    # In sparsely filled ranges levels are missing by chance.
    if busy.size < _COMB_PIXELS_PER_LEVEL * (high - low) or high - low < _COMB_PIXELS_PER_LEVEL:
        return 1.0
    return float(np.median(np.diff(np.unique(busy))))


def _stored(plane: Pixels, twin: Pixels, canvas: Canvas) -> Pixels:
    """On the levels that the authentic slice uses and inside what it reaches."""
    floor, ceiling = max(canvas.low, float(twin.min())), min(canvas.high, float(twin.max()))
    rounded = np.clip(np.rint(plane), floor, ceiling)
    gap = _comb_gap(twin[twin > floor])
    if gap > 1:
        levels = np.unique(twin)
        snapped = levels[np.searchsorted((levels[1:] + levels[:-1]) / 2, rounded)]
        rounded = np.where(np.abs(snapped - rounded) < gap, snapped, rounded)
    # Adding zero turns -0.0 into 0.0.
    return (rounded + 0.0).astype(np.float32)


def _label(apart: Mask) -> Mask:
    return close(box(apart.astype(np.float32), 5) > 0.5, 2) if apart.any() else apart


def seal(
    canvas: Canvas,
    settled: Pixels,
    alpha: Pixels,
    *,
    kind: Kind,
    lesion: Mask,
    family: str,
    variant: str,
    parameters: Mapping[str, float | str],
) -> Forged | None:
    """The forgery, or None when too little changed."""
    if not np.isfinite(settled).all():
        return None
    pixels, mask = canvas.pixels.copy(), np.zeros(canvas.pixels.shape, np.bool_)
    for z in np.flatnonzero(alpha.any(axis=(1, 2))):
        twin = canvas.pixels[z]
        pixels[z] = np.where(alpha[z] > 0, _stored(settled[z], twin, canvas), twin)
        mask[z] = _label(np.abs(pixels[z] - twin) > 0.5) & (alpha[z] > 0)
    if int(mask.sum(axis=(1, 2)).max()) < _SMALLEST_MASK_PX:
        return None
    return Forged(
        pixels=pixels,
        twin=canvas.pixels,
        mask=mask,
        alpha=np.clip(alpha, 0, 1).astype(np.float32),
        lesion=lesion,
        kind=kind,
        family=f"sixth/{family}",
        variant=variant,
        parameters=parameters,
    )
