"""A lesion grown in the patient's own tissue that pushes its surroundings outward.

An attacker follows simulators of tumours (Prastawa, Bullitt and Gerig, "Simulation of brain tumors in MR images for
evaluation of segmentation efficacy", Medical Image Analysis 2009; TumorSim): a smooth displacement, a core, a rim and
oedema, with levels and texture measured on the scan itself.
"""

from dataclasses import dataclass

import numpy as np

from dicomguard.retrain.tamper.filters import depth_inside, dilate, float32, gaussian, largest, smooth_noise, spline_map
from dicomguard.retrain.tamper.forged import Canvas, Forged, Mask, Pixels
from dicomguard.retrain.tamper.sixth_hand.closing import seal, settle
from dicomguard.retrain.tamper.sixth_hand.grain import texture
from dicomguard.retrain.tamper.sixth_hand.scene import free_place, head_scale, healthy, inner, smoothstep, window

VARIANTS = ("ring", "solid", "dark")

_HARMONICS = 5
# The push ends at so many radii; beyond it tissue stays where it was.
_PUSH_ENDS = 1.9
# Displacements below this many px leave no trace and are not made.
_LEAST_PUSH_PX = 0.15
# Oedema of so much of the rim's contrast is drawn into the lesion by a reader.
_OEDEMA_SHOWS = 0.4


@dataclass(frozen=True, slots=True, kw_only=True)
class Growth:
    """One lesion's shape and look, drawn once for all slices. Radii in px, levels in stored values."""

    row: float
    col: float
    drift: tuple[float, float]
    radius: float
    middle: int
    half_slices: float
    waves: Pixels
    phases: Pixels
    push: float
    core_share: float
    middle_level: float
    core: float
    rim: float
    oedema: float
    oedema_reach: float
    blur: float
    rough: float


def forge(canvas: Canvas, donor: Canvas | None, rng: np.random.Generator) -> Forged | None:
    radius = rng.uniform(5, 15) * head_scale(canvas)
    place = free_place(canvas, 1.35 * radius, rng)
    if place is None:
        return None
    radius = min(radius, place[2] / 1.2)
    variant = str(rng.choice(VARIANTS))
    tissue = healthy(canvas, np.zeros_like(canvas.lesion))
    if tissue.sum() < 300:
        return None
    growth = _drawn(canvas, tissue, (place[0], place[1]), radius, variant, rng)
    edited, alpha = canvas.pixels.copy(), np.zeros_like(canvas.pixels)
    lesion = canvas.lesion.copy()
    patterns = _Patterns(rng=rng)
    for z in range(len(canvas.pixels)):
        away = (z - growth.middle) / growth.half_slices
        if abs(away) < 1:
            edited[z], alpha[z], own = _grown(canvas, tissue[z], z, growth, np.sqrt(1 - away**2), patterns)
            lesion[z] |= own
    around = healthy(canvas, alpha > 0)
    settled = settle(canvas, edited, alpha, around, rng, own_grain=True)
    return seal(
        canvas,
        settled,
        alpha,
        kind="added",
        lesion=lesion,
        family="masseffect",
        variant=variant,
        parameters={"radius": radius, "push": growth.push},
    )


def _drawn(
    canvas: Canvas, tissue: Mask, place: tuple[int, int], radius: float, variant: str, rng: np.random.Generator
) -> Growth:
    low, mid, high = (float(v) for v in np.quantile(canvas.pixels[tissue], (0.06, 0.5, 0.94)))
    above = mid - canvas.low
    up, down = max(high - mid, 0.1 * above), float(np.clip(mid - low, 0.1 * above, 0.4 * above))
    bright, dim = mid + up * rng.uniform(0.8, 1.8), mid - down * rng.uniform(0.7, 1.2)
    core, rim, oedema = {
        "ring": (dim, bright, rng.uniform(-0.35, 0.6) * up),
        "solid": (bright, bright * rng.uniform(0.94, 1.04), rng.uniform(0.25, 0.7) * up),
        "dark": (dim, dim + (mid - dim) * rng.uniform(0, 0.35), rng.uniform(-0.2, 0.5) * up),
    }[variant]
    waves = rng.normal(0, 0.16, _HARMONICS) / np.sqrt(1 + np.arange(_HARMONICS))
    reach = float(rng.uniform(1.25, 1.8))
    return Growth(
        row=place[0],
        col=place[1],
        drift=(float(rng.uniform(-1, 1)), float(rng.uniform(-1, 1))),
        radius=radius,
        middle=int(rng.integers(len(canvas.pixels))),
        half_slices=float(rng.uniform(1.6, 4.2)),
        waves=float32(waves),
        phases=float32(rng.uniform(0, 2 * np.pi, _HARMONICS)),
        push=float(rng.uniform(0.15, 0.4)),
        core_share=float(rng.uniform(0.5, 0.75)),
        middle_level=mid,
        core=core,
        rim=rim,
        oedema=oedema,
        oedema_reach=reach,
        blur=float(rng.uniform(1.5, 3.5)) * max(1.0, head_scale(canvas)),
        rough=float(rng.uniform(0.7, 1.2)),
    )


