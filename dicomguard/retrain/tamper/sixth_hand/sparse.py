"""A lesion filled by sparse coding of overlapping patches.

An attacker takes the inpainting of Elad, Starck, Querre and Donoho ("Simultaneous cartoon and texture image inpainting
using morphological component analysis", ACHA 2005) or of Mairal, Elad and Sapiro ("Sparse representation for color
image restoration", IEEE TIP 2008), as shipped with many toolboxes: a dictionary explains the known part of a patch, and
its atoms continue into the hole.
"""

from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import fft

from dicomguard.retrain.tamper.filters import depth_inside, float32
from dicomguard.retrain.tamper.forged import Canvas, Forged, Mask, Pixels
from dicomguard.retrain.tamper.sixth_hand.bands import continued, joined
from dicomguard.retrain.tamper.sixth_hand.closing import seal, settle
from dicomguard.retrain.tamper.sixth_hand.grain import texture
from dicomguard.retrain.tamper.sixth_hand.scene import lesion_site, window

VARIANTS = ("dct-omp", "tissue-omp", "threshold")
Matrix: TypeAlias = NDArray[np.float64]

_PATCH = 9
_STEP = 2
_FRONT_PX = 3.0
_LEAST_KNOWN = 0.3
_TISSUE_ATOMS = 250
# Overcomplete: frequencies per axis for a patch of 9.
_DCT_FREQUENCIES = 12
_BLOCK = 16
_BLOCK_STEP = 4
_ROUNDS = 10
_BASE_PX = (7.0, 14.0, 28.0)


def forge(canvas: Canvas, donor: Canvas | None, rng: np.random.Generator) -> Forged | None:
    site = lesion_site(canvas, rng)
    if site is None:
        return None
    variant = str(rng.choice(VARIANTS))
    atoms_used = int(rng.integers(3, 7))
    edited = canvas.pixels.copy()
    for z in np.flatnonzero(site.core.any(axis=(1, 2))):
        cut = (int(z), *window(site.hole[z], round(10 * site.scale) + _BLOCK))
        edited[cut] = _filled(canvas.pixels[cut], site.hole[cut], site.healthy[cut], variant, atoms_used, rng)
    settled = settle(canvas, edited, site.alpha, site.healthy, rng)
    return seal(
        canvas,
        settled,
        site.alpha,
        kind="removed",
        lesion=site.rest,
        family="sparse",
        variant=variant,
        parameters={"atoms": atoms_used, "patch": _BLOCK if variant == "threshold" else _PATCH},
    )


def _filled(
    plane: Pixels, hole: Mask, healthy: Mask, variant: str, atoms_used: int, rng: np.random.Generator
) -> Pixels:
    if healthy.sum() < 200:
        return continued(plane, ~hole)
    # Codes explain what a smooth continuation of the healthy tissue leaves; skull and fluid are not to run in.
    base = continued(plane, healthy, _BASE_PX)
    detail = plane - base
    if variant == "threshold":
        filled = _thresholded(detail, healthy)
    else:
        atoms = _dct_atoms() if variant == "dct-omp" else _tissue_atoms(plane, healthy, rng)
        filled = _onion(detail, healthy, hole, atoms, atoms_used)
    filled = joined(base + filled, plane, healthy, hole)
    # Codes of few atoms are too smooth deep in the hole: the middle frequencies are drawn anew.
    deep = np.clip(depth_inside(hole) / 6, 0, 1)
    return float32(filled + deep * texture(plane, healthy, rng, fine=0.8, coarse=4.0) * rng.uniform(0.4, 0.75))


def _dct_atoms() -> Matrix:
    steps = np.arange(_PATCH)
    waves = np.stack([np.cos(np.pi * (steps + 0.5) * k / _DCT_FREQUENCIES) for k in range(_DCT_FREQUENCIES)])
    waves[1:] -= waves[1:].mean(axis=1, keepdims=True)
    atoms = np.einsum("ka,lb->klab", waves, waves).reshape(-1, _PATCH * _PATCH)
    return _unit(atoms)


def _tissue_atoms(plane: Pixels, healthy: Mask, rng: np.random.Generator) -> Matrix:
    """Patches of the scan itself, with the constant and two ramps."""
    sound = cv2.erode(healthy.astype(np.uint8), np.ones((_PATCH, _PATCH), np.uint8))
    half = _PATCH // 2
    rows, cols = np.nonzero(sound[half:-half, half:-half])
    if rows.size < 20:
        return _dct_atoms()
    spots = rng.choice(rows.size, size=min(_TISSUE_ATOMS, rows.size), replace=False)
    patches = np.lib.stride_tricks.sliding_window_view(plane, (_PATCH, _PATCH))[rows[spots], cols[spots]]
    flat = patches.reshape(len(spots), -1).astype(np.float64)
    flat -= flat.mean(axis=1, keepdims=True)
    return _unit(np.concatenate([_dct_atoms()[[0, 1, _DCT_FREQUENCIES]], flat]))


def _unit(atoms: Matrix) -> Matrix:
    norms = np.linalg.norm(atoms, axis=1, keepdims=True)
    return np.asarray(atoms[norms[:, 0] > 1e-6] / norms[norms[:, 0] > 1e-6], np.float64)


