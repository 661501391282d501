"""Segments, frames and their geometry, as PS3.3 wants them and as viewers need them."""

from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset

from dicomguard.core.geometry import normal
from dicomguard.errors import Refused
from dicomguard.sr import overlay, segmentation
from dicomguard.sr.segmentation import _packed
from tests.sr_cases import Change, Spot, case, disc, frames, single_frame

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
    assert places(ds) == [(1, -72.0), (1, -68.0), (1, -64.0), (2, -68.0), (3, -76.0), (3, -72.0)]
    indices = [
        list(group.FrameContentSequence[0].DimensionIndexValues) for group in ds.PerFrameFunctionalGroupsSequence
    ]
    assert indices == [[1, 2], [1, 3], [1, 4], [2, 3], [3, 1], [3, 2]]
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
    assert thick == [4, 6, 6, 6, 4, 4]


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


@pytest.mark.parametrize("shape", [(8, 8), (5, 7), (3, 3)])
def test_packing_has_no_padding_between_frames(shape: tuple[int, int]) -> None:
    masks = [np.random.default_rng(seed).random(shape) > 0.5 for seed in range(3)]
    data = _packed(masks)
    assert len(data) % 2 == 0
    bits = np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little")[: 3 * masks[0].size]
    assert (bits.astype(bool) == np.concatenate([mask.ravel() for mask in masks])).all()


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
    assert along == sorted(along) and len(set(along)) == 3
    assert disc((20, 18), 6).sum() > 0
