"""The last steps that all families of this hand share: seam strength, local clean-up, truth, and the common finish."""

from collections.abc import Mapping
from typing import Literal

import numpy as np

from dicomguard.retrain.tamper.finish import finish
from dicomguard.retrain.tamper.forged import Canvas, Forged, Kind, Mask, Pixels
from dicomguard.retrain.tamper.region import SMALLEST_AREA_PX
from dicomguard.retrain.tamper.third_hand import care
from dicomguard.retrain.tamper.third_hand.ground import Ground, window


def close_up(
    canvas: Canvas,
    ground: Ground,
    planes: Mapping[int, tuple[Pixels, Pixels]],
    rng: np.random.Generator,
    *,
    kind: Kind,
    lesion: Mask,
    family: str,
    variant: str,
    parameters: Mapping[str, float | str] | None = None,
) -> Forged | None:
    """Close an edit of some planes (index → h×w pixels and alpha); `lesion` is the Z×h×w truth after it."""
    edited = ground.region.of(canvas.pixels).copy()
    alpha = np.zeros_like(edited)
    passes = care.draw_local(rng)
    for z, (pixels, weight) in planes.items():
        _, core, tissue = window(ground, canvas, z)
        plane = pixels
        for name in passes:
            plane = care.LOCAL[name](plane, core, tissue, rng)
        edited[z] = np.where(core, plane, edited[z])
        alpha[z] = np.where(core, weight, 0)
    return finish(
        canvas,
        ground.region,
        edited,
        alpha,
        rng,
        kind=kind,
        lesion=lesion,
        family=family,
        variant=variant,
        parameters={"care": " + ".join(passes) or "none", **(parameters or {})},
        touch_up=False,
    )


def without(canvas: Canvas, ground: Ground, alpha: Mapping[int, Pixels]) -> Mask:
    """Lesion truth in the crop after a removal: gone where the new content rules."""
    truth = ground.region.of_mask(canvas.lesion).copy()
    for z, weight in alpha.items():
        truth[z] &= weight < 0.5
    return truth


def kind_of(before: Mask, after: Mask) -> Literal["added", "removed", "altered"]:
    """What a replacement did to the lesion."""
    gone, come = int((before & ~after).sum()), int((after & ~before).sum())
    if come >= SMALLEST_AREA_PX and come > 4 * gone:
        return "added"
    if gone >= SMALLEST_AREA_PX and gone > 4 * come:
        return "removed"
    return "altered"
