"""Small cases of an archive, and an archive they are added to."""

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pydicom
from PIL import Image
from pydicom.dataset import FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian

from dicomguard.clock import FakeClock
from dicomguard.retrain.archive import adding, pixels
from dicomguard.retrain.archive.adding import NewCase, NewFile
from dicomguard.retrain.archive.case import Split
from dicomguard.retrain.archive.importers import dicom
from dicomguard.store.files import FakeDisk

CLOCK = FakeClock(datetime(2026, 11, 23, 9, 0, tzinfo=UTC))


def in_train(_key: str) -> Split:
    return "train"


def in_test(_key: str) -> Split:
    return "test"


def plane(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (16, 16), dtype=np.uint8)


def new_case(folder: Path, seed: int, *, patient: str = "p1", source: str = "clinic") -> NewCase:
    folder.mkdir(parents=True, exist_ok=True)
    path, mask = folder / f"{seed}.png", folder / f"{seed}-mask.png"
    Image.fromarray(plane(seed)).save(path)
    Image.fromarray(np.where(plane(seed) > 200, 255, 0).astype(np.uint8)).save(mask)
    return NewCase(
        source=source,
        patient=patient,
        group="",
        label="tumor",
        licence="own",
        files=(
            NewFile(path="masks/1.png", source=mask, role="mask"),
            NewFile(
                path="planes/1.png",
                source=path,
                role="plane",
                pixel_sha256=pixels.sha256_of(plane(seed)),
                sequence="flair",
                number=1,
                rows=16,
                columns=16,
                bits=8,
                mask="masks/1.png",
            ),
        ),
    )


def add(root: Path, new: NewCase, disk: FakeDisk | None = None, split_of: object = in_train) -> str:
    made = adding.add(root, new, curator="ada", clock=CLOCK, disk=disk or FakeDisk(), split_of=split_of)  # type: ignore[arg-type]
    return made.case_id


def instance(number: int, **changes: object) -> pydicom.Dataset:
    ds = pydicom.Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID = UID("1.2.840.10008.5.1.4.1.1.4")
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID = UID(f"1.2.3.{number}")
    ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID = "1.2.3", "1.2.3.4", "1.2.3.5"
    ds.PatientName, ds.PatientID, ds.PatientBirthDate = "Roe^Jane", "MRN-77", "19700101"
    ds.ReferringPhysicianName, ds.AccessionNumber, ds.InstitutionName = "Dr^Who", "ACC-5", "St Elsewhere"
    ds.SeriesDescription, ds.StudyDescription = "Ax FLAIR Jane Roe", "Brain Roe"
    ds.Modality, ds.Rows, ds.Columns, ds.InstanceNumber = "MR", 16, 16, number
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation, ds.SamplesPerPixel = 16, 12, 11, 0, 1
    ds.PhotometricInterpretation = "MONOCHROME2"
    ds.ImagePositionPatient, ds.ImageOrientationPatient = [0, 0, 5.0 * number], [1, 0, 0, 0, 1, 0]
    ds.PixelSpacing, ds.EchoTime, ds.RepetitionTime, ds.InversionTime = [1, 1], 100, 9000, 2500
    ds.PixelData = np.random.default_rng(number).integers(0, 4000, (16, 16), dtype=np.uint16).tobytes()
    private = ds.private_block(0x0029, "ROE SCANNER", create=True)
    private.add_new(1, "LO", "Jane Roe, bed 7")
    for name, value in changes.items():
        setattr(ds, name, value)
    return ds


def dicom_case(folder: Path, archive: Path, seed: int, *, source: str) -> NewCase:
    """A study of one slice of MRN-77, whom every source knows by that Patient ID."""
    home = folder / f"study{seed}"
    home.mkdir(parents=True)
    instance(seed, StudyInstanceUID=f"1.2.3.{seed}0").save_as(home / "1.dcm", enforce_file_format=True)
    (new,) = dicom.read(home, archive=archive, source=source, licence="own", label="no_tumor")
    return new
