"""When the node gave its word: C-STORE requests and responses as they stand on the wire (PS3.7 9.3.1, PS3.8 9.3.5)."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

_P_DATA_TF = 0x04
_LAST_COMMAND = 0x03
_C_STORE_RQ, _C_STORE_RSP = 0x0001, 0x8001
_FIELD, _STATUS, _SOP_INSTANCE = 0x0100, 0x0900, 0x1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """The command set of one message."""

    field: int
    status: int
    sop_instance_uid: str

    @property
    def acknowledges(self) -> bool:
        """A C-STORE response that leaves the instance with us: success or a warning (PS3.4 Table B.2-1)."""
        return self.field == _C_STORE_RSP and (self.status == 0 or self.status >> 12 == 0xB)

    @property
    def announces(self) -> bool:
        """A C-STORE request."""
        return self.field == _C_STORE_RQ


def messages(content: bytes) -> Iterator[Message]:
    """Those whose whole command set lies in one fragment of these bytes; anything else is no message."""
    place = 0
    while len(content) - place >= 6 and content[place] == _P_DATA_TF:
        (length,) = struct.unpack_from(">L", content, place + 2)
        yield from _fragments(content[place + 6 : place + 6 + length])
        place += 6 + length


def _fragments(pdu: bytes) -> Iterator[Message]:
    place = 0
    while len(pdu) - place >= 6:
        (length,) = struct.unpack_from(">L", pdu, place)
        if pdu[place + 5] & _LAST_COMMAND == _LAST_COMMAND:
            yield _command(pdu[place + 6 : place + 4 + length])
        place += 4 + max(length, 2)


def _command(content: bytes) -> Message:
    """Implicit VR little endian, group 0000 only."""
    values: dict[int, bytes] = {}
    place = 0
    while len(content) - place >= 8:
        group, element, length = struct.unpack_from("<HHL", content, place)
        if group == 0:
            values[element] = content[place + 8 : place + 8 + length]
        place += 8 + length

    def number(element: int) -> int:
        return int.from_bytes(values.get(element, b"\xff\xff"), "little")

    uid = values.get(_SOP_INSTANCE, b"").rstrip(b"\0 ").decode("ascii", "replace")
    return Message(field=number(_FIELD), status=number(_STATUS), sop_instance_uid=uid)
