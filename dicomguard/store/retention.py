"""Carries out what `core.retention` plans, a study at a time, so that it can be cut off anywhere.

Images: row `expired` with its audit line, then unlink, then the row gives up its path; the row itself goes once no
kept revision names it. Until then it knows the bytes when they are sent again. Studies: rows and audit line in one
transaction that also notes the folders, then the folders. What a cut left over is finished first by the next run.
"""

import contextlib
import secrets
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

from sqlalchemy import Row, and_, func, or_, select

from dicomguard.core.canon import Json
from dicomguard.core.commitment import State
from dicomguard.core.retention import Candidate, Expiry, Policy, Removal, kept_because, plan
from dicomguard.store import associations, audit, counters, ephemeral, jobs, leases
from dicomguard.store.db import Store, Tx
from dicomguard.store.files import unavailable
from dicomguard.store.tables import (
    analysis,
    association_study,
    commitment,
    delivery,
    delivery_instance,
    instance,
    result,
    revision,
    revision_instance,
    study,
)
from dicomguard.store.verify.look import REMOVED

EVERY = timedelta(days=1)
# Kind of the note that says when the last run ended; it has an end of its own.
LAST_RUN = "retention-run"
# States of images that are there, or should be.
_KEPT = ("stored", "own", "missing")
# States of a revision that need its images: those on the way, and a current one that waits for a person.
_ON_ITS_WAY = ("opened", "analysing", "judged", "built", "delivering")
_WAITS_FOR_A_PERSON = ("failed",)
# In an order that foreign keys allow.
_OF_A_STUDY = (
    commitment,
    delivery_instance,
    delivery,
    result,
    analysis,
    revision_instance,
    revision,
    association_study,
)
# How long associations without a study are shown.
_ASSOCIATIONS = timedelta(days=30)
_BATCH = 100
_LEASE = timedelta(minutes=10)
_ACTOR = "retention"


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """What one run deleted."""

    studies_expired: int = 0
    images: int = 0
    bytes: int = 0
    studies_removed: int = 0

    def __bool__(self) -> bool:
        return self != Done()


def daily(store: Store, policy: Policy, *, stop: Callable[[], bool] = lambda: False) -> Done | None:
    """Run if the last run is a day ago; None when it is not yet time, or a backup or another worker holds the lease."""
    now = store.clock.now()
    with store.read() as tx:
        if ephemeral.get(tx, LAST_RUN, "", now) is not None:
            return None
    owner = f"retention-{secrets.token_hex(8)}"
    if not _take(store, owner):
        return None
    try:
        done = run(store, policy, stop=stop, renew=lambda: _take(store, owner))
        if not stop():
            with store.begin() as tx:
                ephemeral.put(tx, LAST_RUN, "", {}, store.clock.now() + EVERY)
        return done
    finally:
        with store.begin() as tx:
            leases.release(tx, leases.RETENTION, owner)


def _take(store: Store, owner: str) -> bool:
    now = store.clock.now()
    with store.begin() as tx:
        return leases.take(tx, leases.RETENTION, owner, now, now + _LEASE)


def run(
    store: Store, policy: Policy, *, stop: Callable[[], bool] = lambda: False, renew: Callable[[], bool] = lambda: True
) -> Done:
    """Finish what was cut off, then delete what is due; `stop` is asked between two studies."""
    finish(store)
    done = Done()
    now = store.clock.now()
    with store.read() as tx:
        planned = plan(_candidates(tx), policy, now=now)
    for step in planned:
        if stop() or not renew():
            break
        if isinstance(step, Expiry):
            images, size = _expire(store, step)
            done = replace(
                done, studies_expired=done.studies_expired + (images > 0), images=done.images + images,
                bytes=done.bytes + size,
            )  # fmt: skip
            _unlink(store)
        elif _remove(store, step):
            done = replace(done, studies_removed=done.studies_removed + 1)
            _remove_folders(store)
    if policy.images is not None:
        images, size = _expire_quarantined(store, before=now - policy.images)
        done = replace(done, images=done.images + images, bytes=done.bytes + size)
    finish(store)
    with store.begin() as tx:
        associations.forget(tx, before=now - _ASSOCIATIONS)
    jobs.remove_stale(store)
    return done


