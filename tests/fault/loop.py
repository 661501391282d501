"""The effect loop: a receiver or a worker is stopped at its n-th effect, and the next one goes on.

Whatever n is, each archive must hold one report with one set of UIDs. What a run begins with (tables, and for the
worker a study that was received) is made once and copied.
"""

import contextlib
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Literal

from sqlalchemy import create_engine, text

from demo.ports import free_port
from dicomguard.clock import SystemClock
from dicomguard.core.delivery import Event
from dicomguard.core.peer import Destination
from dicomguard.deliver import storage
from dicomguard.deliver.association import Timeouts
from dicomguard.store import deliveries, results, studies
from dicomguard.store.db import open_store
from tests.fault import world
from tests.fault.effects import Moment
from tests.fault.forks import Zygote
from tests.peer import Peer, peer
from tests.peers import Postgres
from tests.receiver import configuration

Stage = Literal["receive", "work", "commit", "answer", "vouch"]
# Those in which a receiver is stopped, and not a worker.
RECEIVERS = ("receive", "vouch")
LEASE_S = 1.0
# The second worker ends the work; a third is only wanted when that one was too slow for its lease.
TURNS = 4
SLICES = 3
SMALL_LOG = "[storage]\nlow_bytes = 0\nstop_bytes = 0\nlog_segments = 3\nlog_segment_bytes = 1048576\n"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """One run."""

    # Name of the effect at which the process was stopped; "" when it ran through.
    name: str
    # Objects that an archive got twice, with the same UID and the same bytes.
    repeated: int


@dataclass(frozen=True, kw_only=True)
class Rest:
    """What a worker that ends well may leave to one that is started later."""

    # In words, "" when nothing is left; raises when something is wrong meanwhile.
    left: Callable[[], str]
    later_s: float


ALL = Rest(left=str, later_s=0.0)


