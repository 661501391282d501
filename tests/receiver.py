"""A live receiver process for tests: its own state folder, a free port, its log."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pynetdicom.association import Association
from pynetdicom.presentation import PresentationContext, build_context

from demo.ports import free_port
from dicomguard import config, part10
from dicomguard.clock import SystemClock
from dicomguard.dimse.ae import make_ae
from dicomguard.scp.shared import Shared
from dicomguard.store.db import Store, open_store
from dicomguard.store.log_slots import settle
from tests.peers import end, wait_for

PEERS = {"ct1": ("CT1", "127.0.0.1"), "mr1": ("MR1", "127.0.0.1"), "far": ("FAR", "192.0.2.7")}


@dataclass
class LiveReceiver:
    """A running `python -m dicomguard.scp`, or several that share the port."""

    processes: list[subprocess.Popen[bytes]]
    port: int
    state: Path
    url: str
    log: Path
    _start: Callable[[int], subprocess.Popen[bytes]]
    _stores: list[Store] = field(default_factory=list)

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The first."""
        return self.processes[0]

    def restart(self, number: int) -> None:
        """Start one that was killed again, while the others live."""
        self.processes[number] = self._start(number)

    def events(self, name: str = "") -> list[dict[str, Any]]:
        """Its log lines so far, or those of one event."""
        lines = [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]
        return [line for line in lines if name in ("", line["event"])]

    @property
    def opened(self) -> int:
        """How often one of the processes began to listen."""
        return sum(opened["kind"] == "node" for opened in self.events("receiver.opened"))

    def settle(self) -> None:
        """Wait until everything that was acknowledged has its file and its rows."""
        assert settle(self.state, patience_s=30)

    def store(self) -> Store:
        """The same store, opened by the test; a living receiver has filed all that it acknowledged so far."""
        if any(process.poll() is None for process in self.processes):
            self.settle()
        self._stores.append(open_store(self.state, self.url, SystemClock()))
        return self._stores[-1]

    def kill(self) -> None:
        """As a power cut for all processes."""
        for number in range(len(self.processes)):
            self.kill_one(number)

    def kill_one(self, number: int) -> None:
        """SIGKILL."""
        self.processes[number].send_signal(signal.SIGKILL)
        self.processes[number].wait(20)

    def stop(self) -> int:
        """Orderly, all at once; returns the exit status, of several the first that is not 0."""
        for process in self.processes:
            process.terminate()
        return next((status for status in [process.wait(30) for process in self.processes] if status), 0)

    @contextlib.contextmanager
    def only(self, number: int) -> Iterator[None]:
        """Whoever connects meanwhile comes to this process: the others stand still, not for longer than a lease."""
        others = [process for place, process in enumerate(self.processes) if place != number]
        for process in others:
            process.send_signal(signal.SIGSTOP)
        try:
            wait_for(lambda: all(_stands_still(process.pid) for process in others), what="those that stand still")
            yield
        finally:
            for process in others:
                process.send_signal(signal.SIGCONT)


def _stands_still(pid: int) -> bool:
    """Every thread of it: one that is stopped waits for no connection (proc(5))."""
    states = [path.read_text().rpartition(")")[2].split()[0] for path in Path(f"/proc/{pid}/task").glob("*/stat")]
    return set(states) == {"T"}


def configuration(port: int, *, peers: Mapping[str, tuple[str, str]] = PEERS, more: str = "", url: str = "") -> str:
    """TOML of a node; `more` is added at the end."""
    named = "\n".join(
        f'[peers.{name}]\nae_title = "{title}"\naddresses = ["{address}"]' for name, (title, address) in peers.items()
    )
    storage = "" if "[storage]" in more else "[storage]\nlow_bytes = 0\nstop_bytes = 0\nlog_segment_bytes = 4194304\n"
    return f'[node]\nport = {port}\nstate = "state"\n[database]\nurl = "{url}"\n{storage}{named}\n{more}\n'


@contextlib.contextmanager
def receiver(
    folder: Path,
    *,
    peers: Mapping[str, tuple[str, str]] = PEERS,
    more: str = "",
    url: str = "",
    port: int = 0,
    processes: int = 1,
) -> Iterator[LiveReceiver]:
    """Start one on the state folder below `folder`; a second call there continues with the same state.

    With more processes they share port and counts, as under a node.
    """
    folder.mkdir(parents=True, exist_ok=True)
    port = port or free_port()
    file = folder / "dicomguard.toml"
    file.write_text(configuration(port, peers=peers, more=more, url=url))
    log = folder / f"log-{time.monotonic_ns()}.jsonl"
    shared = None
    if processes > 1:
        read = config.load(file)
        shared = Shared(replace(read, receive=replace(read.receive, processes=processes)))

    def start(number: int) -> subprocess.Popen[bytes]:
        inherited = []
        if shared is not None:
            shared.forget(number)
            inherited = ["--inherited", shared.argument(number)]
        with log.open("ab") as target:
            return subprocess.Popen(
                [sys.executable, "-m", "dicomguard.scp", "--config", str(file), *inherited],
                stderr=target,
                stdout=target,
                env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "default"},
                pass_fds=[] if shared is None else shared.descriptors,
            )

    live = LiveReceiver([start(number) for number in range(processes)], port, folder / "state", url, log, start)

    def ready() -> bool:
        assert all(process.poll() is None for process in live.processes), log.read_text()[-2000:]
        return live.opened == processes

    try:
        wait_for(ready, seconds=30, what="the receiver")
        yield live
    finally:
        for process in live.processes:
            end(process)
        if shared is not None:
            shared.close()
        for store in live._stores:
            store.close()


@contextlib.contextmanager
def associated(
    live: LiveReceiver,
    files: list[Path],
    *,
    calling_ae: str = "CT1",
    called_ae: str = "DICOMGUARD",
    answer_s: float = 30.0,
) -> Iterator[Association]:
    """An association of pynetdicom's requestor that proposes what the files need."""
    needed = sorted({(meta.sop_class_uid, meta.transfer_syntax_uid) for meta in map(part10.read_meta, files)})
    contexts: list[PresentationContext] = [build_context(*pair) for pair in needed]
    ae = make_ae(calling_ae)
    ae.dimse_timeout = answer_s
    association = ae.associate("127.0.0.1", live.port, contexts=contexts, ae_title=called_ae)
    try:
        yield association
        if association.is_established:
            association.release()
    finally:
        if association.is_established:
            association.abort()


def send(association: Association, file: Path) -> int | None:
    """C-STORE the file's own bytes; the status word, or None when no answer came."""
    from pynetdicom import _config

    _config.STORE_SEND_CHUNKED_DATASET = True
    try:
        answer = association.send_c_store(file)
    except (RuntimeError, ValueError):
        return None
    return int(answer.Status) if "Status" in answer else None
