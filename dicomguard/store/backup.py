"""A copy of the node that is consistent in itself: databases first, then the files, so that every row has its file.

What was acknowledged before the copy began is in it: in rows and files, or in the receive log of a dead receiver. The
node is only read. Retention is kept away by its lease, which runs out by itself when the backup is killed. A backup
without its `backup.json`, written last, is not finished and is never restored. One that was made `since` another shares
with it what did not change.
"""

import hashlib
import json
import os
import secrets
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy.engine import make_url

from dicomguard import __version__
from dicomguard.clock import Clock
from dicomguard.core.canon import Json
from dicomguard.errors import Refused, Unavailable
from dicomguard.store import audit, dump, leases, log_slots, tables
from dicomguard.store.db import Store, open_store
from dicomguard.store.files import INCOMING, Disk, read_pieces, unavailable
from dicomguard.store.verify.compare import SETTLE_S
from dicomguard.store.verify.findings import Finding, Kind
from dicomguard.store.verify.inspection import Inspection, Inspector

SCHEMA = "dicomguard.backup/1"
DOCUMENT, UNFINISHED, STATE, DUMP = "backup.json", "unfinished", "state", "node.dump"
# Renewed while the copy is made; a killed backup holds retention up no longer than this.
_HELD = timedelta(minutes=10)
_RENEWED_S = 60.0
# A busy filer is behind by less.
_SETTLE_S = 60.0
# Not copied: made anew at each start, or without meaning elsewhere.
_LEFT_OUT = ("jobs", "uploads", "setup-code", "node.sqlite", "work.sqlite")
# What a writer makes before it writes the row.
_AHEAD_OF_ROWS = (Kind.FILE_WITHOUT_ROW, Kind.RESULTS_WITHOUT_REVISION, Kind.SURPLUS_RESULT_FILE)

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """What `backup.json` says."""

    version: str
    # Of the database's tables.
    schema_version: int
    # "sqlite" or "postgresql".
    database: str
    started_at: str
    finished_at: str
    files: int
    bytes: int
    # Of the database file or dump.
    sha256: str
    # Files that an earlier backup had already, and that both now share.
    shared: int = 0

    def to_json(self) -> dict[str, Any]:
        """JSON value."""
        return {"schema": SCHEMA, **asdict(self)}


def make(
    store: Store,
    url: str,
    target: Path,
    *,
    on_progress: Progress,
    since: Path | None = None,
    patience_s: float = _SETTLE_S,
) -> Document:
    """Copy the node into a new folder, up to its `backup.json`; `finish` writes that after the copy was checked.

    Files that the finished backup `since` has are not copied but shared with it, as hard links: each of the two stays
    whole when the other is deleted.
    """
    target = target.resolve()
    earlier = None if since is None else _earlier(since.resolve(), target)
    if target.is_relative_to(store.root) or store.root.is_relative_to(target):
        raise Refused(f"The folder {target} lies in the state folder or around it. Name one elsewhere.")
    if target.exists() and any(target.iterdir()):
        unfinished = " It holds an unfinished backup." if (target / UNFINISHED).exists() else ""
        raise Refused(f"The folder {target} is not empty.{unfinished} Name a new one, or empty it.")
    started = store.clock.now()
    with _retention_paused(store) as renew:
        try:
            files = _files(store.root)
            total = sum(size for path, size in files if not _is_shared(store.root, earlier, path))
            free = store.disk.free_bytes(_existing(target))
            if total > free:
                raise Unavailable(f"The backup takes {total} bytes and {target} has {free} free. Make room there.")
            state = target / STATE
            state.mkdir(mode=0o700, parents=True, exist_ok=True)
            # Until `finish`: its flush has to tell of all that was lost since here.
            store.disk.watch(target)
            write_marker(store.disk, target / UNFINISHED)
            if not log_slots.settle(store.root, patience_s=patience_s):
                # Records of a dead receiver, which the next start files; or the filer is stuck.
                for path, _ in _below(store.root, store.root / log_slots.FOLDER):
                    copy(store.disk, store.root, state, path)
            postgresql = url.startswith("postgresql")
            if postgresql:
                dump.write(url, target / DUMP)
            else:
                copy_sqlite(Path(make_url(url).database or ""), state / "node.sqlite")
                if (store.root / "work.sqlite").is_file():
                    copy_sqlite(store.root / "work.sqlite", state / "work.sqlite")
            # What is younger than the copy of the rows has no row in it.
            until = store.clock.now().timestamp()
            count, done, shared = 0, 0, 0
            for path, size in _files(store.root):
                if path.parts[0] == log_slots.FOLDER:
                    continue
                if earlier is not None and _is_shared(store.root, earlier, path):
                    _share(store.disk, earlier, state, path)
                    count, shared = count + 1, shared + 1
                elif _copied(store, state, path, until):
                    count, done = count + 1, done + size
                on_progress(min(done, total), total)
                renew()
        except OSError as error:
            raise unavailable(error) from error
    return Document(
        version=__version__,
        schema_version=tables.SCHEMA_VERSION,
        database="postgresql" if postgresql else "sqlite",
        started_at=started.isoformat(timespec="seconds"),
        finished_at="",
        files=count,
        bytes=done,
        sha256="",
        shared=shared,
    )


