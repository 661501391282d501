"""Sources, verdicts and masks for tests of the results: every kind of verdict on every kind of source.

A source is written and read back as a Part 10 stream, so that headers look as the node holds them: undecoded.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, timedelta, timezone
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread, dcmwrite
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, EnhancedMRImageStorage, ExplicitVRLittleEndian, MRImageStorage

from dicomguard.core import uid
from dicomguard.core.finding import (
    Coverage,
    Evidence,
    FalseAlarms,
    Finding,
    FindingCategory,
    FindingSlice,
    Rank,
    Sentence,
    SliceRef,
)
from dicomguard.core.study import ConflictCopy, GeometryKind, Manifest, SeriesPlan, SliceFile
from dicomguard.core.verdict import (
    Category,
    Conflict,
    CopyReport,
    Geometry,
    Model,
    ModelScope,
    OperatingPoint,
    Predecessor,
    Score,
    SeriesReport,
    SliceReport,
    Software,
    Study,
    Verdict,
)
from dicomguard.sr.build import Built, Earlier, NodeIdentity, build

STUDY = "1.2.826.0.1.3680043.8.498.1"
ROWS, COLUMNS = 40, 36
Mask = NDArray[np.bool_]
Change = Callable[[Dataset], None]

NODE = NodeIdentity(device_uid=uid.device("node-a"), name="node-a", version="0.1.0", timezone=UTC)
NODE_ELSEWHERE = replace(NODE, timezone=timezone(timedelta(hours=9)))


# ---- sources ------------------------------------------------------------------------------------------------------


def single_frame(
    count: int = 7,
    *,
    series: int = 3,
    modality: str = "MR",
    orientation: Sequence[float] = (1, 0, 0, 0, 1, 0),
    step: Sequence[float] = (0, 0, 4.0),
    positions: Sequence[float] | None = None,
    change: Change | None = None,
) -> list[Dataset]:
    """`count` slices of one series; `positions` are multiples of `step` for unequal gaps."""
    made = []
    for index in range(count):
        ds = _patient(series, modality)
        ds.SOPClassUID = MRImageStorage if modality == "MR" else CTImageStorage
        ds.SOPInstanceUID = f"{STUDY}.{series}.{index + 1}"
        ds.InstanceNumber = index + 1
        ds.Rows, ds.Columns = ROWS, COLUMNS
        factor = positions[index] if positions else index
        ds.ImagePositionPatient = [round(-80 + factor * value, 6) for value in step]
        ds.ImageOrientationPatient = [round(value, 9) for value in orientation]
        ds.PixelSpacing = [0.9, 0.8]
        ds.SliceThickness = 4
        if change:
            change(ds)
        made.append(through_file(ds))
    return made


def enhanced(count: int = 6, *, series: int = 3, stacks: int = 1, change: Change | None = None) -> list[Dataset]:
    """One Enhanced MR object with measures and orientation in every frame, as two vendors write it.

    With two stacks each position occurs twice (magnitude and phase), alternating.
    """
    ds = _patient(series, "MR")
    ds.SOPClassUID = EnhancedMRImageStorage
    ds.SOPInstanceUID = f"{STUDY}.{series}.1"
    ds.InstanceNumber = 1
    ds.Rows, ds.Columns = ROWS, COLUMNS
    ds.NumberOfFrames = count * stacks
    ds.SharedFunctionalGroupsSequence = [Dataset()]
    frames = []
    for index in range(count * stacks):
        position, orientation, measures, group = Dataset(), Dataset(), Dataset(), Dataset()
        position.ImagePositionPatient = [-80, -70, 5.0 * (index // stacks)]
        orientation.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        measures.PixelSpacing = [0.9, 0.8]
        measures.SliceThickness = 5
        group.PlanePositionSequence = [position]
        group.PlaneOrientationSequence = [orientation]
        group.PixelMeasuresSequence = [measures]
        frames.append(group)
    ds.PerFrameFunctionalGroupsSequence = frames
    if change:
        change(ds)
    return [through_file(ds)]


def _patient(series: int, modality: str) -> Dataset:
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 100"
    ds.PatientName = "Probe^Käthe"
    ds.PatientID = "P-17"
    ds.IssuerOfPatientID = "HOSPITAL"
    ds.PatientBirthDate = "19610203"
    ds.PatientSex = "F"
    ds.PatientAge = "065Y"
    ds.StudyInstanceUID = STUDY
    ds.StudyDate = "20261123"
    ds.StudyTime = "101112"
    ds.StudyID = "S1"
    ds.StudyDescription = "Schädel"
    ds.AccessionNumber = "A123"
    ds.ReferringPhysicianName = "Zuweiser^Jörg"
    ds.SeriesInstanceUID = f"{STUDY}.{series}"
    ds.SeriesNumber = series
    ds.Modality = modality
    ds.Manufacturer = "Scanner Maker"
    ds.ManufacturerModelName = "Model 1"
    ds.SoftwareVersions = ["VX1", "VX2"]
    ds.BodyPartExamined = "BRAIN"
    ds.FrameOfReferenceUID = f"{STUDY}.77"
    ds.PositionReferenceIndicator = ""
    return ds


def through_file(ds: Dataset) -> Dataset:
    """The dataset as a reader of its file sees it."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = ds.SOPClassUID
    meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    stream = BytesIO()
    dcmwrite(stream, FileDataset(BytesIO(), ds, preamble=b"\0" * 128, file_meta=meta), enforce_file_format=True)
    return dcmread(BytesIO(stream.getvalue()))


