"""How the fifth hand ends an edit: soft edge, small clean-up, stored values.

An attacker feathers his selection, goes over the seam with a retouching tool and saves.
"""

from collections.abc import Mapping

import numpy as np

from dicomguard.retrain.tamper.fifth_hand.places import Site, unit
from dicomguard.retrain.tamper.filters import (
    depth_inside,
    float32,
    gaussian,
    median,
    signed_distance,
    smooth_noise,
    unsharp,
)
from dicomguard.retrain.tamper.finish import differing, on_grid
from dicomguard.retrain.tamper.forged import Canvas, Forged, Kind, Mask, Pixels

_SMALLEST_MASK_PX = 24
# A weight below this moves no stored value that anybody would see.
_LEAST_ALPHA = np.float32(0.02)

Drawn = dict[str, float | str]


def soft_edge(canvas: Canvas, site: Site, rng: np.random.Generator, *, grow: float) -> tuple[Pixels, Drawn]:
    """Z×H×W blend weight: 1 inside the site grown by `grow` pixels of a 256×256 slice, falling off to 0."""
    scale = unit(canvas)
    shape = str(rng.choice(("linear", "smooth", "ragged")))
    width = float(rng.uniform(2.5, 7.0) * scale)
    bends = smooth_noise((canvas.pixels.shape[1], canvas.pixels.shape[2]), 3 * scale + 1, rng)
    alpha = np.zeros_like(canvas.pixels)
    for z in site.run:
        distance = signed_distance(site.region[z]) + np.float32(grow * scale)
        if shape == "ragged":
            distance += np.float32(0.35 * width) * bends
        ramp = np.clip(0.5 + distance / width, 0, 1)
        alpha[z] = ramp if shape == "linear" else ramp * ramp * (3 - 2 * ramp)
    return kept_inside(canvas, alpha * site.weights), {"edge": shape, "edge width": width, "edge grow": grow}


def kept_inside(canvas: Canvas, alpha: Pixels) -> Pixels:
    """Let a Z×H×W weight run out at the border of the head, and drop what is too weak to matter."""
    held = np.zeros_like(alpha)
    for z in np.flatnonzero(alpha.any(axis=(1, 2))):
        held[z] = np.clip(alpha[z], 0, 1) * np.clip(depth_inside(canvas.head[z]) / 2, 0, 1)
    return np.where(held < _LEAST_ALPHA, np.float32(0), held)


def tidy(edited: Pixels, alpha: Pixels, rng: np.random.Generator) -> tuple[Pixels, str]:
    """A retouching pass of a drawn kind over the edited place (Z×H×W) only."""
    name = str(rng.choice(("none", "none", "seam smoothed", "despeckled", "sharpened")))
    amount = np.float32(rng.uniform(0.25, 0.6))
    if name == "none":
        return edited, name
    passed = edited.copy()
    for z in np.flatnonzero(alpha.any(axis=(1, 2))):
        if name == "seam smoothed":
            target, where = gaussian(edited[z], 0.7), 4 * alpha[z] * (1 - alpha[z])
        elif name == "despeckled":
            target, where = median(edited[z], 3), 0.6 * alpha[z]
        else:
            target, where = unsharp(edited[z], sigma=1.0, amount=0.4), alpha[z]
        passed[z] = edited[z] + amount * where * (target - edited[z])
    return passed, name


def membrane(plane: Pixels, hole: Mask, trusted: Mask) -> Pixels:
    """H×W with the hole spanned by a smooth skin between the `trusted` pixels about it."""
    known = float32(trusted & ~hole)
    mean = float((plane * known).sum() / max(1.0, float(known.sum())))
    skin, radius = plane.copy(), max(1.0, float(depth_inside(hole).max()))
    # Coarse guesses first; the finer ones then only have to settle the neighbourhood of the border.
    for sigma in (radius, radius / 2, radius / 4):
        share = gaussian(known, sigma)
        guess = (gaussian(plane * known, sigma) + 1e-3 * mean) / (share + 1e-3)
        trust = np.clip(share / 0.25, 0, 1) if sigma < radius else np.ones_like(known)
        skin = np.where(hole, trust * guess + (1 - trust) * skin, plane).astype(np.float32)
    for _ in range(12):
        skin = np.where(hole, gaussian(skin, max(1.0, radius / 6)), plane)
    return skin


def close_edit(
    canvas: Canvas,
    edited: Pixels,
    alpha: Pixels,
    *,
    kind: Kind,
    lesion: Mask,
    family: str,
    variant: str,
    parameters: Mapping[str, float | str],
) -> Forged | None:
    """Round, clip and label the edited Z×H×W stack; None when too little changed to call it a forgery."""
    if not np.isfinite(edited).all():
        return None
    pixels = np.where(alpha > 0, on_grid(edited, canvas), canvas.pixels)
    mask = differing(pixels, canvas.pixels) & (alpha > 0)
    if int(mask.sum(axis=(1, 2)).max()) < _SMALLEST_MASK_PX:
        return None
    return Forged(
        pixels=pixels,
        twin=canvas.pixels,
        mask=mask,
        alpha=alpha,
        lesion=lesion,
        kind=kind,
        family=f"fifth/{family}",
        variant=variant,
        parameters=parameters,
    )


def lesion_after(canvas: Canvas, site: Site, alpha: Pixels, kind: Kind) -> Mask:
    """Z×H×W lesion truth: gone where a removal covers it, there where an addition has its region."""
    if kind == "removed":
        return canvas.lesion & ~(site.region & (alpha > 0.4))
    return canvas.lesion | (site.region & (alpha > 0.4))
