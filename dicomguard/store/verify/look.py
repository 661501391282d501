"""Lists what the database says and what lies on the disk, a study at a time; judges nothing, changes nothing.

Each study is read in one short transaction, rows first, so that a file written meanwhile looks like one without a row
and never like one that is lost.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from sqlalchemy import create_engine, func, select, text
from sqlalchemy.exc import DatabaseError

from dicomguard import part10
from dicomguard.core.study import Manifest
from dicomguard.errors import DicomguardError
from dicomguard.store import ephemeral, executors, set_aside
from dicomguard.store.db import Store, Tx
from dicomguard.store.files import INCOMING, read_pieces
from dicomguard.store.set_aside import SetAside
from dicomguard.store.tables import (
    analysis,
    counter,
    delivery,
    delivery_instance,
    instance,
    model,
    result,
    revision,
    study,
)
from dicomguard.store.verify.listings import (
    DeliveryItem,
    DeliveryRow,
    File,
    InstanceRow,
    Kept,
    Revision,
    StudyListing,
)

# Whether the content of the file of this row is read, by the SHA-256 of its dataset.
Choose = Callable[[str], bool]
_PAGE = 500
# Kind of the notes that retention leaves of studies whose rows are gone and whose folders go next.
REMOVED = "removed-study"
_LIVE = ("PENDING", "ENQUEUED", "DELAYED")


def running(store: Store) -> bool:
    """Whether a process of the node gives signs of life."""
    now = store.clock.now()
    with store.read() as tx:
        return any(row.lease_until >= now for row in executors.listing(tx))


def study_keys(store: Store) -> Iterator[str]:
    """Keys of all studies, in pages."""
    last = ""
    while True:
        with store.read() as tx:
            page = list(
                tx.execute(
                    select(study.c.study_key).where(study.c.study_key > last).order_by(study.c.study_key).limit(_PAGE)
                ).scalars()
            )
        if not page:
            return
        yield from page
        last = page[-1]


def row_count(store: Store) -> int:
    """How many instances have rows."""
    with store.read() as tx:
        return int(tx.execute(select(func.count()).select_from(instance)).scalar_one())


class Workflows:
    """Which revisions have a live workflow, as the engine's own table says; its names are those of dbos 3.4."""

    def __init__(self, store: Store) -> None:
        self._store = store
        path = store.root / "work.sqlite"
        self._engine = create_engine(f"sqlite:///file:{path}?mode=ro&uri=true") if path.is_file() else None

    def live(self, tx: Tx, study_key: str) -> set[int]:
        """Numbers of revisions of the study that are worked on."""
        table = "dbos.workflow_status" if tx.dialect.name == "postgresql" else "workflow_status"
        query = text(
            f"SELECT workflow_uuid, status FROM {table} WHERE workflow_uuid >= :first AND workflow_uuid < :last"
        )
        span = {"first": f"study/{study_key}/", "last": f"study/{study_key}0"}
        try:
            if tx.dialect.name == "postgresql":
                # Before the first worker the schema does not exist; asking would end the transaction.
                if tx.execute(text("SELECT to_regclass('dbos.workflow_status')")).scalar() is None:
                    return set()
                rows = tx.execute(query, span).all()
            elif self._engine is None:
                return set()
            else:
                with self._engine.connect() as connection:
                    rows = connection.execute(query, span).all()
        except DatabaseError:
            return set()
        return {int(name.split("/")[2][1:]) for name, status in rows if status in _LIVE}

    def close(self) -> None:
        """Close the file."""
        if self._engine is not None:
            self._engine.dispose()


def listing(store: Store, study_key: str, *, choose: Choose, workflows: Workflows) -> StudyListing:
    """All about one study; content is read of the files that `choose` names, and of all that we made."""
    with store.read() as tx:
        number = tx.execute(select(study.c.current_revision).where(study.c.study_key == study_key)).scalar()
        rows = _instances(tx, instance.c.study_key == study_key)
        revisions = _revisions(store, tx, study_key, workflows)
    # An expired row has given up its path.
    folders = {"/".join(row.path.split("/")[:5]) for row in rows if row.path}
    return StudyListing(
        study_key=study_key,
        known=number is not None,
        current_revision=number or 0,
        instances=rows,
        instance_files=tuple(_dataset_files(store, folders, rows, choose)),
        revisions=revisions,
        result_files=tuple(_files(store, f"results/{study_key}", hashed=_file_sha256)),
        job_folders=tuple(_folders(store, f"jobs/{study_key}")),
    )


