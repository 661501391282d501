"""Leases: a named task is done by one process at a time, until its time is over."""

from datetime import datetime

from sqlalchemy import or_

from dicomguard.clock import CLOCKS_APART
from dicomguard.store.db import Tx, insert_missing
from dicomguard.store.tables import lease

# Held by whoever deletes, and by whoever must not be deleted under: retention and backup.
RETENTION = "retention"


def take(tx: Tx, name: str, owner: str, now: datetime, until: datetime) -> bool:
    """Take or renew; false while another owner's lease runs.

    A lease is made for minutes: one that ends long after the asked `until` was taken by a clock that ran ahead.
    """
    if insert_missing(tx, lease, {"name": name, "owner": owner, "until": until}):
        return True
    free = or_(lease.c.owner == owner, lease.c.until < now, lease.c.until > until + CLOCKS_APART)
    return tx.execute(lease.update().where(lease.c.name == name, free).values(owner=owner, until=until)).rowcount == 1


def release(tx: Tx, name: str, owner: str) -> None:
    """Give it back early; nothing when another holds it."""
    tx.execute(lease.delete().where(lease.c.name == name, lease.c.owner == owner))
