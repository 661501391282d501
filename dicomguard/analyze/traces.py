"""What can be measured in a region without the network, as sentences beside its probability.

Descriptive: a forgery need not show any of it, and an authentic region may. Arrays in, sentences out.
"""

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from dicomguard.core.finding import Sentence

Plane: TypeAlias = NDArray[np.float32]
Mask: TypeAlias = NDArray[np.bool_]

# Second differences in both directions: removes content, keeps noise (KB of the steganalysis rich model).
_KB = np.array([[-1, 2, -1], [2, -4, 2], [-1, 2, -1]], dtype=np.float32) / 4
# Slices of a region that are looked at, the largest first.
_MOST_SLICES = 3
# Fewer pixels give no level that is worth a sentence.
_FEWEST_INSIDE = 60
_FEWEST_ALIKE = 200
# Around the region, so that its seam is part of neither side.
_MARGIN_PX = 3
_BELOW, _ABOVE = 0.8, 1.25
# An end whose area is more than this share of the largest is abrupt.
_ABRUPT = 0.6
_FEWEST_FOR_END = 3


def describe(planes: Sequence[Plane], masks: Mapping[int, Mask], *, placed: bool) -> tuple[Sentence, ...]:
    """Sentences on one region; `masks` by index of the plane, `placed` says that the planes are neighbours in order."""
    sentences = []
    noise = _noise(planes, masks)
    if noise is not None:
        sentences.append(noise)
    if placed and _ends_abruptly(masks, len(planes)):
        sentences.append(Sentence(sentence_key="abrupt_end", parameters={}))
    return tuple(sentences)


def _noise(planes: Sequence[Plane], masks: Mapping[int, Mask]) -> Sentence | None:
    """Noise inside against pixels of equal local mean elsewhere in the same slices."""
    inside, alike = [], []
    for index in sorted(masks, key=lambda i: -np.count_nonzero(masks[i]))[:_MOST_SLICES]:
        plane, mask = planes[index], masks[index].astype(np.uint8)
        residual = np.abs(cv2.filter2D(plane, -1, _KB))
        mean = cv2.blur(plane, (5, 5))
        core = cv2.erode(mask, np.ones((3, 3), np.uint8)) > 0
        if np.count_nonzero(core) < _FEWEST_INSIDE // _MOST_SLICES:
            continue
        low, high = np.percentile(mean[core], (10, 90))
        side = 2 * _MARGIN_PX + 1
        outside = cv2.dilate(mask, np.ones((side, side), np.uint8)) == 0
        inside.append(residual[core & (mean >= low) & (mean <= high)])
        alike.append(residual[outside & (mean >= low) & (mean <= high)])
    if sum(map(len, inside)) < _FEWEST_INSIDE or sum(map(len, alike)) < _FEWEST_ALIKE:
        return None
    reference = float(np.median(np.concatenate(alike)))
    if reference <= 0:
        return None
    ratio = float(np.median(np.concatenate(inside))) / reference
    if ratio <= _BELOW:
        return Sentence(sentence_key="noise_below", parameters={"percent": float(round(100 * (1 - ratio)))})
    if ratio >= _ABOVE:
        return Sentence(sentence_key="noise_above", parameters={"percent": float(round(100 * (ratio - 1)))})
    return Sentence(sentence_key="noise_fits", parameters={})


def _ends_abruptly(masks: Mapping[int, Mask], count: int) -> bool:
    """The region is large on its first or last slice, where the stack goes on."""
    if len(masks) < _FEWEST_FOR_END:
        return False
    areas = {index: np.count_nonzero(mask) for index, mask in masks.items()}
    largest = max(areas.values())
    ends = [index for index, edge in ((min(masks), 0), (max(masks), count - 1)) if index != edge]
    return any(areas[index] > _ABRUPT * largest for index in ends)
