"""The effect loop for storage commitment: a worker that asks, one that answers, and a receiver between them.

Three stages, each from a study whose results two archives have:

- commit: both are asked. One loses the SEG at the first question and says so on the same association, so that
  it is sent again; the other reports on an association of its own to the receiver.
- answer: an archive has asked the node about what it sent and one object that it did not; the worker looks and reports.
- vouch: the receiver takes such a question, and the report on a question of the node; no report is repeated.
"""

import contextlib
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path

from dicomguard.clock import SystemClock
from dicomguard.core import commitment as core
from dicomguard.core import delivery as core_delivery
from dicomguard.core.commitment import NO_SUCH_INSTANCE, Commitment, Part, Patience, Reference, State
from dicomguard.core.peer import Destination
from dicomguard.deliver import commitment as network
from dicomguard.deliver.association import Timeouts
from dicomguard.flow.states import DELIVERING, DONE
from dicomguard.store import commitments, deliveries, results, studies
from dicomguard.store.db import Tx, open_store
from tests.fault.effects import Moment
from tests.fault.forks import Zygote
from tests.fault.loop import SLICES, Loop, Rest, Stage, loop
from tests.fault.vouching import Vouching, vouching
from tests.peer import until
from tests.peers import Postgres

ARCHIVE, SECOND = "archive", "second"
# Of what ARCHIVE asks the node, and of what the node asked before the stage "vouch" begins.
TRANSACTION = "2.25.700"
UNKNOWN = Reference(sop_class_uid="1.2.840.10008.5.1.4.1.1.2", sop_instance_uid="2.25.404")
# The longest that anything waits: for a report that does not come.
_LATER_S = (Patience().deadline + timedelta(hours=1)).total_seconds()


