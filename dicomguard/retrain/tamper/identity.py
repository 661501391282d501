"""Takes the identity of the authentic study from the datasets of a forged one: its UIDs and its digital signatures.

A UID that names a kind of thing (class, transfer syntax, coding scheme) or is registered (PS3.6 annex A) stays. Every
other one becomes new, the same for the same original, so that instances of the study still refer to each other.
Attributes whose VR nothing tells (private ones stored as UN) are not read.
"""

from pydicom import Dataset
from pydicom.uid import UID

from dicomguard.core import uid

# Private classes and schemes have no registered UID, so the attribute must tell what its value names.
_KINDS = frozenset(
    (
        "SOPClassUID RelatedGeneralSOPClassUID OriginalSpecializedSOPClassUID ReferencedSOPClassUID SOPClassesInStudy "
        "SOPClassesSupported PertinentSOPClassesInStudy PertinentSOPClassesInSeries StoredInstanceTransferSyntaxUID "
        "AvailableTransferSyntaxUID EncryptedContentTransferSyntaxUID CodingSchemeUID ContextUID MappingResourceUID "
        "ContextGroupExtensionCreatorUID TemplateExtensionOrganizationUID TemplateExtensionCreatorUID "
        "ManufacturerDeviceClassUID SegmentationTemplateUID"
    ).split()
)
# Of the dataset or item itself (PS3.3 C.12.1.1.3) and of instances that it refers to (PS3.3 C.17.2.1).
_SIGNED = (
    "DigitalSignaturesSequence",
    "MACParametersSequence",
    "ReferencedDigitalSignatureSequence",
    "ReferencedSOPInstanceMACSequence",
)
# Without a VR (implicit) or as UN, pydicom's dictionaries tell which it is.
_READ = ("UI", "SQ", "UN", None)


def replace(dataset: Dataset, *forgery: str | int) -> None:
    """Give the dataset, items of its sequences included, new UIDs and take its signatures off, in place.

    `forgery` tells this forged study from others that are made of the same one.
    """
    for keyword in _SIGNED:
        dataset.pop(keyword, None)
    # The others stay undecoded: they hold no UID, and malformed ones are copied as they are.
    for tag in [element.tag for element in dataset.values() if element.VR in _READ]:
        element = dataset[tag]
        if element.VR == "SQ":
            for item in element.value:
                replace(item, *forgery)
        elif element.VR == "UI" and element.keyword not in _KINDS and not element.is_empty:
            originals = element.value if element.VM > 1 else [element.value]
            element.value = [_new(UID(original), *forgery) for original in originals]


def _new(original: UID, *forgery: str | int) -> str:
    # Only what is registered has a type. The root of DICOM alone is no sign: a writer may have put its own UIDs below.
    stays = not original or bool(original.type)
    return original if stays else uid.derive("forged", original, *forgery)
