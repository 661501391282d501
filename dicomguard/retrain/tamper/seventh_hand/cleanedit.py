"""Edit a denoised slice, then put the slice's own noise back: the forgery has the patient's very grain.

The base is edited (filled, painted, pasted or retouched); the residual returns scaled to the noise that the new signal
level would have, by a level function measured on the slice (Foi 2008).
"""

from itertools import pairwise

import numpy as np

from dicomguard.retrain.tamper.filters import float32, gaussian
from dicomguard.retrain.tamper.forged import Canvas, Forged, Kind, Mask, Pixels
from dicomguard.retrain.tamper.seventh_hand import grain, tissue
from dicomguard.retrain.tamper.seventh_hand.fields import depth_share, filled
from dicomguard.retrain.tamper.seventh_hand.place import Site, feather, healthy_site, lesion_site
from dicomguard.retrain.tamper.seventh_hand.seal import seal

VARIANTS = tuple(grain.DENOISERS)
KINDS: tuple[Kind, ...] = ("removed", "added", "altered")
_BINS = 8


def forge(canvas: Canvas, donor: Canvas | None, rng: np.random.Generator) -> Forged | None:
    """Split by a drawn denoiser, edit the base in all slices alike, return the residual."""
    kind = KINDS[rng.integers(len(KINDS))] if canvas.lesion.any() else "added"
    site = (healthy_site if kind == "added" else lesion_site)(canvas, rng, margin=18)
    if site is None:
        return None
    variant = VARIANTS[rng.integers(len(VARIANTS))]
    alpha = feather(site, rng.uniform(2.0, 5.0), outward=kind != "added")
    parts = [grain.part(site.cut(canvas.pixels)[z], site.healthy[z], variant) for z in range(len(canvas.pixels))]
    base = np.stack([one for one, _ in parts])
    if kind == "removed":
        new, manner = _without(base, site, alpha, rng)
    elif kind == "added":
        new, manner = _with(canvas, donor, base, site, rng)
    else:
        new, manner = _changed(base, site, alpha, rng)
    edited = np.stack([
        _noisy_again(old, changed, residual, healthy)
        for (old, residual), changed, healthy in zip(parts, base + alpha * (new - base), site.healthy, strict=True)
    ])  # fmt: skip
    return seal(
        canvas, site, edited, alpha, rng,
        kind=kind, family="cleanedit", variant=f"{variant}-{kind}", parameters={"manner": manner},
    )  # fmt: skip


def _without(base: Pixels, site: Site, alpha: Pixels, rng: np.random.Generator) -> tuple[Pixels, str]:
    """Interpolated from around; then given the middle frequencies of tissue, for a smooth fill shows."""
    new = base.copy()
    fineness, strength = rng.uniform(3, 7), rng.uniform(0.3, 0.8)
    for z in site.slices:
        new[z] = filled(base[z], site.healthy[z] & (alpha[z] == 0))
        texture = grain.more(base[z] - gaussian(base[z], fineness), site.healthy[z], rng, isotropic=True)
        new[z] += strength * texture * depth_share(site.hole[z], 3.0)
    return new, "interpolated"


def _with(
    canvas: Canvas, donor: Canvas | None, base: Pixels, site: Site, rng: np.random.Generator
) -> tuple[Pixels, str]:
    """A lesion by contrast: with a rim, with a core, or even; its inside varies slowly."""
    contrast = tissue.draw_contrast(canvas, donor, rng)
    manner = ("even", "rim", "core")[rng.integers(3)]
    share = np.stack([depth_share(hole, rng.uniform(4, 9)) for hole in site.hole])
    shape = {"even": 0.8 + 0.2 * share, "rim": 1.1 - 0.7 * share, "core": 0.5 + 0.6 * share}[manner]
    uneven = 1 + rng.uniform(0.05, 0.2) * tissue.inner_texture(base.shape, rng.uniform(2.5, 6), rng)
    # A lesion hides part of the anatomy beneath it.
    veil, low = rng.uniform(0.2, 0.7), np.float32(canvas.low)
    under = base + veil * (np.stack([gaussian(plane, 4.0) for plane in base]) - base)
    return float32((under - low) * np.exp(contrast * shape * uneven) + low), manner


def _changed(base: Pixels, site: Site, alpha: Pixels, rng: np.random.Generator) -> tuple[Pixels, str]:
    """The lesion fainter, stronger, or with a core of another signal."""
    manner = ("fainter", "stronger", "cored")[rng.integers(3)]
    factor = rng.uniform(*{"fainter": (0.4, 0.65), "stronger": (1.35, 1.7), "cored": (-0.5, 0.2)}[manner])
    new = base.copy()
    for z in site.slices:
        without = filled(base[z], site.healthy[z] & (alpha[z] == 0))
        radius = np.sqrt(site.hole[z].sum() / np.pi)
        deep = depth_share(site.hole[z], radius) if manner == "cored" else np.float32(1)
        new[z] = without + (base[z] - without) * (1 + deep * np.float32(factor - 1))
    return new, manner


def _noisy_again(old: Pixels, new: Pixels, residual: Pixels, healthy: Mask) -> Pixels:
    """New base with the old residual, scaled by noise at the new signal over noise at the old."""
    level = grain.level(residual, healthy)
    # Edges of the lesion that the denoiser left in the residual would betray it.
    calm = np.clip(residual, -3.2 * level, 3.2 * level)
    edges = np.quantile(old[healthy], np.linspace(0, 1, _BINS + 1)) if healthy.any() else np.zeros(_BINS + 1)
    middles: list[float] = []
    levels: list[float] = []
    for lowest, highest in pairwise(edges):
        within = healthy & (old >= lowest) & (old <= highest)
        if within.sum() >= 30 and (not middles or (lowest + highest) / 2 > middles[-1]):
            middles.append((lowest + highest) / 2)
            levels.append(grain.level(residual, within))
    moved = np.abs(new - old) > 0.25
    if len(middles) < 2 or min(levels) <= 0:
        return new + np.where(moved, calm, residual)
    ratio = np.interp(new, middles, levels) / np.interp(old, middles, levels)
    return float32(new + np.where(moved, calm * np.clip(ratio, 0.7, 1.4), residual))