class Loop:
    """Runs of one stage; `other`: the second worker has another node name and waits for the lease of the first."""

    def __init__(
        self,
        folder: Path,
        stage: Stage,
        archives: dict[str, Peer],
        zygotes: dict[str, Zygote],
        server: Postgres | None,
        *,
        other: bool,
    ) -> None:
        self._folder = folder
        self._stage = stage
        self._archives = archives
        self._zygotes = zygotes
        self._server = server
        self._other = other
        self._numbers = count()
        self._port = free_port()
        self._commitment = False
        self._callers, self._more = {"ct1": ("CT1", "127.0.0.1")}, SMALL_LOG
        self._template = folder / "template"
        self._prepare()

    def _prepare(self) -> None:
        """Tables of a node that has run before, and for the worker a study that was received."""
        if self._server is not None:
            # The server is that of all tests.
            self._sql('DROP DATABASE IF EXISTS "template"')
            self._sql('CREATE DATABASE "template"')
        assert self._work(self._template, "template", "node-a") == 0
        store = open_store(self._template, self._url("template"), SystemClock())
        if self._stage == "receive":
            self._files = world.write_study(self._folder / "in", slices=SLICES)
        else:
            self._key = world.send_study(store, self._folder / "in", slices=SLICES)
        store.close()

    def whole(self) -> list[str]:
        """Names of all effects of a process that is not stopped."""
        self.run(0, "before")
        return self._trace.read_text().splitlines()

    def run(self, number: int | str, moment: Moment) -> Outcome:
        """Stop the process at its effect `number` (or the first of that name), let others finish, look what came."""
        name = f"run{next(self._numbers)}"
        state = self._folder / name
        shutil.copytree(self._template, state)
        if self._server is not None:
            self._sql(f'CREATE DATABASE "{name}" TEMPLATE "template"')
        seen = {archive: len(got.received) for archive, got in self._archives.items()}
        stopped = self._go(state, name, number, moment)
        repeated = self._check(state, name, seen)
        shutil.rmtree(state)
        if self._server is not None:
            self._sql(f'DROP DATABASE "{name}" WITH (FORCE)')
        return Outcome(name=stopped, repeated=repeated)

    def _go(self, state: Path, database: str, number: int | str, moment: Moment) -> str:
        """The stage itself, to its end; the name of the effect at which the process was stopped."""
        if self._stage == "work":
            return self._work_on(state, database, number, moment)
        stopped = self._serve(state, database, number, moment, self._send)
        assert self._work(state, database, "node-a") == 0, self._said()
        return stopped

    # --- the worker ------------------------------------------------------------------------------------------------

    def _work_on(self, state: Path, database: str, number: int | str, moment: Moment, rest: Rest = ALL) -> str:
        """Name of the effect at which the first worker was stopped; then others until one ends well."""
        self._trace.unlink(missing_ok=True)
        status = self._work(state, database, "node-a", number, moment, trace=self._trace)
        stopped = self._stopped_at(number, status)
        self._finish(state, database, status, rest)
        return stopped

    def _finish(self, state: Path, database: str, status: int, rest: Rest) -> None:
        """More workers until one ends well and nothing is left; one that leaves something is followed much later."""
        ahead_s = 0.0
        for _ in range(TURNS):
            left = rest.left()
            if status == 0 and not left:
                return
            ahead_s += rest.later_s if status == 0 else 0.0
            status = self._work(state, database, "node-b" if self._other else "node-a", ahead_s=ahead_s)
        assert (status, rest.left()) == (0, ""), self._said()

    def _work(
        self,
        state: Path,
        database: str,
        node: str,
        number: int | str = 0,
        moment: Moment = "before",
        trace: Path = Path(os.devnull),
        ahead_s: float = 0.0,
    ) -> int:
        plan = {
            "state": str(state),
            "url": self._url(database),
            "node": node,
            "destinations": {name: archive.port for name, archive in self._archives.items()},
            "until_idle": True,
            "in_a_hurry": True,
            # Whoever is not meant to lose its work must not, however busy the machine is.
            "lease_s": 60.0 if self._stage in RECEIVERS else LEASE_S,
            # The association of a receiver that was stopped is open for another ten seconds.
            "hold_s": 0.5,
            "commitment": self._commitment,
            "ahead_s": ahead_s,
        }
        self._zygotes["worker"].start({"plan": plan, **self._order(state, trace, number, moment)})
        return self._zygotes["worker"].wait()

    # --- the receiver ----------------------------------------------------------------------------------------------

    def _send(self) -> bool:
        """As a modality, all slices; whether each was acknowledged."""
        here = Destination(name="node", ae_title="DICOMGUARD", host="127.0.0.1", port=self._port)
        sent = storage.send(self._files, here, calling_ae="CT1", timeouts=Timeouts(connect_s=2, answer_s=5))
        return [item.answer.event for item in sent] == [Event.STORED] * SLICES

    def _serve(
        self, state: Path, database: str, number: int | str, moment: Moment, ask: Callable[[], bool]
    ) -> str:  # fmt: skip
        """Again until a peer has what it asks for, from the first receiver or the one after it."""
        zygote = self._zygotes["receiver"]
        self._trace.unlink(missing_ok=True)
        pid = self._open(state, database, self._trace, number, moment)
        stopped, first = "", True
        deadline = time.monotonic() + 90
        served = False
        while True:
            assert time.monotonic() < deadline, self._said()
            if served:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGTERM)
            if served or zygote.ended():
                status = zygote.wait()
                if first:
                    stopped, first = self._stopped_at(number, status), False
                else:
                    assert status == 0, self._said()
                if served and status == 0:
                    return stopped
                pid = self._open(state, database, Path(os.devnull), 0, "before")
            served = ask()
            if not served:
                time.sleep(0.02)

    def _open(self, state: Path, database: str, trace: Path, number: int | str, moment: Moment) -> int:
        config = self._folder / f"{database}.toml"
        config.write_text(
            configuration(self._port, peers=self._callers, more=self._more, url=self._url(database)).replace(
                'state = "state"', f'state = "{state}"'
            )
        )
        order = self._order(state, trace, number, moment)
        return self._zygotes["receiver"].start({"config": str(config), **order})

    # --- both ------------------------------------------------------------------------------------------------------

    def _check(self, state: Path, name: str, seen: dict[str, int]) -> int:
        """One revision, one set of results, the same in each archive; how many objects came twice."""
        store = open_store(state, self._url(name), SystemClock())
        with store.read() as tx:
            ((key, number),) = studies.in_state(tx, ("done",))
            assert [item.number for item in studies.revisions(tx, key)] == [number] == [1]
            instances = studies.instances(tx, key, 1)
            kept = results.of_revision(tx, key, 1)
            planned = deliveries.of_revision(tx, key, 1)
        store.close()
        assert len({item.sop_instance_uid for item in instances}) == len(instances) == SLICES
        assert {(item.state, item.ordinal) for item in instances} == {("stored", 0)}
        assert [item.kind for item in kept] == ["SEG", "SR", "SR-2D"]
        assert {item.destination: item.state.value for item in planned} == dict.fromkeys(self._archives, "sent")
        # Only questions and answers go to and fro in the others.
        sent = kept[:2] if self._stage in ("receive", "work", "commit") else []
        repeated = 0
        for archive, got in self._archives.items():
            received = got.received[seen[archive] :]
            assert {uid for uid, _, _ in received} == {item.sop_instance_uid for item in sent}
            assert len({(uid, content) for uid, content, _ in received}) == len(sent), "equal UIDs with other bytes"
            repeated += len(received) - len(sent)
        return repeated

    def _stopped_at(self, number: int | str, status: int) -> str:
        if status == 0:
            return ""
        assert status == -signal.SIGKILL, self._said()
        return number if isinstance(number, str) else self._trace.read_text().splitlines()[number - 1]

    def _order(self, state: Path, trace: Path, number: int | str, moment: Moment) -> dict[str, object]:
        files = {"state": str(state), "trace": str(trace), "log": str(self._folder / "log")}
        return {**files, "stop_at": number, "moment": moment}

    @property
    def _trace(self) -> Path:
        return self._folder / "trace"

    def _said(self) -> str:
        return (self._folder / "log").read_text()[-4000:]

    def _url(self, database: str) -> str:
        return "" if self._server is None else f"{self._server.url.rsplit('/', 1)[0]}/{database}"

    def _sql(self, statement: str) -> None:
        assert self._server is not None
        engine = create_engine(self._server.url, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.execute(text(statement))
        engine.dispose()


@contextmanager
def loop(folder: Path, stage: Stage, server: Postgres | None = None, *, other: bool = False) -> Iterator[Loop]:
    """A loop with two archives."""
    with ExitStack() as stack:
        archives = {name: stack.enter_context(peer(ae_title=name.upper())) for name in ("archive", "second")}
        zygotes = {kind: Zygote(kind) for kind in ("worker", "receiver")}
        for zygote in zygotes.values():
            stack.callback(zygote.close)
        yield Loop(folder, stage, archives, zygotes, server, other=other)
