"""What a person decides about models: yes, no, and back; the run that made the model says so too."""

from datetime import datetime

from dicomguard import log
from dicomguard.store import models, runs
from dicomguard.store.db import Store, Tx

_log = log.get("retrain")


def approve(store: Store, model_id: str, *, by: str, two_people: bool, now: datetime) -> models.ModelRow:
    """Let a candidate judge from the next study on."""
    with store.begin() as tx:
        row = models.approve(tx, models.row(tx, model_id).id, by=by, two_people=two_people, now=now)
        _close_run(tx, row, "approved", f"Approved by {row.decided_by}.", now)
    _log.event("model.approved", model=row.id, actor=by)
    return row


def decline(store: Store, model_id: str, *, by: str, reason: str, now: datetime) -> models.ModelRow:
    """Say no to a candidate."""
    with store.begin() as tx:
        row = models.decline(tx, models.row(tx, model_id).id, by=by, reason=reason, now=now)
        _close_run(tx, row, "declined", f"Declined by {row.decided_by}. {reason}".strip(), now)
    return row


def rollback(store: Store, *, by: str, now: datetime) -> models.ModelRow | None:
    """Let the model before the current one judge again; None when those are the shipped weights."""
    with store.begin() as tx:
        bad = models.current(tx)
        row = models.rollback(tx, by=by, now=now)
        if bad is not None:
            _close_run(tx, bad, "rolled_back", f"Rolled back by {by}.", now)
    _log.event("model.rolled_back", model=bad.id if bad else models.SHIPPED, actor=by)
    return row


def _close_run(tx: Tx, row: models.ModelRow, state: runs.State, sentence: str, now: datetime) -> None:
    run = runs.of_candidate(tx, row.sha256)
    if run is not None:
        runs.advance(tx, run.key, state, now=now, message=" ".join([*row.reasons, sentence]))
