"""Who changed what, appended only; each line holds the hash of the one before, so that a removed line shows."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Row, select

from dicomguard.core import canon
from dicomguard.core.canon import Json
from dicomguard.store.db import Tx
from dicomguard.store.tables import audit, meta


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditLine:
    """One act of a person or of the node."""

    seq: int
    at: datetime
    actor: str
    action: str
    object: str
    # Canonical JSON.
    change: str
    sha256: str


def append(tx: Tx, actor: str, action: str, object: str, change: Json, *, now: datetime) -> None:
    """Add a line at the end of the chain."""
    # The head's row is locked, so that two writers on PostgreSQL cannot continue the same line.
    head = tx.execute(select(meta.c.value).where(meta.c.name == "audit_head").with_for_update()).scalar_one()
    last = tx.execute(select(audit.c.seq).order_by(audit.c.seq.desc()).limit(1)).scalar()
    line = {
        "seq": (last or 0) + 1,
        "at": now.isoformat(timespec="microseconds"),
        "actor": actor[:128],
        "action": action[:64],
        "object": object[:255],
        "change": canon.encode(change).decode(),
        "previous": head,
    }
    sha256 = canon.sha256(line)
    tx.execute(audit.insert().values(**{**line, "at": now}, sha256=sha256))
    tx.execute(meta.update().where(meta.c.name == "audit_head").values(value=sha256))


def recent(tx: Tx, *, limit: int = 100) -> list[AuditLine]:
    """The last lines, newest first."""
    rows = tx.execute(select(audit).order_by(audit.c.seq.desc()).limit(limit))
    return [
        AuditLine(
            seq=row.seq,
            at=row.at,
            actor=row.actor,
            action=row.action,
            object=row.object,
            change=row.change,
            sha256=row.sha256,
        )
        for row in rows
    ]


def first_break(tx: Tx) -> int | None:
    """Number of the first line that does not continue the chain; None when it is whole up to its kept head."""
    previous = ""
    for row in tx.execute(select(audit).order_by(audit.c.seq)):
        if row.previous != previous or _sha256(row) != row.sha256:
            return int(row.seq)
        previous = row.sha256
    head = tx.execute(select(meta.c.value).where(meta.c.name == "audit_head")).scalar_one()
    last = tx.execute(select(audit.c.seq).order_by(audit.c.seq.desc()).limit(1)).scalar()
    return None if head == previous else (last or 0) + 1


def _sha256(row: Row[tuple[object, ...]]) -> str:
    return canon.sha256(
        {
            "seq": row.seq,
            "at": row.at.isoformat(timespec="microseconds"),
            "actor": row.actor,
            "action": row.action,
            "object": row.object,
            "change": row.change,
            "previous": row.previous,
        }
    )
