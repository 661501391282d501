"""Commitments that destinations were asked for, and those that peers asked us for (PS3.4 annex J).

What they mean is judged by `core.commitment`; this module keeps its values, and looks whether an instance is here.
"""

import json
import secrets
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, and_, case, func, select

from dicomguard.core import commitment as core
from dicomguard.core.commitment import Commitment, Part, Patience, Reference, Report, State
from dicomguard.store import backlog, deliveries
from dicomguard.store.db import Store, Tx, insert_missing, upsert
from dicomguard.store.tables import commitment, commitment_request, instance

_KEPT = ("stored", "own")
# A peer that asks for an answer once more has asked by then.
FORGOTTEN_AFTER = timedelta(days=30)


# --- asked of destinations ---


def save(tx: Tx, value: Commitment) -> None:
    """Keep it, new or in its new state."""
    key = {"study_key": value.study_key, "number": value.revision, "destination": value.destination}
    row: dict[str, object] = {
        "state": value.state.value,
        "transaction_uid": value.transaction_uid,
        "attempt": value.attempt,
        "resent": value.resent,
        "planned_at": value.planned_at,
        "next_at": value.next_at,
        "comment": value.comment,
        "parts": json.dumps([
            [part.reference.sop_class_uid, part.reference.sop_instance_uid, part.committed, part.reason]
            for part in value.parts
        ]),
    }  # fmt: skip
    upsert(tx, commitment, key, row, new=row)


def drop(tx: Tx, value: Commitment) -> None:
    """The destination is not asked any more."""
    c = commitment.c
    same = (c.study_key == value.study_key, c.number == value.revision, c.destination == value.destination)
    tx.execute(commitment.delete().where(*same))


def release(tx: Tx, asked: Collection[str]) -> int:
    """Drop those under way or failed of all but these destinations; how many. What was given stays written."""
    c = commitment.c
    return tx.execute(commitment.delete().where(c.destination.not_in(asked), c.state != State.COMMITTED.value)).rowcount


def get(tx: Tx, study_key: str, number: int, destination: str) -> Commitment | None:
    """Of one delivery, or None."""
    c = commitment.c
    found = _select(tx, c.study_key == study_key, c.number == number, c.destination == destination)
    return found[0] if found else None


def of_study(tx: Tx, study_key: str) -> list[Commitment]:
    """All revisions and destinations of a study."""
    return _select(tx, commitment.c.study_key == study_key)


def due(tx: Tx, *, now: datetime, limit: int = 1000) -> list[Commitment]:
    """Those whose time has come, the longest waiting first."""
    return _select(tx, commitment.c.next_at <= now, limit=limit)


def come_due(tx: Tx, *, beyond: datetime, now: datetime) -> int:
    """What waits for a time after `beyond` is due now, asked of others or of us; how many."""
    return sum(
        tx.execute(table.update().where(table.c.next_at > beyond).values(next_at=now)).rowcount
        for table in (commitment, commitment_request)
    )


def uncommitted(tx: Tx, *, limit: int = 1000) -> list[Commitment]:
    """Those that are under way, and those that a person has to look at."""
    return _select(tx, commitment.c.state != State.COMMITTED.value, limit=limit)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """Commitments of one destination that give reason to look."""

    failed: int
    # Neither given nor refused in time.
    late: int


def trouble(tx: Tx, *, planned_before: datetime) -> dict[str, Trouble]:
    """By destination; late is what has been planned before and is still open."""
    c = commitment.c
    open_states = (State.DUE.value, State.ASKED.value, State.ANSWERED.value)
    failed = func.sum(case((c.state == State.FAILED.value, 1), else_=0))
    late = func.sum(case((and_(c.state.in_(open_states), c.planned_at <= planned_before), 1), else_=0))
    not_given = c.state != State.COMMITTED.value
    rows = tx.execute(select(c.destination, failed, late).where(not_given).group_by(c.destination))
    return {destination: Trouble(failed=int(first), late=int(second)) for destination, first, second in rows}


def count_by_state(tx: Tx) -> dict[tuple[str, str], int]:
    """How many per (destination, state)."""
    c = commitment.c
    rows = tx.execute(select(c.destination, c.state, func.count()).group_by(c.destination, c.state))
    return {(destination, state): count for destination, state, count in rows}


def answered(tx: Tx, report: Report, patience: Patience, *, now: datetime) -> Commitment | None:
    """Keep what a destination reports; None when nobody asked under that transaction UID, or has asked anew since."""
    c = commitment.c
    here = (c.transaction_uid == report.transaction_uid, c.transaction_uid != "")
    place = tx.execute(select(c.study_key, c.number).where(*here)).first()
    if place is None:
        return None
    deliveries.lock(tx, place.study_key, place.number)
    found = _select(tx, *here)
    if not found or found[0].state is not State.ASKED:
        return None
    after = core.answer(found[0], report, patience, now=now)
    save(tx, after)
    return after


