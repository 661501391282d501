"""Real runs of the node under strace: what is sent to it, and the record of what it did."""

import contextlib
import io
import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import pytest
from pydicom.uid import UID
from pynetdicom.dimse_messages import C_STORE_RQ
from pynetdicom.dimse_primitives import C_STORE

from demo.ports import free_port
from dicomguard import part10
from tests.fault import world
from tests.instances import ROOT as UID_ROOT
from tests.instances import part10_bytes
from tests.killing import dataset_sha256
from tests.peers import wait_for
from tests.powercut import strace
from tests.powercut.recorder import Recorder, look
from tests.powercut.trace import Trace, Tree
from tests.receiver import LiveReceiver, associated, configuration, send

# Below the folder of a run: what is watched, and in it the state folder of the node.
WATCHED, STATE = "disk", "disk/state"
# Receivers: with small segments that are used again and again and a spill that sends the largest past them; and without
# a log, each instance in the literal order.
_STORAGE = "[storage]\nlow_bytes = 0\nstop_bytes = 0\n{}"
RECEIVERS = {
    "log": _STORAGE.format("log_segments = 3\nlog_segment_bytes = 262144\nlog_spill_bytes = 100000\n"),
    "literal": _STORAGE.format("log_segments = 0\n"),
}
# Bytes of pixels: some need one write, some more.
SIZES = (1_000, 20_000, 130_000)


def tracer(need: Callable[[str, str], str]) -> str:
    """Path of strace, or the test is skipped: also where the machine lets nobody trace, as some containers do."""
    path = need("strace", "strace")
    if subprocess.run([path, "-f", "-o", os.devnull, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("strace may not trace a process here: allow ptrace")
    return path


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
    """A folder whose part `disk` is watched over several runs; what lies there before the first is durable."""

    def __init__(self, folder: Path, program: str) -> None:
        self.folder = folder
        self._program = program
        self._records: list[Path] = []
        self._before: Tree = {}
        (folder / WATCHED).mkdir(parents=True)

    @property
    def watched(self) -> Path:
        """The folder that is recorded."""
        return self.folder / WATCHED

    def install(self) -> Path:
        """Make the state folder, as a package would; returns it."""
        state = self.folder / STATE
        state.mkdir(mode=0o700)
        return state

    @contextlib.contextmanager
    def run(self, command: Sequence[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
        """A process under strace, which is yielded; both end with the block."""
        if not self._records:
            self._before = look(self.folder / WATCHED)
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
            live = _Traced([tracer], port, self.folder / STATE, "", log, lambda _: tracer)
            wait_for(lambda: bool(live.events("receiver.opened")), seconds=60, what=f"the receiver, see {log}")
            yield live

    @contextlib.contextmanager
    def worker(self, plan: world.Plan) -> Iterator[subprocess.Popen[bytes]]:
        """A worker of `tests.fault.world` on the watched state folder."""
        command = [sys.executable, "-m", "tests.fault.world", json.dumps(asdict(plan))]
        with self.run(command, self.folder / f"log-{len(self._records)}.jsonl") as tracer:
            yield tracer

    def trace(self) -> Trace:
        """The record of all runs, verified against the folder as it lies there now."""
        recorder = Recorder(self.folder / WATCHED, before=self._before)
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
        _of_sender(folder, f"{seed}.{sender}", instances, sizes, np.random.default_rng([seed, sender]))
        for sender in range(senders)
    ]


def _of_sender(folder: Path, name: str, instances: int, sizes: Sequence[int], rng: np.random.Generator) -> list[Path]:
    """No two senders, and no two calls with different seeds, share a UID."""
    files: list[Path] = []

    def add(content: bytes) -> None:
        files.append(folder / f"{name}-{len(files):03d}.dcm")
        files[-1].write_bytes(content)

    for number in range(instances):
        study = f"{UID_ROOT}.9.{name}.{number // 8}"
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
                files.append(folder / f"{name}-{len(files):03d}.dcm")
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


def send_until(live: LiveReceiver, files: Sequence[Sequence[Path]], sent: Sent, *, after: int) -> None:
    """As `send_all`, but the receiver is killed when it has given that many answers."""
    wanted = len(sent.statuses) + after

    def one(mine: Sequence[Path]) -> None:
        with associated(live, list(mine), answer_s=2.0) as association:
            for file in mine:
                if association.is_established:
                    sent.note(file, send(association, file))

    threads = [threading.Thread(target=one, args=(mine,)) for mine in files]
    for thread in threads:
        thread.start()
    wait_for(lambda: len(sent.statuses) >= wanted, seconds=60, what=f"{after} answers")
    live.kill()
    for thread in threads:
        thread.join(120)


def abort(live: LiveReceiver, file: Path, *, pdus: int) -> None:
    """Begin to send an instance, and abort after some PDUs."""
    meta = part10.read_meta(file)
    request = C_STORE()
    request.MessageID = 1
    request.Priority = 2
    request.AffectedSOPClassUID = UID(meta.sop_class_uid)
    request.AffectedSOPInstanceUID = UID(f"{UID_ROOT}.66")
    request.DataSet = io.BytesIO(bytes(200_000))
    message = C_STORE_RQ()
    message.primitive_to_message(request)
    with associated(live, [file]) as association:
        parts = message.encode_msg(association.accepted_contexts[0].context_id, 16_382)
        for part in itertools.islice(parts, pdus):
            association.dul.send_pdu(part)
        association.abort()


def memory_folder(beside: Path, stack: contextlib.ExitStack) -> Path:
    """A new folder in memory where the machine has it, else below `beside`; removed with the stack."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        return beside / "states"
    return Path(stack.enter_context(tempfile.TemporaryDirectory(dir=memory)))
