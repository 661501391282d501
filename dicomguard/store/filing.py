"""What the door decides about a whole dataset: where it stands among the copies under its UID, its file, its rows.

Order (nothing is said before all of it is done): temporary file, fdatasync, rename, fsync of the folder, row with a
synchronous commit. A file without row was never acknowledged; a row without file cannot be. No path holds a UID, name
or any other text of the sender.
"""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, assert_never

from sqlalchemy import Row, func, select
from sqlalchemy.exc import IntegrityError

from dicomguard import part10
from dicomguard.errors import Unavailable
from dicomguard.store import associations, counters, expiry, results
from dicomguard.store.arrival import Arrival, Conflict, Duplicate, Outcome, Quarantined, QuarantineFull, Stored
from dicomguard.store.db import Store, Tx, insert_missing
from dicomguard.store.files import Written
from dicomguard.store.identity import Identity
from dicomguard.store.studies import read_instance
from dicomguard.store.tables import instance, study

# Two senders of one instance at the same moment: the second commit fails and is decided again.
_ATTEMPTS = 5
# Native little endian pixels are the same bytes in both.
_NATIVE = frozenset({"1.2.840.10008.1.2", "1.2.840.10008.1.2.1"})

# Segmentation, Comprehensive 3D SR, Comprehensive SR.
RESULT_CLASSES = frozenset(
    {"1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.88.34", "1.2.840.10008.5.1.4.1.1.88.33"}
)


def quarantine(store: Store, arrival: Arrival, written: Written, reason: str) -> Outcome:
    """Keep bytes that cannot be read; raises `QuarantineFull`."""
    with store.read() as tx:
        known = _copy(tx, arrival)
        held = tx.execute(select(func.coalesce(func.sum(instance.c.size), 0)).where(instance.c.state == "quarantined"))
        full = int(held.scalar_one()) + arrival.size_bytes > store.limits.max_quarantine_bytes
    if known is not None and known.state not in expiry.WITHOUT_FILE:
        return Quarantined(instance=read_instance(known), study_key="", reason=known.reason)
    if full:
        raise QuarantineFull(
            f"Quarantine holds {store.limits.max_quarantine_bytes} bytes already. Look it through and empty it."
        )
    path = f"quarantine/{arrival.received_at:%Y/%m/%d}/{arrival.sha256}.dcm"
    written.move_to(path)
    with store.begin() as tx:
        counters.add(tx, "instances_quarantined", arrival.sender.peer)
        new = row_of(arrival, Identity.unknown(arrival.sop_instance_uid), path) | {
            "state": "quarantined",
            "reason": reason,
        }
        # Bytes that cannot be read stand under no place of a study: the hash alone tells them apart.
        new["version"] = -1 - secrets.randbelow(1 << 30)
        gone = (instance.c.study_key.is_(None), instance.c.state.in_(expiry.WITHOUT_FILE))
        tx.execute(
            instance.delete().where(instance.c.sop_uid == new["sop_uid"], instance.c.sha256 == arrival.sha256, *gone)
        )
        insert_missing(tx, instance, new)
        _touch(tx, arrival, None)
        kept = _copy(tx, arrival)
    if kept is None:
        raise Unavailable("The row of a quarantined instance is not there after it was written. Send it again.")
    return Quarantined(instance=read_instance(kept), study_key="", reason=reason)


def file(store: Store, arrival: Arrival, written: Written, identity: Identity) -> Outcome:
    """Decide, move the file to its place, write the row; decide again when another sender was faster."""
    for _ in range(_ATTEMPTS):
        with store.read() as tx:
            study_key = tx.execute(select(study.c.study_key).where(study.c.study_uid == identity.study_uid)).scalar()
        if study_key is None:
            study_key = _new_study(store, arrival, identity)
        with store.read() as tx:
            known = copies(tx, identity.sop_uid)
            own = _is_own(store, tx, identity)
        place = _place(store, arrival, written, identity.salted(study_key), known, own=own, study_key=study_key)
        if isinstance(place, Duplicate):
            if place.instance.state in expiry.WITHOUT_FILE:
                place = _revive(store, arrival, place, study_key, own=own)
            if not (store.root / place.instance.path).is_file():
                # Lost since by other hands, or deleted by retention; the row is right again.
                written.move_to(place.instance.path)
            with store.begin() as tx:
                counters.add(tx, "instances_repeated", arrival.sender.peer)
                _touch(tx, arrival, study_key)
            return place
        try:
            return _commit(store, arrival, written, identity.salted(study_key), place, study_key)
        except IntegrityError:
            continue
    raise Unavailable("Several senders bring one instance at the same moment. Send it again.")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """Where a new copy stands among those under its UID, and what that means."""

    kind: Literal["first", "own", "header", "conflict"]
    ordinal: int
    version: int
    pixel_sha256: str | None
    reason: str = ""
    # Whether reports or grouping would change.
    opens_revision: bool = True


