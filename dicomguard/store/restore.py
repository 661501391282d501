"""A finished backup into an empty state folder: files first, the database last, then the node may start again.

Until all is there a marker lies in the folder; a restore that was cut off is begun again from an empty folder.
"""

from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import func, select
from sqlalchemy.engine import make_url

from dicomguard.errors import Refused
from dicomguard.store import audit, backup, dump
from dicomguard.store.db import UNFINISHED_RESTORE as MARKER
from dicomguard.store.db import Store
from dicomguard.store.files import Disk, unavailable
from dicomguard.store.tables import delivery, revision

# What the lock of a node that was refused, or a file system of its own, leaves in an empty folder.
_NOTHING = frozenset({"node.lock", "lost+found"})
_SQLITE = ("node.sqlite", "work.sqlite")


def restore(source: Path, state: Path, url: str, *, disk: Disk, on_progress: backup.Progress) -> backup.Document:
    """Put everything in its place; the caller holds the lock of the state folder and verifies afterwards."""
    document = backup.read(source)
    postgresql = url.startswith("postgresql")
    if postgresql != (document.database == "postgresql"):
        raise Refused(
            f"The backup is of a {document.database} database, the configuration names the other kind. "
            "Set [database] url to the kind of the backup."
        )
    _check_empty(state, url)
    copied = source / backup.STATE
    files = [path.relative_to(copied) for path in sorted(copied.rglob("*")) if path.is_file()]
    try:
        disk.watch(state)
        backup.write_marker(disk, state / MARKER)
        for number, relative in enumerate(files):
            if str(relative) not in _SQLITE:
                backup.copy(disk, copied, state, relative)
            on_progress(number, len(files))
        if postgresql:
            dump.restore(url, source / backup.DUMP)
        else:
            if (copied / "work.sqlite").is_file():
                backup.copy_sqlite(copied / "work.sqlite", state / "work.sqlite", still=True)
            backup.copy_sqlite(copied / "node.sqlite", Path(make_url(url).database or ""), still=True)
        disk.sync_all(state)
        (state / MARKER).unlink()
        disk.sync_folder(state)
    except OSError as error:
        raise unavailable(error) from error
    finally:
        disk.unwatch(state)
    on_progress(len(files), len(files))
    return document


def note(store: Store, document: backup.Document) -> None:
    """Into the audit chain: what follows did not happen in one go with what stands before."""
    with store.begin() as tx:
        change = {"started_at": document.started_at, "version": document.version}
        audit.append(tx, "restore", "store.restored", "node", change, now=store.clock.now())


def _check_empty(state: Path, url: str) -> None:
    if (state / MARKER).exists():
        raise Refused(f"A restore into {state} was not finished. Empty the folder, then restore again.")
    found = sorted(path.name for path in state.iterdir() if path.name not in _NOTHING)
    if found:
        raise Refused(f"The state folder {state} is not empty: it holds {found[0]}. Move it away first.")
    if url.startswith("postgresql"):
        if not dump.is_empty(url):
            raise Refused("The database holds a node already. Name an empty one in [database] url.")
    elif Path(make_url(url).database or "").exists():
        raise Refused(f"The database {make_url(url).database} exists already. Move it away first.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Resumed:
    """What a restored node does again."""

    # Deliveries that were not over at the backup: they go out (again), with the bytes and UIDs that were kept.
    deliveries: int
    # Revisions that were not built at the backup: they are judged (again).
    revisions: int


def resumed(store: Store, before_delivery: tuple[str, ...]) -> Resumed:
    """Count what the restored node takes up."""
    with store.read() as tx:
        waiting = tx.execute(select(func.count()).where(delivery.c.next_at.is_not(None))).scalar_one()
        open_revisions = tx.execute(select(func.count()).where(revision.c.state.in_(before_delivery))).scalar_one()
    return Resumed(deliveries=waiting, revisions=open_revisions)
