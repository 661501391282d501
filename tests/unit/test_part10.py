import hashlib
import io
import struct
from pathlib import Path

import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.encaps import encapsulate

from dicomguard import headers, part10
from dicomguard.errors import Refused
from tests.instances import MR, PYDICOM, ROOT, part10_bytes, part10_file

RLE = "1.2.840.10008.1.2.5"
FILES = sorted(path for path in PYDICOM.glob("*.dcm"))


def written(dataset: bytes, *, source_ae: str = "CT1") -> bytes:
    target = io.BytesIO()
    part10.write(
        target, transfer_syntax_uid="1.2.840.10008.1.2.1", sop_class_uid=MR, sop_instance_uid=f"{ROOT}.1.1.1",
        dataset_bytes=dataset, source_ae=source_ae,
    )  # fmt: skip
    return target.getvalue()


def test_directories_and_strangers_are_no_instances_and_damaged_files_are(tmp_path: Path) -> None:
    source = part10_file(tmp_path / "in")
    assert part10.is_instance(source)
    content = {
        "cut": source.read_bytes()[:150],
        "directory": written(b"").replace(MR.encode(), part10.DIRECTORY_CLASS.encode().ljust(len(MR), b"\0")),
        "picture": b"\x89PNG\r\n\x1a\n" + bytes(200),
        "empty": b"",
    }
    for name, held in content.items():
        (tmp_path / name).write_bytes(held)
    assert [name for name in content if part10.is_instance(tmp_path / name)] == ["cut"]


@pytest.mark.parametrize("source_ae", ["CT1", "ABC", "", "X" * 16])
def test_a_written_file_is_read_by_pydicom_and_holds_the_given_bytes(tmp_path: Path, source_ae: str) -> None:
    source = part10_file(tmp_path / "in")
    dataset = source.read_bytes()[part10.dataset_offset(source) :]
    path = tmp_path / "out.dcm"
    path.write_bytes(written(dataset, source_ae=source_ae))
    assert path.read_bytes()[part10.dataset_offset(path) :] == dataset
    read = pydicom.dcmread(path)
    assert read.file_meta.MediaStorageSOPInstanceUID == read.SOPInstanceUID
    assert read.file_meta.FileMetaInformationGroupLength + 144 == part10.dataset_offset(path)
    assert str(read.file_meta.get("SourceApplicationEntityTitle", "")) == source_ae


def test_a_deflated_dataset_is_refused_before_it_is_inflated() -> None:
    with pytest.raises(Refused, match="deflated"):
        headers.read_header(PYDICOM / "image_dfl.dcm")


def test_pixels_hash_by_value_not_by_header(tmp_path: Path) -> None:
    one = part10.pixel_sha256(part10_file(tmp_path))
    assert one == hashlib.sha256(bytes(range(16))).hexdigest()
    assert part10.pixel_sha256(part10_file(tmp_path, PatientID="OTHER")) == one
    assert part10.pixel_sha256(part10_file(tmp_path, syntax="1.2.840.10008.1.2")) == one
    assert part10.pixel_sha256(part10_file(tmp_path, pixels=bytes(16))) != one


def test_fragments_hash_without_the_offset_table(tmp_path: Path) -> None:
    def sha256(name: str, *, offsets: bool, frames: list[bytes]) -> str | None:
        content = part10_bytes(NumberOfFrames=len(frames))
        dataset = pydicom.dcmread(io.BytesIO(content))
        dataset.file_meta.TransferSyntaxUID = pydicom.uid.UID(RLE)
        dataset.PixelData = encapsulate(frames, has_bot=offsets)
        dataset["PixelData"].is_undefined_length = True
        pydicom.dcmwrite(tmp_path / name, dataset)
        return part10.pixel_sha256(tmp_path / name)

    with_table = sha256("a", offsets=True, frames=[b"abcd", b"ef"])
    assert with_table == sha256("b", offsets=False, frames=[b"abcd", b"ef"])
    # The border between fragments counts.
    assert with_table != sha256("c", offsets=False, frames=[b"abcdef"])


def test_an_object_without_pixels_has_no_pixel_hash() -> None:
    assert part10.pixel_sha256(PYDICOM / "reportsi.dcm") is None
    assert not headers.read_header(PYDICOM / "reportsi.dcm").has_pixels


def test_the_hash_needs_no_memory_of_the_size_of_the_pixels(tmp_path: Path) -> None:
    """Pixel Data says 4 GB and the file ends after 16 bytes: what is there is hashed."""
    content = part10_bytes()
    at = content.index(b"\xe0\x7f\x10\x00OB")
    path = tmp_path / "a.dcm"
    path.write_bytes(content[: at + 8] + struct.pack("<I", 0xFFFFFF00) + content[at + 12 :])
    assert part10.pixel_sha256(path) == hashlib.sha256(bytes(range(16))).hexdigest()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_file_of_pydicom_is_read_or_refused_with_a_sentence(path: Path) -> None:
    try:
        header = headers.read_header(path)
    except Refused as error:
        assert str(error).count(". ") >= 1
    else:
        assert header.sop_class_uid == str(pydicom.dcmread(path, stop_before_pixels=True).get("SOPClassUID", ""))
        part10.pixel_sha256(path)


def survives(content: bytes, path: Path) -> None:
    """Read as a header, identity and pixel hash, or refuse: nothing else may come out."""
    path.write_bytes(content)
    for read in (headers.read_header, part10.pixel_sha256, part10.read_meta):
        try:
            read(path)
        except Refused as error:
            assert "SECRET" not in str(error)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=400), offset=st.sampled_from(["none", "preamble", "meta"]))
def test_garbage_never_raises_anything_else(tmp_path: Path, content: bytes, offset: str) -> None:
    head = {"none": b"", "preamble": b"\0" * 128 + b"DICM", "meta": written(b"")}[offset]
    survives(head + content, tmp_path / "a.dcm")


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    changes=st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), max_size=8),
    cut=st.integers(0, 10_000),
    source=st.sampled_from(
        ["plain", "MR_small_RLE.dcm", "nested_priv_SQ.dcm", "reportsi.dcm", "MR_small_implicit.dcm"]
    ),
)
def test_damage_never_raises_anything_else(
    tmp_path: Path, changes: list[tuple[int, int]], cut: int, source: str
) -> None:
    content = bytearray(part10_bytes() if source == "plain" else (PYDICOM / source).read_bytes())
    for place, value in changes:
        content[place % len(content)] = value
    survives(bytes(content[: len(content) - cut % len(content)]), tmp_path / "a.dcm")
