"""Maps and boxes of one slice → candidate regions. Arrays only.

Two kinds of candidates: connected parts of the fused forgery map, and RoI detections. Where they overlap they are one
region: the map says where pixels disagree with the scan, the RoI head whether there is a lesion.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

Plane: TypeAlias = NDArray[np.float32]
Mask: TypeAlias = NDArray[np.bool_]

# Parts smaller than this (pixels at half scale; four times as many native ones) are noise of the map.
_SMALLEST_PART = 10
_MOST_PARTS = 4
# A RoI detection below both of these is background.
_LEAST_LESION = 0.25
_LEAST_FORGED = 0.35
_SAME_REGION = 0.3
_LOGIT_EPSILON = 1e-4


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """One RoI detection."""

    # xyxy, native pixels.
    box: tuple[float, float, float, float]
    p_lesion: float
    p_forged: float
    # 28×28 probabilities inside the box.
    mask: Plane


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A region that may be a lesion, forged, or both."""

    box: tuple[float, float, float, float]
    # Native pixels: of the region that was looked at, after `placed` of the slice.
    mask: Mask
    # Forgery strength against the strongest region of the slice; 0 for that one, negative for others (logits).
    weaker: float
    # Logit that it is a lesion.
    lesion: float
    # Logit that it was put in rather than wiped away, if it is forged.
    added: float


def candidates(fine: Plane, coarse: Plane, head: Mask, *, proposals: Sequence[Box]) -> list[Candidate]:
    """Regions of a slice; `fine` 3×h×w and `coarse` 3×⌈h/2⌉×⌈w/2⌉ smoothed logits, `head` h×w, at half resolution."""
    height, width = head.shape
    # Twice exactly: where h is odd the last of ⌈h/2⌉ cells reaches beyond, and fitting it in would move all others.
    doubled = (2 * coarse.shape[2], 2 * coarse.shape[1])
    rough = np.stack([cv2.resize(plane, doubled, interpolation=cv2.INTER_LINEAR) for plane in coarse])
    rough = rough[:, :height, :width]
    fused = 0.5 * (fine + rough)
    forged, lesion, addition = fused
    size = (2 * width, 2 * height)
    found: list[tuple[Mask, float, float, float]] = []
    for part in _forged_parts(forged, head):
        added = float(addition[part].mean())
        found.append((_enlarged(part, size), float(_top_mean(forged[part])), float(_top_mean(lesion[part])), added))
    for box in sorted(proposals, key=lambda b: -max(b.p_lesion, b.p_forged)):
        if box.p_lesion < _LEAST_LESION and box.p_forged < _LEAST_FORGED:
            continue
        mask = _pasted(box, (size[1], size[0]))
        small = mask[::2, ::2] & head
        if small.sum() < _SMALLEST_PART:
            continue
        same = next((i for i, other in enumerate(found) if _overlap(mask, other[0]) >= _SAME_REGION), None)
        strength, tissue = float(_top_mean(forged[small])), float(_top_mean(lesion[small]))
        logit = 0.5 * (tissue + _logit(box.p_lesion))
        if same is None:
            found.append((mask, strength, logit, float(addition[small].mean())))
        elif logit > found[same][2]:
            found[same] = (found[same][0] | mask, max(strength, found[same][1]), logit, found[same][3])
    if not found:
        return []
    best = max(strength for _, strength, _, _ in found)
    return [
        Candidate(box=_bounds(mask), mask=mask, weaker=min(strength - best, 0.0), lesion=logit, added=added)
        for mask, strength, logit, added in found
        if mask.any()
    ]


def placed(candidate: Candidate, region: tuple[int, int, int, int], shape: tuple[int, int]) -> Candidate:
    """The candidate in the coordinates of the whole slice; `region` = (top, left, bottom, right)."""
    top, left, bottom, right = region
    mask = np.zeros(shape, dtype=bool)
    part = candidate.mask[: bottom - top, : right - left]
    mask[top : top + part.shape[0], left : left + part.shape[1]] = part
    x1, y1, x2, y2 = candidate.box
    return replace(candidate, mask=mask, box=(x1 + left, y1 + top, x2 + left, y2 + top))


def _forged_parts(forged: Plane, head: Mask) -> list[Mask]:
    """Connected parts above the middle between the slice's strongest logits and its own level, strongest first."""
    inside = np.sort(forged[head])
    if len(inside) < _SMALLEST_PART:
        return []
    peak, level = float(inside[-_SMALLEST_PART:].mean()), float(inside[int(0.9 * (len(inside) - 1))])
    threshold = min(max(0.0, level), peak - 0.5) if peak > 0 else 0.5 * (peak + level)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(((forged > threshold) & head).astype(np.uint8))
    parts = [labels == i for i in range(1, count) if stats[i, cv2.CC_STAT_AREA] >= _SMALLEST_PART]
    return sorted(parts, key=lambda part: -float(_top_mean(forged[part])))[:_MOST_PARTS]


def _top_mean(values: Plane) -> float:
    """Mean of the strongest half."""
    ordered = np.sort(values)
    return float(ordered[len(ordered) // 2 :].mean())


def _enlarged(part: Mask, size: tuple[int, int]) -> Mask:
    return np.asarray(cv2.resize(part.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0, dtype=bool)


def _pasted(box: Box, shape: tuple[int, int]) -> Mask:
    x1, y1 = max(int(np.floor(box.box[0])), 0), max(int(np.floor(box.box[1])), 0)
    x2, y2 = min(int(np.ceil(box.box[2])), shape[1]), min(int(np.ceil(box.box[3])), shape[0])
    mask = np.zeros(shape, dtype=bool)
    if x2 > x1 and y2 > y1:
        mask[y1:y2, x1:x2] = cv2.resize(box.mask, (x2 - x1, y2 - y1), interpolation=cv2.INTER_LINEAR) > 0.5
    return mask


def _overlap(one: Mask, other: Mask) -> float:
    both = float((one & other).sum())
    return both / max(float(min(one.sum(), other.sum())), 1.0)


def _bounds(mask: Mask) -> tuple[float, float, float, float]:
    x, y, w, h = cv2.boundingRect(mask.astype(np.uint8))
    return (float(x), float(y), float(x + w), float(y + h))


def _logit(p: float) -> float:
    clipped = min(max(p, _LOGIT_EPSILON), 1 - _LOGIT_EPSILON)
    return float(np.log(clipped / (1 - clipped)))
