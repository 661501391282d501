"""Where foreign pixels come from: a lesion to bring over, or healthy tissue of elsewhere to cover one with."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from dicomguard.retrain.tamper.filters import depth_inside, dilate, float32, gaussian, resize
from dicomguard.retrain.tamper.forged import Canvas, Mask, Pixels
from dicomguard.retrain.tamper.fourth_hand.site import Site, brain, common, usable

_SMALLEST_LESION_PX = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """A lesion with its surroundings, cut out of some slices."""

    pixels: Pixels
    lesion: Mask
    # Healthy brain around it.
    around: Mask
    # Brain and lesion: what may be brought over.
    tissue: Mask
    # The middle slice of it.
    peak: int
    radius: float
    # Radius of the head that it came from.
    head_radius: float


def head_radius(canvas: Canvas) -> float:
    return float(np.sqrt(max(1, canvas.head.sum(axis=(1, 2)).max()) / np.pi))


def lesion_of(canvas: Canvas, rng: np.random.Generator) -> Piece | None:
    """One lesion of a person, drawn at random."""
    if not usable(canvas) or not canvas.lesion.any():
        return None
    labels, count = ndimage.label(canvas.lesion & canvas.head, np.ones((3, 3, 3)))
    areas = [int((labels == k).sum(axis=(1, 2)).max()) for k in range(1, count + 1)]
    large = [k for k, area in enumerate(areas, 1) if area >= _SMALLEST_LESION_PX]
    if not large:
        return None
    chosen = labels == large[int(rng.integers(len(large)))]
    # Some lesions are marked without their core.
    lesion = np.stack([np.asarray(ndimage.binary_fill_holes(plane)) for plane in chosen])
    per_slice = lesion.sum(axis=(1, 2))
    peak = int(np.argmax(per_slice))
    radius = float(np.sqrt(per_slice[peak] / np.pi))
    flat = np.logical_or.reduce(lesion, axis=0)
    rows, cols = np.flatnonzero(flat.any(axis=1)), np.flatnonzero(flat.any(axis=0))
    room = int(0.6 * radius) + 8
    window = (
        slice(None),
        slice(max(0, int(rows[0]) - room), int(rows[-1]) + 1 + room),
        slice(max(0, int(cols[0]) - room), int(cols[-1]) + 1 + room),
    )
    inner = np.stack([brain(plane) for plane in canvas.head])[window]
    near = np.stack([dilate(plane, 3) for plane in canvas.lesion[window]])
    return Piece(
        pixels=canvas.pixels[window],
        lesion=lesion[window],
        around=inner & ~near,
        tissue=inner | lesion[window],
        peak=peak,
        radius=radius,
        head_radius=head_radius(canvas),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Laid:
    """A piece as it comes to lie on the canvas, Z×H×W."""

    pixels: Pixels
    lesion: Mask
    around: Mask
    tissue: Mask


def lay(
    canvas: Canvas,
    piece: Piece,
    centre: tuple[int, int, int],
    rng: np.random.Generator,
    *,
    scale: float,
    turn: float,
    flipped: bool,
    methods: tuple[int, ...],
) -> Laid:
    """Turn and scale a piece about its lesion's middle and move it to the centre; one pass or two."""
    shape = canvas.pixels.shape
    middle = np.argwhere(piece.lesion[piece.peak]).mean(axis=0)
    steps = len(methods)
    sign = -1.0 if flipped else 1.0
    # Half of the scale in each of two passes; the turn in the last.
    first = scale ** (1 / steps)
    size = (piece.pixels.shape[1], piece.pixels.shape[2])
    between = (max(4, round(size[0] * first)), max(4, round(size[1] * first))) if steps == 2 else size
    ratio_r, ratio_c = between[0] / size[0], between[1] / size[1]
    cosine, sine = np.cos(turn), np.sin(turn)
    along_c, along_r = sign * scale / ratio_c, scale / ratio_r
    mid_r, mid_c = (middle[0] + 0.5) * ratio_r - 0.5, (middle[1] + 0.5) * ratio_c - 0.5
    linear = np.array([[cosine * along_c, -sine * along_r], [sine * along_c, cosine * along_r]])
    moved = np.array([centre[2], centre[1]]) - linear @ np.array([mid_c, mid_r])
    matrix = np.column_stack([linear, moved])
    pixels = canvas.pixels.copy()
    lesion, around, tissue = (np.zeros(shape, np.bool_) for _ in range(3))
    target = (shape[2], shape[1])
    for z in range(shape[0]):
        k = piece.peak + z - centre[0]
        if not 0 <= k < piece.lesion.shape[0] or not piece.lesion[k].any():
            continue
        plane = piece.pixels[k]
        masks = [mask[k].astype(np.float32) for mask in (piece.lesion, piece.around, piece.tissue)]
        if steps == 2:
            plane = resize(plane, between, methods[0])
            masks = [resize(mask, between) for mask in masks]
        pixels[z] = cv2.warpAffine(plane, matrix, target, flags=methods[-1], borderMode=cv2.BORDER_REFLECT_101)
        warped = [cv2.warpAffine(mask, matrix, target, flags=cv2.INTER_LINEAR) > 0.5 for mask in masks]
        lesion[z] = gaussian(warped[0].astype(np.float32), 1.0) > 0.5
        around[z], tissue[z] = warped[1], warped[2]
    return Laid(pixels=pixels, lesion=lesion & canvas.head, around=around, tissue=tissue)


