"""Small state with an end, by kind and key: sessions, set-up codes, tickets of the page."""

import json
from datetime import datetime
from typing import Any

from sqlalchemy import or_, select

from dicomguard.core import canon
from dicomguard.store.db import Tx, upsert
from dicomguard.store.tables import ephemeral


def put(tx: Tx, kind: str, key: str, value: dict[str, Any], expires_at: datetime | None) -> None:
    """Keep or replace; `expires_at` None is for ever."""
    new = {"value": canon.encode(value).decode(), "expires_at": expires_at}
    upsert(tx, ephemeral, {"kind": kind, "key": key}, new, new=new)


def get(tx: Tx, kind: str, key: str, now: datetime) -> dict[str, Any] | None:
    """The value, or None when there is none or its time is over."""
    alive = or_(ephemeral.c.expires_at.is_(None), ephemeral.c.expires_at > now)
    text = tx.execute(select(ephemeral.c.value).where(ephemeral.c.kind == kind, ephemeral.c.key == key, alive)).scalar()
    value: dict[str, Any] | None = None if text is None else json.loads(text)
    return value


def keys(tx: Tx, kind: str) -> list[str]:
    """All keys of a kind, also of what is over."""
    return list(tx.execute(select(ephemeral.c.key).where(ephemeral.c.kind == kind).order_by(ephemeral.c.key)).scalars())


def drop(tx: Tx, kind: str, key: str) -> bool:
    """True when it was there."""
    return tx.execute(ephemeral.delete().where(ephemeral.c.kind == kind, ephemeral.c.key == key)).rowcount == 1


def sweep(tx: Tx, now: datetime) -> int:
    """Remove what is over; returns how many."""
    return tx.execute(ephemeral.delete().where(ephemeral.c.expires_at <= now)).rowcount
