"""Every fault that verify knows is planted once and found by its name, and a sound store has none."""

import os
import shutil
import sqlite3
import zlib
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import delete, select, update

from dicomguard import part10
from dicomguard.clock import FakeClock
from dicomguard.core.delivery import State
from dicomguard.flow import states
from dicomguard.store import audit, ephemeral, executors, log_records, results, set_aside, tables
from dicomguard.store.db import Store, open_store
from dicomguard.store.verify import listings, look
from dicomguard.store.verify.findings import MEANINGS, Finding, Kind
from dicomguard.store.verify.inspection import Inspection, Inspector
from dicomguard.store.verify.repair import repair
from tests.instances import ROOT, part10_file
from tests.keeping import Kept, deliver, finished, judge, receive, result


@pytest.fixture
def store(tmp_path: Path, template: tuple[Path, Kept], clock: FakeClock) -> Iterator[Store]:
    shutil.copytree(template[0], tmp_path / "state")
    opened = open_store(tmp_path / "state", "", clock)
    yield opened
    opened.close()


Plant = Callable[[Store, Kept, Path], None]


def inspect(store: Store, *, full: bool = True) -> Inspection:
    return Inspector(store, full=full, second_look_s=0.0).inspect()


def kinds(store: Store) -> list[Kind]:
    return [finding.kind for finding in inspect(store).findings]


def change(store: Store, *statements: object) -> None:
    with store.begin() as tx:
        for statement in statements:
            tx.execute(statement)  # type: ignore[call-overload]


def test_a_sound_store_has_no_findings(store: Store, tmp_path: Path) -> None:
    finished(store, tmp_path, study=2)
    receive(store, tmp_path / "more", study=3)
    found = inspect(store)
    assert found.findings == ()
    assert (found.studies, found.instances, found.hashed, found.clean) == (3, 6, 6, True)


def test_states_are_those_of_the_workflow() -> None:
    assert listings.BEFORE_DELIVERY == states.BEFORE_DELIVERY
    assert states.IN_ORDER[states.IN_ORDER.index(states.BUILT) :] == listings.BUILT
    assert states.IN_ORDER[states.IN_ORDER.index(states.JUDGED) :] == listings.JUDGED
    assert (listings.DELIVERING, listings.DONE, listings.WAITING) == (states.DELIVERING, states.DONE, State.WAITING)


# --- the plants ---


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


@pytest.mark.parametrize(("plant", "kind"), PLANTS, ids=[plant.__name__ for plant, _ in PLANTS])
def test_a_planted_fault_is_found_by_its_name_and_alone(
    store: Store, kept: Kept, tmp_path: Path, plant: Plant, kind: Kind
) -> None:
    plant(store, kept, tmp_path)
    assert kinds(store) == [kind]


def test_an_object_given_twice_to_one_destination(store: Store, kept: Kept, tmp_path: Path) -> None:
    deliver_one_object_twice(store, kept, tmp_path)
    assert Kind.DELIVERED_TWICE in kinds(store)


def test_every_kind_has_a_sentence_a_remedy_and_a_plant() -> None:
    assert set(MEANINGS) == set(Kind)
    for meaning in MEANINGS.values():
        assert meaning.sentence.endswith(".")
        assert meaning.remedy.endswith(".")
    assert {kind for _, kind in PLANTS} == set(Kind)


# --- beside a running node ---


def beat(store: Store) -> None:
    now = store.clock.now()
    with store.begin() as tx:
        executors.beat(tx, "receiver-1", "node", now, now + timedelta(seconds=10), role="receiver")


def test_what_is_on_its_way_is_no_fault_on_a_running_node(store: Store, kept: Kept, tmp_path: Path) -> None:
    lose_row(store, kept, tmp_path)
    open_without_workflow(store, kept, tmp_path)
    change(store, update(tables.counter).values(value=tables.counter.c.value + 2))
    lose_count(store, kept, tmp_path)
    beat(store)
    written = store.clock.now().timestamp()
    os.utime(store.root / kept.instances[0], (written, written))
    assert kinds(store) == []
    store.clock.advance(timedelta(days=1))  # type: ignore[attr-defined]
    beat(store)
    assert sorted(kinds(store)) == [Kind.FILE_WITHOUT_ROW, Kind.REVISION_WITHOUT_WORKFLOW]


