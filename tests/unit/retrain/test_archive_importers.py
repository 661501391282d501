"""Slices of an index and DICOM studies on their way into an archive."""

import csv
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.uid import UID

from dicomguard import part10
from dicomguard.errors import Refused
from dicomguard.retrain.archive import contents, deidentify, pixels
from dicomguard.retrain.archive.importers import dicom, slices
from dicomguard.retrain.dataset import COLUMNS
from tests.unit.retrain.archive_cases import add, instance, plane


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "archive"


def test_slices_come_in_by_patient_and_group(tmp_path: Path, root: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    with (folder / "index.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        for number, (patient, mask) in enumerate((("a", "m0.png"), ("a", ""), ("b", ""))):
            Image.fromarray(plane(number)).save(folder / f"{number}.png")
            if mask:
                Image.fromarray(np.full((16, 16), 255, np.uint8)).save(folder / mask)
            row = {"source": "lgg", "patient": patient, "group": "DU", "slice": number, "sequence": "flair"}
            sizes = {"rows": 16, "cols": 16, "bits": 8, "tumor_px": 0}
            sha256 = pixels.sha256_of(plane(number))
            writer.writerow({**row, **sizes, "file": f"{number}.png", "mask": mask, "sha256": sha256})
    cases = list(slices.read(folder, licence="CC BY 4.0"))
    assert [(case.patient, case.label, len(case.files)) for case in cases] == [("a", "tumor", 3), ("b", "no_tumor", 1)]
    assert {case.label_provenance for case in cases} == {slices.FROM_MASKS}
    (drawn, _) = slices.read(folder, licence="CC BY 4.0", label_provenance="drawn by ada")
    assert drawn.label_provenance == "drawn by ada"
    assert {len(list((root / "cases" / add(root, case)).rglob("*.png"))) for case in cases} == {3, 1}
    Image.fromarray(plane(9)).save(folder / "2.png")
    with pytest.raises(Refused, match=r"2\.png is not the picture"):
        list(slices.read(folder, licence="CC BY 4.0"))
    with pytest.raises(Refused, match="lists no plane of btp"):
        list(slices.read(folder, licence="CC BY 4.0", sources=frozenset({"btp"})))


def test_a_dicom_study_comes_in_without_its_person(tmp_path: Path, root: Path) -> None:
    folder, masks = tmp_path / "study", tmp_path / "masks"
    folder.mkdir()
    masks.mkdir()
    for number in (3, 1, 2, 6):
        instance(number).save_as(folder / f"im{number}.dcm", enforce_file_format=True)
    (folder / "notes.txt").write_text("no DICOM")
    disc = instance(9)
    disc.SOPClassUID = UID(part10.DIRECTORY_CLASS)
    disc.save_as(folder / "DICOMDIR", enforce_file_format=True)
    Image.fromarray(np.full((16, 16), 255, np.uint8)).save(masks / "im2.png")
    (new,) = dicom.read(
        folder, archive=root, source="clinic", licence="own", label="tumor", label_provenance="pathology", masks=masks
    )
    case_id = add(root, new)
    written = b"".join(path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file())
    for secret in (b"Roe", b"MRN-77", b"1970", b"ACC-5", b"Elsewhere", b"Who", b"ROE SCANNER", b"1.2.3.4\0", b"im2"):
        assert secret not in written
    case = contents.read(root).entries[0].case
    assert "private" in case.deidentified
    assert case.label_provenance == "pathology"
    files = [file for file in case.files if file.role == "dicom"]
    # 3 and 6 are no neighbours: numbers are left out between them.
    assert [file.number for file in files] == [1, 2, 3, 5]
    assert [bool(file.mask) for file in files] == [False, True, False, False]
    kept = pydicom.dcmread(root / "cases" / case_id / files[0].path)
    assert kept.PatientIdentityRemoved == "YES" and kept.PatientID == case.patient
    assert kept.EchoTime == 100 and kept.SeriesDescription == "flair"
    assert kept.PixelData == instance(1).PixelData
    assert kept.SeriesInstanceUID.startswith("2.25.")


def test_the_echoes_of_one_series_come_in_as_two_stacks(tmp_path: Path, root: Path) -> None:
    for number in range(1, 7):
        # Instance numbers do not tell which echo comes first at a position.
        first = number in (1, 4, 5)
        one = instance(number, EchoTime=20 if first else 90, EchoNumbers=1 if first else 2)
        one.ImagePositionPatient = [0, 0, 5.0 * ((number + 1) // 2)]
        one.save_as(tmp_path / f"im{number}.dcm", enforce_file_format=True)
    (new,) = dicom.read(tmp_path, archive=root, source="clinic", licence="own", label="no_tumor")
    case_id = add(root, new)
    files = sorted(contents.read(root).entries[0].case.files, key=lambda file: file.number or 0)
    times = [pydicom.dcmread(root / "cases" / case_id / file.path).EchoTime for file in files]
    assert [file.number for file in files] == [1, 2, 3, 5, 6, 7]
    assert times in ([20] * 3 + [90] * 3, [90] * 3 + [20] * 3), "neighbours are of one echo"


def test_the_same_person_keeps_one_key_in_one_archive_only(tmp_path: Path) -> None:
    key = deidentify.read_key(tmp_path / "a")
    assert deidentify.read_key(tmp_path / "a") == key
    assert (tmp_path / "a" / deidentify.KEY_FILE).stat().st_mode & 0o077 == 0

    def patient(key: bytes, **changes: object) -> str:
        return deidentify.clean(instance(1, **changes), key=key, sequence="").patient

    assert patient(key) == patient(key, PatientName="Other^Name")
    assert patient(key) != patient(key, IssuerOfPatientID="B")
    assert patient(key) != patient(deidentify.read_key(tmp_path / "b"))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"BurnedInAnnotation": "YES"}, "burned"),
        ({"SyntheticData": "YES"}, "authentic"),
        ({"RecognizableVisualFeatures": "YES"}, "face"),
        ({"PatientID": ""}, "no Patient ID"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"}, "no CT or MR"),
    ],
)
def test_what_must_not_enter_is_refused(tmp_path: Path, changes: dict[str, object], sentence: str) -> None:
    with pytest.raises(Refused, match=sentence):
        deidentify.clean(instance(1, **changes), key=b"k" * 32, sequence="")
