"""A forged study keeps what is not forged, names itself synthetic, and writes the same bytes twice."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pydicom
import pytest

from dicomguard.errors import Refused
from dicomguard.retrain.tamper.study import Acquisition, ForgedStudy, forge_study, write_planes

from .phantom import phantom


def authentic(folder: Path, *, bits: int = 12, seed: int = 0, key: str = "a") -> list[Path]:
    canvas = phantom(slices=5, high=float(2**bits - 1), seed=seed)
    acquisition = Acquisition(
        key=key, sequence="flair", bits=bits, spacing_mm=(0.9, 0.8), positions_mm=(0.0, 5.0, 10.0, 15.0, 20.0)
    )
    return [path for path, _ in write_planes(canvas.pixels, acquisition, folder)]


def lesion_file(folder: Path) -> Path:
    path = folder / "lesion.npy"
    np.save(path, phantom(slices=5).lesion)
    return path


def forge(files: list[Path], output: Path, **changes: object) -> ForgedStudy:
    given: dict[str, object] = {"family": None, "kind": None, "mask": None, "donor": None, "seed": 3, **changes}
    return forge_study(files, output, **given)  # type: ignore[arg-type]


def test_planes_are_written_as_they_are(tmp_path: Path) -> None:
    canvas = phantom(slices=5, high=4095.0)
    for path, plane in zip(authentic(tmp_path / "a"), canvas.pixels, strict=True):
        dataset = pydicom.dcmread(path)
        assert np.array_equal(dataset.pixel_array, plane)
        assert dataset[0x0008001C].value == "YES"
    positions = [float(pydicom.dcmread(p).ImagePositionPatient[2]) for p in sorted((tmp_path / "a").iterdir())]
    assert positions == [0.0, 5.0, 10.0, 15.0, 20.0]


@pytest.mark.parametrize("bits", [8, 12])
def test_a_removal(tmp_path: Path, bits: int) -> None:
    files = authentic(tmp_path / "a", bits=bits)
    study = forge(files, tmp_path / "f", kind="removed", mask=lesion_file(tmp_path))
    assert study.kind == "removed"
    assert study.forged_slices
    before = [pydicom.dcmread(path) for path in files]
    after = [pydicom.dcmread(path) for path in study.files]
    changed = {a.SOPInstanceUID for a, b in zip(after, before, strict=True) if a.PixelData != b.PixelData}
    assert set(study.forged_slices) <= changed
    assert {d.StudyInstanceUID for d in after} == {study.study_instance_uid}
    for a, b in zip(after, before, strict=True):
        assert a[0x0008001C].value == "YES"
        assert a.SOPInstanceUID != b.SOPInstanceUID
        assert a.SeriesInstanceUID != b.SeriesInstanceUID
        assert a.file_meta.MediaStorageSOPInstanceUID == a.SOPInstanceUID
        assert a.PatientID == b.PatientID
        assert a.pixel_array.max() < 2**bits
    facts = json.loads(study.record.read_text())
    assert facts["kind"] == "removed"
    assert [one["sop_instance_uid"] for one in facts["slices"]] == list(study.forged_slices)


def test_an_addition_with_a_donor_and_without(tmp_path: Path) -> None:
    files, donor = authentic(tmp_path / "a"), authentic(tmp_path / "b", seed=9, key="b")
    assert forge(files, tmp_path / "f", kind="added").kind == "added"
    assert forge(files, tmp_path / "g", family="painted", kind="added", donor=donor).family == "painted"


def test_the_same_call_writes_the_same_bytes(tmp_path: Path) -> None:
    files = authentic(tmp_path / "a")
    hashes = []
    for name in ("f", "g"):
        study = forge(files, tmp_path / name, kind="added")
        hashes.append([hashlib.sha256(path.read_bytes()).hexdigest() for path in study.files])
    assert hashes[0] == hashes[1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "removed"}, "Give --mask"),
        ({"family": "nonsense"}, "No family"),
        ({"family": "pde", "kind": "added"}, "no forgery of the kind"),
    ],
)
def test_refusals(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    files = authentic(tmp_path / "a")
    with pytest.raises(Refused, match=message):
        forge(files, tmp_path / "f", **changes)


def test_a_mask_of_another_size_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "small.npy"
    np.save(path, np.ones((2, 8, 8), np.bool_))
    with pytest.raises(Refused, match="series' size"):
        forge(authentic(tmp_path / "a"), tmp_path / "f", kind="removed", mask=path)


def test_a_drawn_mask_is_no_scan_and_another_study_stays_out(tmp_path: Path) -> None:
    """A series of a region drawn by hand may be the largest; files of another study may lie in the folder."""
    scan = authentic(tmp_path / "a")
    marks = Acquisition(key="a", sequence="roi", bits=8, spacing_mm=(1, 1), positions_mm=tuple(range(9)))
    drawn = [p for p, _ in write_planes(phantom(slices=9).lesion.astype(np.float32), marks, tmp_path / "m")]
    for path in drawn:
        dataset = pydicom.dcmread(path)
        dataset.SeriesInstanceUID, dataset.SOPInstanceUID = "1.2.3", dataset.SOPInstanceUID + ".1"
        dataset.save_as(path)
    other = authentic(tmp_path / "b", seed=9, key="b")[:2]
    study = forge([*drawn, *scan, *other], tmp_path / "f", kind="added")
    assert len(study.files) == len(drawn) + len(scan)
    written = {pydicom.dcmread(path).SOPInstanceUID: pydicom.dcmread(path).SeriesDescription for path in study.files}
    assert {written[name] for name in study.forged_slices} == {"AX FLAIR"}


def test_big_endian_files_are_refused(tmp_path: Path) -> None:
    files = authentic(tmp_path / "a")
    dataset = pydicom.dcmread(files[0])
    pixels = dataset.pixel_array.astype(">u2")
    dataset.PixelData = pixels.tobytes()
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRBigEndian
    pydicom.dcmwrite(files[0], dataset, little_endian=False, implicit_vr=False)
    with pytest.raises(Refused, match="big-endian"):
        forge(files, tmp_path / "f", kind="added")


def test_only_masks_are_refused(tmp_path: Path) -> None:
    marks = Acquisition(key="a", sequence="roi", bits=8, spacing_mm=(1, 1), positions_mm=(0.0, 1.0, 2.0))
    files = [p for p, _ in write_planes(phantom().lesion.astype(np.float32), marks, tmp_path / "m")]
    with pytest.raises(Refused, match="no decodable grey"):
        forge(files, tmp_path / "f", kind="added")
