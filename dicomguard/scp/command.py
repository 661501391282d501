"""Command sets of DIMSE messages (PS3.7 6.3 and Annex E): always Implicit VR Little Endian, only group 0000. Pure."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from struct import Struct, pack
from types import MappingProxyType

from dicomguard.scp.pdu import SERVICE_USER, Fault

C_STORE_RQ, C_ECHO_RQ, C_CANCEL_RQ = 0x0001, 0x0030, 0x0FFF
N_EVENT_REPORT_RQ, N_ACTION_RQ = 0x0100, 0x0130
_RESPONSE = 0x8000
_NO_DATASET = 0x0101

# Element numbers of group 0000.
AFFECTED_CLASS, REQUESTED_CLASS = 0x0002, 0x0003
AFFECTED_INSTANCE, REQUESTED_INSTANCE = 0x1000, 0x1001
EVENT_TYPE, ACTION_TYPE = 0x1002, 0x1008
PRIORITY = 0x0700
# Of C-STORE (PS3.7 Table E.1-1); low is 2, medium 0.
HIGH = 0x0001
_GROUP_LENGTH, _FIELD, _MESSAGE_ID, _ANSWERED_ID = 0x0000, 0x0100, 0x0110, 0x0120
_DATASET_TYPE, _STATUS, _COMMENT = 0x0800, 0x0900, 0x0902

# Error Comment is a LO (PS3.7 Annex C): at most 64 characters, none of them a control or a backslash.
_COMMENT_CHARACTERS = 64
_NOT_LO = re.compile(r"[^ -\[\]-~]")

_ELEMENT = Struct("<HHI")
_NO_ELEMENTS: Mapping[int, bytes] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A request. `elements` has all values by element number, as they came."""

    field: int
    message_id: int
    has_dataset: bool
    elements: Mapping[int, bytes]

    def uid(self, number: int) -> str:
        """A UID without its padding, "" when it is missing."""
        return self.elements.get(number, b"").decode("ascii", "replace").strip(" \0")

    def number(self, number: int) -> int | None:
        """An unsigned short, None when it is missing or none."""
        value = self.elements.get(number, b"")
        return int.from_bytes(value, "little") if len(value) == 2 else None

    @property
    def is_response(self) -> bool:
        """Whether it answers somebody."""
        return bool(self.field & _RESPONSE)


def parse(content: bytes) -> Command:
    """Command set of a request; raises `Fault` when it is none."""
    elements: dict[int, bytes] = {}
    at, end = 0, len(content)
    while at < end:
        if end - at < _ELEMENT.size:
            raise _fault("is cut off")
        group, number, length = _ELEMENT.unpack_from(content, at)
        at += _ELEMENT.size
        if group != 0 or length > end - at:
            raise _fault("has an element that does not belong there or is cut off")
        elements[number] = content[at : at + length]
        at += length
    field = _number(elements, _FIELD)
    # A response has the id of what it answers, and no id of its own; C-CANCEL has only that too.
    message_id = _number(elements, _MESSAGE_ID if _MESSAGE_ID in elements else _ANSWERED_ID)
    return Command(
        field=field,
        message_id=message_id,
        has_dataset=_number(elements, _DATASET_TYPE) != _NO_DATASET,
        elements=elements,
    )


def _number(elements: Mapping[int, bytes], number: int) -> int:
    value = elements.get(number, b"")
    if len(value) != 2:
        raise _fault("lacks its field, its message id or the kind of its dataset")
    return int.from_bytes(value, "little")


def _fault(what: str) -> Fault:
    # Above the upper layer: the service user's, without a reason (PS3.8 Table 9-26).
    return Fault(f"A command set {what}.", source=SERVICE_USER, reason=0)


def response(request: Command, status: int, comment: str = "", more: Mapping[int, bytes] = _NO_ELEMENTS) -> bytes:
    """The command set that answers; it names the SOP class and instance of the request (PS3.7 9.3, 10.3)."""
    elements: dict[int, bytes] = {
        _FIELD: pack("<H", request.field | _RESPONSE),
        _ANSWERED_ID: pack("<H", request.message_id),
        _DATASET_TYPE: pack("<H", _NO_DATASET),
        _STATUS: pack("<H", status),
        **more,
    }
    for affected, requested in ((AFFECTED_CLASS, REQUESTED_CLASS), (AFFECTED_INSTANCE, REQUESTED_INSTANCE)):
        value = request.elements.get(affected, request.elements.get(requested))
        if value is not None:
            elements[affected] = value[:64]
    if comment:
        elements[_COMMENT] = _NOT_LO.sub("?", comment[:_COMMENT_CHARACTERS]).encode("ascii")
    encoded = b"".join(_encode(number, value) for number, value in sorted(elements.items()))
    return _encode(_GROUP_LENGTH, pack("<I", len(encoded))) + encoded


def _encode(number: int, value: bytes) -> bytes:
    if len(value) % 2:
        # Texts are padded by a space, UIDs by a null (PS3.5 6.2).
        value += b" " if number == _COMMENT else b"\0"
    return _ELEMENT.pack(0, number, len(value)) + value
