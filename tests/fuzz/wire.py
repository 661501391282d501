"""The bytes of an association as a sender puts them on the wire (PS3.8 9.3, PS3.7 9.3), by pynetdicom's encoders.

Nothing here reads our own code: these are the seeds of the PDU mutators and the load of the ingest benchmark.
"""

import contextlib
import io
import socket
import struct
from collections.abc import Iterator, Sequence

from pynetdicom.dimse_messages import C_ECHO_RQ, C_STORE_RQ
from pynetdicom.dimse_primitives import C_ECHO, C_STORE
from pynetdicom.pdu import A_ABORT_RQ, A_ASSOCIATE_RQ, A_RELEASE_RQ, P_DATA_TF
from pynetdicom.pdu_primitives import (
    A_ABORT,
    A_ASSOCIATE,
    A_RELEASE,
    ImplementationClassUIDNotification,
    MaximumLengthNotification,
)
from pynetdicom.presentation import build_context

ASSOCIATE_RQ, ASSOCIATE_AC, ASSOCIATE_RJ, P_DATA, RELEASE_RQ, RELEASE_RP, ABORT = range(1, 8)
APPLICATION = "1.2.840.10008.3.1.1.1"
VERIFICATION = "1.2.840.10008.1.1"
EXPLICIT = "1.2.840.10008.1.2.1"
IMPLICIT = "1.2.840.10008.1.2"
IMPLEMENTATION = "1.2.826.0.1.3680043.8.498.99"
# Longest answer that an acceptor may send us.
_MOST_BYTES = 1 << 20


def associate_rq(
    contexts: Sequence[tuple[str, str]], *, calling: str, called: str = "DICOMGUARD", max_pdu_bytes: int = 16382
) -> bytes:
    """A-ASSOCIATE-RQ; the n-th (abstract, transfer) syntax gets context id 2n + 1."""
    primitive = A_ASSOCIATE()
    primitive.application_context_name = APPLICATION
    primitive.calling_ae_title, primitive.called_ae_title = calling, called
    proposed = [build_context(*pair) for pair in contexts]
    for number, context in enumerate(proposed):
        context.context_id = 2 * number + 1
    primitive.presentation_context_definition_list = proposed
    length = MaximumLengthNotification()
    length.maximum_length_received = max_pdu_bytes
    implementation = ImplementationClassUIDNotification()
    implementation.implementation_class_uid = IMPLEMENTATION
    primitive.user_information = [length, implementation]
    pdu = A_ASSOCIATE_RQ()
    pdu.from_primitive(primitive)
    return bytes(pdu.encode())


def _message(message: C_STORE_RQ | C_ECHO_RQ, context_id: int, max_pdu_bytes: int) -> list[bytes]:
    pdus = []
    for primitive in message.encode_msg(context_id, max_pdu_bytes):
        pdu = P_DATA_TF()
        pdu.from_primitive(primitive)
        pdus.append(bytes(pdu.encode()))
    return pdus


def c_store_rq(
    dataset: bytes,
    *,
    sop_class: str,
    sop_instance: str,
    context_id: int = 1,
    max_pdu_bytes: int = 16382,
    message_id: int = 1,
) -> list[bytes]:
    """P-DATA-TFs of one C-STORE request around encoded dataset bytes."""
    primitive = C_STORE()
    primitive.MessageID, primitive.Priority = message_id, 0
    primitive.AffectedSOPClassUID, primitive.AffectedSOPInstanceUID = sop_class, sop_instance
    primitive.DataSet = io.BytesIO(dataset)
    message = C_STORE_RQ()
    message.primitive_to_message(primitive)
    return _message(message, context_id, max_pdu_bytes)


def c_echo_rq(*, context_id: int = 1, message_id: int = 1) -> list[bytes]:
    """P-DATA-TF of a C-ECHO request."""
    primitive = C_ECHO()
    primitive.MessageID, primitive.AffectedSOPClassUID = message_id, VERIFICATION
    message = C_ECHO_RQ()
    message.primitive_to_message(primitive)
    return _message(message, context_id, 16382)


def release_rq() -> bytes:
    """A-RELEASE-RQ."""
    pdu = A_RELEASE_RQ()
    pdu.from_primitive(A_RELEASE())
    return bytes(pdu.encode())


def abort() -> bytes:
    """A-ABORT of the service user."""
    primitive = A_ABORT()
    primitive.abort_source = 0
    pdu = A_ABORT_RQ()
    pdu.from_primitive(primitive)
    return bytes(pdu.encode())


def read_pdu(connection: socket.socket) -> tuple[int, bytes]:
    """Type and body of the next PDU; (0, b"") at the end of the connection."""
    head = _exactly(connection, 6)
    if len(head) < 6:
        return 0, b""
    kind, length = struct.unpack(">BxI", head)
    assert length <= _MOST_BYTES, f"an answer of {length} bytes"
    body = _exactly(connection, length)
    return (kind, body) if len(body) == length else (0, b"")


def _exactly(connection: socket.socket, count: int) -> bytes:
    received = bytearray()
    while len(received) < count:
        piece = connection.recv(count - len(received))
        if not piece:
            break
        received += piece
    return bytes(received)


def items(body: bytes, offset: int) -> Iterator[tuple[int, bytes]]:
    """Type and value of the items of an A-ASSOCIATE body from `offset` (PS3.8 9.3.2)."""
    while offset + 4 <= len(body):
        kind, length = struct.unpack_from(">BxH", body, offset)
        yield kind, body[offset + 4 : offset + 4 + length]
        offset += 4 + length


def accepted(body: bytes) -> tuple[int, list[int]]:
    """Of an A-ASSOCIATE-AC body: the peer's longest PDU (0: no limit) and the ids of the contexts that it took."""
    longest, taken = 0, []
    for kind, value in items(body, 68):
        if kind == 0x21 and value[2] == 0:
            taken.append(value[0])
        elif kind == 0x50:
            longest = next((int.from_bytes(inner, "big") for sort, inner in items(value, 0) if sort == 0x51), 0)
    return longest, taken


def status_of(body: bytes) -> int | None:
    """Status (0000,0900) in the command set of a P-DATA-TF body; None without one."""
    found = body.find(b"\x00\x00\x00\x09\x02\x00\x00\x00")
    return int.from_bytes(body[found + 8 : found + 10], "little") if found >= 0 and len(body) >= found + 10 else None


@contextlib.contextmanager
def associated(port: int, request: bytes, *, timeout_s: float = 30.0) -> Iterator[tuple[socket.socket, int]]:
    """A connection whose association was accepted, and the acceptor's longest PDU; released at the end."""
    with socket.create_connection(("127.0.0.1", port), timeout=timeout_s) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sendall(request)
        kind, body = read_pdu(connection)
        assert kind == ASSOCIATE_AC, f"the association was answered by a PDU of type {kind}"
        longest, taken = accepted(body)
        assert taken, "no presentation context was taken"
        yield connection, longest
        connection.sendall(release_rq())
        assert read_pdu(connection)[0] == RELEASE_RP
