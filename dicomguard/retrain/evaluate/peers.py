"""Classical detectors beside ours, nothing learnt: planes in, maps of suspicion out.

They share slices, pooling and figures with the model, so that a difference is one of method. Noise inconsistency after
Mahdian & Saic 2009 and Gardella et al. 2021, error level analysis after Krawetz 2007, mirror correlation for copies of
the healthy side.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from dicomguard.analyze import scores
from dicomguard.retrain.tamper.filters import jpeg

Plane: TypeAlias = NDArray[np.float32]
Mask: TypeAlias = NDArray[np.bool_]
# H×W plane and head → H×W suspicion.
Peer: TypeAlias = Callable[[Plane, Mask], Plane]

_KB = np.array([[-1, 2, -1], [2, -4, 2], [-1, 2, -1]], np.float32) / 4
_NOISE_WINDOW = 11
_CURVE_BINS = 16
_ELA_QUALITY = 90
_ELA_WINDOW = 8
_MIRROR_WINDOW = 13
# Columns on either side of the midline that are their own mirror image.
_MIDLINE = 10


def _box(plane: Plane, side: int) -> Plane:
    return np.asarray(cv2.blur(plane, (side, side)), np.float32)


def noise_inconsistency(plane: Plane, head: Mask) -> Plane:
    """How far the local noise level lies from that of tissue of the same brightness, in log units."""
    if not head.any():
        return np.zeros_like(plane)
    residual = np.asarray(cv2.filter2D(plane, cv2.CV_32F, _KB), np.float32)
    level = np.log(_box(residual**2, _NOISE_WINDOW) + 0.05)
    mean = _box(plane, _NOISE_WINDOW)
    edges = np.quantile(mean[head], np.linspace(0, 1, _CURVE_BINS + 1)[1:-1])
    place = np.searchsorted(edges, mean)
    usual = np.array(
        [np.median(level[head & (place == b)]) if (head & (place == b)).any() else 0 for b in range(_CURVE_BINS)],
        np.float32,
    )
    return np.asarray(np.abs(level - usual[place]), np.float32)


def error_level(plane: Plane, head: Mask) -> Plane:
    """How far the error of JPEG at quality 90 lies from the head's usual one."""
    if not head.any():
        return np.zeros_like(plane)
    error = np.abs(plane - jpeg(plane, _ELA_QUALITY, low=float(plane.min()), high=float(plane.max())))
    local = _box(np.asarray(error, np.float32), _ELA_WINDOW)
    return np.asarray(np.abs(local - np.median(local[head])), np.float32)


def mirror_correlation(plane: Plane, head: Mask) -> Plane:
    """Best local correlation of the high-passed plane with its mirror image about the middle of the head.

    Shifts of ±3 columns and ±2 rows; near the midline, where everything is its own image, 0.
    """
    columns = np.flatnonzero(head.any(axis=0))
    if not len(columns):
        return np.zeros_like(plane)
    rows = np.flatnonzero(head.any(axis=1))
    box = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    fine = plane[box] - cv2.GaussianBlur(plane[box], (0, 0), 1.5)
    fine = np.where(head[box], fine, 0).astype(np.float32)
    image = np.ascontiguousarray(fine[:, ::-1])
    power, best = _box(fine**2, _MIRROR_WINDOW), np.zeros_like(fine)
    for down in range(-2, 3):
        for right in range(-3, 4):
            moved = np.roll(image, (down, right), axis=(0, 1))
            joint = _box(fine * moved, _MIRROR_WINDOW)
            best = np.maximum(best, joint / np.sqrt(power * _box(moved**2, _MIRROR_WINDOW) + 1e-3))
    middle = fine.shape[1] / 2
    best[:, np.abs(np.arange(fine.shape[1]) + 0.5 - middle) < _MIDLINE] = 0
    found = np.zeros_like(plane)
    found[box] = best
    return found


PEERS: Mapping[str, Peer] = MappingProxyType(
    {"noise inconsistency": noise_inconsistency, "ELA": error_level, "mirror correlation": mirror_correlation}
)


def maps(plane: Plane, head: Mask) -> dict[str, Plane]:
    """What each peer says of each pixel."""
    return {name: peer(plane, head) for name, peer in PEERS.items()}


def score(suspicion: Plane, head: Mask) -> float:
    """One number a slice from an H×W map: the mean of the most suspect pixels of the head, as the detector pools."""
    return scores.terms(_box(suspicion, 5), head).raw
