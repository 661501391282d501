"""Single instances as Part 10 files, a few hundred bytes each, for tests of reception and of the store."""

import io
from pathlib import Path
from typing import Any

import pydicom
from pydicom.dataset import FileMetaDataset
from pydicom.uid import UID

from dicomguard.store.intake import Sender

MR = "1.2.840.10008.5.1.4.1.1.4"
ROOT = "1.2.826.0.1.3680043.8.498.1"
CT1 = Sender(peer="ct1", calling_ae="CT1", called_ae="DICOMGUARD", address="192.0.2.7")
# DICOM files that ship with pydicom.
PYDICOM = Path(pydicom.__file__).parent / "data" / "test_files"


def part10_bytes(
    *,
    sop: str = f"{ROOT}.1.1.1",
    study: str = f"{ROOT}.1",
    series: str = f"{ROOT}.1.1",
    pixels: bytes = bytes(range(16)),
    sop_class: str = MR,
    syntax: str = "1.2.840.10008.1.2.1",
    **attributes: Any,
) -> bytes:
    """A 4×4 MR image of one byte a pixel; `attributes` are set by keyword."""
    dataset = pydicom.Dataset()
    dataset.SOPClassUID = UID(sop_class)
    dataset.SOPInstanceUID = UID(sop)
    dataset.StudyInstanceUID = study
    dataset.SeriesInstanceUID = series
    dataset.PatientID = "SECRET-ID"
    dataset.PatientName = "SECRET^NAME"
    dataset.Modality = "MR"
    dataset.Rows = dataset.Columns = 4
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit = 7
    dataset.PixelRepresentation = 0
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    dataset.PixelData = pixels
    dataset["PixelData"].VR = "OB"
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.MediaStorageSOPClassUID = UID(sop_class)
    dataset.file_meta.MediaStorageSOPInstanceUID = UID(sop)
    dataset.file_meta.TransferSyntaxUID = UID(syntax)
    target = io.BytesIO()
    pydicom.dcmwrite(target, dataset, enforce_file_format=True)
    return target.getvalue()


def part10_file(folder: Path, **changes: Any) -> Path:
    """The same in a file of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{len(list(folder.iterdir())):04d}.dcm"
    path.write_bytes(part10_bytes(**changes))
    return path
