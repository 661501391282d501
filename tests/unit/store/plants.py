"""Every fault that verify knows, each planted into the store of a finished study."""

import os
import shutil
import zlib
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

from sqlalchemy import delete, select, update

from dicomguard import part10
from dicomguard.store import audit, ephemeral, log_records, results, set_aside, tables
from dicomguard.store.db import Store
from dicomguard.store.verify import look
from dicomguard.store.verify.findings import Kind
from dicomguard.store.verify.inspection import Inspection, Inspector
from tests.instances import ROOT, part10_file
from tests.keeping import Kept, deliver, judge, receive, result

Plant = Callable[[Store, Kept, Path], None]


def inspect(store: Store, *, full: bool = True) -> Inspection:
    return Inspector(store, full=full, second_look_s=0.0).inspect()


def kinds(store: Store) -> list[Kind]:
    return [finding.kind for finding in inspect(store).findings]


def change(store: Store, *statements: object) -> None:
    with store.begin() as tx:
        for statement in statements:
            tx.execute(statement)  # type: ignore[call-overload]


def lose_file(store: Store, kept: Kept, _: Path) -> None:
    (store.root / kept.instances[0]).unlink()


def tear_file(store: Store, kept: Kept, _: Path) -> None:
    os.truncate(store.root / kept.instances[0], 150)


def flip_bit(store: Store, kept: Kept, _: Path) -> None:
    path = store.root / kept.instances[0]
    path.write_bytes(path.read_bytes()[:-1] + b"\xff")


def lose_head(store: Store, kept: Kept, _: Path) -> None:
    path = store.root / kept.instances[0]
    path.write_bytes(b"\0" * path.stat().st_size)


def lose_row(store: Store, kept: Kept, _: Path) -> None:
    """With its count: a reception that died between file and row."""
    same = tables.instance.c.path == kept.instances[0]
    with store.begin() as tx:
        id = tx.execute(select(tables.instance.c.id).where(same)).scalar_one()
        tx.execute(delete(tables.revision_instance).where(tables.revision_instance.c.instance_id == id))
        tx.execute(delete(tables.instance).where(same))
        tx.execute(update(tables.counter).where(tables.counter.c.name == "instances_received").values(value=1))


def lose_count(store: Store, kept: Kept, _: Path) -> None:
    change(store, update(tables.counter).where(tables.counter.c.name == "instances_received").values(value=3))


def expire_only_the_row(store: Store, kept: Kept, _: Path) -> None:
    change(store, update(tables.instance).where(tables.instance.c.path == kept.instances[0]).values(state="expired"))


def leave_temporary(store: Store, kept: Kept, _: Path) -> None:
    path = store.root / "store/incoming/0123.part"
    path.write_bytes(b"half")
    old = (store.clock.now() - timedelta(hours=2)).timestamp()
    os.utime(path, (old, old))


def leave_job(store: Store, kept: Kept, _: Path) -> None:
    (store.root / f"jobs/{kept.key}/r1/0a1b").mkdir(parents=True)


def stray_study_folder(store: Store, kept: Kept, tmp_path: Path) -> None:
    folder = store.root / "store/2026/11/20/feedfeedfeedfeed/aa"
    folder.mkdir(parents=True)
    shutil.copyfile(part10_file(tmp_path / "stray", sop=f"{ROOT}.1.1.77"), folder / "aa.dcm")


def stray_quarantine(store: Store, kept: Kept, _: Path) -> None:
    folder = store.root / "quarantine/2026/11/20"
    folder.mkdir(parents=True)
    (folder / "bb.dcm").write_bytes(b"no DICOM")


def stray_results(store: Store, kept: Kept, _: Path) -> None:
    folder = store.root / "results/feedfeedfeedfeed/r1"
    folder.mkdir(parents=True)
    (folder / "00-SR-aa.dcm").write_bytes(b"report")


def stray_revision_folder(store: Store, kept: Kept, _: Path) -> None:
    folder = store.root / f"results/{kept.key}/r2"
    folder.mkdir(parents=True)
    (folder / "00-SR-aa.dcm").write_bytes(b"report")