class _Patterns:
    """Random fields that change slowly from slice to slice."""

    _KEPT = 0.75

    def __init__(self, *, rng: np.random.Generator) -> None:
        self.rng = rng
        self._last: dict[str, Pixels] = {}

    def next(self, name: str, field: Pixels) -> Pixels:
        last = self._last.get(name)
        if last is not None and last.shape == field.shape:
            field = float32(self._KEPT * last + np.sqrt(1 - self._KEPT**2) * field)
        self._last[name] = field
        return field


def _grown(
    canvas: Canvas, tissue: Mask, z: int, growth: Growth, share: float, patterns: _Patterns
) -> tuple[Pixels, Pixels, Mask]:
    """Edited slice, blend weight and lesion of one slice; `share` is the slice's part of the largest radius."""
    plane, shape = canvas.pixels[z], canvas.pixels[z].shape
    rng, radius = patterns.rng, growth.radius * share
    lumps = patterns.next("outline", smooth_noise(shape, max(2.0, 0.35 * growth.radius), rng))
    reach, down, right = _reach(shape, growth, z, radius)
    reach = float32(reach * (1 + 0.07 * lumps))
    # The skull does not give way.
    room = smoothstep(depth_inside(inner(canvas)[z]) / (4 * head_scale(canvas)))
    pushed, moved = _pushed(plane, reach, down, right, growth.push * radius, room)
    body = _edge(reach, 1.0, growth.blur, radius)
    swollen = _edge(reach * (1 + 0.12 * lumps), growth.oedema_reach, 0.3 * radius, radius) * room
    mottle = patterns.next("mottle", smooth_noise(shape, max(2.0, growth.radius / 3), rng))
    # A rim is nowhere of one thickness.
    inside = _edge(reach + 0.13 * mottle, growth.core_share, 1.4 * growth.blur, radius)
    fine = patterns.next("texture", texture(plane, tissue, rng))
    contrast = max(abs(growth.rim - growth.core), 0.25 * abs(growth.rim))
    level = growth.rim + (growth.core - growth.rim) * inside + 0.16 * contrast * mottle + growth.rough * fine
    outside = pushed + growth.oedema * swollen * (1 + 0.15 * mottle)
    edited = float32(body * level + (1 - body) * outside)
    touched = largest((body > 0.03) | (np.abs(growth.oedema) * swollen > 1) | (moved > _LEAST_PUSH_PX))
    visible = np.abs(growth.oedema) > _OEDEMA_SHOWS * abs(growth.rim - growth.middle_level)
    own = (body > 0.5) | ((swollen > 0.5) & visible)
    return edited, _weight(touched, canvas.head[z]), own & touched & canvas.head[z]


def _weight(touched: Mask, head: Mask) -> Pixels:
    """1 where something was drawn or moved, soft just outside, 0 at the border of the head."""
    weight = smoothstep(gaussian(dilate(touched, 2).astype(np.float32), 1.2) * 1.25 - 0.1)
    weight = np.where(touched, np.maximum(weight, 0.5), weight) * np.clip(depth_inside(head) / 2, 0, 1)
    return np.where(weight < 0.02, 0, weight).astype(np.float32)


def _reach(shape: tuple[int, ...], growth: Growth, z: int, radius: float) -> tuple[Pixels, Pixels, Pixels]:
    """Distance from the centre in units of the outline's radius, and the unit vector outward."""
    rows, cols = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    down = rows - (growth.row + growth.drift[0] * (z - growth.middle))
    right = cols - (growth.col + growth.drift[1] * (z - growth.middle))
    away = np.hypot(down, right) + 1e-3
    angle = np.arctan2(down, right)
    outline = np.ones_like(away)
    for i, (wave, phase) in enumerate(zip(growth.waves, growth.phases, strict=True)):
        outline += wave * np.cos((i + 1) * angle + phase)
    return float32(away / (radius * np.clip(outline, 0.5, 1.6))), float32(down / away), float32(right / away)


def _pushed(
    plane: Pixels, reach: Pixels, down: Pixels, right: Pixels, push: float, room: Pixels
) -> tuple[Pixels, Pixels]:
    """Tissue moved outward by `push` px at the outline, less and less beyond; and by how much."""
    fade = 1 - smoothstep((reach - 1) / (_PUSH_ENDS - 1))
    # Towards the centre the push vanishes again: there the field would tear.
    moved = float32(push * fade * np.clip(reach / 0.5, 0, 1) * room)
    rows, cols = np.mgrid[: plane.shape[0], : plane.shape[1]].astype(np.float32)
    result = plane.copy()
    near = moved > 0
    if near.any():
        cut = window(near, 2)
        result[cut] = spline_map(plane, (rows - down * moved)[cut], (cols - right * moved)[cut])
    return result, moved


def _edge(reach: Pixels, at: float, width: float, radius: float) -> Pixels:
    """1 inside `at` radii, 0 outside, soft over `width` px."""
    return smoothstep((at - reach) * radius / max(width, 1.0) + 0.5)
