"""Forged DICOM studies: from an authentic study, and from bare planes by one writer for both twins.

A forged study has new UIDs throughout, no digital signature of the authentic one, Synthetic Data (0008,001C) YES on
every instance (PS3.3 C.12.1.1) and a `forgery.json` beside it. UIDs derive from the inputs, so the same call writes the
same bytes. Pixels are written uncompressed; a forger's choice of codec would be a trace of its own.
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.pixels.utils import unpack_bits
from pydicom.uid import UID, ExplicitVRLittleEndian, MRImageStorage

from dicomguard.analyze.channels import head_mask
from dicomguard.core import uid
from dicomguard.errors import Refused
from dicomguard.retrain.tamper import identity
from dicomguard.retrain.tamper.families import ATTACKS, FAMILIES, Family
from dicomguard.retrain.tamper.forged import Canvas, Forged, Kind, Mask, Pixels
from dicomguard.retrain.tamper.region import SMALLEST_AREA_PX
from dicomguard.retrain.tamper.second_hand import SECOND_HAND

RECORD_FILE = "forgery.json"
# A forgery may run through this many slices.
_MOST_SLICES = 9
_ATTEMPTS = 40
_SMALLEST_SERIES_SIDE = 64
_FEWEST_GREY_LEVELS = 32
# What pydicom and its decoders raise on pixels that they cannot read.
_UNDECODABLE = (AttributeError, NotImplementedError, OSError, RuntimeError, ValueError)
_SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.4"


@dataclass(frozen=True, slots=True, kw_only=True)
class ForgedStudy:
    """What was written."""

    folder: Path
    study_instance_uid: str
    files: tuple[Path, ...]
    # SOP Instance UIDs (new ones) of the slices that were forged.
    forged_slices: tuple[str, ...]
    family: str
    variant: str
    kind: Kind
    seed: int
    # forgery.json: the same facts, parameters, and the outline's box and area per slice.
    record: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class _Series:
    """A single-frame series in order along its normal, in stored values."""

    datasets: tuple[FileDataset, ...]
    pixels: Pixels


def family_named(name: str) -> Family:
    """A family of training or of the second hand."""
    known = {**FAMILIES, **SECOND_HAND}
    if name not in known:
        raise Refused(f'No family is called "{name}". Choose among {", ".join(sorted(known))}.')
    return known[name]


def forge_study(
    files: Sequence[Path],
    output: Path,
    *,
    family: str | None,
    kind: Kind | None,
    mask: Path | None,
    donor: Sequence[Path] | None,
    seed: int,
) -> ForgedStudy:
    """Forge the largest scan of a study and write the whole study to `output`.

    `mask` says where the lesion lies: a DICOM segmentation of these instances, or an .npy of Z×H×W in slice order
    along the normal. `donor` are files of another patient's series for families that need foreign tissue.
    """
    if kind == "removed" and mask is None:
        raise Refused("A removal needs to know where the lesion is. Give --mask, a segmentation or a Z×H×W .npy.")
    datasets = [pydicom.dcmread(path) for path in files]
    series = _scan(datasets)
    lesion = np.zeros(series.pixels.shape, np.bool_) if mask is None else _read_mask(mask, series)
    study = series.datasets[0].StudyInstanceUID
    datasets = [dataset for dataset in datasets if dataset.StudyInstanceUID == study]
    if any(_big_endian(dataset) for dataset in datasets):
        raise Refused("The study holds big-endian files, a retired transfer syntax. Convert it with dcmconv +te first.")
    source = None
    if donor is not None:
        given = _scan([pydicom.dcmread(path) for path in donor])
        source = _canvas(given, np.zeros(given.pixels.shape, np.bool_))
    canvas = _canvas(series, lesion)
    rng = np.random.default_rng(seed)
    first, last = _run(canvas, rng)
    forged = _forge(_cut(canvas, first, last), source, rng, family=family, kind=kind)
    return _write_study(datasets, series, forged, first, output, seed=seed)


def _forge(
    canvas: Canvas, donor: Canvas | None, rng: np.random.Generator, *, family: str | None, kind: Kind | None
) -> Forged:
    candidates = [family_named(family)] if family else list(ATTACKS.values())
    if kind is not None:
        candidates = [one for one in candidates if kind in one.kinds]
        if not candidates:
            raise Refused(f'The family "{family}" makes no forgery of the kind "{kind}". Choose another family.')
    for _ in range(_ATTEMPTS):
        one = candidates[int(rng.integers(len(candidates)))]
        forged = one.forge(canvas, donor, rng)
        if forged is None or (kind is not None and forged.kind != kind):
            continue
        if kind == "removed" and canvas.lesion.any() and not (canvas.lesion & ~forged.lesion).any():
            continue
        return forged
    raise Refused(
        f"In {_ATTEMPTS} draws no forgery fitted this study"
        f"{f' with the family {family}' if family else ''}. Give a mask or a donor, or choose another family."
    )


def _scan(datasets: Sequence[FileDataset]) -> _Series:
    """The largest series that is a scan: grey, single-frame, decodable, with more grey levels than a drawn mask."""
    by_series: dict[tuple[str, int, int], list[FileDataset]] = defaultdict(list)
    for dataset in datasets:
        single = int(getattr(dataset, "NumberOfFrames", 1) or 1) == 1
        grey = int(getattr(dataset, "SamplesPerPixel", 0) or 0) == 1
        if "PixelData" in dataset and single and grey and int(getattr(dataset, "BitsAllocated", 0)) in (8, 16):
            by_series[(str(dataset.SeriesInstanceUID), int(dataset.Rows), int(dataset.Columns))].append(dataset)
    usable = [(key, own) for key, own in by_series.items() if min(key[1:]) >= _SMALLEST_SERIES_SIDE]
    for _, own in sorted(usable, key=lambda item: (-len(item[1]), item[0])):
        ordered = tuple(sorted(own, key=_along_normal))
        try:
            pixels = np.stack([dataset.pixel_array for dataset in ordered]).astype(np.float32)
        except _UNDECODABLE:
            continue
        if np.unique(pixels[len(ordered) // 2]).size >= _FEWEST_GREY_LEVELS:
            return _Series(datasets=ordered, pixels=pixels)
    raise Refused(
        f"The study has no decodable grey single-frame series of {_SMALLEST_SERIES_SIDE} px or more. "
        "Give a study that has one."
    )


def _big_endian(dataset: FileDataset) -> bool:
    return not UID(str(dataset.file_meta.TransferSyntaxUID)).is_little_endian


def _along_normal(dataset: FileDataset) -> tuple[float, int]:
    orientation = [float(v) for v in getattr(dataset, "ImageOrientationPatient", None) or ()]
    position = [float(v) for v in getattr(dataset, "ImagePositionPatient", None) or ()]
    number = int(getattr(dataset, "InstanceNumber", 0) or 0)
    if len(orientation) != 6 or len(position) != 3:
        return float(number), number
    return float(np.dot(np.cross(orientation[:3], orientation[3:]), position)), number


def _canvas(series: _Series, lesion: Mask) -> Canvas:
    first = series.datasets[0]
    bits = int(first.BitsStored)
    signed = int(first.PixelRepresentation) == 1
    dark = series.pixels - series.pixels.min() if signed else series.pixels
    return Canvas(
        pixels=series.pixels,
        lesion=lesion,
        head=np.stack([head_mask(plane) for plane in dark]),
        low=float(-(2 ** (bits - 1)) if signed else 0),
        high=float(2 ** (bits - 1) - 1 if signed else 2**bits - 1),
    )


def _run(canvas: Canvas, rng: np.random.Generator) -> tuple[int, int]:
    """First and last slice (inclusive) to work on: around the lesion, else where the head is large."""
    count = canvas.pixels.shape[0]
    reach = int(rng.integers(1, (_MOST_SLICES + 1) // 2))
    areas = canvas.lesion.sum(axis=(1, 2))
    if areas.max() >= SMALLEST_AREA_PX:
        marked = np.flatnonzero(areas)
        return max(0, int(marked[0]) - 1), min(count - 1, int(marked[-1]) + 1)
    heads = canvas.head.sum(axis=(1, 2))
    large = np.flatnonzero(heads >= 0.7 * heads.max())
    centre = int(large[rng.integers(large.size)])
    return max(0, centre - reach), min(count - 1, centre + reach)


def _cut(canvas: Canvas, first: int, last: int) -> Canvas:
    span = slice(first, last + 1)
    return Canvas(
        pixels=canvas.pixels[span], lesion=canvas.lesion[span], head=canvas.head[span], low=canvas.low, high=canvas.high
    )


def _read_mask(path: Path, series: _Series) -> Mask:
    if path.suffix == ".npy":
        mask = np.load(path, allow_pickle=False) > 0
        if mask.shape != series.pixels.shape:
            raise Refused(
                f"The mask is {mask.shape}, the series {series.pixels.shape}. Give a mask of the series' size."
            )
        return np.asarray(mask, np.bool_)
    segmentation = pydicom.dcmread(path)
    if str(segmentation.SOPClassUID) != _SEGMENTATION or int(getattr(segmentation, "BitsAllocated", 0)) != 1:
        raise Refused(f"{path.name} is no binary DICOM segmentation. Give a binary SEG or a Z×H×W .npy.")
    frames = np.asarray(unpack_bits(segmentation.PixelData)).reshape(-1)
    size = int(segmentation.Rows) * int(segmentation.Columns)
    place = {str(dataset.SOPInstanceUID): index for index, dataset in enumerate(series.datasets)}
    mask = np.zeros(series.pixels.shape, np.bool_)
    if mask.shape[1:] != (int(segmentation.Rows), int(segmentation.Columns)):
        raise Refused(f"{path.name} has another matrix than the series. Give a segmentation of this series.")
    for index, group in enumerate(segmentation.PerFrameFunctionalGroupsSequence):
        for derivation in group.DerivationImageSequence:
            for item in derivation.SourceImageSequence:
                at = place.get(str(item.ReferencedSOPInstanceUID))
                if at is not None:
                    mask[at] |= frames[index * size : (index + 1) * size].reshape(mask.shape[1:]) > 0
    if not mask.any():
        raise Refused(f"{path.name} marks nothing on these slices. Give the segmentation of this series.")
    return mask


def _write_study(
    datasets: Sequence[FileDataset], series: _Series, forged: Forged, first: int, output: Path, *, seed: int
) -> ForgedStudy:
    output.mkdir(parents=True, exist_ok=True)
    # Another mask or donor gives other pixels, and those other UIDs.
    pixels = hashlib.sha256(np.ascontiguousarray(forged.pixels).tobytes()).hexdigest()
    forgery = (str(series.datasets[0].SOPInstanceUID), forged.family, seed, pixels)
    place = {str(dataset.SOPInstanceUID): index for index, dataset in enumerate(series.datasets)}
    files: list[Path] = []
    changed: list[str] = []
    slices: list[dict[str, object]] = []
    for number, dataset in enumerate(datasets):
        index = place.get(str(dataset.SOPInstanceUID), -1) - first
        identity.replace(dataset, *forgery)
        dataset.SyntheticData = "YES"
        if 0 <= index < forged.pixels.shape[0]:
            # The whole run goes through one writer; outside the forgery it carries the old values.
            _put_pixels(dataset, forged.pixels[index])
            if forged.mask[index].any():
                changed.append(str(dataset.SOPInstanceUID))
                slices.append({"sop_instance_uid": str(dataset.SOPInstanceUID), **_extent(forged.mask[index])})
        files.append(output / f"{number:05d}.dcm")
        _save(dataset, files[-1])
    study_uid = str(series.datasets[0].StudyInstanceUID)
    record = output / RECORD_FILE
    facts = {
        "study_instance_uid": study_uid,
        "family": forged.family,
        "variant": forged.variant,
        "kind": forged.kind,
        "seed": seed,
        "parameters": dict(forged.parameters),
        "slices": slices,
    }
    record.write_text(json.dumps(facts, indent=1, sort_keys=True) + "\n")
    return ForgedStudy(
        folder=output,
        study_instance_uid=study_uid,
        files=tuple(files),
        forged_slices=tuple(changed),
        family=forged.family,
        variant=forged.variant,
        kind=forged.kind,
        seed=seed,
        record=record,
    )


def _extent(mask: Mask) -> dict[str, object]:
    rows, cols = np.nonzero(mask)
    box = [int(rows.min()), int(cols.min()), int(rows.max()) + 1, int(cols.max()) + 1]
    return {"area_px": int(mask.sum()), "box_px": box}


def _put_pixels(dataset: FileDataset, plane: Pixels) -> None:
    """Stored values back as native little-endian Pixel Data."""
    signed = int(dataset.PixelRepresentation) == 1
    size = int(dataset.BitsAllocated)
    kind = np.dtype(f"<{'i' if signed else 'u'}{size // 8}")
    dataset.PixelData = np.rint(plane).astype(kind).tobytes()
    if len(dataset.PixelData) % 2:
        dataset.PixelData += b"\x00"
    dataset["PixelData"].VR = "OB" if size == 8 else "OW"
    dataset["PixelData"].is_undefined_length = False
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian


def _save(dataset: FileDataset, path: Path) -> None:
    meta = dataset.file_meta
    if UID(str(meta.TransferSyntaxUID)).is_compressed is False:
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    meta.ImplementationClassUID = UID(uid.IMPLEMENTATION_CLASS_UID)
    meta.ImplementationVersionName = uid.IMPLEMENTATION_VERSION_NAME
    dataset.save_as(path, enforce_file_format=True, overwrite=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Acquisition:
    """What a bare run of planes lacks to be a DICOM series."""

    # Derives Patient ID and all UIDs; names nobody.
    key: str
    # flair, t1, t1c, t2.
    sequence: str
    bits: int
    # Between rows, between columns.
    spacing_mm: tuple[float, float]
    # Position of each plane along the normal.
    positions_mm: tuple[float, ...]


_DESCRIPTIONS = {"flair": "AX FLAIR", "t1": "AX T1", "t1c": "AX T1 +C", "t2": "AX T2"}


def write_planes(
    pixels: NDArray[np.float32], acquisition: Acquisition, folder: Path, *, loose: bool = False
) -> tuple[tuple[Path, str], ...]:
    """Write Z×H×W stored values as one MR series (each its own when `loose`); gives path and SOP Instance UID in order.

    Both twins come through here, so nothing but pixels tells them apart: UIDs derive from `acquisition.key` alone, and
    each carries Synthetic Data YES, since an assembled study is made, forged or not.
    """
    folder.mkdir(parents=True, exist_ok=True)
    study_uid = uid.derive("planes-study", acquisition.key)
    written = []
    for z, plane in enumerate(pixels):
        series_uid = uid.derive("planes-series", acquisition.key, z if loose else 0)
        sop_uid = uid.derive("planes-instance", acquisition.key, z)
        dataset = _plane_dataset(acquisition, z, (plane.shape[0], plane.shape[1]))
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.SOPInstanceUID = study_uid, series_uid, sop_uid
        dataset.FrameOfReferenceUID = uid.derive("planes-frame", acquisition.key, z if loose else 0)
        dataset.SeriesNumber = z + 1 if loose else 1
        _put_pixels(dataset, plane)
        path = folder / f"{z:05d}.dcm"
        _save(dataset, path)
        written.append((path, sop_uid))
    return tuple(written)


def _plane_dataset(acquisition: Acquisition, z: int, size: tuple[int, int]) -> FileDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = MRImageStorage
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.SOPClassUID = MRImageStorage
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "M", "SE"]
    dataset.StudyDate, dataset.StudyTime = "20000101", "120000"
    dataset.Modality = "MR"
    dataset.Manufacturer = ""
    dataset.PatientName, dataset.PatientID = "", uid.derive("planes-patient", acquisition.key)[-12:]
    dataset.PatientBirthDate = dataset.PatientSex = dataset.AccessionNumber = dataset.StudyID = ""
    dataset.ReferringPhysicianName = dataset.PositionReferenceIndicator = ""
    dataset.BodyPartExamined = "HEAD"
    dataset.SeriesDescription = _DESCRIPTIONS.get(acquisition.sequence, acquisition.sequence.upper())
    dataset.ScanningSequence, dataset.SequenceVariant = "SE", "NONE"
    dataset.ScanOptions, dataset.MRAcquisitionType = "", "2D"
    dataset.EchoTime = dataset.RepetitionTime = dataset.EchoTrainLength = None
    dataset.InstanceNumber = z + 1
    position = acquisition.positions_mm[z]
    dataset.ImagePositionPatient = [
        f"{-acquisition.spacing_mm[1] * (size[1] - 1) / 2:.4f}",
        f"{-acquisition.spacing_mm[0] * (size[0] - 1) / 2:.4f}",
        f"{position:.4f}",
    ]
    dataset.ImageOrientationPatient = ["1", "0", "0", "0", "1", "0"]
    dataset.PixelSpacing = [f"{value:.5f}" for value in acquisition.spacing_mm]
    distances = np.diff(sorted(acquisition.positions_mm))
    dataset.SliceThickness = f"{float(distances.min()) if distances.size else 5.0:.3f}"
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.Rows, dataset.Columns = size
    dataset.BitsAllocated = 8 if acquisition.bits <= 8 else 16
    dataset.BitsStored, dataset.HighBit = acquisition.bits, acquisition.bits - 1
    dataset.PixelRepresentation = 0
    dataset.add_new(0x0008001C, "CS", "YES")
    return dataset
