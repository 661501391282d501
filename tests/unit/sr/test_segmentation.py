"""Segments, frames and their geometry, as PS3.3 wants them and as viewers need them."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset

from dicomguard.core.geometry import normal
from dicomguard.core.verdict import Verdict
from dicomguard.errors import Refused
from dicomguard.sr import overlay, segmentation
from tests.sr_cases import Case, Change, Spot, case, disc, enhanced, frames, single_frame

SPOTS = [
    Spot(category="added", places=[4, 2, 3]),
    Spot(category="removed", places=[3], centre=(8, 8), radius=4, p_forged=0.7),
    Spot(category="real", places=[1, 2], centre=(32, 28), radius=3, p_forged=0.1),
]


def seg(change: Change | None = None, **arguments: Any) -> Dataset:
    return case("added", [frames(single_frame(change=change))], SPOTS, **arguments).build()[0].dataset


def places(ds: Dataset) -> list[tuple[int, float]]:
    return [
        (
            group.SegmentIdentificationSequence[0].ReferencedSegmentNumber,
            group.PlanePositionSequence[0].ImagePositionPatient[2],
        )
        for group in ds.PerFrameFunctionalGroupsSequence
    ]


def test_segments() -> None:
    ds = seg()
    labels = [(item.SegmentNumber, item.SegmentLabel) for item in ds.SegmentSequence]
    assert labels == [
        (1, "F1 added, signs of forgery"),
        (2, "F2 removed, signs of forgery"),
        (3, "F3 real, no sign of forgery"),
    ]
    kinds = [item.SegmentedPropertyTypeCodeSequence[0].CodeMeaning for item in ds.SegmentSequence]
    # Only what is real is coded as a Neoplasm.
    assert kinds == ["Tumor-like region with signs of forgery", "Region with signs of a removed tumor", "Neoplasm"]
    assert len({tuple(item.RecommendedDisplayCIELabValue) for item in ds.SegmentSequence}) == 3
    assert {item.TrackingID for item in ds.SegmentSequence} == {
        "dicomguard F1 added",
        "dicomguard F2 removed",
        "dicomguard F3 real",
    }
    assert (ds.SegmentsOverlap, ds.SegmentationType, ds.LossyImageCompression) == ("NO", "BINARY", "00")


def test_frames_by_segment_then_position() -> None:
    ds = seg()
    # Against the normal, so that slices, rows and columns are right-handed in this order.
    assert places(ds) == [(1, -64.0), (1, -68.0), (1, -72.0), (2, -68.0), (3, -72.0), (3, -76.0)]
    indices = [
        list(group.FrameContentSequence[0].DimensionIndexValues) for group in ds.PerFrameFunctionalGroupsSequence
    ]
    assert indices == [[1, 1], [1, 2], [1, 3], [2, 2], [3, 3], [3, 4]]
    assert ds.NumberOfFrames == 6


def test_one_segment_names_itself_in_every_frame() -> None:
    ds = case("added", [frames(single_frame())], SPOTS[:1]).build()[0].dataset
    assert all("SegmentIdentificationSequence" in group for group in ds.PerFrameFunctionalGroupsSequence)
    assert "SegmentIdentificationSequence" not in ds.SharedFunctionalGroupsSequence[0]


def test_only_sources_with_a_region_are_referenced() -> None:
    (series,) = seg().ReferencedSeriesSequence
    assert [item.ReferencedSOPInstanceUID[-1] for item in series.ReferencedInstanceSequence] == ["2", "3", "4", "5"]


def test_spacing_only_when_regular() -> None:
    (regular,) = seg().SharedFunctionalGroupsSequence[0].PixelMeasuresSequence
    assert (regular.SpacingBetweenSlices, regular.SliceThickness, list(regular.PixelSpacing)) == (4, 4, [0.9, 0.8])
    for kind in ("unequal", "tilted", "single"):
        (other,) = seg(kind=kind).SharedFunctionalGroupsSequence[0].PixelMeasuresSequence
        assert "SpacingBetweenSlices" not in other and other.SliceThickness == 4


@pytest.mark.parametrize("value", ["", "0"])
def test_silent_thickness_is_the_spacing(value: str) -> None:
    def change(ds: Dataset) -> None:
        ds.SliceThickness = value

    (measures,) = seg(change).SharedFunctionalGroupsSequence[0].PixelMeasuresSequence
    assert measures.SliceThickness == 4
    (measures,) = seg(change, kind="unequal").SharedFunctionalGroupsSequence[0].PixelMeasuresSequence
    assert "SliceThickness" not in measures


def test_measures_that_differ_stand_in_each_frame() -> None:
    def change(ds: Dataset) -> None:
        ds.SliceThickness = 4 if ds.InstanceNumber < 4 else 6

    ds = seg(change)
    assert "PixelMeasuresSequence" not in ds.SharedFunctionalGroupsSequence[0]
    thick = [group.PixelMeasuresSequence[0].SliceThickness for group in ds.PerFrameFunctionalGroupsSequence]
    assert thick == [6, 6, 4, 6, 4, 4]


def test_noise_of_orientation_does_not_split_a_stack() -> None:
    def change(ds: Dataset) -> None:
        ds.ImageOrientationPatient = [1, 1e-6 * int(ds.InstanceNumber), 0, 0, 1, 0]

    built = case("added", [frames(single_frame(change=change))], SPOTS).build()
    assert [item.result.kind for item in built] == ["SEG", "SR"]
    assert "PlaneOrientationSequence" in built[0].dataset.SharedFunctionalGroupsSequence[0]


def test_position_noise_and_long_decimals() -> None:
    def change(ds: Dataset) -> None:
        ds.ImagePositionPatient = ["-119.99999999999", "0.33333333333333", str(-80 + 4 * int(ds.InstanceNumber))]

    assert len(places(seg(change))) == 6


def test_lossy_source_makes_a_lossy_segmentation() -> None:
    def change(ds: Dataset) -> None:
        ds.LossyImageCompression = "01"
        ds.LossyImageCompressionRatio = "12.5"
        ds.LossyImageCompressionMethod = "ISO_10918_1"

    ds = seg(change)
    assert (ds.LossyImageCompression, ds.LossyImageCompressionRatio) == ("01", 12.5)
    bare = seg(lambda source: setattr(source, "LossyImageCompression", "01"))
    assert bare.LossyImageCompression == "01" and "LossyImageCompressionMethod" not in bare


def test_body_part() -> None:
    assert seg().BodyPartExamined == "BRAIN"
    assert seg(lambda ds: delattr(ds, "BodyPartExamined")).BodyPartExamined == "HEAD"


@pytest.mark.parametrize(("rows", "columns"), [(40, 36), (37, 35), (41, 37), (39, 41)])
def test_bits_have_no_padding_between_frames_and_a_null_byte_behind(rows: int, columns: int) -> None:
    def size(ds: Dataset) -> None:
        ds.Rows, ds.Columns = rows, columns

    made = case("added", [frames(single_frame(change=size))], SPOTS)
    masks = {
        key: [(sop, frame, np.resize(mask, (rows, columns))) for sop, frame, mask in drawn]
        for key, drawn in case("added", [frames(single_frame())], SPOTS[:1]).masks.items()
    }
    spots = replace(made, masks={**masks, "F2": [], "F3": []}, verdict=_only_first(made))
    ds = spots.build()[0].dataset
    data = ds.PixelData
    bits = np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little")
    used = 3 * rows * columns
    read = bits[:used].reshape(3, rows, columns).astype(bool)
    by_source = {sop: mask for sop, _, mask in masks["F1"]}
    for number, group in enumerate(ds.PerFrameFunctionalGroupsSequence):
        source = group.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        assert (read[number] == by_source[source]).all()
    assert len(data) == (used + 15) // 16 * 2 and not bits[used:].any()


def _only_first(made: Case) -> Verdict:
    return replace(made.verdict, findings=made.verdict.findings[:1])


def test_frames_at_one_position_have_their_own_segmentations() -> None:
    def change(ds: Dataset) -> None:
        # Two echoes of each slice in one series.
        ds.ImagePositionPatient = [-80, -80, -80 + 4 * (int(ds.InstanceNumber) // 2)]

    spots = [Spot(category="added", places=[1, 2, 3, 4]), Spot(category="real", places=[1], centre=(8, 8), radius=3)]
    made = case("added", [frames(single_frame(change=change))], spots, kind="unequal")
    first, second, report = (built.dataset for built in made.build())
    assert [ds.Modality for ds in (first, second, report)] == ["SEG", "SEG", "SR"]
    assert sources(first) == ["4", "2", "2"] and sources(second) == ["5", "3"]
    assert first.SOPInstanceUID != second.SOPInstanceUID


def sources(ds: Dataset) -> list[str]:
    """Last part of the UID of the source of each frame."""
    return [
        group.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID.rsplit(".", 1)[1]
        for group in ds.PerFrameFunctionalGroupsSequence
    ]


def test_frames_of_two_multi_frame_objects_and_of_an_unknown_class() -> None:
    one, two = enhanced(3)[0], enhanced(3)[0]
    two.SOPInstanceUID = f"{two.SOPInstanceUID}.2"
    for number, group in enumerate(two.PerFrameFunctionalGroupsSequence):
        group.PlanePositionSequence[0].ImagePositionPatient = [-80, -70, 15.0 + 5 * number]
    for header in (one, two):
        header.SOPClassUID = "1.2.826.0.1.3680043.8.498.99"
    stack = [(header, frame) for header in (one, two) for frame in (1, 2, 3)]
    ds, report = (built.dataset for built in case("added", [stack], [Spot(category="added", places=[2, 3])]).build())
    references = [
        group.DerivationImageSequence[0].SourceImageSequence[0] for group in ds.PerFrameFunctionalGroupsSequence
    ]
    assert [(item.ReferencedSOPInstanceUID, item.ReferencedFrameNumber) for item in references] == [
        (two.SOPInstanceUID, 1),
        (one.SOPInstanceUID, 3),
    ]
    assert {item.ReferencedSOPClassUID for item in references} == {one.SOPClassUID}
    (series,) = ds.ReferencedSeriesSequence
    assert len(series.ReferencedInstanceSequence) == 2
    (evidence,) = report.CurrentRequestedProcedureEvidenceSequence
    assert evidence.ReferencedSeriesSequence[0].ReferencedSOPSequence[0].ReferencedSOPClassUID == one.SOPClassUID


@pytest.mark.long
def test_more_segments_than_a_byte_counts() -> None:
    spots = [
        Spot(
            category="added", places=[number % 7], centre=(3 * (number // 7 % 13) + 1, 3 * (number // 91) + 1), radius=1
        )
        for number in range(260)
    ]
    made = case("added", [frames(single_frame())], spots)
    ds = made.build()[0].dataset
    assert (len(ds.SegmentSequence), ds.NumberOfFrames, ds.SegmentsOverlap) == (260, 260, "NO")
    planes = np.unpackbits(np.frombuffer(ds.PixelData, np.uint8), bitorder="little").reshape(260, 40, 36)
    for number, group in enumerate(ds.PerFrameFunctionalGroupsSequence):
        segment = group.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        assert (planes[number] == made.masks[f"F{segment}"][0][2]).all()


def test_too_many_pixels_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segmentation, "_MOST_PIXELS", 40 * 36 * 5)
    with pytest.raises(Refused, match="are allowed"):
        seg()


def test_colours_are_those_of_the_overlay() -> None:
    for category, value in segmentation._CIELAB.items():
        lightness = value[0] / 65535 * 100
        a, b = (item / 65535 * 255 - 128 for item in value[1:])
        assert overlay.COLOURS[category] == pytest.approx(_srgb(lightness, a, b), abs=1.5)


def _srgb(lightness: float, a: float, b: float) -> tuple[float, ...]:
    """CIELab of D50 to sRGB 0…255, after the ICC profile of sRGB."""
    fy = (lightness + 16) / 116
    xyz = [
        white * (f**3 if f**3 > 216 / 24389 else (116 * f - 16) * 27 / 24389)
        for f, white in zip((fy + a / 500, fy, fy - b / 200), (0.96422, 1.0, 0.82521), strict=True)
    ]
    linear = np.array(
        [[3.1338561, -1.6168667, -0.4906146], [-0.9787684, 1.9161415, 0.0334540], [0.0719453, -0.2289914, 1.4052427]]
    ) @ np.array(xyz)
    gamma = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * np.clip(linear, 0, 1) ** (1 / 2.4) - 0.055)
    return tuple(float(value) for value in 255 * np.clip(gamma, 0, 1))


def test_normal_orders_frames_of_a_turned_stack() -> None:
    turned = frames(single_frame(orientation=(0, 1, 0, 0, 0, -1), step=(2.0, 0, 0)))
    ds = case("added", [turned], SPOTS[:1]).build()[0].dataset
    axis = normal((0, 1, 0, 0, 0, -1))
    along = [
        float(np.dot(axis, group.PlanePositionSequence[0].ImagePositionPatient))
        for group in ds.PerFrameFunctionalGroupsSequence
    ]
    assert along == sorted(along, reverse=True) and len(set(along)) == 3
    assert disc((20, 18), 6).sum() > 0


def test_a_region_on_a_slice_with_a_second_copy_stays_in_one_object() -> None:
    """The copy that was not analysed is a stack of its own, under the same SOP Instance UID."""
    made = case("real", [frames(single_frame(6))], [Spot(category="real", places=[1, 2, 3], p_forged=0.1)])
    plan = made.manifest.series[0]
    copy = replace(plan, analysed=False, slices=(replace(plan.slices[2], skipped="conflict copy"),))
    manifest = replace(made.manifest, series=(plan, copy))
    study = replace(made.verdict.study, manifest_sha256=manifest.sha256)
    twice = replace(made, manifest=manifest, verdict=replace(made.verdict, study=study))
    (only,) = [built.dataset for built in twice.build() if built.dataset.Modality == "SEG"]
    assert only.NumberOfFrames == 3
