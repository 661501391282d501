"""The judgement of `verify`: listings in, findings out; no file, database or clock.

Beside a running node every listing is a little old: what is younger than `SETTLE_S` may still be on its way, and the
caller looks twice.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator

from dicomguard.store.verify.findings import Finding, Kind
from dicomguard.store.verify.listings import (
    ARRIVED,
    BEFORE_DELIVERY,
    BUILT,
    DELIVERING,
    DONE,
    JUDGED,
    WAITING,
    DeliveryRow,
    File,
    InstanceRow,
    Kept,
    Revision,
    StudyListing,
)

SETTLE_S = 60.0
STALE_S = 3600.0


def examine(study: StudyListing, *, logged: Collection[str] = (), running: bool) -> Iterator[Finding]:
    """All faults of one study; `logged` are the hashes of datasets that the receive log still holds."""
    if study.removed:
        for place in (*study.job_folders, *(file.path for file in study.result_files)):
            yield Finding(kind=Kind.REMOVED_WITH_FILE, study_key=study.study_key, place=place, heals=True)
        return
    yield from instances(study.instances, study.instance_files, study.study_key, logged=logged, running=running)
    yield from _revisions(study, running=running)
    yield from _results(study, running=running)
    yield from _twice(study)


def instances(
    rows: Iterable[InstanceRow],
    files: Iterable[File],
    study_key: str,
    *,
    logged: Collection[str] = (),
    running: bool,
) -> Iterator[Finding]:
    """Rows of instances against files; what the receive log holds is filed at the next start at the latest."""
    there = {file.path: file for file in files}
    for row in rows:
        file = there.pop(row.path, None)
        if row.state == "missing":
            continue
        if row.state == "expired":
            if file is not None:
                yield Finding(kind=Kind.EXPIRED_WITH_FILE, study_key=study_key, place=row.path, heals=True)
        elif row.sha256 in logged:
            continue
        elif file is None:
            yield Finding(kind=Kind.ROW_WITHOUT_FILE, study_key=study_key, place=row.path)
        elif difference := _difference(row, file):
            yield Finding(kind=Kind.FILE_DIFFERS, study_key=study_key, place=row.path, detail=difference)
    for file in there.values():
        if (running and file.age_s < SETTLE_S) or any(sha256 in file.path for sha256 in logged):
            continue
        yield Finding(kind=Kind.FILE_WITHOUT_ROW, study_key=study_key, place=file.path)


def _difference(row: InstanceRow, file: File) -> str:
    if file.unreadable:
        return file.unreadable
    if file.size_bytes < row.size_bytes:
        return f"it has {file.size_bytes} bytes, fewer than the {row.size_bytes} of its dataset"
    if file.sha256 is not None and file.sha256 != row.sha256:
        return "its dataset has another SHA-256"
    return ""


def _revisions(study: StudyListing, *, running: bool) -> Iterator[Finding]:
    numbers = [revision.number for revision in study.revisions]
    if study.known and sorted(numbers) != list(range(1, study.current_revision + 1)):
        found = ", ".join(map(str, sorted(numbers))) or "none"
        yield Finding(
            kind=Kind.REVISION_MISSING,
            study_key=study.study_key,
            place=f"revision {study.current_revision}",
            detail=f"there are {found}",
        )
    for revision in study.revisions:
        yield from _revision(study.study_key, revision, running=running)
    in_work = {f"jobs/{study.study_key}/r{item.number}" for item in study.revisions if item.state in BEFORE_DELIVERY}
    for folder in study.job_folders:
        if folder not in in_work:
            yield Finding(kind=Kind.STALE_JOB, study_key=study.study_key, place=folder)


def _revision(study_key: str, revision: Revision, *, running: bool) -> Iterator[Finding]:
    place = f"revision {revision.number}"

    def fault(kind: Kind, detail: str = "", *, heals: bool = False) -> Finding:
        return Finding(kind=kind, study_key=study_key, place=place, detail=detail, heals=heals)

    if revision.state in BEFORE_DELIVERY and not revision.worked_on and not (running and revision.age_s < SETTLE_S):
        yield fault(Kind.REVISION_WITHOUT_WORKFLOW, f'it is "{revision.state}"', heals=not running)
    if revision.manifest_sound is False or (revision.manifest_sound is None and revision.state in JUDGED):
        yield fault(Kind.MANIFEST_DIFFERS)
    if revision.verdict is None and revision.state in JUDGED:
        yield fault(Kind.REVISION_WITHOUT_VERDICT)
    if not revision.results and revision.state in BUILT:
        yield fault(Kind.REVISION_WITHOUT_RESULTS)
    kinds = Counter(result.kind for result in revision.results)
    # A segmentation a stack; of each form of the report there is one.
    several = [kind for kind, count in kinds.items() if count > 1 and kind != "SEG"]
    if several:
        yield fault(Kind.RESULTS_TWICE, f"{kinds[several[0]]} of the kind {several[0]}")
    kept = {result.sop_uid for result in revision.results}
    for delivery in revision.deliveries:
        yield from _delivery(study_key, revision.number, delivery, kept)
    waits = any(delivery.has_next for delivery in revision.deliveries)
    if revision.state == DONE and waits:
        yield fault(Kind.REVISION_NOT_CLOSED, "it is done, and a delivery waits")
    if revision.state == DELIVERING and not waits:
        yield fault(Kind.REVISION_NOT_CLOSED, "it is delivering, and no delivery waits")


def _delivery(study_key: str, number: int, delivery: DeliveryRow, kept: Collection[str]) -> Iterator[Finding]:
    place = f"revision {number} to {delivery.destination}"
    if any(uid not in kept for item in delivery.items for uid in item.forms):
        yield Finding(kind=Kind.DELIVERY_WITHOUT_RESULT, study_key=study_key, place=place)
    waiting = any(item.state == WAITING for item in delivery.items)
    if delivery.has_next != waiting or (delivery.state == WAITING) != waiting:
        detail = f'it is "{delivery.state}", with {"a" if delivery.has_next else "no"} next attempt'
        yield Finding(kind=Kind.DELIVERY_STUCK, study_key=study_key, place=place, detail=detail)


def _results(study: StudyListing, *, running: bool) -> Iterator[Finding]:
    """Verdicts and results against their files."""
    there = {file.path: file for file in study.result_files}
    explained: set[str] = set()
    for revision in study.revisions:
        for row in revision.results:
            explained.add(row.path)
            yield from kept_file(
                row, there.get(row.path), study.study_key, Kind.RESULT_WITHOUT_FILE, Kind.RESULT_DIFFERS
            )
        if (verdict := revision.verdict) is not None:
            # The masks lie beside it, and its own hash covers theirs.
            explained |= {verdict.path, f"{_folder(verdict.path)}/masks.npz"}
            yield from kept_file(
                verdict, there.get(verdict.path), study.study_key, Kind.VERDICT_WITHOUT_FILE, Kind.VERDICT_DIFFERS
            )
    state = {f"results/{study.study_key}/r{item.number}": item.state for item in study.revisions}
    for file in there.values():
        revision_folder = "/".join(file.path.split("/")[:3])
        if file.path in explained or (running and file.age_s < SETTLE_S):
            continue
        if revision_folder not in state:
            yield Finding(kind=Kind.RESULTS_WITHOUT_REVISION, study_key=study.study_key, place=file.path)
        elif state[revision_folder] not in BEFORE_DELIVERY:
            yield Finding(kind=Kind.SURPLUS_RESULT_FILE, study_key=study.study_key, place=file.path)


def kept_file(row: Kept, file: File | None, study_key: str, without: Kind, differs: Kind) -> Iterator[Finding]:
    """A row that names a file, against that file."""
    if file is None:
        yield Finding(kind=without, study_key=study_key, place=row.path)
    elif file.unreadable or (file.sha256 is not None and file.sha256 != row.sha256):
        detail = file.unreadable or "it has another SHA-256"
        yield Finding(kind=differs, study_key=study_key, place=row.path, detail=detail)


def _twice(study: StudyListing) -> Iterator[Finding]:
    """At each destination: one report a revision, each object once."""
    arrived: dict[str, Counter[str]] = {}
    for revision in study.revisions:
        for delivery in revision.deliveries:
            items = [item for item in delivery.items if item.state in ARRIVED]
            arrived.setdefault(delivery.destination, Counter()).update(item.sop_uid for item in items)
            reports = sum(item.kind != "SEG" for item in items)
            if reports > 1:
                place = f"revision {revision.number} to {delivery.destination}"
                detail = f"{reports} reports"
                yield Finding(kind=Kind.DELIVERED_TWICE, study_key=study.study_key, place=place, detail=detail)
    for destination, objects in arrived.items():
        often = sum(count > 1 for count in objects.values())
        if often:
            detail = f"{often} object(s) more than once"
            yield Finding(kind=Kind.DELIVERED_TWICE, study_key=study.study_key, place=destination, detail=detail)


def _folder(path: str) -> str:
    return path.rpartition("/")[0]


def temporaries(files: Iterable[File]) -> Iterator[Finding]:
    """Those that no living writer can still own."""
    for file in files:
        if file.age_s > STALE_S:
            yield Finding(kind=Kind.STALE_TEMPORARY, place=file.path)


def balance(*, acknowledged: int, removed: int, rows: int) -> Iterator[Finding]:
    """Each instance that was acknowledged has a row, unless retention took it out."""
    if acknowledged - removed != rows:
        detail = f"{acknowledged} acknowledged, {removed} removed by retention, {rows} rows"
        yield Finding(kind=Kind.ROWS_LOST, place="database", detail=detail)
