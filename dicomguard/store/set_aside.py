"""Acknowledged instances that a fault of ours keeps from getting file and row.

They leave the receive log, so that it goes on, and lie here whole with what their record said. A later version tries
them again at its start, and `verify --repair` at any time. Nothing here is ever deleted but by filing it.
"""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dicomguard import __version__, log
from dicomguard.errors import Broken, Unavailable
from dicomguard.store import backlog
from dicomguard.store.arrival import Outcome
from dicomguard.store.backlog import Item
from dicomguard.store.db import Store
from dicomguard.store.files import write_durably
from dicomguard.store.log_records import Logged, dataset_sha256

FOLDER = "set-aside"
# Fault of one whose filing ended the process.
KILLED = "killed the receiver"
_KILLED = (
    "Each attempt to file it ended the receiver. Look in the kernel's log whether memory ran out. Its bytes are kept; "
    "`dicomguard verify --repair` tries it again."
)

_LOG = log.get("store")


@dataclass(frozen=True, slots=True, kw_only=True)
class SetAside:
    """One of them. Its file is a Part 10 file under the hash of its dataset."""

    record: Logged
    # Kind of the fault, and the version that has it.
    fault: str
    version: str

    @property
    def path(self) -> str:
        """Of the file, relative to the root."""
        return f"{FOLDER}/{self.record.segment.name}"

    @property
    def is_whole(self) -> bool:
        """Whether the bytes are those that were acknowledged."""
        try:
            return dataset_sha256(self.record) == self.record.sha256
        except OSError:
            return False


def file_singly(store: Store, item: Item) -> Outcome | None:
    """`backlog.file_singly`; an instance that a fault of ours stops is put here, and None comes back."""
    try:
        return backlog.file_singly(store, item)
    except Unavailable:
        raise
    except Exception as error:  # noqa: BLE001 -- the top of filing: one record must not stop the others
        put(store, item.record, error)
        return None


def put(store: Store, record: Logged, fault: BaseException) -> None:
    """Durable when it returns, so that the record can leave the log; doing it twice changes nothing."""
    _LOG.crashed("instance.set_aside")
    _put(store, record, type(fault).__name__)


def put_killer(store: Store, record: Logged) -> None:
    """The same of one whose filing has ended the process more than once."""
    _LOG.error("instance.set_aside", reason=_KILLED)
    _put(store, record, KILLED)


def killers(root: Path) -> frozenset[str]:
    """SHA-256 of those that ended the process in this version: the same bytes again would, too."""
    return frozenset(
        item.record.sha256 for item in listing(root) if item.fault == KILLED and item.version == __version__
    )


def _put(store: Store, record: Logged, fault: str) -> None:
    write_durably(store.disk, store.root, f"{FOLDER}/{record.sha256}.dcm", record.pieces())
    _describe(store, record, fault)


def _describe(store: Store, record: Logged, fault: str) -> None:
    """Last: what has no description is still in the log."""
    text = {
        "row": dict(record.row),
        "size_bytes": record.size_bytes,
        "head_bytes": record.head_bytes,
        "fault": fault,
        "version": __version__,
    }
    write_durably(store.disk, store.root, f"{FOLDER}/{record.sha256}.json", [json.dumps(text).encode()])


def listing(root: Path) -> Iterator[SetAside]:
    """All of them."""
    for path in sorted((root / FOLDER).glob("*.json")):
        try:
            text: dict[str, Any] = json.loads(path.read_bytes())
        except FileNotFoundError:
            # Filed meanwhile.
            continue
        record = Logged(
            row=text["row"],
            sha256=path.stem,
            sequence=0,
            segment=path.with_suffix(".dcm"),
            offset=0,
            size_bytes=text["size_bytes"],
            head_bytes=text["head_bytes"],
        )
        yield SetAside(record=record, fault=text["fault"], version=text["version"])


def count(root: Path) -> int:
    """How many there are."""
    return sum(1 for _ in (root / FOLDER).glob("*.json"))


def count_by_fault(root: Path) -> Counter[str]:
    """The same by kind of the fault."""
    return Counter(item.fault for item in listing(root))


def retry(store: Store, item: SetAside) -> str:
    """File it by the literal order; where it lies then. What stops it this time stands in its description."""
    try:
        outcome = backlog.file_singly(store, backlog.read(item.record))
    except Unavailable:
        raise
    except Exception as error:
        _describe(store, item.record, type(error).__name__)
        raise Broken(f"it still cannot be filed ({type(error).__name__}). Send the log to the makers.") from error
    item.record.segment.with_suffix(".json").unlink(missing_ok=True)
    item.record.segment.unlink(missing_ok=True)
    return outcome.instance.path


def retry_of_other_versions(store: Store) -> None:
    """At the start of a version: what another one could not file may have been its fault alone."""
    for item in listing(store.root):
        if item.version == __version__:
            continue
        # Beforehand: when it ends the process, this version has tried it.
        _describe(store, item.record, item.fault)
        try:
            retry(store, item)
        except Unavailable:
            raise
        except Broken:
            _LOG.crashed("instance.set_aside")
