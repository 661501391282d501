"""The effect loop: a study is worked off by a worker that is stopped at its n-th effect, then by the next one.

Whatever n is, each archive must hold one report with one set of UIDs. The study, the tables and the archives are made
once; a run begins with a copy of them.
"""

import json
import os
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from sqlalchemy import create_engine, text

from dicomguard.clock import SystemClock
from dicomguard.store import deliveries, results, studies
from dicomguard.store.db import open_store
from tests.conftest import ROOT
from tests.fault import world
from tests.fault.effects import Moment
from tests.peer import Peer, peer
from tests.peers import Postgres

LEASE_S = 1.0
# The second worker ends the work; a third is only wanted when that one was too slow for its lease.
TURNS = 4


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """One run."""

    # Name of the effect at which the first worker was stopped; "" when it ran through.
    name: str
    # Objects that an archive got twice, with the same UID and the same bytes.
    repeated: int


class Zygote:
    """`tests.fault.zygote` in a process of its own."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.fault.zygote"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
            start_new_session=True,
        )

    def run(self, order: dict[str, object], *, seconds: float = 90) -> int:
        """Exit status of one fork."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order).encode() + b"\n")
        self._process.stdin.flush()
        assert select.select([self._process.stdout], [], [], seconds)[0], f"no end after {seconds} s"
        return int(self._process.stdout.readline())

    def close(self) -> None:
        """End it, and a fork that hangs."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


class Loop:
    """Runs of one study; `other`: the second worker has another node name and waits for the lease of the first."""

    def __init__(
        self, folder: Path, zygote: Zygote, archives: dict[str, Peer], server: Postgres | None, *, other: bool
    ):
        self._folder = folder
        self._zygote = zygote
        self._archives = archives
        self._server = server
        self._other = other
        self._numbers = count()
        self._template = folder / "template"
        self._prepare()

    def _prepare(self) -> None:
        """Tables of a node that has run before, and a study that was received."""
        if self._server is not None:
            self._sql('CREATE DATABASE "template"')
        assert self._work(self._template, "template", "node-a") == 0
        store = open_store(self._template, self._url("template"), SystemClock())
        self.key = world.send_study(store, self._folder / "in")
        store.close()

    def whole(self) -> list[str]:
        """Names of all effects of a worker that is not stopped."""
        self.run(0, "before")
        return (self._folder / "trace").read_text().splitlines()

    def run(self, number: int, moment: Moment) -> Outcome:
        """Stop the first worker at its effect `number`, let the others finish, look into the archives."""
        name = f"run{next(self._numbers)}"
        state = self._folder / name
        shutil.copytree(self._template, state)
        if self._server is not None:
            self._sql(f'CREATE DATABASE "{name}" TEMPLATE "template"')
        seen = {archive: len(got.received) for archive, got in self._archives.items()}
        trace = self._folder / "trace"
        trace.unlink(missing_ok=True)
        status = self._work(state, name, "node-a", number, moment)
        reached = trace.read_text().splitlines()
        if status == -signal.SIGKILL:
            for _ in range(TURNS):
                if (status := self._work(state, name, "node-b" if self._other else "node-a")) == 0:
                    break
            stopped = reached[number - 1]
        else:
            stopped = ""
        assert status == 0, (self._folder / "log").read_text()[-4000:]
        repeated = self._check(state, name, seen)
        shutil.rmtree(state)
        if self._server is not None:
            self._sql(f'DROP DATABASE "{name}" WITH (FORCE)')
        return Outcome(name=stopped, repeated=repeated)

    def _check(self, state: Path, name: str, seen: dict[str, int]) -> int:
        """One revision, one set of results, the same in each archive; how many objects came twice."""
        store = open_store(state, self._url(name), SystemClock())
        with store.read() as tx:
            assert [item.number for item in studies.revisions(tx, self.key)] == [1]
            assert studies.state(tx, self.key, 1) == "done"
            kept = results.of_revision(tx, self.key, 1)
            planned = deliveries.of_revision(tx, self.key, 1)
        store.close()
        assert [item.kind for item in kept] == ["SEG", "SR", "SR-2D"]
        assert [(item.destination, item.state.value) for item in planned] == [(to, "sent") for to in self._archives]
        repeated = 0
        for archive, got in self._archives.items():
            received = got.received[seen[archive] :]
            assert {uid for uid, _, _ in received} == {item.sop_instance_uid for item in kept[:2]}
            assert len({(uid, content) for uid, content, _ in received}) == 2, "equal UIDs with other bytes"
            repeated += len(received) - 2
        return repeated

    def _work(self, state: Path, database: str, node: str, number: int = 0, moment: Moment = "before") -> int:
        plan = {
            "state": str(state),
            "url": self._url(database),
            "node": node,
            "destinations": {name: archive.port for name, archive in self._archives.items()},
            "until_idle": True,
            "in_a_hurry": True,
            "lease_s": LEASE_S,
        }
        files = {"log": str(self._folder / "log"), "trace": str(self._folder / "trace")}
        return self._zygote.run({"plan": plan, "stop_at": number, "moment": moment, **files})

    def _url(self, database: str) -> str:
        return "" if self._server is None else f"{self._server.url.rsplit('/', 1)[0]}/{database}"

    def _sql(self, statement: str) -> None:
        assert self._server is not None
        engine = create_engine(self._server.url, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.execute(text(statement))
        engine.dispose()


@contextmanager
def loop(folder: Path, server: Postgres | None = None, *, other: bool = False) -> Iterator[Loop]:
    """A loop with two archives."""
    with ExitStack() as stack:
        archives = {name: stack.enter_context(peer(ae_title=name.upper())) for name in ("archive", "second")}
        zygote = Zygote()
        stack.callback(zygote.close)
        yield Loop(folder, zygote, archives, server, other=other)
