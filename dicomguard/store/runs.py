"""Training runs: one row a period, from the moment it is asked for to the decision about its model."""

import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, cast

from sqlalchemy import Row, select

from dicomguard.core import canon
from dicomguard.errors import Refused
from dicomguard.store import audit
from dicomguard.store.db import Tx, insert_missing
from dicomguard.store.tables import retrain_run

State = Literal[
    "asked", "freezing", "training", "evaluating", "waiting", "refused", "failed", "approved", "declined", "rolled_back"
]
# Nothing more happens by itself.
ENDED = frozenset({"waiting", "refused", "failed", "approved", "declined", "rolled_back"})


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRow:
    """One training run."""

    # Ours, also the name of its folder below retrain/.
    key: str
    # retrain-2026-W48, or by-hand-… for one that a person started.
    period: str
    state: State
    started_by: str
    started_at: datetime
    finished_at: datetime | None
    # Below the root; "" before there is one.
    report_path: str
    candidate_sha256: str
    # Last line of the trainer's progress.
    progress: Mapping[str, Any]
    # Why it ended as it did.
    message: str

    @property
    def ended(self) -> bool:
        """Whether it waits for nobody but a person."""
        return self.state in ENDED


def ask(tx: Tx, period: str, *, by: str, now: datetime) -> RunRow:
    """Ask for the run of a period; the same period again gives the run that is there."""
    values = {
        "key": secrets.token_hex(8),
        "period": period,
        "state": "asked",
        "started_by": by,
        "started_at": now,
        "report_path": "",
        "candidate_sha256": "",
        "progress": "{}",
        "message": "",
    }
    new = insert_missing(tx, retrain_run, values)
    found = _row(tx.execute(select(retrain_run).where(retrain_run.c.period == period)).one())
    if new:
        audit.append(tx, by, "run.asked", found.key, {"period": period}, now=now)
    return found


def asked(tx: Tx) -> list[RunRow]:
    """Runs that nobody has begun, the oldest first."""
    rows = tx.execute(select(retrain_run).where(retrain_run.c.state == "asked").order_by(retrain_run.c.started_at))
    return [_row(row) for row in rows]


def row(tx: Tx, key: str) -> RunRow | None:
    """One run."""
    found = tx.execute(select(retrain_run).where(retrain_run.c.key == key)).one_or_none()
    return None if found is None else _row(found)


def of_candidate(tx: Tx, sha256: str) -> RunRow | None:
    """The run that made these weights."""
    newest = (
        select(retrain_run).where(retrain_run.c.candidate_sha256 == sha256).order_by(retrain_run.c.started_at.desc())
    )
    found = tx.execute(newest.limit(1)).one_or_none()
    return None if found is None else _row(found)


def listing(tx: Tx, *, limit: int = 50) -> list[RunRow]:
    """Newest first."""
    rows = tx.execute(select(retrain_run).order_by(retrain_run.c.started_at.desc()).limit(limit))
    return [_row(row) for row in rows]


def advance(
    tx: Tx,
    key: str,
    state: State,
    *,
    now: datetime,
    message: str | None = None,
    progress: Mapping[str, Any] | None = None,
    report_path: str | None = None,
    candidate_sha256: str | None = None,
) -> None:
    """Move a run on and write down what is given; None leaves a column as it is."""
    values: dict[str, Any] = {"state": state, "finished_at": now if state in ENDED else None}
    given = {"message": message, "report_path": report_path, "candidate_sha256": candidate_sha256}
    values |= {name: value for name, value in given.items() if value is not None}
    if progress is not None:
        values["progress"] = canon.encode(dict(progress)).decode()
    if tx.execute(retrain_run.update().where(retrain_run.c.key == key).values(**values)).rowcount != 1:
        raise Refused(f'There is no training run "{key}". `dicomguard retrain --list` shows the runs.')


def _row(row: Row[Any]) -> RunRow:
    return RunRow(
        key=row.key,
        period=row.period,
        state=cast(State, row.state),
        started_by=row.started_by,
        started_at=row.started_at,
        finished_at=row.finished_at,
        report_path=row.report_path,
        candidate_sha256=row.candidate_sha256,
        progress=json.loads(row.progress),
        message=row.message,
    )