def finish(store: Store) -> None:
    """Complete what an earlier run, or this one, has decided: files, folders, and rows that nothing names."""
    _unlink(store)
    _remove_folders(store)
    _remove_rows(store)


# --- images ---


def _candidates(tx: Tx, study_key: str | None = None) -> list[Candidate]:
    # Inside the sums too: a database need not look for itself.
    images = [instance.c.study_key == study_key] if study_key is not None else [instance.c.study_key.is_not(None)]
    there = (
        select(
            instance.c.study_key,
            func.count().label("images"),
            func.sum(instance.c.size).label("bytes"),
            func.max(instance.c.received_at).label("last_at"),
        )
        .where(instance.c.state.in_(_KEPT), *images)
        .group_by(instance.c.study_key)
        .subquery()
    )
    judged = select(revision.c.study_key, func.max(revision.c.created_at).label("last_at"))
    if study_key is not None:
        judged = judged.where(revision.c.study_key == study_key)
    judged_at = judged.group_by(revision.c.study_key).subquery()
    in_work = (
        select(revision.c.study_key)
        .where(
            revision.c.study_key == study.c.study_key,
            or_(
                revision.c.state.in_(_ON_ITS_WAY),
                and_(revision.c.number == study.c.current_revision, revision.c.state.in_(_WAITS_FOR_A_PERSON)),
            ),
        )
        .exists()
    )
    waiting = (
        select(delivery.c.study_key)
        .where(delivery.c.study_key == study.c.study_key, delivery.c.next_at.is_not(None))
        .exists()
    )
    uncommitted = (
        select(commitment.c.study_key)
        .where(commitment.c.study_key == study.c.study_key, commitment.c.state != State.COMMITTED.value)
        .exists()
    )
    query = (
        select(
            study,
            there.c.images,
            there.c.bytes,
            there.c.last_at.label("images_at"),
            judged_at.c.last_at.label("judged_at"),
            in_work.label("in_work"),
            waiting.label("waiting"),
            uncommitted.label("uncommitted"),
        )
        .outerjoin(there, there.c.study_key == study.c.study_key)
        .outerjoin(judged_at, judged_at.c.study_key == study.c.study_key)
    )
    if study_key is not None:
        query = query.where(study.c.study_key == study_key)
    return [_candidate(row) for row in tx.execute(query)]


def _candidate(row: Row[tuple[object, ...]]) -> Candidate:
    return Candidate(
        study_key=row.study_key,
        last_received_at=max(row.last_at, row.images_at or row.last_at),
        last_judged_at=row.judged_at or row.first_at,
        images=int(row.images or 0),
        images_bytes=int(row.bytes or 0),
        collecting=row.collecting,
        on_hold=bool(row.held_by),
        in_work=bool(row.in_work),
        waiting=bool(row.waiting),
        uncommitted=bool(row.uncommitted),
    )


def _expire(store: Store, step: Expiry) -> tuple[int, int]:
    """Give up the images of a study, unless something has come to it since it was planned; how many, and bytes."""
    with store.begin() as tx:
        # Locked against a reception that would make it collect again.
        tx.execute(select(study.c.study_key).where(study.c.study_key == step.study_key).with_for_update())
        now_there = _candidates(tx, step.study_key)
        if not now_there or kept_because(now_there[0]) or now_there[0].images_bytes != step.images_bytes:
            return 0, 0
        mine = (instance.c.study_key == step.study_key, instance.c.state.in_(_KEPT))
        images = tx.execute(
            instance.update().where(*mine).values(state="expired", reason=f"deleted by retention: {step.reason}")
        ).rowcount
        _note(tx, store, "images.expired", step.study_key, {"images": images, "bytes": step.images_bytes,
              "reason": step.reason})  # fmt: skip
        _count(tx, images, step.images_bytes)
    return images, step.images_bytes


def _expire_quarantined(store: Store, *, before: datetime) -> tuple[int, int]:
    """Bytes that no study holds; they have had their time to be looked at."""
    old = (instance.c.state == "quarantined", instance.c.received_at <= before)
    with store.begin() as tx:
        images, size = tx.execute(select(func.count(), func.coalesce(func.sum(instance.c.size), 0)).where(*old)).one()
        if images:
            reason = "deleted by retention from quarantine"
            tx.execute(instance.update().where(*old).values(state="expired", reason=reason))
            _note(tx, store, "quarantine.expired", "quarantine", {"images": images, "bytes": int(size)})
            _count(tx, images, int(size))
    return int(images), int(size)


