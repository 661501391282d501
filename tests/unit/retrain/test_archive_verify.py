"""What a check of the archive names: changed lines, impossible cases, changed and missing files."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dicomguard.errors import Broken
from dicomguard.retrain.archive import contents, manifest, review, verify
from dicomguard.store.files import FakeDisk
from tests.unit.retrain.archive_cases import CLOCK, add, new_case


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "archive"


def three_lines(root: Path, folder: Path) -> None:
    add(root, new_case(folder, 1))
    case_id = add(root, new_case(folder, 2, patient="p2"))
    review.review(root, case_id, by="grace", accepted=True, clock=CLOCK, disk=FakeDisk())


def test_verify_names_the_changed_line_and_the_remedy(root: Path, tmp_path: Path) -> None:
    three_lines(root, tmp_path / "in")
    path = root / manifest.MANIFEST
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b'"p2"', b'"p9"'))
    (fault,) = verify.verify(root).faults
    assert fault.place == "line 3"
    assert "changed" in fault.sentence and "Restore" in fault.sentence
    lines = whole.splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:2]))
    assert "cut off" in verify.verify(root).faults[0].sentence
    path.write_bytes(lines[0] + lines[2])
    assert verify.verify(root).faults[0].place == "line 2"
    with pytest.raises(Broken):
        contents.read(root)
    path.write_bytes(lines[0] + b"not json\n")
    assert "not readable" in verify.verify(root).faults[0].sentence


def test_verify_names_a_case_that_cannot_be(root: Path, tmp_path: Path) -> None:
    three_lines(root, tmp_path / "in")
    path = root / manifest.MANIFEST
    path.write_bytes(path.read_bytes().replace(b'"label":"tumor"', b'"label":"tumour"'))
    *chain, case = verify.verify(root).faults
    assert chain and "changed" in chain[0].sentence
    assert 'The label "tumour" is unknown' in case.sentence and "backup" in case.sentence


def test_verify_names_the_changed_and_the_missing_file(root: Path, tmp_path: Path) -> None:
    three_lines(root, tmp_path / "in")
    first, second = (root / "cases" / e.case.case_id / "planes" / "1.png" for e in contents.read(root).entries)
    first.write_bytes(b"other")
    second.unlink()
    seen: list[tuple[int, int]] = []
    faults = verify.verify(root, progress=lambda done, total: seen.append((done, total))).faults
    assert [fault.place for fault in faults] == [str(p.relative_to(root)) for p in (first, second)]
    assert "was changed" in faults[0].sentence and "missing" in faults[1].sentence
    assert seen[-1] == (4, 4)


@settings(max_examples=60, deadline=None)
@given(position=st.integers(min_value=0), byte=st.integers(0, 255))
def test_any_changed_byte_of_the_manifest_is_noticed(
    tmp_path_factory: pytest.TempPathFactory, position: int, byte: int
) -> None:
    root = tmp_path_factory.mktemp("chain") / "archive"
    three_lines(root, root.parent / "in")
    path = root / manifest.MANIFEST
    content = bytearray(path.read_bytes())
    place = position % len(content)
    if content[place] == byte:
        return
    content[place] = byte
    path.write_bytes(content)
    assert verify.verify(root).faults


def test_no_changed_byte_of_the_last_line_goes_unnoticed_or_ends_the_check(root: Path, tmp_path: Path) -> None:
    """Only the head knows the last line's hash, so that what the line says is read although it was changed."""
    three_lines(root, tmp_path / "in")
    path = root / manifest.MANIFEST
    whole = path.read_bytes()
    last = whole.rindex(b"\n", 0, -1) + 1
    for place in range(last, len(whole) - 1):
        for byte in b' "1':
            if whole[place] != byte:
                path.write_bytes(whole[:place] + bytes([byte]) + whole[place + 1 :])
                assert verify.verify(root).faults, (place, byte)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"number": 3}', b'{"number": "x", "sha256": ""}', b"\xff"])
def test_a_head_that_cannot_be_read_is_a_fault_with_its_remedy(root: Path, tmp_path: Path, content: bytes) -> None:
    three_lines(root, tmp_path / "in")
    (root / manifest.HEAD).write_bytes(content)
    (fault,) = verify.verify(root).faults
    assert fault.place == manifest.HEAD
    assert "Restore it" in fault.sentence
    with pytest.raises(Broken, match="Restore it"):
        contents.read(root)


def test_a_line_of_another_version_is_refused(root: Path, tmp_path: Path) -> None:
    add(root, new_case(tmp_path / "in", 1))
    path = root / manifest.MANIFEST
    line = json.loads(path.read_bytes())
    path.write_text(json.dumps({**line, "schema": "dicomguard.archive/2"}) + "\n")
    assert "Use the version" in verify.verify(root).faults[0].sentence
