"""What the families that fill have in common: a place, a soft edge, a fill for each slice, the last steps."""

from collections.abc import Callable, Mapping
from typing import TypeAlias

import numpy as np

from dicomguard.retrain.tamper.forged import Canvas, Forged, Kind, Mask, Pixels
from dicomguard.retrain.tamper.fourth_hand import site as places
from dicomguard.retrain.tamper.fourth_hand.leave import leave
from dicomguard.retrain.tamper.fourth_hand.outline import draw_edge, soften
from dicomguard.retrain.tamper.fourth_hand.site import Site

# Of a site, one of its slices and what is to be filled there (h×w): the slice with a fill, None when there is no way.
Fill: TypeAlias = Callable[[Site, int, Mask], Pixels | None]


def cover(
    canvas: Canvas,
    rng: np.random.Generator,
    fill: Fill,
    *,
    reach: float,
    family: str,
    variant: str,
    parameters: Mapping[str, float | str],
) -> Forged | None:
    """Fill a lesion, or a normal spot where there is none; `reach` in radii of it is how far models are looked for."""
    kind: Kind = "removed" if canvas.lesion.any() else "altered"
    site = (places.over_lesion if kind == "removed" else places.over_spot)(canvas, rng, reach=reach)
    if site is None:
        return None
    width, profile = draw_edge(rng, site.hole)
    alpha = soften(site.hole, site.field, width, profile)
    edited = site.pixels.copy()
    for z in site.planes():
        filled = fill(site, z, alpha[z] > 0)
        if filled is None:
            return None
        edited[z] += alpha[z] * (filled - edited[z])
    return leave(
        canvas,
        site,
        edited,
        alpha,
        rng,
        kind=kind,
        lesion=site.lesion & ~(site.hole & (alpha > 0.5)),
        family=family,
        variant=variant,
        parameters={"edge": width, "profile": profile, **parameters},
    )
