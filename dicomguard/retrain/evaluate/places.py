"""Pixels of a slice on a coarse grid over the head, and how well places are told apart. Pure arrays.

Forgeries do not lie anywhere in a head, so a map that knows positions alone gets a pixel AUC for nothing:
`prior` is that map, made of the masks of other patients.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from dicomguard.retrain.evaluate.metrics import auc

GRID = 64
_SMOOTH = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """GRID×GRID over the box of the head."""

    head: NDArray[np.bool_]
    forged: NDArray[np.bool_]
    # By name: what a judge says of each place, higher is more suspect.
    said: Mapping[str, NDArray[np.float32]]


def place(head: NDArray[np.bool_], forged: NDArray[np.bool_], said: Mapping[str, NDArray[np.float32]]) -> Placed:
    """H×W arrays → the grid over the head's box (over the whole slice when there is no head)."""
    rows, columns = np.flatnonzero(head.any(axis=1)), np.flatnonzero(head.any(axis=0))
    box = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] if len(rows) else np.s_[:, :]

    def shrunk(array: NDArray[np.generic]) -> NDArray[np.float32]:
        small = cv2.resize(
            np.ascontiguousarray(array[box], dtype=np.float32), (GRID, GRID), interpolation=cv2.INTER_AREA
        )
        return np.asarray(small, np.float32)

    return Placed(
        head=shrunk(head) > 0.5, forged=shrunk(forged) > 0.5, said={name: shrunk(one) for name, one in said.items()}
    )


def pixel_auc(placed: Placed, said: NDArray[np.float32]) -> float | None:
    """Chance that a forged place of the head is more suspect than one that is not; None when a side is empty."""
    inside, outside = placed.head & placed.forged, placed.head & ~placed.forged
    return auc(said[inside].tolist(), said[outside].tolist())


def prior(slices: Sequence[tuple[str, Placed]]) -> Mapping[str, NDArray[np.float32]]:
    """(patient, slice) → for each patient how often the others' slices are forged at each place, smoothed."""
    patients = sorted({patient for patient, _ in slices})
    sums = {patient: np.zeros((GRID, GRID), np.float32) for patient in patients}
    for patient, one in slices:
        sums[patient] += one.forged
    total = np.sum(np.stack(list(sums.values())), axis=0) if sums else np.zeros((GRID, GRID), np.float32)
    return {patient: np.asarray(cv2.blur(total - own, (_SMOOTH, _SMOOTH)), np.float32) for patient, own in sums.items()}
