"""Ways of results to destinations, as `core.delivery` judges them; this module only keeps its values."""

import json
from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import ColumnElement, func, select

from dicomguard.core.delivery import Delivery, Item, State
from dicomguard.store.db import Tx, insert_missing
from dicomguard.store.tables import delivery, delivery_instance, revision, study


def plan(tx: Tx, planned: Sequence[Delivery]) -> None:
    """Keep new deliveries; one that is planned already stays as it is."""
    for value in planned:
        if insert_missing(tx, delivery, {**_key(value), **_row(value)}) and value.items:
            tx.execute(delivery_instance.insert(), _items(value))


def lock(tx: Tx, study_key: str, number: int) -> None:
    """Have others that write deliveries of this revision wait for the end of the transaction.

    Two that end at the same moment would each see the other under way, and nobody would see that all are over.
    """
    tx.execute(
        select(revision.c.number)
        .where(revision.c.study_key == study_key, revision.c.number == number)
        .with_for_update()
    ).all()


def save(tx: Tx, value: Delivery) -> None:
    """Replace a planned delivery by its state after an attempt."""
    tx.execute(delivery.update().where(*_is(delivery.c, value)).values(**_row(value)))
    tx.execute(delivery_instance.delete().where(*_is(delivery_instance.c, value)))
    if value.items:
        tx.execute(delivery_instance.insert(), _items(value))


def get(tx: Tx, study_key: str, number: int, destination: str) -> Delivery | None:
    """One delivery, or None."""
    here = (
        delivery.c.study_key == study_key,
        delivery.c.number == number,
        delivery.c.destination == destination,
    )
    found = _select(tx, *here)
    return found[0] if found else None


def waiting(tx: Tx, *, before: datetime | None = None, limit: int = 1000) -> list[Delivery]:
    """Those that are not over and due by `before` (None: whenever), the longest waiting first."""
    due = delivery.c.next_at.is_not(None) if before is None else delivery.c.next_at <= before
    return _select(tx, delivery.c.state == State.WAITING.value, due, limit=limit)


def refused(tx: Tx, *, limit: int = 1000) -> list[Delivery]:
    """Those of current revisions that a person has to look at, the longest waiting first."""
    current = select(study.c.study_key).where(
        study.c.study_key == delivery.c.study_key, study.c.current_revision == delivery.c.number
    )
    return _select(tx, delivery.c.state == State.REFUSED.value, current.exists(), limit=limit)


def put_off(tx: Tx, destination: str, *, now: datetime) -> list[Delivery]:
    """Those to one destination that wait for a later time, in order of completion."""
    return _select(
        tx,
        delivery.c.state == State.WAITING.value,
        delivery.c.destination == destination,
        delivery.c.next_at > now,
    )


def come_due(tx: Tx, *, beyond: datetime, now: datetime) -> int:
    """What waits for a time after `beyond` is due now; how many. The attempt that was put off is overtaken."""
    late = delivery.c.next_at > beyond
    return tx.execute(delivery.update().where(late).values(next_at=now, attempt=delivery.c.attempt + 1)).rowcount


def of_study(tx: Tx, study_key: str) -> list[Delivery]:
    """All revisions, oldest first."""
    return _select(tx, delivery.c.study_key == study_key)


def of_revision(tx: Tx, study_key: str, number: int) -> list[Delivery]:
    """All destinations of one revision."""
    return _select(tx, delivery.c.study_key == study_key, delivery.c.number == number)


def count_by_state(tx: Tx) -> dict[tuple[str, str], int]:
    """How many deliveries per (destination, state)."""
    rows = tx.execute(
        select(delivery.c.destination, delivery.c.state, func.count()).group_by(
            delivery.c.destination, delivery.c.state
        )
    )
    return {(destination, state): count for destination, state, count in rows}


def _select(tx: Tx, *conditions: ColumnElement[bool], limit: int = 10_000) -> list[Delivery]:
    rows = tx.execute(
        select(delivery)
        .where(*conditions)
        .order_by(
            delivery.c.next_at, delivery.c.planned_at, delivery.c.study_key, delivery.c.number, delivery.c.destination
        )
        .limit(limit)
    ).all()
    return [
        Delivery(
            study_key=row.study_key,
            revision=row.number,
            destination=row.destination,
            attempt=row.attempt,
            planned_at=row.planned_at,
            next_at=row.next_at,
            comment=row.comment,
            items=_read_items(tx, row.study_key, row.number, row.destination),
        )
        for row in rows
    ]


def _read_items(tx: Tx, study_key: str, number: int, destination: str) -> tuple[Item, ...]:
    c = delivery_instance.c
    rows = tx.execute(
        select(delivery_instance)
        .where(c.study_key == study_key, c.number == number, c.destination == destination)
        .order_by(c.place)
    )
    return tuple(
        Item(
            kind=row.kind,
            forms=tuple(json.loads(row.forms)),
            form=row.form,
            state=State(row.state),
            status=row.status,
            comment=row.comment,
        )
        for row in rows
    )


def _key(value: Delivery) -> dict[str, str | int]:
    return {"study_key": value.study_key, "number": value.revision, "destination": value.destination}


def _is(columns: object, value: Delivery) -> list[ColumnElement[bool]]:
    return [getattr(columns, name) == part for name, part in _key(value).items()]


def _row(value: Delivery) -> dict[str, object]:
    return {
        "state": value.state.value,
        "attempt": value.attempt,
        "planned_at": value.planned_at,
        "next_at": value.next_at,
        "comment": value.comment,
    }


def _items(value: Delivery) -> list[dict[str, object]]:
    return [
        {
            **_key(value),
            "place": place,
            "kind": item.kind,
            "forms": json.dumps(item.forms),
            "form": item.form,
            "state": item.state.value,
            "status": item.status,
            "comment": item.comment,
        }
        for place, item in enumerate(value.items)
    ]