def like_canvas(donor: Canvas, canvas: Canvas) -> Canvas | None:
    """The donor on the grid of the canvas: slice by slice from the middle, heads on each other by their boxes."""
    if not usable(donor) or not usable(canvas):
        return None
    count, rows, cols = canvas.pixels.shape
    pixels = np.zeros(canvas.pixels.shape, np.float32)
    lesion, head = np.zeros(canvas.pixels.shape, np.bool_), np.zeros(canvas.pixels.shape, np.bool_)
    offset = (donor.pixels.shape[0] - count) // 2
    for z in range(count):
        k = int(np.clip(z + offset, 0, donor.pixels.shape[0] - 1))
        box_to, box_from = _box(canvas.head[z]), _box(donor.head[k])
        if box_to is None or box_from is None:
            continue
        scale_r, scale_c = (box_to[2] / box_from[2], box_to[3] / box_from[3])
        matrix = np.array(
            [[scale_c, 0, box_to[1] - scale_c * box_from[1]], [0, scale_r, box_to[0] - scale_r * box_from[0]]]
        )
        pixels[z] = cv2.warpAffine(donor.pixels[k], matrix, (cols, rows), flags=cv2.INTER_CUBIC)
        for out, mask in ((lesion, donor.lesion[k]), (head, donor.head[k])):
            out[z] = cv2.warpAffine(mask.astype(np.float32), matrix, (cols, rows)) > 0.5
    if int(head.sum(axis=(1, 2)).max()) < 400:
        return None
    return Canvas(pixels=pixels, lesion=lesion, head=head, low=donor.low, high=donor.high)


def _box(mask: Mask) -> tuple[float, float, float, float] | None:
    """Middle and size of a mask, by quantiles so that a nose or an ear does not decide."""
    rows, cols = np.nonzero(mask)
    if rows.size < 100:
        return None
    r0, r1 = np.quantile(rows, [0.02, 0.98])
    c0, c1 = np.quantile(cols, [0.02, 0.98])
    return float(r0 + r1) / 2, float(c0 + c1) / 2, max(float(r1 - r0), 1.0), max(float(c1 - c0), 1.0)


def mirrored(canvas: Canvas) -> Canvas:
    """Left and right exchanged about the middle of each head."""
    flipped = Canvas(
        pixels=canvas.pixels[:, :, ::-1].copy(),
        lesion=canvas.lesion[:, :, ::-1].copy(),
        head=canvas.head[:, :, ::-1].copy(),
        low=canvas.low,
        high=canvas.high,
    )
    return like_canvas(flipped, canvas) or flipped


def elsewhere(site: Site, base: Canvas, rng: np.random.Generator, *, least: float, tries: int = 260) -> Pixels | None:
    """Healthy tissue for the hole from another place of `base` (on the canvas's grid): a shift whose rim fits well.

    Gives the shifted window, `least` pixels or more away; None where no place has healthy tissue for all of the hole.
    """
    if not usable(base):
        return None
    z = int(np.argmax(site.hole.sum(axis=(1, 2))))
    well = brain(base.head[z]) & ~dilate(base.lesion[z], 4)
    inner = site.hole[z]
    ring = dilate(inner, 4) & ~dilate(inner, 1) & site.healthy[z]
    if not ring.any():
        ring = dilate(inner, 4) & ~inner & site.head[z]
    hole_at, ring_at = np.argwhere(inner), np.argwhere(ring)
    if len(hole_at) == 0 or len(ring_at) < 8:
        return None
    hole_at = hole_at[rng.integers(len(hole_at), size=min(160, len(hole_at)))]
    ring_at = ring_at[rng.integers(len(ring_at), size=min(120, len(ring_at)))]
    rows, cols = base.pixels.shape[1:]
    top, left = site.rows.start, site.cols.start
    spots = np.argwhere(well & (depth_inside(well) > 0.4 * depth_inside(inner).max()))
    if len(spots) == 0:
        return None
    middle = hole_at.mean(axis=0) + np.array([top, left])
    picked = spots[rng.integers(len(spots), size=tries)]
    shifts = np.round(picked - middle).astype(int)
    shifts = shifts[np.abs(shifts).max(axis=1) >= least]
    if len(shifts) == 0:
        return None

    def looked_up(array: Pixels | Mask, at: NDArray[np.intp]) -> Pixels:
        r = np.clip(at[None, :, 0] + top + shifts[:, None, 0], 0, rows - 1)
        c = np.clip(at[None, :, 1] + left + shifts[:, None, 1], 0, cols - 1)
        return float32(array[r, c])

    plain = common(base.pixels[z], well)
    sound = (looked_up(well, hole_at).mean(axis=1) > 0.97) & (looked_up(plain, hole_at).mean(axis=1) > 0.85)
    if not sound.any():
        return None
    apart = looked_up(base.pixels[z], ring_at) - site.pixels[z][ring_at[:, 0], ring_at[:, 1]][None]
    offset = apart.mean(axis=1)
    cost = np.abs(apart - offset[:, None]).mean(axis=1) + 0.4 * np.abs(offset)
    cost[~sound] = np.inf
    # Not always the very best: two forgers do not choose alike.
    order = np.argsort(cost)[: max(1, min(4, int(sound.sum())))]
    shift = shifts[int(order[int(rng.integers(len(order)))])]
    r = np.clip(np.arange(site.rows.start, site.rows.stop) + shift[0], 0, rows - 1)
    c = np.clip(np.arange(site.cols.start, site.cols.stop) + shift[1], 0, cols - 1)
    return float32(base.pixels[:, r[:, None], c[None, :]])
