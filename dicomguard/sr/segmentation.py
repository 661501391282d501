"""Segmentation, binary: one object per stack of a source series with findings (PS3.3 A.51, C.8.20; results.md 2.4).

Frames keep the size and plane of their source; nothing is resampled, cropped or filled between slices, so tilt and
unequal gaps are right by construction. Every frame names its segment and the one source frame it was derived from.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.tag import Tag
from pydicom.uid import SegmentationStorage
from pydicom.valuerep import DSfloat

from dicomguard.core import geometry, uid, wording
from dicomguard.core.finding import Finding
from dicomguard.core.verdict import Verdict
from dicomguard.errors import Broken, Refused
from dicomguard.sr import codes, provenance
from dicomguard.sr.planes import Plane
from dicomguard.sr.provenance import PRODUCT, Provenance

SOP_CLASS_UID = str(SegmentationStorage)
# CIELab of the Okabe-Ito colours that the overlay uses, encoded as PS3.3 C.10.7.1.1 says.
_CIELAB = {"real": (37753, 21404, 36035), "added": (35976, 44539, 49401), "removed": (40112, 42581, 30302)}
# Frames of more bytes than this would not fit the memory of a worker, packed or not.
_MOST_PIXELS = 4_000_000_000
# Patient positions are millimetres; a tenth of a micrometre is below any scanner's printing.
_POSITION_DIGITS = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class Region:
    """A finding on one frame."""

    sop_instance_uid: str
    sop_class_uid: str
    # 1-based; None for a single-frame source.
    frame: int | None
    plane: Plane
    # H×W of the source frame.
    mask: NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """A finding in this object; segments are numbered 1…n in the order given."""

    finding: Finding
    tracking_uid: str
    regions: tuple[Region, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """The source frames of one Frame of Reference, orientation and size that carry findings."""

    source_series: str
    # 0 for the first stack of the series.
    number: int
    # First source instance of the stack.
    header: Dataset
    # Distance of neighbours along the normal when all are equal, else None.
    spacing_mm: float | None
    segments: tuple[Segment, ...]


def build(
    verdict: Verdict, stack: Stack, shared: Provenance, *, builder: str, series_number: int, instance_number: int
) -> Dataset:
    """The segmentation of one stack."""
    frames = _frames(stack)
    _check(stack)
    sop_instance_uid, series_instance_uid = (
        derive(
            study=verdict.study.study_instance_uid,
            revision=verdict.study.revision,
            verdict_sha256=verdict.sha256,
            builder=builder,
            source_series=stack.source_series,
            stack=stack.number,
        )
        for derive in (uid.seg_instance, uid.seg_series)
    )
    ds = provenance.start(
        shared,
        sop_class_uid=SOP_CLASS_UID,
        sop_instance_uid=sop_instance_uid,
        series_instance_uid=series_instance_uid,
        modality="SEG",
        series_number=series_number,
        series_description=f"{PRODUCT} regions (research)",
        instance_number=instance_number,
    )
    ds.SeriesDate, ds.SeriesTime = ds.ContentDate, ds.ContentTime
    ds.BodyPartExamined = provenance.value_text(stack.header, "BodyPartExamined") or "HEAD"
    ds.FrameOfReferenceUID = stack.header.FrameOfReferenceUID
    ds.PositionReferenceIndicator = provenance.value_text(stack.header, "PositionReferenceIndicator")
    _image(ds, stack, frames)
    ds.SegmentSequence = [_segment(number, item, verdict) for number, item in enumerate(stack.segments, start=1)]
    _geometry(ds, stack, frames)
    ds.ReferencedSeriesSequence = [_referenced(stack, frames)]
    return ds


def _frames(stack: Stack) -> list[tuple[int, Region]]:
    """(segment number, region) by segment, then by position along the normal."""
    return [
        (number, region)
        for number, segment in enumerate(stack.segments, start=1)
        for region in sorted(segment.regions, key=lambda region: _along(stack, region))
    ]


def _along(stack: Stack, region: Region) -> float:
    axis = geometry.normal(stack.segments[0].regions[0].plane.orientation)
    return sum(a * b for a, b in zip(axis, region.plane.position_mm, strict=True))


def _check(stack: Stack) -> None:
    first = stack.segments[0].regions[0].plane
    covered: dict[tuple[str, int | None], NDArray[np.bool_]] = {}
    pixels = 0
    for segment in stack.segments:
        for region in segment.regions:
            if region.mask.shape != (first.rows, first.columns):
                raise Broken(
                    f"A mask of {region.mask.shape} does not fit the source of {(first.rows, first.columns)}. "
                    "Build both from one instance."
                )
            place = (region.sop_instance_uid, region.frame)
            # Viewers lose slices of overlapping segments.
            if place in covered and bool((covered[place] & region.mask).any()):
                raise Broken(f"Two findings overlap on {region.sop_instance_uid}. Give each pixel to one finding.")
            covered[place] = covered[place] | region.mask if place in covered else region.mask
            pixels += region.mask.size
    if pixels > _MOST_PIXELS:
        raise Refused(
            f"The segmentation would have {pixels} pixels; {_MOST_PIXELS} are allowed. Send less in a series."
        )


def _image(ds: Dataset, stack: Stack, frames: Sequence[tuple[int, Region]]) -> None:
    plane = frames[0][1].plane
    ds.ImageType = ["DERIVED", "PRIMARY"]
    ds.SamplesPerPixel = 1
    ds.PhotometricInterpretation = "MONOCHROME2"
    ds.NumberOfFrames = len(frames)
    ds.Rows, ds.Columns = plane.rows, plane.columns
    ds.BitsAllocated = ds.BitsStored = 1
    ds.HighBit = ds.PixelRepresentation = 0
    _lossy(ds, stack.header)
    ds.SegmentationType = "BINARY"
    ds.SegmentsOverlap = "NO"
    ds.ContentLabel = "DICOMGUARD"
    ds.ContentDescription = f"Regions found by {PRODUCT}, research use"
    ds.ContentCreatorName = ""
    ds.PixelData = _packed([region.mask for _, region in frames])
    ds["PixelData"].VR = "OB"


def _lossy(ds: Dataset, header: Dataset) -> None:
    """What was lost in the source is lost in what was derived from it (PS3.3 C.7.6.1.1.5)."""
    lossy = provenance.value_text(header, "LossyImageCompression") == "01"
    ds.LossyImageCompression = "01" if lossy else "00"
    if lossy:
        for keyword in ("LossyImageCompressionRatio", "LossyImageCompressionMethod"):
            if header.get(keyword):
                setattr(ds, keyword, header.get(keyword))


def _packed(masks: Sequence[NDArray[np.bool_]]) -> bytes:
    """Bits of all frames without padding between them, first pixel in the lowest bit (PS3.5 8.1.1)."""
    if masks[0].size % 8 == 0:
        data = b"".join(np.packbits(mask, axis=None, bitorder="little").tobytes() for mask in masks)
    else:
        data = np.packbits(np.concatenate([mask.ravel() for mask in masks]), bitorder="little").tobytes()
    return data + b"\0" * (len(data) % 2)


def _segment(number: int, segment: Segment, verdict: Verdict) -> Dataset:
    finding = segment.finding
    category, kind = codes.FINDING_CODES[finding.category]
    item = Dataset()
    item.SegmentNumber = number
    item.SegmentLabel = wording.segment_label(finding.id, finding.category)
    item.SegmentDescription = "Research use only. Not for diagnosis."
    item.SegmentAlgorithmType = "AUTOMATIC"
    item.SegmentAlgorithmName = PRODUCT
    item.SegmentationAlgorithmIdentificationSequence = [_algorithm(verdict)]
    item.SegmentedPropertyCategoryCodeSequence = [category.item()]
    item.SegmentedPropertyTypeCodeSequence = [kind.item()]
    item.AnatomicRegionSequence = [codes.BRAIN.item()]
    item.RecommendedDisplayCIELabValue = list(_CIELAB[finding.category])
    item.TrackingID = tracking_id(finding)
    item.TrackingUID = segment.tracking_uid
    return item


def tracking_id(finding: Finding) -> str:
    """Tracking Identifier, for people: "dicomguard F1 added"."""
    return f"{PRODUCT} {finding.id} {finding.category}"


def algorithm_parameters(verdict: Verdict) -> tuple[str, ...]:
    """Weights and operating point, as SR and SEG name them."""
    point = verdict.model.operating_point
    return (
        f"weights sha256 {verdict.model.weights_sha256[:16]}",
        f"operating point {point.name}, forgery {point.forgery:.4f}, tumor {point.tumor:.4f}",
    )


def _algorithm(verdict: Verdict) -> Dataset:
    item = Dataset()
    item.AlgorithmFamilyCodeSequence = [codes.ARTIFICIAL_INTELLIGENCE.item()]
    item.AlgorithmName = PRODUCT
    item.AlgorithmVersion = f"{verdict.software.version}, model {verdict.model.id}"
    item.AlgorithmSource = PRODUCT
    item.AlgorithmParameters = "; ".join(algorithm_parameters(verdict))
    return item


# ---- functional groups and dimensions -----------------------------------------------------------------------------


def _geometry(ds: Dataset, stack: Stack, frames: Sequence[tuple[int, Region]]) -> None:
    organization = uid.dimension_organization(str(ds.SOPInstanceUID))
    ds.DimensionOrganizationSequence = [_with(DimensionOrganizationUID=organization)]
    ds.DimensionIndexSequence = [
        _with(
            DimensionIndexPointer=Tag("ReferencedSegmentNumber"),
            FunctionalGroupPointer=Tag("SegmentIdentificationSequence"),
            DimensionOrganizationUID=organization,
            DimensionDescriptionLabel="Segment",
        ),
        _with(
            DimensionIndexPointer=Tag("ImagePositionPatient"),
            FunctionalGroupPointer=Tag("PlanePositionSequence"),
            DimensionOrganizationUID=organization,
            DimensionDescriptionLabel="Position",
        ),
    ]
    places = sorted({round(_along(stack, region), _POSITION_DIGITS) for _, region in frames})
    measures = [_measures(region.plane, stack.spacing_mm) for _, region in frames]
    one_measure = all(item == measures[0] for item in measures)
    shared = Dataset()
    # One orientation for the stack: noise of printing between slices must not make a volume unreadable.
    orientation = _decimals(frames[0][1].plane.orientation)
    shared.PlaneOrientationSequence = [_with(ImageOrientationPatient=orientation)]
    if one_measure:
        shared.PixelMeasuresSequence = [measures[0]]
    ds.SharedFunctionalGroupsSequence = [shared]
    groups = []
    for (number, region), measure in zip(frames, measures, strict=True):
        place = places.index(round(_along(stack, region), _POSITION_DIGITS)) + 1
        group = _with(
            FrameContentSequence=[_with(DimensionIndexValues=[number, place])],
            PlanePositionSequence=[_with(ImagePositionPatient=_decimals(region.plane.position_mm))],
            SegmentIdentificationSequence=[_with(ReferencedSegmentNumber=number)],
            DerivationImageSequence=[_derivation(region)],
        )
        if not one_measure:
            group.PixelMeasuresSequence = [measure]
        groups.append(group)
    ds.PerFrameFunctionalGroupsSequence = groups


def _measures(plane: Plane, spacing_mm: float | None) -> Dataset:
    item = _with(PixelSpacing=_decimals(plane.spacing_mm))
    # Type 1C for a segmentation; where the source is silent, the slab that a slice stands for.
    thickness = plane.thickness_mm or spacing_mm
    if thickness is not None:
        (item.SliceThickness,) = _decimals([thickness])
    if spacing_mm is not None:
        (item.SpacingBetweenSlices,) = _decimals([spacing_mm])
    return item


def _derivation(region: Region) -> Dataset:
    source = _reference(region)
    if region.frame is not None:
        source.ReferencedFrameNumber = region.frame
    source.PurposeOfReferenceCodeSequence = [codes.SOURCE_IMAGE.item()]
    source.SpatialLocationsPreserved = "YES"
    return _with(DerivationCodeSequence=[codes.SEGMENTATION.item()], SourceImageSequence=[source])


def _referenced(stack: Stack, frames: Sequence[tuple[int, Region]]) -> Dataset:
    once = {region.sop_instance_uid: region for _, region in frames}
    ordered = sorted(once.values(), key=lambda region: (_along(stack, region), region.sop_instance_uid))
    return _with(
        SeriesInstanceUID=stack.source_series, ReferencedInstanceSequence=[_reference(region) for region in ordered]
    )


def _reference(region: Region) -> Dataset:
    return _with(ReferencedSOPClassUID=region.sop_class_uid, ReferencedSOPInstanceUID=region.sop_instance_uid)


def _decimals(values: Sequence[float]) -> list[DSfloat]:
    """DS values, shortened to its 16 characters where they are longer."""
    return [DSfloat(value, auto_format=True) for value in values]


def _with(**attributes: object) -> Dataset:
    item = Dataset()
    for keyword, value in attributes.items():
        setattr(item, keyword, value)
    return item