def _earlier(since: Path, target: Path) -> Path:
    """The state in a finished backup whose files can be shared."""
    read(since)
    existing = _existing(target)
    if existing.stat().st_dev != since.stat().st_dev:
        raise Refused(f"{since} lies on another file system than {target}. Name a backup on the same disk.")
    return since / STATE


def _is_shared(root: Path, earlier: Path | None, relative: Path) -> bool:
    """Whether the earlier backup has the file as it is: a kept file never changes, and a copy has its time."""
    if earlier is None:
        return False
    try:
        here, there = (root / relative).stat(), (earlier / relative).stat()
    except FileNotFoundError:
        return False
    return (here.st_size, here.st_mtime_ns) == (there.st_size, there.st_mtime_ns)


def _share(disk: Disk, earlier: Path, state: Path, relative: Path) -> None:
    for folder in reversed(relative.parents):
        disk.make_folder(state / folder)
    os.link(earlier / relative, state / relative)


def check(
    clock: Clock, url: str, target: Path, document: Document, *, full: bool, on_progress: Progress
) -> Inspection | None:
    """Open the copy and go through it; None when a dump could only be read, not put into a database."""
    state = target.resolve() / STATE
    if document.database == "sqlite":
        return _inspect(clock, state, "", document, full=full, on_progress=on_progress)
    with dump.scratch(url) as scratch:
        if scratch is None:
            dump.read_through(target / DUMP)
            return None
        dump.restore(scratch, target / DUMP)
        return _inspect(clock, state, scratch, document, full=full, on_progress=on_progress)


def _inspect(
    clock: Clock, state: Path, url: str, document: Document, *, full: bool, on_progress: Progress
) -> Inspection:
    copied = open_store(state, url, clock)
    try:
        # The leases in the copy are those of the node; nothing runs on it.
        found = Inspector(copied, full=full, on_progress=on_progress, running=False).inspect()
    finally:
        copied.close()
    since = datetime.fromisoformat(document.started_at).timestamp() - SETTLE_S
    left = tuple(finding for finding in found.findings if not _dropped(state, finding, since))
    return replace(found, findings=left)


def _dropped(state: Path, finding: Finding, since: float) -> bool:
    """Take a file out of the copy whose row was on its way when the rows were copied: it came after the start."""
    path = state / finding.place
    if finding.kind not in _AHEAD_OF_ROWS or path.stat().st_mtime < since:
        return False
    path.unlink()
    return True


def finish(store: Store, target: Path, document: Document) -> Document:
    """The copy was checked: flush it and say that it is whole. Raises `Unavailable` where the disk did not keep it."""
    target = target.resolve()
    database = target / DUMP if document.database == "postgresql" else target / STATE / "node.sqlite"
    try:
        store.disk.sync_all(target)
    except OSError as error:
        raise unavailable(error) from error
    finally:
        store.disk.unwatch(target)
    done = replace(document, sha256=file_sha256(database), finished_at=store.clock.now().isoformat(timespec="seconds"))
    path = target / f"{DOCUMENT}.part"
    with store.disk.create(path) as file:
        store.disk.write(file, json.dumps(done.to_json(), indent=1).encode() + b"\n")
        store.disk.sync(file)
    store.disk.rename(path, target / DOCUMENT)
    (target / UNFINISHED).unlink()
    store.disk.sync_folder(target)
    with store.begin() as tx:
        change: dict[str, Json] = {"files": done.files, "bytes": done.bytes, "sha256": done.sha256}
        audit.append(tx, "backup", "store.copied", "node", change, now=store.clock.now())
    return done


