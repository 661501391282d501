import io
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image

from dicomguard.web.unpack import __main__ as unpack
from dicomguard.web.unpack import capture
from dicomguard.web.unpack.item import Item, Limits
from tests import studies
from tests.unit.web.unpack.test_archive import zipped
from tests.unit.web.unpack.test_scan import photograph

LIMITS = Limits(total_bytes=8 << 20, files=50, zip_ratio=100, picture_pixels=300_000, pages=6)


def picture(kind: str = "PNG", seed: int = 1, size: int = 128, **options: object) -> bytes:
    grey = (studies.head(size, size, seed=seed) / 1200 * 255).clip(0, 255).astype(np.uint8)
    return saved(Image.fromarray(grey), kind, **options)


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def sort(folder: Path, files: Mapping[str, bytes], limits: Limits = LIMITS) -> list[Item]:
    folder.mkdir(exist_ok=True)
    index = []
    for number, (name, content) in enumerate(files.items()):
        (folder / f"f{number}").write_bytes(content)
        index.append([f"f{number}", name])
    (folder / "index.json").write_text(json.dumps(index))
    items: list[Item] = []
    unpack.sort(folder, limits=limits, say=items.append)
    return items


def dicom(tmp_path: Path) -> bytes:
    return studies.save(tmp_path / "made", studies.series(1))[0].read_bytes()


def dataset(folder: Path, item: Item) -> pydicom.Dataset:
    return pydicom.dcmread(io.BytesIO((folder / item.path).read_bytes()), force=True)


@pytest.mark.parametrize(
    ("name", "content", "word"),
    [
        ("empty.dcm", b"", "is empty"),
        ("notes.txt", b"dear reader, " * 20, "is none of DICOM, ZIP, PNG, JPEG and TIFF"),
        ("all.tar.gz", b"\x1f\x8b" + b"x" * 200, "packed by another program"),
        ("bare.dcm", b"\x08\x00\x05\x00CS\x0a\x00ISO_IR 100" + b"\0" * 200, "without its file header"),
        ("cut.png", picture()[:900], "damaged or cut off"),
        ("cut.zip", zipped(("a", b"x"))[:-8], "cut off"),
        ("holiday.jpg", saved(Image.fromarray(photograph().astype(np.uint8)), "JPEG"), "does not look like a slice"),
        ("small.png", picture(size=64), "64 × 64 pixels"),
        ("poster.png", picture(size=600), "600 × 600 pixels; at most 0 million"),
        ("deep.zip", zipped(("b.zip", zipped(("c.zip", zipped(("d", b"x")))))), "2 ZIPs deep"),
    ],
)
def test_each_refused_input_gets_two_sentences_that_name_it(
    tmp_path: Path, name: str, content: bytes, word: str
) -> None:
    (item,) = sort(tmp_path / "up", {name: content})
    assert item.kind == "refused"
    assert name in item.sentence
    assert word in item.sentence
    assert item.sentence.endswith(".")
    assert ". " in item.sentence


def test_pages_count_as_unpacked_bytes(tmp_path: Path) -> None:
    pages = [Image.open(io.BytesIO(picture(seed=seed))) for seed in range(4)]
    content = saved(pages[0], "TIFF", save_all=True, append_images=pages[1:], compression="tiff_deflate")
    room = replace(LIMITS, total_bytes=3 * 128 * 128)
    (item,) = sort(tmp_path / "up", {"four.tif": content}, room)
    assert item.kind == "refused" and "unpacks to more than" in item.sentence
    assert len(sort(tmp_path / "again", {"four.tif": content})) == 4


def test_dicom_is_told_by_its_bytes_and_left_as_it_is(tmp_path: Path) -> None:
    content = dicom(tmp_path)
    items = sort(tmp_path / "up", {"IM0001": content, "in.zip": zipped(("x/IM0002", content))})
    assert [(item.kind, item.name) for item in items] == [("dicom", "IM0001"), ("dicom", "in.zip › x/IM0002")]
    assert all((tmp_path / "up" / item.path).read_bytes() == content for item in items)