class CommitmentLoop(Loop):
    """Runs of one of the three stages."""

    def __init__(
        self,
        folder: Path,
        stage: Stage,
        archives: dict[str, Vouching],
        zygotes: dict[str, Zygote],
        server: Postgres | None,
        *,
        other: bool,
    ) -> None:
        self._vouching = archives
        peers = {name: archive.peer for name, archive in archives.items()}
        super().__init__(folder, stage, peers, zygotes, server, other=other)

    def _prepare(self) -> None:
        super()._prepare()
        assert self._work(self._template, "template", "node-a") == 0
        self._commitment = True
        self._callers = {name: (name.upper(), "127.0.0.1") for name in self._vouching}
        self._more += "\n".join(
            f'[destinations.{name}]\nae_title = "{name.upper()}"\nhost = "127.0.0.1"\nport = {archive.peer.port}\n'
            for name, archive in self._vouching.items()
        )
        store = open_store(self._template, self._url("template"), SystemClock())
        now = store.clock.now()
        with store.begin() as tx:
            kept = results.of_revision(tx, self._key, 1)[:2]
            self._results = [_reference(item.sop_class_uid, item.sop_instance_uid) for item in kept]
            instances = studies.instances(tx, self._key, 1)
            self._images = [_reference(item.sop_class_uid, item.sop_instance_uid) for item in instances]
            if self._stage == "commit":
                for delivery in deliveries.of_revision(tx, self._key, 1):
                    all_items = [item.sop_instance_uid for item in delivery.items]
                    deliveries.save(tx, core_delivery.resend(delivery, all_items, now=now))
                assert studies.advance(tx, self._key, 1, DELIVERING, from_=(DONE,))
            elif self._stage == "answer":
                asked = (*self._images, UNKNOWN)
                assert commitments.ask(tx, transaction_uid=TRANSACTION, calling_ae="ARCHIVE", references=asked, now=now)
            else:
                for name in self._vouching:
                    self._asked = self._ask(tx, name)
        store.close()

    def _ask(self, tx: Tx, destination: str) -> Commitment:
        """The node has asked a destination for commitment, which has taken the question."""
        now = SystemClock().now()
        fresh = Commitment(
            study_key=self._key, revision=1, destination=destination, planned_at=now, next_at=now,
            parts=tuple(Part(reference=item) for item in self._results),
        )  # fmt: skip
        asked = core.taken(core.ask(fresh, now=now, within=timedelta(minutes=10)), Patience(), now=now)
        commitments.save(tx, asked)
        return asked

    def _go(self, state: Path, database: str, number: int | str, moment: Moment) -> str:
        archive, second = self._vouching[ARCHIVE], self._vouching[SECOND]
        for vouching_one in (archive, second):
            here = len(vouching_one.peer.received) if self._stage == "commit" else 0
            vouching_one.begin(since=here, forgetful=self._stage == "commit" and vouching_one is archive)
        rest = Rest(left=lambda: self._left(state, database), later_s=_LATER_S)
        if self._stage == "answer":
            return self._work_on(state, database, number, moment, rest)
        if self._stage == "commit":
            second.node_port = self._port
            pid = self._open(state, database, Path(os.devnull), 0, "before")
            until(self._listening, 30)
            stopped = self._work_on(state, database, number, moment, rest)
            os.kill(pid, signal.SIGTERM)
            assert self._zygotes["receiver"].wait() == 0, self._said()
            return stopped
        second.node_port = self._port
        self._reported = self._taken = False
        stopped = self._serve(state, database, number, moment, self._vouch)
        # The receiver has ended.
        second.node_port = 0
        self._finish(state, database, self._work(state, database, "node-a"), rest)
        return stopped

    def _listening(self) -> bool:
        with contextlib.suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", self._port), 1):
            return True
        return False

    def _vouch(self) -> bool:
        """The archive asks until its question is taken; the second reports once, whatever becomes of that."""
        if not self._reported and self._listening():
            self._vouching[SECOND].report_to_node(self._asked.transaction_uid, self._results)
            self._reported = True
        if self._reported and not self._taken:
            node = Destination(name="node", ae_title="DICOMGUARD", host="127.0.0.1", port=self._port)
            asked = network.ask(
                node, TRANSACTION, (*self._images, UNKNOWN),
                calling_ae="ARCHIVE", timeouts=Timeouts(connect_s=2, answer_s=5), linger_s=0.0,
            )  # fmt: skip
            self._taken = not asked.refused
        # One that is only starting cannot be ended in an orderly way yet.
        return self._taken and self._listening()

    def _left(self, state: Path, database: str) -> str:
        """What is open; nothing counts as committed that an archive has not vouched for."""
        for archive in self._vouching.values():
            archive.settle()
        store = open_store(state, self._url(database), SystemClock())
        with store.read() as tx:
            open_commitments = []
            for value in commitments.of_study(tx, self._key):
                counted = {part.reference.sop_instance_uid for part in value.parts if part.committed}
                assert counted <= self._vouching[value.destination].vouched, "committed, and nobody said so"
                assert value.state is not State.FAILED, value.comment
                if value.state is not State.COMMITTED:
                    open_commitments.append(f"{value.destination}: {value.state}")
            later = SystemClock().now() + timedelta(days=30)
            open_requests = [f"{item.transaction_uid}: {item.comment}" for item in commitments.requests(tx, now=later)]
        store.close()
        return "; ".join(open_commitments + open_requests)

    def _check(self, state: Path, name: str, seen: dict[str, int]) -> int:
        repeated = super()._check(state, name, seen)
        store = open_store(state, self._url(name), SystemClock())
        with store.read() as tx:
            values = {value.destination: value for value in commitments.of_study(tx, self._key)}
        store.close()
        wanted = {item.sop_instance_uid for item in self._results}
        if self._stage != "answer":
            for destination, archive in self._vouching.items():
                value = values[destination]
                assert (value.state, value.next_at) == (State.COMMITTED, None)
                assert {part.reference.sop_instance_uid for part in value.parts if part.committed} == wanted
                assert all(archive.keeps(uid) for uid in wanted)
        if self._stage != "commit":
            told = self._vouching[ARCHIVE].told
            assert told
            for report in told:
                assert report.transaction_uid == TRANSACTION
                assert list(report.committed) == self._images
                assert report.failed == {UNKNOWN: NO_SUCH_INSTANCE}
            assert len(self._images) == SLICES
            repeated += len(told) - 1
        return repeated


def _reference(sop_class_uid: str, sop_instance_uid: str) -> Reference:
    return Reference(sop_class_uid=sop_class_uid, sop_instance_uid=sop_instance_uid)


@contextmanager
def loop_of(folder: Path, stage: Stage, server: Postgres | None = None, *, other: bool = False) -> Iterator[Loop]:
    """A loop of any stage, with two archives; in those of storage commitment they vouch."""
    if stage in ("receive", "work"):
        with loop(folder, stage, server, other=other) as runs:
            yield runs
        return
    with ExitStack() as stack:
        archives = {name: stack.enter_context(vouching(name.upper())) for name in (ARCHIVE, SECOND)}
        zygotes = {kind: Zygote(kind) for kind in ("worker", "receiver")}
        for zygote in zygotes.values():
            stack.callback(zygote.close)
        yield CommitmentLoop(folder, stage, archives, zygotes, server, other=other)
