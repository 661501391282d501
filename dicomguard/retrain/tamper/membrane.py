"""Smooth surfaces through a hole: harmonic, thin-plate, push-pull; and the Poisson equation.

Sources: Pérez, Gangnet, Blake 2003 (Poisson image editing); Farbman et al. 2011 (convolution pyramids) for the fast
approximation; Duchon 1977 for thin plates, whose Euler equation is the biharmonic one.
"""

import numpy as np
from scipy import sparse
from scipy.interpolate import RBFInterpolator
from scipy.sparse.linalg import cg

from dicomguard.retrain.tamper.filters import dilate, gaussian, resize
from dicomguard.retrain.tamper.forged import Mask, Pixels


def push_pull(values: Pixels, hole: Mask) -> Pixels:
    """Fill by averages of ever coarser known neighbours (normalised convolution over a pyramid)."""
    weight = (~hole).astype(np.float32)
    if weight.all() or not weight.any():
        return values.copy()
    return _pull(values * weight, weight, hole)


def _pull(weighted: Pixels, weight: Pixels, hole: Mask) -> Pixels:
    known = np.where(weight > 1e-3, weighted / np.maximum(weight, 1e-3), 0).astype(np.float32)
    if min(weighted.shape) <= 4 or not (weight <= 1e-3).any():
        total = float(weight.sum())
        mean = np.float32(weighted.sum() / max(total, 1e-6))
        return np.where(weight > 1e-3, known, mean).astype(np.float32)
    half = ((weighted.shape[0] + 1) // 2, (weighted.shape[1] + 1) // 2)
    coarse_weight = resize(gaussian(weight, 0.8), half)
    coarse = _pull(resize(gaussian(weighted, 0.8), half), coarse_weight, coarse_weight < 0.5)
    up = resize(coarse, (weighted.shape[0], weighted.shape[1]))
    share = np.clip(weight, 0, 1)
    return known * share + up * (1 - share)


def relaxed(values: Pixels, hole: Mask, sweeps: int) -> Pixels:
    """Push-pull, then Jacobi sweeps towards the harmonic surface (each pixel the mean of its four neighbours)."""
    filled = push_pull(values, hole)
    weight = hole.astype(np.float32)
    for _ in range(sweeps):
        padded = np.pad(filled, 1, mode="edge")
        mean = 0.25 * (padded[:-2, 1:-1] + padded[2:, 1:-1] + padded[1:-1, :-2] + padded[1:-1, 2:])
        filled += weight * (mean - filled)
    return filled


def thin_plate(values: Pixels, hole: Mask, rng: np.random.Generator, *, samples: int = 90) -> Pixels:
    """Thin-plate spline through points drawn from the ring around the hole, values averaged over 3 px."""
    ring = dilate(hole, 5) & ~dilate(hole, 1)
    rows, cols = np.nonzero(ring)
    if rows.size < 8:
        return push_pull(values, hole)
    pick = rng.choice(rows.size, size=min(samples, rows.size), replace=False)
    calm = push_pull(values, dilate(hole, 1))
    known = gaussian(calm, 1.2)[rows[pick], cols[pick]]
    points = np.stack([rows[pick], cols[pick]], axis=1).astype(np.float64)
    spline = RBFInterpolator(points, known, kernel="thin_plate_spline", smoothing=float(rng.uniform(0.5, 8.0)))
    filled = values.copy()
    inside = np.argwhere(hole).astype(np.float64)
    low, high = np.percentile(known, [8, 92])
    filled[hole] = np.clip(spline(inside), low, high)
    return filled


def poisson(boundary: Pixels, hole: Mask, down: Pixels, right: Pixels, *, screen: float = 0.0) -> Pixels:
    """Solve Δu = div(down, right) inside the hole with the boundary's values around it.

    `down[r, c]` is the wanted u[r+1, c] - u[r, c]; `right` likewise along columns. `screen` > 0 pulls u towards
    `boundary`'s own values inside (screened Poisson). The hole may not touch the frame: that pixel stays as it is.
    """
    inner = hole.copy()
    inner[[0, -1], :] = False
    inner[:, [0, -1]] = False
    rows, cols = np.nonzero(inner)
    count = rows.size
    solved = boundary.copy()
    if count == 0:
        return solved
    index = np.full(hole.shape, -1, np.int64)
    index[rows, cols] = np.arange(count)
    target = -(down[rows, cols] - down[rows - 1, cols] + right[rows, cols] - right[rows, cols - 1]).astype(np.float64)
    target += screen * boundary[rows, cols]
    start, end = [np.arange(count)], [np.arange(count)]
    weights = [np.full(count, 4.0 + screen)]
    for row_step, col_step in ((-1, 0), (1, 0), (0, -1), (0, 1)):
        neighbour = index[rows + row_step, cols + col_step]
        known = neighbour < 0
        target[known] += boundary[rows[known] + row_step, cols[known] + col_step]
        start.append(np.flatnonzero(~known))
        end.append(neighbour[~known])
        weights.append(np.full(int((~known).sum()), -1.0))
    matrix = sparse.csr_matrix(
        (np.concatenate(weights), (np.concatenate(start), np.concatenate(end))), shape=(count, count)
    )
    guess = push_pull(boundary, hole)[rows, cols].astype(np.float64)
    solution, _ = cg(matrix, target, x0=guess, rtol=1e-4, maxiter=250)
    solved[rows, cols] = solution
    return solved


def gradients(plane: Pixels) -> tuple[Pixels, Pixels]:
    """Forward differences along rows and columns, zero at the far frame."""
    down, right = np.zeros_like(plane), np.zeros_like(plane)
    down[:-1] = plane[1:] - plane[:-1]
    right[:, :-1] = plane[:, 1:] - plane[:, :-1]
    return down, right
