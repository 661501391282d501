"""Synthetic DICOM studies of a few kB: a noisy ellipse stands for a head, a brighter disc for a tumor.

`series(...)` gives datasets, `save(...)` writes them as Part 10 files. Whatever a test wants different it sets on the
datasets before saving; UIDs are derived from names, so that a study is the same in each run.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import UID, ExplicitVRLittleEndian

from dicomguard.core import uid

MR = "1.2.840.10008.5.1.4.1.1.4"
ENHANCED_MR = "1.2.840.10008.5.1.4.1.1.4.1"
CT = "1.2.840.10008.5.1.4.1.1.2"
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
CORONAL = (1.0, 0.0, 0.0, 0.0, 0.0, -1.0)
SAGITTAL = (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)


def head(
    rows: int = 128, columns: int = 128, *, seed: int = 0, tumor: tuple[int, int, int] | None = None
) -> NDArray[np.uint16]:
    """H×W, 12 bits: air, skull, brain with noise; `tumor` is (row, column, radius) of a bright disc."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:rows, 0:columns].astype(np.float64)
    radius = np.hypot((y - rows / 2) / (0.42 * rows), (x - columns / 2) / (0.34 * columns))
    image = np.where(radius < 1.0, 420.0 + 60.0 * np.cos(5 * radius), 0.0)
    image[(radius >= 0.92) & (radius < 1.0)] = 900.0
    if tumor is not None:
        image[np.hypot(y - tumor[0], x - tumor[1]) <= tumor[2]] = 1100.0
    # Rician, as of a magnitude image.
    noisy = np.hypot(image + rng.normal(0, 18, image.shape), rng.normal(0, 18, image.shape))
    return np.clip(np.rint(noisy), 0, 4095).astype(np.uint16)


def series(
    count: int = 5,
    *,
    study: str = "study",
    name: str = "series",
    number: int = 1,
    description: str = "AX FLAIR",
    orientation: Sequence[float] = AXIAL,
    origin: Sequence[float] = (-64.0, -64.0, 0.0),
    step_mm: Sequence[float] = (0.0, 0.0, 5.0),
    size: tuple[int, int] = (128, 128),
    modality: str = "MR",
    tumor: tuple[int, int, int] | None = None,
    tumor_on: Sequence[int] = (),
) -> list[FileDataset]:
    """Single-frame instances in order; `tumor_on` are the indices of the slices that show it."""
    result = []
    for index in range(count):
        pixels = head(*size, seed=1000 * number + index, tumor=tumor if index in tumor_on else None)
        ds = instance(pixels, study=study, name=name, index=index, modality=modality)
        ds.SeriesDescription = description
        ds.SeriesNumber = number
        ds.ImageOrientationPatient = list(orientation)
        ds.ImagePositionPatient = [round(o + index * s, 6) for o, s in zip(origin, step_mm, strict=True)]
        ds.FrameOfReferenceUID = uid.derive("test", study, "frame")
        ds.PixelSpacing = [1.0, 1.0]
        ds.SliceThickness = 5.0
        result.append(ds)
    return result


def instance(
    pixels: NDArray[np.generic], *, study: str = "study", name: str = "series", index: int = 0, modality: str = "MR"
) -> FileDataset:
    """One instance around H×W or H×W×3 pixels, without geometry."""
    sop_class = {"MR": MR, "CT": CT}.get(modality, SECONDARY_CAPTURE)
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = UID(sop_class)
    meta.MediaStorageSOPInstanceUID = UID(uid.derive("test", study, name, index))
    ds = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    ds.SOPClassUID = sop_class
    ds.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    ds.StudyInstanceUID = uid.derive("test", study)
    ds.SeriesInstanceUID = uid.derive("test", study, name)
    ds.Modality = modality
    ds.ImageType = ["ORIGINAL", "PRIMARY", "M", "SE"]
    ds.PatientName = "Fixture^Patient"
    ds.PatientID = "FIXTURE-1"
    ds.StudyDate, ds.StudyTime, ds.AccessionNumber, ds.StudyID = "20260102", "101112", "A1", "1"
    ds.PatientBirthDate, ds.PatientSex, ds.ReferringPhysicianName = "19700101", "O", ""
    ds.Manufacturer, ds.ManufacturerModelName, ds.SoftwareVersions = "Synthetic", "Ellipse", "1"
    ds.BodyPartExamined = "HEAD"
    ds.SeriesDescription = ""
    ds.SeriesNumber, ds.InstanceNumber = 1, index + 1
    put_pixels(ds, pixels)
    return ds


