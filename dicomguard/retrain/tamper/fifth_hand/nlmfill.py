"""Non-local means inpainting of a lesion, then the noise of the slice.

An attacker uses a patch-based "content-aware" fill that averages what resembles the surroundings, and adds film grain.
"""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from dicomguard.retrain.tamper.fifth_hand.edge import Drawn, close_edit, lesion_after, membrane, soft_edge, tidy
from dicomguard.retrain.tamper.fifth_hand.grain import measure, merged, topped
from dicomguard.retrain.tamper.fifth_hand.places import crop_around, healthy, lesion_site, mirrored, unit
from dicomguard.retrain.tamper.filters import dilate, erode, float32
from dicomguard.retrain.tamper.forged import Canvas, Forged, Mask, Pixels

# Missing pixels times examples: bounds the time for large lesions.
_BUDGET = 2_000_000
_FEWEST_EXAMPLES = 24


def forge(canvas: Canvas, donor: Canvas | None, rng: np.random.Generator) -> Forged | None:
    """Fill one lesion from outside in; None without a lesion or without healthy tissue to learn from."""
    site = lesion_site(canvas, rng)
    if site is None:
        return None
    alpha, drawn = soft_edge(canvas, site, rng, grow=rng.uniform(2.0, 4.0))
    if not alpha.any():
        return None
    variant = str(rng.choice(("weighted mean", "best few", "both halves")))
    half = int(rng.integers(2, 4 if unit(canvas) < 1.5 else 6))
    run, hole = site.run, np.asarray((alpha > 0).any(axis=0))
    crop = crop_around(hole, round(30 * unit(canvas)) + 2 * half)
    stack = canvas.pixels[run][:, *crop]
    fit = np.logical_and.reduce(healthy(canvas)[run], axis=0)[crop] & ~hole[crop]
    sources = [(stack, fit)]
    if variant == "both halves":
        flipped, seen = mirrored(canvas, site.middle)
        sources.append((flipped[run][:, *crop], np.logical_and.reduce(seen[run], axis=0)[crop]))
    examples = _Examples(sources, half, _BUDGET // max(1, int(hole.sum())), rng)
    if len(examples.patches) < _FEWEST_EXAMPLES:
        return None
    best = int(rng.integers(3, 8)) if variant == "best few" else 40
    pull = float(rng.uniform(0.3, 1.2))
    sweeps = int(rng.integers(1, 3))
    filled = _fill(stack, hole[crop], examples, best=best, pull=pull, sweeps=sweeps)
    edited, share = canvas.pixels.copy(), float(rng.uniform(0.8, 1.0))
    for z, plane in zip(run, filled, strict=True):
        grain = measure(canvas.pixels[z], canvas.head[z])
        edited[z][crop] = merged(stack[run.index(z)], topped(plane, grain, rng, share), alpha[z][crop])
    edited, passed = tidy(edited, alpha, rng)
    numbers: Drawn = {"half patch": half, "best": best, "pull": pull, "sweeps": sweeps, "noise": share, "pass": passed}
    return close_edit(
        canvas,
        edited,
        alpha,
        kind="removed",
        lesion=lesion_after(canvas, site, alpha, "removed"),
        family="nlmfill",
        variant=variant,
        parameters={**drawn, **numbers},
    )


class _Examples:
    """Healthy patches of all edited slices together, so that the slices are filled alike."""

    def __init__(self, sources: list[tuple[Pixels, Mask]], half: int, most: int, rng: np.random.Generator) -> None:
        self.half = half
        patches, spots = [], []
        for stack, fit in sources:
            whole = np.argwhere(erode(np.pad(fit, 1), half)[1:-1, 1:-1])
            count = min(len(whole), max(_FEWEST_EXAMPLES, min(1600, most)))
            picked = whole[rng.choice(len(whole), count, replace=False)] if len(whole) else whole
            patches.append(_patches(stack, picked, half))
            spots.append(picked)
        self.patches = np.concatenate(patches)
        self.spots = np.concatenate(spots).astype(np.float32)
        side = 2 * half + 1
        self.centres = self.patches.reshape(len(self.patches), len(sources[0][0]), side, side)[:, :, half, half]
        self.squares = self.patches**2
        self.variance = float(self.patches.var()) if len(self.patches) else 0.0

    def mean_of_alike(self, stack: Pixels, known: Mask, points: NDArray[np.int64], best: int, pull: float) -> Pixels:
        """M×Z values for M points: mean over examples whose patch fits the known part of the point's patch."""
        ours = _patches(stack, points, self.half)
        trust = np.tile(_patches(known[None].astype(np.float32), points, self.half), (1, len(stack)))
        apart = (trust * ours**2).sum(axis=1, keepdims=True)
        apart = apart - 2 * (trust * ours) @ self.patches.T + trust @ self.squares.T
        apart = np.maximum(apart, 0) / np.maximum(trust.sum(axis=1, keepdims=True), 1)
        far = ((points[:, None] - self.spots[None]) ** 2).sum(axis=2)
        # Tissue nearby is likelier to be the same tissue.
        apart = apart + np.float32(0.3 * self.variance) * far / np.float32(far.mean() + 1)
        order = np.argpartition(apart, min(best, apart.shape[1] - 1), axis=1)[:, :best]
        nearest = np.take_along_axis(apart, order, axis=1)
        least = nearest.min(axis=1, keepdims=True)
        weight = np.exp(-(nearest - least) / (pull * least + 1e-3))
        return float32((weight[..., None] * self.centres[order]).sum(axis=1) / weight.sum(axis=1, keepdims=True))


def _patches(stack: Pixels, points: NDArray[np.int64], half: int) -> Pixels:
    padded = np.pad(stack, ((0, 0), (half, half), (half, half)), mode="symmetric")
    views = sliding_window_view(padded, (2 * half + 1, 2 * half + 1), axis=(1, 2))
    return (
        views[:, points[:, 0], points[:, 1]]
        .transpose(1, 0, 2, 3)
        .reshape(len(points), len(stack) * (2 * half + 1) ** 2)
    )


def _fill(stack: Pixels, hole: Mask, examples: _Examples, *, best: int, pull: float, sweeps: int) -> Pixels:
    filled = np.stack([membrane(plane, hole, ~hole) for plane in stack])
    known = ~hole
    while not known.all():
        front = np.argwhere(~known & dilate(known, 1))
        if not len(front):
            break
        filled[:, front[:, 0], front[:, 1]] = examples.mean_of_alike(filled, known, front, best, pull).T
        known[front[:, 0], front[:, 1]] = True
    points, everything = np.argwhere(hole), np.ones_like(hole)
    for _ in range(sweeps):
        filled[:, points[:, 0], points[:, 1]] = examples.mean_of_alike(filled, everything, points, best, pull).T
    return filled
