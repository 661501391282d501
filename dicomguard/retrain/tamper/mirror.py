"""The other hemisphere mirrored over a lesion, or a lesion mirrored onto the healthy side.

A real attacker would select the healthy side, flip it, nudge it into place and adjust levels. The midline is found by
matching the surroundings, as the eye does; on planes that have no symmetry (sagittal) there is no match and no forgery.
"""

from dataclasses import dataclass, replace
from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from dicomguard.retrain.tamper.blend import blend
from dicomguard.retrain.tamper.filters import dilate, float32, gaussian, noise_sigma
from dicomguard.retrain.tamper.finish import finish
from dicomguard.retrain.tamper.forged import Canvas, Forged, Mask, Pixels
from dicomguard.retrain.tamper.grain import regrain
from dicomguard.retrain.tamper.region import Region, crop, for_removal, on_healthy
from dicomguard.retrain.tamper.resample import draw_method, sample
from dicomguard.retrain.tamper.splice import centre_of, settle

_T = TypeVar("_T", np.float32, np.bool_)

_LEAST_CORRELATION = 0.45


@dataclass(frozen=True, slots=True, kw_only=True)
class Counterpart:
    """Where the mirrored tissue comes from, in the canvas; angle turns the flipped content."""

    row: float
    col: float
    angle_rad: float


def _midline(canvas: Canvas, z: int) -> float:
    cols = np.flatnonzero(canvas.head[z].any(axis=0))
    return float(cols[0] + cols[-1]) / 2


def counterpart(canvas: Canvas, region: Region, rng: np.random.Generator) -> Counterpart | None:
    """Match the flipped surroundings of the footprint on the other side, by correlation over a few angles."""
    z = region.centre
    calm = gaussian(canvas.pixels[z], 1.2)
    core = region.core[z]
    ring = (dilate(core, 14) & ~dilate(core, 1)).astype(np.float32)
    row, col = centre_of(region)
    row, col = row + region.rows.start, col + region.cols.start
    guess = 2 * _midline(canvas, z) - col
    if abs(guess - col) < 1.3 * float(np.sqrt(core.sum() / np.pi)):
        return None
    template, weight = (
        np.ascontiguousarray(calm[region.rows, region.cols][:, ::-1]),
        np.ascontiguousarray(ring[:, ::-1]),
    )
    height, width = template.shape
    reach = max(6, int(0.06 * canvas.pixels.shape[2]))
    middle_row = row - region.rows.start
    middle_col = (width - 1) - (col - region.cols.start)
    best: tuple[float, Counterpart] | None = None
    top, left = round(row - middle_row) - reach, round(guess - middle_col) - reach
    field = _cut(calm, top, left, height + 2 * reach, width + 2 * reach)
    for angle in (-0.14, -0.07, 0.0, 0.07, 0.14):
        turn = cv2.getRotationMatrix2D((middle_col, middle_row), float(np.degrees(angle)), 1.0)
        turned = float32(cv2.warpAffine(template, turn, (width, height), borderMode=cv2.BORDER_REFLECT_101))
        turned_weight = float32(cv2.warpAffine(weight, turn, (width, height)))
        score = float32(cv2.matchTemplate(field, turned, cv2.TM_CCOEFF_NORMED, mask=turned_weight))
        score[~np.isfinite(score)] = -1
        at = np.unravel_index(int(np.argmax(score)), score.shape)
        value = float(score[at])
        if best is None or value > best[0]:
            found_row, found_col = top + float(at[0]) + middle_row, left + float(at[1]) + middle_col
            best = (value, Counterpart(row=found_row, col=found_col, angle_rad=angle))
    if best is None or best[0] < _LEAST_CORRELATION:
        return None
    jitter = rng.uniform(-0.5, 0.5, 2)
    found = best[1]
    return Counterpart(row=found.row + float(jitter[0]), col=found.col + float(jitter[1]), angle_rad=found.angle_rad)


def _cut(plane: Pixels, top: int, left: int, height: int, width: int) -> Pixels:
    """A window that may hang over the plane; the overhang repeats the frame."""
    rows = np.clip(np.arange(top, top + height), 0, plane.shape[0] - 1)
    cols = np.clip(np.arange(left, left + width), 0, plane.shape[1] - 1)
    return np.ascontiguousarray(plane[np.ix_(rows, cols)])


def _grid(region: Region, place: Counterpart) -> tuple[Pixels, Pixels]:
    height, width = region.core.shape[1:]
    middle = centre_of(region)
    rows = np.arange(height, dtype=np.float32)[:, None] - np.float32(middle[0])
    cols = -(np.arange(width, dtype=np.float32)[None, :] - np.float32(middle[1]))
    # The template was turned by +angle (counter-clockwise on screen) to fit the other side.
    cosine, sine = np.float32(np.cos(place.angle_rad)), np.float32(np.sin(place.angle_rad))
    return float32(place.row - cols * sine + rows * cosine), float32(place.col + cols * cosine + rows * sine)


