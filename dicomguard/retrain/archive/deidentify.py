"""What of a DICOM header may enter the archive: a list of what stays; everything else, private tags too, goes.

Stricter than PS3.15 annex E profiles, which list what goes. UIDs and the patient become keyed hashes, so that one
person and one series stay together inside this archive and cannot be found outside it. Pixels are not touched: faces
can be rebuilt from a whole head (said in `archive add --help`), and burned-in text is refused as far as it is declared.
"""

import copy
import hashlib
import hmac
import io
import secrets
from dataclasses import dataclass
from pathlib import Path

import pydicom
from pydicom.dataelem import DataElement
from pydicom.dataset import FileMetaDataset

from dicomguard.errors import Refused

KEY_FILE = "archive.key"
METHOD = "dicomguard archive: list of what stays"

# Image, plane and acquisition (PS3.3 C.7.6.1 to 3, C.8.2, C.8.3, C.8.13): numbers and coded words, no free text.
_KEPT = frozenset(
    (
        "SOPClassUID SOPInstanceUID StudyInstanceUID SeriesInstanceUID FrameOfReferenceUID Modality ImageType "
        "InstanceNumber SeriesNumber AcquisitionNumber Manufacturer ManufacturerModelName SoftwareVersions "
        "BodyPartExamined PatientPosition SamplesPerPixel PhotometricInterpretation PlanarConfiguration Rows Columns "
        "BitsAllocated BitsStored HighBit PixelRepresentation PixelSpacing SliceThickness SpacingBetweenSlices "
        "ImageOrientationPatient ImagePositionPatient SliceLocation RescaleSlope RescaleIntercept RescaleType "
        "WindowCenter WindowWidth VOILUTFunction PixelPaddingValue PixelPaddingRangeLimit SmallestImagePixelValue "
        "LargestImagePixelValue LossyImageCompression LossyImageCompressionRatio LossyImageCompressionMethod "
        "RepetitionTime EchoTime InversionTime FlipAngle EchoTrainLength EchoNumbers MagneticFieldStrength "
        "ScanningSequence SequenceVariant ScanOptions MRAcquisitionType NumberOfAverages ImagingFrequency "
        "PixelBandwidth AcquisitionMatrix InPlanePhaseEncodingDirection PercentSampling PercentPhaseFieldOfView "
        "KVP XRayTubeCurrent ExposureTime GantryDetectorTilt TableHeight ReconstructionDiameter PixelData"
    ).split()
)
_UIDS = frozenset({"SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"})
# CT and MR image storage: what is scanned, not what is drawn or typed.
_CLASSES = {"1.2.840.10008.5.1.4.1.1.2": "CT", "1.2.840.10008.5.1.4.1.1.4": "MR"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Cleaned:
    """An instance without its person."""

    # The Part 10 file.
    content: bytes
    sop_instance_uid: str
    # Key of the person in this archive.
    patient: str
    # Attributes that were taken out, and how many of them were private.
    removed: int
    private: int


def read_key(root: Path) -> bytes:
    """The archive's secret, made at its first use; whoever has it can link keys to Patient IDs."""
    path = root / KEY_FILE
    root.mkdir(parents=True, exist_ok=True)
    if not path.is_file():
        path.touch(mode=0o600)
        path.write_bytes(secrets.token_bytes(32))
    key = path.read_bytes()
    if len(key) != 32:
        raise Refused(
            f"{path} has {len(key)} bytes, not 32. Restore it from a backup; without it persons get new keys."
        )
    return key


def clean(dataset: pydicom.Dataset, *, key: bytes, sequence: str) -> Cleaned:
    """A copy with nothing but the list; raise `Refused` for what must not enter.

    `sequence` (flair, t1 …) takes the place of the Series Description, which people write names into.
    """
    _refuse(dataset)
    kept = pydicom.Dataset()
    removed = private = 0
    for element in dataset:
        if element.keyword in _KEPT and element.VR != "SQ":
            kept.add(copy.copy(element))
        else:
            removed += 1
            private += element.tag.is_private
    for name in _UIDS & {element.keyword for element in kept}:
        kept[name] = DataElement(name, "UI", _uid(key, str(kept[name].value)))
    patient = _patient(key, dataset)
    if "ContrastBolusAgent" in dataset and str(dataset.ContrastBolusAgent).strip():
        # Whether there was any decides the sequence; which one is free text.
        kept.ContrastBolusAgent = "CONTRAST"
    kept.PatientName = patient
    kept.PatientID = patient
    for name in ("PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "AccessionNumber", "StudyID"):
        setattr(kept, name, "")
    kept.ReferringPhysicianName = ""
    kept.SeriesDescription = sequence
    kept.PatientIdentityRemoved = "YES"
    kept.DeidentificationMethod = METHOD
    kept.LongitudinalTemporalInformationModified = "REMOVED"
    return Cleaned(
        content=_part10(kept, str(dataset.file_meta.TransferSyntaxUID)),
        sop_instance_uid=str(kept.SOPInstanceUID),
        patient=patient,
        removed=removed,
        private=private,
    )


def _refuse(dataset: pydicom.Dataset) -> None:
    sop_class = str(dataset.get("SOPClassUID", ""))
    if sop_class not in _CLASSES:
        raise Refused(
            f"An instance of SOP class {sop_class or 'unknown'} is no CT or MR slice. Give single-frame CT or MR."
        )
    if str(dataset.get("BurnedInAnnotation", "")).upper() == "YES":
        raise Refused(
            "The instance says that text is burned into its pixels. Leave it out: the text may name a person."
        )
    if str(dataset.get("SyntheticData", "")).upper() == "YES":
        raise Refused(
            "The instance is marked Synthetic Data. The archive holds authentic studies; forgeries are made later."
        )
    if str(dataset.get("RecognizableVisualFeatures", "")).upper() == "YES":
        raise Refused("The instance says that a face can be recognised in it. Deface it first.")


def _patient(key: bytes, dataset: pydicom.Dataset) -> str:
    patient_id = str(dataset.get("PatientID", "")).strip()
    if not patient_id:
        raise Refused(
            "The instance has no Patient ID, so its person cannot be kept apart. Set Patient ID and try again."
        )
    issuer = str(dataset.get("IssuerOfPatientID", "")).strip()
    return hmac.new(key, f"patient\0{issuer}\0{patient_id}".encode(), hashlib.sha256).hexdigest()[:16]


def _uid(key: bytes, uid: str) -> str:
    """Keyed UID below 2.25 (PS3.5 B.2), the same for the same UID in this archive."""
    digest = hmac.new(key, f"uid\0{uid}".encode(), hashlib.sha256).digest()
    return f"2.25.{int.from_bytes(digest[:16], 'big')}"


def _part10(dataset: pydicom.Dataset, transfer_syntax_uid: str) -> bytes:
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.UID(transfer_syntax_uid)
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    out = io.BytesIO()
    pydicom.dcmwrite(out, dataset, enforce_file_format=True)
    return out.getvalue()
