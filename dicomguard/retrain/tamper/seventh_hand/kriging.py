"""Remove a lesion by kriging: tissue predicted from the ring around it, with what it cannot know simulated.

After Matheron (1963) and Journel (1974, conditional simulation). Values may be krigged as normal scores, so that the
fill falls into the tissues of the surroundings instead of between them. A real attacker takes a geostatistics package
that krigs and simulates around known points (GSTools, gstat) and gives it the ring as its points.
"""

import math

import numpy as np
from numpy.typing import NDArray
from scipy import linalg, ndimage, optimize, special
from scipy.spatial.distance import cdist

from dicomguard.retrain.tamper.filters import float32
from dicomguard.retrain.tamper.forged import Canvas, Forged, Mask, Pixels
from dicomguard.retrain.tamper.seventh_hand import grain
from dicomguard.retrain.tamper.seventh_hand.fields import filled
from dicomguard.retrain.tamper.seventh_hand.place import feather, lesion_site
from dicomguard.retrain.tamper.seventh_hand.seal import seal

VARIANTS = ("simple", "ordinary", "drift")
_RANGES_PX = (1.5, 2.0, 3.0, 4.5, 7.0)
_LAGS_PX = 20
_PAIRS = 6000


def forge(canvas: Canvas, donor: Canvas | None, rng: np.random.Generator) -> Forged | None:
    """Krige the ring into the hole of a lesion; one model's habits for all slices, their noise partly shared."""
    site = lesion_site(canvas, rng, margin=20)
    if site is None:
        return None
    variant = VARIANTS[rng.integers(len(VARIANTS))]
    scores, power, order = rng.random() < 0.6, rng.random() < 0.6, int(rng.integers(1, 3))
    reach, count = rng.uniform(5, 12), int(rng.integers(140, 280))
    share, kept, boldness = rng.uniform(0.5, 0.95), rng.uniform(0.3, 0.8), rng.uniform(0.5, 1.0)
    alpha = feather(site, rng.uniform(1.5, 3.5), outward=True)
    before = site.cut(canvas.pixels)
    edited, white = before.copy(), np.zeros(0)
    for z in site.slices:
        base, residual = grain.part(before[z], site.healthy[z])
        fresh = rng.standard_normal((2 * base.shape[0], 2 * base.shape[1]))
        white = fresh if not white.size else kept * white + math.sqrt(1 - kept**2) * fresh
        tissue = _krige(
            base, site.healthy[z], alpha[z] > 0, white, rng,
            variant=variant, scores=scores, order=order, reach=reach, count=count, share=share, boldness=boldness,
        )  # fmt: skip
        noise = grain.more(residual, site.healthy[z], rng)
        noise = grain.matched(noise, tissue, site.hole[z], before[z], site.healthy[z])
        edited[z] = grain.mixed((base, residual), (tissue, noise), alpha[z], power=power)
    parameters = {"values": "scores" if scores else "grey", "ring": round(reach, 2), "points": count}
    return seal(
        canvas, site, edited, alpha, rng, kind="removed", family="kriging", variant=variant, parameters=parameters
    )