def put_pixels(ds: Dataset, pixels: NDArray[np.generic], *, bits_stored: int | None = None) -> None:
    """Native pixels H×W, N×H×W (frames) or H×W×3 (colour) with the attributes that describe them."""
    colour = pixels.ndim == 3 and pixels.shape[-1] == 3
    bits = pixels.dtype.itemsize * 8
    ds.Rows, ds.Columns = pixels.shape[:2] if colour or pixels.ndim == 2 else pixels.shape[1:]
    ds.SamplesPerPixel = 3 if colour else 1
    ds.PhotometricInterpretation = "RGB" if colour else "MONOCHROME2"
    if colour:
        ds.PlanarConfiguration = 0
    ds.BitsAllocated = bits
    ds.BitsStored = bits_stored or (12 if bits == 16 and pixels.dtype == np.uint16 else bits)
    ds.HighBit = ds.BitsStored - 1
    ds.PixelRepresentation = int(np.issubdtype(pixels.dtype, np.signedinteger))
    data = np.ascontiguousarray(pixels, dtype=pixels.dtype.newbyteorder("<")).tobytes()
    ds.add_new("PixelData", "OB" if bits == 8 else "OW", data + b"\0" * (len(data) % 2))


def enhanced(slices: Sequence[FileDataset], *, slopes: Sequence[float] | None = None) -> FileDataset:
    """The slices as one Enhanced MR object, everything in per-frame functional groups (PS3.3 C.7.6.16)."""
    first = slices[0]
    ds = instance(first.pixel_array, study="enhanced", name="enhanced")
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = UID(ENHANCED_MR)
    ds.SeriesDescription = first.SeriesDescription
    ds.FrameOfReferenceUID = first.FrameOfReferenceUID
    put_pixels(ds, np.stack([item.pixel_array for item in slices]))
    ds.NumberOfFrames = len(slices)
    groups = []
    for index, item in enumerate(slices):
        group = Dataset()
        group.PlanePositionSequence = Items([_only(item, "ImagePositionPatient")])
        group.PlaneOrientationSequence = Items([_only(item, "ImageOrientationPatient")])
        group.PixelMeasuresSequence = Items([_only(item, "PixelSpacing", "SliceThickness")])
        if slopes is not None:
            rescale = Dataset()
            rescale.RescaleIntercept, rescale.RescaleSlope, rescale.RescaleType = 0.0, slopes[index], "US"
            group.PixelValueTransformationSequence = Items([rescale])
        groups.append(group)
    ds.PerFrameFunctionalGroupsSequence = Items(groups)
    ds.SharedFunctionalGroupsSequence = Items([Dataset()])
    return ds


def _only(source: Dataset, *keywords: str) -> Dataset:
    item = Dataset()
    for keyword in keywords:
        setattr(item, keyword, source.get(keyword))
    return item


def compressed(ds: FileDataset, transfer_syntax_uid: str) -> FileDataset:
    """The same instance in another transfer syntax that pydicom can encode."""
    ds.compress(transfer_syntax_uid, generate_instance_uid=False)
    return ds


def save(folder: Path, datasets: Iterable[FileDataset]) -> list[Path]:
    """Write Part 10 files `0001.dcm` … and give their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for count, ds in enumerate(datasets, start=1):
        ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
        ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
        path = folder / f"{count:04d}.dcm"
        ds.save_as(path, enforce_file_format=True)
        paths.append(path)
    return paths