# ---- verdicts -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Case:
    """All that the builder takes."""

    verdict: Verdict
    manifest: Manifest
    headers: Mapping[str, Dataset]
    masks: dict[str, list[tuple[str, int | None, Mask]]]
    predecessor: Earlier | None = None

    def build(self, **arguments: Any) -> list[Built]:
        """The objects of the case."""
        return build(
            self.verdict,
            self.manifest,
            **{
                "headers": self.headers,
                "masks": self.masks,
                "node": NODE,
                "predecessor": self.predecessor,
                **arguments,
            },
        )


@dataclass(frozen=True, kw_only=True)
class Spot:
    """A finding to be made: a disc on consecutive places of a stack."""

    category: FindingCategory
    places: Sequence[int]
    centre: tuple[int, int] = (20, 18)
    radius: int = 6
    stack: int = 0
    p_forged: float = 0.93
    touches_skipped: bool = False


MODEL = Model(
    id="lf-2026.11-a1b2c3d4",
    name="lesion and forgery",
    version="2026.11",
    weights_sha256="a1b2c3d4" * 8,
    architecture="maskrcnn-6ch",
    card="docs/model-card.md",
    scope=ModelScope(modalities=("MR",), body_parts=("HEAD",), sequences=("flair", "t1c")),
    operating_point=OperatingPoint(
        name="alert", forgery=0.62, tumor=0.5, false_alarm_upper=0.062, n_authentic=100, flagged=2
    ),
)


