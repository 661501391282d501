"""Surfaces through a hole: harmonic, biharmonic, total variation, and the membrane of a screened equation.

The surface is solved on a coarse grid, where a few hundred unknowns say all that a smooth surface holds, and brought
back by cubic interpolation.
"""

import cv2
import numpy as np
from scipy.sparse import csr_matrix, diags

from dicomguard.retrain.tamper.filters import float32
from dicomguard.retrain.tamper.forged import Mask, Pixels

# Unknowns of a coarse solve.
_MOST_UNKNOWNS = 180
_TV_ROUNDS = 3


def blurred(plane: Pixels, sigma: float) -> Pixels:
    """Gaussian blur, reflected at the frame."""
    return float32(cv2.GaussianBlur(plane, (0, 0), sigma, borderType=cv2.BORDER_REFLECT_101))


def masked_blur(plane: Pixels, where: Mask, sigma: float) -> Pixels:
    """Gaussian mean of the pixels in `where` (normalised convolution); falls back on their mean far away."""
    weight = where.astype(np.float32)
    mean = float(plane[where].mean()) if where.any() else float(plane.mean())
    below = blurred(weight, sigma)
    above = blurred((plane - mean) * weight, sigma)
    return (mean + above / np.maximum(below, 1e-4)).astype(np.float32)


def _laplacian(shape: tuple[int, int], weight: Pixels | None = None) -> csr_matrix:
    """Graph Laplacian of a grid with 4 neighbours; `weight` multiplies each edge by the mean of its ends."""
    numbers = np.arange(shape[0] * shape[1]).reshape(shape)
    pairs = [(numbers[1:], numbers[:-1]), (numbers[:, 1:], numbers[:, :-1])]
    first = np.concatenate([a.ravel() for a, _ in pairs])
    second = np.concatenate([b.ravel() for _, b in pairs])
    flat = np.ones(numbers.size) if weight is None else weight.ravel().astype(np.float64)
    edge = 0.5 * (flat[first] + flat[second])
    ends = (np.concatenate([first, second]), np.concatenate([second, first]))
    adjacency = csr_matrix((np.concatenate([edge, edge]), ends), shape=(numbers.size, numbers.size))
    return (diags(np.asarray(adjacency.sum(axis=1)).ravel()) - adjacency).tocsr()


def _solved(operator: csr_matrix, values: Pixels, hole: Mask) -> Pixels:
    """Values in the hole for which the operator gives zero there."""
    inside = hole.ravel()
    rows = operator[inside]
    known = -rows[:, ~inside] @ values.ravel()[~inside].astype(np.float64)
    filled = values.copy()
    # So few unknowns are solved faster dense.
    filled[hole] = np.linalg.solve(rows[:, inside].toarray(), known)
    return float32(filled)


def _coarse(plane: Pixels, hole: Mask, tissue: Mask, sigma: float) -> tuple[Pixels, Mask]:
    factor = max(1.0, float(np.sqrt(hole.sum() / _MOST_UNKNOWNS)))
    size = (max(4, round(plane.shape[1] / factor)), max(4, round(plane.shape[0] / factor)))
    calm = masked_blur(plane, tissue, max(sigma, 0.6 * factor))
    small = float32(cv2.resize(calm, size, interpolation=cv2.INTER_AREA))
    small_hole = cv2.resize(hole.astype(np.float32), size, interpolation=cv2.INTER_AREA) > 0.2
    return small, small_hole


def surface(plane: Pixels, hole: Mask, tissue: Mask, kind: str, *, sigma: float = 1.5) -> Pixels:
    """h×w: the smooth surface through the hole, continued from the low frequencies of the tissue.

    `kind` is harmonic, biharmonic or tv (total variation by reweighted harmonic fills, Chan & Shen 2001).
    """
    small, small_hole = _coarse(plane, hole, tissue, sigma)
    if not small_hole.any() or small_hole.all():
        return masked_blur(plane, tissue, 4.0)
    laplacian = _laplacian(small.shape)
    filled = _solved(laplacian, small, small_hole)
    if kind == "biharmonic":
        curved = _solved((laplacian @ laplacian).tocsr(), small, small_hole)
        # A thin plate overshoots; no painter keeps what is brighter than all tissue around it.
        filled = np.clip(curved, small[~small_hole].min(), small[~small_hole].max()).astype(np.float32)
    elif kind == "tv":
        scale = max(1e-3, float(small[~small_hole].std()))
        for _ in range(_TV_ROUNDS):
            slopes = np.gradient(filled)
            steep = np.hypot(slopes[0], slopes[1]) / scale
            filled = _solved(_laplacian(small.shape, float32(1 / np.sqrt(steep**2 + 0.01))), small, small_hole)
    whole = cv2.resize(filled, (plane.shape[1], plane.shape[0]), interpolation=cv2.INTER_CUBIC)
    return float32(whole)


def membrane(offset: Pixels, hole: Mask, *, screen: float = 0.0) -> Pixels:
    """h×w: the given offset outside the hole carried into it by (laplacian - screen) m = 0; screen in 1/px^2.

    Screened Poisson cloning (Bhat et al. 2008): a positive screen keeps the middle of the hole as the source had it.
    """
    factor = max(1.0, float(np.sqrt(hole.sum() / _MOST_UNKNOWNS)))
    size = (max(4, round(offset.shape[1] / factor)), max(4, round(offset.shape[0] / factor)))
    known = float32(cv2.resize((~hole).astype(np.float32), size, interpolation=cv2.INTER_AREA))
    # Cells on the rim take their value from outside alone.
    outside = cv2.resize(offset * ~hole, size, interpolation=cv2.INTER_AREA)
    small = float32(outside / np.maximum(known, 1e-3))
    small_hole = known < 0.5
    if not small_hole.any() or small_hole.all():
        return offset
    operator = _laplacian(small.shape) + diags(np.full(small.size, screen * factor**2))
    filled = _solved(operator.tocsr(), small, small_hole)
    return float32(cv2.resize(filled, (offset.shape[1], offset.shape[0]), interpolation=cv2.INTER_CUBIC))