def read(folder: Path) -> Document:
    """The document of a finished backup; `Refused` for anything else."""
    try:
        value = json.loads((folder / DOCUMENT).read_text(encoding="utf-8"))
    except FileNotFoundError:
        if (folder / UNFINISHED).exists():
            raise Refused(f"The backup in {folder} was not finished. Take an older one, or make a new one.") from None
        raise Refused(f"{folder} holds no backup. Name a folder that `dicomguard backup` made.") from None
    except (OSError, ValueError) as error:
        raise Refused(f"{folder / DOCUMENT} cannot be read ({type(error).__name__}). Take another backup.") from None
    schema = value.pop("schema", None) if isinstance(value, dict) else None
    if schema != SCHEMA:
        raise Refused(f'The backup in {folder} has schema "{schema}", not "{SCHEMA}". Use the version that made it.')
    document = Document(**value)
    if document.schema_version > tables.SCHEMA_VERSION:
        raise Refused(
            f"The backup has tables of schema {document.schema_version}; this version knows {tables.SCHEMA_VERSION}. "
            f"Install dicomguard {document.version}."
        )
    database = folder / DUMP if document.database == "postgresql" else folder / STATE / "node.sqlite"
    if not database.is_file() or file_sha256(database) != document.sha256:
        raise Refused(f"The database in {folder} is not the one that was backed up. Take another backup.")
    return document


@contextmanager
def _retention_paused(store: Store) -> Iterator[Callable[[], None]]:
    """Hold the lease of retention, and renew it when asked."""
    owner = f"backup-{secrets.token_hex(8)}"
    renewed = store.clock.monotonic()

    def take() -> bool:
        now = store.clock.now()
        with store.begin() as tx:
            return leases.take(tx, leases.RETENTION, owner, now, now + _HELD)

    def renew() -> None:
        nonlocal renewed
        if store.clock.monotonic() - renewed >= _RENEWED_S:
            renewed = store.clock.monotonic()
            if not take():
                raise Unavailable("The lease that keeps retention away was lost. Make the backup again.")

    if not take():
        raise Unavailable("Retention or another backup is running. Try again in a few minutes.")
    try:
        yield renew
    finally:
        with store.begin() as tx:
            leases.release(tx, leases.RETENTION, owner)


def copy_sqlite(source: Path, target: Path, *, still: bool = False) -> None:
    """A snapshot of a database that may be in use (sqlite.org/backup.html), opened and checked.

    `still`: nobody uses it, and it may lie where nothing can be written.
    """
    name = f"{source.absolute().as_uri()}{'?immutable=1' if still else ''}"
    with closing(sqlite3.connect(name, timeout=30, uri=True)) as there, closing(sqlite3.connect(target)) as here:
        there.backup(here)
        (answer,) = here.execute("PRAGMA integrity_check").fetchone()
    if answer != "ok":
        raise Refused(f"The copy of {source.name} is not sound: {str(answer)[:200]}. Look at the disk.")


def _files(root: Path) -> list[tuple[Path, int]]:
    """Paths relative to the root, with sizes, of what is copied."""
    return [
        found
        for top in sorted(root.iterdir())
        if not top.name.startswith(_LEFT_OUT) and top.suffix not in (".lock", ".sock")
        for found in _below(root, top)
        if not found[0].is_relative_to(INCOMING)
    ]


def _below(root: Path, top: Path) -> Iterator[tuple[Path, int]]:
    if top.is_file() and not top.is_symlink():
        yield top.relative_to(root), top.stat().st_size
    for parent, _, names in os.walk(top):
        for name in names:
            path = Path(parent) / name
            try:
                if path.is_file() and not path.is_symlink():
                    yield path.relative_to(root), path.stat().st_size
            except FileNotFoundError:
                continue


def _copied(store: Store, state: Path, relative: Path, until: float) -> bool:
    try:
        if (store.root / relative).stat().st_mtime > until:
            return False
        copy(store.disk, store.root, state, relative)
    except FileNotFoundError:
        # Whatever a row of the copy names cannot go while retention is paused; the check of the copy says if it did.
        return False
    return True


def copy(disk: Disk, source: Path, target: Path, relative: Path) -> None:
    """One file, not flushed: `Disk.sync_all` follows at the end."""
    # From the top down, without the flushes of `files.make_folders`.
    for folder in reversed(relative.parents):
        disk.make_folder(target / folder)
    pieces = read_pieces(source / relative)
    first = next(pieces, b"")
    with disk.create(target / relative) as file:
        disk.write(file, first)
        for piece in pieces:
            disk.write(file, piece)
    # Its age says whether its row was on its way.
    changed = (source / relative).stat().st_mtime_ns
    os.utime(target / relative, ns=(changed, changed))


def write_marker(disk: Disk, path: Path) -> None:
    """An empty file whose name is durable."""
    with disk.create(path) as file:
        disk.sync(file)
    disk.sync_folder(path.parent)


def file_sha256(path: Path) -> str:
    """Of all bytes of a file."""
    digest = hashlib.sha256()
    for piece in read_pieces(path):
        digest.update(piece)
    return digest.hexdigest()


def _existing(path: Path) -> Path:
    while not path.exists():
        path = path.parent
    return path
