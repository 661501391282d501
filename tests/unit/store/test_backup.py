"""A backup is consistent in itself, is unfinished until it is whole, and restores only into an empty folder."""

import json
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import select

from dicomguard.clock import FakeClock
from dicomguard.core.delivery import State
from dicomguard.errors import Refused, Unavailable
from dicomguard.store import audit, backup, leases, tables
from dicomguard.store import disk as disks
from dicomguard.store.db import Store, open_store
from dicomguard.store.files import FakeDisk, SystemDisk
from dicomguard.store.restore import MARKER, note, restore, resumed
from dicomguard.store.verify.findings import Kind
from dicomguard.store.verify.inspection import Inspection, Inspector
from tests.keeping import Kept, deliver, judge, receive
from tests.unit.store.conftest import NOW, Kernel


@pytest.fixture
def store(tmp_path: Path, template: tuple[Path, Kept], clock: FakeClock, disk: FakeDisk) -> Iterator[Store]:
    shutil.copytree(template[0], tmp_path / "state")
    opened = open_store(tmp_path / "state", "", clock, disk=disk)
    yield opened
    opened.close()


def url(store: Store) -> str:
    return f"sqlite:///{store.root / 'node.sqlite'}"


def silent(done: int, total: int) -> None:
    assert 0 <= done <= total


def make(
    store: Store, target: Path, on_progress: Callable[[int, int], None] = silent, *, since: Path | None = None
) -> tuple[backup.Document, Inspection]:
    # Files are as old as the machine says; the store's clock stands still.
    store.clock.advance(timedelta(days=3650))  # type: ignore[attr-defined]
    document = backup.make(store, url(store), target, on_progress=on_progress, since=since)
    found = backup.check(store.clock, url(store), target, document, full=True, on_progress=silent)
    assert found is not None
    return backup.finish(store, target, document), found


def bring_back(target: Path, state: Path) -> Store:
    state.mkdir()
    address = f"sqlite:///{state / 'node.sqlite'}"
    document = restore(target, state, address, disk=SystemDisk(), on_progress=silent)
    opened = open_store(state, address, FakeClock(NOW))
    note(opened, document)
    return opened


def test_a_node_comes_back_as_it_was(store: Store, kept: Kept, tmp_path: Path) -> None:
    (store.root / "jobs" / kept.key).mkdir(parents=True)
    document, found = make(store, tmp_path / "backup")
    assert found.findings == ()
    # Two instances, two results, a verdict.
    assert (document.files, document.database) == (5, "sqlite")
    assert sorted(path.name for path in (tmp_path / "backup").iterdir()) == ["backup.json", "state"]
    back = bring_back(tmp_path / "backup", tmp_path / "again")
    try:
        for path in kept.instances:
            assert (back.root / path).read_bytes() == (store.root / path).read_bytes()
        assert Inspector(back, full=True).inspect().findings == ()
        with back.read() as tx:
            assert audit.recent(tx)[0].action == "store.restored"
            assert audit.first_break(tx) is None
        assert not (back.root / MARKER).exists()
        assert not (back.root / "jobs").exists()
    finally:
        back.close()


def test_a_backup_since_another_copies_what_is_new_and_stands_alone(store: Store, kept: Kept, tmp_path: Path) -> None:
    first, second, third = (tmp_path / name for name in ("first", "second", "third"))
    make(store, first)
    receive(store, tmp_path / "more", study=2)
    changed = store.root / kept.verdict
    changed.write_bytes(changed.read_bytes() + b" ")
    document, found = make(store, second, since=first)
    assert (document.files, document.shared) == (7, 4)
    assert [finding.kind for finding in found.findings] == [Kind.VERDICT_DIFFERS]
    for path in kept.instances:
        assert (first / "state" / path).samefile(second / "state" / path)
        assert not (store.root / path).samefile(second / "state" / path)
    changed.write_bytes(changed.read_bytes()[:-1])
    document, found = make(store, third, since=second)
    assert (document.shared, found.findings) == (6, ())
    shutil.rmtree(first)
    shutil.rmtree(second)
    back = bring_back(third, tmp_path / "again")
    assert Inspector(back, full=True).inspect().findings == ()
    # What is restored is nobody else's file.
    assert all((back.root / path).stat().st_nlink == 1 for path in kept.instances)
    back.close()


