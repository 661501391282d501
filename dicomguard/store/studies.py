"""Studies, their revisions and what was found: the rows between reception and delivery.

A study collects until a revision is opened on it; the revision's instance list is frozen with it. What comes later
starts the next collection.
"""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from types import MappingProxyType

from sqlalchemy import ColumnElement, Row, Select, func, literal, select

from dicomguard.core import canon
from dicomguard.core.completion import Activity
from dicomguard.core.instance import Instance
from dicomguard.core.study import Manifest, OpenedBecause, StudyRevision
from dicomguard.errors import Broken, Refused
from dicomguard.store.db import Tx, upsert
from dicomguard.store.tables import (
    analysis,
    association,
    association_study,
    instance,
    revision_instance,
    study,
)
from dicomguard.store.tables import revision as revision_table

# One door for callers: what they ask of studies stands here or in the worklist.
from dicomguard.store.worklist import StudyRow as StudyRow
from dicomguard.store.worklist import counts as counts
from dicomguard.store.worklist import listing as listing
from dicomguard.store.worklist import row as row

OPENED = "opened"
_ASSOCIATION_HOLD = timedelta(seconds=600)


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenStudy:
    """A study that collects."""

    study_key: str
    study_instance_uid: str
    activity: Activity
    opened_because: OpenedBecause
    # Name of the person who wants it closed now; "" for none.
    forced_by: str
    on_hold: bool
    calling_ae: str
    # Whether a request of this collection asked for high priority.
    asked_urgent: bool


def collecting(
    tx: Tx,
    *,
    now: datetime,
    association_hold: timedelta = _ASSOCIATION_HOLD,
    holds: Mapping[str, timedelta] = MappingProxyType({}),
    only: str | None = None,
) -> list[OpenStudy]:
    """Studies (or the study with the key `only`) with instances that no revision covers yet, the longest waiting first.

    `association_hold`: how long ago an open association may have stored something and still hold the study; `holds`:
    the same by calling AE title, where that is known better.
    """
    wanted = (study.c.collecting, *(() if only is None else (study.c.study_key == only,)))
    rows = tx.execute(select(study).where(*wanted).order_by(study.c.collecting_first_at)).all()
    open_ones, released = _holding(tx, *wanted)
    return [
        OpenStudy(
            study_key=row.study_key,
            study_instance_uid=row.study_uid,
            activity=Activity(
                first_received_at=row.collecting_first_at,
                last_received_at=row.collecting_last_at,
                associations_open=sum(
                    stored_at >= now - holds.get(row.calling_ae, association_hold)
                    for stored_at in open_ones.get(row.study_key, ())
                ),
                released=row.study_key in released,
            ),
            opened_because=row.opened_because,
            forced_by=row.forced_by,
            on_hold=bool(row.held_by),
            calling_ae=row.calling_ae,
            asked_urgent=row.urgent,
        )
        for row in rows
    ]


def _holding(tx: Tx, *wanted: ColumnElement[bool]) -> tuple[dict[str, list[datetime]], set[str]]:
    """When each open association stored last, by study; and the studies of which all associations were released."""
    rows = tx.execute(
        select(association_study.c.study_key, association_study.c.last_store_at, association.c.how)
        .join(association, association.c.id == association_study.c.association_id)
        .join(study, study.c.study_key == association_study.c.study_key)
        .where(*wanted, association_study.c.last_store_at >= study.c.collecting_first_at)
    ).all()
    open_ones: dict[str, list[datetime]] = {}
    for study_key, stored_at, how in rows:
        if how == "":
            open_ones.setdefault(study_key, []).append(stored_at)
    return open_ones, {key for key, _, _ in rows} - {key for key, _, how in rows if how != "release"}


def ahead(tx: Tx, *, now: datetime) -> bool:
    """Whether something seems to have come to an open study later than `now`."""
    return (
        tx.execute(select(study.c.study_key).where(study.c.collecting, study.c.collecting_last_at > now)).first()
        is not None
    )


