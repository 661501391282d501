"""fourth/lowrank: fill by sparse and low-rank projections.

A real attacker runs an inpainting of the restoration toolboxes: iterated thresholding of cosines (Guleryuz), groups of
alike patches of low rank (GSR, WNNM), or principal components of healthy patches as in EM for missing data. What they
leave is smooth, so that he adds the residual of healthy tissue.
"""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from scipy import fft

from dicomguard.retrain.tamper.filters import gaussian
from dicomguard.retrain.tamper.forged import Canvas, Forged, Mask, Pixels
from dicomguard.retrain.tamper.fourth_hand import texture
from dicomguard.retrain.tamper.fourth_hand.cover import cover
from dicomguard.retrain.tamper.fourth_hand.site import Site
from dicomguard.retrain.tamper.fourth_hand.surface import blurred_rim, spread

VARIANTS = ("sparse cosines", "patch groups", "principal components")
_SIDE = 8


def sparse_cosines(
    plane: Pixels, hole: Mask, healthy: Mask, surface: Pixels, noise: float, rng: np.random.Generator
) -> Pixels:
    """Keep the large cosines of the whole window, put the healthy pixels back, lower the bar, again.

    Works on what is left of the plane above a smooth surface; skull and vessels count as unknown, or they would ring
    through the hole.
    """
    flat = np.where(healthy, plane - surface, 0).astype(np.float32)
    bound = 3 * max(float(flat[healthy].std()), noise)
    flat = np.clip(flat, -bound, bound)
    current = flat
    rounds = int(rng.integers(14, 26))
    top = max(0.5 * float(np.abs(fft.dctn(flat, norm="ortho")).max()), 4 * noise)
    for bar in np.geomspace(top, 2.5 * noise, rounds):
        spectrum = fft.dctn(current, norm="ortho")
        kept = np.where(np.abs(spectrum) >= bar, spectrum, 0)
        filled = np.clip(fft.idctn(kept, norm="ortho"), -bound, bound)
        current = np.where(healthy, flat, filled).astype(np.float32)
    # Where all is unknown, chance coefficients pile up: no more unevenness than healthy tissue has.
    usual = float(np.median(np.abs(flat[healthy]))) / 0.6745
    made = current * np.float32(min(1.0, 0.6 * usual / max(float(current[hole].std()), 1e-6)))
    return np.where(hole, surface + made, plane).astype(np.float32)


def _corners(hole: Mask, most: int, rng: np.random.Generator) -> NDArray[np.intp]:
    """Corners of patches that cover the hole, on a grid coarse enough for the number allowed."""
    rows, cols = hole.shape[0] - _SIDE + 1, hole.shape[1] - _SIDE + 1
    touched = sliding_window_view(hole, (_SIDE, _SIDE)).any(axis=(2, 3))
    for step in (2, 3, 4, 5, 6):
        lattice = np.zeros((rows, cols), np.bool_)
        lattice[int(rng.integers(step)) % rows :: step, int(rng.integers(step)) % cols :: step] = True
        lattice[-1, ::step] = lattice[::step, -1] = True
        found = np.argwhere(touched & lattice)
        if len(found) <= most:
            break
    return found


def _models(plane: Pixels, healthy: Mask, most: int, rng: np.random.Generator) -> Pixels | None:
    """Healthy patches as rows."""
    whole = np.argwhere(sliding_window_view(healthy, (_SIDE, _SIDE)).all(axis=(2, 3)))
    if len(whole) < 30:
        return None
    picks = whole[rng.permutation(len(whole))[:most]]
    return np.asarray(sliding_window_view(plane, (_SIDE, _SIDE))[picks[:, 0], picks[:, 1]]).reshape(len(picks), -1)


