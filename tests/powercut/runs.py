"""Real runs of the node under strace: what is sent to it, and the record of what it did."""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from dicomguard import part10
from tests.instances import ROOT as UID_ROOT
from tests.instances import part10_bytes
from tests.killing import dataset_sha256
from tests.peers import free_port, wait_for
from tests.powercut import strace
from tests.powercut.recorder import Recorder
from tests.powercut.trace import Trace
from tests.receiver import LiveReceiver, associated, configuration, send

# Below the folder of a run: what is watched, and in it the state folder of the node.
WATCHED, STATE = "disk", "disk/state"


@dataclass(kw_only=True)
class Sent:
    """What went to the receiver, and what it answered."""

    # SOP Instance UID → SHA-256 of its datasets, in the order of sending.
    datasets: dict[str, list[str]] = field(default_factory=dict)
    statuses: list[int | None] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, file: Path, status: int | None) -> None:
        """One C-STORE that was sent."""
        with self.lock:
            self.datasets.setdefault(part10.read_meta(file).sop_instance_uid, []).append(dataset_sha256(file))
            self.statuses.append(status)


class Recording:
    """One folder, watched over several runs; `installed`: the state folder is there, as a package would leave it."""

    def __init__(self, folder: Path, program: str, *, installed: bool = True) -> None:
        self.folder = folder
        self._program = program
        self._records: list[Path] = []
        self._there = ["state"] if installed else []
        (folder / WATCHED).mkdir(parents=True)
        for name in self._there:
            (folder / WATCHED / name).mkdir(mode=0o700)

    @contextlib.contextmanager
    def run(self, command: Sequence[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
        """A process under strace, which is yielded; both end with the block."""
        record = self.folder / f"record-{len(self._records)}.strace"
        self._records.append(record)
        with log.open("wb") as target:
            tracer = subprocess.Popen(
                [*strace.command(self._program, record), *command],
                stdout=target,
                stderr=target,
                env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"},
            )
        try:
            yield tracer
        finally:
            if tracer.poll() is None:
                signal_traced(tracer, signal.SIGKILL)
            tracer.wait(30)

    @contextlib.contextmanager
    def receiver(self, *, more: str = "") -> Iterator[LiveReceiver]:
        """A live receiver on the watched state folder; the block's end kills it unless it was stopped."""
        port = free_port()
        file = self.folder / "dicomguard.toml"
        file.write_text(configuration(port, more=more).replace('state = "state"', f'state = "{STATE}"'))
        log = self.folder / f"log-{len(self._records)}.jsonl"
        command = [sys.executable, "-m", "dicomguard.scp", "--config", str(file)]
        with self.run(command, log) as tracer:
            live = _Traced(tracer, port, self.folder / STATE, "", log)
            wait_for(lambda: bool(live.events("receiver.opened")), seconds=60, what=f"the receiver, see {log}")
            yield live

    def trace(self) -> Trace:
        """The record of all runs, verified against the folder as it lies there now."""
        recorder = Recorder(self.folder / WATCHED, there=self._there)
        for record in self._records:

            def lines(record: Path = record) -> Iterator[str]:
                with record.open(encoding="ascii", errors="surrogateescape") as file:
                    yield from file

            recorder.read(lines)
        recorder.verify()
        return recorder.trace()


class _Traced(LiveReceiver):
    def kill(self) -> None:
        """The receiver, not its tracer."""
        signal_traced(self.process, signal.SIGKILL)
        self.process.wait(30)

    def stop(self) -> int:
        """Orderly."""
        signal_traced(self.process, signal.SIGTERM)
        return self.process.wait(60)


def signal_traced(tracer: subprocess.Popen[bytes], number: int) -> None:
    """Signal the process that strace started; strace ends with it."""
    children = Path(f"/proc/{tracer.pid}/task/{tracer.pid}/children").read_text().split()
    for child in children:
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(child), number)


# ---- what is sent ---------------------------------------------------------------------------------------------------


def studies(folder: Path, *, senders: int, instances: int, sizes: Sequence[int], seed: int) -> list[list[Path]]:
    """Files for each sender: new instances, and among them a repeat, other pixels, a new header, and rubbish."""
    folder.mkdir(parents=True)
    return [
        _of_sender(folder, sender, instances, sizes, np.random.default_rng([seed, sender])) for sender in range(senders)
    ]


def _of_sender(folder: Path, sender: int, instances: int, sizes: Sequence[int], rng: np.random.Generator) -> list[Path]:
    files: list[Path] = []

    def add(content: bytes) -> None:
        files.append(folder / f"{sender}-{len(files):03d}.dcm")
        files[-1].write_bytes(content)

    for number in range(instances):
        study = f"{UID_ROOT}.9.{sender}.{number // 8}"
        uids = {"study": study, "series": f"{study}.1", "sop": f"{study}.1.{number}"}
        pixels = rng.bytes(int(rng.choice(list(sizes))))
        add(part10_bytes(pixels=pixels, **uids))
        match number % 7:
            case 2:
                add(files[-1].read_bytes())
            case 3:
                add(part10_bytes(pixels=rng.bytes(2_000), **uids))
            case 4:
                add(part10_bytes(pixels=pixels, PatientName="OTHER^NAME", **uids))
            case 5:
                whole = part10_bytes(pixels=pixels, **uids | {"sop": f"{study}.2.{number}"})
                files.append(folder / f"{sender}-{len(files):03d}.dcm")
                files[-1].write_bytes(whole)
                start = part10.dataset_offset(files[-1])
                files[-1].write_bytes(whole[:start] + rng.bytes(3_000))
    return files


def send_all(live: LiveReceiver, files: Sequence[Sequence[Path]], sent: Sent, *, calling_ae: str = "CT1") -> None:
    """Each list on an association of its own, at the same time."""

    def one(mine: Sequence[Path]) -> None:
        with associated(live, list(mine), calling_ae=calling_ae) as association:
            for file in mine:
                sent.note(file, send(association, file))

    threads = [threading.Thread(target=one, args=(mine,)) for mine in files]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)


def memory_folder(beside: Path, stack: contextlib.ExitStack) -> Path:
    """A new folder in memory where the machine has it, else below `beside`; removed with the stack."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        return beside / "states"
    return Path(stack.enter_context(tempfile.TemporaryDirectory(dir=memory)))
