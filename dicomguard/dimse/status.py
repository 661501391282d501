"""Status words of C-STORE and C-ECHO (PS3.7 Annex C, PS3.4 Table B.2-1): name, sentence, family of remedy."""

from dataclasses import dataclass
from typing import Literal

Family = Literal["success", "warning", "unavailable", "refused", "broken"]

SUCCESS = 0x0000
OUT_OF_RESOURCES = 0xA700
CANNOT_UNDERSTAND = 0xC000
COERCED = 0xB000
PROCESSING_FAILURE = 0x0110
CLASS_NOT_SUPPORTED = 0x0122
NO_SUCH_INSTANCE = 0x0112
NO_SUCH_EVENT, INVALID_ARGUMENT, NO_SUCH_CLASS, NO_SUCH_ACTION = 0x0113, 0x0115, 0x0118, 0x0123
UNRECOGNISED_OPERATION, RESOURCE_LIMITATION = 0x0211, 0x0213


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """What a status word means."""

    # For example "A700".
    word: str
    sentence: str
    # "unavailable" is tried again, "refused" is not, "broken" needs a person.
    family: Family


_SINGLE: dict[int, tuple[str, Family]] = {
    0x0000: ("The peer stored the instance.", "success"),
    0x0001: ("The peer stored the instance; it asked for attributes that were not there.", "warning"),
    0x0105: ("The peer says that an attribute does not exist.", "refused"),
    0x0106: ("The peer says that an attribute has an impossible value.", "refused"),
    0x0107: ("The peer stored the instance and changed a list of attributes.", "warning"),
    0x0110: ("The peer failed while it stored the instance.", "broken"),
    0x0111: ("The peer holds another object under this SOP Instance UID.", "refused"),
    0x0112: ("The peer knows no such SOP instance.", "refused"),
    0x0116: ("The peer stored the instance; a value was out of range.", "warning"),
    0x0117: ("The peer says that the SOP Instance UID is not valid.", "refused"),
    0x0118: ("The peer says that the SOP class is not known.", "refused"),
    0x0122: ("The peer does not take this SOP class.", "refused"),
    0x0124: ("The peer does not authorise us.", "refused"),
    0x0210: ("The peer saw this message number twice.", "broken"),
    0x0211: ("The peer does not know the operation.", "refused"),
    0x0212: ("The peer says that a parameter is mistyped.", "refused"),
    0x0213: ("The peer is out of resources.", "unavailable"),
    0xB000: ("The peer stored the instance and changed values in it.", "warning"),
    0xB006: ("The peer stored the instance and discarded elements.", "warning"),
    0xB007: ("The peer stored the instance although the dataset does not match its SOP class.", "warning"),
}


def describe(code: int) -> Status:
    """Meaning of any status word; an unknown one is a refusal."""
    sentence, family = _meaning(code)
    return Status(word=f"{code:04X}", sentence=sentence, family=family)


def _meaning(code: int) -> tuple[str, Family]:
    if code in _SINGLE:
        return _SINGLE[code]
    if code & 0xFF00 == 0xA700:
        return "The peer is out of resources.", "unavailable"
    if code & 0xFF00 == 0xA900:
        return "The peer says that the dataset does not match its SOP class.", "refused"
    if code & 0xF000 == 0xC000:
        return "The peer cannot understand the dataset.", "refused"
    if code & 0xF000 == 0xB000:
        return "The peer stored the instance with a warning of its own.", "warning"
    return (
        f"The peer answered with the status {code:04X}, which the standard does not know for this service.",
        "refused",
    )