def _aggregate(patches: Pixels, corners: NDArray[np.intp], shape: tuple[int, ...]) -> tuple[Pixels, Pixels]:
    total, count = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    squares = patches.reshape(-1, _SIDE, _SIDE)
    bell = np.outer(np.hanning(_SIDE + 2)[1:-1], np.hanning(_SIDE + 2)[1:-1]).astype(np.float32)
    for square, (r, c) in zip(squares, corners, strict=True):
        total[r : r + _SIDE, c : c + _SIDE] += bell * square
        count[r : r + _SIDE, c : c + _SIDE] += bell
    return total, count


def projected(
    plane: Pixels, hole: Mask, healthy: Mask, start: Pixels, variant: str, noise: float, rng: np.random.Generator
) -> Pixels | None:
    """Fill by patches: groups of low rank, or the span of the main components of healthy patches."""
    if min(plane.shape) < 2 * _SIDE:
        return None
    models = _models(plane, healthy, 360, rng)
    if models is None:
        return None
    corners = _corners(hole, 300, rng)
    view = sliding_window_view
    groups, rank = int(rng.integers(12, 25)), int(rng.integers(6, 20))
    means = models.mean(axis=1, keepdims=True)
    shapes = models - means
    _, _, axes = np.linalg.svd(shapes, full_matrices=False)
    current = start.copy()
    for turn in range(3):
        patches = np.asarray(view(current, (_SIDE, _SIDE))[corners[:, 0], corners[:, 1]]).reshape(len(corners), -1)
        middle = patches.mean(axis=1, keepdims=True)
        centred = patches - middle
        if variant == "principal components":
            made = (centred @ axes[:rank].T) @ axes[:rank]
        else:
            distance = (shapes**2).sum(axis=1)[None] - 2 * centred @ shapes.T
            nearest = np.argpartition(distance, min(groups, len(shapes) - 1), axis=1)[:, :groups]
            stacks = np.concatenate([centred[:, None], shapes[nearest]], axis=1)
            # The singular values by the small Gram matrix; only the reference's own row is needed.
            squares, left = np.linalg.eigh(stacks @ stacks.transpose(0, 2, 1))
            values = np.sqrt(np.maximum(squares, 1e-9))
            bar = noise * (np.sqrt(_SIDE * _SIDE) + np.sqrt(groups)) * (1.0 - 0.15 * turn)
            share = np.maximum(values - 0.5 * bar, 0) / values
            rows = np.einsum("nk,njk->nj", left[:, 0] * share, left)
            made = np.einsum("nj,njp->np", rows, stacks)
            # The group speaks for its reference: what the hole had there is only a start.
            made = 0.5 * made + 0.5 * shapes[nearest[:, : 3 + turn]].mean(axis=1)
        total, count = _aggregate((made + middle).astype(np.float32), corners, plane.shape)
        current = np.where(hole & (count > 0), total / np.maximum(count, 1e-6), plane).astype(np.float32)
        current = np.where(hole & (count == 0), start, current)
    return current


def forge(canvas: Canvas, donor: Canvas | None, rng: np.random.Generator) -> Forged | None:
    """Fill a lesion, or a normal spot where there is none, by projections."""
    variant = VARIANTS[int(rng.integers(len(VARIANTS)))]

    def fill(site: Site, z: int, wide: Mask) -> Pixels | None:
        plane, healthy = site.pixels[z], site.healthy[z] & ~wide
        if not healthy.any():
            return None
        noise = max(texture.level(plane, healthy), 0.3)
        surface = blurred_rim(plane, wide, healthy)
        # Unevenness to grow structure from: a perfectly smooth start is a fixed point.
        start = np.where(wide, surface + 0.6 * gaussian(texture.grain(plane, healthy, rng, sigma=2.2), 0.7), plane)
        filled = None
        if variant != "sparse cosines":
            filled = projected(plane, wide, healthy, start, variant, noise, rng)
        if filled is None:
            ground = np.where(wide, surface, spread(plane, healthy, 6.0)).astype(np.float32)
            filled = sparse_cosines(plane, wide, healthy, ground, noise, rng)
        return texture.topped_up(plane, filled, healthy, site.hole[z], rng)

    return cover(canvas, rng, fill, reach=1.2, family="fourth/lowrank", variant=variant, parameters={})
