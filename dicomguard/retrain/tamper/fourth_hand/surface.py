"""Smooth surfaces over a hole: the membrane (Laplace) and the Poisson equation, each solved without a sparse matrix."""

import cv2
import numpy as np
from scipy import fft

from dicomguard.retrain.tamper.filters import float32, gaussian, resize
from dicomguard.retrain.tamper.forged import Mask, Pixels

_CROSS = np.array([[0, 0.25, 0], [0.25, 0, 0.25], [0, 0.25, 0]], np.float32)


def spread(plane: Pixels, known: Mask, sigma: float) -> Pixels:
    """Normalised convolution: the mean of the known pixels around each pixel, from further off where none is near."""
    weights = known.astype(np.float32)
    if not known.any():
        return np.zeros_like(plane)
    out = np.full_like(plane, float(plane[known].mean()))
    total = np.zeros_like(plane)
    for wide in (8 * sigma, 4 * sigma, 2 * sigma, sigma):
        # Wide means on a small picture: nobody sees the difference.
        step = max(1, int(wide // 3))
        small = (max(2, plane.shape[0] // step), max(2, plane.shape[1] // step))
        share = resize(weights, small, cv2.INTER_AREA)
        values = resize(plane * weights, small, cv2.INTER_AREA)
        share, values = gaussian(share, max(wide / step, 0.5)), gaussian(values, max(wide / step, 0.5))
        total, values = resize(share, plane.shape), resize(values, plane.shape)
        trust = np.clip(total / 0.25, 0, 1)
        out = out * (1 - trust) + trust * values / np.maximum(total, 1e-6)
    return float32(out)


def membrane(plane: Pixels, hole: Mask, known: Mask) -> Pixels:
    """The plane with the hole covered by a membrane that hangs at the known pixels around it.

    Pixels that are neither hole nor known (air, say) hold nothing: the membrane is free there.
    """
    open_ = ~known
    if not known.any() or not hole.any():
        return plane
    level = spread(plane, known, 3.0)
    level = np.where(open_, level, plane).astype(np.float32)
    sizes = [8, 4, 2, 1] if min(plane.shape) >= 48 else [2, 1]
    for step in sizes:
        small = (max(2, plane.shape[0] // step), max(2, plane.shape[1] // step))
        loose = resize(open_.astype(np.float32), small, cv2.INTER_AREA)
        pinned = loose < 0.99
        share = np.maximum(1 - loose, 1e-3)
        fixed = resize(np.where(open_, 0, plane).astype(np.float32), small, cv2.INTER_AREA) / share
        current = np.where(pinned, fixed, resize(level, small, cv2.INTER_AREA)).astype(np.float32)
        for _ in range(25 if step > 1 else 12):
            relaxed = cv2.filter2D(current, cv2.CV_32F, _CROSS, borderType=cv2.BORDER_REFLECT_101)
            current = np.where(pinned, fixed, relaxed).astype(np.float32)
        level = np.where(open_, resize(current, plane.shape), plane).astype(np.float32)
    return np.where(hole, level, plane).astype(np.float32)


def blurred_rim(plane: Pixels, hole: Mask, known: Mask, sigma: float = 2.0) -> Pixels:
    """A membrane that hangs at a smoothed rim: grain of single rim pixels draws no streaks into the hole."""
    return membrane(spread(plane, known, sigma), hole, known)


def poisson(along_rows: Pixels, along_cols: Pixels) -> Pixels:
    """The picture of zero mean whose forward differences come nearest to the ones given (Neumann, by the DCT)."""
    source = np.zeros_like(along_rows)
    source[:-1] += along_rows[:-1]
    source[1:] -= along_rows[:-1]
    source[:, :-1] += along_cols[:, :-1]
    source[:, 1:] -= along_cols[:, :-1]
    rows, cols = source.shape
    eigen_r = 2 * np.cos(np.pi * np.arange(rows) / rows) - 2
    eigen_c = 2 * np.cos(np.pi * np.arange(cols) / cols) - 2
    eigen = eigen_r[:, None] + eigen_c[None, :]
    eigen[0, 0] = 1
    spectrum = fft.dctn(source, norm="ortho") / eigen
    spectrum[0, 0] = 0
    return float32(fft.idctn(spectrum, norm="ortho"))
