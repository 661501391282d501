"""Files and rows for records of the receive log, many to a transaction; each can be done twice.

Nothing here is flushed: a record stays in the log until `make_durable` has returned for it.
"""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Row, select
from sqlalchemy.exc import IntegrityError

from dicomguard import part10
from dicomguard.errors import Refused, shortage
from dicomguard.store import associations, counters, filing
from dicomguard.store.arrival import Arrival, Association, Outcome, Sender
from dicomguard.store.db import Store, Tx, upsert
from dicomguard.store.files import read_pieces, write_aside, write_durably, write_loosely
from dicomguard.store.identity import Identity
from dicomguard.store.log_records import Logged
from dicomguard.store.tables import instance, meta, study

# Another process was faster; the next look shows what it did.
_ATTEMPTS = 5
# Their files are kept.
_WITH_FILE = frozenset({"stored", "own"})
# Holds all of them.
FOLDER = "store"


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """A record, read."""

    record: Logged
    arrival: Arrival
    identity: Identity
    # Of a study that was not known when the record was written; its row may say another.
    study_key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Repeated:
    """The same bytes came again and were not logged."""

    arrival: Arrival
    study_uid: str


class _Raced(Exception):
    """The study got its row, and another key, from somebody else."""


def describe(arrival: Arrival, identity: Identity, study_key: str) -> dict[str, Any]:
    """The row of a record, as JSON has it."""
    opened = arrival.association
    return {
        "sop_uid": identity.sop_uid,
        "sop_class": identity.sop_class,
        "study_uid": identity.study_uid,
        "series_uid": identity.series_uid,
        "modality": identity.modality,
        "creator_uid": identity.creator_uid,
        "identity_sha256": identity.identity_sha256,
        "patient_sha256": identity.patient_sha256,
        "study_key": study_key,
        "syntax": arrival.transfer_syntax_uid,
        "size": arrival.size_bytes,
        "peer": arrival.sender.peer,
        "calling_ae": arrival.sender.calling_ae,
        "called_ae": arrival.sender.called_ae,
        "address": arrival.sender.address,
        "channel": arrival.channel,
        "received_at": arrival.received_at.isoformat(),
        "urgent": arrival.urgent,
        "association": opened.id if opened is not None else "",
        "process": opened.process if opened is not None else "",
        "opened_at": opened.opened_at.isoformat() if opened is not None and opened.opened_at is not None else "",
    }


def read(record: Logged) -> Item:
    """What `describe` wrote."""
    row = record.row
    opened = Association(
        id=row["association"],
        process=row["process"],
        opened_at=datetime.fromisoformat(row["opened_at"]) if row["opened_at"] else None,
    )
    arrival = Arrival(
        sender=Sender(
            peer=row["peer"], calling_ae=row["calling_ae"], called_ae=row["called_ae"], address=row["address"]
        ),
        channel=row["channel"],
        association=opened if opened.id else None,
        sop_class_uid=row["sop_class"],
        sop_instance_uid=row["sop_uid"],
        transfer_syntax_uid=row["syntax"],
        received_at=datetime.fromisoformat(row["received_at"]),
        # A record of an earlier version does not say.
        urgent=row.get("urgent", False),
        sha256=record.sha256,
        size_bytes=row["size"],
    )
    identity = Identity(
        sop_uid=row["sop_uid"],
        sop_class=row["sop_class"],
        study_uid=row["study_uid"],
        series_uid=row["series_uid"],
        modality=row["modality"],
        creator_uid=row["creator_uid"],
        identity_sha256=row["identity_sha256"],
        patient_sha256=row["patient_sha256"],
    )
    return Item(record=record, arrival=arrival, identity=identity, study_key=row["study_key"])


def file_batch(
    store: Store, items: Sequence[Item], repeated: Sequence[Repeated] = (), *, anew: bool = False
) -> list[Item]:
    """Make the files and rows that are not there; returns what must be filed one by one. Raises `Unavailable`.

    With `anew` the files that are there are written again: a power cut may have torn them, and what a disk has lost the
    page cache shows whole.
    """
    for _ in range(_ATTEMPTS):
        try:
            return _attempt(store, items, repeated, anew=anew)
        except (IntegrityError, _Raced):
            continue
    return list(items)


