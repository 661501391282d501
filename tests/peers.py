"""Real programs on free loopback ports: Orthanc, DCMTK's storescp, PostgreSQL. Each is ended with its `with`."""

import contextlib
import getpass
import json
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from demo.ports import free_port, listens

Need = Callable[[str, str], str]


def wait_for(ready: Callable[[], bool], *, seconds: float = 20.0, what: str = "it") -> None:
    """Poll until ready, or fail with what was waited for."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if ready():
            return
        time.sleep(0.05)
    raise AssertionError(f"{what} was not ready within {seconds} s")


def end(process: subprocess.Popen[bytes], *, seconds: float = 10.0) -> None:
    """Ask a process to stop, then kill it."""
    if process.poll() is None:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(seconds)
    if process.poll() is None:
        process.kill()
        process.wait(seconds)


@dataclass(frozen=True)
class Storescp:
    """DCMTK's storescp."""

    ae_title: str
    port: int
    # Where each received instance becomes a file.
    folder: Path

    def files(self) -> list[Path]:
        """Received files."""
        return sorted(path for path in self.folder.rglob("*") if path.is_file())


@contextlib.contextmanager
def storescp(
    need: Need, folder: Path, *, ae_title: str = "ARCHIVE", options: tuple[str, ...] = ()
) -> Iterator[Storescp]:
    """Start storescp; `options` go to its command line."""
    program = need("storescp", "dcmtk")
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    process = subprocess.Popen(
        [program, "-od", str(folder), "-aet", ae_title, *options, str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "TCP_NODELAY": "1"},
    )
    try:
        wait_for(lambda: listens(port), what="storescp")
        yield Storescp(ae_title, port, folder)
    finally:
        end(process)


@dataclass(frozen=True)
class Orthanc:
    """A running Orthanc."""

    ae_title: str
    port: int
    http: int

    def get(self, path: str) -> Any:
        """JSON of a REST resource."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.http}{path}", timeout=20) as answer:
            return json.load(answer)

    def get_bytes(self, path: str) -> bytes:
        """Bytes of a REST resource."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.http}{path}", timeout=20) as answer:
            return bytes(answer.read())

    def post(self, path: str, body: bytes | dict[str, Any] | list[Any]) -> Any:
        """POST bytes (a DICOM file) or JSON."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.http}{path}", data=data, method="POST")
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)

    def delete(self, path: str) -> None:
        """DELETE a REST resource."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.http}{path}", method="DELETE")
        with urllib.request.urlopen(request, timeout=20):
            pass

    def instances(self, modality: str) -> list[str]:
        """Orthanc ids of all instances of a modality."""
        query = {"Level": "Instance", "Query": {"Modality": modality}}
        return list(self.post("/tools/find", query))


@contextlib.contextmanager
def orthanc(
    need: Need, folder: Path, *, ae_title: str = "ORTHANC", modalities: dict[str, list[Any]] | None = None,
    settings: dict[str, Any] | None = None,
) -> Iterator[Orthanc]:  # fmt: skip
    """Start Orthanc with its index in `folder`; `settings` are added to its configuration."""
    program = need("Orthanc", "orthanc")
    folder.mkdir(parents=True, exist_ok=True)
    dicom, http = free_port(), free_port()
    configuration = {
        "Name": "test",
        "HttpPort": http,
        "HttpBindAddresses": ["127.0.0.1"],
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "DicomPort": dicom,
        "DicomAet": ae_title,
        "DicomAlwaysAllowEcho": True,
        "DicomAlwaysAllowStore": True,
        "DicomCheckCalledAet": False,
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "index"),
        "StableAge": 2,
        "DicomModalities": modalities or {},
        "Plugins": [],
        **(settings or {}),
    }
    path = folder / "orthanc.json"
    path.write_text(json.dumps(configuration))
    with (folder / "orthanc.log").open("wb") as log:
        process = subprocess.Popen(
            [program, str(path)], stdout=log, stderr=log, env={**os.environ, "TCP_NODELAY": "1"}, cwd=folder
        )
    peer = Orthanc(ae_title, int(configuration["DicomPort"]), http)

    def ready() -> bool:
        assert process.poll() is None, (folder / "orthanc.log").read_text()[-2000:]
        with contextlib.suppress(urllib.error.URLError, OSError):
            peer.get("/system")
            return listens(peer.port)
        return False

    try:
        wait_for(ready, seconds=30, what="Orthanc")
        yield peer
    finally:
        end(process)


@dataclass(frozen=True)
class Postgres:
    """A running cluster of its own."""

    port: int
    # SQLAlchemy URL of the database "postgres"; trust on loopback.
    url: str
    data: Path
    _start: Callable[[], None]
    _stop: Callable[[str], None]

    def kill(self) -> None:
        """Stop without a checkpoint, as a crash would."""
        self._stop("immediate")

    def start(self) -> None:
        """Start again after `kill`."""
        self._start()

    def create(self, name: str) -> str:
        """Make an empty database and return its URL."""
        from sqlalchemy import create_engine, text

        engine = create_engine(self.url, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.execute(text(f'CREATE DATABASE "{name}"'))
        engine.dispose()
        return self.url.rsplit("/", 1)[0] + f"/{name}"


@contextlib.contextmanager
def postgres(need: Need) -> Iterator[Postgres]:
    """Start a cluster as the user postgres when we are root (it refuses root), else as ourselves."""
    initdb, pg_ctl = need("initdb", "postgresql"), need("pg_ctl", "postgresql")
    # Not below pytest's folder: the user postgres could not enter it.
    folder = Path(tempfile.mkdtemp(prefix="dicomguard-postgres-"))
    user = "postgres" if os.getuid() == 0 else getpass.getuser()
    account = pwd.getpwnam(user)
    identity = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []} if os.getuid() == 0 else {}
    os.chown(folder, account.pw_uid, account.pw_gid)
    data, port = folder / "data", free_port()

    def call(*arguments: str) -> None:
        done = subprocess.run(
            arguments, cwd=folder, capture_output=True, text=True, timeout=60, check=False, **identity  # type: ignore[call-overload]
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr

    def start() -> None:
        options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder} -c max_connections=200"
        # pg_ctl leaves the server behind: its output must not hold our pipes open.
        call(pg_ctl, "-D", str(data), "-w", "-l", str(folder / "log"), "-o", options, "start")

    def stop(mode: str) -> None:
        call(pg_ctl, "-D", str(data), "-m", mode, "-w", "stop")

    try:
        call(initdb, "-D", str(data), "-U", "dicomguard", "-A", "trust", "-E", "UTF8", "--no-locale", "-N")
        start()
        url = f"postgresql+psycopg://dicomguard@127.0.0.1:{port}/postgres"
        yield Postgres(port, url, data, start, stop)
    finally:
        with contextlib.suppress(AssertionError):
            stop("immediate")
        shutil.rmtree(folder, ignore_errors=True)


def kill(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL, as a power cut for a process."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(process.pid, signal.SIGKILL)
    process.wait(20)