def test_only_a_finished_backup_can_be_shared_with(store: Store, tmp_path: Path) -> None:
    (tmp_path / "first").mkdir()
    with pytest.raises(Refused, match="holds no backup"):
        backup.make(store, url(store), tmp_path / "second", on_progress=silent, since=tmp_path / "first")
    assert not (tmp_path / "second").exists()


def test_what_comes_while_the_files_are_copied_is_left_out_and_the_copy_is_sound(store: Store, tmp_path: Path) -> None:
    """1. rows are copied; 2. an instance arrives, file and row; 3. files are copied."""

    def arrive(done: int, total: int) -> None:
        if not list(tmp_path.glob("late")):
            receive(store, tmp_path / "late", study=7, slices=1)

    _, found = make(store, tmp_path / "backup", arrive)
    assert found.findings == ()
    assert found.instances == 2


def test_an_old_file_without_row_is_copied_and_told(store: Store, kept: Kept, tmp_path: Path) -> None:
    stray = (store.root / kept.instances[0]).with_suffix(".old")
    stray.write_bytes(b"found")
    _, found = make(store, tmp_path / "backup")
    assert [finding.kind for finding in found.findings] == [Kind.FILE_WITHOUT_ROW]


def test_a_fault_of_the_node_is_told_and_the_backup_is_made(store: Store, kept: Kept, tmp_path: Path) -> None:
    (store.root / kept.instances[0]).unlink()
    _, found = make(store, tmp_path / "backup")
    assert [finding.kind for finding in found.findings] == [Kind.ROW_WITHOUT_FILE]
    assert backup.read(tmp_path / "backup").files == 4


def test_retention_is_kept_away_meanwhile_and_let_go(store: Store, tmp_path: Path) -> None:
    def held() -> bool:
        with store.begin() as tx:
            return not leases.take(tx, leases.RETENTION, "retention", store.clock.now(), store.clock.now())

    seen: list[bool] = []
    make(store, tmp_path / "backup", lambda done, total: seen.append(held()))
    assert seen
    assert all(seen)
    assert not held()


def test_a_backup_waits_for_retention(store: Store, tmp_path: Path) -> None:
    now = store.clock.now() + timedelta(days=3650)
    with store.begin() as tx:
        leases.take(tx, leases.RETENTION, "retention", now, now + timedelta(minutes=10))
    with pytest.raises(Unavailable, match="Retention or another backup"):
        make(store, tmp_path / "backup")
    assert not (tmp_path / "backup").exists()


def test_an_unfinished_backup_is_recognised(store: Store, tmp_path: Path) -> None:
    backup.make(store, url(store), tmp_path / "backup", on_progress=silent)
    with pytest.raises(Refused, match="was not finished"):
        bring_back(tmp_path / "backup", tmp_path / "again")
    assert list((tmp_path / "again").iterdir()) == []
    with pytest.raises(Refused, match="unfinished backup"):
        make(store, tmp_path / "backup")


def test_a_full_disk_leaves_an_unfinished_backup_and_the_node_alone(
    store: Store, kept: Kept, disk: FakeDisk, tmp_path: Path
) -> None:
    def fill(done: int, total: int) -> None:
        disk.space = 0

    with pytest.raises(Unavailable, match="full"):
        make(store, tmp_path / "backup", fill)
    with pytest.raises(Refused, match="was not finished"):
        backup.read(tmp_path / "backup")
    disk.space = None
    assert Inspector(store, full=True).inspect().findings == ()
    disk.space = 10
    with pytest.raises(Unavailable, match="Make room there"):
        make(store, tmp_path / "other")