def quarantine(store: Store, *, choose: Choose) -> tuple[tuple[InstanceRow, ...], tuple[File, ...]]:
    """Rows that belong to no study, and the files kept for them."""
    with store.read() as tx:
        rows = _instances(tx, instance.c.study_key.is_(None))
    return rows, tuple(_dataset_files(store, ["quarantine"], rows, choose))


def _instances(tx: Tx, condition: object) -> tuple[InstanceRow, ...]:
    c = instance.c
    found = tx.execute(select(c.id, c.path, c.sha256, c.size, c.state).where(condition))  # type: ignore[arg-type]
    return tuple(
        InstanceRow(id=row.id, path=row.path, sha256=row.sha256, size_bytes=row.size, state=row.state) for row in found
    )


def strangers(store: Store) -> Iterator[StudyListing]:
    """What lies in folders that no row explains, folder by folder."""
    for day in sorted(store.root.glob("store/[0-9]*/*/*")):
        for folder in (day / name for name in _names(day)):
            place = str(folder.relative_to(store.root))
            if not _has_row(store, folder.name, place):
                yield StudyListing(
                    study_key=folder.name, known=False, instance_files=tuple(_files(store, place, hashed=None))
                )
    known = set(study_keys(store))
    with store.read() as tx:
        removed = set(ephemeral.keys(tx, REMOVED))
    for name in ("results", "jobs"):
        for key in sorted(set(_names(store.root / name)) - known):
            yield StudyListing(
                study_key=key,
                known=False,
                removed=key in removed,
                result_files=tuple(_files(store, f"results/{key}", hashed=None)) if name == "results" else (),
                job_folders=tuple(_folders(store, f"jobs/{key}")) if name == "jobs" else (),
            )


def _has_row(store: Store, study_key: str, folder: str) -> bool:
    with store.read() as tx:
        below = instance.c.path.startswith(f"{folder}/", autoescape=True)
        found = select(instance.c.id).where(instance.c.study_key == study_key, below).limit(1)
        return tx.execute(found).first() is not None


def set_aside_instances(store: Store) -> tuple[SetAside, ...]:
    """Instances that could not be filed."""
    return tuple(set_aside.listing(store.root))


def temporaries(store: Store) -> Iterator[File]:
    """Files under their temporary names."""
    return _files(store, INCOMING, hashed=None)


def models(store: Store) -> Iterator[tuple[Kept, File | None]]:
    """Weights that are kept here, with their files."""
    with store.read() as tx:
        rows = tx.execute(select(model.c.path, model.c.sha256).where(model.c.path != "")).all()
    for path, sha256 in rows:
        file = store.root / path
        found = _file(store, file, path, _file_sha256) if file.is_file() else None
        yield Kept(kind="model", path=path, sha256=sha256), found


def balance(store: Store) -> tuple[int, int, int]:
    """Instances acknowledged into studies, those that retention took out again, and rows that there are."""
    with store.read() as tx:
        counts = dict(tx.execute(select(counter.c.name, func.sum(counter.c.value)).group_by(counter.c.name)).all())
        rows = tx.execute(select(func.count()).where(instance.c.study_key.is_not(None))).scalar_one()
    return int(counts.get("instances_received", 0)), int(counts.get("instances_removed", 0)), int(rows)