def test_one_bad_file_costs_only_itself(tmp_path: Path) -> None:
    items = sort(tmp_path / "up", {"a.png": picture()[:500], "b.png": picture(), "c": b"", "d.dcm": dicom(tmp_path)})
    assert sorted(item.kind for item in items) == ["dicom", "picture", "refused", "refused"]


def test_pictures_become_one_study_in_the_order_of_their_names(tmp_path: Path) -> None:
    files = {f"s{n}.png": picture(seed=n) for n in (10, 2, 1)}
    items = sort(tmp_path / "up", files)
    made = [dataset(tmp_path / "up", item) for item in items]
    assert [item.name for item in items] == ["s1.png", "s2.png", "s10.png"]
    assert [int(ds.InstanceNumber) for ds in made] == [1, 2, 3]
    assert len({ds.StudyInstanceUID for ds in made}) == len({ds.SeriesInstanceUID for ds in made}) == 1
    assert len({ds.SOPInstanceUID for ds in made}) == 3
    first = made[0]
    assert (first.SOPClassUID, first.Modality) == (capture.SECONDARY_CAPTURE, "OT")
    assert (first.PatientName, first.PatientID, "PixelSpacing" in first) == ("", "", False)
    expected = np.asarray(Image.open(io.BytesIO(files["s1.png"])))
    assert np.frombuffer(first.PixelData, np.uint8).reshape(128, 128).tolist() == expected.tolist()


def test_the_same_pictures_are_the_same_study_and_others_are_not(tmp_path: Path) -> None:
    one = sort(tmp_path / "a", {"x.png": picture(seed=1), "y.png": picture(seed=2)})
    again = sort(tmp_path / "b", {"x.png": picture(seed=1), "y.png": picture(seed=2)})
    other = sort(tmp_path / "c", {"x.png": picture(seed=1), "y.png": picture(seed=3)})
    assert [item.sop_instance_uid for item in one] == [item.sop_instance_uid for item in again]
    assert dataset(tmp_path / "a", one[0]).StudyInstanceUID != dataset(tmp_path / "c", other[0]).StudyInstanceUID


def test_sixteen_bits_stay_sixteen_bits(tmp_path: Path) -> None:
    head = studies.head(120, 110, seed=4)
    (item,) = sort(tmp_path / "up", {"h.tif": saved(Image.fromarray(head), "TIFF")})
    ds = dataset(tmp_path / "up", item)
    assert (ds.BitsStored, ds.Rows, ds.Columns) == (16, 120, 110)
    assert np.frombuffer(ds.PixelData, "<u2").reshape(120, 110).tolist() == head.tolist()


def test_each_page_of_a_stack_is_a_slice(tmp_path: Path) -> None:
    pages = [Image.fromarray(studies.head(120, 120, seed=n)) for n in range(4)]
    stack = saved(pages[0], "TIFF", save_all=True, append_images=pages[1:])
    items = sort(tmp_path / "up", {"stack.tif": stack})
    assert [item.kind for item in items] == ["picture"] * 4
    too_many = saved(pages[0], "TIFF", save_all=True, append_images=pages * 2)
    (item,) = sort(tmp_path / "more", {"stack.tif": too_many})
    assert "has 9 pages; at most 6" in item.sentence


def test_a_lossy_picture_says_so(tmp_path: Path) -> None:
    items = sort(tmp_path / "up", {"a.jpg": picture("JPEG"), "b.png": picture()})
    assert [dataset(tmp_path / "up", item).LossyImageCompression for item in items] == ["01", "00"]


def test_a_float_picture_is_stretched(tmp_path: Path) -> None:
    head = studies.head(120, 120, seed=5).astype(np.float32) / 1000
    (item,) = sort(tmp_path / "up", {"f.tif": saved(Image.fromarray(head), "TIFF")})
    values = np.frombuffer(dataset(tmp_path / "up", item).PixelData, "<u2")
    assert (values.min(), values.max()) == (0, 65535)


def test_too_many_files_stop_the_upload_with_a_sentence(tmp_path: Path) -> None:
    items = sort(tmp_path / "up", {"z.zip": zipped(*[(f"{n}", b"x") for n in range(51)])})
    assert "lists 51 files" in items[0].sentence
