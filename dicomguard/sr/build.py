"""The one entry: a verdict in, DICOM objects out, in sending order (SEG first, so that the SR finds what it names).

Same input, same bytes: UIDs are derived from everything the bytes depend on, times come from the verdict.
"""

import copy
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import NamedTuple

import highdicom
import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread, dcmwrite
from pydicom.charset import convert_encodings
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian

from dicomguard.core import geometry, uid, wording
from dicomguard.core.finding import Finding
from dicomguard.core.geometry import SAME_ORIENTATION
from dicomguard.core.instance import Orientation, Vector3
from dicomguard.core.result import ResultKind, ResultObject
from dicomguard.core.study import Manifest, SeriesPlan
from dicomguard.core.verdict import Verdict
from dicomguard.errors import Broken
from dicomguard.sr import planes, provenance, report, segmentation
from dicomguard.sr.provenance import NodeIdentity
from dicomguard.sr.report import SegmentReference, Title
from dicomguard.sr.segmentation import Region, Segment, Stack

__all__ = ["Built", "Earlier", "NodeIdentity", "build", "fallback", "file_bytes", "tracking_uids"]

# Raised whenever the same input gives other bytes: part of every UID.
BUILDER_VERSION = 3
SR_SERIES_NUMBER = 9000
SEG_SERIES_NUMBER = 9001
# A region of the earlier revision is the same one when its pixels agree at least so far.
_SAME_REGION_IOU = 0.5
# A tenth of a micrometre.
_POSITION_DIGITS = 7

