"""What the door decides about a whole dataset: where it stands among the copies under its UID, its file, its rows.

Order (nothing is said before all of it is done): temporary file, fdatasync, rename, fsync of the folder, row with a
synchronous commit. A file without row was never acknowledged; a row without file cannot be. No path holds a UID, name
or any other text of the sender.
"""

import secrets
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal, assert_never

from sqlalchemy import Row, func, select
from sqlalchemy.exc import IntegrityError

from dicomguard import part10
from dicomguard.core.instance import Instance
from dicomguard.errors import Refused, Unavailable
from dicomguard.store import associations, counters, results
from dicomguard.store.db import Store, Tx, insert_missing
from dicomguard.store.files import Written
from dicomguard.store.identity import Identity
from dicomguard.store.studies import read_instance
from dicomguard.store.tables import instance, study

Channel = Literal["dimse", "upload", "cli"]
# Two senders of one instance at the same moment: the second commit fails and is decided again.
_ATTEMPTS = 5
# Native little endian pixels are the same bytes in both.
_NATIVE = frozenset({"1.2.840.10008.1.2", "1.2.840.10008.1.2.1"})


# Segmentation, Comprehensive 3D SR, Comprehensive SR.
RESULT_CLASSES = frozenset(
    {"1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.88.34", "1.2.840.10008.5.1.4.1.1.88.33"}
)


class TooLarge(Refused):
    """The dataset has more bytes than the node takes."""


class QuarantineFull(Refused):
    """No more unreadable bytes are kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sender:
    """Who brings the bytes."""

    # Configured name, "" for a person at the page or the command line.
    peer: str
    calling_ae: str
    called_ae: str
    address: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Outcome:
    instance: Instance
    # "" for quarantined bytes.
    study_key: str
    # A sentence, "" when there is nothing to say.
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored(_Outcome):
    """Kept; `instance.state` is "own" for one of our results that came back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Duplicate(_Outcome):
    """Known already with the same bytes; nothing was written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Conflict(_Outcome):
    """Kept beside another copy with other pixels under the same SOP Instance UID."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quarantined(_Outcome):
    """Kept with its bytes, but it cannot be read; no study holds it."""


Outcome = Stored | Duplicate | Conflict | Quarantined


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """A dataset and all that is known of it but what its bytes say; hash and size once it is whole."""

    sender: Sender
    channel: Channel
    association_id: str | None
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    received_at: datetime
    sha256: str = ""
    size_bytes: int = 0

    def whole(self, *, sha256: str, size_bytes: int, received_at: datetime) -> "Arrival":
        """With what is known at the end."""
        return replace(self, sha256=sha256, size_bytes=size_bytes, received_at=received_at)


def quarantine(store: Store, arrival: Arrival, written: Written, reason: str) -> Outcome:
    """Keep bytes that cannot be read; raises `QuarantineFull`."""
    with store.read() as tx:
        known = _copy(tx, arrival)
        held = tx.execute(select(func.coalesce(func.sum(instance.c.size), 0)).where(instance.c.state == "quarantined"))
        full = int(held.scalar_one()) + arrival.size_bytes > store.limits.max_quarantine_bytes
    if known is not None:
        return Quarantined(instance=read_instance(known), study_key="", reason=known.reason)
    if full:
        raise QuarantineFull(
            f"Quarantine holds {store.limits.max_quarantine_bytes} bytes already. Look it through and empty it."
        )
    path = f"quarantine/{arrival.received_at:%Y/%m/%d}/{arrival.sha256}.dcm"
    written.move_to(path)
    with store.begin() as tx:
        counters.add(tx, "instances_quarantined", arrival.sender.peer)
        new = _row(arrival, Identity.unknown(arrival.sop_instance_uid), path) | {
            "state": "quarantined",
            "reason": reason,
        }
        # Bytes that cannot be read stand under no place of a study: the hash alone tells them apart.
        new["version"] = -1 - secrets.randbelow(1 << 30)
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
            known = _copies(tx, identity.sop_uid)
            own = _is_own(store, tx, identity)
        place = _place(store, arrival, written, identity.salted(study_key), known, own=own, study_key=study_key)
        if isinstance(place, Duplicate):
            if not (store.root / place.instance.path).is_file():
                # Lost since by other hands; the row is right again.
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
        if row.sha256 == arrival.sha256 and row.state != "quarantined":
            return Duplicate(instance=read_instance(row), study_key=study_key, reason="the same bytes are kept already")
    kept = [row for row in known if row.state != "quarantined"]
    if not kept:
        kind: Literal["own", "first"] = "own" if own else "first"
        return _Place(kind=kind, ordinal=0, version=0, pixel_sha256=None, opens_revision=not own)
    pixels = part10.pixel_sha256(written.path) or ""
    for row in kept:
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


