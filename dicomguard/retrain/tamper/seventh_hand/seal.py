"""From an edited window to a `Forged`: the forger's own touch-up, the stored grid, the label."""

from collections.abc import Mapping

import numpy as np
from scipy import ndimage

from dicomguard.retrain.tamper.filters import gaussian
from dicomguard.retrain.tamper.finish import differing, on_grid
from dicomguard.retrain.tamper.forged import Canvas, Forged, Kind, Mask, Pixels
from dicomguard.retrain.tamper.seventh_hand.place import Site

TOUCHES = ("none", "dither", "seam", "spikes")
_LEAST_MASK_PX = 24


def seal(
    canvas: Canvas,
    site: Site,
    edited: Pixels,
    alpha: Pixels,
    rng: np.random.Generator,
    *,
    kind: Kind,
    family: str,
    variant: str,
    parameters: Mapping[str, float | str],
    lesion: Mask | None = None,
) -> Forged | None:
    """Close an edit; None when hardly anything changed.

    `edited` (blended already), `alpha` and `lesion` are Z×h×w in the site's window. Without `lesion` the truth is what
    the kind says: gone where more than half is new, added in the hole, unchanged when altered.
    """
    touch = str(rng.choice(TOUCHES, p=(0.4, 0.2, 0.2, 0.2)))
    before = site.cut(canvas.pixels)
    alpha = np.where(site.inside, alpha, 0).astype(np.float32)
    edited = np.stack([_touched(new, weight, touch, rng) for new, weight in zip(edited, alpha, strict=True)])
    if not np.isfinite(edited).all():
        return None
    stack = canvas.pixels.copy()
    stack[:, site.rows, site.cols] = np.where(alpha > 0, edited, before)
    local = np.where(alpha > 0, site.cut(on_grid(stack, canvas)), before)
    label = differing(local, before) & (alpha > 0)
    if label.sum(axis=(1, 2)).max() < _LEAST_MASK_PX:
        return None
    if lesion is None:
        old = site.cut(canvas.lesion)
        lesion = {"removed": old & ~(alpha > 0.5), "added": old | (site.hole & (alpha > 0.2))}.get(kind, old)
    pixels, weights = canvas.pixels.copy(), np.zeros_like(canvas.pixels)
    mask, truth = np.zeros(canvas.pixels.shape, np.bool_), canvas.lesion.copy()
    for whole, part in ((pixels, local), (weights, alpha), (mask, label), (truth, lesion)):
        whole[:, site.rows, site.cols] = part
    return Forged(
        pixels=pixels,
        twin=canvas.pixels,
        mask=mask,
        alpha=weights,
        lesion=truth,
        kind=kind,
        family=f"seventh/{family}",
        variant=variant,
        parameters={"outline": site.outline, "touch-up": touch, **parameters},
    )


def _touched(plane: Pixels, alpha: Pixels, touch: str, rng: np.random.Generator) -> Pixels:
    """h×w after the drawn touch-up; what it does outside the edit is thrown away by the caller."""
    if not alpha.any():
        return plane
    if touch == "dither":
        # Rounding twice leaves gaps in the histogram; noise of one step before it does not.
        return plane + rng.uniform(-0.5, 0.5, plane.shape).astype(np.float32)
    if touch == "seam":
        # 0 in the middle and outside, 1 halfway through the seam; half strength keeps most of the grain.
        return plane + 2 * alpha * (1 - alpha) * (gaussian(plane, 0.6) - plane)
    if touch == "spikes":
        around = np.ones((3, 3), np.bool_)
        around[1, 1] = False
        lowest, highest = (
            operate(plane, footprint=around) for operate in (ndimage.minimum_filter, ndimage.maximum_filter)
        )
        slack = (highest - lowest) / 4
        return np.clip(plane, lowest - slack, highest + slack)
    return plane
