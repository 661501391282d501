"""Where an object comes from: patient, study and request of the source, equipment, times.

Identity stays exactly what an archive matches on. Texts are decoded from the source's character set and written as
UTF-8; all other values are copied byte for byte, malformed ones too, without a library looking at them. Only
attributes of the allow-lists pass: an empty optional one would be an error in ours, a foreign one a leak.

highdicom is shown a nameless patient (`source`): it refuses values that are common though malformed, copies what does
not belong, and stamps the clock. `complete` then writes who, when and by whom over whatever it wrote.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, tzinfo
from typing import Any

from highdicom import ContributingEquipment
from pydicom import config as pydicom_config
from pydicom.charset import convert_encodings, default_encoding
from pydicom.datadict import dictionary_has_tag, dictionary_VR, tag_for_keyword
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as DicomSequence
from pydicom.tag import BaseTag, Tag
from pydicom.valuerep import VR, PersonName

from dicomguard import headers
from dicomguard.core import dicomtime
from dicomguard.core.verdict import Verdict
from dicomguard.errors import Refused
from dicomguard.sr import codes

PRODUCT = "dicomguard"

# Type 2 of the Patient and General Study modules (PS3.3 C.7.1.1, C.7.2.1): present even when empty or absent.
_TYPE_2 = (
    "StudyDate",
    "StudyTime",
    "AccessionNumber",
    "ReferringPhysicianName",
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyID",
)
# Type 1C and 3 of Patient, General Study and Patient Study: only with a value.
_OPTIONAL = (
    "IssuerOfPatientID",
    "IssuerOfPatientIDQualifiersSequence",
    "OtherPatientIDsSequence",
    "OtherPatientNames",
    "PatientBirthTime",
    "PatientIdentityRemoved",
    "DeidentificationMethod",
    "DeidentificationMethodCodeSequence",
    "IssuerOfAccessionNumberSequence",
    "StudyDescription",
    "ConsultingPhysicianName",
    "PhysiciansOfRecord",
    "ProcedureCodeSequence",
    "PatientAge",
    "PatientSize",
    "PatientWeight",
    "AdmissionID",
    "IssuerOfAdmissionIDSequence",
)
# Clinical Trial Subject and Study modules (C.7.1.3, C.7.2.3): legal only as a whole, with sponsor and protocol.
_TRIAL_TYPE_1 = ("ClinicalTrialSponsorName", "ClinicalTrialProtocolID")
_TRIAL_TYPE_2 = ("ClinicalTrialProtocolName", "ClinicalTrialSiteID", "ClinicalTrialSiteName")
_TRIAL_OPTIONAL = (
    "ClinicalTrialSubjectID",
    "ClinicalTrialSubjectReadingID",
    "ClinicalTrialTimePointID",
    "ClinicalTrialTimePointDescription",
)
_ACQUISITION = (
    "Manufacturer",
    "InstitutionName",
    "StationName",
    "ManufacturerModelName",
    "DeviceSerialNumber",
    "SoftwareVersions",
)
# Request Attributes → Referenced Request (C.17.2); all type 2 there.
_REQUEST = (
    "AccessionNumber",
    "PlacerOrderNumberImagingServiceRequest",
    "FillerOrderNumberImagingServiceRequest",
    "RequestedProcedureID",
    "RequestedProcedureDescription",
    "RequestedProcedureCodeSequence",
)
# Defined terms of Specific Character Set (C.12.1.1.2), with the slips of writers that the library corrects.
_CHARACTER_SET = re.compile(r"(ISO[ _-]?(IR|2022)[ _-].*|GBK|GB18030|UTF-?8)", re.IGNORECASE)
# What dictionaries and writers know (PS3.5 6.2).
_VRS = frozenset(VR)
_TEXT_VRS = ("LO", "LT", "PN", "SH", "ST", "UC", "UT")
_UTF_8 = ["utf8"]


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeIdentity:
    """The node as observer and equipment."""

    # core.uid.device(name).
    device_uid: str
    name: str
    # Of dicomguard.
    version: str
    # Zone of our times where the source names none.
    timezone: tzinfo

    def __post_init__(self) -> None:
        # Device Serial Number (PS3.5 6.2, LO). Known when the node starts rather than at its first study.
        if len(self.name) > 64 or "\\" in self.name:
            raise Refused(
                f"The name of the node, {self.name[:80]!r}, is longer than 64 characters or has a backslash. "
                "Give it another."
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """What all objects of one revision share."""

    node: NodeIdentity
    model_id: str
    # End of the analysis, in the offset that the objects are written in.
    moment: datetime
    # Timezone Offset From UTC of the source, "" when it names none.
    offset: str
    synthetic: bool
    # Patient and study attributes, ready to be copied into an object.
    identity: Dataset
    acquisition: Dataset
    requests: tuple[Dataset, ...]
    # Procedure Code Sequence of the source, () when it has none.
    procedures: tuple[Dataset, ...]


def of(verdict: Verdict, header: Dataset, headers: Mapping[str, Dataset], node: NodeIdentity) -> Provenance:
    """Provenance from the named source instance `header`; `headers` are all sources (for Synthetic Data)."""
    offset = value_text(header, "TimezoneOffsetFromUTC")
    zone = dicomtime.zone(offset)
    identity = Dataset()
    _copy(header, identity, _TYPE_2, empty_too=True)
    _copy(header, identity, _OPTIONAL)
    identity.StudyInstanceUID = verdict.study.study_instance_uid
    if all(_has_value(header, keyword) for keyword in _TRIAL_TYPE_1):
        _copy(header, identity, _TRIAL_TYPE_1)
        _copy(header, identity, _TRIAL_TYPE_2, empty_too=True)
        _copy(header, identity, _TRIAL_OPTIONAL)
    acquisition = Dataset()
    _copy(header, acquisition, _ACQUISITION)
    return Provenance(
        node=node,
        model_id=verdict.model.id,
        moment=datetime.fromisoformat(verdict.created).astimezone(zone or node.timezone),
        offset=offset if zone is not None else "",
        synthetic=any(value_text(item, "SyntheticData") == "YES" for item in headers.values()),
        identity=identity,
        acquisition=acquisition,
        requests=tuple(_requests(header, verdict.study.study_instance_uid)),
        procedures=tuple(identity.get("ProcedureCodeSequence") or ()),
    )


def source(provenance: Provenance, *, series_instance_uid: str, sop_instance_uid: str, sop_class_uid: str) -> Dataset:
    """An instance of the study as highdicom may see it: what it must have is there, and names nobody."""
    ds = Dataset()
    for keyword in _TYPE_2:
        setattr(ds, keyword, "")
    ds.StudyInstanceUID = provenance.identity.StudyInstanceUID
    ds.SeriesInstanceUID = series_instance_uid
    ds.SOPInstanceUID = sop_instance_uid
    ds.SOPClassUID = sop_class_uid
    return ds


def arguments(provenance: Provenance) -> dict[str, Any]:
    """What the constructors of all objects are given alike."""
    return {
        "manufacturer": PRODUCT,
        "manufacturer_model_name": PRODUCT,
        "device_serial_number": provenance.node.name,
        "software_versions": _software(provenance),
        "content_qualification": "RESEARCH",
        "coding_schemes": [codes.coding_scheme_identification()],
        "specific_character_set": "ISO_IR 192",
    }


def complete(ds: Dataset, provenance: Provenance) -> None:
    """Write patient, study, times and equipment into an object that highdicom made."""
    _merge(provenance.identity, ds)
    node, moment = provenance.node, provenance.moment
    ds.InstanceCreationDate = ds.ContentDate = dicomtime.da(moment)
    ds.InstanceCreationTime = ds.ContentTime = dicomtime.tm(moment)
    ds.InstanceCreatorUID = node.device_uid
    if provenance.offset:
        ds.TimezoneOffsetFromUTC = provenance.offset
    if provenance.synthetic:
        ds.SyntheticData = "YES"
    ds.ContributingEquipmentSequence = _contributing(provenance, ds.ContributingEquipmentSequence)


def value_text(header: Dataset, keyword: str) -> str:
    """A plain text attribute that rules need, "" when absent; never the identity, which is copied as bytes."""
    return str(header.get(keyword) or "").strip() if _has_value(header, keyword) else ""


def _software(provenance: Provenance) -> list[str]:
    return [f"{PRODUCT} {provenance.node.version}", f"model {provenance.model_id}"]


def _contributing(provenance: Provenance, made: Iterable[Dataset]) -> list[Dataset]:
    """The scanner; highdicom, as it names itself in `made`; ourselves."""
    items = []
    # Manufacturer is type 1 in this sequence.
    if "Manufacturer" in provenance.acquisition:
        scanner = Dataset()
        scanner.PurposeOfReferenceCodeSequence = [codes.ACQUISITION_EQUIPMENT.concept()]
        _merge(provenance.acquisition, scanner)
        items.append(scanner)
    processing = ContributingEquipment(
        PRODUCT,
        codes.PROCESSING_EQUIPMENT.concept(),
        manufacturer_model_name=PRODUCT,
        device_serial_number=provenance.node.name,
        software_versions=_software(provenance),
        contribution_description="Analysis for signs of forgery. Research use only.",
    )
    for item in (*made, processing):
        item.ContributionDateTime = dicomtime.dt(provenance.moment)
        items.append(item)
    return items


def _requests(header: Dataset, study_instance_uid: str) -> Iterable[Dataset]:
    if not _has_value(header, "RequestAttributesSequence"):
        return
    encodings = _encodings(header, _UTF_8)
    for source in header.RequestAttributesSequence:
        item = Dataset()
        item.StudyInstanceUID = study_instance_uid
        item.ReferencedStudySequence = []
        _copy(source, item, _REQUEST, empty_too=True, encodings=encodings)
        if not item.AccessionNumber:
            _copy(header, item, ("AccessionNumber",), empty_too=True)
        yield item


# ---- copying ------------------------------------------------------------------------------------------------------


def _copy(
    source: Dataset,
    target: Dataset,
    keywords: Iterable[str],
    *,
    empty_too: bool = False,
    encodings: list[str] | None = None,
) -> None:
    encodings = encodings or _encodings(source, ["iso8859"])
    for keyword in keywords:
        tag = Tag(tag_for_keyword(keyword) or 0)
        if _has_value(source, keyword):
            target[tag] = _copied(source, tag, encodings)
        elif empty_too:
            vr = dictionary_VR(tag)
            target[tag] = DataElement(tag, vr, DicomSequence() if vr == "SQ" else "")


def _merge(source: Dataset, target: Dataset) -> None:
    # By tag: iterating a Dataset converts its elements, and a malformed one would raise or change.
    for tag in source.keys():  # noqa: SIM118
        target[tag] = source.get_item(tag)


def _has_value(source: Dataset, keyword: str) -> bool:
    """Not for a sequence in the place of a text, nor the reverse: printing a damaged one takes gigabytes."""
    if keyword not in source:
        return False
    element: Any = source.get_item(tag_for_keyword(keyword) or 0)
    value, known = element.value, dictionary_VR(element.tag)
    if (element.VR == "SQ" or isinstance(value, DicomSequence)) and known != "SQ":
        return False
    if known == "SQ":
        return element.VR in ("SQ", "UN", None) and bool(_items(source, element.tag))
    if isinstance(value, bytes):
        return bool(value.strip(b" \0"))
    return bool(value) or value == 0


def _items(source: Dataset, tag: BaseTag) -> list[Dataset]:
    """Of a sequence; none when its bytes are no items."""
    try:
        value = source[tag].value
    except Exception:  # noqa: BLE001 -- the library parses a stranger's bytes here and raises what it likes
        return []
    return list(value) if isinstance(value, DicomSequence) else []


def _encodings(source: Dataset, default: list[str]) -> list[str]:
    named = source.get("SpecificCharacterSet") if _has_value(source, "SpecificCharacterSet") else None
    if not named:
        return default
    names = [named] if isinstance(named, str) else list(named)
    # The library also takes the names of Python's codecs, some of which decode nothing.
    if any(name and not _CHARACTER_SET.fullmatch(name) for name in names):
        return default
    return convert_encodings(named)


def _copied(source: Dataset, tag: BaseTag, encodings: list[str]) -> DataElement | RawDataElement:
    # Raw while nobody has looked at it, though the annotation of pydicom says otherwise.
    element: Any = source.get_item(tag)
    vr = _vr(tag, element.VR)
    if vr == "SQ":
        return DataElement(tag, "SQ", DicomSequence(_copied_item(item, encodings) for item in _items(source, tag)))
    if isinstance(element, DataElement):
        return _decoded(tag, vr, element)
    value = element.value or b""
    if vr in _TEXT_VRS:
        text = _text(value, vr, encodings)
        # A replacement sign means that the bytes are not what the character set says: they stay as they came.
        if "\ufffd" not in text:
            return _text_element(tag, vr, text)
    return _raw(tag, vr, value)


def _vr(tag: BaseTag, named: str | None) -> str:
    """The element's own VR, or the dictionary's where it has none that is known."""
    if named is not None and named != "UN" and named in _VRS:
        return str(named)
    return dictionary_VR(tag) if dictionary_has_tag(tag) else "UN"


def _copied_item(source: Dataset, encodings: list[str]) -> Dataset:
    item = Dataset()
    # As for the whole object: raw elements are written as they are.
    item.set_original_encoding(False, True, default_encoding)
    own = _encodings(source, encodings)
    for tag in source.keys():  # noqa: SIM118
        if not tag.is_private and tag != 0x00080005:
            item[tag] = _copied(source, tag, own)
    return item


def _decoded(tag: BaseTag, vr: str, element: DataElement) -> DataElement:
    """An element that was already made into a value by whoever held the header."""
    if vr not in _TEXT_VRS or element.value is None:
        return DataElement(tag, vr, element.value, validation_mode=pydicom_config.IGNORE)
    values = element.value if element.VM > 1 else [element.value]
    return _text_element(tag, vr, "\\".join(str(value) for value in values))


def _text(value: bytes, vr: str, encodings: list[str]) -> str:
    return headers.decoded_name(value, encodings) if vr == "PN" else headers.decoded_text(value, encodings)


def _text_element(tag: BaseTag, vr: str, text: str) -> DataElement:
    if vr != "PN":
        return DataElement(tag, vr, text, validation_mode=pydicom_config.IGNORE)
    # Made from bytes: a name made from text is encoded in whatever set it is first asked for.
    names = [PersonName(name.encode("utf-8"), _UTF_8) for name in text.split("\\")]
    return DataElement(tag, vr, names if len(names) > 1 else names[0], validation_mode=pydicom_config.IGNORE)


def _raw(tag: BaseTag, vr: str, value: bytes) -> RawDataElement:
    padded = value + (b"\0" if vr == "UI" else b" ") * (len(value) % 2)
    return RawDataElement(tag, vr, len(padded), padded, 0, False, True)