def _revisions(store: Store, tx: Tx, study_key: str, workflows: Workflows) -> tuple[Revision, ...]:
    rows = tx.execute(select(revision).where(revision.c.study_key == study_key).order_by(revision.c.number)).all()
    if not rows:
        return ()
    verdicts = {
        row.number: Kept(kind="verdict", path=row.path, sha256=row.verdict_sha256)
        for row in tx.execute(select(analysis).where(analysis.c.study_key == study_key))
    }
    kept: dict[int, list[Kept]] = {}
    for row in tx.execute(select(result).where(result.c.study_key == study_key)):
        value = Kept(kind=row.kind, path=row.path, sha256=row.sha256, sop_uid=row.sop_uid)
        kept.setdefault(row.number, []).append(value)
    deliveries = _deliveries(tx, study_key)
    live = workflows.live(tx, study_key)
    now = store.clock.now()
    return tuple(
        Revision(
            number=row.number,
            state=row.state,
            age_s=(now - row.created_at).total_seconds(),
            manifest_sound=None if row.manifest is None else _sound(row.manifest, row.manifest_sha256),
            verdict=verdicts.get(row.number),
            results=tuple(kept.get(row.number, ())),
            deliveries=tuple(deliveries.get(row.number, ())),
            worked_on=row.number in live,
        )
        for row in rows
    )


def _sound(manifest: str, sha256: str) -> bool:
    try:
        return Manifest.from_json(json.loads(manifest)).sha256 == sha256
    except (DicomguardError, ValueError, TypeError, KeyError):
        return False


def _deliveries(tx: Tx, study_key: str) -> dict[int, list[DeliveryRow]]:
    items: dict[tuple[int, str], list[DeliveryItem]] = {}
    for row in tx.execute(
        select(delivery_instance).where(delivery_instance.c.study_key == study_key).order_by(delivery_instance.c.place)
    ):
        forms = tuple(json.loads(row.forms))
        item = DeliveryItem(kind=row.kind, forms=forms, sop_uid=forms[row.form], state=row.state)
        items.setdefault((row.number, row.destination), []).append(item)
    found: dict[int, list[DeliveryRow]] = {}
    for row in tx.execute(select(delivery).where(delivery.c.study_key == study_key)):
        value = DeliveryRow(
            destination=row.destination,
            state=row.state,
            has_next=row.next_at is not None,
            items=tuple(items.get((row.number, row.destination), ())),
        )
        found.setdefault(row.number, []).append(value)
    return found


# --- files ---


def _dataset_files(store: Store, folders: Iterable[str], rows: Iterable[InstanceRow], choose: Choose) -> Iterator[File]:
    """Files of instances; a hash is taken of the dataset of those that have a row and are chosen."""
    expected = {row.path: row for row in rows}

    def hashed(path: Path) -> str | None:
        row = expected.get(str(path.relative_to(store.root)))
        return dataset_sha256(path) if row is not None and row.state != "expired" and choose(row.sha256) else None

    for folder in sorted(folders):
        yield from _files(store, folder, hashed=hashed)


def _files(store: Store, folder: str, *, hashed: Callable[[Path], str | None] | None) -> Iterator[File]:
    top = store.root / folder
    for parent, names, files in os.walk(top):
        names.sort()
        for name in sorted(files):
            path = Path(parent) / name
            if (file := _file(store, path, str(path.relative_to(store.root)), hashed)) is not None:
                yield file


def _file(store: Store, path: Path, relative: str, hashed: Callable[[Path], str | None] | None) -> File | None:
    """None when it went away meanwhile."""
    try:
        state = path.stat()
        sha256 = None if hashed is None else hashed(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        return File(path=relative, size_bytes=0, age_s=0.0, unreadable=f"it cannot be read ({error.strerror})")
    except DicomguardError:
        return File(path=relative, size_bytes=state.st_size, age_s=0.0, unreadable="it is no DICOM file any more")
    age_s = store.clock.now().timestamp() - state.st_mtime
    return File(path=relative, size_bytes=state.st_size, age_s=age_s, sha256=sha256)


def dataset_sha256(path: Path) -> str:
    """Hash of the dataset of a Part 10 file, as it was taken when the bytes came."""
    return _sha256(read_pieces(path, start=part10.dataset_offset(path)))


def _file_sha256(path: Path) -> str:
    return _sha256(read_pieces(path))


def _sha256(pieces: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece)
    return digest.hexdigest()


def _folders(store: Store, folder: str) -> Iterator[str]:
    return (f"{folder}/{name}" for name in _names(store.root / folder))


def _names(folder: Path) -> list[str]:
    """Of the folders in it; none where it is gone, for retention removes folders meanwhile."""
    try:
        return sorted(path.name for path in folder.iterdir() if path.is_dir())
    except (FileNotFoundError, NotADirectoryError):
        return []