def _onion(plane: Pixels, known: Mask, hole: Mask, atoms: Matrix, atoms_used: int) -> Pixels:
    """From the border inwards, a front of a few pixels at a time."""
    half = _PATCH // 2
    missing = cv2.copyMakeBorder((~known).astype(np.uint8), half, half, half, half, cv2.BORDER_REFLECT_101) > 0
    filled = float32(cv2.copyMakeBorder(np.where(known, plane, 0), half, half, half, half, cv2.BORDER_REFLECT_101))
    low, high = np.quantile(plane[known], (0.02, 0.98))
    window_weight = np.outer(np.hanning(_PATCH + 2)[1:-1], np.hanning(_PATCH + 2)[1:-1]).ravel()
    for _ in range(max(hole.shape)):
        front = missing & (depth_inside(missing) <= _FRONT_PX)
        front[:half], front[-half:], front[:, :half], front[:, -half:] = False, False, False, False
        rows, cols = np.nonzero(front)
        if rows.size == 0:
            break
        chosen = (rows % _STEP == 0) & (cols % _STEP == 0)
        if not chosen.any():
            chosen[:] = True
        index = _patch_index(rows[chosen], cols[chosen], missing.shape[1])
        present = ~missing.ravel()[index]
        usable = present.mean(axis=1) >= _LEAST_KNOWN
        total, weight = np.zeros(missing.size), np.zeros(missing.size)
        if usable.any():
            values = filled.ravel()[index[usable]].astype(np.float64)
            coded = _omp(values, present[usable].astype(np.float64), atoms, atoms_used)
            np.add.at(total, index[usable], coded * window_weight)
            np.add.at(weight, index[usable], np.broadcast_to(window_weight, coded.shape))
        met = front & (weight > 0.05).reshape(front.shape)
        filled[met] = np.clip(total.reshape(front.shape)[met] / weight.reshape(front.shape)[met], low, high)
        missing &= ~front
    return filled[half:-half, half:-half]


def _patch_index(rows: NDArray[np.intp], cols: NDArray[np.intp], width: int) -> NDArray[np.intp]:
    offsets = np.arange(_PATCH) - _PATCH // 2
    square = (offsets[:, None] * width + offsets[None, :]).ravel()
    return np.asarray((rows * width + cols)[:, None] + square, np.intp)


def _omp(values: Matrix, present: Matrix, atoms: Matrix, count: int) -> Matrix:
    """Orthogonal matching pursuit of many patches at once on their known pixels; returns whole patches."""
    mean = (values * present).sum(axis=1, keepdims=True) / present.sum(axis=1, keepdims=True)
    wanted = (values - mean) * present
    norms = np.sqrt(np.maximum(present @ (atoms.T**2), 0.05))
    remaining, picked = wanted, np.zeros((len(values), 0), np.intp)
    coded = np.zeros_like(values)
    for step in range(count):
        fit = np.abs(remaining @ atoms.T) / norms
        if step:
            np.put_along_axis(fit, picked, -1.0, axis=1)
        picked = np.concatenate([picked, fit.argmax(axis=1)[:, None]], axis=1)
        basis = atoms[picked]
        masked = basis * present[:, None, :]
        gram = masked @ masked.transpose(0, 2, 1) + 0.02 * np.eye(step + 1)
        weights = np.linalg.solve(gram, masked @ wanted[:, :, None])
        coded = (weights.transpose(0, 2, 1) @ basis)[:, 0]
        remaining = wanted - coded * present
    return np.asarray(coded + mean, np.float64)


def _thresholded(detail: Pixels, known: Mask) -> Pixels:
    """Iterative hard thresholding of overlapping cosine blocks with a falling threshold."""
    filled = np.where(known, detail, 0).astype(np.float32)
    spread = float(detail[known].std()) + 1e-3
    for threshold in spread * _BLOCK * np.geomspace(0.7, 0.06, _ROUNDS):
        filled = np.where(known, detail, _shrunk(filled, float(threshold))).astype(np.float32)
    return filled


def _shrunk(plane: Pixels, threshold: float) -> Pixels:
    padded = np.pad(plane, [(_BLOCK, 2 * _BLOCK - side % _BLOCK_STEP) for side in plane.shape], mode="symmetric")
    blocks = np.lib.stride_tricks.sliding_window_view(padded, (_BLOCK, _BLOCK))[::_BLOCK_STEP, ::_BLOCK_STEP]
    codes = fft.dctn(blocks, axes=(2, 3), norm="ortho")
    codes[np.abs(codes) < threshold] = 0
    taper = np.outer(np.hanning(_BLOCK + 2)[1:-1], np.hanning(_BLOCK + 2)[1:-1])
    back = fft.idctn(codes, axes=(2, 3), norm="ortho") * taper
    total, weight = np.zeros_like(padded), np.full_like(padded, 1e-6)
    down, right = (count * _BLOCK_STEP for count in blocks.shape[:2])
    for row, col in np.ndindex(_BLOCK, _BLOCK):
        spot = np.s_[row : row + down : _BLOCK_STEP, col : col + right : _BLOCK_STEP]
        total[spot] += back[:, :, row, col]
        weight[spot] += taper[row, col]
    return float32((total / weight)[_BLOCK : _BLOCK + plane.shape[0], _BLOCK : _BLOCK + plane.shape[1]])
