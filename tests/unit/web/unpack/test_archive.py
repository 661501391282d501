import io
import struct
import zipfile
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dicomguard.errors import Refused
from dicomguard.web.unpack import archive
from dicomguard.web.unpack.item import Item, Limits

LIMITS = Limits(total_bytes=4 << 20, files=10, zip_ratio=100)


def zipped(*entries: tuple[str | zipfile.ZipInfo, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as made:
        for name, content in entries:
            made.writestr(name, content)
    return buffer.getvalue()


def extract(content: bytes, folder: Path, limits: Limits = LIMITS) -> list[Item]:
    path = folder / "up.zip"
    path.write_bytes(content)
    budget = archive.Budget(limits)
    return list(archive.extract(path, name="up.zip", into=folder, budget=budget, limits=limits))


def only_sentence(items: list[Item]) -> str:
    (item,) = items
    assert item.kind == "refused"
    assert not item.path
    return item.sentence


def test_files_come_out_under_names_of_ours(tmp_path: Path) -> None:
    items = extract(zipped(("a/b.dcm", b"one"), ("a/", b""), ("c.dcm", b"two")), tmp_path)
    assert [(item.kind, item.name) for item in items] == [
        ("unpacked", "up.zip › a/b.dcm"),
        ("unpacked", "up.zip › c.dcm"),
    ]
    assert [(tmp_path / item.path).read_bytes() for item in items] == [b"one", b"two"]
    assert all("/" not in item.path for item in items)


def test_litter_of_operating_systems_is_passed_over(tmp_path: Path) -> None:
    assert (
        extract(zipped(("__MACOSX/._a", b"x"), (".DS_Store", b"x"), ("d/Thumbs.db", b"x"), ("._b", b"x")), tmp_path)
        == []
    )


@pytest.mark.parametrize("name", ["../a", "/etc/passwd", "a/../../b", "..\\a", "C:\\a", "C:/a", "\\\\host\\a"])
def test_names_that_point_outside(tmp_path: Path, name: str) -> None:
    sentence = only_sentence(extract(zipped((name, b"x")), tmp_path))
    assert "points outside the ZIP" in sentence
    assert [path.name for path in tmp_path.iterdir()] == ["up.zip"]


def test_a_bomb_is_told_by_its_ratio(tmp_path: Path) -> None:
    sentence = only_sentence(extract(zipped(("bomb", b"\0" * (3 << 20))), tmp_path))
    assert "ZIP bombs" in sentence
    assert "100 times" in sentence


def test_small_things_may_be_compressed_well(tmp_path: Path) -> None:
    assert [item.kind for item in extract(zipped(("a", b"\0" * 500_000)), tmp_path)] == ["unpacked"]


def test_a_size_that_lies_is_not_believed(tmp_path: Path) -> None:
    content = bytearray(zipped(("a", b"\0" * (3 << 20))))
    claimed = struct.pack("<L", 1000)
    local, central = content.find(b"PK\x03\x04"), content.find(b"PK\x01\x02")
    content[local + 22 : local + 26] = claimed
    content[central + 24 : central + 28] = claimed
    (item,) = extract(bytes(content), tmp_path)
    assert item.kind == "refused"
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < len(content) + 2000


def test_all_files_together_have_a_limit(tmp_path: Path) -> None:
    noise = bytes(range(256)) * 4096
    many = zipped(*[(f"{n}", noise) for n in range(6)], method=zipfile.ZIP_STORED)
    with pytest.raises(Refused, match="unpacks to more than"):
        extract(many, tmp_path)


def test_too_many_entries_are_refused_before_they_are_read(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="lists 11 files; at most 10"):
        extract(zipped(*[(f"{n}", b"x") for n in range(11)]), tmp_path)


def test_a_directory_that_is_too_long_is_refused_before_it_is_read(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="lists 1 files"):
        extract(zipped(("n" * 20_000, b"x")), tmp_path)


def test_encrypted_entries(tmp_path: Path) -> None:
    content = bytearray(zipped(("a", b"secret")))
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.find(signature) + offset] |= 1
    assert "is encrypted" in only_sentence(extract(bytes(content), tmp_path))


def test_links(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("a")
    link.external_attr = 0o120777 << 16
    assert "is a link" in only_sentence(extract(zipped((link, b"/etc/passwd")), tmp_path))


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_rare_methods(tmp_path: Path, method: int) -> None:
    assert f"number {method}" in only_sentence(extract(zipped(("a", b"x"), method=method), tmp_path))


def test_damage(tmp_path: Path) -> None:
    whole = zipped(("a", bytes(range(256)) * 40), method=zipfile.ZIP_STORED)
    with pytest.raises(Refused, match="cut off"):
        extract(whole[:-30], tmp_path)
    broken = bytearray(whole)
    broken[2000] ^= 0xFF
    assert "is damaged inside the ZIP" in only_sentence(extract(bytes(broken), tmp_path))


def test_the_wide_end_record_is_read(tmp_path: Path) -> None:
    # More than 65,535 entries need the 64-bit record, of which the short one only says that it is there.
    record = b"PK\x06\x06" + struct.pack("<QHHLLQQQQ", 44, 45, 45, 0, 0, 65_600, 65_600, 3_000_000, 0)
    locator = b"PK\x06\x07" + struct.pack("<LQL", 0, 0, 1)
    end = b"PK\x05\x06" + struct.pack("<4H2LH", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    with pytest.raises(Refused, match="lists 65600 files"):
        extract(record + locator + end, tmp_path)


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_whatever_is_in_a_damaged_zip_stays_in_the_folder(data: st.DataObject) -> None:
    content = bytearray(zipped(("a/b", b"hello" * 30), ("c", b"\0" * 4000)))
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    with TemporaryDirectory() as outer:
        folder = Path(outer) / "in"
        folder.mkdir()
        try:
            items = extract(bytes(content), folder, replace(LIMITS, total_bytes=100_000))
        except Refused as error:
            assert str(error).count(". ") >= 1
        else:
            assert all((folder / item.path).is_file() for item in items if item.kind == "unpacked")
        assert [path.name for path in Path(outer).iterdir()] == ["in"]


def test_names_are_made_printable() -> None:
    assert archive.printable("a\x1b[31m\nb") == "a�[31m�b"
    assert len(archive.printable("x" * 500)) < 125
