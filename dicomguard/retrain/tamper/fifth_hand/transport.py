"""Remap of a lesion's grey levels to those of healthy tissue, by local optimal transport.

An attacker draws a curve that turns the lesion's histogram into that of the tissue beside it; its noise stays its own.
"""

import numpy as np

from dicomguard.retrain.tamper.fifth_hand.edge import Drawn, close_edit, lesion_after, soft_edge, tidy
from dicomguard.retrain.tamper.fifth_hand.places import Site, healthy, lesion_site, mirrored, unit
from dicomguard.retrain.tamper.filters import bilateral, dilate, erode, float32, gaussian, noise_sigma
from dicomguard.retrain.tamper.forged import Canvas, Forged, Kind, Mask, Pixels

_LEVELS = np.linspace(0.02, 0.98, 25)


def forge(canvas: Canvas, donor: Canvas | None, rng: np.random.Generator) -> Forged | None:
    """Carry the lesion's levels to healthy ones, all the way or in part; None without lesion or healthy tissue."""
    site = lesion_site(canvas, rng)
    if site is None:
        return None
    kind: Kind = "removed" if rng.random() < 0.5 else "altered"
    effect = "whole" if kind == "removed" else str(rng.choice(("fainter", "smaller")))
    share = float(rng.uniform(0.4, 0.7)) if effect == "fainter" else float(rng.uniform(0.9, 1.0))
    goal = site if effect != "smaller" else _shell(site, rng)
    reference = str(rng.choice(("beside", "mirror", "whole brain")))
    alpha, drawn = soft_edge(canvas, goal, rng, grow=rng.uniform(1.5, 3.5))
    pool, seen = _healthy_pool(canvas, site, reference)
    curve = float(rng.uniform(0.35, 0.8))
    tile = max(6, round(rng.uniform(10, 20) * unit(canvas)))
    edited = canvas.pixels.copy()
    for z in goal.run:
        plane = canvas.pixels[z]
        structure = _structure(plane, canvas.head[z], rng)
        carried = _carried(structure, alpha[z] > 0.3, pool[z], seen[z], tile, curve)
        if carried is None:
            return None
        edited[z] = plane + share * alpha[z] * (carried - structure)
    edited, passed = tidy(edited, alpha, rng)
    numbers: Drawn = {"tile": tile, "curve": curve, "share": share, "pass": passed}
    return close_edit(
        canvas,
        edited,
        alpha,
        kind=kind,
        lesion=canvas.lesion if effect == "fainter" else lesion_after(canvas, goal, alpha, "removed"),
        family="transport",
        variant=f"{effect}, {reference}",
        parameters={**drawn, **numbers},
    )


def _shell(site: Site, rng: np.random.Generator) -> Site:
    """The outer part of the lesion: what goes when it shall look smaller."""
    radius = np.sqrt(site.region[site.middle].sum() / np.pi)
    core = np.stack([erode(plane, max(1, round(rng.uniform(0.35, 0.5) * radius))) for plane in site.region])
    return Site(region=site.region & ~core, weights=site.weights)


def _healthy_pool(canvas: Canvas, site: Site, reference: str) -> tuple[Pixels, Mask]:
    """Z×H×W pixels and where they may serve as a model."""
    fit = healthy(canvas)
    if reference == "mirror":
        pixels, seen = mirrored(canvas, site.middle)
        reach = np.stack([dilate(plane, round(10 * unit(canvas))) for plane in site.region])
        if (seen & reach)[site.middle].sum() > 50:
            return pixels, seen & reach
    if reference == "beside":
        reach = np.stack([dilate(plane, round(18 * unit(canvas))) for plane in site.region])
        if (fit & reach)[site.middle].sum() > 50:
            return canvas.pixels, fit & reach
    return canvas.pixels, fit


def _structure(plane: Pixels, head: Mask, rng: np.random.Generator) -> Pixels:
    """H×W without noise and fine texture, which stay the lesion's own."""
    if rng.random() < 0.5:
        return gaussian(plane, float(rng.uniform(1.0, 2.0)))
    return gaussian(bilateral(plane, sigma_value=6 * noise_sigma(plane, head) + 1, sigma_px=3.0), 0.8)


def _carried(structure: Pixels, where: Mask, pool: Pixels, seen: Mask, tile: int, curve: float) -> Pixels | None:
    """H×W structure with the levels of healthy tissue, from overlapping square tiles; None without a model."""
    model = np.argwhere(seen)
    if len(model) < 30:
        return None
    values = gaussian(pool, 1.0)[seen]
    total, weight = np.zeros_like(structure), np.zeros_like(structure)
    points = np.argwhere(where)
    if not len(points):
        return structure
    ramp = float32(np.hanning(2 * tile + 3)[1:-1])
    for row in range(int(points[:, 0].min()), int(points[:, 0].max()) + tile, tile):
        for col in range(int(points[:, 1].min()), int(points[:, 1].max()) + tile, tile):
            rows, cols = slice(max(0, row - tile), row + tile + 1), slice(max(0, col - tile), col + tile + 1)
            part, inside = structure[rows, cols], where[rows, cols]
            if inside.sum() < 8:
                continue
            near = np.argsort(((model - (row, col)) ** 2).sum(axis=1), kind="stable")[: 8 * tile * tile]
            mapped = _mapped(part, part[inside], values[near], curve)
            window = (
                ramp[rows.start - row + tile :][: part.shape[0], None]
                * ramp[None, cols.start - col + tile :][:, : part.shape[1]]
            )
            total[rows, cols] += window * mapped
            weight[rows, cols] += window
    return np.where(weight > 1e-3, total / np.maximum(weight, 1e-3), structure)


def _mapped(part: Pixels, ours: Pixels, theirs: Pixels, curve: float) -> Pixels:
    """Quantile matching, held back by `curve` towards a mere shift of the median, which cannot tear texture apart."""
    mine, model = np.quantile(ours, _LEVELS), np.quantile(theirs, _LEVELS)
    # Strictly rising, as interpolation asks; equal quantiles come from flat tissue.
    mine = mine + np.arange(len(mine)) * 1e-4
    matched = np.interp(part, mine, model)
    moved = part + np.float32(np.median(theirs) - np.median(ours))
    return float32(curve * matched + (1 - curve) * np.clip(moved, model[0], model[-1]))
