"""Which weights judge: proposed by a training run, approved by a person, rolled back when they disappoint.

At most one model is current; none means the weights that ship with the package. Every change stands in the audit chain.
Knows nothing of figures: the decision of promotion is kept as it was given.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, cast

from sqlalchemy import Row, select

from dicomguard.core import canon
from dicomguard.errors import Broken, Refused
from dicomguard.store import accounts, audit, runs
from dicomguard.store.db import Store, Tx, insert_missing
from dicomguard.store.files import read_pieces, write_durably
from dicomguard.store.tables import model

State = Literal["candidate", "current", "retired", "rejected"]
# Stands in the audit chain and in lists for the weights of the package.
SHIPPED = "shipped"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRow:
    """One set of weights that training made."""

    # Name and version as the head of the weights says.
    id: str
    sha256: str
    # Below the root of the store.
    path: str
    state: State
    # Id of the model that was current before this one; "" for the shipped weights.
    predecessor: str
    # What promotion said: "reasons", "people" who made the run and curated its cases, "run", and "incumbent", the hash
    # of the weights that the candidate was measured against; after a yes also "approval".
    decision: Mapping[str, Any]
    proposed_by: str
    proposed_at: datetime
    decided_by: str
    decided_at: datetime | None

    @property
    def reasons(self) -> tuple[str, ...]:
        """Sentences of the promotion decision."""
        return tuple(str(reason) for reason in self.decision.get("reasons", ()))

    @property
    def approval(self) -> str:
        """Who approved and who started the run, and who had invited them; "" before."""
        return str(self.decision.get("approval", ""))


def keep_weights(store: Store, source: Path, sha256: str) -> str:
    """Copy weights into the store under their hash, durably; returns the path below the root."""
    relative = f"models/{sha256}.safetensors"
    target = store.root / relative
    if not target.is_file():
        write_durably(store.disk, store.root, relative, read_pieces(source))
    with target.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != sha256:
        target.unlink()
        raise Broken(
            f"The weights {source.name} have the hash {found[:12]}, not {sha256[:12]}. Run the training again."
        )
    return relative


def propose(
    tx: Tx,
    *,
    id: str,
    sha256: str,
    path: str,
    decision: Mapping[str, Any],
    rejected: bool,
    by: str,
    now: datetime,
) -> ModelRow:
    """Enter the model of a run: a candidate that waits for approval, or one that promotion rejected.

    The same weights again change nothing: a run's step may happen twice.
    """
    state: State = "rejected" if rejected else "candidate"
    values = {
        "id": id,
        "sha256": sha256,
        "path": path,
        "state": state,
        "predecessor": "",
        "decision": canon.encode(dict(decision)).decode(),
        "proposed_by": by,
        "proposed_at": now,
        "decided_by": "promotion" if rejected else "",
        "decided_at": now if rejected else None,
    }
    new = insert_missing(tx, model, values)
    row = tx.execute(select(model).where(model.c.sha256 == sha256)).one_or_none()
    if row is None:
        raise Refused(f'Another model is called "{id}" already. Run the training again: each model needs its own name.')
    if new:
        audit.append(tx, by, f"model.{state}", id, {"sha256": sha256}, now=now)
    return _row(row)


def approve(tx: Tx, id: str, *, by: str, two_people: bool, now: datetime) -> ModelRow:
    """Let a candidate judge from the next study on."""
    row = _locked(tx, id)
    if row.state != "candidate":
        raise Refused(f'Model {row.id} is "{row.state}". Only a candidate can be approved; `dicomguard models list`.')
    _named(by)
    if fault := outdated(tx, row):
        raise Refused(fault)
    if two_people:
        _refuse_one_person(tx, row, by, now)
    before = current(tx)
    if before is not None:
        _set(tx, before.id, state="retired")
    said = _approval(tx, row, by.strip(), now)
    decision = canon.encode({**row.decision, "approval": said}).decode()
    _set(
        tx,
        row.id,
        state="current",
        predecessor=before.id if before else "",
        decision=decision,
        decided_by=by.strip(),
        decided_at=now,
    )
    change = {"before": before.id if before else SHIPPED, "approval": said}
    audit.append(tx, by.strip(), "model.approved", row.id, change, now=now)
    return _locked(tx, row.id)


def outdated(tx: Tx, row: ModelRow) -> str:
    """Why a candidate cannot be approved although nobody declined it; "" where it can.

    A run compares with the model of its time only. Where another one judges by now, nobody knows which is better.
    """
    if "run" not in row.decision:
        return ""
    incumbent = str(row.decision.get("incumbent", ""))
    if not incumbent:
        return f"The run of {row.id} does not say what it was measured against. Start a new run."
    before = current(tx)
    measured = next((one.id for one in listing(tx) if one.sha256 == incumbent), "")
    # Weights that no run made are those of the package or of the configuration: they judge while no model is current.
    if (before.sha256 == incumbent) if before else not measured:
        return ""
    return (
        f"{row.id} was measured against {measured or f'the weights {incumbent[:12]}'}, and "
        f"{before.id if before else 'the shipped model'} judges now. Start a new run, which compares with the model "
        "in use."
    )


def _refuse_one_person(tx: Tx, row: ModelRow, by: str, now: datetime) -> None:
    people = [str(person) for person in (*row.decision.get("people", ()), row.proposed_by)]
    if accounts.folded(by) in {accounts.folded(person) for person in people}:
        raise Refused(
            f"{by.strip()} started the run or added its cases, and cannot approve its model. Ask a second person, or "
            "set two_people = false in [retrain] where there is only one."
        )
    run = runs.of_candidate(tx, row.sha256)
    since = run.started_at if run else row.proposed_at
    who = accounts.counts_as(tx, by, since=since, now=now)
    for person in people:
        if accounts.counts_as(tx, person, since=since, now=now) == who:
            raise Refused(
                f"{by.strip()} and {person} count as one person, {who}: an account counts as the one that invited it "
                "until it is a day old, and for runs that were started before it joined. Ask somebody else, or wait "
                "for a day; where the account joined after the start, start a new run then."
            )


def _approval(tx: Tx, row: ModelRow, by: str, now: datetime) -> str:
    account = accounts.find(tx, by, now=now)
    said = f"Approved by {account.introduced if account else f'{by}, who has no account on the page'}."
    starter = accounts.find(tx, row.proposed_by, now=now)
    return f"{said} The run was started by {starter.introduced}." if starter else said


def decline(tx: Tx, id: str, *, by: str, reason: str, now: datetime) -> ModelRow:
    """Say no to a candidate."""
    row = _locked(tx, id)
    if row.state != "candidate":
        raise Refused(f'Model {row.id} is "{row.state}". Only a candidate can be declined.')
    _named(by)
    _set(tx, row.id, state="rejected", decided_by=by.strip(), decided_at=now)
    audit.append(tx, by.strip(), "model.declined", row.id, {"reason": reason}, now=now)
    return _locked(tx, row.id)


def rollback(tx: Tx, *, by: str, now: datetime) -> ModelRow | None:
    """Let the model before the current one judge again; None when those are the shipped weights."""
    _named(by)
    tx.execute(select(model.c.id).with_for_update()).all()
    bad = current(tx)
    if bad is None:
        raise Refused("The shipped weights judge already; there is nothing to roll back to.")
    _set(tx, bad.id, state="retired")
    if bad.predecessor:
        _set(tx, bad.predecessor, state="current")
    audit.append(tx, by.strip(), "model.rolled_back", bad.id, {"to": bad.predecessor or SHIPPED}, now=now)
    return current(tx)


def current(tx: Tx) -> ModelRow | None:
    """The approved model; None when the shipped weights judge."""
    row = tx.execute(select(model).where(model.c.state == "current")).one_or_none()
    return None if row is None else _row(row)


def weights(store: Store, tx: Tx) -> Path | None:
    """File of the current model; None when the shipped weights judge."""
    row = current(tx)
    if row is None:
        return None
    path = store.root / row.path
    if not path.is_file():
        raise Broken(f"The weights of the current model {row.id} are missing. Restore {row.path}, or roll back.")
    return path


def listing(tx: Tx) -> list[ModelRow]:
    """All models, newest first."""
    rows = tx.execute(select(model).order_by(model.c.proposed_at.desc(), model.c.id))
    return [_row(row) for row in rows]


def row(tx: Tx, id: str) -> ModelRow:
    """One model by its id or the begin of its hash; raise `Refused` when there is none or more than one."""
    rows = [one for one in listing(tx) if one.id == id or (len(id) >= 6 and one.sha256.startswith(id))]
    if len(rows) != 1:
        raise Refused(f'{len(rows) or "No"} model is called "{id}". `dicomguard models list` shows what there is.')
    return rows[0]


def _locked(tx: Tx, id: str) -> ModelRow:
    # All rows, so that two approvals on PostgreSQL come one after the other; there are few.
    tx.execute(select(model.c.id).with_for_update()).all()
    return row(tx, id)


def _set(tx: Tx, id: str, **values: Any) -> None:
    tx.execute(model.update().where(model.c.id == id).values(**values))


def _named(by: str) -> None:
    if not by.strip():
        raise Refused("The person who decides is not named. Give a name with --by.")


def _row(row: Row[Any]) -> ModelRow:
    return ModelRow(
        id=row.id,
        sha256=row.sha256,
        path=row.path,
        state=cast(State, row.state),
        predecessor=row.predecessor,
        decision=json.loads(row.decision),
        proposed_by=row.proposed_by,
        proposed_at=row.proposed_at,
        decided_by=row.decided_by,
        decided_at=row.decided_at,
    )
