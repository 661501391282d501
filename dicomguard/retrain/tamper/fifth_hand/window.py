"""Clone stamp on a picture export.

An attacker exports the slice from a viewer at the window he sees, stamps in an 8-bit paint program, and reads it back.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from dicomguard.retrain.tamper.fifth_hand.edge import Drawn, close_edit, kept_inside, lesion_after, tidy
from dicomguard.retrain.tamper.fifth_hand.places import (
    Site,
    drawn_kind,
    free_growth,
    healthy,
    healthy_offset,
    implant,
    lesion_contrast,
    lesion_site,
    mirrored,
    shifted,
    unit,
)
from dicomguard.retrain.tamper.filters import depth_inside, dilate, float32, gaussian, signed_distance
from dicomguard.retrain.tamper.forged import Canvas, Forged, Mask, Pixels

_MOST_STROKES = 18


@dataclass(frozen=True, slots=True, kw_only=True)
class _Window:
    low: float
    span: float

    def export(self, stored: Pixels) -> Pixels:
        """To 0…255, rounded."""
        return float32(np.rint(np.clip((stored - self.low) / self.span, 0, 1) * 255))

    def read(self, eight: Pixels) -> Pixels:
        return float32(self.low + eight / 255 * self.span)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Brush:
    radius: float
    hardness: float
    opacity: float


def forge(canvas: Canvas, donor: Canvas | None, rng: np.random.Generator) -> Forged | None:
    """Stamp a lesion away or in, on the 8-bit export of the slices; None where there is no place."""
    kind = drawn_kind(canvas, rng)
    window = _drawn_window(canvas, rng)
    if window is None:
        return None
    eight = window.export(canvas.pixels)
    if kind == "removed":
        site = lesion_site(canvas, rng)
        variant = str(rng.choice(("aligned stamp", "healing stamp", "mirror stamp")))
        source: Pixels | None = eight
    else:
        variant, site, source = _bright_source(canvas, donor, window, rng)
    if site is None or source is None:
        return None
    radius = float(np.sqrt(site.region[site.middle].sum() / np.pi))
    brush = _Brush(
        radius=max(1.5, rng.uniform(0.3, 0.65) * radius),
        hardness=float(rng.uniform(0.2, 0.7)),
        opacity=float(rng.uniform(0.85, 1.0)),
    )
    fit = healthy(canvas)
    if variant == "mirror stamp":
        flipped, fit = mirrored(canvas, site.middle)
        source = window.export(flipped)
    painted, alpha = eight, np.zeros_like(eight)
    weights = _strokes(site.region, brush, rng)
    for weight in weights:
        if kind == "added":
            copied: Pixels | None = source
        else:
            copied = _stamped_from(canvas, site, source, fit, weight > 0.3, variant, window, rng)
        if copied is None:
            continue
        laid = kept_inside(canvas, weight[None] * site.weights * site.region.any(axis=(1, 2), keepdims=True))
        painted = np.rint(painted + laid * (copied - painted))
        alpha = 1 - (1 - alpha) * (1 - laid)
    alpha = kept_inside(canvas, alpha)
    edited, passed = tidy(painted, alpha, rng)
    drawn: Drawn = {
        "window low": window.low,
        "window span": window.span,
        "strokes": float(len(weights)),
        "brush": brush.radius,
        "hardness": brush.hardness,
        "opacity": brush.opacity,
        "pass": passed,
    }
    return close_edit(
        canvas,
        window.read(np.rint(np.clip(edited, 0, 255))),
        alpha,
        kind=kind,
        lesion=lesion_after(canvas, site, alpha, kind),
        family="window",
        variant=variant,
        parameters=drawn,
    )


def _drawn_window(canvas: Canvas, rng: np.random.Generator) -> _Window | None:
    inside = canvas.pixels[canvas.head]
    if not inside.size:
        return None
    low = float(np.percentile(inside, rng.uniform(0, 2)))
    high = float(np.percentile(inside, rng.uniform(99, 100)))
    return _Window(low=low, span=high - low) if high > low else None


def _bright_source(
    canvas: Canvas, donor: Canvas | None, window: _Window, rng: np.random.Generator
) -> tuple[str, Site | None, Pixels | None]:
    """Variant, site and 8-bit pixels to stamp a lesion from: the donor's, this head's own, or brightened texture."""
    example = donor if donor is not None and donor.lesion.any() else canvas
    if example.lesion.any() and rng.random() < 0.7:
        placed = implant(canvas, example, rng)
        name = "donor stamp" if example is donor else "own lesion stamp"
        return (name, placed[0], window.export(placed[1])) if placed else (name, None, None)
    growth = free_growth(canvas, rng)
    if growth is None:
        return "brightened stamp", None, None
    site = growth.site
    offset = healthy_offset(canvas, healthy(canvas), site.region[site.middle], site.middle, rng)
    contrast = lesion_contrast(canvas, donor, site.middle, rng)
    texture = shifted(canvas.pixels, offset) if offset else canvas.pixels
    gain = float(rng.uniform(0.5, 0.9))
    lifted = np.stack([gaussian(plane, 4 * unit(canvas)) for plane in texture])
    level = lifted + np.float32(contrast) + np.float32(gain) * (texture - lifted)
    return "brightened stamp", site, window.export(float32(level))


def _strokes(region: Mask, brush: _Brush, rng: np.random.Generator) -> list[Pixels]:
    """Soft strokes (each H×W, 0…1) that together cover the region of all slices."""
    strokes: list[Pixels] = []
    left = np.asarray(region.any(axis=0))
    enough = 0.02 * left.sum()
    while left.sum() > enough and len(strokes) < _MOST_STROKES:
        depth = depth_inside(left)
        points = np.argwhere(depth >= 0.7 * depth.max())
        path = [points[rng.integers(len(points))]]
        for _ in range(int(rng.integers(1, 4))):
            near = np.argwhere(left & (_distance_to(path[-1], left.shape) < 3 * brush.radius))
            path.append(near[rng.integers(len(near))])
        weight = _stroke(path, brush, left.shape)
        strokes.append(weight)
        left = left & (weight < 0.6)
    return strokes


def _distance_to(point: np.ndarray, shape: tuple[int, ...]) -> Pixels:
    rows, cols = np.indices(shape)
    return float32(np.hypot(rows - point[0], cols - point[1]))


def _stroke(path: list[np.ndarray], brush: _Brush, shape: tuple[int, ...]) -> Pixels:
    line = np.zeros(shape, np.bool_)
    for start, end in pairwise(path):
        steps = np.linspace(start, end, 2 * int(np.abs(end - start).max()) + 2).round().astype(int)
        line[steps[:, 0], steps[:, 1]] = True
    away = np.maximum(0, -signed_distance(line))
    ramp = np.clip((brush.radius - away) / (brush.radius * (1 - brush.hardness)), 0, 1)
    return float32(brush.opacity * ramp * ramp * (3 - 2 * ramp))


def _stamped_from(
    canvas: Canvas,
    site: Site,
    source: Pixels,
    fit: Mask,
    stroke: Mask,
    variant: str,
    window: _Window,
    rng: np.random.Generator,
) -> Pixels | None:
    """What one stroke copies (Z×H×W, 8 bit), or None where no healthy tissue resembles the place."""
    if variant == "mirror stamp":
        if float(fit[site.middle][stroke].mean()) < 0.5:
            return None
        copied = source
    else:
        offset = healthy_offset(canvas, fit, stroke, site.middle, rng)
        if offset is None:
            return None
        copied = shifted(source, offset)
    if variant == "aligned stamp":
        return copied
    lesions = np.stack([dilate(plane, 3) for plane in canvas.lesion])
    rims = dilate(np.asarray(site.region.any(axis=0)), round(6 * unit(canvas)))[None] & ~lesions & healthy(canvas)
    # A healing brush brings what it copies to the level of the healthy rim about the lesion.
    step = [
        float(np.median(window.export(canvas.pixels[z])[rim]) - np.median(copied[z][stroke])) if rim.any() else 0.0
        for z, rim in enumerate(rims)
    ]
    held = np.clip(step, -25, 25).astype(np.float32)[:, None, None]
    return float32(np.clip(np.rint(copied + held), 0, 255))
