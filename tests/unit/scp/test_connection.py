"""One connection over a pair of sockets: what comes in any cut is one message, what is no protocol is an A-ABORT."""

import contextlib
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dicomguard.clock import SystemClock
from dicomguard.core.admission import LIMIT_REACHED, Reject
from dicomguard.scp import command, pdu, wire
from dicomguard.scp.association import Association
from dicomguard.scp.connection import Connection
from dicomguard.scp.deadlines import Deadlines
from dicomguard.scp.messages import MAX_COLLECTED_BYTES, Answer, Collected
from dicomguard.store.db import Budget, Store, open_store
from dicomguard.store.intake import Sender
from tests.fuzz import wire as bytes_of
from tests.instances import MR
from tests.peers import wait_for

REQUEST = bytes_of.associate_rq([(MR, bytes_of.EXPLICIT)], calling="CT1")
SENDER = Sender(peer="ct1", calling_ae="CT1", called_ae="DICOMGUARD", address="192.0.2.7")


class World:
    """Owner, notes and services of a connection; what it stores and what is noted."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.deadlines = Deadlines(SystemClock())
        self.deadlines.start()
        self.datasets: list[bytes] = []
        self.cuts: list[str] = []
        self.left_places = 0
        self.decision: Reject | None = None
        self.idle_s = 30.0

    def decide(self, *_: object) -> tuple[Association, float] | Reject:
        return self.decision or (Association(self.store, SENDER, process="test"), self.idle_s)

    def agreed(self, *_: object) -> None:
        """Nothing to note."""

    def parted(self, *_: object) -> None:
        """Nothing to count."""

    def left(self, *_: object) -> None:
        self.left_places += 1

    def cut(self, *, reason: str, **_: object) -> None:
        self.cuts.append(reason)

    def refused(self, **_: object) -> None:
        """Nothing to note."""

    def keep(self, dataset: memoryview) -> Answer:
        self.datasets.append(bytes(dataset))
        return Answer(status=0)

    def refuse(self, why: str) -> Answer:
        return Answer(status=0x0213, comment=why)

    @contextlib.contextmanager
    def connected(self) -> Iterator[socket.socket]:
        """The peer's end; the connection has ended when the block is left."""
        ours, theirs = socket.socketpair()
        worker: Any = self
        connection = Connection(
            ours,
            "192.0.2.7",
            owner=worker,
            clock=SystemClock(),
            deadlines=self.deadlines,
            notes=worker,
            services={command.C_STORE_RQ: lambda *_: Collected(self.keep, self.refuse, Budget(MAX_COLLECTED_BYTES))},
            max_pdu_bytes=16384,
            stopping=lambda: False,
            certificates=None,
        )
        thread = threading.Thread(target=connection.run)
        thread.start()
        theirs.settimeout(10)
        try:
            yield theirs
        finally:
            theirs.close()
            thread.join(10)
            assert not thread.is_alive()


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    opened = open_store(tmp_path_factory.mktemp("state"), "", SystemClock())
    yield opened
    opened.close()


@pytest.fixture
def world(store: Store) -> Iterator[World]:
    world = World(store)
    yield world
    world.deadlines.stop()


def store_rq(dataset: bytes, *, max_pdu_bytes: int = 16384) -> bytes:
    return b"".join(bytes_of.c_store_rq(dataset, sop_class=MR, sop_instance="1.2.3", max_pdu_bytes=max_pdu_bytes))


def pdv(context: int, control: int, piece: bytes) -> bytes:
    return (2 + len(piece)).to_bytes(4, "big") + bytes((context, control)) + piece


def p_data(*pdvs: bytes) -> bytes:
    body = b"".join(pdvs)
    return b"\x04\0" + len(body).to_bytes(4, "big") + body


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(dataset=st.binary(max_size=3000), max_pdu_bytes=st.sampled_from([64, 300, 16384]), data=st.data())
def test_any_cut_of_the_stream_is_the_same_messages(
    world: World, dataset: bytes, max_pdu_bytes: int, data: st.DataObject
) -> None:
    dataset += b"\0" * (len(dataset) % 2) or b"\0\0"
    stream = REQUEST + 2 * store_rq(dataset, max_pdu_bytes=max_pdu_bytes) + bytes_of.release_rq()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    world.datasets.clear()
    with world.connected() as peer:
        for begin, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
            peer.sendall(stream[begin:end])
        kinds = [bytes_of.read_pdu(peer)[0] for _ in range(4)]
    assert kinds == [bytes_of.ASSOCIATE_AC, bytes_of.P_DATA, bytes_of.P_DATA, bytes_of.RELEASE_RP]
    assert world.datasets == [dataset, dataset]
    assert world.cuts == []


def test_one_byte_at_a_time(world: World) -> None:
    stream = REQUEST + store_rq(bytes(200)) + bytes_of.release_rq()
    with world.connected() as peer:
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
        for at in range(len(stream)):
            peer.sendall(stream[at : at + 1])
        assert [bytes_of.read_pdu(peer)[0] for _ in range(3)] == [2, 4, 6]
    assert world.datasets == [bytes(200)]


COMMAND = store_rq(b"\0\0")[: 12 + int.from_bytes(store_rq(b"\0\0")[6:10], "big") - 2]


