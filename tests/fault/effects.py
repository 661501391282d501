"""The doors through which a process changes the world, counted: it can be stopped before or after its n-th effect.

Files below the state folder, commits that changed rows (ours and those of the workflow engine), associations and the
PDUs that are written on them, and children that are started. The doors are those of the libraries (`os`, `socket`,
SQLAlchemy, pynetdicom), so nothing in the product has to call them, and new code cannot forget to. Not counted:
heartbeats and leases, which only say that the process lives, and what SQLite and PostgreSQL do inside a commit.
"""

import functools
import os
import re
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

Moment = Literal["before", "after"]
# A process renews these by the clock; a stop there is a stop between two other effects.
HEARTBEATS = {"executor", "lease"}
# PS3.8 9.3.
PDUS = {
    1: "A-ASSOCIATE-RQ", 2: "A-ASSOCIATE-AC", 3: "A-ASSOCIATE-RJ", 4: "P-DATA-TF",
    5: "A-RELEASE-RQ", 6: "A-RELEASE-RP", 7: "A-ABORT",
}  # fmt: skip
_WRITES = re.compile(r"\s*(?:WITH\b.*?\)\s*)?(INSERT\s+INTO|UPDATE|DELETE\s+FROM)\s+([\w.\"]+)", re.I | re.S)
# Keys, hashes and temporary names.
_CHANGING = re.compile(r"[0-9a-f]{12,}|\d{4}/\d{2}/\d{2}|\d{4,}")


class Effects:
    """Counts, writes each name down, and stops the process at the one of that number, or the first of that name."""

    def __init__(self, trace: Path, *, stop_at: int | str = 0, moment: Moment = "before") -> None:
        self._trace = os.open(trace, os.O_CREAT | os.O_APPEND | os.O_WRONLY)
        self._stop = (stop_at, moment)
        self._lock = threading.Lock()
        self._count = 0

    @contextmanager
    def point(self, name: str) -> Iterator[None]:
        """Around one effect."""
        with self._lock:
            self._count += 1
            number = self._count
            os.write(self._trace, f"{name}\n".encode())
        self._die(number, name, "before")
        try:
            yield
        finally:
            self._die(number, name, "after")

    def _die(self, number: int, name: str, moment: Moment) -> None:
        if self._stop in ((number, moment), (name, moment)):
            os.kill(os.getpid(), signal.SIGKILL)


def watch(effects: Effects, root: Path) -> None:
    """Put the counter into every door of this process; `root` is the state folder."""
    _watch_files(effects, str(root.resolve()) + "/")
    _watch_commits(effects)
    _watch_associations(effects)
    _door(effects, subprocess, "Popen", lambda *_, **__: "start a child")


def _door(effects: Effects, owner: Any, name: str, describe: Callable[..., str | None]) -> None:
    original = getattr(owner, name)

    @functools.wraps(original)
    def through(*args: Any, **options: Any) -> Any:
        said = describe(*args, **options)
        if said is None:
            return original(*args, **options)
        with effects.point(said):
            return original(*args, **options)

    setattr(owner, name, through)


def _watch_files(effects: Effects, root: str) -> None:
    readlink = os.readlink

    def below(path: Any, folder: int | None = None) -> str | None:
        text = readlink(f"/proc/self/fd/{path}") if isinstance(path, int) else os.fspath(path)
        if folder is not None:
            text = f"{readlink(f'/proc/self/fd/{folder}')}/{text}"
        return _CHANGING.sub("*", text.removeprefix(root)) if text.startswith(root) else None

    def said(verb: str, place: int) -> Callable[..., str | None]:
        def describe(*args: Any, dir_fd: int | None = None, **_: Any) -> str | None:
            name = below(args[place], dir_fd)
            return None if name is None else f"{verb} {name}"

        return describe

    def opened(path: Any, flags: int, *_: Any, dir_fd: int | None = None, **__: Any) -> str | None:
        name = below(path, dir_fd) if flags & os.O_CREAT else None
        return None if name is None else f"create {name}"

    _door(effects, os, "open", opened)
    for name, verb, place in (
        ("fsync", "sync", 0), ("fdatasync", "sync", 0), ("ftruncate", "truncate", 0),
        ("pwrite", "write", 0), ("pwritev", "write", 0), ("writev", "write", 0),
        ("rename", "rename to", 1), ("replace", "rename to", 1), ("link", "link", 1),
        ("mkdir", "make folder", 0), ("unlink", "remove", 0), ("remove", "remove", 0), ("rmdir", "remove folder", 0),
    ):  # fmt: skip
        _door(effects, os, name, said(verb, place))


def _watch_commits(effects: Effects) -> None:
    from sqlalchemy import Engine, event
    from sqlalchemy.engine.default import DefaultDialect

    # By connection of the driver: what its open transaction wrote, in order; SQLite's count of changes so far.
    written: dict[int, dict[str, None]] = {}
    changes: dict[int, int] = {}

    @event.listens_for(Engine, "after_cursor_execute")
    def note(connection: Any, cursor: Any, statement: str, _parameters: Any, _context: Any, _many: bool) -> None:
        found = _WRITES.match(statement)
        driver = connection.connection.dbapi_connection
        # SQLite knows the count only when the rows of RETURNING are read: `commit` looks again.
        if found and (cursor.rowcount != 0 or hasattr(driver, "total_changes")):
            table = found[2].replace('"', "").rsplit(".", 1)[-1]
            written.setdefault(id(driver), {})[f"{found[1].split()[0].lower()} {table}"] = None

    def commit(_dialect: Any, connection: Any) -> str | None:
        driver = getattr(connection, "dbapi_connection", connection)
        telling = [name for name in written.pop(id(driver), {}) if name.split()[1] not in HEARTBEATS]
        before = changes.get(id(driver), 0)
        changes[id(driver)] = getattr(driver, "total_changes", before + 1)
        return f"commit: {', '.join(telling)}" if telling and changes[id(driver)] != before else None

    def roll_back(_dialect: Any, connection: Any) -> None:
        written.pop(id(getattr(connection, "dbapi_connection", connection)), None)

    _door(effects, DefaultDialect, "do_commit", commit)
    _door(effects, DefaultDialect, "do_rollback", roll_back)


def _watch_associations(effects: Effects) -> None:
    from pynetdicom.ae import ApplicationEntity
    from pynetdicom.association import Association

    _door(effects, ApplicationEntity, "associate", lambda *_, **__: "associate")
    _door(effects, Association, "send_c_store", lambda *_, **__: "send and hear the answer")
    _door(effects, Association, "send_n_action", lambda *_, **__: "ask and hear the answer")
    _door(effects, Association, "send_n_event_report", lambda *_, **__: "report and hear the answer")
    _door(effects, Association, "release", lambda *_, **__: "release")

    def pdu(connection: socket.socket, content: bytes, *_: Any) -> str | None:
        return f"PDU {PDUS.get(content[0], 'in part')}" if connection.family == socket.AF_INET and content else None

    for name in ("send", "sendall"):
        _door(effects, socket.socket, name, pdu)
