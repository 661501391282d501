"""Segmentation, binary: one object per stack of a source series with findings (PS3.3 A.51, C.8.20).

Frames keep the size and plane of their source; nothing is resampled, cropped or filled between slices, so tilt and
unequal gaps are right by construction. Every frame names its segment and the one source frame it was derived from.

highdicom makes the object from single-frame stand-ins of those source frames that carry findings, numbered in place of
their UIDs. So it needs no pixel measures hoisted, no shared orientation and no known SOP class of the source; in the
finished object each number gives way to the true instance and frame.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from highdicom import AlgorithmIdentificationSequence, PixelMeasuresSequence
from highdicom.color import CIELabColor
from highdicom.seg import SegmentAlgorithmTypeValues, Segmentation, SegmentationTypeValues, SegmentDescription
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import MRImageStorage, SegmentationStorage
from pydicom.valuerep import DSfloat

from dicomguard.core import geometry, uid, wording
from dicomguard.core.finding import Finding
from dicomguard.core.instance import Orientation
from dicomguard.core.verdict import Verdict
from dicomguard.errors import Broken, Refused
from dicomguard.sr import codes, provenance
from dicomguard.sr.planes import Plane
from dicomguard.sr.provenance import PRODUCT, Provenance

SOP_CLASS_UID = str(SegmentationStorage)
# CIELab of the Okabe-Ito colours that the overlay uses, encoded as PS3.3 C.10.7.1.1 says.
_CIELAB = {"real": (37753, 21404, 36035), "added": (35976, 44539, 49401), "removed": (40112, 42581, 30302)}
# More pixels, a byte each before they are packed, would not fit the memory of a worker.
_MOST_PIXELS = 2_000_000_000


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
    # Of all frames, but for the noise of printing.
    orientation: Orientation
    # Distance of neighbours along the normal when all are equal, else None.
    spacing_mm: float | None
    segments: tuple[Segment, ...]


def build(
    verdict: Verdict, stack: Stack, shared: Provenance, *, builder: str, series_number: int, instance_number: int
) -> Dataset:
    """The segmentation of one stack."""
    _check(stack)
    slices = _slices(stack)
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
    ds: Dataset = Segmentation(
        source_images=[_stand_in(stack, shared, number, region) for number, region in enumerate(slices, start=1)],
        pixel_array=_labels(stack, slices),
        segmentation_type=SegmentationTypeValues.BINARY,
        segment_descriptions=[_segment(number, item, verdict) for number, item in enumerate(stack.segments, start=1)],
        series_instance_uid=series_instance_uid,
        sop_instance_uid=sop_instance_uid,
        series_number=series_number,
        series_description=f"{PRODUCT} regions (research)",
        instance_number=instance_number,
        content_label="DICOMGUARD",
        content_description=f"Regions found by {PRODUCT}, research use",
        **provenance.arguments(shared),
    )
    provenance.complete(ds, shared)
    ds.SeriesDate, ds.SeriesTime = ds.ContentDate, ds.ContentTime
    ds.BodyPartExamined = provenance.value_text(stack.header, "BodyPartExamined") or "HEAD"
    # Type 2, and no person made it.
    ds.ContentCreatorName = ""
    _dimensions(ds)
    _frames(ds, slices)
    _measures(ds, stack, slices)
    ds.ReferencedSeriesSequence = [_referenced(stack, slices)]
    # The same list once more, and a display hint that this kind of object does not have.
    del ds.SourceImageSequence, ds.PresentationLUTShape
    _pixels(ds)
    return ds


def _slices(stack: Stack) -> list[Region]:
    """One region of each source frame, by position along the normal."""
    once = {(region.sop_instance_uid, region.frame): region for segment in stack.segments for region in segment.regions}
    return sorted(once.values(), key=lambda region: _along(stack, region))


def _along(stack: Stack, region: Region) -> float:
    axis = geometry.normal(stack.orientation)
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


def _stand_in(stack: Stack, shared: Provenance, number: int, region: Region) -> Dataset:
    """A source frame as an image of its own, with `number` for a UID."""
    ds = provenance.source(
        shared,
        series_instance_uid=stack.source_series,
        sop_instance_uid=str(number),
        sop_class_uid=str(MRImageStorage),
    )
    first = stack.segments[0].regions[0].plane
    ds.Rows, ds.Columns = first.rows, first.columns
    ds.FrameOfReferenceUID = stack.header.FrameOfReferenceUID
    ds.PositionReferenceIndicator = provenance.value_text(stack.header, "PositionReferenceIndicator")
    ds.ImagePositionPatient = _decimals(region.plane.position_mm)
    # One for all: noise of printing between slices must not make a volume unreadable.
    ds.ImageOrientationPatient = _decimals(stack.orientation)
    ds.PixelSpacing = _decimals(region.plane.spacing_mm)
    ds.SliceThickness = None
    _lossy(ds, stack.header)
    return ds


def _labels(stack: Stack, slices: Sequence[Region]) -> NDArray[np.unsignedinteger[Any]]:
    """Segment numbers, slices×H×W; regions do not overlap."""
    first = stack.segments[0].regions[0].plane
    places = {(region.sop_instance_uid, region.frame): place for place, region in enumerate(slices)}
    kind = np.uint8 if len(stack.segments) < 256 else np.uint16
    labels: NDArray[np.unsignedinteger[Any]] = np.zeros((len(slices), first.rows, first.columns), kind)
    for number, segment in enumerate(stack.segments, start=1):
        for region in segment.regions:
            labels[places[region.sop_instance_uid, region.frame]][region.mask] = number
    return labels


def _lossy(ds: Dataset, header: Dataset) -> None:
    """What was lost in the source is lost in what was derived from it (PS3.3 C.7.6.1.1.5)."""
    lossy = provenance.value_text(header, "LossyImageCompression") == "01"
    ds.LossyImageCompression = "01" if lossy else "00"
    if lossy:
        for keyword in ("LossyImageCompressionRatio", "LossyImageCompressionMethod"):
            if header.get(keyword):
                setattr(ds, keyword, header.get(keyword))


def _segment(number: int, segment: Segment, verdict: Verdict) -> SegmentDescription:
    finding = segment.finding
    category, kind = codes.FINDING_CODES[finding.category]
    item = SegmentDescription(
        segment_number=number,
        segment_label=wording.segment_label(finding.id, finding.category),
        segmented_property_category=category.concept(),
        segmented_property_type=kind.concept(),
        algorithm_type=SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=_algorithm(verdict),
        tracking_uid=segment.tracking_uid,
        tracking_id=tracking_id(finding),
        anatomic_regions=[codes.BRAIN.concept()],
        display_color=CIELabColor.from_dicom_value(_CIELAB[finding.category]),
    )
    item.SegmentDescription = "Research use only. Not for diagnosis."
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


def algorithm_version(verdict: Verdict) -> str:
    """Of program and model, as SR and SEG name them."""
    return f"{verdict.software.version}, model {verdict.model.id}"


def _algorithm(verdict: Verdict) -> AlgorithmIdentificationSequence:
    made = AlgorithmIdentificationSequence(
        name=PRODUCT,
        family=codes.ARTIFICIAL_INTELLIGENCE.concept(),
        version=algorithm_version(verdict),
        source=PRODUCT,
    )
    # The library writes "name=value" and a comma, but there are commas in the values.
    made[0].AlgorithmParameters = "; ".join(algorithm_parameters(verdict))
    return made


# ---- what the library leaves to chance or does not know -----------------------------------------------------------


def _pixels(ds: Dataset) -> None:
    """OB, and a null byte to make it even where the library writes the digit zero (PS3.5 8.2)."""
    used = -(-int(ds.NumberOfFrames) * ds.Rows * ds.Columns // 8)
    ds.PixelData = ds.PixelData[:used].ljust(used + used % 2, b"\0")
    ds["PixelData"].VR = "OB"


def _dimensions(ds: Dataset) -> None:
    """A derived UID for a random one; no "3D", which would hold or not by which slices happen to carry a finding."""
    organization = uid.dimension_organization(str(ds.SOPInstanceUID))
    for item in (*ds.DimensionOrganizationSequence, *ds.DimensionIndexSequence):
        item.DimensionOrganizationUID = organization
    if "DimensionOrganizationType" in ds:
        del ds.DimensionOrganizationType


def _frames(ds: Dataset, slices: Sequence[Region]) -> None:
    """The true source for each number, and the segment in every frame: viewers look for it there."""
    (shared,) = ds.SharedFunctionalGroupsSequence
    groups = ds.PerFrameFunctionalGroupsSequence
    numbers = [
        int(group.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID) for group in groups
    ]
    for group, number in zip(groups, numbers, strict=True):
        region = slices[number - 1]
        (derivation,) = group.DerivationImageSequence
        (stand_in,) = derivation.SourceImageSequence
        derivation.SourceImageSequence = [_source(region, stand_in)]
        if "SegmentIdentificationSequence" in shared:
            group.SegmentIdentificationSequence = shared.SegmentIdentificationSequence
    # The library puts the segment here when there is only one.
    if "SegmentIdentificationSequence" in shared:
        del shared.SegmentIdentificationSequence


def _source(region: Region, stand_in: Dataset) -> Dataset:
    item = _reference(region)
    if region.frame is not None:
        item.ReferencedFrameNumber = region.frame
    item.PurposeOfReferenceCodeSequence = stand_in.PurposeOfReferenceCodeSequence
    item.SpatialLocationsPreserved = stand_in.SpatialLocationsPreserved
    return item


def _measures(ds: Dataset, stack: Stack, slices: Sequence[Region]) -> None:
    """Measures of each slice, shared when equal; the library takes those of the first for all.

    It also calls the distance of two slices with findings the spacing of the series; this is ours to say.
    """
    (shared,) = ds.SharedFunctionalGroupsSequence
    measures = [
        PixelMeasuresSequence(
            region.plane.spacing_mm,
            # Type 1C for a segmentation; where the source is silent, the slab that a slice stands for.
            region.plane.thickness_mm or stack.spacing_mm,
            stack.spacing_mm,
        )
        for region in slices
    ]
    # By item: the sequences of the library cannot be compared where the thickness is missing.
    if all(item[0] == measures[0][0] for item in measures):
        shared.PixelMeasuresSequence = measures[0]
        return
    del shared.PixelMeasuresSequence
    places = {(region.sop_instance_uid, region.frame): place for place, region in enumerate(slices)}
    for group in ds.PerFrameFunctionalGroupsSequence:
        source = group.DerivationImageSequence[0].SourceImageSequence[0]
        place = places[source.ReferencedSOPInstanceUID, source.get("ReferencedFrameNumber")]
        group.PixelMeasuresSequence = measures[place]


def _referenced(stack: Stack, slices: Sequence[Region]) -> Dataset:
    item = Dataset()
    item.SeriesInstanceUID = stack.source_series
    # A multi-frame instance is named once.
    once = {region.sop_instance_uid: region for region in slices}
    item.ReferencedInstanceSequence = [_reference(region) for region in once.values()]
    return item


def _reference(region: Region) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = region.sop_class_uid
    item.ReferencedSOPInstanceUID = region.sop_instance_uid
    return item


def _decimals(values: Sequence[float]) -> list[DSfloat]:
    """DS values, shortened to its 16 characters where they are longer."""
    return [DSfloat(value, auto_format=True) for value in values]
