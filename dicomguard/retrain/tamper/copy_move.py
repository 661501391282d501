"""Tissue copied from another place of the same scan: the clone stamp.

A real attacker would use the clone stamp or copy and paste in any paint program, turning and scaling the copy.
"""

import numpy as np

from dicomguard.retrain.tamper.blend import blend
from dicomguard.retrain.tamper.donor import Placement, bring
from dicomguard.retrain.tamper.filters import depth_inside, gaussian
from dicomguard.retrain.tamper.finish import finish
from dicomguard.retrain.tamper.forged import Canvas, Forged, Mask, Pixels
from dicomguard.retrain.tamper.grain import regrain
from dicomguard.retrain.tamper.region import Region, for_removal
from dicomguard.retrain.tamper.resample import draw_method
from dicomguard.retrain.tamper.splice import centre_of, lesion_content, settle


def _healthy_copy(canvas: Canvas, rng: np.random.Generator) -> tuple[Region, Pixels, str] | None:
    """Cover a lesion or healthy tissue with tissue of like brightness from elsewhere in the slice."""
    region = for_removal(canvas, rng)
    if region is None:
        return None
    z = region.centre
    centre = centre_of(region)
    at_row, at_col = region.rows.start + centre[0], region.cols.start + centre[1]
    radius = float(np.sqrt(region.core[z].sum() / np.pi))
    free = canvas.head[z] & ~canvas.lesion[z]
    rows, cols = np.nonzero(depth_inside(free) > 0.8 * radius)
    apart = np.hypot(rows - at_row, cols - at_col) > 1.2 * radius
    rows, cols = rows[apart], cols[apart]
    if rows.size == 0:
        return None
    # Among a few places the one whose smoothed brightness is nearest to that around the footprint.
    picks = rng.integers(rows.size, size=6)
    calm = gaussian(canvas.pixels[z], max(1.0, radius / 2))
    ring = float(np.median(region.of(canvas.pixels)[z][~region.core[z]]))
    best = picks[int(np.argmin(np.abs(calm[rows[picks], cols[picks]] - ring)))]
    whole = bool(rng.random() < 0.35)
    placement = Placement(
        scale=1.0 if whole else float(rng.uniform(0.75, 1.35)),
        angle_rad=0.0 if whole else float(rng.uniform(-np.pi, np.pi)),
        flip=bool(rng.random() < 0.5),
        method="nearest" if whole else draw_method(rng),
    )
    source = (float(rows[best]), float(cols[best]))
    if whole:
        # Whole-pixel copies keep the noise exactly: source and target differ by an integer step.
        centre = (float(round(centre[0])), float(round(centre[1])))
    return region, bring(canvas, z, source, region, centre, placement), placement.method


def forge(canvas: Canvas, donor: Canvas | None, rng: np.random.Generator) -> Forged | None:
    del donor
    adds = bool(canvas.lesion.any() and rng.random() < 0.6)
    if adds:
        brought = lesion_content(canvas, canvas, rng, free=True)
        if brought is None:
            return None
        region, content, inserted, method = brought
        lesion: Mask = region.of_mask(canvas.lesion) | inserted
    else:
        copied = _healthy_copy(canvas, rng)
        if copied is None:
            return None
        region, content, method = copied
        lesion = region.of_mask(canvas.lesion) & ~region.core
    base = region.of(canvas.pixels)
    content, levels = settle(content, base, region.core, rng)
    way = "own"
    if rng.random() < 0.2:
        smooth = np.stack([gaussian(plane, 0.8) for plane in content])
        content, way = regrain(smooth, base, region.core, rng)
    edited, alpha, seam = blend(base, content, region.core, rng)
    return finish(
        canvas,
        region,
        edited,
        alpha,
        rng,
        kind="added" if adds else "removed",
        lesion=lesion,
        family="copy-move",
        variant=seam,
        parameters={"interpolation": method, "levels": levels, "grain": way},
    )