def _revive(store: Store, arrival: Arrival, known: Duplicate, study_key: str, *, own: bool) -> Duplicate:
    """Deleted by retention, or lost: the row first, so that retention keeps its hands off the file."""
    same = (instance.c.sop_uid == known.instance.sop_instance_uid, instance.c.sha256 == arrival.sha256)
    with store.begin() as tx:
        row = tx.execute(select(instance).where(*same).with_for_update()).one()
        path = str(row.path) or path_of(arrival, study_key)
        expiry.revive(tx, row.id, path=path, own=own, now=arrival.received_at)
        kept = read_instance(tx.execute(select(instance).where(*same)).one())
    return Duplicate(instance=kept, study_key=study_key, reason="the same bytes were here before, and are kept again")


def _place(
    store: Store,
    arrival: Arrival,
    written: Written,
    identity: Identity,
    known: list[Row[tuple[object, ...]]],
    *,
    own: bool,
    study_key: str,
) -> _Place | Duplicate:
    for row in known:
        if row.sha256 == arrival.sha256 and row.study_key is not None:
            return Duplicate(instance=read_instance(row), study_key=study_key, reason="the same bytes are kept already")
    # Those in quarantine belong to no study.
    kept = [row for row in known if row.study_key is not None]
    if not kept:
        kind: Literal["own", "first"] = "own" if own else "first"
        return _Place(kind=kind, ordinal=0, version=0, pixel_sha256=None, opens_revision=not own)
    pixels = part10.pixel_sha256(written.path) or ""
    readable = [row for row in kept if row.state not in expiry.WITHOUT_FILE or row.pixel_sha256 is not None]
    if not readable:
        version = 1 + max(int(row.version) for row in kept if row.ordinal == kept[0].ordinal)
        reason = "an earlier copy was deleted; the pixels could not be compared"
        return _Place(
            kind="own" if own else "header",
            ordinal=int(kept[0].ordinal),
            version=version,
            pixel_sha256=pixels,
            reason=reason,
            opens_revision=not own,
        )
    for row in readable:
        if not _comparable(row.syntax, arrival.transfer_syntax_uid):
            continue
        if _pixel_sha256(store, row) == pixels:
            version = 1 + max(other.version for other in kept if other.ordinal == row.ordinal)
            newest = max(
                (other for other in kept if other.ordinal == row.ordinal), key=lambda other: int(other.version)
            )
            same = newest.identity_sha256 == identity.identity_sha256 and newest.study_key == study_key
            return _Place(
                kind="own" if own else "header",
                ordinal=row.ordinal,
                version=version,
                pixel_sha256=pixels,
                reason="the pixels are known, the header is newer",
                opens_revision=not (same or own),
            )
    compared = any(_comparable(row.syntax, arrival.transfer_syntax_uid) for row in kept)
    reason = (
        "other pixels are kept under this SOP Instance UID"
        if compared
        else "a copy in another transfer syntax is kept under this SOP Instance UID; the pixels were not compared"
    )
    return _Place(
        kind="conflict",
        ordinal=1 + max(int(row.ordinal) for row in kept),
        version=0,
        pixel_sha256=pixels,
        reason=reason,
    )


def _is_own(store: Store, tx: Tx, identity: Identity) -> bool:
    """A result of this node that came back. Only classes that we make: a forged image must not pass as ours."""
    if identity.sop_class not in RESULT_CLASSES:
        return False
    return results.is_own(tx, identity.sop_uid) or (bool(store.device_uid) and identity.creator_uid == store.device_uid)


def _comparable(one: str, other: str) -> bool:
    """Whether equal pixels would be equal bytes."""
    return one == other or {one, other} <= _NATIVE


def _pixel_sha256(store: Store, row: Row[tuple[object, ...]]) -> str:
    """Of a kept copy; "" when it has no pixels."""
    if row.pixel_sha256 is not None:
        return str(row.pixel_sha256)
    return part10.pixel_sha256(store.root / row.path) or ""


def copies(tx: Tx, sop_uid: str) -> list[Row[tuple[object, ...]]]:
    """All rows under a SOP Instance UID."""
    rows = tx.execute(
        select(instance).where(instance.c.sop_uid == sop_uid).order_by(instance.c.ordinal, instance.c.version)
    )
    return list(rows)


def _copy(tx: Tx, arrival: Arrival) -> Row[tuple[object, ...]] | None:
    return tx.execute(
        select(instance).where(instance.c.sop_uid == arrival.sop_instance_uid[:64], instance.c.sha256 == arrival.sha256)
    ).first()


def _new_study(store: Store, arrival: Arrival, identity: Identity) -> str:
    """A key of ours for a study seen for the first time; it collects nothing yet."""
    with store.begin() as tx:
        insert_study(tx, arrival, identity.study_uid, secrets.token_hex(8))
        found = select(study.c.study_key).where(study.c.study_uid == identity.study_uid)
        return str(tx.execute(found).scalar_one())


