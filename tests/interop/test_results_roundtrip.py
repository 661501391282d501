"""Results go to archives and come back as they were: DCMTK's storescp and a real Orthanc."""

import subprocess
from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from dicomguard.sr.build import Built, fallback
from tests import peers
from tests.sr_cases import Spot, case, enhanced, frames, single_frame

Need = Callable[[str, str], str]


def _objects() -> list[Built]:
    """Of four studies' worth of results: every kind of object, single and multi-frame sources, each with own UIDs."""
    (header,) = enhanced(6)
    made = [
        case("added", [frames(single_frame())], [Spot(category="added", places=[2, 3, 4])]),
        case("removed", [[(header, n) for n in range(1, 7)]], [Spot(category="removed", places=[2, 3])]),
        case("absent", [frames(single_frame())]),
        case("not_analysable", [frames(single_frame())]),
    ]
    built = [item for one in made for item in one.build()]
    return [*built, fallback(built[1].dataset)]


def _send(need: Need, files: Sequence[Path], *, ae_title: str, port: int) -> None:
    # -R proposes only what the files need: the default set has neither SEG nor Comprehensive 3D SR.
    subprocess.run(
        [need("storescu", "dcmtk"), "-R", "-aec", ae_title, "127.0.0.1", str(port), *map(str, files)],
        check=True,
        capture_output=True,
        timeout=60,
    )


def _write(folder: Path, objects: Sequence[Built]) -> list[Path]:
    files = []
    for number, built in enumerate(objects):
        path = folder / f"{number}.dcm"
        path.write_bytes(built.data)
        files.append(path)
    return files


def _same(left: Dataset, right: Dataset) -> None:
    assert left == right
    assert left.get("PixelData") == right.get("PixelData")


def test_storescp(need: Need, tmp_path: Path) -> None:
    objects = _objects()
    files = _write(tmp_path, objects)
    with peers.storescp(need, tmp_path / "archive") as archive:
        _send(need, files, ae_title=archive.ae_title, port=archive.port)
        received = {str(ds.SOPInstanceUID): ds for ds in map(dcmread, archive.files())}
    assert set(received) == {built.result.sop_instance_uid for built in objects}
    for built in objects:
        _same(received[built.result.sop_instance_uid], dcmread(BytesIO(built.data)))


def test_orthanc(need: Need, tmp_path: Path) -> None:
    objects = _objects()
    files = _write(tmp_path, objects)
    with peers.orthanc(need, tmp_path / "orthanc") as archive:
        _send(need, files, ae_title=archive.ae_title, port=archive.port)
        # One patient and one study: what an archive matches on is what the source has.
        assert len(archive.get("/patients")) == 1 and len(archive.get("/studies")) == 1
        (study,) = archive.post("/tools/find", {"Level": "Study", "Query": {"PatientID": "P-17"}, "Expand": True})
        assert study["MainDicomTags"]["AccessionNumber"] == "A123"
        held = {}
        for key in archive.get("/instances"):
            ds = dcmread(BytesIO(archive.get_bytes(f"/instances/{key}/file")))
            held[str(ds.SOPInstanceUID)] = ds
    assert set(held) == {built.result.sop_instance_uid for built in objects}
    for built in objects:
        # The meta header is the archive's own: datasets are compared, not files.
        _same(held[built.result.sop_instance_uid], dcmread(BytesIO(built.data)))


@pytest.mark.parametrize("kind", ["SEG", "SR"])
def test_sent_again_is_the_same_instance(kind: str, need: Need, tmp_path: Path) -> None:
    first = [built for built in _objects() if built.result.kind == kind]
    again = [built for built in _objects() if built.result.kind == kind]
    with peers.storescp(need, tmp_path / "archive") as archive:
        for objects in (first, again):
            _send(need, _write(tmp_path, objects), ae_title=archive.ae_title, port=archive.port)
        assert len(archive.files()) == len(first)
