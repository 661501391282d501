"""From an edited crop to a `Forged`: clean-up, stored grid, range, label.

The label rule is one for all families, so that no family can be told by its label: a pixel is forged where it differs
from its authentic twin by more than half a grey level, by 5×5 majority, closed by 2 px.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from dicomguard.retrain.tamper import cleanup
from dicomguard.retrain.tamper.filters import box, close
from dicomguard.retrain.tamper.forged import Canvas, Forged, Kind, Mask, Pixels
from dicomguard.retrain.tamper.region import Region

# A change at alpha 0 (a clean-up that reached over the seam) gets this alpha: inside the band that losses ignore.
_BAND_ALPHA = np.float32(0.05)
_SMALLEST_MASK_PX = 24


def differing(forged: Pixels, twin: Pixels) -> Mask:
    """Z×H×W label of the pixels that were forged."""
    apart = (np.abs(forged - twin) > 0.5).astype(np.float32)
    labels = [close(box(plane, 5) > 0.5, 2) if plane.any() else np.zeros(plane.shape, np.bool_) for plane in apart]
    return np.stack(labels)


def on_grid(stack: Pixels, canvas: Canvas) -> Pixels:
    """Rounded to stored values and clipped to what each authentic slice already reaches."""
    floor = np.maximum(canvas.low, canvas.pixels.min(axis=(1, 2), keepdims=True))
    ceiling = np.minimum(canvas.high, canvas.pixels.max(axis=(1, 2), keepdims=True))
    return np.clip(np.rint(stack), floor, ceiling).astype(np.float32)


def finish(
    canvas: Canvas,
    region: Region,
    edited: Pixels,
    alpha: Pixels,
    rng: np.random.Generator,
    *,
    kind: Kind,
    lesion: Mask,
    family: str,
    variant: str,
    parameters: Mapping[str, float | str] | None = None,
    touch_up: bool = True,
) -> Forged | None:
    """Close an edit. `edited`, `alpha` and `lesion` are Z×h×w in the region's crop; None when nothing changed."""
    base = region.of(canvas.pixels)
    passed = "none"
    if touch_up:
        edited, passed = cleanup.local(edited, base, region.core, rng)
    if not np.isfinite(edited).all():
        return None
    pixels = canvas.pixels.copy()
    pixels[:, region.rows, region.cols] = edited
    rounded = on_grid(pixels, canvas)[:, region.rows, region.cols]
    # A pixel whose alpha is 0 and that moved by less than a grey level was not meant to move.
    changed = (rounded != base) & ((alpha > 0) | (np.abs(rounded - base) >= 2))
    local = np.where(changed, rounded, base)
    pixels[:, region.rows, region.cols] = local
    apart = np.zeros(canvas.pixels.shape, np.bool_)
    apart[:, region.rows, region.cols] = differing(local, base)
    if int(apart.sum(axis=(1, 2)).max()) < _SMALLEST_MASK_PX:
        return None
    weights = np.zeros_like(canvas.pixels)
    weights[:, region.rows, region.cols] = np.where(changed, np.maximum(alpha, _BAND_ALPHA), alpha)
    truth = canvas.lesion.copy()
    truth[:, region.rows, region.cols] = lesion
    return Forged(
        pixels=pixels,
        twin=canvas.pixels,
        mask=apart & (weights > 0),
        alpha=np.clip(weights, 0, 1),
        lesion=truth,
        kind=kind,
        family=family,
        variant=variant,
        parameters={"outline": region.outline, "clean-up": passed, **(parameters or {})},
    )


def with_overall_pass(forged: Forged, canvas: Canvas, operate: Callable[[Pixels], Pixels], name: str) -> Forged:
    """Lay one whole-slice clean-up over the forged slices and over their twins."""
    pixels, twin = on_grid(operate(forged.pixels), canvas), on_grid(operate(forged.twin), canvas)
    mask = differing(pixels, twin) & (forged.alpha > 0)
    if int(mask.sum(axis=(1, 2)).max()) < _SMALLEST_MASK_PX:
        return forged
    return replace(forged, pixels=pixels, twin=twin, mask=mask, parameters={**forged.parameters, "whole slice": name})
