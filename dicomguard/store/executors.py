"""The node's processes and their heartbeats; whoever is silent past its lease is dead."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import or_, select

from dicomguard import __version__
from dicomguard.clock import CLOCKS_APART
from dicomguard.store.db import Tx, insert_missing
from dicomguard.store.tables import executor

# Of those that have ended: longer than anybody asks for them.
_KEPT_FOR = timedelta(days=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutorRow:
    """One process of one start; its id is never used again."""

    id: str
    node: str
    # "receiver", "worker" or "web".
    role: str
    version: str
    started_at: datetime
    heartbeat_at: datetime
    lease_until: datetime
    retired: bool


def beat(tx: Tx, executor_id: str, node: str, now: datetime, lease_until: datetime, *, role: str = "worker") -> bool:
    """Live until `lease_until` at least; false when another process has retired this one, which must then end."""
    new = {
        "id": executor_id,
        "node": node,
        "role": role,
        "version": __version__,
        "started_at": now,
        "heartbeat_at": now,
        "lease_until": lease_until,
        "retired": False,
    }
    if insert_missing(tx, executor, new):
        # A worker is retired by who takes over its work, a receiver that was killed by nobody.
        ended = or_(executor.c.retired, executor.c.role == "receiver")
        tx.execute(executor.delete().where(ended, executor.c.lease_until < now - _KEPT_FOR))
        return True
    mine = executor.update().where(executor.c.id == executor_id, executor.c.retired.is_(False))
    return tx.execute(mine.values(heartbeat_at=now, lease_until=lease_until)).rowcount == 1


def retire(tx: Tx, executor_id: str) -> None:
    """It ended in order, or its work was taken over."""
    tx.execute(executor.update().where(executor.c.id == executor_id).values(retired=True))


def expired(tx: Tx, now: datetime, *, role: str = "worker") -> list[str]:
    """Ids of processes of a role whose lease is over, or whose clock ran ahead and who cannot be believed."""
    unheard = or_(executor.c.lease_until < now, executor.c.heartbeat_at > now + CLOCKS_APART)
    over = select(executor.c.id).where(executor.c.role == role, executor.c.retired.is_(False), unheard)
    return list(tx.execute(over.order_by(executor.c.started_at)).scalars())


def listing(tx: Tx) -> list[ExecutorRow]:
    """All that are not retired."""
    rows = tx.execute(select(executor).where(executor.c.retired.is_(False)).order_by(executor.c.started_at))
    return [ExecutorRow(**row._mapping) for row in rows]