def come_by(tx: Tx, *, now: datetime) -> None:
    """What seems to have come to open studies later than `now` has come now."""
    for column in (study.c.collecting_first_at, study.c.collecting_last_at):
        tx.execute(study.update().where(study.c.collecting, column > now).values({column: now}))


def lock(tx: Tx, study_key: str) -> None:
    """Have senders, persons and other workers that change the study wait for the end of the transaction."""
    tx.execute(select(study.c.study_key).where(study.c.study_key == study_key).with_for_update()).all()


def open_revision(
    tx: Tx,
    study_key: str,
    *,
    closed_because: str,
    now: datetime,
    opened_because: OpenedBecause | None = None,
    urgent: bool = False,
) -> StudyRevision:
    """Close the collection: freeze the list of instances under the next number; an urgent one is analysed first."""
    row = tx.execute(select(study).where(study.c.study_key == study_key).with_for_update()).first()
    if row is None:
        raise Refused(f'There is no study "{study_key}". Take a key from the worklist.')
    number = row.current_revision + 1
    opened = StudyRevision(
        study_key=study_key,
        study_instance_uid=row.study_uid,
        number=number,
        opened_because=opened_because or row.opened_because,
        closed_because=closed_because,
        created_at=now,
        calling_ae=row.calling_ae,
        urgent=urgent,
    )
    tx.execute(
        revision_table.insert().values(
            study_key=study_key,
            number=number,
            opened_because=opened.opened_because,
            closed_because=closed_because,
            created_at=now,
            calling_ae=row.calling_ae,
            state=OPENED,
            reason="",
            progress_done=0,
            progress_total=0,
            urgent=urgent,
        )
    )
    covered = _current_instances(study_key).with_only_columns(literal(study_key), literal(number), instance.c.id)
    columns = ["study_key", "number", "instance_id"]
    tx.execute(revision_instance.insert().from_select(columns, covered.order_by(None)))
    tx.execute(
        study.update()
        .where(study.c.study_key == study_key)
        .values(collecting=False, forced_by="", urgent=False, current_revision=number)
    )
    return opened


def _current_instances(study_key: str) -> Select[tuple[object, ...]]:
    """Stored instances of a study, each with its newest header."""
    newest = instance.alias("newest")
    newer = (
        select(newest.c.id)
        .where(
            newest.c.sop_uid == instance.c.sop_uid,
            newest.c.ordinal == instance.c.ordinal,
            newest.c.version > instance.c.version,
            newest.c.study_key == instance.c.study_key,
            newest.c.state == "stored",
        )
        .exists()
    )
    return (
        select(instance)
        .where(instance.c.study_key == study_key, instance.c.state == "stored", ~newer)
        .order_by(instance.c.received_at, instance.c.id)
    )


def revisions(tx: Tx, study_key: str) -> list[StudyRevision]:
    """All revisions of a study, oldest first."""
    rows = tx.execute(_revisions().where(revision_table.c.study_key == study_key).order_by(revision_table.c.number))
    return [_revision(row) for row in rows]


def revision(tx: Tx, study_key: str, number: int) -> StudyRevision:
    """One revision; `Broken` when there is none, since its caller has seen it."""
    row = tx.execute(
        _revisions().where(revision_table.c.study_key == study_key, revision_table.c.number == number)
    ).first()
    if row is None:
        raise Broken(f"Revision {number} of study {study_key} is gone. Look whether the database was restored.")
    return _revision(row)


def _revisions() -> Select[tuple[object, ...]]:
    return select(revision_table, study.c.study_uid).join(study, study.c.study_key == revision_table.c.study_key)


def _revision(row: Row[tuple[object, ...]]) -> StudyRevision:
    return StudyRevision(
        study_key=row.study_key,
        study_instance_uid=row.study_uid,
        number=row.number,
        opened_because=row.opened_because,
        closed_because=row.closed_because,
        created_at=row.created_at,
        calling_ae=row.calling_ae,
        urgent=row.urgent,
    )


def instances(tx: Tx, study_key: str, number: int) -> list[Instance]:
    """The frozen list of a revision, in the order of reception."""
    rows = tx.execute(
        select(instance)
        .join(revision_instance, revision_instance.c.instance_id == instance.c.id)
        .where(revision_instance.c.study_key == study_key, revision_instance.c.number == number)
        .order_by(instance.c.received_at, instance.c.id)
    )
    return [read_instance(row) for row in rows]