def _note(tx: Tx, store: Store, action: str, place: str, change: Json) -> None:
    audit.append(tx, _ACTOR, action, place, change, now=store.clock.now())


def _count(tx: Tx, images: int, size: int) -> None:
    counters.add(tx, "instances_expired", "", images)
    counters.add(tx, "expired_bytes", "", size)


def _unlink(store: Store) -> None:
    """Remove the files of expired rows.

    Inside the transaction that still finds them expired: the same bytes, sent again at this moment, make the row
    `stored` first, and are then either seen here or written after this.
    """
    now = store.clock.now()
    recent = [f"{day:%Y/%m/%d}" for day in (now, now - EVERY)]
    while True:
        with store.begin() as tx:
            rows = tx.execute(
                select(instance.c.id, instance.c.path)
                .where(instance.c.state == "expired", instance.c.path != "")
                .limit(_BATCH)
                .with_for_update()
            ).all()
            for _, path in rows:
                _unlink_one(store.root / path)
            tx.execute(instance.update().where(instance.c.id.in_([row.id for row in rows])).values(path=""))
        for parent in {Path(path).parent for _, path in rows}:
            # A receiver makes folders of today; those of earlier days get no new files.
            if not any(day in str(parent) for day in recent):
                _remove_empty(store.root, parent)
        if len(rows) < _BATCH:
            return


def _unlink_one(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise unavailable(error) from error


def _remove_empty(root: Path, folder: Path) -> None:
    """The folder and those above it, up to the store's own, as far as they are empty."""
    while len(folder.parts) > 1:
        with contextlib.suppress(FileNotFoundError):
            try:
                (root / folder).rmdir()
            except OSError:
                return
        folder = folder.parent


def _remove_rows(store: Store) -> None:
    """Of images that are gone and that no kept revision names."""
    named = (
        select(revision_instance.c.instance_id)
        .where(revision_instance.c.study_key == instance.c.study_key, revision_instance.c.instance_id == instance.c.id)
        .exists()
    )
    gone = (instance.c.state == "expired", instance.c.path == "", ~named)
    with store.begin() as tx:
        of_studies = tx.execute(instance.delete().where(*gone, instance.c.study_key.is_not(None))).rowcount
        tx.execute(instance.delete().where(*gone, instance.c.study_key.is_(None)))
        if of_studies:
            counters.add(tx, "instances_removed", "", of_studies)


# --- studies ---


def _remove(store: Store, step: Removal) -> bool:
    """All rows of a study without images, unless something has come to it since."""
    key = step.study_key
    with store.begin() as tx:
        tx.execute(select(study.c.study_key).where(study.c.study_key == key).with_for_update())
        now_there = _candidates(tx, key)
        if not now_there or kept_because(now_there[0]) or now_there[0].images:
            return False
        for table in _OF_A_STUDY:
            tx.execute(table.delete().where(table.c.study_key == key))
        rows = tx.execute(instance.delete().where(instance.c.study_key == key)).rowcount
        tx.execute(study.delete().where(study.c.study_key == key))
        if rows:
            counters.add(tx, "instances_removed", "", rows)
        counters.add(tx, "studies_removed", "")
        _note(tx, store, "study.removed", key, {"reason": step.reason})
        ephemeral.put(tx, REMOVED, key, {}, None)
    return True


def _remove_folders(store: Store) -> None:
    """Of studies that have no rows any more."""
    with store.read() as tx:
        keys = ephemeral.keys(tx, REMOVED)
    for key in keys:
        with store.read() as tx:
            # A receiver that knew the study may have given a new one the same key.
            alive = tx.execute(select(study.c.study_key).where(study.c.study_key == key)).first() is not None
        for name in () if alive else ("results", "jobs"):
            shutil.rmtree(store.root / name / key, ignore_errors=True)
        with store.begin() as tx:
            ephemeral.drop(tx, REMOVED, key)
