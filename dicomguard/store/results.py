"""The DICOM objects that dicomguard made: kept as files and rows before the first is sent."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from sqlalchemy import select

from dicomguard.core.result import ResultObject
from dicomguard.errors import Broken
from dicomguard.store.db import Store, Tx, insert_missing
from dicomguard.store.files import write_durably
from dicomguard.store.tables import result


def keep(
    store: Store, study_key: str, number: int, objects: Sequence[tuple[ResultObject, bytes]]
) -> tuple[ResultObject, ...]:
    """Keep Part 10 files of a revision; returns the objects with their paths. Keeping the same again changes nothing.

    Raises `Broken` when other bytes are kept under one of the SOP Instance UIDs: UIDs are derived, so equal UIDs with
    different bytes mean that a builder is not deterministic.
    """
    kept: list[ResultObject] = []
    for value, content in objects:
        sha256 = hashlib.sha256(content).hexdigest()
        if value.sha256 != sha256:
            raise Broken(f"A result of study {study_key} has hash {sha256}, not {value.sha256}. Build it again.")
        relative = f"results/{study_key}/r{number}/{value.order:02d}-{value.kind}-{sha256[:16]}.dcm"
        path = store.root / relative
        if not (path.is_file() and path.stat().st_size == len(content)):
            write_durably(store.disk, store.root, relative, [content])
        kept.append(replace(value, path=relative))
    with store.begin() as tx:
        for value in kept:
            _insert(tx, store, study_key, number, value)
    return tuple(kept)


def _insert(tx: Tx, store: Store, study_key: str, number: int, value: ResultObject) -> None:
    row = {
        "sop_uid": value.sop_instance_uid,
        "study_key": study_key,
        "number": number,
        "kind": value.kind,
        "sop_class": value.sop_class_uid,
        "series_uid": value.series_instance_uid,
        "sha256": value.sha256,
        "path": value.path,
        "place": value.order,
        "kept_at": store.clock.now(),
    }
    if insert_missing(tx, result, row):
        return
    there = tx.execute(select(result.c.sha256).where(result.c.sop_uid == value.sop_instance_uid)).scalar_one()
    if there != value.sha256:
        raise Broken(
            f"Two results of study {study_key} with different bytes share one SOP Instance UID. Report this as a fault."
        )


def of_revision(tx: Tx, study_key: str, number: int) -> list[ResultObject]:
    """In sending order."""
    rows = tx.execute(
        select(result)
        .where(result.c.study_key == study_key, result.c.number == number)
        .order_by(result.c.place, result.c.sop_uid)
    )
    return [
        ResultObject(
            kind=row.kind,
            sop_class_uid=row.sop_class,
            sop_instance_uid=row.sop_uid,
            series_instance_uid=row.series_uid,
            sha256=row.sha256,
            path=row.path,
            order=row.place,
        )
        for row in rows
    ]


def is_own(tx: Tx, sop_instance_uid: str) -> bool:
    """Whether an object with this UID is one of our results."""
    return tx.execute(select(result.c.sop_uid).where(result.c.sop_uid == sop_instance_uid)).first() is not None


def bytes_path(store: Store, value: ResultObject) -> Path:
    """Where the Part 10 file of a kept result lies."""
    return store.root / value.path