@pytest.mark.parametrize(
    ("sent", "source", "reason"),
    [
        (b"\x04\0\xff\xff\xff\xff", 2, 6),
        (b"\x04\0" + (16385).to_bytes(4, "big"), 2, 6),
        (b"\x04\0\0\0\0\0", 2, 6),
        (b"\x09\0\0\0\0\x04abcd", 2, 1),
        (REQUEST, 2, 2),
        # A PDV without its header, one beyond its PDU, one of a context that was not accepted.
        (p_data(b"\0\0\0\1\1"), 2, 6),
        (p_data(b"\0\0\xff\xff\1\3ab"), 2, 6),
        (p_data(pdv(99, 3, b"")), 2, 6),
        # Data without a command, a command in a dataset, another context in the middle, a release in the middle.
        (p_data(pdv(1, 2, b"ab")), 2, 2),
        (COMMAND + p_data(pdv(1, 1, b"ab")), 2, 2),
        (COMMAND + bytes_of.release_rq(), 2, 2),
        # A command set of more than 64 KiB, and one that is none.
        (5 * p_data(pdv(1, 1, bytes(16000))), 2, 6),
        (p_data(pdv(1, 3, b"abcdef")), 0, 0),
    ],
)
def test_what_is_no_protocol_is_aborted_with_its_reason(world: World, sent: bytes, source: int, reason: int) -> None:
    with world.connected() as peer:
        peer.sendall(REQUEST)
        assert bytes_of.read_pdu(peer)[0] == bytes_of.ASSOCIATE_AC
        peer.sendall(sent)
        kind, body = bytes_of.read_pdu(peer)
        assert (kind, body[2], body[3]) == (bytes_of.ABORT, source, reason)
        assert peer.recv(1) == b""
    assert world.cuts == ["protocol"]
    assert world.datasets == []
    assert world.left_places == 1


def test_a_message_that_stores_nothing_has_a_bound(world: World) -> None:
    """It is read to its end and refused, and the association goes on."""
    with world.connected() as peer:
        peer.sendall(REQUEST + COMMAND)
        assert bytes_of.read_pdu(peer)[0] == bytes_of.ASSOCIATE_AC
        for _ in range(MAX_COLLECTED_BYTES // 16000 + 1):
            peer.sendall(p_data(pdv(1, 0, bytes(16000))))
        peer.sendall(p_data(pdv(1, 2, b"")))
        assert bytes_of.status_of(bytes_of.read_pdu(peer)[1]) == 0x0213
        peer.sendall(store_rq(b"ab"))
        assert bytes_of.status_of(bytes_of.read_pdu(peer)[1]) == 0
    assert world.datasets == [b"ab"]


def test_an_operation_that_is_not_offered_is_answered(world: World) -> None:
    with world.connected() as peer:
        peer.sendall(REQUEST + b"".join(bytes_of.c_echo_rq()))
        assert bytes_of.read_pdu(peer)[0] == bytes_of.ASSOCIATE_AC
        kind, body = bytes_of.read_pdu(peer)
        assert (kind, bytes_of.status_of(body)) == (bytes_of.P_DATA, 0x0211)
        peer.sendall(store_rq(b"ab"))
        assert bytes_of.status_of(bytes_of.read_pdu(peer)[1]) == 0


def test_a_refusal_is_a_rejection(world: World) -> None:
    world.decision = LIMIT_REACHED
    with world.connected() as peer:
        peer.sendall(REQUEST)
        kind, body = bytes_of.read_pdu(peer)
        assert (kind, tuple(body[1:4])) == (bytes_of.ASSOCIATE_RJ, (2, 3, 2))


@pytest.mark.parametrize(
    ("name", "seconds", "sent", "cut"),
    [
        ("_PDU_S", 0.3, b"\x04\0\0\0\1\0abc", ("stalled", 6)),
        ("_SLOW_AFTER_S", 0.3, COMMAND, ("slow", 0)),
        ("idle_s", 0.3, b"", ("idle", 0)),
    ],
)
def test_who_stops_is_cut_with_its_reason(
    world: World, monkeypatch: pytest.MonkeyPatch, name: str, seconds: float, sent: bytes, cut: tuple[str, int]
) -> None:
    monkeypatch.setattr(world if name == "idle_s" else wire, name, seconds)
    with world.connected() as peer:
        peer.sendall(REQUEST)
        assert bytes_of.read_pdu(peer)[0] == bytes_of.ASSOCIATE_AC
        peer.sendall(sent)
        kind, body = bytes_of.read_pdu(peer)
        assert (kind, body[2], body[3]) == (bytes_of.ABORT, 2, cut[1])
    assert world.cuts == [cut[0]]


def test_who_does_not_take_our_answer_is_cut(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "_ANSWER_S", 0.5)
    with world.connected() as peer:
        peer.sendall(REQUEST)
        assert bytes_of.read_pdu(peer)[0] == bytes_of.ASSOCIATE_AC
        echo = b"".join(bytes_of.c_echo_rq())
        with contextlib.suppress(ConnectionError, TimeoutError):
            # Answers pile up until neither side's buffer takes one more.
            while True:
                peer.sendall(100 * echo)
    assert world.cuts == ["unread"]


@pytest.mark.parametrize("before", [b"", REQUEST], ids=["unassociated", "associated"])
def test_who_aborts_and_waits_for_us_to_close_is_let_go(
    world: World, before: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PS3.8 AA-3: after an A-ABORT the transport is ours to close, and the place must be free."""
    monkeypatch.setattr(wire, "_LAST_WORD_S", 0.2)
    with world.connected() as peer:
        peer.sendall(before + pdu.abort(pdu.SERVICE_USER, 0))
        if before:
            assert bytes_of.read_pdu(peer)[0] == bytes_of.ASSOCIATE_AC
        assert peer.recv(1) == b""
        wait_for(lambda: world.left_places == 1, what="the end of the connection")
    assert world.cuts == []
