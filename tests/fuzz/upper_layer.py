"""A connection of the acceptor in this process, fed by a socketpair: thousands of associations a second.

The peer has sent everything and closed its writing half before the connection's loop begins, so nothing waits; reads
come in random pieces down to single bytes.
"""

import collections
import logging
import socket
import struct
import time
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from dicomguard.clock import SystemClock
from dicomguard.core import admission
from dicomguard.core.peer import Peer
from dicomguard.dimse import status
from dicomguard.scp import command, services
from dicomguard.scp.association import Association
from dicomguard.scp.command import Command
from dicomguard.scp.connection import Connection
from dicomguard.scp.deadlines import Deadlines
from dicomguard.scp.messages import Answer, Message
from dicomguard.scp.negotiation import Agreement, Context, Proposal
from dicomguard.store.db import Store
from dicomguard.store.intake import Sender
from tests.fuzz import memory, wire
from tests.fuzz.pdus import CALLING, Mutant

MOST_S = 5.0
MAX_PDU_BYTES = 131_072
PEERS = (Peer(name="ct1", ae_title=CALLING, networks=("127.0.0.1",)),)
# What an acceptor may say (PS3.8 9.3).
_ANSWERS = {wire.ASSOCIATE_AC, wire.ASSOCIATE_RJ, wire.P_DATA, wire.RELEASE_RP, wire.ABORT}
_LAST_WORDS = {wire.ASSOCIATE_RJ, wire.RELEASE_RP, wire.ABORT}
# Most bytes that a read of the connection gives, and how often.
_READS, _SHARES = (1, 7, 100, 4096, 1 << 20), (0.02, 0.08, 0.3, 0.3, 0.3)


class Drips(socket.socket):
    """Gives at most `most` bytes a read."""

    most = 1 << 20

    def recv_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> int:
        """As the base class, in small pieces."""
        return super().recv_into(memoryview(buffer)[: self.most], 0, flags)


class Kept:
    """A C-STORE whose dataset stays in memory, so that it can be compared."""

    def __init__(self, datasets: list[bytes], open_ones: list["Kept"]) -> None:
        self._datasets = datasets
        self._open = open_ones
        self._content = bytearray()
        open_ones.append(self)

    def write(self, piece: memoryview) -> None:
        """Keep."""
        self._content += piece

    def finish(self) -> Answer:
        """Success."""
        self._datasets.append(bytes(self._content))
        return Answer(status=status.SUCCESS)

    def discard(self) -> None:
        """Idempotent, as every message's."""
        if self in self._open:
            self._open.remove(self)