def leave_folder_of_removed(store: Store, kept: Kept, tmp_path: Path) -> None:
    stray_results(store, kept, tmp_path)
    with store.begin() as tx:
        ephemeral.put(tx, "removed-study", "feedfeedfeedfeed", {}, None)


def surplus_verdict(store: Store, kept: Kept, _: Path) -> None:
    folder = store.root / f"results/{kept.key}/r1/ffff"
    folder.mkdir(parents=True)
    (folder / "verdict.json").write_bytes(b"{}")


def skip_a_number(store: Store, kept: Kept, _: Path) -> None:
    change(store, update(tables.study).values(current_revision=2))


def open_without_workflow(store: Store, kept: Kept, tmp_path: Path) -> None:
    key, *_rest = receive(store, tmp_path / "more", study=5)
    judge(store, key, study=5, state="opened")


def done_while_delivering(store: Store, kept: Kept, _: Path) -> None:
    change(store, update(tables.revision).values(state="delivering"))


def alter_manifest(store: Store, kept: Kept, _: Path) -> None:
    change(store, update(tables.revision).values(manifest_sha256="0" * 64))


def spoil_manifest(store: Store, kept: Kept, _: Path) -> None:
    change(store, update(tables.revision).values(manifest="{"))


def lose_manifest(store: Store, kept: Kept, _: Path) -> None:
    change(store, update(tables.revision).values(manifest=None))


def lose_verdict_row(store: Store, kept: Kept, _: Path) -> None:
    change(store, delete(tables.analysis))
    shutil.rmtree((store.root / kept.verdict).parent)


def lose_verdict_file(store: Store, kept: Kept, _: Path) -> None:
    (store.root / kept.verdict).unlink()


def alter_verdict(store: Store, kept: Kept, _: Path) -> None:
    (store.root / kept.verdict).write_bytes(b"{}")


def lose_result_rows(store: Store, kept: Kept, _: Path) -> None:
    change(store, delete(tables.delivery_instance), delete(tables.delivery), delete(tables.result))
    for value in kept.results:
        (store.root / value.path).unlink()


def keep_results_twice(store: Store, kept: Kept, _: Path) -> None:
    again = b"another report"
    results.keep(store, kept.key, 1, [(result("SR", again, order=5), again)])


def lose_result_file(store: Store, kept: Kept, _: Path) -> None:
    (store.root / kept.results[1].path).unlink()


def alter_result(store: Store, kept: Kept, _: Path) -> None:
    (store.root / kept.results[1].path).write_bytes(b"another")


def deliver_two_reports(store: Store, kept: Kept, _: Path) -> None:
    change(store, update(tables.delivery_instance).values(kind="SR"))


def deliver_one_object_twice(store: Store, kept: Kept, tmp_path: Path) -> None:
    receive(store, tmp_path / "late", first=7)
    _, fresh = judge(store, kept.key)
    deliver(store, kept.key, 2, fresh)
    uids = f'["{kept.results[0].sop_instance_uid}"]'
    first = (tables.delivery_instance.c.number == 2, tables.delivery_instance.c.place == 0)
    change(
        store,
        update(tables.delivery_instance).where(*first).values(forms=uids),
        # So that this one fault shows alone.
        update(tables.result).where(tables.result.c.sop_uid == kept.results[0].sop_instance_uid).values(number=2),
        update(tables.delivery_instance)
        .where(tables.delivery_instance.c.number == 1, tables.delivery_instance.c.place == 0)
        .values(forms=uids),
    )


def deliver_what_is_not_kept(store: Store, kept: Kept, _: Path) -> None:
    change(store, update(tables.delivery_instance).where(tables.delivery_instance.c.place == 1).values(forms='["1.2"]'))


def wait_for_nothing(store: Store, kept: Kept, _: Path) -> None:
    change(
        store, update(tables.delivery_instance).values(state="waiting"), update(tables.delivery).values(state="waiting")
    )


def _model(store: Store) -> str:
    path = "models/aa.safetensors"
    row = {"id": "m1", "sha256": "0" * 64, "path": path, "state": "candidate", "proposed_by": "ada"}
    change(store, tables.model.insert().values(**row, proposed_at=store.clock.now()))
    return path


