"""Where a frame lies, wherever its object says so."""

import pytest
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag

from dicomguard.errors import Broken
from dicomguard.sr import planes
from tests.sr_cases import enhanced, single_frame


def test_single_frame_and_enhanced_agree() -> None:
    (header,) = enhanced(3)
    plane = planes.of(header, 3)
    assert plane is not None
    assert (plane.position_mm, plane.spacing_mm, plane.thickness_mm) == ((-80, -70, 10), (0.9, 0.8), 5)
    single = planes.of(single_frame(3)[2], None)
    assert single is not None and (single.position_mm, single.thickness_mm) == ((-80, -80, -72), 4)


def test_groups_may_be_shared() -> None:
    def share(ds: Dataset) -> None:
        first = ds.PerFrameFunctionalGroupsSequence[0]
        for name in ("PlaneOrientationSequence", "PixelMeasuresSequence"):
            setattr(ds.SharedFunctionalGroupsSequence[0], name, first[name].value)
        for group in ds.PerFrameFunctionalGroupsSequence:
            del group.PlaneOrientationSequence, group.PixelMeasuresSequence

    (apart,), (shared,) = enhanced(3), enhanced(3, change=share)
    assert planes.of(shared, 2) == planes.of(apart, 2)


@pytest.mark.parametrize(
    "keyword", ["FrameOfReferenceUID", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"]
)
def test_without_a_place_in_the_patient(keyword: str) -> None:
    def empty(ds: Dataset) -> None:
        setattr(ds, keyword, None)

    assert planes.of(single_frame(1, change=empty)[0], None) is None
    assert planes.of(single_frame(1, change=lambda ds: delattr(ds, keyword))[0], None) is None


def test_wrong_count_of_numbers_is_no_place() -> None:
    def cut(ds: Dataset) -> None:
        ds.ImagePositionPatient = [1, 2]

    assert planes.of(single_frame(1, change=cut)[0], None) is None


def test_enhanced_without_positions() -> None:
    def drop(ds: Dataset) -> None:
        del ds.SharedFunctionalGroupsSequence
        for group in ds.PerFrameFunctionalGroupsSequence:
            del group.PlanePositionSequence

    assert planes.of(enhanced(2, change=drop)[0], 1) is None


def test_a_frame_without_an_item_of_its_own_has_what_is_shared() -> None:
    def add(ds: Dataset) -> None:
        ds.NumberOfFrames = 4

    (header,) = enhanced(3, change=add)
    assert planes.of(header, 3) is not None
    assert planes.of(header, 4) is None


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("PixelSpacing", [0, 0]),
        ("PixelSpacing", [1, -1]),
        ("ImageOrientationPatient", [0, 0, 0, 0, 0, 0]),
        ("ImageOrientationPatient", [1, 0, 0, 1, 0, 0]),
    ],
)
def test_numbers_that_span_no_plane_place_nothing(keyword: str, value: list[float]) -> None:
    header = single_frame(1, change=lambda ds: setattr(ds, keyword, value))[0]
    assert planes.of(header, None) is None


def test_frame_that_is_not_there() -> None:
    with pytest.raises(Broken, match="Frame 4 is not among the 3"):
        planes.of(enhanced(3)[0], 4)


@pytest.mark.parametrize("text", [b"1..20.0\\0\\0 ", b"nan\\0\\0 "])
def test_a_position_that_is_no_number_places_nothing(text: bytes) -> None:
    """As for the rules and the order of slices, which read it as no position."""

    def garble(ds: Dataset) -> None:
        ds[0x00200032] = RawDataElement(BaseTag(0x00200032), "DS", len(text), text, 0, False, True)

    assert planes.of(single_frame(1, change=garble)[0], None) is None
