"""Loose pictures as one study of Secondary Capture instances (PS3.3 A.8.1): the line behind knows one form only.

All UIDs are derived from the pixels: the same pictures sent again are the same study. Nothing is claimed that a picture
does not say: no position, no spacing, no date, no patient.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset

from dicomguard.core import uid

SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
EXPLICIT_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """A page that was judged to be a slice, before it is wrapped."""

    name: str
    page: int
    # SHA-256 over shape, type and pixels.
    sha256: str
    lossy: bool


def fingerprint(pixels: npt.NDArray[np.generic]) -> str:
    """SHA-256 over shape, type and pixels of H×W uint8 or uint16."""
    header = f"{pixels.shape}{pixels.dtype.str}".encode()
    return hashlib.sha256(header + np.ascontiguousarray(pixels).tobytes()).hexdigest()


def in_order(slices: Sequence[Slice]) -> list[Slice]:
    """By name as people count (2 before 10), then by page."""
    return sorted(slices, key=lambda item: (natural(item.name), item.page))


def natural(name: str) -> list[tuple[int, int, str]]:
    """Sort key by which 2 comes before 10."""
    return [
        (0, int(part[:18]), "") if part.isdecimal() and part.isascii() else (1, 0, part.casefold())
        for part in re.split(r"([0-9]+)", name)
        if part
    ]


def study_uid(slices: Sequence[Slice]) -> str:
    """The same set of pictures is the same study."""
    return uid.derive("picture-study", *sorted(item.sha256 for item in slices))


def wrap(pixels: npt.NDArray[np.generic], item: Slice, *, study: str, number: int) -> Dataset:
    """A Secondary Capture dataset of H×W uint8 or uint16 pixels; `number` is the 1-based Instance Number."""
    rows, columns = pixels.shape
    bits = pixels.dtype.itemsize * 8
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.ImageType = ["DERIVED", "SECONDARY"]
    ds.SOPClassUID = SECONDARY_CAPTURE
    ds.SOPInstanceUID = uid.derive("picture", study, number, item.sha256)
    ds.StudyDate = ""
    ds.StudyTime = ""
    ds.AccessionNumber = ""
    ds.Modality = "OT"
    # From a workstation (PS3.3 C.8.6.1).
    ds.ConversionType = "WSD"
    ds.Manufacturer = "dicomguard"
    ds.ReferringPhysicianName = ""
    ds.SeriesDescription = "Uploaded pictures"
    ds.PatientName = ""
    ds.PatientID = ""
    ds.PatientBirthDate = ""
    ds.PatientSex = ""
    ds.StudyInstanceUID = study
    ds.SeriesInstanceUID = uid.derive("picture-series", study)
    ds.StudyID = ""
    ds.SeriesNumber = 1
    ds.InstanceNumber = number
    ds.PatientOrientation = ""
    ds.SamplesPerPixel = 1
    ds.PhotometricInterpretation = "MONOCHROME2"
    ds.Rows = rows
    ds.Columns = columns
    ds.BitsAllocated = bits
    ds.BitsStored = bits
    ds.HighBit = bits - 1
    ds.PixelRepresentation = 0
    if item.lossy:
        ds.LossyImageCompression = "01"
        ds.LossyImageCompressionMethod = "ISO_10918_1"
    else:
        ds.LossyImageCompression = "00"
    value = np.ascontiguousarray(pixels, dtype=pixels.dtype.newbyteorder("<")).tobytes()
    ds.add_new(0x7FE00010, "OW" if bits > 8 else "OB", value + b"\0" * (len(value) % 2))
    return ds


def dataset_bytes(ds: Dataset) -> bytes:
    """The dataset in explicit little endian, without preamble and meta information."""
    stream = DicomBytesIO()
    stream.is_little_endian = True
    stream.is_implicit_VR = False
    write_dataset(stream, ds)
    return stream.getvalue()