def _fitted(base: Pixels, content: Pixels, core: Mask) -> tuple[Pixels, Pixels]:
    """Displacement (rows, cols) that brings the mirrored surroundings onto the real ones, smooth inside."""
    low, high = float(base.min()), float(base.max())
    scale = 255 / max(high - low, 1e-3)

    def eight(plane: Pixels) -> NDArray[np.uint8]:
        return np.asarray(np.clip((plane - low) * scale, 0, 255), np.uint8)

    flow = float32(cv2.calcOpticalFlowFarneback(eight(base), eight(content), None, 0.5, 2, 15, 2, 7, 1.5, 0))
    weight = (~core).astype(np.float32)
    blurred = np.maximum(gaussian(weight, 7.0), 1e-3)
    cols, rows = (gaussian(flow[..., axis] * weight, 7.0) / blurred for axis in (0, 1))
    return np.clip(rows, -4, 4), np.clip(cols, -4, 4)


def forge(canvas: Canvas, donor: Canvas | None, rng: np.random.Generator) -> Forged | None:
    del donor
    forged = _forge(canvas, rng)
    if forged is not None:
        return forged
    # A plane may lie on its side: then the midline runs along a row.
    forged = _forge(_on_its_side(canvas), rng)
    if forged is None:
        return None
    return replace(
        forged,
        pixels=_transposed(forged.pixels),
        twin=canvas.pixels,
        mask=_transposed(forged.mask),
        alpha=_transposed(forged.alpha),
        lesion=_transposed(forged.lesion),
    )


def _transposed(stack: NDArray[_T]) -> NDArray[_T]:
    return np.ascontiguousarray(stack.transpose(0, 2, 1))


def _on_its_side(canvas: Canvas) -> Canvas:
    return replace(
        canvas,
        pixels=_transposed(canvas.pixels),
        lesion=_transposed(canvas.lesion),
        head=_transposed(canvas.head),
    )


def _forge(canvas: Canvas, rng: np.random.Generator) -> Forged | None:
    adds = bool(canvas.lesion.any() and rng.random() < 0.3)
    if adds:
        region = _opposite(canvas, rng)
    else:
        region = for_removal(canvas, rng, margin=26)
    place = counterpart(canvas, region, rng) if region is not None else None
    if region is None or place is None:
        return None
    method = draw_method(rng)
    elastic = bool(rng.random() < 0.45)
    base = region.of(canvas.pixels)
    rows, cols = _grid(region, place)
    content = base.copy()
    brought = np.zeros(region.core.shape, np.bool_)
    for z in np.flatnonzero(region.core.any(axis=(1, 2))):
        row_map, col_map = rows, cols
        if elastic:
            first = sample(canvas.pixels[z], rows, cols, "linear")
            down, right = _fitted(base[z], first, region.core[z])
            # Through the flip a step to the right in the target is a step to the left in the source.
            row_map, col_map = float32(rows + down), float32(cols - right)
        content[z] = sample(canvas.pixels[z], row_map, col_map, method if method != "fourier" else "lanczos")
        brought[z] = sample(canvas.lesion[z].astype(np.float32), row_map, col_map, "linear") > 0.5
    content, levels = settle(content, base, region.core, rng)
    way = "own"
    if rng.random() < 0.25 and noise_sigma(base[region.centre], region.core[region.centre]) > 0:
        content, way = regrain(np.stack([gaussian(p, 0.8) for p in content]), base, region.core, rng)
    edited, alpha, seam = blend(base, content, region.core, rng)
    inside = brought & region.core
    lesion = (region.of_mask(canvas.lesion) & ~region.core) | inside
    gains = bool(inside.sum() > 0.2 * region.core.sum())
    return finish(
        canvas,
        region,
        edited,
        alpha,
        rng,
        kind="added" if gains else "removed",
        lesion=lesion,
        family="mirror",
        variant=seam,
        parameters={"interpolation": method, "levels": levels, "grain": way, "fit": "elastic" if elastic else "rigid"},
    )


def _opposite(canvas: Canvas, rng: np.random.Generator) -> Region | None:
    """A footprint on the healthy side over against the lesion."""
    areas = canvas.lesion.sum(axis=(1, 2))
    z = int(np.argmax(areas))
    middle = _midline(canvas, z)
    cols = np.round(2 * middle - np.arange(canvas.pixels.shape[2])).astype(int)
    inside = (cols >= 0) & (cols < canvas.pixels.shape[2])
    core = np.zeros(canvas.lesion.shape, np.bool_)
    for at in np.flatnonzero(areas > 0):
        flipped = np.zeros(canvas.lesion.shape[1:], np.bool_)
        flipped[:, inside] = canvas.lesion[at][:, cols[inside]]
        core[at] = dilate(flipped, int(rng.integers(1, 5))) & canvas.head[at] & ~canvas.lesion[at]
    return crop(core, margin=26, outline="mirrored", centre=z) or on_healthy(canvas, rng, margin=26)
