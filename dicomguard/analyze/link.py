"""Detections of neighbouring slices → regions through the stack. Pure arrays; knows no network and no DICOM."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Mask: TypeAlias = NDArray[np.bool_]

# detection.md 7: two detections belong together when their masks overlap by this much …
SAME_IOU = 0.2
# … or their centres lie within this share of the smaller one's diameter.
SAME_CENTRE = 0.5
# A region may be missed on one slice.
MOST_STEPS = 2
# Slices over which a region's probability is taken: one loud slice among quiet ones is no region.
_BEST = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One detection on one slice."""

    mask: Mask
    p_forged: float
    p_tumor: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Track:
    """A region over slices; index of the slice → H×W."""

    masks: Mapping[int, Mask]
    p_forged: float
    p_tumor: float


def tracks(slices: Sequence[Sequence[Seen]], *, positions_mm: Sequence[float | None]) -> list[Track]:
    """Link greedily from slice to slice, the best overlap first; slices without position stay alone."""
    open_: list[list[tuple[int, Seen]]] = []
    for index, detections in enumerate(slices):
        taken: set[int] = set()
        for detection in sorted(detections, key=lambda item: -max(item.p_forged, item.p_tumor)):
            best, score = -1, 0.0
            for number, track in enumerate(open_):
                last, before = track[-1]
                if number in taken or index - last > MOST_STEPS or not _placed(positions_mm, last, index):
                    continue
                likeness = _likeness(before.mask, detection.mask)
                if likeness > score:
                    best, score = number, likeness
            if best >= 0:
                open_[best].append((index, detection))
                taken.add(best)
            else:
                open_.append([(index, detection)])
                taken.add(len(open_) - 1)
    return [_track(members) for members in open_]


def _placed(positions_mm: Sequence[float | None], first: int, second: int) -> bool:
    return first != second and positions_mm[first] is not None and positions_mm[second] is not None


def _likeness(a: Mask, b: Mask) -> float:
    """IoU, at least a little when the centres lie close; 0 when the two are different regions."""
    union = np.count_nonzero(a | b)
    iou = np.count_nonzero(a & b) / union if union else 0.0
    if iou >= SAME_IOU:
        return float(iou)
    smaller = min(np.count_nonzero(a), np.count_nonzero(b))
    if not smaller:
        return 0.0
    diameter = 2.0 * float(np.sqrt(smaller / np.pi))
    distance = float(np.linalg.norm(np.argwhere(a).mean(axis=0) - np.argwhere(b).mean(axis=0)))
    return max(float(iou), 1e-3) if distance <= SAME_CENTRE * diameter else 0.0


def _track(members: list[tuple[int, Seen]]) -> Track:
    masks: dict[int, Mask] = {}
    for index, detection in members:
        masks[index] = detection.mask | masks[index] if index in masks else detection.mask
    return Track(
        masks=masks,
        p_forged=_best([detection.p_forged for _, detection in members]),
        p_tumor=_best([detection.p_tumor for _, detection in members]),
    )


def _best(values: Sequence[float]) -> float:
    """Mean of the best few neighbours along the track; of all when it is short."""
    width = min(_BEST, len(values))
    return max(float(np.mean(values[start : start + width])) for start in range(len(values) - width + 1))
