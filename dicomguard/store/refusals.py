"""Associations that were refused: one row an hour, address, pair of AE titles and reason, however often."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import func, select

from dicomguard.store.db import Tx, upsert
from dicomguard.store.tables import refused

# A port scanner makes a new row for each name it invents; beyond this they share one.
MAX_ROWS_PER_HOUR = 1000
_KEEP = timedelta(days=90)
_MANY = "(many)"


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusalRow:
    """How often one caller was refused in one hour, and why."""

    hour: datetime
    address: str
    calling_ae: str
    called_ae: str
    reason: str
    count: int
    last_at: datetime


def record(tx: Tx, now: datetime, address: str, calling: str, called: str, reason: str, *, count: int = 1) -> None:
    """Count refusals in the hour of `now`."""
    hour = now.replace(minute=0, second=0, microsecond=0)
    key = {
        "hour": hour,
        "address": address[:64],
        "calling_ae": calling[:64],
        "called_ae": called[:64],
        "reason": reason[:200],
    }
    rows = tx.execute(select(func.count()).select_from(refused).where(refused.c.hour == hour)).scalar_one()
    if rows >= MAX_ROWS_PER_HOUR:
        key |= {"address": _MANY, "calling_ae": _MANY, "called_ae": _MANY}
    if rows == 0:
        tx.execute(refused.delete().where(refused.c.hour < hour - _KEEP))
    upsert(
        tx,
        refused,
        key,
        {"count": refused.c.count + count, "last_at": now},
        new={"count": count, "first_at": now, "last_at": now},
    )


def recent(tx: Tx, *, limit: int = 100) -> list[RefusalRow]:
    """Newest first."""
    rows = tx.execute(select(refused).order_by(refused.c.last_at.desc()).limit(limit))
    return [
        RefusalRow(
            hour=row.hour,
            address=row.address,
            calling_ae=row.calling_ae,
            called_ae=row.called_ae,
            reason=row.reason,
            count=row._mapping["count"],
            last_at=row.last_at,
        )
        for row in rows
    ]