def lose_model(store: Store, kept: Kept, _: Path) -> None:
    _model(store)


def alter_model(store: Store, kept: Kept, _: Path) -> None:
    path = store.root / _model(store)
    path.parent.mkdir()
    path.write_bytes(b"weights")


def alter_audit(store: Store, kept: Kept, _: Path) -> None:
    with store.begin() as tx:
        audit.append(tx, "ada", "peer.added", "ct1", {}, now=store.clock.now())
        tx.execute(update(tables.audit).values(actor="grace"))


def foreign_log(store: Store, kept: Kept, _: Path) -> None:
    """A segment written by a version to come."""
    header = bytearray(
        log_records.pack_header(b"{}", memoryview(b""), head_bytes=0, sha256="00" * 32, generation=1, sequence=1)
    )
    header[4] = 9
    header[-4:] = zlib.crc32(header[:-4]).to_bytes(4, "little")
    folder = store.root / "log/0"
    folder.mkdir(parents=True)
    (folder / "segment-0").write_bytes(bytes(header) + b"{}")


def set_one_aside(store: Store, kept: Kept, tmp_path: Path) -> None:
    path = part10_file(tmp_path / "aside")
    record = log_records.Logged(
        row={},
        sha256=look.dataset_sha256(path),
        sequence=1,
        segment=path,
        offset=0,
        size_bytes=path.stat().st_size,
        head_bytes=part10.dataset_offset(path),
    )
    set_aside.put(store, record, KeyError())


PLANTS: list[tuple[Plant, Kind]] = [
    (lose_file, Kind.ROW_WITHOUT_FILE),
    (tear_file, Kind.FILE_DIFFERS),
    (flip_bit, Kind.FILE_DIFFERS),
    (lose_head, Kind.FILE_DIFFERS),
    (lose_row, Kind.FILE_WITHOUT_ROW),
    (stray_study_folder, Kind.FILE_WITHOUT_ROW),
    (stray_quarantine, Kind.FILE_WITHOUT_ROW),
    (expire_only_the_row, Kind.EXPIRED_WITH_FILE),
    (lose_count, Kind.ROWS_LOST),
    (leave_temporary, Kind.STALE_TEMPORARY),
    (leave_job, Kind.STALE_JOB),
    (skip_a_number, Kind.REVISION_MISSING),
    (open_without_workflow, Kind.REVISION_WITHOUT_WORKFLOW),
    (done_while_delivering, Kind.REVISION_NOT_CLOSED),
    (alter_manifest, Kind.MANIFEST_DIFFERS),
    (spoil_manifest, Kind.MANIFEST_DIFFERS),
    (lose_manifest, Kind.MANIFEST_DIFFERS),
    (lose_verdict_row, Kind.REVISION_WITHOUT_VERDICT),
    (lose_verdict_file, Kind.VERDICT_WITHOUT_FILE),
    (alter_verdict, Kind.VERDICT_DIFFERS),
    (lose_result_rows, Kind.REVISION_WITHOUT_RESULTS),
    (keep_results_twice, Kind.RESULTS_TWICE),
    (lose_result_file, Kind.RESULT_WITHOUT_FILE),
    (alter_result, Kind.RESULT_DIFFERS),
    (stray_results, Kind.RESULTS_WITHOUT_REVISION),
    (stray_revision_folder, Kind.RESULTS_WITHOUT_REVISION),
    (surplus_verdict, Kind.SURPLUS_RESULT_FILE),
    (deliver_two_reports, Kind.DELIVERED_TWICE),
    (deliver_what_is_not_kept, Kind.DELIVERY_WITHOUT_RESULT),
    (wait_for_nothing, Kind.DELIVERY_STUCK),
    (lose_model, Kind.MODEL_WITHOUT_FILE),
    (alter_model, Kind.MODEL_DIFFERS),
    (alter_audit, Kind.AUDIT_BROKEN),
    (foreign_log, Kind.LOG_DAMAGED),
    (set_one_aside, Kind.SET_ASIDE),
    (leave_folder_of_removed, Kind.REMOVED_WITH_FILE),
]