def _krige(
    base: Pixels,
    healthy: Mask,
    wanted: Mask,
    white: NDArray[np.float64],
    rng: np.random.Generator,
    *,
    variant: str,
    scores: bool,
    order: int,
    reach: float,
    count: int,
    share: float,
    boldness: float,
) -> Pixels:
    """h×w base with the wanted pixels predicted from `count` points of the ring `reach` px wide."""
    apart = ndimage.distance_transform_edt(~wanted)
    known = healthy & ~wanted
    ring = np.argwhere(known & (apart <= reach))
    if len(ring) < 12:
        ring = np.argwhere(known)
    if len(ring) < 12 or np.ptp(base[known]) < 1e-3:
        return filled(base, known)
    # Without the tails: what a simulation draws beyond them would stand out as a spot.
    shares = np.linspace(0.04, 0.96, 65)
    levels = np.quantile(base[known], shares) + np.linspace(0, 1e-3, 65)
    normal = special.ndtri(shares) if scores else (levels - levels.mean()) / levels.std()
    values = np.interp(base, levels, normal)
    points = ring[rng.permutation(len(ring))[:count]]
    seen = values[points[:, 0], points[:, 1]]
    sill, nugget, length = _fitted(values, np.argwhere(known), rng, order=order)

    def covariance(distance: NDArray[np.float64]) -> NDArray[np.float64]:
        scaled = distance / length
        return sill * _correlation(scaled, order)

    # A field with this covariance on a torus of twice the window, by the square root of its spectrum.
    rows, cols = (np.minimum(np.arange(n), n - np.arange(n)) for n in white.shape)
    spectrum = np.fft.fft2(covariance(np.hypot(rows[:, None], cols[None, :]))).real
    field = np.fft.ifft2(np.sqrt(np.maximum(spectrum, 0)) * np.fft.fft2(white)).real[: base.shape[0], : base.shape[1]]
    field *= boldness

    targets = np.argwhere(wanted)
    own = covariance(cdist(points, points)) + (nugget + 1e-4) * np.eye(len(points))
    # The prediction of the data, and of what the simulated field shows at the same points, by one system.
    known_sides = np.stack([seen, field[points[:, 0], points[:, 1]] + math.sqrt(nugget) * rng.normal(size=len(points))])
    factor = linalg.cho_factor(own)
    if variant == "simple":
        trend, left = np.full((2, len(targets)), share * np.mean(seen)), known_sides - share * np.mean(seen)
    else:
        shapes = [np.ones((len(p), 1)) if variant == "ordinary" else _linear(p, targets) for p in (points, targets)]
        solved = linalg.cho_solve(factor, shapes[0])
        weights = linalg.solve(shapes[0].T @ solved + 1e-9 * np.eye(shapes[0].shape[1]), solved.T @ known_sides.T)
        trend, left = (shapes[1] @ weights).T, known_sides - (shapes[0] @ weights).T
    predicted = trend + (covariance(cdist(targets, points)) @ linalg.cho_solve(factor, left.T)).T
    simulated = predicted[0] + field[targets[:, 0], targets[:, 1]] - predicted[1]
    tissue = base.copy()
    tissue[targets[:, 0], targets[:, 1]] = np.interp(simulated, normal, levels)
    return float32(tissue)


def _correlation(scaled: NDArray[np.float64], order: int) -> NDArray[np.float64]:
    """Matérn's of smoothness 3/2 (order 1) or 5/2 (order 2): rougher ones make a fill look like sand."""
    return np.asarray((1 + scaled + (scaled**2 / 3 if order == 2 else 0)) * np.exp(-scaled))


def _linear(points: NDArray[np.int64], targets: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.column_stack([np.ones(len(points)), (points - targets.mean(axis=0)) / 20])


def _fitted(
    values: NDArray[np.float64], places: NDArray[np.int64], rng: np.random.Generator, *, order: int
) -> tuple[float, float, float]:
    """Sill, nugget and length (px) whose variogram is nearest to that of random pairs."""
    first = places[rng.integers(len(places), size=_PAIRS)]
    second = first + rng.integers(-_LAGS_PX, _LAGS_PX + 1, size=first.shape)
    within = np.zeros(values.shape, np.bool_)
    within[places[:, 0], places[:, 1]] = True
    second = np.clip(second, 0, np.array(values.shape) - 1)
    usable = within[second[:, 0], second[:, 1]]
    first, second = first[usable], second[usable]
    lag = np.hypot(*(first - second).T)
    halved = (values[first[:, 0], first[:, 1]] - values[second[:, 0], second[:, 1]]) ** 2 / 2
    bins = np.clip(lag.astype(int), 1, _LAGS_PX)
    counts = np.bincount(bins, minlength=_LAGS_PX + 1)
    lags = np.flatnonzero(counts > 8)
    if not lags.size:
        return 1.0, 0.05, 4.0
    seen = np.bincount(bins, halved)[lags] / counts[lags]
    found = []
    for length in _RANGES_PX:
        scaled = np.asarray((lags + 0.4) / length, np.float64)
        risen = 1 - _correlation(scaled, order)
        parts, misfit = optimize.nnls(np.column_stack([risen, np.ones(len(lags))]), seen)
        found.append((misfit, max(float(parts[0]), 0.05), max(float(parts[1]), 0.02), length))
    _, sill, nugget, length = min(found)
    return sill, nugget, length
