"""A slice's tissue replaced by that of a neighbouring slice, brought into line.

A real attacker would use an older study of the same patient, or simply the slices above and below the lesion, with
their gain matched and noise topped up.
"""

import cv2
import numpy as np

from dicomguard.retrain.tamper.blend import blend
from dicomguard.retrain.tamper.filters import each, float32, gaussian
from dicomguard.retrain.tamper.finish import finish
from dicomguard.retrain.tamper.forged import Canvas, Forged, Kind, Mask, Pixels
from dicomguard.retrain.tamper.grain import grain, regrain
from dicomguard.retrain.tamper.region import Region, for_removal, on_healthy
from dicomguard.retrain.tamper.resample import draw_method, sample
from dicomguard.retrain.tamper.splice import settle

_WAYS = ("copy", "copy", "mean", "registered")


def _registered(source: Pixels, target: Pixels, core: Mask, method: str) -> Pixels:
    """The source shifted by the phase correlation of the surroundings, at most 3 px."""
    weight = gaussian((~core).astype(np.float32), 2.0)
    (right, down), _ = cv2.phaseCorrelate(
        np.float64(weight * target),
        np.float64(weight * source),
        cv2.createHanningWindow(target.shape[::-1], cv2.CV_64F),
    )
    down, right = float(np.clip(down, -3, 3)), float(np.clip(right, -3, 3))
    rows, cols = np.mgrid[0 : target.shape[0], 0 : target.shape[1]].astype(np.float32)
    return sample(source, float32(rows + down), float32(cols + right), method)


def _single(region: Region, z: int) -> Region:
    core = np.zeros_like(region.core)
    core[z] = region.core[region.centre]
    return Region(core=core, rows=region.rows, cols=region.cols, outline=region.outline, centre=z)


def forge(canvas: Canvas, donor: Canvas | None, rng: np.random.Generator) -> Forged | None:
    del donor
    count = canvas.pixels.shape[0]
    region = None
    if count >= 2:
        region = for_removal(canvas, rng) if rng.random() < 0.8 else on_healthy(canvas, rng)
    if region is None:
        return None
    z = region.centre
    region = _single(region, z)
    steps = [step for step in (-2, -1, 1, 2) if 0 <= z + step < count]
    step = int(rng.choice(steps))
    way = str(rng.choice(_WAYS))
    method = draw_method(rng)
    base, lesions = region.of(canvas.pixels), region.of_mask(canvas.lesion)
    other, truth = base[z + step], lesions[z + step]
    if way == "mean" and 0 <= z - step < count:
        share = np.float32(rng.uniform(0.35, 0.65))
        other = share * other + (1 - share) * base[z - step]
        truth = truth | lesions[z - step]
    elif way == "mean":
        way = "copy"
    if way == "registered":
        other = _registered(other, base[z], region.core[z], method)
    content = base.copy()
    content[z] = other
    content, levels = settle(content, base, region.core, rng)
    added, strength = "none", float(rng.uniform(0.2, 0.7))
    draw = rng.random()
    if way == "mean" and draw < 0.6:
        added = "topped up"
        content[z] = content[z] + grain(content[z], base[z], region.core[z], "signal", strength, rng)
    elif draw > 0.75:
        content, added = regrain(each(content, lambda plane: gaussian(plane, 0.7)), base, region.core, rng)
    edited, alpha, seam = blend(base, content, region.core, rng)
    lesion = lesions.copy()
    lesion[z] = np.where(region.core[z], truth, lesions[z])
    lost = int((lesions[z] & region.core[z]).sum())
    kept = int((truth & region.core[z]).sum())
    kind: Kind = "removed"
    if kept > 0.3 * max(1, lost):
        kind = "added" if lost == 0 else "altered"
    return finish(
        canvas,
        region,
        edited,
        alpha,
        rng,
        kind=kind,
        lesion=lesion,
        family="neighbour",
        variant=way,
        parameters={"levels": levels, "grain": added, "seam": seam, "interpolation": method, "step": float(step)},
    )
