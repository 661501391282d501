"""Archives of others are unpacked inside a folder that goes away, or not at all."""

import io
import tarfile
from pathlib import Path

import pytest

from dicomguard.errors import Refused
from dicomguard.retrain.evaluate import archives
from tests import studies


def packed(folder: Path, members: list[tuple[tarfile.TarInfo, bytes]]) -> Path:
    path = folder / "scans.tar.xz"
    with tarfile.open(path, "w:xz") as archive:
        for info, content in members:
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def link(name: str, target: str, kind: bytes) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info, b""


@pytest.mark.parametrize("name", ["../outside.dcm", "a/../../outside.dcm", "/outside-of-the-folder.dcm"])
def test_a_path_that_leads_out_is_refused(tmp_path: Path, name: str) -> None:
    archive = packed(tmp_path, [(tarfile.TarInfo("good.dcm"), b"x"), (tarfile.TarInfo(name), b"evil")])
    with pytest.raises(Refused, match=r"scans\.tar\.xz holds a path outside itself"), archives.unpacked(archive):
        raise AssertionError("it was unpacked")
    assert [path.name for path in tmp_path.iterdir()] == ["scans.tar.xz"]


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
def test_links_are_left_out_and_nothing_is_written_through_them(tmp_path: Path, kind: bytes) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    through = (tarfile.TarInfo("way/evil.dcm"), b"evil")
    archive = packed(tmp_path, [link("way", str(victim), kind), through])
    with archives.unpacked(archive) as found:
        assert found == []
    assert list(victim.iterdir()) == []


def test_studies_are_told_apart_and_the_folder_goes_away(tmp_path: Path) -> None:
    members = []
    for study in ("one", "two"):
        for path in studies.save(tmp_path / study, studies.series(2, study=study)):
            members.append((tarfile.TarInfo(f"{study}/{path.name}"), path.read_bytes()))
    members.append((tarfile.TarInfo("readme.txt"), b"no scan"))
    with archives.unpacked(packed(tmp_path, members)) as found:
        assert [len(files) for files in found] == [2, 2]
        assert all(path.is_file() for files in found for path in files)
    assert not any(path.exists() for files in found for path in files)