def _select(tx: Tx, *conditions: ColumnElement[bool], limit: int = 10_000) -> list[Commitment]:
    c = commitment.c
    order = (c.next_at, c.study_key, c.number, c.destination)
    return [
        Commitment(
            study_key=row.study_key,
            revision=row.number,
            destination=row.destination,
            parts=tuple(
                Part(
                    reference=Reference(sop_class_uid=sop_class, sop_instance_uid=uid),
                    committed=committed,
                    reason=reason,
                )
                for sop_class, uid, committed, reason in json.loads(row.parts)
            ),
            state=State(row.state),
            transaction_uid=row.transaction_uid,
            attempt=row.attempt,
            resent=row.resent,
            planned_at=row.planned_at,
            next_at=row.next_at,
            comment=row.comment,
        )
        for row in tx.execute(select(commitment).where(*conditions).order_by(*order).limit(limit))
    ]


# --- asked of us ---


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a peer wants us to vouch for."""

    # Random key of ours: the transaction UID is the peer's.
    key: str
    transaction_uid: str
    calling_ae: str
    references: tuple[Reference, ...]
    received_at: datetime
    # "waiting", "answered" or "given up".
    state: str
    attempt: int
    # None when it is over.
    next_at: datetime | None
    comment: str


def ask(tx: Tx, *, transaction_uid: str, calling_ae: str, references: Sequence[Reference], now: datetime) -> bool:
    """Keep a request; the same once more is answered once more. False when other instances are named under its UID."""
    # One by one: all at once takes ten times the length of the text.
    named = (json.dumps([item.sop_class_uid, item.sop_instance_uid]) for item in references)
    text = f"[{', '.join(named)}]"
    same = {"transaction_uid": transaction_uid, "calling_ae": calling_ae}
    fresh = {"state": "waiting", "attempt": 0, "next_at": now, "comment": ""}
    row = {"key": secrets.token_hex(8), **same, "parts": text, "received_at": now, **fresh}
    if insert_missing(tx, commitment_request, row):
        return True
    c = commitment_request.c
    here = (c.transaction_uid == transaction_uid, c.calling_ae == calling_ae)
    there = tx.execute(select(c.key, c.parts, c.attempt).where(*here).with_for_update()).one()
    if there.parts != text:
        return False
    again = {**fresh, "attempt": there.attempt + 1}
    tx.execute(commitment_request.update().where(c.key == there.key).values(**again))
    return True


def requests(tx: Tx, *, now: datetime | None = None, key: str | None = None, limit: int = 1000) -> list[Request]:
    """Those that are due by `now`, or the one of that key."""
    c = commitment_request.c
    condition = c.key == key if key is not None else c.next_at <= now
    return [
        Request(
            key=row.key,
            transaction_uid=row.transaction_uid,
            calling_ae=row.calling_ae,
            references=tuple(
                Reference(sop_class_uid=sop_class, sop_instance_uid=uid) for sop_class, uid in json.loads(row.parts)
            ),
            received_at=row.received_at,
            state=row.state,
            attempt=row.attempt,
            next_at=row.next_at,
            comment=row.comment,
        )
        for row in tx.execute(select(commitment_request).where(condition).order_by(c.next_at, c.key).limit(limit))
    ]


def advance(tx: Tx, request: Request, state: str, *, next_at: datetime | None, comment: str = "") -> bool:
    """Move a request on unless somebody else has."""
    c = commitment_request.c
    values = {"state": state, "attempt": request.attempt + 1, "next_at": next_at, "comment": comment}
    moved = commitment_request.update().where(c.key == request.key, c.attempt == request.attempt).values(**values)
    return tx.execute(moved).rowcount == 1


def forget(tx: Tx, *, before: datetime) -> None:
    """Remove requests that are over and came before."""
    c = commitment_request.c
    tx.execute(commitment_request.delete().where(c.next_at.is_(None), c.received_at < before))


def look(store: Store, references: Sequence[Reference]) -> tuple[list[Reference], dict[Reference, int]]:
    """Which are kept whole here, file and hash; and the Failure Reason of the others.

    Raises `Shortage` when the machine cannot tell now: a reason is final for the peer.
    """
    committed: list[Reference] = []
    refused: dict[Reference, int] = {}
    for reference in references:
        with store.read() as tx:
            rows = tx.execute(select(instance).where(instance.c.sop_uid == reference.sop_instance_uid)).all()
        kept = [row for row in rows if row.state in _KEPT]
        if not kept:
            refused[reference] = core.PROCESSING_FAILURE if _quarantined(rows) else core.NO_SUCH_INSTANCE
        elif all(row.sop_class != reference.sop_class_uid for row in kept):
            refused[reference] = core.CLASS_CONFLICT
        elif all(backlog.is_whole(store.root / row.path, row.sha256) for row in kept):
            committed.append(reference)
        else:
            refused[reference] = core.NO_SUCH_INSTANCE
    return committed, refused


def _quarantined(rows: Sequence[object]) -> bool:
    return any(getattr(row, "state", "") == "quarantined" for row in rows)
