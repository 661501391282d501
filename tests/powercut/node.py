"""Start the node on what a power cut left, as the receiver starts, and hold it to its word.

Recovery is the product's; the checks read database and files on their own, so that a fault of the store's readers
cannot hide one of its writers.
"""

import hashlib
import sqlite3
from collections.abc import Collection, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy.exc import SQLAlchemyError

from dicomguard.clock import SystemClock
from dicomguard.errors import DicomguardError
from dicomguard.store.db import open_store
from dicomguard.store.replay import open_log

# Preamble, prefix and the group length element (PS3.10 7.1).
_META_LENGTH, _META = 140, 144


@dataclass(frozen=True, slots=True, kw_only=True)
class Promise:
    """What the node had given its word for when the power went."""

    # SOP Instance UID and SHA-256 of the dataset.
    acknowledged: Collection[tuple[str, str]]
    # SOP Instance UIDs of results whose sending had begun.
    announced: Collection[str] = ()


def faults(state: Path, promise: Promise) -> list[str]:
    """Recover the node on this state folder; sentences about what is missing, torn or unreadable."""
    try:
        recover(state)
        with closing(sqlite3.connect(state / "node.sqlite")) as database:
            database.row_factory = sqlite3.Row
            return [
                *_damaged(database),
                *_missing(database, promise),
                *_torn(database, state),
                *_results(database, state, promise),
            ]
    except (DicomguardError, OSError, sqlite3.Error, SQLAlchemyError) as error:
        return [f"the node does not start: {type(error).__name__}: {error}"]


def recover(state: Path) -> None:
    """What `scp.process` does before it opens the port."""
    store = open_store(state, "", SystemClock())
    try:
        open_log(store, segments=0, segment_bytes=0)
    finally:
        store.close()


def _damaged(database: sqlite3.Connection) -> Iterator[str]:
    (answer,) = database.execute("PRAGMA integrity_check").fetchone()
    if answer != "ok":
        yield f"the database is damaged: {answer}"
    if database.execute("PRAGMA foreign_key_check").fetchone() is not None:
        yield "the database holds a row whose parent is gone"


def _missing(database: sqlite3.Connection, promise: Promise) -> Iterator[str]:
    kept = {(row["sop_uid"], row["sha256"]) for row in database.execute("SELECT sop_uid, sha256 FROM instance")}
    for sop_uid, sha256 in promise.acknowledged:
        if (sop_uid, sha256) not in kept:
            yield f"an acknowledged instance has no row: {sop_uid}"


def _torn(database: sqlite3.Connection, state: Path) -> Iterator[str]:
    """Every row has its whole file; every file under a final name is whole, whether a row knows it or not."""
    rows = database.execute("SELECT * FROM instance").fetchall()
    studies = {row["study_key"] for row in database.execute("SELECT study_key FROM study")}
    for row in rows:
        path = state / row["path"]
        if not path.is_file():
            yield f"a row without its file: {row['path']}"
        elif _dataset_sha256(path) != row["sha256"]:
            yield f"a torn file behind a row: {row['path']}"
        if row["state"] != "quarantined" and row["study_key"] not in studies:
            yield f"a row without its study: {row['sop_uid']}"
    known = {row["path"] for row in rows}
    for folder in ("store", "quarantine"):
        for path in (state / folder).rglob("*.dcm"):
            if str(path.relative_to(state)) not in known and _dataset_sha256(path) != path.stem:
                yield f"a torn file without a row: {path.name}"


def _results(database: sqlite3.Connection, state: Path, promise: Promise) -> Iterator[str]:
    results = database.execute("SELECT * FROM result").fetchall()
    kept = {row["sop_uid"] for row in results}
    for sop_uid in promise.announced:
        if sop_uid not in kept:
            yield f"a result was on its way and has no row: {sop_uid}"
    for row in (*results, *database.execute("SELECT path, verdict_sha256 AS sha256 FROM analysis")):
        path = state / row["path"]
        if not path.is_file():
            yield f"a result's row without its file: {row['path']}"
        elif hashlib.sha256(path.read_bytes()).hexdigest() != row["sha256"]:
            yield f"a torn result: {row['path']}"


def _dataset_sha256(path: Path) -> str:
    """Of what follows the file meta information; of a torn head it is the hash of something else."""
    content = path.read_bytes()
    start = _META + int.from_bytes(content[_META_LENGTH:_META], "little")
    return hashlib.sha256(content[start:]).hexdigest()
