"""A slice's region made anew from its neighbours: interpolated between them along the motion from one to the other.

What an attacker does who lets a frame interpolator, or an old study's neighbouring slice, draw what should be there: a
lesion of one slice goes, or one comes from next door; the averaging's loss of noise is made up.
"""

import cv2
import numpy as np

from dicomguard.retrain.tamper.filters import dilate, float32
from dicomguard.retrain.tamper.forged import Canvas, Forged, Mask, Pixels
from dicomguard.retrain.tamper.third_hand import carry, flow, seams, texture
from dicomguard.retrain.tamper.third_hand.closing import close_up, kind_of
from dicomguard.retrain.tamper.third_hand.ground import lesion_place, new_place, only, window

_MARGIN = 24
_WAYS = {"linear": cv2.INTER_LINEAR, "cubic": cv2.INTER_CUBIC, "lanczos": cv2.INTER_LANCZOS4}


def _interpolated(
    before: Pixels, after: Pixels, marks: tuple[Mask, Mask], share: float, engine: str, how: int
) -> tuple[Pixels, Mask]:
    """The picture at `share` of the way, both neighbours moved to it; their lesions with them."""
    field = flow.motion(before, after, engine)
    field = flow.calmed(field, np.ones(before.shape, np.bool_), 2.0)
    to_before, to_after = -share * field, (1 - share) * field
    made = (1 - share) * flow.followed(before, to_before, how) + share * flow.followed(after, to_after, how)
    lesion = (1 - share) * flow.followed(marks[0].astype(np.float32), to_before, cv2.INTER_LINEAR)
    lesion += share * flow.followed(marks[1].astype(np.float32), to_after, cv2.INTER_LINEAR)
    return float32(made), np.asarray(lesion > 0.5)


def _followed(pixels: Pixels, other: Pixels, mark: Mask, core: Mask, engine: str, how: int) -> tuple[Pixels, Mask]:
    """One neighbour moved onto the slice by the motion outside the footprint."""
    field = flow.calmed(flow.motion(pixels, other, engine), ~dilate(core, 2), 6.0)
    brought = flow.followed(mark.astype(np.float32), field, cv2.INTER_LINEAR) > 0.5
    return flow.followed(other, field, how), np.asarray(brought)


def _grained(made: Pixels, pixels: Pixels, core: Mask, tissue: Mask, rng: np.random.Generator) -> Pixels:
    """Noise that interpolation and averaging took, put back as the tissue's."""
    lacking = texture.level(pixels, tissue) ** 2 - texture.level(made, core) ** 2
    if lacking <= 0:
        return made
    grain = texture.like(pixels, tissue, made.shape, str(rng.choice(["spectrum", "stitched", "white"])), rng)
    own = max(texture.level(grain, np.ones_like(core)), 1e-3)
    return float32(made + grain * np.float32(np.sqrt(lacking) / own))


def _sources(z: int, count: int, used: str) -> tuple[int, int]:
    if used == "both":
        return z - 1, z + 1
    return (z - 1, z - 1) if z > 0 and (used == "below" or z == count - 1) else (z + 1, z + 1)


def forge(canvas: Canvas, donor: Canvas | None, rng: np.random.Generator) -> Forged | None:
    count = canvas.pixels.shape[0]
    if count < 2:
        return None
    over = lesion_place(canvas, rng, margin=_MARGIN) if rng.random() < 0.5 else None
    ground = over or new_place(canvas, rng, margin=_MARGIN)
    if ground is None:
        return None
    # One slice, so that its sources are authentic; of a lesion also its last one, which then ends a slice earlier.
    planes = ground.planes()
    z = planes[int(rng.integers(len(planes)))]
    ground = only(ground, z)
    if ground is None:
        return None
    used = str(rng.choice(["both", "below", "above"], p=[0.5, 0.25, 0.25])) if 0 < z < count - 1 else "below"
    first, second = _sources(z, count, used)
    engine = flow.ENGINES[int(rng.integers(2))]
    way = list(_WAYS)[int(rng.integers(len(_WAYS)))]
    pixels, core, tissue = window(ground, canvas, z)
    stack, marks = ground.region.of(canvas.pixels), ground.region.of_mask(canvas.lesion)
    if first == second:
        made, brought = _followed(pixels, stack[first], marks[first], core, engine, _WAYS[way])
    else:
        share = float(rng.choice([0.5, rng.uniform(0.3, 0.7)]))
        made, brought = _interpolated(
            stack[first], stack[second], (marks[first], marks[second]), share, engine, _WAYS[way]
        )
    match = str(rng.choice(["linear", "offset", "histogram", "none"]))
    made = carry.matched(made, tissue, pixels, tissue, match)
    topped = rng.random() < 0.7
    if topped:
        made = _grained(made, pixels, core, tissue, rng)
    alpha, ramp = seams.draw_ramp(ground.level[z], core, rng)
    mixed = seams.multiband(pixels, made, alpha) if rng.random() < 0.3 else seams.mixed(pixels, made, alpha)
    truth = marks.copy()
    truth[z] = np.where(alpha > 0.5, brought & core, truth[z])
    return close_up(
        canvas,
        ground,
        {z: (mixed, alpha)},
        rng,
        kind=kind_of(marks, truth),
        lesion=truth,
        family="third/between",
        variant=f"{'both' if first != second else 'one'}, {engine}, {way}",
        parameters={"match": match, "topped up": float(topped), "ramp": ramp},
    )
