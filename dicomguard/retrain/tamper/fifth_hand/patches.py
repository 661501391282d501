"""A region made again from a patch dictionary of the same head.

An attacker lets a small learnt prior (principal components or clusters of patches) redraw a place until every patch in
it is one that this head could hold.
"""

from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from dicomguard.retrain.tamper.fifth_hand.edge import Drawn, close_edit, lesion_after, membrane, soft_edge, tidy
from dicomguard.retrain.tamper.fifth_hand.grain import measure, merged, topped
from dicomguard.retrain.tamper.fifth_hand.places import (
    Site,
    crop_around,
    drawn_kind,
    free_growth,
    healthy,
    healthy_offset,
    lesion_contrast,
    lesion_site,
    shifted,
    unit,
)
from dicomguard.retrain.tamper.filters import float32, gaussian, smooth_noise
from dicomguard.retrain.tamper.forged import Canvas, Forged, Mask, Pixels

_FEWEST_PATCHES = 80
_MOST_PATCHES = 2500


@dataclass(frozen=True, slots=True, kw_only=True)
class _Dictionary:
    """Patches without their mean: directions with their spread (pca), or representatives (k-means)."""

    side: int
    atoms: Pixels
    spread: Pixels | None

    def nearest(self, patches: Pixels) -> Pixels:
        """N×D patches brought into the dictionary; their mean level is kept."""
        level = patches.mean(axis=1, keepdims=True)
        shape = patches - level
        if self.spread is None:
            energy = (self.atoms**2).sum(axis=1)
            best = self.atoms[(energy - 2 * shape @ self.atoms.T).argmin(axis=1)]
            scale = (best * shape).sum(axis=1, keepdims=True) / np.maximum((best**2).sum(axis=1, keepdims=True), 1e-3)
            return float32(level + np.clip(scale, 0, 1.1) * best)
        weights = shape @ self.atoms.T
        # The components get the spread they have in the head, or the redrawn place would be too calm or too busy.
        gain = np.clip(self.spread / np.maximum(weights.std(axis=0), 1e-3), 0.7, 1.2)
        return float32(level + (weights * gain) @ self.atoms)


def forge(canvas: Canvas, donor: Canvas | None, rng: np.random.Generator) -> Forged | None:
    """Redraw a lesion as healthy tissue, or a healthy place as a lesion; None without place or patches."""
    kind = drawn_kind(canvas, rng)
    growth = free_growth(canvas, rng) if kind == "added" else None
    site = growth.site if growth else lesion_site(canvas, rng) if kind == "removed" else None
    if site is None:
        return None
    alpha, drawn = soft_edge(canvas, site, rng, grow=rng.uniform(2, 4) if kind == "removed" else rng.uniform(0, 1))
    if not alpha.any():
        return None
    prior = str(rng.choice(("pca", "k-means")))
    dictionary = _learnt(canvas, donor if kind == "added" else None, site, prior, rng)
    if dictionary is None:
        return None
    seed = str(rng.choice(("noise", "transplant")))
    rounds = int(rng.integers(3, 8))
    contrast = lesion_contrast(canvas, donor, site.middle, rng) if kind == "added" else 0.0
    share = float(rng.uniform(0.8, 1.0))
    details, fit = _details(canvas, site, seed, rng), healthy(canvas)
    faint, depth = float(rng.uniform(0.2, 0.5)), float(rng.uniform(0.1, 0.3))
    patchy = 1 + depth * smooth_noise((canvas.pixels.shape[1], canvas.pixels.shape[2]), 5 * unit(canvas), rng)
    edited = canvas.pixels.copy()
    for z in np.flatnonzero(alpha.any(axis=(1, 2))):
        crop = crop_around(alpha[z] > 0, 3 * dictionary.side)
        base, hole = canvas.pixels[z][crop], alpha[z][crop] > 0
        if kind == "removed":
            start = membrane(base, hole, _tissue(base, fit[z][crop])) + details[z][crop] * hole
        else:
            smooth = gaussian(base, 3 * unit(canvas))
            start = smooth + contrast * patchy[crop] + faint * (base - smooth) + details[z][crop]
            start = np.where(hole, start, base)
        redrawn = _redrawn(float32(start), hole, dictionary, rounds)
        grain = measure(canvas.pixels[z], canvas.head[z])
        edited[z][crop] = merged(base, topped(redrawn, grain, rng, share), alpha[z][crop])
    edited, passed = tidy(edited, alpha, rng)
    numbers: Drawn = {
        "patch": dictionary.side,
        "atoms": len(dictionary.atoms),
        "rounds": rounds,
        "contrast": contrast,
        "noise": share,
        "pass": passed,
    }
    return close_edit(
        canvas,
        edited,
        alpha,
        kind=kind,
        lesion=lesion_after(canvas, site, alpha, kind),
        family="patches",
        variant=f"{prior}, {seed}",
        parameters={**drawn, **numbers},
    )