def case(
    category: Category,
    stacks: Sequence[Sequence[tuple[Dataset, int | None]]],
    spots: Sequence[Spot] = (),
    *,
    kind: GeometryKind = "regular",
    skipped: Mapping[tuple[int, int], str] | None = None,
    outside: bool = False,
    evidence: Sequence[Evidence] = (),
    conflict: bool = False,
    revision: int = 1,
    created: str = "2026-11-24T00:30:00+00:00",
    predecessor: Predecessor | None = None,
    earlier: Earlier | None = None,
    reason: str = "The rule head-mr matches.",
) -> Case:
    """A consistent verdict on stacks of (header, frame); `skipped` by (stack, place) with the reason."""
    skipped = dict(skipped or {})
    if category == "not_analysable":
        skipped = {(s, p): "undecodable" for s, stack in enumerate(stacks) for p in range(len(stack))}
    plans = [_plan(stack, number, skipped, kind, outside, reason) for number, stack in enumerate(stacks)]
    conflicts: tuple[ConflictCopy, ...] = ()
    if conflict:
        first = plans[0].slices[0].sop_instance_uid
        conflicts = tuple(
            ConflictCopy(
                sop_instance_uid=first,
                sha256=letter * 64,
                received_at=f"2026-11-24T00:1{number}:00+00:00",
                calling_ae_hash=letter * 16,
                analysed=number == 0,
            )
            for number, letter in enumerate("ab")
        )
    manifest = Manifest(
        study_instance_uid=STUDY,
        revision=revision,
        opened_because="first" if revision == 1 else "late_instance",
        series=tuple(plans),
        conflicts=conflicts,
    )
    masks: dict[str, list[tuple[str, int | None, Mask]]] = {}
    findings = []
    for number, spot in enumerate(spots, start=1):
        finding, drawn = _finding(f"F{number}", spot, stacks[spot.stack])
        findings.append(finding)
        masks[finding.id] = drawn
    slices = [
        SliceReport(
            series=plan.series_instance_uid,
            sop_instance_uid=item.sop_instance_uid,
            frame=item.frame,
            position_mm=item.position_mm,
            state="skipped" if item.skipped else "analysed",
            reason=item.skipped,
            forgery=None if item.skipped else 0.1,
            pixel_sha256=None,
        )
        for plan in plans
        for item in plan.slices
    ]
    analysed = sum(item.state == "analysed" for item in slices)
    scored = category != "not_analysable"
    verdict = Verdict(
        study=Study(
            study_instance_uid=STUDY,
            revision=revision,
            manifest_sha256=manifest.sha256,
            predecessor=predecessor,
            opened_because=manifest.opened_because,
        ),
        created=created,
        software=Software(name="dicomguard", version="0.1.0", analyze_version="1"),
        model=MODEL,
        category=category,
        score=Score(
            forgery=(max((spot.p_forged for spot in spots), default=0.03)) if scored else None,
            tumor=0.88 if scored and spots else 0.02 if scored else None,
            authentic_rank=Rank(as_high=0, of=100) if scored else None,
        ),
        headline_finding="F1" if findings else None,
        series=tuple(_series_report(plan, reason if scored else "Every slice failed to decode.") for plan in plans),
        slices=tuple(slices),
        findings=tuple(findings),
        coverage=Coverage(
            slices_total=len(slices),
            slices_analysed=analysed,
            head_area_share=1.0 if analysed else 0.0,
            complete=analysed == len(slices),
            outside_scope=outside,
        ),
        evidence=tuple(evidence),
        conflicts=tuple(
            Conflict(
                sop_instance_uid=first,
                copies=tuple(
                    CopyReport(
                        pixel_sha256=item.sha256,
                        received_at=item.received_at,
                        calling_ae_hash=item.calling_ae_hash,
                        analysed=item.analysed,
                    )
                    for item in conflicts
                ),
            )
            for _ in conflicts[:1]
        ),
    )
    headers = {str(header.SOPInstanceUID): header for stack in stacks for header, _ in stack}
    return Case(verdict=verdict, manifest=manifest, headers=headers, masks=masks, predecessor=earlier)


def frames(headers: Sequence[Dataset]) -> list[tuple[Dataset, int | None]]:
    """Single-frame headers as a stack."""
    return [(header, None) for header in headers]


