"""Gradient-domain cloning: the content's differences on the target's boundary.

A real attacker would use `cv2.seamlessClone`, GIMP's or Photoshop's healing brush, or a Poisson script. Source: Pérez,
Gangnet, Blake 2003.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from dicomguard.retrain.tamper.blend import feather
from dicomguard.retrain.tamper.filters import dilate, float32, gaussian
from dicomguard.retrain.tamper.finish import finish
from dicomguard.retrain.tamper.forged import Canvas, Forged, Mask, Pixels
from dicomguard.retrain.tamper.membrane import gradients, poisson
from dicomguard.retrain.tamper.region import Region
from dicomguard.retrain.tamper.splice import exchange_grain, healthy_content, lesion_content, settle

# All but these keep some of the target's own detail, which in a removal would be the lesion.
_REPLACING = ("normal", "opencv")
_WAYS = (*_REPLACING, "mixed", "damped", "screened", "opencv mixed")


def _opencv(base: Pixels, content: Pixels, core: Mask, *, mixed: bool) -> Pixels:
    """`cv2.seamlessClone` on 8 bits, as its users get it; finer grey levels come from the base's range."""
    low, high = float(min(base.min(), content.min())), float(max(base.max(), content.max()))
    span = max(high - low, 1e-3)

    def colour(plane: Pixels) -> NDArray[np.uint8]:
        eight = np.clip(np.round((plane - low) / span * 255), 0, 255).astype(np.uint8)
        return np.repeat(eight[..., None], 3, axis=2)

    rows, cols = np.nonzero(core)
    middle = (int(cols.min() + cols.max() + 1) // 2, int(rows.min() + rows.max() + 1) // 2)
    flag = cv2.MIXED_CLONE if mixed else cv2.NORMAL_CLONE
    cloned = cv2.seamlessClone(colour(content), colour(base), core.astype(np.uint8) * 255, middle, flag)
    return float32(cloned[..., 0]) * np.float32(span / 255) + np.float32(low)


def _clone(base: Pixels, content: Pixels, core: Mask, way: str, screen: float) -> Pixels:
    if way.startswith("opencv"):
        return _opencv(base, content, core, mixed=way.endswith("mixed"))
    down, right = gradients(content)
    if way == "mixed":
        own_down, own_right = gradients(base)
        stronger = np.hypot(own_down, own_right) > np.hypot(down, right)
        down, right = np.where(stronger, own_down, down), np.where(stronger, own_right, right)
    elif way == "damped":
        own_down, own_right = gradients(base)
        share = np.float32(0.7)
        down, right = share * down + (1 - share) * own_down, share * right + (1 - share) * own_right
    return poisson(base, core, down, right, screen=screen if way == "screened" else 0.0)


def _inner(region: Region) -> Mask:
    """The footprint without the crop's frame, which the solvers need as boundary."""
    core = region.core.copy()
    core[:, [0, 1, -2, -1], :] = False
    core[:, :, [0, 1, -2, -1]] = False
    return core


def forge(canvas: Canvas, donor: Canvas | None, rng: np.random.Generator) -> Forged | None:
    source = canvas if donor is None or (canvas.lesion.any() and rng.random() < 0.2) else donor
    adds = bool(rng.random() < 0.7)
    brought = lesion_content(canvas, source, rng, free=bool(rng.random() < 0.5)) if adds else None
    if brought is not None:
        region, content, inserted, method = brought
        lesion = region.of_mask(canvas.lesion) | inserted
    else:
        adds = False
        replaced = healthy_content(canvas, source, rng)
        if replaced is None:
            return None
        region, content, method = replaced
        lesion = region.of_mask(canvas.lesion) & ~region.core
    way = str(rng.choice(_WAYS if adds else _REPLACING))
    screen = float(np.exp(rng.uniform(np.log(3e-4), np.log(5e-3))))
    soften = float(rng.uniform(0.6, 1.4)) if rng.random() < 0.5 else 0.0
    base, cores = region.of(canvas.pixels), _inner(region)
    content, levels = settle(content, base, region.core, rng)
    content, grained = exchange_grain(content, base, region.core, rng)
    edited, alpha = base.copy(), np.zeros_like(base)
    for z in np.flatnonzero(cores.any(axis=(1, 2))):
        cloned = _clone(base[z], content[z], cores[z], way, screen)
        # OpenCV also touches the pixels around the mask.
        alpha[z] = dilate(cores[z], 1)
        if soften:
            alpha[z] = np.maximum(feather(cores[z], "inner", 2 * soften, rng), gaussian(alpha[z], 0.5) * cores[z] * 0.5)
        edited[z] = base[z] + alpha[z] * (cloned - base[z])
    return finish(
        canvas,
        region,
        edited,
        alpha,
        rng,
        kind="added" if adds else "removed",
        lesion=lesion,
        family="gradient",
        variant=way,
        parameters={"interpolation": method, "levels": levels, "grain": grained, "soften": round(soften, 2)},
    )
