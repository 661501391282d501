"""What the door reads of a dataset: to which study it belongs, and hashes that say whether its header changed.

Names and patient ids do not leave this module: they are hashed with the study's key.
"""

import hashlib
import re
from dataclasses import dataclass, replace
from typing import Any, BinaryIO

import pydicom
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import RawDataElement

from dicomguard import headers, part10
from dicomguard.errors import Refused
from dicomguard.store import head

# Attributes that reports copy, and that grouping, routing and geometry read: a change in one is a new revision.
_REPORTED = (
    "PatientID",
    "PatientName",
    "PatientBirthDate",
    "PatientSex",
    "AccessionNumber",
    "StudyID",
    "StudyDate",
    "StudyTime",
    "ReferringPhysicianName",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "FrameOfReferenceUID",
    "Modality",
    "SeriesNumber",
    "InstanceNumber",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "ImageType",
)
_READ = ("SOPClassUID", "SOPInstanceUID", "InstanceCreatorUID", *_REPORTED)
_TAG_OF = {keyword: int(tag_for_keyword(keyword) or 0) for keyword in _READ}
_NEEDED = {_TAG_OF[f"{level}InstanceUID"] for level in ("Study", "Series", "SOP")} | {_TAG_OF["SOPClassUID"]}
_TAGS = {tag: dictionary_VR(tag).encode() for tag in _TAG_OF.values()}
# PS3.5 9.1, without the rule on leading zeros, which real devices break.
_UID = re.compile(r"[0-9]+(\.[0-9]+)*\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Of one dataset."""

    sop_uid: str
    sop_class: str
    study_uid: str
    series_uid: str
    modality: str
    creator_uid: str
    # Of the attributes that reports use, and of Patient ID; salted before they are kept.
    identity_sha256: str
    patient_sha256: str

    @classmethod
    def unknown(cls, sop_instance_uid: str) -> "Identity":
        """Of bytes that cannot be read."""
        return cls(
            sop_uid=sop_instance_uid,
            sop_class="",
            study_uid="",
            series_uid="",
            modality="",
            creator_uid="",
            identity_sha256="",
            patient_sha256="",
        )

    def check(self, *, sop_class_uid: str, sop_instance_uid: str) -> None:
        """Raise `Refused` for a dataset that contradicts the request it came with, or lacks a UID."""
        for name, value in (
            ("SOP Instance UID", self.sop_uid),
            ("SOP Class UID", self.sop_class),
            ("Study Instance UID", self.study_uid),
            ("Series Instance UID", self.series_uid),
        ):
            if not value or len(value) > 64 or not _UID.match(value):
                raise Refused(f"The dataset has no valid {name}. Export the instance again.")
        if self.sop_uid != sop_instance_uid or self.sop_class != sop_class_uid:
            raise Refused(
                "The dataset names another SOP instance or class than the request. Export the instance again."
            )

    def salted(self, study_key: str) -> "Identity":
        """With hashes that mean something only within one study."""
        return replace(
            self,
            identity_sha256=_sha256(study_key, self.identity_sha256),
            patient_sha256=_sha256(study_key, self.patient_sha256),
        )


def read_identity(file: BinaryIO) -> Identity:
    """Of an open Part 10 file, wherever it stands; raises `Refused` for bytes that are no dataset."""
    file.seek(0)
    found = head.scan(file, _TAGS)
    if found is None or not found.keys() >= _NEEDED:
        file.seek(0)
        texts = _parsed(file)
    else:
        texts = {keyword: _bare(found.get(tag, b"")) for keyword, tag in _TAG_OF.items()}
    return Identity(
        sop_uid=texts["SOPInstanceUID"],
        sop_class=texts["SOPClassUID"],
        study_uid=texts["StudyInstanceUID"],
        series_uid=texts["SeriesInstanceUID"],
        modality=texts["Modality"][:16],
        creator_uid=texts["InstanceCreatorUID"],
        identity_sha256=_sha256(*(texts[keyword] for keyword in _REPORTED)),
        patient_sha256=_sha256(texts["PatientID"]),
    )


def _parsed(file: BinaryIO) -> dict[str, str]:
    """The same texts as of the scan where the values are plain, whatever the rest of the dataset looks like."""
    dataset = part10.read_dataset_head_of(file, tags=_READ)
    try:
        return {keyword: _text(dataset, keyword, tag) for keyword, tag in _TAG_OF.items()}
    except part10.PARSE_ERRORS as error:
        raise Refused(f"A value of the dataset cannot be read ({type(error).__name__}). Export it again.") from error


def _text(dataset: pydicom.Dataset, keyword: str, tag: int) -> str:
    if tag not in dataset:
        return ""
    raw: Any = dataset.get_item(tag)
    if isinstance(raw, RawDataElement):
        content: bytes = raw.value or b""
        if head.plain(content):
            return _bare(content)
    value = dataset.get(keyword)
    return "" if value is None else headers.printed(value).strip(" \0")


def _bare(value: bytes) -> str:
    return value.decode("ascii").strip(" \0")


def _sha256(*texts: str) -> str:
    return hashlib.sha256("\0".join(texts).encode("utf-8", "surrogateescape")).hexdigest()
