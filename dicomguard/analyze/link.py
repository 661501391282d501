"""Detections of neighbouring slices → regions through the stack, and the stack's scores. Pure arrays.

A region's probability is that of its best few neighbouring slices: one loud slice among quiet ones is no region. A
region on a single slice of a stack pays for being alone, and many slices, in one stack or in several, have more chances
to look forged than few: both are in the calibration (`scores.Calibration`). Knows no network and no DICOM.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from dicomguard.analyze import scores
from dicomguard.analyze.scores import Calibration

Mask: TypeAlias = NDArray[np.bool_]

# Two detections belong together when their masks overlap by this much …
SAME_IOU = 0.2
# … or their centres lie within this share of the smaller one's diameter.
SAME_CENTRE = 0.5
# A region may be missed on one slice.
MOST_STEPS = 2
_BEST = 3
# The number of slices for which the study calibration holds as it is: the highest of n scores rises with log n
# (study AUC on validation patients 0.66 without that cost, 0.70 with it). Shorter stacks gain nothing more.
USUAL_SLICES = 25
_SHORTEST = 8
# More slices, more chances to see a lesion where there is none: cost per e-fold of slices (logit). A loose picture,
# of which a study holds a few, pays as a stack of two. Both from validation (docs/decisions/0001).
_LESION_COST = 0.9
_LOOSE_COUNT = 2
# The points of tumor and forgery, and the gap (pixels) that two parts of one region may leave.
_HALF = 0.5
# A region begins and ends on slices that show it by themselves: at the alert of slices where it is forged. A lesion
# fades out, and its slices below one half are as often lesion as not (docs/decisions/0019).
_FORGED_END, _LESION_END = _HALF, 0.2
# The middle of a forgery shows better than its rim, which fades into the scan: masks of what is forged are so much
# wider (pixels).
_RIM_PX = 2
_TOUCHING_PX = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One detection on one slice; probabilities as the detector calibrates them for a slice."""

    mask: Mask
    p_forged: float
    p_tumor: float
    # Logit that it was put in rather than wiped away, if it is forged.
    added: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Track:
    """A region over slices; index of the slice → H×W. Probabilities are those of a study."""

    masks: Mapping[int, Mask]
    p_forged: float
    # That the study shows a lesion here.
    p_tumor: float
    # That there is a lesion now, if the region is forged: put in rather than wiped away.
    p_lesion: float


def tracks(
    slices: Sequence[Sequence[Seen]],
    *,
    positions_mm: Sequence[float | None],
    looked_at: int,
    elsewhere: int,
    calibration: Calibration,
) -> list[Track]:
    """Link greedily from slice to slice, the best overlap first; slices without position stay alone.

    `elsewhere`: slices of the study's other stacks. A study is flagged by any of its stacks, so what stands out in one
    of eight means less than in the only one (docs/decisions/0019); a lesion shows in several and pays for its own.
    `looked_at`: how many of the slices were. Those without a head are none: they would make a long stack, whose finds
    count less, of a short one.
    """
    linked = chains(slices, positions_mm=positions_mm)
    placed = sum(position is not None for position in positions_mm) > 1
    found = []
    for members in linked:
        forged = forged_logit(
            [(index, one.p_forged) for index, one in members],
            placed=placed,
            count=looked_at + elsewhere,
            lone_cost=calibration.lone_cost,
        )
        tumor = tumor_logit([one.p_tumor for _, one in members], placed=placed, count=looked_at)
        p_forged = study_probability(forged, calibration, placed=placed)
        is_forged = p_forged >= _HALF
        kept = without_weak_ends(members, forged=is_forged)
        found.append(
            Track(
                masks={index: wider(one.mask, _RIM_PX) if is_forged else one.mask for index, one in kept},
                p_forged=p_forged,
                p_tumor=scores.probability(tumor, calibration.study_tumor_slope, calibration.study_tumor_bias),
                p_lesion=lesion_at_forgery([one for _, one in members], calibration),
            )
        )
    return found


def without_weak_ends(members: Sequence[tuple[int, Seen]], *, forged: bool) -> Sequence[tuple[int, Seen]]:
    """The members from the first to the last that shows the region by itself; the strongest alone when none does.

    Every slice has a strongest place, and below a found region it often lies at the same one.
    """
    shown = [one.p_forged if forged else one.p_tumor for _, one in members]
    point = min(_FORGED_END if forged else _LESION_END, max(shown))
    strong = [place for place, p in enumerate(shown) if p >= point]
    return members[strong[0] : strong[-1] + 1]