def patient_ids(tx: Tx, study_key: str, number: int) -> int:
    """How many different Patient IDs the instances of a revision carry; more than one is said in the report."""
    return tx.execute(
        select(func.count(func.distinct(instance.c.patient_sha256)))
        .join(revision_instance, revision_instance.c.instance_id == instance.c.id)
        .where(revision_instance.c.study_key == study_key, revision_instance.c.number == number)
    ).scalar_one()


def read_instance(row: Row[tuple[object, ...]]) -> Instance:
    """The value of a row of the instance table."""
    return Instance(
        sop_instance_uid=row.sop_uid,
        sop_class_uid=row.sop_class,
        study_instance_uid=row.study_uid,
        series_instance_uid=row.series_uid,
        transfer_syntax_uid=row.syntax,
        sha256=row.sha256,
        size_bytes=row.size,
        path=row.path,
        calling_ae=row.calling_ae,
        called_ae=row.called_ae,
        address=row.address,
        received_at=row.received_at,
        ordinal=row.ordinal,
        state=row.state,
        reason=row.reason,
    )


def force(tx: Tx, study_key: str, by: str, *, now: datetime) -> None:
    """Have the study closed now; one that collects nothing is judged again."""
    row = tx.execute(select(study).where(study.c.study_key == study_key).with_for_update()).first()
    if row is None:
        raise Refused(f'There is no study "{study_key}". Take a key from the worklist.')
    values: dict[str, object] = {"forced_by": by[:128], "held_by": ""}
    if not row.collecting:
        values |= {
            "collecting": True,
            "collecting_first_at": now,
            "collecting_last_at": now,
            "opened_because": "forced",
        }
    tx.execute(study.update().where(study.c.study_key == study_key).values(**values))


def hold(tx: Tx, study_key: str, on: bool, by: str) -> None:
    """Keep the study from being closed, or let it go."""
    done = tx.execute(study.update().where(study.c.study_key == study_key).values(held_by=by[:128] if on else ""))
    if done.rowcount == 0:
        raise Refused(f'There is no study "{study_key}". Take a key from the worklist.')


def advance(tx: Tx, study_key: str, number: int, to: str, *, from_: Collection[str], reason: str = "") -> bool:
    """Move a revision to another state if it is in one of `from_`; false when it was not."""
    moved = (
        revision_table.update()
        .where(
            revision_table.c.study_key == study_key,
            revision_table.c.number == number,
            revision_table.c.state.in_(from_),
        )
        .values(state=to, reason=reason)
    )
    return tx.execute(moved).rowcount == 1


def reopen(tx: Tx, study_key: str, number: int, *, from_: Collection[str], reason: str) -> bool:
    """Have the work on a revision begin again, with attempts of its own; false when it was not in one of `from_`."""
    if not advance(tx, study_key, number, OPENED, from_=from_, reason=reason):
        return False
    c = revision_table.c
    again = revision_table.update().where(c.study_key == study_key, c.number == number).values(retries=c.retries + 1)
    tx.execute(again)
    return True


def retries(tx: Tx, study_key: str, number: int) -> int:
    """How often a revision was reopened."""
    c = revision_table.c
    return tx.execute(select(c.retries).where(c.study_key == study_key, c.number == number)).scalar() or 0


def state(tx: Tx, study_key: str, number: int) -> str | None:
    """State of a revision, None when there is none."""
    return tx.execute(
        select(revision_table.c.state).where(revision_table.c.study_key == study_key, revision_table.c.number == number)
    ).scalar()


def in_state(tx: Tx, states: Collection[str]) -> list[tuple[str, int]]:
    """Revisions in one of the states, the oldest first."""
    rows = tx.execute(
        select(revision_table.c.study_key, revision_table.c.number)
        .where(revision_table.c.state.in_(states))
        .order_by(revision_table.c.created_at, revision_table.c.study_key)
    )
    return [(study_key, number) for study_key, number in rows]


