"""Smooth fill of a hole: Telea, Navier–Stokes, harmonic, thin plate, push-pull.

A real attacker would use ImageJ, GIMP's heal tool, or `cv2.inpaint`, and add grain when he is careful.
"""

import cv2
import numpy as np

from dicomguard.retrain.tamper.blend import blend
from dicomguard.retrain.tamper.filters import dilate, float32, gaussian, signed_distance
from dicomguard.retrain.tamper.finish import finish
from dicomguard.retrain.tamper.forged import Canvas, Forged, Mask, Pixels
from dicomguard.retrain.tamper.grain import regrain
from dicomguard.retrain.tamper.membrane import push_pull, relaxed, thin_plate
from dicomguard.retrain.tamper.region import for_removal

_FILLS = ("telea", "navier-stokes", "harmonic", "thin plate", "push-pull")


def _fill(plane: Pixels, hole: Mask, how: str, radius: int, rng: np.random.Generator) -> Pixels:
    if how in ("telea", "navier-stokes"):
        flag = cv2.INPAINT_TELEA if how == "telea" else cv2.INPAINT_NS
        return float32(cv2.inpaint(np.ascontiguousarray(plane), hole.astype(np.uint8), radius, flag))
    if how == "harmonic":
        return relaxed(gaussian(push_pull(plane, hole), 0.7), hole, 40)
    if how == "thin plate":
        return thin_plate(plane, hole, rng)
    return push_pull(plane, hole)


def forge(canvas: Canvas, donor: Canvas | None, rng: np.random.Generator) -> Forged | None:
    del donor
    region = for_removal(canvas, rng, margin=24)
    if region is None:
        return None
    how = str(rng.choice(_FILLS))
    radius = int(rng.integers(2, 7))
    soften = float(rng.uniform(1.5, 5.0)) if how in ("telea", "navier-stokes") and rng.random() < 0.65 else 0.0
    base = region.of(canvas.pixels)
    filled = base.copy()
    for z in range(base.shape[0]):
        hole = dilate(region.core[z], 1)
        if hole.any() and not hole.all():
            filled[z] = _fill(base[z], hole, how, radius, rng)
            if soften:
                # A careful hand smooths away the streaks that a march from the outline leaves.
                deep = np.clip(signed_distance(hole) / soften, 0, 1)
                filled[z] += deep * (gaussian(filled[z], soften) - filled[z])
    grained, way = regrain(filled, base, region.core, rng)
    edited, alpha, seam = blend(
        base, grained, region.core, rng, ways=("gaussian", "inner", "smoothstep", "hard", "ragged")
    )
    return finish(
        canvas,
        region,
        edited,
        alpha,
        rng,
        kind="removed",
        lesion=region.of_mask(canvas.lesion) & ~region.core,
        family="pde",
        variant=how,
        parameters={"grain": way, "seam": seam},
    )