def _tissue(plane: Pixels, fit: Mask) -> Mask:
    """H×W, healthy tissue without the darkest and brightest of it: no fluid, no fat."""
    if not fit.any():
        return fit
    low, high = np.percentile(plane[fit], (15, 97))
    return np.asarray(fit & (plane >= low) & (plane <= high))


def _learnt(
    canvas: Canvas, donor: Canvas | None, site: Site, prior: str, rng: np.random.Generator
) -> _Dictionary | None:
    """A dictionary from healthy tissue of the edited slices and, if there is a donor, from its lesion."""
    side = int(rng.choice((5, 7, 9)))
    fit = healthy(canvas)
    samples = [_sampled(canvas.pixels[z], fit[z], side) for z in site.run]
    if donor is not None:
        there = int(donor.lesion.sum(axis=(1, 2)).argmax())
        gain = float(canvas.pixels.std() / max(float(donor.pixels.std()), 1e-3))
        samples.append(gain * _sampled(donor.pixels[there], donor.lesion[there], side))
    patches = np.concatenate(samples)
    if len(patches) < _FEWEST_PATCHES:
        return None
    patches = patches[rng.choice(len(patches), min(len(patches), _MOST_PATCHES), replace=False)]
    patches = patches - patches.mean(axis=1, keepdims=True)
    if prior == "pca":
        _, _, directions = np.linalg.svd(patches, full_matrices=False)
        kept = int(rng.integers(side, 3 * side))
        # The median, since a few patches of strong borders would make every patch a border.
        spread = float32(np.median(np.abs(patches @ directions[:kept].T), axis=0) / 0.6745)
        return _Dictionary(side=side, atoms=float32(directions[:kept]), spread=spread)
    return _Dictionary(side=side, atoms=_clustered(patches, int(rng.integers(48, 129)), rng), spread=None)


def _sampled(plane: Pixels, where: Mask, side: int) -> Pixels:
    """N×D patches whose centre lies in `where`."""
    half = side // 2
    views = (
        sliding_window_view(plane, (side, side))
        if min(plane.shape) > side
        else np.empty((0, 0, side, side), np.float32)
    )
    rows, cols = np.nonzero(where[half : half + views.shape[0], half : half + views.shape[1]])
    return float32(views[rows, cols].reshape(len(rows), side * side))


def _clustered(patches: Pixels, count: int, rng: np.random.Generator) -> Pixels:
    """A few rounds of k-means; empty clusters keep their place."""
    atoms = patches[rng.choice(len(patches), min(count, len(patches)), replace=False)]
    for _ in range(4):
        owner = ((atoms**2).sum(axis=1) - 2 * patches @ atoms.T).argmin(axis=1)
        sizes = np.bincount(owner, minlength=len(atoms))
        sums = np.zeros_like(atoms)
        np.add.at(sums, owner, patches)
        atoms = np.where(sizes[:, None] > 0, sums / np.maximum(sizes, 1)[:, None], atoms)
    return float32(atoms)


def _details(canvas: Canvas, site: Site, seed: str, rng: np.random.Generator) -> Pixels:
    """Z×H×W texture for the prior to work on: a mean of zero, the spread of healthy tissue."""
    fit, scale = healthy(canvas), unit(canvas)
    z = site.middle
    offset = healthy_offset(canvas, fit, site.region[z], z, rng) if seed == "transplant" else None
    if offset is not None:
        moved = shifted(canvas.pixels, offset)
        return np.stack([plane - gaussian(plane, 5 * scale) for plane in moved])
    shape = (canvas.pixels.shape[1], canvas.pixels.shape[2])
    bands = [(1.2 * scale, 2.2 * scale), (2.2 * scale, 5 * scale)]
    fields = [smooth_noise(shape, fine, rng) for fine, _ in bands]
    out = np.zeros_like(canvas.pixels)
    for plane in site.run:
        for (fine, coarse), field in zip(bands, fields, strict=True):
            band = gaussian(canvas.pixels[plane], fine) - gaussian(canvas.pixels[plane], coarse)
            level = float(np.median(np.abs(band[fit[plane]]))) / 0.6745 if fit[plane].any() else 0.0
            out[plane] += np.float32(level) * field
    return out


def _redrawn(start: Pixels, hole: Mask, dictionary: _Dictionary, rounds: int) -> Pixels:
    """Project every patch onto the dictionary and average the overlaps, again and again; the rim stays known."""
    side = dictionary.side
    if min(start.shape) <= side:
        return start
    current = start
    for _ in range(rounds):
        views = sliding_window_view(current, (side, side))
        rows, cols = views.shape[:2]
        drawn = dictionary.nearest(views.reshape(rows * cols, side * side)).reshape(rows, cols, side, side)
        total, count = np.zeros_like(current), np.zeros_like(current)
        for down in range(side):
            for right in range(side):
                total[down : down + rows, right : right + cols] += drawn[:, :, down, right]
                count[down : down + rows, right : right + cols] += 1
        current = np.where(hole, total / count, start)
    return float32(current)