def urgent(tx: Tx, numbers: Collection[tuple[str, int]]) -> set[tuple[str, int]]:
    """Those of these revisions, by study key and number, that go first."""
    keys = {study_key for study_key, _ in numbers}
    rows = tx.execute(
        select(revision_table.c.study_key, revision_table.c.number).where(
            revision_table.c.urgent, revision_table.c.study_key.in_(keys)
        )
    )
    return {(study_key, number) for study_key, number in rows} & set(numbers)


def set_progress(tx: Tx, study_key: str, number: int, done: int, total: int) -> None:
    """How many slices are judged of how many."""
    tx.execute(
        revision_table.update()
        .where(revision_table.c.study_key == study_key, revision_table.c.number == number)
        .values(progress_done=done, progress_total=total)
    )


def keep_manifest(tx: Tx, study_key: str, number: int, manifest: Manifest) -> None:
    """Freeze what one analysis covers; a second time must bring the same."""
    kept = tx.execute(
        select(revision_table.c.manifest_sha256).where(
            revision_table.c.study_key == study_key, revision_table.c.number == number
        )
    ).scalar()
    if kept is not None and kept != manifest.sha256:
        raise Broken(f"Revision {number} of study {study_key} was frozen with other content. Open a new revision.")
    tx.execute(
        revision_table.update()
        .where(revision_table.c.study_key == study_key, revision_table.c.number == number)
        .values(manifest=canon.encode(manifest.to_json()).decode(), manifest_sha256=manifest.sha256)
    )


def manifest(tx: Tx, study_key: str, number: int) -> Manifest | None:
    """The frozen manifest, its hash verified; None before it is kept."""
    row = tx.execute(
        select(revision_table.c.manifest, revision_table.c.manifest_sha256).where(
            revision_table.c.study_key == study_key, revision_table.c.number == number
        )
    ).first()
    if row is None or row.manifest is None:
        return None
    value = Manifest.from_json(json.loads(row.manifest))
    if value.sha256 != row.manifest_sha256:
        raise Broken(f"The manifest of revision {number} of study {study_key} was altered. Open a new revision.")
    return value


def keep_verdict(
    tx: Tx,
    study_key: str,
    number: int,
    *,
    verdict_sha256: str,
    path: str,
    category: str,
    score: float | None,
    complete: bool,
    model_id: str,
    now: datetime,
) -> None:
    """Note where verdict.json of a revision lies (`path` relative to the root), and its answer for lists."""
    values = {
        "verdict_sha256": verdict_sha256,
        "path": path,
        "category": category,
        "score": score,
        "complete": complete,
        "model_id": model_id,
        "kept_at": now,
    }
    upsert(tx, analysis, {"study_key": study_key, "number": number}, values, new=values)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptVerdict:
    """Where the verdict of a revision lies."""

    # Relative to the root of the store.
    path: Path
    sha256: str
    category: str
    score: float | None
    complete: bool
    model_id: str


def verdict(tx: Tx, study_key: str, number: int) -> Path | None:
    """Path of verdict.json relative to the root of the store; None before the revision is judged."""
    kept = kept_verdict(tx, study_key, number)
    return None if kept is None else kept.path


def kept_verdict(tx: Tx, study_key: str, number: int) -> KeptVerdict | None:
    """None before the revision is judged."""
    row = tx.execute(select(analysis).where(analysis.c.study_key == study_key, analysis.c.number == number)).first()
    if row is None:
        return None
    return KeptVerdict(
        path=Path(row.path),
        sha256=row.verdict_sha256,
        category=row.category,
        score=row.score,
        complete=row.complete,
        model_id=row.model_id,
    )


def find(tx: Tx, study_instance_uid: str) -> str | None:
    """Key of the study with this UID."""
    return tx.execute(select(study.c.study_key).where(study.c.study_uid == study_instance_uid)).scalar()


def first_instance(tx: Tx, study_key: str) -> Instance | None:
    """The first stored instance of a study, also before its first revision."""
    found = tx.execute(_current_instances(study_key).limit(1)).first()
    return None if found is None else read_instance(found)