def test_a_day_that_retention_empties_meanwhile_has_no_strangers(
    store: Store, kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Path.glob

    def listed(path: Path, pattern: str) -> Iterator[Path]:
        yield from whole(path, pattern)
        yield path / "store" / "2020" / "01" / "01"

    monkeypatch.setattr(Path, "glob", listed)
    assert list(look.strangers(store)) == []


def test_a_fault_that_goes_away_is_not_told(store: Store, kept: Kept, tmp_path: Path) -> None:
    """1. a file is missing; 2. the node runs, so verify looks again; 3. by then it is there."""
    path = store.root / kept.instances[0]
    away = path.rename(tmp_path / "away")
    beat(store)

    def bring_back(done: int, total: int) -> None:
        if away.exists():
            away.rename(path)

    assert Inspector(store, full=True, on_progress=bring_back, second_look_s=0.0).inspect().findings == ()


def test_a_live_workflow_is_known_from_the_table_of_the_engine(store: Store, kept: Kept, tmp_path: Path) -> None:
    open_without_workflow(store, kept, tmp_path)
    (finding,) = inspect(store).findings
    assert finding.heals
    with sqlite3.connect(store.root / "work.sqlite") as work:
        work.execute("CREATE TABLE workflow_status (workflow_uuid TEXT PRIMARY KEY, status TEXT)")
        work.execute("INSERT INTO workflow_status VALUES (?, 'SUCCESS')", (f"study/{finding.study_key}/r1",))
    work.close()
    assert kinds(store) == [Kind.REVISION_WITHOUT_WORKFLOW]
    with sqlite3.connect(store.root / "work.sqlite") as work:
        work.execute("INSERT INTO workflow_status VALUES (?, 'ENQUEUED')", (f"study/{finding.study_key}/r1/a1",))
    work.close()
    assert kinds(store) == []


# --- the share that is read ---


def test_of_a_large_store_a_share_is_read(
    store: Store, kept: Kept, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    receive(store, tmp_path / "many", study=9, slices=20)
    monkeypatch.setattr("dicomguard.store.verify.inspection.SMALL", 10)
    flip_bit(store, kept, tmp_path)
    seen = set()
    for _ in range(6):
        found = inspect(store, full=False)
        assert found.hashed < 10
        seen.add(found.hashed)
        store.clock.advance(timedelta(days=1))  # type: ignore[attr-defined]
    assert len(seen) > 1
    assert [finding.kind for finding in inspect(store, full=True).findings] == [Kind.FILE_DIFFERS]
    # A torn file shows by its size, unread.
    tear_file(store, kept, tmp_path)
    assert [finding.kind for finding in inspect(store, full=False).findings] == [Kind.FILE_DIFFERS]


# --- repair ---


def mend(store: Store) -> list[tuple[Finding, str]]:
    return [(finding, repair(store, finding, by="ada")) for finding in inspect(store).findings]


def rows(store: Store) -> dict[str, str]:
    with store.read() as tx:
        return {row.path: row.state for row in tx.execute(select(tables.instance))}


def test_a_found_file_is_filed_again(store: Store, kept: Kept, tmp_path: Path) -> None:
    lose_row(store, kept, tmp_path)
    ((_, done),) = mend(store)
    assert done.startswith("filed as ")
    assert rows(store)[kept.instances[0]] == "stored"
    assert kinds(store) == []


def test_a_found_file_of_an_unknown_study_moves_to_its_new_place(store: Store, kept: Kept, tmp_path: Path) -> None:
    stray_study_folder(store, kept, tmp_path)
    with store.read() as tx:
        assert tx.execute(select(tables.instance.c.calling_ae).distinct()).scalars().all() == ["CT1"]
    mend(store)
    assert not (store.root / "store/2026/11/20/feedfeedfeedfeed/aa/aa.dcm").exists()
    assert len(rows(store)) == 3
    assert kinds(store) == []


def test_a_second_copy_of_kept_bytes_goes_and_the_kept_one_stays(store: Store, kept: Kept, tmp_path: Path) -> None:
    folder = store.root / "store/2026/11/20/feedfeedfeedfeed/aa"
    folder.mkdir(parents=True)
    shutil.copyfile(store.root / kept.instances[0], folder / "aa.dcm")
    ((_, done),) = mend(store)
    assert "duplicate" in done
    assert (store.root / kept.instances[0]).is_file()
    assert kinds(store) == []


def test_unreadable_found_bytes_are_kept_aside(store: Store, kept: Kept, tmp_path: Path) -> None:
    stray_quarantine(store, kept, tmp_path)
    mend(store)
    assert [path.read_bytes() for path in (store.root / "damaged").iterdir()] == [b"no DICOM"]
    assert kinds(store) == []


def test_a_lost_instance_is_marked_and_taken_anew(store: Store, kept: Kept, tmp_path: Path) -> None:
    lose_file(store, kept, tmp_path)
    mend(store)
    assert rows(store)[kept.instances[0]] == "missing"
    assert kinds(store) == []


def test_a_damaged_file_is_set_aside_and_its_instance_marked(store: Store, kept: Kept, tmp_path: Path) -> None:
    flip_bit(store, kept, tmp_path)
    mend(store)
    assert rows(store)[kept.instances[0]] == "missing"
    assert len(list((store.root / "damaged").iterdir())) == 1
    assert kinds(store) == []


def test_leftovers_are_removed_and_everything_is_in_the_audit_chain(store: Store, kept: Kept, tmp_path: Path) -> None:
    leave_temporary(store, kept, tmp_path)
    leave_job(store, kept, tmp_path)
    assert [done for _, done in mend(store)] == ["removed", "removed"]
    assert kinds(store) == []
    with store.read() as tx:
        assert [line.action for line in audit.recent(tx)] == ["store.repaired"] * 2


def test_what_cannot_be_repaired_is_left_as_it_is(store: Store, kept: Kept, tmp_path: Path) -> None:
    alter_result(store, kept, tmp_path)
    assert [done for _, done in mend(store)] == [""]
    assert kinds(store) == [Kind.RESULT_DIFFERS]