def _plan(
    stack: Sequence[tuple[Dataset, int | None]],
    number: int,
    skipped: Mapping[tuple[int, int], str],
    kind: GeometryKind,
    outside: bool,
    reason: str,
) -> SeriesPlan:
    header = stack[0][0]
    items = tuple(
        SliceFile(
            sop_instance_uid=str(source.SOPInstanceUID),
            sop_class_uid=str(source.SOPClassUID),
            frame=frame,
            path=f"{source.SOPInstanceUID}.dcm",
            sha256="0" * 64,
            position_mm=4.0 * place,
            instance_number=None if source.get("InstanceNumber") is None else int(source.InstanceNumber),
            skipped=skipped.get((number, place), ""),
        )
        for place, (source, frame) in enumerate(stack)
    )
    return SeriesPlan(
        series_instance_uid=str(header.SeriesInstanceUID),
        series_number=None if header.get("SeriesNumber") is None else int(header.SeriesNumber),
        modality=str(header.Modality),
        description_hash="",
        frame_of_reference_uid=str(header.get("FrameOfReferenceUID", "")),
        analysed=any(not item.skipped for item in items),
        reason=reason,
        scope="outside" if outside else "inside",
        scope_reasons=("modality CT",) if outside else (),
        kind=kind,
        spacing_mm=None if kind in ("single", "unequal") else (4.0, 4.0),
        tilt_deg=18.5 if kind == "tilted" else 0.0,
        pixel_spacing_mm=(0.9, 0.8),
        stacks=1,
        slices=items,
    )


def _series_report(plan: SeriesPlan, reason: str) -> SeriesReport:
    return SeriesReport(
        series_instance_uid=plan.series_instance_uid,
        modality=plan.modality,
        description_hash="",
        frame_of_reference_uid=plan.frame_of_reference_uid,
        analysed=plan.analysed,
        reason=reason,
        scope=plan.scope,
        scope_reasons=plan.scope_reasons,
        slices_total=len(plan.slices),
        slices_analysed=sum(not item.skipped for item in plan.slices),
        geometry=Geometry(kind=plan.kind, spacing_mm=plan.spacing_mm, tilt_deg=plan.tilt_deg, stacks=1),
    )


def disc(centre: tuple[int, int], radius: float) -> Mask:
    """A disc in a source frame."""
    rows, columns = np.mgrid[:ROWS, :COLUMNS]
    made: Mask = (rows - centre[0]) ** 2 + (columns - centre[1]) ** 2 <= radius**2
    return made


def _finding(
    name: str, spot: Spot, stack: Sequence[tuple[Dataset, int | None]]
) -> tuple[Finding, list[tuple[str, int | None, Mask]]]:
    drawn: list[tuple[str, int | None, Mask]] = []
    slices = []
    for step, place in enumerate(spot.places):
        header, frame = stack[place]
        mask = disc(spot.centre, spot.radius - 0.7 * step)
        sop = str(header.SOPInstanceUID)
        drawn.append((sop, frame, mask))
        inside_rows, inside_columns = np.nonzero(mask)
        r0, r1 = int(inside_rows.min()), int(inside_rows.max()) + 1
        c0, c1 = int(inside_columns.min()), int(inside_columns.max()) + 1
        slices.append(
            FindingSlice(
                sop_instance_uid=sop,
                frame=frame,
                area_mm2=round(float(mask.sum()) * 0.72, 2),
                box_px=(r0, c0, r1, c1),
                outline_px=((c0, r0), (c1, r0), (c1, r1), (c0, r1), (c0, r0)),
            )
        )
    keys = {"added": "noise_below", "removed": "texture_repeats", "real": "noise_fits"}
    return (
        Finding(
            id=name,
            category=spot.category,
            series=str(stack[0][0].SeriesInstanceUID),
            slices=tuple(slices),
            key_slice=0,
            volume_mm3=9505.4,
            extent_mm=23.0,
            centroid_lps_mm=(1.0, 2.0, 3.0),
            p_forged=spot.p_forged,
            p_tumor=0.88,
            authentic_rank=Rank(as_high=0, of=100),
            evidence=(Sentence(sentence_key=keys[spot.category], parameters={"percent": 38.2}),),
            touches_skipped_slice=spot.touches_skipped,
        ),
        drawn,
    )


def identical_pixels(headers: Sequence[Dataset]) -> Evidence:
    """DICOM-level evidence on two slices."""
    return Evidence(
        id="E1",
        kind="identical_pixels",
        strength="strong",
        sentence_key="identical_pixels",
        parameters={},
        slices=tuple(SliceRef(sop_instance_uid=str(header.SOPInstanceUID), frame=None) for header in headers),
        authentic_false_alarms=FalseAlarms(k=0, n=180),
    )
