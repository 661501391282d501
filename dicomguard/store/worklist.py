"""The worklist: one line a study with its state and the answer of its current revision."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, Row, Select, Table, and_, case, func, or_, select

from dicomguard.errors import Refused
from dicomguard.store.db import Tx
from dicomguard.store.tables import analysis, instance, study
from dicomguard.store.tables import revision as revision_table

COLLECTING = "collecting"
HELD = "held"


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyRow:
    """One line of the worklist."""

    study_key: str
    study_instance_uid: str
    calling_ae: str
    received_at: datetime
    # 0 before the first revision.
    revision: int
    # "collecting", "held", or the state of the current revision.
    state: str
    # Who holds it: a name, `expiry.HOLDER`, or "".
    held_by: str
    reason: str
    progress_done: int
    progress_total: int
    # None until the current revision has a verdict.
    category: str | None
    score: float | None
    complete: bool | None
    instance_count: int

    @property
    def cursor(self) -> str:
        """Where the next page begins."""
        return f"{self.received_at.isoformat(timespec='microseconds')}|{self.study_key}"


def listing(
    tx: Tx,
    *,
    limit: int,
    before: str | None = None,
    state: str | None = None,
    category: str | None = None,
    calling_ae: str | None = None,
) -> list[StudyRow]:
    """Studies that hold something, the latest received first; `before` is the cursor of the last row seen."""
    query = _rows()
    if before is not None:
        moment, _, key = before.partition("|")
        try:
            at = datetime.fromisoformat(moment)
        except ValueError:
            raise Refused(f'"{before[:80]}" is no place in the worklist. Take the cursor of a row.') from None
        query = query.where(or_(study.c.last_at < at, and_(study.c.last_at == at, study.c.study_key < key)))
    if state is not None:
        query = query.where(_state() == state)
    if category is not None:
        query = query.where(analysis.c.category == category)
    if calling_ae is not None:
        query = query.where(study.c.calling_ae == calling_ae)
    return [_row(row) for row in tx.execute(query.limit(limit))]


def row(tx: Tx, study_key: str) -> StudyRow | None:
    """One line of the worklist."""
    found = tx.execute(_rows().where(study.c.study_key == study_key)).first()
    return None if found is None else _row(found)


def counts(tx: Tx) -> dict[str, int]:
    """How many studies are in each state."""
    rows = tx.execute(
        select(_state().label("study_state"), func.count())
        .select_from(study)
        .where(or_(study.c.collecting, study.c.current_revision > 0))
        .outerjoin(revision_table, _is_current(revision_table))
        .group_by("study_state")
    )
    return {name: int(count) for name, count in rows}


def _is_current(table: Table) -> ColumnElement[bool]:
    return and_(table.c.study_key == study.c.study_key, table.c.number == study.c.current_revision)


def _state() -> ColumnElement[str]:
    return case(
        (study.c.held_by != "", HELD),
        (study.c.collecting, COLLECTING),
        else_=func.coalesce(revision_table.c.state, COLLECTING),
    )


def _rows() -> Select[tuple[object, ...]]:
    held = (
        select(func.count(func.distinct(instance.c.sop_uid)))
        .where(instance.c.study_key == study.c.study_key, instance.c.state == "stored")
        .scalar_subquery()
    )
    return (
        select(
            study,
            _state().label("state"),
            revision_table.c.reason,
            revision_table.c.progress_done,
            revision_table.c.progress_total,
            analysis.c.category,
            analysis.c.score,
            analysis.c.complete,
            held.label("instance_count"),
        )
        .outerjoin(revision_table, _is_current(revision_table))
        .outerjoin(analysis, _is_current(analysis))
        # A study of which only our own results came back is no work.
        .where(or_(study.c.collecting, study.c.current_revision > 0))
        .order_by(study.c.last_at.desc(), study.c.study_key.desc())
    )


def _row(row: Row[tuple[object, ...]]) -> StudyRow:
    return StudyRow(
        study_key=row.study_key,
        study_instance_uid=row.study_uid,
        calling_ae=row.calling_ae,
        received_at=row.last_at,
        revision=row.current_revision,
        state=row.state,
        held_by=row.held_by,
        reason=row.reason or "",
        progress_done=row.progress_done or 0,
        progress_total=row.progress_total or 0,
        category=row.category,
        score=row.score,
        complete=row.complete,
        instance_count=row.instance_count,
    )
