"""What healthy tissue would be there, predicted by regression.

An attacker fits ridge or kernel ridge regression (Hoerl and Kennard, Technometrics 1970; Saunders et al., ICML 1998)
or a robust fit (Huber, 1964) on healthy pixels nearby: neighbouring slices, the mirrored hemisphere and the position
say what a pixel is. Studies of symmetry in lesion detection do the same to find lesions ("pseudo-healthy synthesis").
"""

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from dicomguard.retrain.tamper.filters import depth_inside, float32, gaussian
from dicomguard.retrain.tamper.forged import Canvas, Forged, Pixels
from dicomguard.retrain.tamper.sixth_hand.bands import joined, masked_mean
from dicomguard.retrain.tamper.sixth_hand.borrow import lookalikes
from dicomguard.retrain.tamper.sixth_hand.closing import seal, settle
from dicomguard.retrain.tamper.sixth_hand.grain import texture
from dicomguard.retrain.tamper.sixth_hand.scene import Site, lesion_site, window

VARIANTS = ("ridge", "kernel", "huber")
Matrix: TypeAlias = NDArray[np.float64]

_MOST_SAMPLES = 2500
_LANDMARKS = 90
_HUBER_ROUNDS = 5
_HUBER_KNEE = 1.345
_WIDTHS_PX = (0.7, 2.0, 5.0)


def forge(canvas: Canvas, donor: Canvas | None, rng: np.random.Generator) -> Forged | None:
    site = lesion_site(canvas, rng)
    if site is None:
        return None
    variant = str(rng.choice(VARIANTS))
    penalty = float(10 ** rng.uniform(-2.5, -1.0))
    mirrored = lookalikes(canvas, site, 1, mirror=True) or lookalikes(canvas, site, 1)
    edited = canvas.pixels.copy()
    done = np.asarray(~site.core.any(axis=(1, 2)))
    # From the slice that the lesion touches least: what is predicted there helps its neighbour.
    for z in np.argsort(site.core.sum(axis=(1, 2)), kind="stable"):
        if done[z]:
            continue
        cut = window(site.hole[z], round(22 * site.scale))
        neighbours = [edited[n][cut] for n in (int(z) - 1, int(z) + 1) if 0 <= n < len(done) and done[n]]
        others = [*neighbours, *(stack[z][cut] for stack in mirrored)]
        edited[z][cut] = _predicted(canvas, site, int(z), cut, others, variant, penalty, rng)
        done[z] = True
    settled = settle(canvas, edited, site.alpha, site.healthy, rng)
    return seal(
        canvas,
        settled,
        site.alpha,
        kind="removed",
        lesion=site.rest,
        family="regress",
        variant=variant,
        parameters={"penalty": penalty, "mirrored": len(mirrored)},
    )


def _predicted(
    canvas: Canvas,
    site: Site,
    z: int,
    cut: tuple[slice, slice],
    others: list[Pixels],
    variant: str,
    penalty: float,
    rng: np.random.Generator,
) -> Pixels:
    """One slice's window with the hole predicted and grain of the fit's residual laid over it."""
    plane, hole, sound = canvas.pixels[z][cut], site.hole[z][cut], site.healthy[z][cut]
    if sound.sum() < 100:
        return masked_mean(plane, ~hole, 4.0)
    features = _features(plane.shape, others)
    picks = rng.permutation(np.flatnonzero(sound))[:_MOST_SAMPLES]
    away = depth_inside(~hole).ravel()[picks] / (12 * site.scale)
    weights = 1 / (1 + away.astype(np.float64) ** 2)
    centre, spread = features[picks].mean(axis=0), features[picks].std(axis=0) + 1e-6
    # Clipped: outside the range of what was seen a fit only guesses.
    seen = np.clip((features - centre) / spread, -2.5, 2.5)
    if variant == "kernel":
        seen = _radial(seen, seen[picks[:_LANDMARKS]])
    design = np.column_stack([np.ones(len(seen)), seen])
    wanted = plane.ravel()[picks].astype(np.float64)
    fit = _huber if variant == "huber" else _ridge
    predicted = float32((design @ fit(design[picks], wanted, weights, penalty)).reshape(plane.shape))
    low, high = np.quantile(wanted, (0.03, 0.97))
    predicted = joined(np.clip(predicted, low, high), plane, sound, hole)
    missed = np.where(sound, plane - predicted, 0).astype(np.float32)
    return np.where(hole, predicted + 0.7 * texture(missed, sound, rng, fine=0.6, coarse=4.0), plane)


def _features(shape: tuple[int, ...], others: list[Pixels]) -> Matrix:
    """Pixels × features: position up to the second degree, the other views at several widths."""
    rows, cols = np.meshgrid(np.linspace(-1, 1, shape[0]), np.linspace(-1, 1, shape[1]), indexing="ij")
    columns = [rows, cols, rows * cols, rows**2, cols**2]
    columns += [gaussian(other, width).astype(np.float64) for other in others for width in _WIDTHS_PX]
    return np.stack([column.ravel() for column in columns], axis=1)


def _radial(seen: Matrix, landmarks: Matrix) -> Matrix:
    """Gaussian kernel to landmarks (Nyström), beside the linear terms."""
    squared = (seen**2).sum(axis=1)[:, None] + (landmarks**2).sum(axis=1) - 2 * seen @ landmarks.T
    return np.column_stack([seen, np.exp(-np.maximum(squared, 0) / (2 * seen.shape[1]))])


def _ridge(design: Matrix, wanted: Matrix, weights: Matrix, penalty: float) -> Matrix:
    weighted = design * weights[:, None]
    shrink = penalty * weights.sum() * np.eye(design.shape[1])
    shrink[0, 0] = 0
    return np.asarray(np.linalg.solve(weighted.T @ design + shrink, weighted.T @ wanted), np.float64)


def _huber(design: Matrix, wanted: Matrix, weights: Matrix, penalty: float) -> Matrix:
    """Reweighted: pixels that do not follow (vessels, sulci) count less."""
    found = _ridge(design, wanted, weights, penalty)
    for _ in range(_HUBER_ROUNDS):
        missed = np.abs(wanted - design @ found)
        knee = _HUBER_KNEE * float(np.median(missed)) / 0.6745 + 1e-6
        found = _ridge(design, wanted, weights * np.minimum(1, knee / np.maximum(missed, 1e-6)), penalty)
    return found