def joined(found: Sequence[Track]) -> list[Track]:
    """Tracks that say the same of touching places are one region: a fragment is no second tumor.

    The same means: alike above or below one half in both probabilities, and above in one, since what is below in both
    is not reported. The region keeps the highest of each.
    """
    regions: list[Track] = []
    for track in found:
        apart = []
        for other in regions:
            if any(_says(track)) and _says(track) == _says(other) and _touch(track.masks, other.masks):
                track = _union(track, other)
            else:
                apart.append(other)
        regions = [*apart, track]
    return regions


def _says(track: Track) -> tuple[bool, bool]:
    return track.p_forged >= _HALF, track.p_tumor >= _HALF


def _touch(one: Mapping[int, Mask], other: Mapping[int, Mask]) -> bool:
    return any(wider(one[i], _TOUCHING_PX)[other[i]].any() for i in one.keys() & other.keys())


def wider(mask: Mask, by_px: int) -> Mask:
    """H×W with everything that lies within so many pixels."""
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * by_px + 1, 2 * by_px + 1))
    return np.asarray(cv2.dilate(mask.astype(np.uint8), kernel) > 0, dtype=bool)


def _union(one: Track, other: Track) -> Track:
    masks = dict(one.masks)
    for index, mask in other.masks.items():
        masks[index] = masks[index] | mask if index in masks else mask
    return Track(
        masks=masks,
        p_forged=max(one.p_forged, other.p_forged),
        p_tumor=max(one.p_tumor, other.p_tumor),
        p_lesion=max(one, other, key=lambda track: track.p_forged).p_lesion,
    )


def chains(slices: Sequence[Sequence[Seen]], *, positions_mm: Sequence[float | None]) -> list[list[tuple[int, Seen]]]:
    """The detections of each track with the index of their slice, in order."""
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
    return open_


def forged_logit(members: Sequence[tuple[int, float]], *, placed: bool, count: int, lone_cost: float) -> float:
    """Logit of a track: its best three neighbouring slices together, or the best alone at a cost.

    `members`: index of the slice and its probability; `count`: slices of the study, more cost more. Loose
    pictures (`placed` false) are judged one by one: each is a stack of its own.
    """
    logits = [scores.logit(p) for _, p in members]
    if not placed:
        return max(logits)
    alone = max(logits) - lone_cost
    together = _best(logits) if len(logits) > 1 else alone
    return max(alone, together) - float(np.log(max(count, _SHORTEST) / USUAL_SLICES))


def tumor_logit(values: Sequence[float], *, placed: bool, count: int) -> float:
    """Mean logit of the best neighbouring slices of a track, less for a stack of many slices."""
    return _best([scores.logit(p) for p in values]) - _LESION_COST * float(np.log(count if placed else _LOOSE_COUNT))


def added_terms(members: Sequence[Seen]) -> tuple[float, float]:
    """Of a track: mean logit that it was put in, where it looks most forged; logit that it looks like a lesion."""
    strongest = sorted(members, key=lambda one: -one.p_forged)[:_BEST]
    return float(np.mean([one.added for one in strongest])), _best([scores.logit(one.p_tumor) for one in members])


def lesion_at_forgery(members: Sequence[Seen], calibration: Calibration) -> float:
    """Probability that a forged track was put in; no cost for the search: the forgery says where to look."""
    added, lesion = added_terms(members)
    value = calibration.added_slope * added + calibration.added_lesion_slope * lesion
    return scores.probability(value, 1.0, calibration.added_bias)


def study_probability(forged: float, calibration: Calibration, *, placed: bool) -> float:
    """A stack's track by the study's calibration; a loose picture keeps its own."""
    if not placed:
        return scores.probability(forged, 1.0, 0.0)
    return scores.probability(forged, calibration.study_slope, calibration.study_bias)


def _placed(positions_mm: Sequence[float | None], first: int, second: int) -> bool:
    return first != second and positions_mm[first] is not None and positions_mm[second] is not None


def _likeness(a: Mask, b: Mask) -> float:
    """IoU, at least a little when the centres lie close; 0 when the two are different regions."""
    both, one, other = np.count_nonzero(a & b), np.count_nonzero(a), np.count_nonzero(b)
    iou = both / (one + other - both) if both else 0.0
    if iou >= SAME_IOU:
        return float(iou)
    smaller = min(one, other)
    if not smaller:
        return 0.0
    diameter = 2.0 * float(np.sqrt(smaller / np.pi))
    distance = float(np.linalg.norm(np.argwhere(a).mean(axis=0) - np.argwhere(b).mean(axis=0)))
    return max(float(iou), 1e-3) if distance <= SAME_CENTRE * diameter else 0.0


def _best(values: Sequence[float]) -> float:
    """Mean of the best few neighbours along the track; of all when it is short."""
    width = min(_BEST, len(values))
    return max(float(np.mean(values[start : start + width])) for start in range(len(values) - width + 1))