def insert_study(tx: Tx, arrival: Arrival, study_uid: str, study_key: str) -> None:
    """Unless the study has its row; the key is a proposal."""
    values = {
        "study_key": study_key,
        "study_uid": study_uid,
        "calling_ae": arrival.sender.calling_ae[:64],
        "first_at": arrival.received_at,
        "last_at": arrival.received_at,
        "collecting": False,
        "opened_because": "first",
        "forced_by": "",
        "held_by": "",
        "current_revision": 0,
    }
    insert_missing(tx, study, values)


def _commit(
    store: Store, arrival: Arrival, written: Written, identity: Identity, place: _Place, study_key: str
) -> Outcome:
    """File to its final name, then the row, the study and the counts in one synchronous transaction."""
    path = path_of(arrival, study_key)
    if not written.moved:
        written.move_to(path)
    with store.begin() as tx:
        row = tx.execute(select(study).where(study.c.study_key == study_key).with_for_update()).one()
        new = row_of(arrival, identity, path) | {
            "study_key": study_key,
            "ordinal": place.ordinal,
            "version": place.version,
            "pixel_sha256": place.pixel_sha256,
            "state": "own" if place.kind == "own" else "stored",
            "reason": place.reason,
        }
        # The same bytes under a request that contradicted them may lie in quarantine.
        same = (instance.c.sop_uid == identity.sop_uid, instance.c.sha256 == arrival.sha256)
        tx.execute(instance.delete().where(*same, instance.c.study_key.is_(None)))
        tx.execute(instance.insert().values(**new))
        if place.opens_revision:
            collect(tx, row, [arrival], pixel_conflict=place.kind == "conflict")
        counters.add(tx, "instances_received", arrival.sender.peer)
        counters.add(tx, "received_bytes", arrival.sender.peer, arrival.size_bytes)
        if place.kind == "conflict":
            counters.add(tx, "instances_conflicting", arrival.sender.peer)
        _touch(tx, arrival, study_key)
        kept = read_instance(tx.execute(select(instance).where(*same)).one())
    match place.kind:
        case "first" | "own" | "header":
            return Stored(instance=kept, study_key=study_key, reason=place.reason)
        case "conflict":
            return Conflict(instance=kept, study_key=study_key, reason=place.reason)
        case _:
            assert_never(place.kind)


def collect(tx: Tx, row: Row[tuple[object, ...]], arrivals: Sequence[Arrival], *, pixel_conflict: bool = False) -> None:
    """The study of the locked row has something that no revision covers."""
    # What the log holds is filed later than what came after it by the literal order.
    first = min(arrival.received_at for arrival in arrivals)
    last = max(arrival.received_at for arrival in arrivals)
    values: dict[str, object] = {"last_at": max(row.last_at, last), "collecting_last_at": last}
    if row.collecting:
        values["collecting_first_at"] = min(row.collecting_first_at, first)
        values["collecting_last_at"] = max(row.collecting_last_at, last)
    else:
        because = "first" if row.current_revision == 0 else "late_instance"
        values |= {"collecting": True, "collecting_first_at": first, "opened_because": because}
        if row.current_revision > 0 and expiry.has_expired(tx, row.study_key):
            expiry.hold(tx, row.study_key)
    if any(arrival.urgent for arrival in arrivals):
        values["urgent"] = True
    if pixel_conflict and row.current_revision > 0:
        values["opened_because"] = "pixel_conflict"
    named = next((arrival.sender.calling_ae for arrival in arrivals if arrival.sender.calling_ae), "")
    if row.calling_ae == "" and named and row.current_revision == 0 and not row.collecting:
        values["calling_ae"] = named[:64]
    tx.execute(study.update().where(study.c.study_key == row.study_key).values(**values))


def path_of(arrival: Arrival, study_key: str) -> str:
    """Where a copy lies: by day, key and hash of ours; earlier versions put two characters of the hash before it."""
    day = arrival.received_at
    return f"store/{day.year:04}/{day.month:02}/{day.day:02}/{study_key}/{arrival.sha256}.dcm"


def _touch(tx: Tx, arrival: Arrival, study_key: str | None) -> None:
    if arrival.association is not None:
        associations.note(tx, arrival.association, arrival.sender)
        associations.touch(tx, arrival.association.id, study_key, arrival.received_at)


def row_of(arrival: Arrival, identity: Identity, path: str) -> dict[str, object]:
    """The row of a first copy, without study and state."""
    return {
        "sop_uid": identity.sop_uid[:64],
        "sha256": arrival.sha256,
        "study_key": None,
        "study_uid": identity.study_uid,
        "series_uid": identity.series_uid,
        "sop_class": arrival.sop_class_uid[:64],
        "syntax": arrival.transfer_syntax_uid[:64],
        "modality": identity.modality,
        "size": arrival.size_bytes,
        "pixel_sha256": None,
        "identity_sha256": identity.identity_sha256,
        "patient_sha256": identity.patient_sha256,
        "path": path,
        "peer": arrival.sender.peer[:64],
        "calling_ae": arrival.sender.calling_ae[:64],
        "called_ae": arrival.sender.called_ae[:64],
        "address": arrival.sender.address[:64],
        "channel": arrival.channel,
        "received_at": arrival.received_at,
        "ordinal": 0,
        "version": 0,
    }
