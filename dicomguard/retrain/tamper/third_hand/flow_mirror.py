"""Removal by the healthy hemisphere: mirrored about the midline, bent onto the place by dense optical flow.

What an attacker does with "flip horizontal", warp and a careful brightness match; also a lesion mirrored to the other
side.
"""

import cv2
import numpy as np

from dicomguard.retrain.tamper.filters import dilate, erode, float32, signed_distance
from dicomguard.retrain.tamper.forged import Canvas, Forged, Mask, Pixels
from dicomguard.retrain.tamper.third_hand import carry, flow, midline, seams, texture
from dicomguard.retrain.tamper.third_hand.closing import close_up, without
from dicomguard.retrain.tamper.third_hand.ground import Ground, ground, removal_place, window
from dicomguard.retrain.tamper.third_hand.smooth import masked_blur

_MARGIN = 24
_WAYS = {"linear": cv2.INTER_LINEAR, "cubic": cv2.INTER_CUBIC, "lanczos": cv2.INTER_LANCZOS4}
_MATCHES = ("local linear", "linear", "histogram", "offset")
_MOST_OVERLAP = 0.2


def _mirrored(plane: Pixels, line: midline.Midline, ground: Ground, how: int) -> Pixels:
    """The crop of the slice's mirror image."""
    top, left = ground.region.rows.start, ground.region.cols.start
    matrix = line.matrix().astype(np.float64)
    matrix[:, 2] += matrix[:, :2] @ np.array([left, top])
    height, width = ground.level.shape[1:]
    return float32(
        cv2.warpAffine(plane, matrix, (width, height), flags=how | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REFLECT)
    )


def _locally_linear(content: Pixels, pixels: Pixels, trusted: Mask, sigma: float) -> Pixels:
    """Gain and offset from windows of tissue around, carried into the footprint by normalised convolution."""
    here, there = masked_blur(pixels, trusted, sigma), masked_blur(content, trusted, sigma)
    both = masked_blur(content * pixels, trusted, sigma) - here * there
    own = masked_blur(content * content, trusted, sigma) - there * there
    # Half way to a gain of one: noise alone would make it too small.
    floor = np.float32(max(texture.level(pixels, trusted), 0.3) ** 2)
    gain = np.clip((both + 2 * floor) / (own + 2 * floor), 0.6, 1.6)
    return float32(here + gain * (content - there))


def _across(canvas: Canvas, line: midline.Midline) -> Ground | None:
    """Ground on the mirror image of the lesion."""
    count, height, width = canvas.lesion.shape
    level = np.full(canvas.lesion.shape, -1e3, np.float32)
    for z in range(count):
        if canvas.lesion[z].any():
            image = cv2.warpAffine(
                signed_distance(canvas.lesion[z]).clip(-30, 30), line.matrix(), (width, height), borderValue=-30.0
            )
            level[z] = image + 2.0
    centre = int(np.argmax(canvas.lesion.sum(axis=(1, 2))))
    # A lesion at the midline would be laid over itself.
    if ((level[centre] > 0) & canvas.lesion[centre]).sum() > _MOST_OVERLAP * canvas.lesion[centre].sum():
        return None
    return ground(canvas, level, outline="lesion", centre=centre, margin=_MARGIN)


def forge(canvas: Canvas, donor: Canvas | None, rng: np.random.Generator) -> Forged | None:
    adds = bool(rng.random() < 0.2) and bool(canvas.lesion.any())
    place = None if adds else removal_place(canvas, rng, margin=_MARGIN)
    if not adds and place is None:
        return None
    centre = int(np.argmax(canvas.lesion.sum(axis=(1, 2)))) if place is None else place.region.centre
    line = midline.find(canvas.pixels[centre], canvas.head[centre])
    if line is None:
        return None
    if place is None:
        place = _across(canvas, line)
        if place is None:
            return None
    engine = flow.ENGINES[int(rng.integers(2))]
    way = list(_WAYS)[int(rng.integers(len(_WAYS)))]
    match = _MATCHES[int(rng.integers(len(_MATCHES)))]
    sigma = float(rng.uniform(3.0, 9.0))
    bands = bool(rng.random() < 0.6)
    planes, weights = {}, {}
    truth = place.region.of_mask(canvas.lesion).copy()
    for z in place.planes():
        pixels, core, tissue = window(place, canvas, z)
        content = _mirrored(canvas.pixels[z], line, place, _WAYS[way])
        sick = _mirrored(canvas.lesion[z].astype(np.float32), line, place, cv2.INTER_LINEAR) > 0.3
        brain = _mirrored(erode(canvas.head[z], 4).astype(np.float32), line, place, cv2.INTER_LINEAR) > 0.5
        if not adds and int(((sick | ~brain) & core).sum()) > _MOST_OVERLAP * int(core.sum()):
            continue
        trusted = tissue & ~dilate(core, 2) & ~sick
        if int(trusted.sum()) < 40:
            continue
        field = flow.calmed(flow.motion(pixels, content, engine), trusted, sigma)
        # One interpolation, not two: the motion is put into the mirroring.
        content = _bent(canvas.pixels[z], line, place, field, _WAYS[way])
        sick = _bent(canvas.lesion[z].astype(np.float32), line, place, field, cv2.INTER_LINEAR) > 0.5
        if match == "local linear":
            content = _locally_linear(content, pixels, trusted & ~sick, sigma + 3.0)
        else:
            content = carry.matched(content, trusted & ~sick, pixels, trusted, match)
        alpha, ramp = seams.draw_ramp(place.level[z], core, rng, hard=False)
        mixed = seams.multiband(pixels, content, alpha) if bands else seams.mixed(pixels, content, alpha)
        planes[z], weights[z] = (mixed, alpha), alpha
        truth[z] |= sick & core & (alpha > 0.5)
    if not planes:
        return None
    return close_up(
        canvas,
        place,
        planes,
        rng,
        kind="added" if adds else "removed",
        lesion=truth if adds else without(canvas, place, weights),
        family="third/flow-mirror",
        variant=f"{engine}, {way}, {match}",
        parameters={"ramp": ramp, "bands": float(bands), "likeness": line.likeness},
    )


def _bent(plane: Pixels, line: midline.Midline, ground: Ground, field: Pixels, how: int) -> Pixels:
    rows = ground.region.rows.start + np.arange(field.shape[0], dtype=np.float32)[:, None] + field[..., 1]
    cols = ground.region.cols.start + np.arange(field.shape[1], dtype=np.float32)[None, :] + field[..., 0]
    matrix = line.matrix()
    there_cols = matrix[0, 0] * cols + matrix[0, 1] * rows + matrix[0, 2]
    there_rows = matrix[1, 0] * cols + matrix[1, 1] * rows + matrix[1, 2]
    return float32(cv2.remap(plane, there_cols, there_rows, how, borderMode=cv2.BORDER_REFLECT))
