"""What reception has to know of images that retention deleted, or that were lost: their rows outlive their files."""

from datetime import datetime

from sqlalchemy import select

from dicomguard.store.db import Tx
from dicomguard.store.tables import instance, study

# States of rows whose files are not to be expected.
WITHOUT_FILE = frozenset({"expired", "missing"})
# Stands for a person in `held_by`.
HOLDER = "retention"


def revive(tx: Tx, instance_id: int, *, path: str, own: bool, now: datetime) -> None:
    """The same bytes came again: the row keeps them once more, from now, at `path`. No revision is opened.

    `own` says that they are a result of ours, which no later revision covers either.

    Before the file is written: retention unlinks only what is still expired in its own transaction.
    """
    gone = (instance.c.id == instance_id, instance.c.state.in_(WITHOUT_FILE))
    values = {"state": "own" if own else "stored", "path": path, "received_at": now, "reason": "it was sent again"}
    tx.execute(instance.update().where(*gone).values(**values))


def has_expired(tx: Tx, study_key: str) -> bool:
    """Whether images of the study were deleted, so that a new revision would cover only what came since."""
    found = select(instance.c.id).where(instance.c.study_key == study_key, instance.c.state == "expired").limit(1)
    return tx.execute(found).first() is not None


def hold(tx: Tx, study_key: str) -> None:
    """Leave it to a person whether a report on what came late takes the place of the report on all."""
    tx.execute(study.update().where(study.c.study_key == study_key, study.c.held_by == "").values(held_by=HOLDER))