def file_singly(store: Store, item: Item) -> Outcome:
    """By the literal order: another copy under this UID is there, or only the database can tell what it is."""
    with write_aside(store.disk, store.root, item.record.pieces()) as written:
        try:
            return filing.file(store, item.arrival, written, item.identity)
        except Refused as error:
            # Its pixels cannot be compared with those that are there; it was acknowledged.
            return filing.quarantine(store, item.arrival, written, str(error))


def _attempt(store: Store, items: Sequence[Item], repeated: Sequence[Repeated], *, anew: bool) -> list[Item]:
    with store.look() as tx:
        keys = _study_keys(tx, {item.identity.study_uid for item in items} | {again.study_uid for again in repeated})
        known = _copies(tx, {item.identity.sop_uid for item in items})
    new: list[Item] = []
    singly: list[Item] = []
    for item in items:
        rows = known.get(item.identity.sop_uid)
        same = next((row for row in rows or () if row.sha256 == item.record.sha256), None)
        if same is not None and same.study_key is not None:
            if same.state in _WITH_FILE:
                _write(store, item, str(same.path), anew=anew)
            elif _comes_back(item, same, replayed=anew):
                singly.append(item)
        elif rows is None and item.identity.sop_class not in filing.RESULT_CLASSES:
            # A second one of the batch under this UID finds it.
            known[item.identity.sop_uid] = []
            new.append(item)
        else:
            singly.append(item)
    for item in new:
        key = keys.setdefault(item.identity.study_uid, item.study_key)
        _write(store, item, filing.path_of(item.arrival, key), anew=anew)
    try:
        with store.begin_relaxed() as tx:
            _insert(tx, new, keys)
            _count(tx, [item.arrival for item in new], repeated)
            stored = [(item.arrival, keys[item.identity.study_uid]) for item in new]
            # Without a key the study was removed since.
            again = [(one.arrival, keys.get(one.study_uid, "")) for one in repeated]
            _touch(tx, [*stored, *again])
    except _Raced:
        for item in new:
            (store.root / filing.path_of(item.arrival, keys[item.identity.study_uid])).unlink(missing_ok=True)
        raise
    return singly


def _comes_back(item: Item, row: Row[tuple[object, ...]], *, replayed: bool) -> bool:
    """Whether bytes whose row has no file are filed once more.

    The same bytes can come again after their time without a look at the row, while the database is away. What a living
    receiver files came just now. A replay may find what it has filed already and retention has deleted since: then the
    row is as old as the record, or was revived after it.
    """
    return row.state != "expired" or not replayed or item.arrival.received_at > row.received_at


def _write(store: Store, item: Item, path: str, *, anew: bool) -> None:
    if anew or not (store.root / path).is_file():
        write_loosely(store.disk, store.root, path, item.record.pieces())


def drop_strays(store: Store, items: Sequence[Item], keys: Mapping[str, Collection[str]]) -> None:
    """Remove what these records' files became under a key that their study did not get in the end; for a replay.

    A batch that lost the race for its study's row took its files back, or died over it. Nothing of that was flushed, so
    a power cut can bring back such a name with half a file behind it. `keys`: keys of records by Study Instance UID.
    """
    with store.look() as tx:
        copies = _copies(tx, {item.identity.sop_uid for item in items})
    kept = {str(row.path) for rows in copies.values() for row in rows}
    for item in items:
        for key in keys[item.identity.study_uid]:
            path = filing.path_of(item.arrival, key)
            if path not in kept:
                (store.root / path).unlink(missing_ok=True)


def is_whole(path: Path, sha256: str) -> bool:
    """Whether a kept file holds the dataset with this hash. Raises `Shortage` when the machine cannot tell now."""
    digest = hashlib.sha256()
    try:
        for piece in read_pieces(path, start=part10.dataset_offset(path)):
            digest.update(piece)
    except (Refused, OSError) as error:
        passing = shortage(error)
        if passing is not None:
            raise passing from error
        return False
    return digest.hexdigest() == sha256


