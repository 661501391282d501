"""Associations of peers, open and past; open ones hold the completion of the studies they sent to."""

import secrets
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select

from dicomguard.store.arrival import Association, Sender
from dicomguard.store.arrival import How as How
from dicomguard.store.db import Tx, insert_missing
from dicomguard.store.tables import association, association_study, executor


@dataclass(frozen=True, slots=True, kw_only=True)
class AssociationRow:
    """One association; `how` is "" while it is open."""

    id: str
    peer: str
    calling_ae: str
    called_ae: str
    address: str
    opened_at: datetime
    last_store_at: datetime | None
    closed_at: datetime | None
    how: str
    stored: int


def opened(tx: Tx, *, process: str, peer: str, calling_ae: str, called_ae: str, address: str, now: datetime) -> str:
    """Note an accepted association of a receiver process; returns its id."""
    id = secrets.token_hex(8)
    tx.execute(
        association.insert().values(
            id=id,
            process=process,
            peer=peer,
            calling_ae=calling_ae[:64],
            called_ae=called_ae[:64],
            address=address[:64],
            opened_at=now,
            how="",
            stored=0,
        )
    )
    return id


def note(tx: Tx, opened: Association, sender: Sender) -> None:
    """Make the row of an association that stores for the first time, when nobody has yet."""
    if opened.opened_at is None:
        return
    values = {
        "id": opened.id,
        "process": opened.process,
        "peer": sender.peer,
        "calling_ae": sender.calling_ae[:64],
        "called_ae": sender.called_ae[:64],
        "address": sender.address[:64],
        "opened_at": opened.opened_at,
        "how": "",
        "stored": 0,
    }
    insert_missing(tx, association, values)


def touch(tx: Tx, id: str, study_key: str | None, now: datetime, *, count: int = 1) -> None:
    """Instances were stored over it."""
    stored = association.c.stored + count
    tx.execute(association.update().where(association.c.id == id).values(last_store_at=now, stored=stored))
    if study_key is None:
        return
    key = {"association_id": id, "study_key": study_key}
    if not insert_missing(tx, association_study, {**key, "last_store_at": now}):
        tx.execute(
            association_study.update()
            .where(association_study.c.association_id == id, association_study.c.study_key == study_key)
            .values(last_store_at=now)
        )


def closed(tx: Tx, id: str, how: How, now: datetime) -> None:
    """It has ended; an end that is noted stays."""
    tx.execute(
        association.update()
        .where(association.c.id == id, association.c.closed_at.is_(None))
        .values(closed_at=now, how=how)
    )


def close_lost(tx: Tx, now: datetime) -> int:
    """Close what a dead receiver left open, so that it no longer holds a study; returns how many."""
    alive = select(executor.c.id).where(executor.c.retired.is_(False), executor.c.lease_until >= now)
    lost = association.update().where(association.c.closed_at.is_(None), association.c.process.not_in(alive))
    return tx.execute(lost.values(closed_at=now, how="lost")).rowcount


def forget(tx: Tx, *, before: datetime) -> int:
    """Drop those that ended before then and whose studies are gone; returns how many."""
    named = select(association_study.c.association_id).where(association_study.c.association_id == association.c.id)
    return tx.execute(association.delete().where(association.c.closed_at < before, ~named.exists())).rowcount


def recent(tx: Tx, *, limit: int = 100) -> list[AssociationRow]:
    """The latest, open or closed, newest first."""
    columns = [column for column in association.c if column.name != "process"]
    rows = tx.execute(select(*columns).order_by(association.c.opened_at.desc()).limit(limit))
    return [AssociationRow(**row._mapping) for row in rows]
