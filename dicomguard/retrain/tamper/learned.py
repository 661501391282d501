"""A hole filled by a trained network: a lesion painted over with healthy tissue, or one made where there was none.

A real attacker would train a small generator on the hospital's own scans, as CT-GAN's authors did (Mirsky 2019), paste
its output and clean up the noise. Networks differ in construction (`inpaint.nets`); this module is imported where torch
is not, so they are loaded at the first forgery.
"""

import numpy as np

from dicomguard.retrain.tamper.blend import FEATHERS, blend, match_ring
from dicomguard.retrain.tamper.filters import dilate, gaussian, signed_distance
from dicomguard.retrain.tamper.finish import finish
from dicomguard.retrain.tamper.forged import Canvas, Forged, Mask
from dicomguard.retrain.tamper.grain import regrain
from dicomguard.retrain.tamper.region import SMALLEST_AREA_PX, Region, for_removal, on_healthy

_GRAINS = ("none", "interpolated", "spectral", "transplanted", "coloured", "signal")
_GRAIN_WEIGHTS = (0.3, 0.2, 0.2, 0.14, 0.08, 0.08)
_LARGEST_MARGIN_PX = 5


def _wanted(region: Region, rng: np.random.Generator) -> Mask:
    """The lesion inside the hole: the footprint without a margin, its outline smooth."""
    margin = float(rng.uniform(1.5, _LARGEST_MARGIN_PX))
    wanted = np.zeros_like(region.core)
    for z in np.flatnonzero(region.core.any(axis=(1, 2))):
        depth = gaussian(signed_distance(region.core[z]), 1.0)
        wanted[z] = depth > min(margin, 0.4 * float(depth.max()))
    return wanted


def forge(canvas: Canvas, donor: Canvas | None, rng: np.random.Generator) -> Forged | None:
    """None also where the package has no weights of any network."""
    del donor
    from dicomguard.retrain.inpaint import fill  # torch comes with it

    offered = fill.offered()
    adds = bool(rng.random() < 0.5)
    region = on_healthy(canvas, rng, margin=24) if adds else for_removal(canvas, rng, margin=24)
    if not offered or region is None:
        return None
    name = str(rng.choice(offered))
    base, before = region.of(canvas.pixels), region.of_mask(canvas.lesion)
    wanted = _wanted(region, rng) if adds else np.zeros_like(region.core)
    if adds and int(wanted[region.centre].sum()) < SMALLEST_AREA_PX // 2:
        return None
    reach = int(rng.integers(0, 3))
    hole = np.stack([dilate(plane, reach) if plane.any() else plane for plane in region.core])
    if hole.all(axis=(1, 2)).any():
        return None
    centre = region.centre
    scale = fill.levels(canvas.pixels[centre : centre + 1], canvas.head[centre : centre + 1])
    content = fill.fill(name, base, hole, wanted, scale, rng)
    gain = "none"
    draw = rng.random()
    if draw < 0.4 and not adds:
        gain = "ring" if draw < 0.25 else "ring and spread"
        content = np.stack(
            [
                match_ring(plane, here, core, spread=draw >= 0.25) if core.any() else plane
                for plane, here, core in zip(content, base, region.core, strict=True)
            ]
        )
    way = str(rng.choice(_GRAINS, p=_GRAIN_WEIGHTS))
    content, way = regrain(content, base, region.core, rng, way=way)
    # A removal that lets the lesion shine through is none.
    strength = float(rng.uniform(0.5 if adds else 0.85, 1.0)) if rng.random() < 0.3 else 1.0
    content = base + np.float32(strength) * (content - base)
    edited, alpha, seam = blend(base, content, region.core, rng, ways=(*FEATHERS, "gradient", "multiband"))
    return finish(
        canvas,
        region,
        edited,
        alpha,
        rng,
        kind="added" if adds else "removed",
        lesion=before | wanted if adds else before & ~region.core,
        family="learned",
        variant=name,
        parameters={"grain": way, "seam": seam, "gain": gain, "strength": round(strength, 2)},
    )