def _study_keys(tx: Tx, study_uids: set[str]) -> dict[str, str]:
    rows = tx.execute(select(study.c.study_uid, study.c.study_key).where(study.c.study_uid.in_(study_uids)))
    return {row.study_uid: row.study_key for row in rows}


def _copies(tx: Tx, sop_uids: set[str]) -> dict[str, list[Row[tuple[object, ...]]]]:
    found: dict[str, list[Row[tuple[object, ...]]]] = defaultdict(list)
    for row in tx.execute(select(instance).where(instance.c.sop_uid.in_(sop_uids))):
        found[row.sop_uid].append(row)
    return dict(found)


def _insert(tx: Tx, items: Sequence[Item], keys: dict[str, str]) -> None:
    by_study: dict[str, list[Item]] = defaultdict(list)
    for item in items:
        by_study[item.identity.study_uid].append(item)
    for uid in sorted(by_study):
        filing.insert_study(tx, by_study[uid][0].arrival, uid, keys[uid])
    # In one order, so that two receivers never wait for each other.
    locked = select(study).where(study.c.study_uid.in_(by_study)).order_by(study.c.study_key).with_for_update()
    for row in tx.execute(locked).all():
        if row.study_key != keys[row.study_uid]:
            raise _Raced
        filing.collect(tx, row, [item.arrival for item in by_study[row.study_uid]])
    if items:
        tx.execute(instance.insert(), [_row(item, keys[item.identity.study_uid]) for item in items])


def _row(item: Item, study_key: str) -> dict[str, object]:
    path = filing.path_of(item.arrival, study_key)
    row = filing.row_of(item.arrival, item.identity.salted(study_key), path)
    return row | {"study_key": study_key, "state": "stored", "reason": ""}


def _count(tx: Tx, arrivals: Sequence[Arrival], repeated: Sequence[Repeated]) -> None:
    amounts: dict[tuple[str, str], int] = defaultdict(int)
    for arrival in arrivals:
        amounts["instances_received", arrival.sender.peer] += 1
        amounts["received_bytes", arrival.sender.peer] += arrival.size_bytes
    for again in repeated:
        amounts["instances_repeated", again.arrival.sender.peer] += 1
    for (name, peer), amount in sorted(amounts.items()):
        counters.add(tx, name, peer, amount)


def _touch(tx: Tx, brought: Iterable[tuple[Arrival, str]]) -> None:
    by_place: dict[tuple[str, str], list[Arrival]] = defaultdict(list)
    for arrival, study_key in brought:
        if arrival.association is not None:
            by_place[arrival.association.id, study_key].append(arrival)
    for (id, study_key), arrivals in sorted(by_place.items()):
        opened = arrivals[0].association
        if opened is not None:
            associations.note(tx, opened, arrivals[0].sender)
        last = max(arrival.received_at for arrival in arrivals)
        associations.touch(tx, id, study_key or None, last, count=len(arrivals))


def make_durable(store: Store, records: Callable[[], Iterable[Logged]], *, trust: bool) -> bool:
    """Flush the files and rows of the records; returns whether the file system can be trusted further.

    After a flush of everything has failed, nobody knows which file it concerned: each is written again and flushed by
    itself.
    """
    if trust:
        try:
            store.disk.sync_all(store.root / FOLDER)
        except OSError:
            trust = False
    if not trust:
        for record in records():
            _write_again(store, record)
    with store.begin() as tx:
        # Its flush covers every relaxed commit before it.
        now = store.clock.now().isoformat()
        upsert(tx, meta, {"name": "log_emptied_at"}, {"value": now}, new={"value": now})
    return trust


def _write_again(store: Store, record: Logged) -> None:
    with store.look() as tx:
        same = (instance.c.sop_uid == record.sop_instance_uid, instance.c.sha256 == record.sha256)
        row = tx.execute(select(instance.c.path, instance.c.state).where(*same)).first()
    if row is not None and row.state in _WITH_FILE:
        write_durably(store.disk, store.root, row.path, record.pieces())
