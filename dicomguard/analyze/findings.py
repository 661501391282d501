"""Reported regions as findings: who gets which pixel, and the measures of each in the patient."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dicomguard import headers
from dicomguard.analyze import evidence, masks, regions
from dicomguard.analyze.judging import JudgedRegion, JudgedStack, Mask
from dicomguard.core import geometry, verdict
from dicomguard.core.finding import Finding, FindingCategory, FindingSlice, Rank
from dicomguard.core.instance import Header
from dicomguard.core.study import SeriesPlan, SliceFile


@dataclass(slots=True, kw_only=True)
class Stack:
    """A plan while it is worked on."""

    plan: SeriesPlan
    # Places in `plan.slices` that were decoded and judged, in order.
    places: list[int]
    facts: list[evidence.Facts]
    # Reason per place that was not judged.
    skipped: dict[int, str]
    hashes: dict[int, str]
    # Evidence in its pixels.
    seen: tuple[evidence.Found, ...] = ()
    judged: JudgedStack | None = None
    # Why the stack is unlike those of the training; the manifest knows only headers.
    outside: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A region of some stack."""

    stack: Stack
    region: JudgedRegion


class _Headers:
    """Headers by path, each parsed once: that of a multi-frame object takes longer than measuring its findings."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._known: dict[str, Header] = {}

    def of(self, item: SliceFile) -> Header:
        """The header of a slice's file."""
        if item.path not in self._known:
            self._known[item.path] = headers.read_header(self._root / item.path)
        return self._known[item.path]


def rank(score: float, authentic_scores: Sequence[float]) -> Rank | None:
    """How many authentic calibration scores are as high; None when there are none."""
    if not authentic_scores:
        return None
    return Rank(as_high=sum(other >= score for other in authentic_scores), of=len(authentic_scores))


def build(
    candidates: Sequence[Candidate], decision: verdict.Decision, *, root: Path, authentic_scores: Sequence[float]
) -> tuple[list[Finding], dict[str, Mask]]:
    """Reported regions as findings, and their masks by name; regions that lose all pixels to stronger ones are gone."""
    by_stack: dict[int, list[int]] = {}
    for order, (index, _) in enumerate(decision.reported):
        by_stack.setdefault(id(candidates[index].stack), []).append(order)
    own: dict[int, dict[int, Mask]] = {}
    for orders in by_stack.values():
        chosen = [candidates[decision.reported[order][0]].region for order in orders]
        # The headline keeps its pixels against all others; then the contract's order.
        strengths = [2.0 if order == 0 else max(r.p_forged, r.p_tumor) for order, r in zip(orders, chosen, strict=True)]
        for order, masks_of in zip(orders, regions.disjoint([r.masks for r in chosen], strengths), strict=True):
            own[order] = masks_of
    headers = _Headers(root)
    findings: list[Finding] = []
    packed: dict[str, Mask] = {}
    for order, (index, category) in enumerate(decision.reported):
        if not own[order]:
            continue
        candidate = candidates[index]
        name = f"F{len(findings) + 1}"
        findings.append(_finding(name, category, candidate, own[order], headers, authentic_scores))
        for local, mask in own[order].items():
            item = candidate.stack.plan.slices[candidate.stack.places[local]]
            packed[masks.key(name, item.sop_instance_uid, item.frame)] = mask
    return findings, packed


def _finding(
    name: str,
    category: FindingCategory,
    candidate: Candidate,
    own: Mapping[int, Mask],
    headers: _Headers,
    authentic_scores: Sequence[float],
) -> Finding:
    stack, region = candidate.stack, candidate.region
    plan = stack.plan
    order = sorted(own)
    places = [stack.places[local] for local in order]
    measured = [regions.measure(own[local], plan.pixel_spacing_mm) for local in order]
    slabs = geometry.slabs_mm([item.position_mm for item in plan.slices], nominal_mm=_nominal(plan, headers))
    key = max(range(len(order)), key=lambda i: (measured[i].pixels, -i))
    near = {place + side for place in places for side in (-1, 1)} - set(places)
    return Finding(
        id=name,
        category=category,
        series=plan.series_instance_uid,
        slices=tuple(
            FindingSlice(
                sop_instance_uid=plan.slices[place].sop_instance_uid,
                frame=plan.slices[place].frame,
                area_mm2=item.area_mm2,
                box_px=item.box_px,
                outline_px=item.outline_px,
            )
            for place, item in zip(places, measured, strict=True)
        ),
        key_slice=key,
        volume_mm3=regions.volume_mm3([item.area_mm2 for item in measured], [slabs[place] for place in places]),
        extent_mm=max(item.extent_mm for item in measured),
        centroid_lps_mm=_centroid(plan, places, measured, headers),
        p_forged=region.p_forged,
        p_tumor=region.p_tumor if category == "real" else region.p_lesion,
        authentic_rank=rank(region.p_forged, authentic_scores),
        # A sentence on a sign of forgery beside "no sign of forgery was found" would say two things.
        evidence=tuple(item for item in region.evidence if category != "real" or item.sentence_key == "noise_fits"),
        touches_skipped_slice=any(
            place in stack.skipped or bool(plan.slices[place].skipped)
            for place in near
            if 0 <= place < len(plan.slices)
        ),
    )


def _nominal(plan: SeriesPlan, headers: _Headers) -> float | None:
    """Slice Thickness, for slices whose distance is not known."""
    thickness = headers.of(plan.slices[0]).slice_thickness_mm
    return thickness if thickness is not None and thickness > 0 else None


def _centroid(
    plan: SeriesPlan, places: Sequence[int], measured: Sequence[regions.Measured], headers: _Headers
) -> tuple[float, float, float] | None:
    """Mean of the mask's pixels in patient coordinates; None where the object does not say."""
    total = np.zeros(3)
    weight = 0
    for place, item in zip(places, measured, strict=True):
        frame = headers.of(plan.slices[place]).frames[(plan.slices[place].frame or 1) - 1]
        if frame.position_mm is None or frame.orientation is None or frame.spacing_mm is None:
            return None
        row, column = item.centre_px
        total += item.pixels * np.asarray(
            geometry.centroid(frame.position_mm, frame.orientation, frame.spacing_mm, row=row, column=column)
        )
        weight += item.pixels
    mean = total / weight
    return (float(mean[0]), float(mean[1]), float(mean[2]))
