"""Status words of C-STORE and C-ECHO (PS3.7 Annex C, PS3.4 Table B.2-1), and what each says.

What follows from one that a peer answers with is judged by `core.delivery`.
"""

SUCCESS = 0x0000
OUT_OF_RESOURCES = 0xA700
CANNOT_UNDERSTAND = 0xC000
COERCED = 0xB000
PROCESSING_FAILURE = 0x0110
CLASS_NOT_SUPPORTED = 0x0122
NO_SUCH_INSTANCE = 0x0112
NO_SUCH_EVENT, INVALID_ARGUMENT, NO_SUCH_CLASS, NO_SUCH_ACTION = 0x0113, 0x0115, 0x0118, 0x0123
UNRECOGNISED_OPERATION, RESOURCE_LIMITATION = 0x0211, 0x0213

_SINGLE = {
    0x0000: "The peer stored the instance.",
    0x0001: "The peer stored the instance; it asked for attributes that were not there.",
    0x0105: "The peer says that an attribute does not exist.",
    0x0106: "The peer says that an attribute has an impossible value.",
    0x0107: "The peer stored the instance and changed a list of attributes.",
    0x0110: "The peer failed while it stored the instance.",
    0x0111: "The peer holds another object under this SOP Instance UID.",
    0x0112: "The peer knows no such SOP instance.",
    0x0116: "The peer stored the instance; a value was out of range.",
    0x0117: "The peer says that the SOP Instance UID is not valid.",
    0x0118: "The peer says that the SOP class is not known.",
    0x0122: "The peer does not take this SOP class.",
    0x0124: "The peer does not authorise us.",
    0x0210: "The peer saw this message number twice.",
    0x0211: "The peer does not know the operation.",
    0x0212: "The peer says that a parameter is mistyped.",
    0x0213: "The peer is out of resources.",
    0xB000: "The peer stored the instance and changed values in it.",
    0xB006: "The peer stored the instance and discarded elements.",
    0xB007: "The peer stored the instance although the dataset does not match its SOP class.",
}


def sentence(code: int) -> str:
    """Meaning of any status word."""
    if code in _SINGLE:
        return _SINGLE[code]
    if code & 0xFF00 == 0xA700:
        return "The peer is out of resources."
    if code & 0xFF00 == 0xA900:
        return "The peer says that the dataset does not match its SOP class."
    if code & 0xF000 == 0xC000:
        return "The peer cannot understand the dataset."
    if code & 0xF000 == 0xB000:
        return "The peer stored the instance with a warning of its own."
    return f"The peer answered with the status {code:04X}, which the standard does not know for this service."
