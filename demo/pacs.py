"""A PACS for the demonstration: Orthanc when it is installed, else DCMTK's storescp."""

import contextlib
import json
import os
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import pydicom

from demo.ports import free_port, listens

PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin"])


def wait_until(ready: Callable[[], bool], *, seconds: float, what: str) -> None:
    """Poll until ready, or end the demonstration with what was waited for."""
    deadline = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > deadline:
            raise SystemExit(f"demo: {what} did not come within {seconds:.0f} s.")
        time.sleep(0.2)


@dataclass(frozen=True)
class Pacs:
    """What the demonstration asks of a PACS."""

    name: str
    ae_title: str
    port: int
    # Result objects of a study, as the PACS holds them.
    results: Callable[[str], list[pydicom.FileDataset]]


def end(process: subprocess.Popen[bytes]) -> None:
    """Ask a process to stop, then kill it."""
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(20)
    if process.poll() is None:
        process.kill()


@contextlib.contextmanager
def start(folder: Path) -> Iterator[Pacs]:
    """The best PACS there is, its files below `folder`."""
    folder.mkdir(parents=True)
    if program := shutil.which("Orthanc", path=PATH):
        with _orthanc(program, folder) as pacs:
            yield pacs
    elif program := shutil.which("storescp", path=PATH):
        with _storescp(program, folder) as pacs:
            yield pacs
    else:
        raise SystemExit(
            "demo: neither Orthanc nor storescp was found. Install one: sudo apt-get install orthanc dcmtk"
        )


@contextlib.contextmanager
def _orthanc(program: str, folder: Path) -> Iterator[Pacs]:
    dicom, http = free_port(), free_port()
    settings = {
        "HttpPort": http,
        "HttpBindAddresses": ["127.0.0.1"],
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "DicomPort": dicom,
        "DicomAet": "PACS",
        "DicomAlwaysAllowStore": True,
        "DicomAlwaysAllowEcho": True,
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "index"),
        "Plugins": [],
    }
    (folder / "orthanc.json").write_text(json.dumps(settings))

    def ask(path: str, body: object = None) -> bytes:
        data = None if body is None else json.dumps(body).encode()
        with urllib.request.urlopen(urllib.request.Request(f"http://127.0.0.1:{http}{path}", data=data)) as answer:
            return bytes(answer.read())

    def results(study: str) -> list[pydicom.FileDataset]:
        query = {"Level": "Instance", "Query": {"StudyInstanceUID": study, "Modality": "SR\\SEG"}}
        found = json.loads(ask("/tools/find", query))
        return [pydicom.dcmread(BytesIO(ask(f"/instances/{key}/file"))) for key in found]

    with (folder / "orthanc.log").open("wb") as log:
        process = subprocess.Popen([program, str(folder / "orthanc.json")], stdout=log, stderr=log, cwd=folder)
    try:
        wait_until(lambda: listens(dicom) and listens(http), seconds=60, what="Orthanc")
        version = json.loads(ask("/system"))["Version"]
        yield Pacs(f"Orthanc {version}", "PACS", dicom, results)
    finally:
        end(process)


@contextlib.contextmanager
def _storescp(program: str, folder: Path) -> Iterator[Pacs]:
    port, held = free_port(), folder / "held"
    held.mkdir()

    def results(study: str) -> list[pydicom.FileDataset]:
        found = [pydicom.dcmread(path) for path in sorted(held.iterdir())]
        return [one for one in found if one.StudyInstanceUID == study and one.Modality in ("SR", "SEG")]

    process = subprocess.Popen(
        [program, "-od", str(held), "-aet", "PACS", str(port)], env={**os.environ, "TCP_NODELAY": "1"}
    )
    try:
        wait_until(lambda: listens(port), seconds=30, what="storescp")
        yield Pacs("DCMTK storescp", "PACS", port, results)
    finally:
        end(process)
