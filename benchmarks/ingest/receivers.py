"""The three receivers as processes on free loopback ports, each with its own empty folder on the same disk."""

import contextlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.ingest.images import MAX_PDU_BYTES
from benchmarks.ingest.sender import CALLING
from demo.ports import free_port, listens
from dicomguard.config import Config
from dicomguard.scp.shared import processes
from tests.conftest import SEARCH
from tests.peers import end, wait_for
from tests.receiver import receiver

# Both Orthanc and DCMTK leave Nagle's algorithm on without it, and answer after 44 ms.
ENVIRONMENT = {**os.environ, "TCP_NODELAY": "1", "OMP_NUM_THREADS": "1"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A receiver that takes associations."""

    name: str
    ae_title: str
    port: int
    pids: list[int]
    folder: Path
    # Instances that have their final file and row.
    settled: Callable[[], int]


def program(name: str) -> str:
    """Path of a program that is not ours; ends the run without it."""
    found = shutil.which(name, path=SEARCH)
    if found is None:
        raise SystemExit(f"{name} is missing: sudo apt-get install orthanc dcmtk strace")
    return found


@contextlib.contextmanager
def dicomguard(folder: Path, *, count: int = 0) -> Iterator[Running]:
    """So many receiver processes of a node (0: as it ships), with one peer and no limits of free space."""
    more = "[storage]\nlow_bytes = 0\nstop_bytes = 0\n"
    count = count or processes(Config())
    with receiver(folder, peers={"bench": (CALLING, "127.0.0.1")}, more=more, processes=count) as live:
        database = live.state / "node.sqlite"

        def settled() -> int:
            with contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=30)) as tx:
                return int(tx.execute("SELECT count(*) FROM instance").fetchone()[0])

        yield Running(
            name="dicomguard",
            ae_title="DICOMGUARD",
            port=live.port,
            pids=[process.pid for process in live.processes],
            folder=live.state,
            settled=settled,
        )


@contextlib.contextmanager
def orthanc(folder: Path) -> Iterator[Running]:
    """Orthanc without plugins, our PDU size, its storage synced (its default)."""
    folder.mkdir(parents=True)
    dicom, http = free_port(), free_port()
    settings = {
        "HttpPort": http,
        "HttpBindAddresses": ["127.0.0.1"],
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "DicomPort": dicom,
        "DicomAet": "ORTHANC",
        "DicomAlwaysAllowStore": True,
        "MaximumPduLength": MAX_PDU_BYTES,
        "SyncStorageArea": True,
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "index"),
        "Plugins": [],
    }
    (folder / "orthanc.json").write_text(json.dumps(settings))

    def settled() -> int:
        with urllib.request.urlopen(f"http://127.0.0.1:{http}/statistics", timeout=20) as answer:
            return int(json.load(answer)["CountInstances"])

    command = [program("Orthanc"), str(folder / "orthanc.json")]
    with _started(command, folder, lambda: listens(dicom) and listens(http)) as pid:
        yield Running(name="Orthanc", ae_title="ORTHANC", port=dicom, pids=[pid], folder=folder, settled=settled)


@contextlib.contextmanager
def storescp(folder: Path) -> Iterator[Running]:
    """DCMTK's storescp with a process an association, which is its quickest way."""
    held = folder / "held"
    held.mkdir(parents=True)
    port = free_port()
    command = [program("storescp"), "--fork", "-od", str(held), "-aet", "STORESCP", "-pdu", str(MAX_PDU_BYTES)]

    def settled() -> int:
        return sum(1 for _ in held.iterdir())

    with _started([*command, str(port)], folder, lambda: listens(port)) as pid:
        yield Running(name="storescp", ae_title="STORESCP", port=port, pids=[pid], folder=folder, settled=settled)


@contextlib.contextmanager
def _started(command: list[str], folder: Path, ready: Callable[[], bool]) -> Iterator[int]:
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=ENVIRONMENT, cwd=folder)
    try:
        wait_for(ready, seconds=30, what=command[0])
        yield process.pid
    finally:
        end(process)


ALL = {"dicomguard": dicomguard, "Orthanc": orthanc, "storescp": storescp}


def wait_until_settled(running: Running, count: int, *, seconds: float = 120.0) -> float:
    """Seconds until `count` instances have their file and row."""
    began = time.monotonic()
    wait_for(lambda: running.settled() >= count, seconds=seconds, what=f"the last instance of {running.name}")
    return time.monotonic() - began


def processor_s(running: Running) -> float:
    """Processor seconds of the receiver so far, with the processes that it has forked and reaped (proc(5))."""
    ticks = 0
    for pid in running.pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += sum(int(field) for field in fields[11:15])
    return ticks / os.sysconf("SC_CLK_TCK")


def versions() -> dict[str, str]:
    """Of everything that the figures depend on."""
    import pynetdicom

    import dicomguard as ours

    def first_line(*command: str) -> str:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
        return (done.stdout or done.stderr).splitlines()[0].strip("$ ")

    return {
        "dicomguard": ours.__version__,
        "Orthanc": first_line(program("Orthanc"), "--version"),
        "storescp": first_line(program("storescp"), "--version"),
        "Python": sys.version.split()[0],
        "pynetdicom": pynetdicom.__version__,
        "kernel": os.uname().release,
        "processors": str(os.cpu_count()),
        "TCP_NODELAY": f"{ENVIRONMENT['TCP_NODELAY']} for Orthanc and storescp, set by our receiver and by the sender",
        "PDU": f"{MAX_PDU_BYTES} bytes",
    }