def _copies(tx: Tx, sop_uid: str) -> list[Row[tuple[object, ...]]]:
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
        insert_missing(
            tx,
            study,
            {
                "study_key": secrets.token_hex(8),
                "study_uid": identity.study_uid,
                "calling_ae": arrival.sender.calling_ae[:64],
                "first_at": arrival.received_at,
                "last_at": arrival.received_at,
                "collecting": False,
                "opened_because": "first",
                "forced_by": "",
                "held_by": "",
                "current_revision": 0,
            },
        )
        found = select(study.c.study_key).where(study.c.study_uid == identity.study_uid)
        return str(tx.execute(found).scalar_one())


def _commit(
    store: Store, arrival: Arrival, written: Written, identity: Identity, place: _Place, study_key: str
) -> Outcome:
    """File to its final name, then the row, the study and the counts in one synchronous transaction."""
    path = f"store/{arrival.received_at:%Y/%m/%d}/{study_key}/{arrival.sha256[:2]}/{arrival.sha256}.dcm"
    if not written.moved:
        written.move_to(path)
    with store.begin() as tx:
        row = tx.execute(select(study).where(study.c.study_key == study_key).with_for_update()).one()
        new = _row(arrival, identity, path) | {
            "study_key": study_key,
            "ordinal": place.ordinal,
            "version": place.version,
            "pixel_sha256": place.pixel_sha256,
            "state": "own" if place.kind == "own" else "stored",
            "reason": place.reason,
        }
        # The same bytes under a request that contradicted them may lie in quarantine.
        same = (instance.c.sop_uid == identity.sop_uid, instance.c.sha256 == arrival.sha256)
        tx.execute(instance.delete().where(*same, instance.c.state == "quarantined"))
        tx.execute(instance.insert().values(**new))
        if place.opens_revision:
            _collect(tx, row, arrival, pixel_conflict=place.kind == "conflict")
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


def _collect(tx: Tx, row: Row[tuple[object, ...]], arrival: Arrival, *, pixel_conflict: bool) -> None:
    """The study has something that no revision covers."""
    values: dict[str, object] = {"last_at": arrival.received_at, "collecting_last_at": arrival.received_at}
    if not row.collecting:
        because = "first" if row.current_revision == 0 else "late_instance"
        values |= {"collecting": True, "collecting_first_at": arrival.received_at, "opened_because": because}
    if pixel_conflict and row.current_revision > 0:
        values["opened_because"] = "pixel_conflict"
    if row.calling_ae == "" and arrival.sender.calling_ae and row.current_revision == 0 and not row.collecting:
        values["calling_ae"] = arrival.sender.calling_ae[:64]
    tx.execute(study.update().where(study.c.study_key == row.study_key).values(**values))


def _touch(tx: Tx, arrival: Arrival, study_key: str | None) -> None:
    if arrival.association_id is not None:
        associations.touch(tx, arrival.association_id, study_key, arrival.received_at)


def _row(arrival: Arrival, identity: Identity, path: str) -> dict[str, object]:
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
