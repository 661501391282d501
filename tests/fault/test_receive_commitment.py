"""Requests for storage commitment that are long, or lie: each is answered, and memory stays where it was."""

import io
import struct
import threading
from collections.abc import Callable
from pathlib import Path

from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pynetdicom.dimse_messages import N_ACTION_RQ, N_EVENT_REPORT_RQ
from pynetdicom.dimse_primitives import N_ACTION, N_EVENT_REPORT
from pynetdicom.pdu import P_DATA_TF

from dicomguard.clock import SystemClock
from dicomguard.core.commitment import Reference
from dicomguard.dimse import commitment, contexts
from dicomguard.dimse.commitment import MOST_REFERENCES, SOP_INSTANCE
from dicomguard.scp.messages import MAX_COLLECTED_BYTES
from dicomguard.store import commitments
from tests.fuzz import wire
from tests.instances import MR
from tests.receiver import LiveReceiver, receiver

PEERS = {"ct1": ("CT1", "127.0.0.1")}
REACHABLE = '[destinations.ct1]\nae_title = "CT1"\nhost = "127.0.0.1"\nport = 11113\n'
REQUEST = wire.associate_rq([(contexts.STORAGE_COMMITMENT, wire.IMPLICIT)], calling="CT1", max_pdu_bytes=131_072)
UNDEFINED = b"\xff\xff\xff\xff"
TRANSACTION = b"\x08\x00\x95\x11" + struct.pack("<I", 6) + b"2.25.7"
SEQUENCE, ITEM = b"\x08\x00\x99\x11", b"\xfe\xff\x00\xe0"
ROOM = MAX_COLLECTED_BYTES - 1000
# Each is eight megabytes of what a parser would make objects of.
LIES: dict[str, Callable[[], bytes]] = {
    "empty items": lambda: SEQUENCE + UNDEFINED + (ITEM + bytes(4)) * (ROOM // 8),
    "empty elements": lambda: b"".join(struct.pack("<HHI", 9, number & 0xFFFF, 0) for number in range(ROOM // 8)),
    "empty elements of one item": lambda: (
        SEQUENCE + UNDEFINED + ITEM + UNDEFINED + (b"\x08\x00\x50\x11" + bytes(4)) * (ROOM // 8)
    ),
    "sequences in sequences": lambda: (SEQUENCE + UNDEFINED + ITEM + UNDEFINED) * (ROOM // 16),
    "a length that is not there": lambda: SEQUENCE + b"\xf0\xff\xff\xff" + bytes(ROOM),
}
# What one receiver process may hold.
MOST_MIB = 100


def message(content: bytes, *, report: bool = False) -> bytes:
    """P-DATA-TFs of an N-ACTION or N-EVENT-REPORT request around dataset bytes."""
    primitive: N_ACTION | N_EVENT_REPORT
    whole: N_ACTION_RQ | N_EVENT_REPORT_RQ
    if report:
        primitive, whole = N_EVENT_REPORT(), N_EVENT_REPORT_RQ()
        primitive.AffectedSOPClassUID, primitive.AffectedSOPInstanceUID = contexts.STORAGE_COMMITMENT, SOP_INSTANCE
        primitive.EventTypeID, primitive.EventInformation = 1, io.BytesIO(content)
    else:
        primitive, whole = N_ACTION(), N_ACTION_RQ()
        primitive.RequestedSOPClassUID, primitive.RequestedSOPInstanceUID = contexts.STORAGE_COMMITMENT, SOP_INSTANCE
        primitive.ActionTypeID, primitive.ActionInformation = 1, io.BytesIO(content)
    primitive.MessageID = 1
    whole.primitive_to_message(primitive)
    pdus = []
    for part in whole.encode_msg(1, 16382):
        pdu = P_DATA_TF()
        pdu.from_primitive(part)
        pdus.append(bytes(pdu.encode()))
    return b"".join(pdus)


def told(live: LiveReceiver, sent: bytes) -> int | None:
    """The status that the request gets."""
    with wire.associated(live.port, REQUEST, timeout_s=120) as (connection, _):
        connection.sendall(sent)
        return wire.status_of(wire.read_pdu(connection)[1])


def question(count: int) -> bytes:
    """A request that names so many instances, with UIDs as long as they may be."""
    names = (Reference(sop_class_uid=MR, sop_instance_uid=f"1.2.1{number:059d}") for number in range(count))
    stream = DicomBytesIO()
    stream.is_implicit_VR, stream.is_little_endian = True, True
    write_dataset(stream, commitment.request("2.25.7", names))
    return stream.getvalue()


def peak_mib(live: LiveReceiver) -> int:
    """The most that the process has held so far."""
    return int(Path(f"/proc/{live.process.pid}/status").read_text().split("VmHWM:")[1].split()[0]) >> 10


def test_lies_are_refused_within_the_memory_of_a_receiver(tmp_path: Path) -> None:
    """Before, a parser made 779 MiB of the first."""
    sent = {name: message(TRANSACTION + content()) for name, content in LIES.items()}
    sent["a report"] = message(TRANSACTION + LIES["empty items"](), report=True)
    with receiver(tmp_path, peers=PEERS, more=REACHABLE) as live:
        before = peak_mib(live)
        for name, lie in sent.items():
            assert told(live, lie) in (0x0110, 0x0213), name
        assert len(live.events("commitment.refused")) == len(sent)
        print(f"{before} MiB before, at most {peak_mib(live)} MiB")
        assert peak_mib(live) < MOST_MIB


def test_as_many_instances_as_may_be_are_kept_and_one_more_is_refused_with_the_reason(tmp_path: Path) -> None:
    with receiver(tmp_path, peers=PEERS, more=REACHABLE) as live:
        before = peak_mib(live)
        assert told(live, message(question(MOST_REFERENCES))) == 0x0000
        assert told(live, message(question(MOST_REFERENCES + 1))) == 0x0213
        # Longer than any that names so many.
        assert told(live, message(TRANSACTION + bytes(MAX_COLLECTED_BYTES))) == 0x0213
        reasons = [line["reason"] for line in live.events("commitment.refused")]
        assert [str(MOST_REFERENCES) in reasons[0], str(MAX_COLLECTED_BYTES) in reasons[1]] == [True, True]
        print(f"{before} MiB before, at most {peak_mib(live)} MiB")
        assert peak_mib(live) < MOST_MIB
        store = live.store()
        with store.read() as tx:
            (kept,) = commitments.requests(tx, now=SystemClock().now())
        assert len(kept.references) == MOST_REFERENCES


def test_many_at_once_share_the_memory_of_one(tmp_path: Path) -> None:
    """Each is answered; who finds no room is told to come again, and then it is kept."""
    sent = message(question(MOST_REFERENCES))
    answers: list[int | None] = []
    with receiver(tmp_path, peers=PEERS, more=REACHABLE) as live:
        threads = [threading.Thread(target=lambda: answers.append(told(live, sent))) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
        print(answers, f"at most {peak_mib(live)} MiB")
        assert len(answers) == 8
        assert set(answers) <= {0x0000, 0x0213}
        assert peak_mib(live) < MOST_MIB
        assert told(live, sent) == 0x0000
