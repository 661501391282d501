"""Protocol data units of the upper layer, parsed in place and written (PS3.8 9.3). Pure: bytes in, views and bytes out.

Nothing here trusts a length: each is held against what is there and against a bound before anything is kept.
"""

from collections.abc import Iterator
from struct import Struct

from dicomguard.errors import Refused

ASSOCIATE_RQ, ASSOCIATE_AC, ASSOCIATE_RJ = 0x01, 0x02, 0x03
P_DATA, RELEASE_RQ, RELEASE_RP, ABORT = 0x04, 0x05, 0x06, 0x07
_KINDS = frozenset({ASSOCIATE_RQ, ASSOCIATE_AC, ASSOCIATE_RJ, P_DATA, RELEASE_RQ, RELEASE_RP, ABORT})

# Source and reason of A-ABORT (PS3.8 Table 9-26).
SERVICE_USER, SERVICE_PROVIDER = 0, 2
NOT_SPECIFIED, UNRECOGNISED_PDU, UNEXPECTED_PDU, INVALID_PARAMETER = 0, 1, 2, 6

HEADER_BYTES = 6
# A-ASSOCIATE-RQ with 128 presentation contexts and all their syntaxes stays far below.
MAX_ASSOCIATE_BYTES = (256 << 10) - HEADER_BYTES
# Release and abort have four bytes; a few more are forgiven.
_MAX_SHORT_BYTES = 1024
# Titles and reserved bytes before the items of A-ASSOCIATE-RQ.
_ASSOCIATE_FIXED_BYTES = 68
# Presentation contexts have the odd ids of one byte (PS3.8 9.3.2.2); beside them application context and user items.
_MAX_ITEMS, _MAX_SUB_ITEMS, _MAX_USER_ITEMS = 130, 64, 1024
_MAX_ALL_ITEMS = 8192
_CONTEXT_ITEM, _USER_ITEM = 0x20, 0x50
_CONTEXT_FIXED_BYTES = 4

# Message control header of a PDV (PS3.8 Annex E.2).
COMMAND, LAST = 0x01, 0x02
_PDV_HEADER_BYTES = 6

_PDU = Struct(">BxI")
_PDV = Struct(">IBB")
_ITEM = Struct(">BxH")

RELEASE_ANSWER = _PDU.pack(RELEASE_RP, 4) + bytes(4)


class Fault(Refused):
    """The peer broke the protocol; it gets A-ABORT with this source and reason."""

    def __init__(self, message: str, *, source: int = SERVICE_PROVIDER, reason: int = INVALID_PARAMETER) -> None:
        super().__init__(message)
        self.source = source
        self.reason = reason


def header(view: memoryview) -> tuple[int, int]:
    """Type and length of the PDU that begins the view of at least six bytes."""
    kind, length = _PDU.unpack_from(view)
    return kind, length


def check_first(kind: int, length: int) -> None:
    """Before an association only A-ASSOCIATE-RQ has a meaning (state 2 of PS3.8 Table 9-10)."""
    if kind not in _KINDS:
        raise Fault("The first bytes are no PDU.", reason=UNRECOGNISED_PDU)
    if kind == ABORT:
        _check_short(length)
    elif kind != ASSOCIATE_RQ:
        raise Fault("The first PDU asks for no association.", reason=UNEXPECTED_PDU)
    elif not _ASSOCIATE_FIXED_BYTES <= length <= MAX_ASSOCIATE_BYTES:
        raise Fault("The A-ASSOCIATE-RQ has an impossible length.")


def check_next(kind: int, length: int, *, max_pdu_bytes: int) -> None:
    """In an association data, release and abort may come (state 6)."""
    if kind == P_DATA:
        if not 0 < length <= max_pdu_bytes:
            raise Fault("A P-DATA-TF is empty or longer than was agreed.")
    elif kind in (RELEASE_RQ, ABORT):
        _check_short(length)
    elif kind in _KINDS:
        raise Fault("A PDU came that has no meaning in an association.", reason=UNEXPECTED_PDU)
    else:
        raise Fault("A PDU of an unknown type came.", reason=UNRECOGNISED_PDU)


def _check_short(length: int) -> None:
    if length > _MAX_SHORT_BYTES:
        raise Fault("A PDU of four bytes has an impossible length.")


def fragments(body: memoryview) -> Iterator[tuple[int, int, memoryview]]:
    """Context id, message control header and fragment of each PDV in a P-DATA-TF (PS3.8 9.3.5.1)."""
    at, end = 0, len(body)
    while at < end:
        if end - at < _PDV_HEADER_BYTES:
            raise Fault("A PDV is cut off inside its header.")
        length, context_id, control = _PDV.unpack_from(body, at)
        if not 2 <= length <= end - at - 4:
            raise Fault("A PDV is too short for its header or longer than its PDU.")
        yield context_id, control, body[at + _PDV_HEADER_BYTES : at + 4 + length]
        at += 4 + length


def check_items(body: memoryview) -> None:
    """Raise `Fault` for an A-ASSOCIATE-RQ with more items than have a meaning; a full decoder then costs little."""
    total = 0
    for count, (kind, item) in enumerate(_items(body[_ASSOCIATE_FIXED_BYTES:]), start=1):
        if count > _MAX_ITEMS:
            raise Fault("The A-ASSOCIATE-RQ has too many items.")
        if kind == _CONTEXT_ITEM:
            inside, most = item[_CONTEXT_FIXED_BYTES:], _MAX_SUB_ITEMS
        elif kind == _USER_ITEM:
            inside, most = item, _MAX_USER_ITEMS
        else:
            continue
        for number, _ in enumerate(_items(inside), start=1):
            if number > most:
                raise Fault("An item of the A-ASSOCIATE-RQ has too many parts.")
            total += 1
        if total > _MAX_ALL_ITEMS:
            raise Fault("The items of the A-ASSOCIATE-RQ have too many parts.")


def _items(view: memoryview) -> Iterator[tuple[int, memoryview]]:
    at, end = 0, len(view)
    while at < end:
        if end - at < _ITEM.size:
            raise Fault("An item of the A-ASSOCIATE-RQ is cut off.")
        kind, length = _ITEM.unpack_from(view, at)
        at += _ITEM.size
        if length > end - at:
            raise Fault("An item of the A-ASSOCIATE-RQ is longer than what holds it.")
        yield kind, view[at : at + length]
        at += length


def command(context_id: int, content: bytes, *, max_pdu_bytes: int) -> bytes:
    """P-DATA-TF PDUs with a whole command set; `max_pdu_bytes` 0 is no limit (PS3.8 D.1)."""
    room = len(content) if max_pdu_bytes == 0 else max(2, (max_pdu_bytes - _PDV_HEADER_BYTES) & ~1)
    parts = []
    for at in range(0, len(content), room):
        piece = content[at : at + room]
        control = COMMAND | (LAST if at + room >= len(content) else 0)
        parts.append(
            _PDU.pack(P_DATA, _PDV_HEADER_BYTES + len(piece)) + _PDV.pack(2 + len(piece), context_id, control) + piece
        )
    return b"".join(parts)


def abort(source: int, reason: int) -> bytes:
    """A-ABORT (PS3.8 9.3.8)."""
    return _PDU.pack(ABORT, 4) + bytes((0, 0, source, reason))
