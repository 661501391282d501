"""What rules and geometry read of an instance, classic and enhanced, sound and odd."""

from pathlib import Path

import pydicom
import pytest

from dicomguard import headers
from dicomguard.errors import Refused
from tests.instances import ROOT, part10_bytes, part10_file


def test_header_of_a_classic_image(tmp_path: Path) -> None:
    path = part10_file(
        tmp_path,
        ImagePositionPatient=[1.5, 2, 3],
        ImageOrientationPatient=[1, 0, 0, 0, 1, 0],
        PixelSpacing=[0.5, 0.25],
        SeriesDescription="AX T1",
        ImageType=["ORIGINAL", "PRIMARY"],
        EchoTime="12.5",
        SliceThickness="5",
        InversionTime="",
        ContrastBolusAgent="GD",
        LossyImageCompression="01",
    )
    header = headers.read_header(path)
    assert header.sop_instance_uid == f"{ROOT}.1.1.1"
    assert header.transfer_syntax_uid == "1.2.840.10008.1.2.1"
    assert (header.rows, header.columns, header.bits_stored, header.modality) == (4, 4, 8, "MR")
    assert header.image_type == ("ORIGINAL", "PRIMARY")
    (frame,) = header.frames
    assert frame.position_mm == (1.5, 2.0, 3.0)
    assert frame.orientation == (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
    assert frame.spacing_mm == (0.5, 0.25)
    assert (header.echo_time_ms, header.slice_thickness_mm) == (12.5, 5.0)
    assert header.inversion_time_ms is None
    assert (header.contrast_agent, header.lossy, header.synthetic, header.has_pixels) == ("GD", True, False, True)


def test_what_tells_volumes_of_a_classic_series_apart_is_read(tmp_path: Path) -> None:
    header = headers.read_header(
        part10_file(tmp_path, EchoNumbers=[2, 3], TemporalPositionIdentifier="7", DiffusionBValue=1000.0)
    )
    assert (header.echo_number, header.temporal_position, header.b_value) == (2, 7, 1000)
    header = headers.read_header(part10_file(tmp_path, EchoNumbers=""))
    assert (header.echo_number, header.temporal_position, header.b_value) == (None, None, None)


@pytest.mark.parametrize("value", [b"inf ", b"two ", b"\\ "])
def test_a_damaged_echo_number_refuses_no_file(tmp_path: Path, value: bytes) -> None:
    content = part10_bytes(EchoNumbers="1234")
    assert content.count(b"1234") == 1
    path = tmp_path / "a.dcm"
    path.write_bytes(content.replace(b"1234", value.ljust(4)))
    assert headers.read_header(path).rows == 4


def item(**attributes: object) -> pydicom.Dataset:
    dataset = pydicom.Dataset()
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    return dataset


def test_header_of_an_enhanced_image_has_a_geometry_per_frame(tmp_path: Path) -> None:
    shared = item(
        PlaneOrientationSequence=[item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])],
        PixelMeasuresSequence=[item(PixelSpacing=[1, 1], SliceThickness="3")],
        MREchoSequence=[item(EffectiveEchoTime=80.0)],
    )
    frames = [
        item(
            PlanePositionSequence=[item(ImagePositionPatient=[0, 0, 3 * number])],
            FrameContentSequence=[item(StackID="1", TemporalPositionIndex=1 + number // 2)],
        )
        for number in range(4)
    ]
    path = part10_file(
        tmp_path, NumberOfFrames=4, SharedFunctionalGroupsSequence=[shared], PerFrameFunctionalGroupsSequence=frames,
        pixels=bytes(64),
    )  # fmt: skip
    header = headers.read_header(path)
    assert [frame.position_mm for frame in header.frames] == [(0, 0, 0), (0, 0, 3), (0, 0, 6), (0, 0, 9)]
    assert {frame.orientation for frame in header.frames} == {(1, 0, 0, 0, 1, 0)}
    # Two time points in one object are two stacks.
    assert len({frame.stack for frame in header.frames}) == 2
    assert (header.slice_thickness_mm, header.echo_time_ms) == (3.0, 80.0)


def test_frames_without_an_item_are_counted(tmp_path: Path) -> None:
    """A viewer shows them, so nobody can hide them from us."""
    place = [item(PlanePositionSequence=[item(ImagePositionPatient=[0, 0, z])]) for z in (0, 3)]
    path = part10_file(tmp_path, NumberOfFrames=4, PerFrameFunctionalGroupsSequence=place, pixels=bytes(64))
    assert [frame.position_mm for frame in headers.read_header(path).frames] == [(0, 0, 0), (0, 0, 3), None, None]


def test_a_classic_multiframe_object_has_no_position_of_its_frames(tmp_path: Path) -> None:
    path = part10_file(tmp_path, NumberOfFrames=3, ImagePositionPatient=[0, 0, 0], pixels=bytes(48))
    assert [frame.position_mm for frame in headers.read_header(path).frames] == [None] * 3


@pytest.mark.parametrize("count", ["20001", "999999999"])
def test_more_frames_than_the_limit_are_refused(tmp_path: Path, count: str) -> None:
    with pytest.raises(Refused, match="more than 20000"):
        headers.read_header(part10_file(tmp_path, NumberOfFrames=count))


@pytest.mark.parametrize(
    ("attribute", "value"),
    [("PixelSpacing", ["0", "0"]), ("ImagePositionPatient", ["1", "2"]), ("PixelSpacing", ["nan", "1"])],
)
def test_impossible_geometry_is_none(tmp_path: Path, attribute: str, value: list[str]) -> None:
    (frame,) = headers.read_header(part10_file(tmp_path, **{attribute: value})).frames
    assert frame.spacing_mm is None
    assert frame.position_mm is None
