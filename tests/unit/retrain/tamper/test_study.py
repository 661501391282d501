"""A forged study keeps what is not forged, names itself synthetic, and writes the same bytes twice."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom import Dataset

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
    files = two_series(tmp_path / "a")
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


def reference(**attributes: object) -> Dataset:
    item = Dataset()
    for keyword, value in attributes.items():
        setattr(item, keyword, value)
    return item


def two_series(folder: Path) -> list[Path]:
    """A scan and localizers of one study and frame of reference that refer to each other; the first slice is signed."""
    scan = authentic(folder / "scan")
    localizers = authentic(folder / "localizers", seed=9, key="b")[:2]
    a, b = [pydicom.dcmread(path) for path in scan], [pydicom.dcmread(path) for path in localizers]
    for dataset in b:
        dataset.StudyInstanceUID, dataset.FrameOfReferenceUID = a[0].StudyInstanceUID, a[0].FrameOfReferenceUID
    for dataset in (*a, *b):
        del dataset.SyntheticData
    a[0].ReferencedImageSequence = [
        reference(ReferencedSOPClassUID=one.SOPClassUID, ReferencedSOPInstanceUID=one.SOPInstanceUID) for one in b
    ]
    a[0].MACParametersSequence = [reference(MACIDNumber=1, DataElementsSigned=[0x00080018])]
    a[0].DigitalSignaturesSequence = [reference(MACIDNumber=1, DigitalSignatureUID="1.2.3.4", Signature=b"ab")]
    source = reference(ReferencedSOPClassUID=a[1].SOPClassUID, ReferencedSOPInstanceUID=a[1].SOPInstanceUID)
    b[0].DerivationImageSequence = [reference(SourceImageSequence=[source])]
    b[0].ReferencedFrameOfReferenceSequence = [reference(ReferencedFrameOfReferenceUID=a[0].FrameOfReferenceUID)]
    b[1].ReferencedSeriesSequence = [
        reference(SeriesInstanceUID=a[0].SeriesInstanceUID, ReferencedInstanceSequence=[source])
    ]
    for dataset, path in zip(a, scan, strict=True):
        dataset.save_as(path)
    for dataset, path in zip(b, localizers, strict=True):
        dataset.file_meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian
        dataset.save_as(path, implicit_vr=True, little_endian=True)
    return [*scan, *localizers]


def test_the_whole_study_gets_a_new_identity(tmp_path: Path) -> None:
    files = two_series(tmp_path / "a")
    study = forge(files, tmp_path / "f", kind="added")
    before, after = ([pydicom.dcmread(path) for path in paths] for paths in (files, study.files))
    for level, count in (("Study", 1), ("Series", 2), ("SOP", 7)):
        name = f"{level}InstanceUID"
        pairs = {(b[name].value, a[name].value) for b, a in zip(before, after, strict=True)}
        assert len(pairs) == len({new for _, new in pairs}) == count
    assert {a.StudyInstanceUID for a in after} == {study.study_instance_uid}
    assert len({a.FrameOfReferenceUID for a in after}) == 1
    originals = {
        str(b[keyword].value)
        for b in before
        for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID")
    }
    for a, path in zip(after, study.files, strict=True):
        assert not [one for one in originals if one.encode() in path.read_bytes()]
        assert a.SyntheticData == "YES"
        assert a.file_meta.MediaStorageSOPInstanceUID == a.SOPInstanceUID
        assert a.file_meta.MediaStorageSOPClassUID == a.SOPClassUID == before[0].SOPClassUID
    assert "DigitalSignaturesSequence" in before[0] and "MACParametersSequence" in before[0]
    assert "DigitalSignaturesSequence" not in after[0] and "MACParametersSequence" not in after[0]


def test_instances_of_a_forged_study_refer_to_each_other(tmp_path: Path) -> None:
    study = forge(two_series(tmp_path / "a"), tmp_path / "f", kind="added")
    *scan, one, other = (pydicom.dcmread(path) for path in study.files)
    referenced = scan[0].ReferencedImageSequence
    assert [item.ReferencedSOPInstanceUID for item in referenced] == [one.SOPInstanceUID, other.SOPInstanceUID]
    assert {item.ReferencedSOPClassUID for item in referenced} == {one.SOPClassUID}
    source = one.DerivationImageSequence[0].SourceImageSequence[0]
    assert source.ReferencedSOPInstanceUID == scan[1].SOPInstanceUID
    frame = one.ReferencedFrameOfReferenceSequence[0].ReferencedFrameOfReferenceUID
    assert frame == scan[0].FrameOfReferenceUID
    series = other.ReferencedSeriesSequence[0]
    assert series.SeriesInstanceUID == scan[0].SeriesInstanceUID
    assert series.ReferencedInstanceSequence[0].ReferencedSOPInstanceUID == scan[1].SOPInstanceUID


def test_two_forgeries_of_a_study_share_no_instance(tmp_path: Path) -> None:
    files = two_series(tmp_path / "a")
    made = [forge(files, tmp_path / str(seed), kind="added", seed=seed) for seed in (3, 4)]
    # With one seed, too, when another place is wiped.
    for shift in (0, 4):
        mask = tmp_path / f"{shift}.npy"
        np.save(mask, np.roll(phantom(slices=5).lesion, shift, axis=2))
        made.append(forge(files, tmp_path / f"wiped{shift}", family="pde", kind="removed", mask=mask))
    uids = [{pydicom.dcmread(path).SOPInstanceUID for path in study.files} for study in made]
    assert len(set.union(*uids)) == sum(map(len, uids)) == 4 * len(files)


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
