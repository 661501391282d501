"""The last steps of this hand: clean up, round, label."""

from collections.abc import Mapping

import numpy as np

from dicomguard.retrain.tamper.finish import differing, on_grid
from dicomguard.retrain.tamper.forged import Canvas, Forged, Kind, Mask, Pixels
from dicomguard.retrain.tamper.fourth_hand import touch
from dicomguard.retrain.tamper.fourth_hand.site import Site

_SMALLEST_MASK_PX = 24


def leave(
    canvas: Canvas,
    site: Site,
    edited: Pixels,
    alpha: Pixels,
    rng: np.random.Generator,
    *,
    kind: Kind,
    lesion: Mask,
    family: str,
    variant: str,
    parameters: Mapping[str, float | str],
) -> Forged | None:
    """Close an edit; `edited`, `alpha` and `lesion` are Z×h×w in the site's window. None when too little changed."""
    base = site.pixels
    cleaned, name = touch.draw(edited, base, alpha, site.healthy, rng)
    if not np.isfinite(cleaned).all():
        return None
    local = np.where(alpha > 0, on_grid(cleaned, canvas), base).astype(np.float32)
    apart = differing(local, base) & (alpha > 0)
    if int(apart.sum(axis=(1, 2)).max()) < _SMALLEST_MASK_PX:
        return None
    window = (slice(None), site.rows, site.cols)
    pixels, mask, weights = canvas.pixels.copy(), np.zeros_like(canvas.lesion), np.zeros_like(canvas.pixels)
    truth = canvas.lesion.copy()
    pixels[window], mask[window], weights[window], truth[window] = local, apart, np.clip(alpha, 0, 1), lesion
    return Forged(
        pixels=pixels,
        twin=canvas.pixels,
        mask=mask,
        alpha=weights,
        lesion=truth,
        kind=kind,
        family=family,
        variant=variant,
        parameters={"outline": site.outline, "clean-up": name, **parameters},
    )
