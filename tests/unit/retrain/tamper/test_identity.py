"""Which UIDs of a dataset become new, which stay, and what is taken off."""

import pytest
from pydicom import Dataset
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag
from pydicom.uid import UID, MRImageStorage

from dicomguard.retrain.tamper import identity

FORGERY = ("1.2.3", "painted", 1)
_TALAIRACH = "1.2.840.10008.1.4.1.1"


def raw(tag: int, vr: str | None, value: bytes) -> RawDataElement:
    return RawDataElement(Tag(tag), vr, len(value), value, 0, vr is None, True)


def replaced(**attributes: object) -> Dataset:
    dataset = Dataset()
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    identity.replace(dataset, *FORGERY)
    return dataset


@pytest.mark.parametrize(
    "keyword",
    "SOPInstanceUID StudyInstanceUID SeriesInstanceUID FrameOfReferenceUID ReferencedSOPInstanceUID TrackingUID "
    "ReferencedFrameOfReferenceUID IrradiationEventUID ConcatenationUID DimensionOrganizationUID UID DeviceUID "
    "SynchronizationFrameOfReferenceUID InstanceCreatorUID".split(),
)
def test_what_names_one_thing_becomes_new(keyword: str) -> None:
    """The same whatever the attribute; also below the root of DICOM, where no instance belongs."""
    for original in ("1.2.826.0.1.7", "1.2.840.10008.99.7"):
        new = replaced(**{keyword: original})[keyword].value
        assert new == replaced(SOPInstanceUID=original).SOPInstanceUID != original
        assert UID(new).is_valid


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("SOPClassUID", MRImageStorage),
        ("SOPClassUID", "1.3.12.2.1107.5.9.1"),
        ("ReferencedSOPClassUID", "1.3.12.2.1107.5.9.1"),
        ("CodingSchemeUID", "1.2.826.0.1.8"),
        ("FrameOfReferenceUID", _TALAIRACH),
        ("FrameOfReferenceUID", ""),
    ],
)
def test_what_names_a_kind_or_is_registered_stays(keyword: str, value: str) -> None:
    assert replaced(**{keyword: value})[keyword].value == value


def test_each_of_several_values() -> None:
    events = replaced(IrradiationEventUID=["1.2.1", _TALAIRACH, "1.2.2"]).IrradiationEventUID
    assert events[0] == replaced(UID="1.2.1").UID
    assert events[1] == _TALAIRACH
    assert events[2] == replaced(UID="1.2.2").UID


def test_another_forgery_has_other_uids() -> None:
    dataset = Dataset()
    dataset.SOPInstanceUID = "1.2.1"
    identity.replace(dataset, "1.2.3", "painted", 2)
    assert dataset.SOPInstanceUID != replaced(SOPInstanceUID="1.2.1").SOPInstanceUID


def test_private_attributes_of_vr_ui_and_private_sequences() -> None:
    item = Dataset()
    item.add_new(0x00091002, "UI", "1.2.1")
    dataset = Dataset()
    dataset.add_new(0x00091001, "SQ", [item])
    identity.replace(dataset, *FORGERY)
    assert dataset[0x00091001].value[0][0x00091002].value == replaced(UID="1.2.1").UID


def test_padding_does_not_count() -> None:
    dataset = Dataset()
    dataset[0x00080018] = raw(0x00080018, "UI", b"1.2.1 ")
    identity.replace(dataset, *FORGERY)
    assert dataset.SOPInstanceUID == replaced(UID="1.2.1").UID


@pytest.mark.parametrize("vr", [None, "UN"])
def test_known_attributes_without_their_vr(vr: str | None) -> None:
    """As implicit VR, and as UN from a writer that did not know the attribute."""
    dataset = Dataset()
    dataset[0x00200052] = raw(0x00200052, vr, b"1.2.1\0")
    identity.replace(dataset, *FORGERY)
    assert dataset.FrameOfReferenceUID == replaced(UID="1.2.1").UID


def test_other_attributes_keep_their_bytes() -> None:
    dataset = Dataset()
    dataset[0x00180050] = raw(0x00180050, "DS", b"no number ")
    identity.replace(dataset, *FORGERY)
    assert dataset.get_item(0x00180050) == raw(0x00180050, "DS", b"no number ")


def test_signatures_are_taken_off_at_every_depth() -> None:
    signature, parameters, item, mac = Dataset(), Dataset(), Dataset(), Dataset()
    signature.Signature, parameters.MACIDNumber, mac.MAC = b"ab", 1, b"cd"
    item.DigitalSignaturesSequence, item.MACParametersSequence = [signature], [parameters]
    item.ReferencedSOPInstanceMACSequence, item.ReferencedDigitalSignatureSequence = [mac], [signature]
    item.ReferencedSOPInstanceUID = "1.2.1"
    made = replaced(
        ReferencedImageSequence=[item], DigitalSignaturesSequence=[signature], MACParametersSequence=[parameters]
    )
    assert [element.keyword for element in made] == ["ReferencedImageSequence"]
    assert [element.keyword for element in made.ReferencedImageSequence[0]] == ["ReferencedSOPInstanceUID"]