# Frames of a finding: SOP Instance UID, frame (1-based or None), mask H×W.
Masks = Mapping[str, Sequence[tuple[str, int | None, NDArray[np.bool_]]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """One object: its identity, its dataset, and the Part 10 file that is kept and sent."""

    result: ResultObject
    dataset: FileDataset
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Earlier:
    """The revision that this one replaces, as far as it is at hand."""

    verdict: Verdict
    masks: Masks
    # tracking_uids(kept SR) by finding id.
    tracking_uids: Mapping[str, str]


def build(
    verdict: Verdict,
    manifest: Manifest,
    *,
    headers: Mapping[str, Dataset],
    masks: Masks,
    node: NodeIdentity,
    predecessor: Earlier | None = None,
    title: Title = "private",
) -> list[Built]:
    """SEGs of all stacks with findings, then the SR.

    `headers` by SOP Instance UID, without pixels: the first analysed instance (any instance where nothing was
    analysed) and every instance with a mask; objects that have no slices are named as evidence by theirs. Raises
    `Broken` when verdict, manifest, headers and masks disagree.
    """
    if verdict.study.manifest_sha256 != manifest.sha256:
        raise Broken("The verdict was made for another manifest. Analyse the study again.")
    shared = provenance.of(verdict, _first_header(manifest, headers), headers, node)
    tracking = _tracking(verdict, masks, predecessor)
    builder = _builder(node, verdict, tracking, title=title)
    numbers = _SeriesNumbers(manifest)
    sr_number = numbers.take(SR_SERIES_NUMBER)
    built: list[Built] = []
    segments: dict[str, SegmentReference] = {}
    for stack in _stacks(verdict, manifest, headers, masks, tracking):
        dataset = segmentation.build(
            verdict,
            stack,
            shared,
            builder=builder,
            series_number=numbers.take(SEG_SERIES_NUMBER),
            instance_number=1,
        )
        for number, segment in enumerate(stack.segments, start=1):
            reference = SegmentReference(
                sop_class_uid=str(dataset.SOPClassUID),
                sop_instance_uid=str(dataset.SOPInstanceUID),
                series_instance_uid=str(dataset.SeriesInstanceUID),
                segment_number=number,
            )
            # A finding in two stacks is named where it lies first.
            segments.setdefault(segment.finding.id, reference)
        built.append(_finish(dataset, "SEG", order=len(built)))
    sr = report.build(
        verdict,
        manifest,
        wording.compose(verdict, manifest, predecessor.verdict if predecessor else None),
        shared,
        builder=builder,
        title=title,
        series_number=sr_number,
        segments=segments,
        tracking_uids=tracking,
        no_segmentation=_unplaced(verdict, manifest, segments),
        objects=_objects(manifest, headers),
    )
    built.append(_finish(sr, "SR", order=len(built)))
    return built


def fallback(dataset: Dataset) -> Built:
    """The same report as Comprehensive SR, for an archive that refuses the Comprehensive 3D SR."""
    other = copy.deepcopy(dataset)
    other.SOPClassUID = report.FALLBACK_SOP_CLASS_UID
    other.SOPInstanceUID = uid.derive("sr-2d", str(dataset.SOPInstanceUID))
    other.SeriesInstanceUID = uid.derive("sr-2d-series", str(dataset.SeriesInstanceUID))
    return _finish(other, "SR-2D", order=0)


def file_bytes(dataset: Dataset) -> bytes:
    """Part 10 file in Explicit VR Little Endian."""
    stream = BytesIO()
    dcmwrite(stream, dataset, enforce_file_format=True)
    return stream.getvalue()


def tracking_uids(report_dataset: Dataset) -> dict[str, str]:
    """Finding id → tracking UID, read from a report of ours; {} for a report without findings."""
    found: dict[str, str] = {}
    for container in report_dataset.get("ContentSequence", []):
        for group in container.get("ContentSequence", []):
            texts = {
                str(item.ConceptNameCodeSequence[0].CodeValue): str(item.get("TextValue") or item.get("UID") or "")
                for item in group.get("ContentSequence", [])
                if item.get("ConceptNameCodeSequence")
            }
            words = texts.get("112039", "").split()
            if len(words) == 3 and words[1].startswith("F") and texts.get("112040"):
                found[words[1]] = texts["112040"]
    return found


def _finish(dataset: Dataset, kind: ResultKind, *, order: int) -> Built:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = UID(str(dataset.SOPClassUID))
    meta.MediaStorageSOPInstanceUID = UID(str(dataset.SOPInstanceUID))
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = UID(uid.IMPLEMENTATION_CLASS_UID)
    meta.ImplementationVersionName = uid.IMPLEMENTATION_VERSION_NAME
    whole = FileDataset(BytesIO(), dataset, preamble=b"\0" * 128, file_meta=meta)
    # Raw elements are malformed values of the source: this keeps the writer from decoding and changing them.
    whole.set_original_encoding(False, True, convert_encodings("ISO_IR 192"))
    data = file_bytes(whole)
    result = ResultObject(
        kind=kind,
        sop_class_uid=str(dataset.SOPClassUID),
        sop_instance_uid=str(dataset.SOPInstanceUID),
        series_instance_uid=str(dataset.SeriesInstanceUID),
        sha256=hashlib.sha256(data).hexdigest(),
        order=order,
    )
    # As a reader of the file sees it: no class of the library, which compare and copy in ways of their own.
    return Built(result=result, dataset=dcmread(BytesIO(data)), data=data)


def _builder(node: NodeIdentity, verdict: Verdict, tracking: Mapping[str, str], *, title: Title) -> str:
    """Everything besides verdict and manifest that the bytes depend on, as one text."""
    return "|".join([
        str(BUILDER_VERSION), highdicom.__version__,
        node.version, node.device_uid, node.name, str(node.timezone), title,
        *(f"{key}={value}" for key, value in sorted(tracking.items())),
    ])  # fmt: skip


def _first_header(manifest: Manifest, headers: Mapping[str, Dataset]) -> Dataset:
    """The source instance that lends patient and study: the first analysed one in manifest order."""
    analysed = [item for plan in manifest.series if plan.analysed for item in plan.slices if not item.skipped]
    if analysed:
        return _header(headers, analysed[0].sop_instance_uid)
    for plan in manifest.series:
        for item in plan.slices:
            if item.sop_instance_uid in headers:
                return headers[item.sop_instance_uid]
    for key in sorted(headers):
        return headers[key]
    raise Broken("There is no header of any instance of the study. Give at least one to the builder.")


def _objects(manifest: Manifest, headers: Mapping[str, Dataset]) -> dict[str, tuple[str, str]]:
    """SOP Instance UID → Series Instance and SOP Class UID of what arrived and has no slices."""
    slices = {item.sop_instance_uid for plan in manifest.series for item in plan.slices}
    return {
        key: (str(header.get("SeriesInstanceUID", "")), str(header.get("SOPClassUID", "")))
        for key, header in sorted(headers.items())
        if key not in slices
    }


def _header(headers: Mapping[str, Dataset], sop_instance_uid: str) -> Dataset:
    try:
        return headers[sop_instance_uid]
    except KeyError:
        raise Broken(f"The header of {sop_instance_uid} is missing. Give it to the builder.") from None


class _SeriesNumbers:
    """Series Numbers that the study does not use yet."""

    def __init__(self, manifest: Manifest) -> None:
        self._taken = {plan.series_number for plan in manifest.series}

    def take(self, base: int) -> int:
        number = base
        while number in self._taken:
            number += 1
        self._taken.add(number)
        return number


# ---- tracking -----------------------------------------------------------------------------------------------------


def _tracking(verdict: Verdict, masks: Masks, earlier: Earlier | None) -> dict[str, str]:
    """Tracking UID of each finding; one that the earlier revision knew keeps its own."""
    free = dict(earlier.tracking_uids) if earlier else {}
    tracking = {}
    for finding in verdict.findings:
        kept = _same_region(finding, masks, earlier, free) if earlier else None
        tracking[finding.id] = (
            free.pop(kept)
            if kept is not None
            else uid.tracking(
                study=verdict.study.study_instance_uid,
                series=finding.series,
                verdict_sha256=verdict.sha256,
                finding_id=finding.id,
            )
        )
    return tracking


def _same_region(finding: Finding, masks: Masks, earlier: Earlier, free: Mapping[str, str]) -> str | None:
    """Id of the best earlier finding of the category that still has its tracking UID, if it agrees enough."""
    scores = {
        other.id: _agreement(masks.get(finding.id, ()), earlier.masks.get(other.id, ()))
        for other in earlier.verdict.findings
        if other.category == finding.category and other.series == finding.series and other.id in free
    }
    best = max(scores, key=lambda key: scores[key], default=None)
    return best if best is not None and scores[best] >= _SAME_REGION_IOU else None


def _agreement(
    left: Sequence[tuple[str, int | None, NDArray[np.bool_]]],
    right: Sequence[tuple[str, int | None, NDArray[np.bool_]]],
) -> float:
    """Intersection over union on the slices that both have; 0 without a common slice."""
    others = {(sop, frame): mask for sop, frame, mask in right}
    both = either = 0
    for sop, frame, mask in left:
        other = others.get((sop, frame))
        if other is not None and other.shape == mask.shape:
            both += int((mask & other).sum())
            either += int((mask | other).sum())
    return both / either if either else 0.0


# ---- stacks -------------------------------------------------------------------------------------------------------


class _Place(NamedTuple):
    """What frames of one segmentation have in common."""

    plan: int
    size: tuple[int, int]
    orientation: int
    # 0 but for further frames at one position, which highdicom takes for a mistake.
    layer: int


def _stacks(
    verdict: Verdict,
    manifest: Manifest,
    headers: Mapping[str, Dataset],
    masks: Masks,
    tracking: Mapping[str, str],
) -> list[Stack]:
    """Masks grouped by stack, in manifest order; frames without a place in the patient are left out."""
    # Of copies under one UID the analysed one has the mask: those that were skipped come first and are overwritten.
    of_frame = {
        (item.sop_instance_uid, item.frame): (number, item.sop_class_uid)
        for skipped in (True, False)
        for number, plan in enumerate(manifest.series)
        for item in plan.slices
        if bool(item.skipped) == skipped
    }
    # By plan: the first of those that differ by noise stands for all.
    orientations: dict[int, list[Orientation]] = {}
    positions: dict[tuple[int, tuple[int, int], int, float], list[tuple[str, int | None]]] = {}
    groups: dict[_Place, dict[str, list[Region]]] = {}
    for finding in verdict.findings:
        known = {(item.sop_instance_uid, item.frame) for item in finding.slices}
        given = masks.get(finding.id, ())
        if {(sop, frame) for sop, frame, _ in given} != known or not known <= set(of_frame):
            raise Broken(f"The masks of {finding.id} lie on other slices than the verdict says. Analyse again.")
        for sop, frame, mask in given:
            plane = planes.of(_header(headers, sop), frame)
            if plane is None or not mask.any():
                continue
            number, sop_class_uid = of_frame[sop, frame]
            known_here = orientations.setdefault(number, [])
            size, orientation = (plane.rows, plane.columns), _cluster(plane.orientation, known_here)
            along = _along(known_here[orientation], plane.position_mm)
            here = positions.setdefault((number, size, orientation, along), [])
            if (sop, frame) not in here:
                here.append((sop, frame))
            place = _Place(number, size, orientation, here.index((sop, frame)))
            region = Region(
                sop_instance_uid=sop, sop_class_uid=sop_class_uid, frame=frame, plane=plane, mask=mask.astype(bool)
            )
            groups.setdefault(place, {}).setdefault(finding.id, []).append(region)
    return [
        _stack(
            verdict,
            manifest,
            headers,
            tracking,
            place,
            regions,
            number=_ordinal(place, groups),
            orientation=orientations[place.plan][place.orientation],
        )
        for place, regions in sorted(groups.items())
    ]


def _stack(
    verdict: Verdict,
    manifest: Manifest,
    headers: Mapping[str, Dataset],
    tracking: Mapping[str, str],
    place: _Place,
    regions: Mapping[str, Sequence[Region]],
    *,
    number: int,
    orientation: Orientation,
) -> Stack:
    plan = manifest.series[place.plan]
    findings = [finding for finding in verdict.findings if finding.id in regions]
    return Stack(
        source_series=plan.series_instance_uid,
        number=number
        + sum(other.series_instance_uid == plan.series_instance_uid for other in manifest.series[: place.plan]),
        header=_header(headers, regions[findings[0].id][0].sop_instance_uid),
        orientation=orientation,
        spacing_mm=_regular_spacing(plan),
        segments=tuple(
            Segment(finding=finding, tracking_uid=tracking[finding.id], regions=tuple(regions[finding.id]))
            for finding in findings
        ),
    )


def _ordinal(place: _Place, groups: Mapping[_Place, object]) -> int:
    """0 for the first group of a plan; the next ones follow far behind the numbers of other plans."""
    return 1000 * sorted(other for other in groups if other.plan == place.plan).index(place)


def _along(orientation: Orientation, position_mm: Vector3) -> float:
    """Place along the normal, mm, to the digits that a scanner prints."""
    place = sum(a * b for a, b in zip(geometry.normal(orientation), position_mm, strict=True))
    return round(place, _POSITION_DIGITS)


def _cluster(orientation: Orientation, known: list[Orientation]) -> int:
    """Index of the orientation that equals this one but for the noise of printing; a new one is added."""
    for index, other in enumerate(known):
        if all(abs(a - b) < SAME_ORIENTATION for a, b in zip(orientation, other, strict=True)):
            return index
    known.append(orientation)
    return len(known) - 1


def _regular_spacing(plan: SeriesPlan) -> float | None:
    if plan.kind != "regular" or plan.spacing_mm is None:
        return None
    low, high = plan.spacing_mm
    return (low + high) / 2 if low > 0 else None


def _unplaced(verdict: Verdict, manifest: Manifest, segments: Mapping[str, SegmentReference]) -> list[str]:
    series = {finding.series for finding in verdict.findings if finding.id not in segments}
    numbers = {plan.series_instance_uid: plan.series_number for plan in manifest.series}
    return [wording.no_segmentation(numbers.get(item)) for item in sorted(series)]