@pytest.mark.parametrize("change", ["database", "document", "schema", "newer"])
def test_an_altered_backup_is_refused(store: Store, tmp_path: Path, change: str) -> None:
    target = tmp_path / "backup"
    make(store, target)
    document = json.loads((target / "backup.json").read_text())
    if change == "database":
        with sqlite3.connect(target / "state/node.sqlite") as there:
            there.execute("UPDATE study SET held_by = 'mallory'")
        there.close()
    elif change == "document":
        (target / "backup.json").write_text("{")
    elif change == "schema":
        (target / "backup.json").write_text(json.dumps({**document, "schema": "dicomguard.backup/9"}))
    else:
        (target / "backup.json").write_text(json.dumps({**document, "schema_version": tables.SCHEMA_VERSION + 1}))
    with pytest.raises(Refused):
        bring_back(target, tmp_path / "again")


def test_only_an_empty_folder_is_filled(store: Store, tmp_path: Path) -> None:
    make(store, tmp_path / "backup")
    full = tmp_path / "full"
    full.mkdir()
    (full / "letter").write_text("mine")
    address = f"sqlite:///{full / 'node.sqlite'}"
    with pytest.raises(Refused, match="is not empty: it holds letter"):
        restore(tmp_path / "backup", full, address, disk=SystemDisk(), on_progress=silent)
    assert [path.name for path in full.iterdir()] == ["letter"]
    with pytest.raises(Refused, match="holds no backup"):
        restore(full, tmp_path, url(store), disk=SystemDisk(), on_progress=silent)
    with pytest.raises(Refused, match="the other kind"):
        restore(tmp_path / "backup", full, "postgresql://host/db", disk=SystemDisk(), on_progress=silent)


def test_a_restore_that_was_cut_off_says_so(store: Store, tmp_path: Path) -> None:
    make(store, tmp_path / "backup")
    state = tmp_path / "again"
    state.mkdir()

    def die(done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    address = f"sqlite:///{state / 'node.sqlite'}"
    with pytest.raises(KeyboardInterrupt):
        restore(tmp_path / "backup", state, address, disk=SystemDisk(), on_progress=die)
    # The database comes last: no node can mistake this for its own.
    assert not (state / "node.sqlite").exists()
    with pytest.raises(Refused, match="was not finished"):
        open_store(state, "", FakeClock(NOW))
    with pytest.raises(Refused, match="was not finished"):
        restore(tmp_path / "backup", state, address, disk=SystemDisk(), on_progress=silent)


@pytest.mark.parametrize("place", ["state/backup", "."])
def test_a_backup_into_the_state_folder_or_around_it_is_refused(store: Store, tmp_path: Path, place: str) -> None:
    with pytest.raises(Refused, match="state folder"):
        make(store, tmp_path / place)


def test_what_goes_out_again_is_counted(store: Store, kept: Kept, tmp_path: Path) -> None:
    key, *_ = receive(store, tmp_path / "more", study=5)
    _, results = judge(store, key, study=5, state="delivering")
    deliver(store, key, 1, results, State.WAITING)
    late, *_ = receive(store, tmp_path / "late", study=6)
    judge(store, late, study=6, state="opened")
    make(store, tmp_path / "backup")
    back = bring_back(tmp_path / "backup", tmp_path / "again")
    try:
        again = resumed(back, ("opened", "analysing", "judged", "built"))
        assert (again.deliveries, again.revisions) == (1, 1)
        with back.read() as tx:
            kept_uids = set(tx.execute(select(tables.result.c.sop_uid)).scalars())
        assert {value.sop_instance_uid for value in results} <= kept_uids
    finally:
        back.close()


def test_a_write_that_the_disk_lost_on_the_way_spoils_backup_and_restore(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when somebody else was told of it first."""
    kernel = Kernel()
    monkeypatch.setattr(disks, "_LIBC", kernel)

    def lost(done: int, total: int) -> None:
        kernel.fail()

    with pytest.raises(Unavailable):
        make(store, tmp_path / "one", lost)
    assert (tmp_path / "one" / backup.UNFINISHED).exists()
    make(store, tmp_path / "two")
    (tmp_path / "again").mkdir()
    address = f"sqlite:///{tmp_path / 'again' / 'node.sqlite'}"
    with pytest.raises(Unavailable):
        restore(tmp_path / "two", tmp_path / "again", address, disk=SystemDisk(), on_progress=lost)
    assert (tmp_path / "again" / MARKER).exists()
