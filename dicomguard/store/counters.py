"""Counts that outlive a process, by name and configured peer; metrics read them."""

from dataclasses import dataclass

from sqlalchemy import select

from dicomguard.store.db import Tx, upsert
from dicomguard.store.tables import counter

# Names of the counts of connections that the receiver ended begin so; the rest is the reason.
CUT = "connections_cut_"


@dataclass(frozen=True, slots=True, kw_only=True)
class CounterRow:
    """A count; `peer` is a configured name, "unknown" or ""."""

    name: str
    peer: str
    value: int


def add(tx: Tx, name: str, peer: str, amount: int = 1) -> None:
    """Add to a count."""
    upsert(tx, counter, {"name": name, "peer": peer[:64]}, {"value": counter.c.value + amount}, new={"value": amount})


def listing(tx: Tx) -> list[CounterRow]:
    """All counts."""
    rows = tx.execute(select(counter).order_by(counter.c.name, counter.c.peer))
    return [CounterRow(name=row.name, peer=row.peer, value=row.value) for row in rows]