class _Crashes(logging.Handler):
    """Counts what the tops of threads and handlers caught."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """`connection.failed`, `deadline.failed`, `instance.failed`."""
        if str(record.msg).endswith(".failed"):
            fields = getattr(record, "dicomguard_fields", {})
            self.seen.append(f"{record.msg} {fields.get('cause', '')}")


@dataclass
class Campaign:
    """Plays mutants against connections and judges what came back."""

    folder: Path
    store: Store
    rng: np.random.Generator
    # One in so many stores into the real store; 0: none.
    store_every: int = 0
    ends: collections.Counter[str] = field(default_factory=collections.Counter)
    faults: dict[str, str] = field(default_factory=dict)
    slowest_s: float = 0.0
    ways: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._clock = SystemClock()
        self._deadlines = Deadlines(self._clock)
        self._deadlines.start()
        self._crashes = _Crashes()
        logger = logging.getLogger("dicomguard.scp")
        logger.addHandler(self._crashes)
        logger.propagate = False
        self._real = services.table(self.store, warn_of_conflict=True)
        # Of the C-STORE requests of the last stream.
        self.datasets: list[bytes] = []
        self._open: list[Kept] = []
        self._said: list[str] = []
        self._left = 0

    def close(self) -> None:
        """End the thread of the deadlines."""
        self._deadlines.stop()
        logging.getLogger("dicomguard.scp").removeHandler(self._crashes)

    @property
    def count(self) -> int:
        """Mutants so far."""
        return sum(self.ends.values())

    def document(self) -> dict[str, Any]:
        """How they ended, for a test and for a person."""
        return {
            "count": self.count,
            "ends": dict(self.ends.most_common()),
            "ways": len(self.ways),
            "slowest_s": round(self.slowest_s, 2),
            "peak_mib": memory.peak_mib(),
            "descriptors": sum(1 for _ in Path("/proc/self/fd").iterdir()),
            "faults": self.faults,
        }

    def run(self, mutants: Iterable[Mutant], *, on_new: Callable[[Mutant], None] = lambda mutant: None) -> None:
        """All of them; `on_new` gets each that was answered in a way not seen before."""
        with warnings.catch_warnings():
            # pydicom's on odd UIDs.
            warnings.simplefilter("ignore")
            self._run(mutants, on_new)

    def _run(self, mutants: Iterable[Mutant], on_new: Callable[[Mutant], None]) -> None:
        for mutant in mutants:
            began = time.thread_time()
            end = self._one(mutant)
            spent = time.thread_time() - began
            self.slowest_s = max(self.slowest_s, spent)
            if spent > MOST_S:
                self._fault(mutant, f"took {spent:.1f} s")
            self.ends[end] += 1
            way = f"{end} {self._said}"
            if way not in self.ways and len(self.ways) < 5000:
                self.ways.add(way)
                on_new(mutant)

    def play(self, content: bytes, *, most: int, real: bool = False) -> list[tuple[int, bytes]]:
        """The acceptor's PDUs to a peer that sends `content` and closes; it reads at most `most` bytes at once."""
        self.datasets.clear()
        self._said.clear()
        ours, theirs = socket.socketpair()
        with theirs:
            theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 << 20)
            theirs.setblocking(False)
            # A peer that is cut while it sends more than the buffers hold is another test's.
            sent = theirs.send(content) if content else 0
            assert sent == len(content), f"{len(content)} bytes do not fit into the socket's buffer"
            theirs.shutdown(socket.SHUT_WR)
            dripping = Drips(fileno=ours.detach())
            dripping.most = most
            table = self._real if real else {**self._real, command.C_STORE_RQ: self._keep}
            left = self._left
            Connection(
                dripping,
                "127.0.0.1",
                owner=self,
                clock=self._clock,
                deadlines=self._deadlines,
                notes=self,  # type: ignore[arg-type]
                services=table,
                max_pdu_bytes=MAX_PDU_BYTES,
                stopping=lambda: False,
                certificates=None,
            ).run()
            assert self._left == left + 1, "the owner was not told of the end"
            assert dripping.fileno() == -1, "the descriptor is still open"
            assert not self._open, "a message was not discarded"
            theirs.setblocking(True)
            return _answers(theirs)

    def _keep(self, _association: Association, _context: Context, _request: Command) -> Message:
        return Kept(self.datasets, self._open)

    def _one(self, mutant: Mutant) -> str:
        # Single bytes cost a hundred times what whole PDUs do, so they are for short streams, and seldom for others.
        most = _READS[int(self.rng.choice(len(_READS), p=_SHARES))]
        if sum(map(len, mutant.stream)) > 4_000:
            most = max(most, 4096)
        real = bool(self.store_every) and self.count % self.store_every == 0
        try:
            answers = self.play(b"".join(mutant.stream), most=most, real=real)
            self._judge(mutant, answers, real=real)
        except Exception as error:  # noqa: BLE001 -- anything that comes out is what this looks for.
            self._fault(mutant, f"{type(error).__name__}: {str(error)[:200]}")
            return "broke"
        if self._crashes.seen:
            self._fault(mutant, self._crashes.seen.pop())
            self._crashes.seen.clear()
            return "crashed"
        last = answers[-1] if answers else (0, b"")
        names = {0: "closed", 2: "closed", 3: "rejected", 4: "closed", 6: "released"}
        return names.get(last[0]) or f"aborted {last[1][2]},{last[1][3]}"

    def _judge(self, mutant: Mutant, answers: list[tuple[int, bytes]], *, real: bool) -> None:
        kinds = [kind for kind, _ in answers]
        assert set(kinds) <= _ANSWERS, f"an answer of type {kinds}"
        assert kinds.count(wire.ASSOCIATE_AC) <= 1
        assert not _LAST_WORDS & set(kinds[:-1]), "something follows the last word"
        if mutant.whole:
            assert kinds == [wire.ASSOCIATE_AC, wire.P_DATA, wire.RELEASE_RP], f"a sound stream is answered by {kinds}"
            assert real or self.datasets == [mutant_dataset(mutant)], "the dataset that arrived is another"

    def _fault(self, mutant: Mutant, what: str) -> None:
        if what not in self.faults:
            name = f"fault-{len(self.faults):03d}"
            (self.folder / f"{name}.bin").write_bytes(b"".join(mutant.stream))
            (self.folder / f"{name}.txt").write_text(f"{what}\n{mutant.recipe}\n")
            self.faults[what] = name

    # --- the connection's owner and its notes ----------------------------------------------------------------------

    def decide(self, connection: Connection, proposal: Proposal) -> tuple[Association, float] | admission.Reject:
        """The real rules, without limits of number."""
        request = admission.Request(
            calling_ae=proposal.calling_ae,
            called_ae=proposal.called_ae,
            address=connection.address,
            stores=proposal.stores,
            key_sha256=None,
        )
        decision = admission.decide(request, ae_title="DICOMGUARD", peers=PEERS, congested=False)
        if isinstance(decision, admission.Reject):
            self._said.append(decision.reason)
            return decision
        sender = Sender(peer="ct1", calling_ae=CALLING, called_ae="DICOMGUARD", address=connection.address)
        return Association(self.store, sender, process="fuzz"), 60.0

    def agreed(self, connection: Connection, proposal: Proposal, agreement: Agreement) -> None:
        """Nothing."""

    def parted(self, connection: Connection) -> None:
        """Nothing."""

    def left(self, connection: Connection) -> None:
        """Counted."""
        self._left += 1

    def refused(self, *, address: str, calling_ae: str, called_ae: str, reason: str) -> None:
        """As `Notes`."""
        self._said.append(reason)

    def cut(self, *, reason: str, peer: str, address: str, why: str = "") -> None:
        """As `Notes`."""
        self._said.append(f"{reason} {why}")


def mutant_dataset(mutant: Mutant) -> bytes:
    """The dataset fragments of a sound stream, put together by its lengths."""
    found = bytearray()
    for one in mutant.stream[1:-1]:
        at = 6
        while at < len(one):
            length, _, control = struct.unpack_from(">IBB", one, at)
            if not control & 1:
                found += one[at + 6 : at + 4 + length]
            at += 4 + length
    return bytes(found)


def _answers(peer: socket.socket) -> list[tuple[int, bytes]]:
    found = []
    while True:
        kind, body = wire.read_pdu(peer)
        if kind == 0:
            return found
        found.append((kind, body))
