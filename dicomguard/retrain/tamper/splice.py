"""A lesion, or healthy tissue, cut out of another patient's scan and laid in.

A real attacker would use ITK-SNAP, 3D Slicer or Photoshop: select, copy, scale, rotate, paste, adjust levels.
"""

from dataclasses import replace

import numpy as np

from dicomguard.retrain.tamper.blend import blend, match_ring
from dicomguard.retrain.tamper.donor import Placement, bring, draw_placement, outline, pick_lesion, to_scale
from dicomguard.retrain.tamper.filters import gaussian
from dicomguard.retrain.tamper.finish import finish
from dicomguard.retrain.tamper.forged import Canvas, Forged, Mask, Pixels
from dicomguard.retrain.tamper.grain import regrain
from dicomguard.retrain.tamper.region import Region, on_healthy, over_lesion, put
from dicomguard.retrain.tamper.resample import draw_method

# Share of a footprint that the donor's own lesion may take when healthy tissue is wanted.
_LESION_TOLERATED = 0.02


def centre_of(region: Region) -> tuple[float, float]:
    """Middle (row, column) of the footprint in its own crop."""
    rows, cols = np.nonzero(region.core[region.centre])
    return float(rows.min() + rows.max()) / 2, float(cols.min() + cols.max()) / 2


def lesion_content(
    canvas: Canvas, donor: Canvas, rng: np.random.Generator, *, free: bool
) -> tuple[Region, Pixels, Mask, str] | None:
    """A place on healthy tissue, the donor's lesion brought there on the target's grey scale, and its truth.

    Returns region, Z×h×w content, Z×h×w inserted lesion, interpolation.
    """
    lesion = pick_lesion(donor, rng)
    if lesion is None:
        return None
    placement = draw_placement(canvas, donor, lesion, rng, free=free)
    own, wide = outline(lesion, placement, rng)
    region = on_healthy(canvas, rng, shape=wide)
    if region is None:
        return None
    if region.core[region.centre].sum() < 0.5 * wide.sum():
        return None
    centre = centre_of(region)
    content = to_scale(
        bring(donor, lesion.z, (lesion.row, lesion.col), region, centre, placement),
        donor,
        lesion.z,
        canvas,
        region.centre,
    )
    plane = put(own, canvas, region.rows.start + round(centre[0]), region.cols.start + round(centre[1]))
    inserted = region.core & plane[None, region.rows, region.cols]
    return region, content, inserted, placement.method


def healthy_content(canvas: Canvas, donor: Canvas, rng: np.random.Generator) -> tuple[Region, Pixels, str] | None:
    """The lesion (or a healthy place) covered with the donor's tissue from the like position in the head."""
    region = over_lesion(canvas, rng) if rng.random() < 0.7 else None
    region = region or on_healthy(canvas, rng)
    # From the like position of the same scan would come the very tissue that is to go.
    if region is None or donor is canvas:
        return None
    z = int(np.clip(donor.pixels.shape[0] // 2, 0, donor.pixels.shape[0] - 1))
    if not donor.head[z].any():
        return None
    target_rows, target_cols = np.nonzero(canvas.head[region.centre])
    source_rows, source_cols = np.nonzero(donor.head[z])
    scale_rows = float(np.ptp(target_rows) + 1) / float(np.ptp(source_rows) + 1)
    centre = centre_of(region)
    row = source_rows.min() + (region.rows.start + centre[0] - target_rows.min()) / scale_rows
    scale_cols = float(np.ptp(target_cols) + 1) / float(np.ptp(source_cols) + 1)
    col = source_cols.min() + (region.cols.start + centre[1] - target_cols.min()) / scale_cols
    placement = Placement(
        scale=float(np.clip(np.sqrt(scale_rows * scale_cols), 0.4, 2.5)),
        angle_rad=float(rng.normal(0, 0.06)),
        flip=False,
        method=draw_method(rng),
    )
    marked = replace(donor, pixels=donor.lesion.astype(np.float32))
    brought = bring(marked, z, (row, col), region, centre, replace(placement, method="linear"))
    if float(brought[region.core].mean()) > _LESION_TOLERATED:
        return None
    content = bring(donor, z, (row, col), region, centre, placement)
    return region, to_scale(content, donor, z, canvas, region.centre), placement.method


def settle(content: Pixels, base: Pixels, core: Mask, rng: np.random.Generator) -> tuple[Pixels, str]:
    """Adjust levels as a careful hand does: by the ring's mean, mean and spread, or not at all."""
    way = str(rng.choice(["mean", "mean and spread", "head only"], p=[0.5, 0.35, 0.15]))
    if way == "head only":
        return content, way
    matched = [
        match_ring(plane, around, inside, spread=way == "mean and spread") if inside.any() else plane
        for plane, around, inside in zip(content, base, core, strict=True)
    ]
    return np.stack(matched), way


def exchange_grain(content: Pixels, base: Pixels, core: Mask, rng: np.random.Generator) -> tuple[Pixels, str]:
    """Half of the time the donor's noise is smoothed away and replaced by grain like the target's."""
    if rng.random() < 0.5:
        return content, "own"
    sigma = float(rng.uniform(0.6, 1.3))
    smooth = np.stack([gaussian(plane, sigma) for plane in content])
    return regrain(smooth, base, core, rng)


def forge(canvas: Canvas, donor: Canvas | None, rng: np.random.Generator) -> Forged | None:
    if donor is None:
        return None
    adds = bool(rng.random() < 0.72)
    if adds:
        brought = lesion_content(canvas, donor, rng, free=bool(rng.random() < 0.5))
        if brought is None:
            return None
        region, content, inserted, method = brought
        lesion = region.of_mask(canvas.lesion) | inserted
    else:
        replaced = healthy_content(canvas, donor, rng)
        if replaced is None:
            return None
        region, content, method = replaced
        lesion = region.of_mask(canvas.lesion) & ~region.core
    base = region.of(canvas.pixels)
    content, levels = settle(content, base, region.core, rng)
    content, way = exchange_grain(content, base, region.core, rng)
    edited, alpha, seam = blend(base, content, region.core, rng)
    return finish(
        canvas,
        region,
        edited,
        alpha,
        rng,
        kind="added" if adds else "removed",
        lesion=lesion,
        family="splice",
        variant=seam,
        parameters={"interpolation": method, "levels": levels, "grain": way},
    )
