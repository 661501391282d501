"""The log behind the door: what is answered, what the filer makes of it, and what a restart finds."""

import errno
import sqlite3
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import select

from dicomguard.clock import FakeClock
from dicomguard.errors import Unavailable
from dicomguard.store import associations, backlog, counters, filing, studies
from dicomguard.store import disk as disks
from dicomguard.store.db import Limits, Store, open_store
from dicomguard.store.filer import Filer
from dicomguard.store.files import FakeDisk
from dicomguard.store.intake import (
    Conflict,
    Duplicate,
    Outcome,
    Quarantined,
    Stored,
    begin_association,
    end_association,
    open_instance,
)
from dicomguard.store.log_slots import settle, states, unfiled
from dicomguard.store.replay import close_log, open_log
from dicomguard.store.tables import association, instance
from tests.instances import CT1, MR, ROOT, part10_bytes
from tests.unit.store.conftest import Kernel
from tests.unit.store.test_incoming import EXPLICIT, dataset

SEGMENT = 128 << 10


class Node:
    """A state folder whose receiver can die."""

    def __init__(self, folder: Path, clock: FakeClock, disk: FakeDisk) -> None:
        self.folder, self.clock, self.disk = folder, clock, disk
        self.store = self.start()

    def start(self, *, segments: int = 3) -> Store:
        limits = Limits(low_bytes=0, stop_bytes=0, spill_bytes=64 << 10)
        self.store = open_store(self.folder, "", self.clock, limits=limits, disk=self.disk)
        self.replayed = open_log(self.store, segments=segments, segment_bytes=SEGMENT)
        return self.store

    @property
    def filer(self) -> Filer:
        assert isinstance(self.store.log, Filer)
        return self.store.log

    def pause(self) -> None:
        """The filer falls behind from here on."""
        self.filer._stopping = True
        self.filer._checkpoint = lambda **_: None  # type: ignore[method-assign]
        with self.filer._changed:
            self.filer._work.notify_all()
        self.filer._thread.join(10)

    def die(self) -> None:
        """Without filing what is left."""
        self.pause()
        assert self.filer._log is not None
        self.filer._log.close()
        self.store.close()

    def stop(self) -> None:
        # A filer that was paused does not come to an end by waiting.
        close_log(self.store, patience_s=10 if self.filer._thread.is_alive() else 0)
        self.store.close()

    def bring(self, *, over: str | None = None, **changes: object) -> Outcome:
        sop = str(changes.get("sop", f"{ROOT}.1.1.1"))
        with open_instance(
            self.store, CT1, sop_class_uid=MR, sop_instance_uid=sop, transfer_syntax_uid=EXPLICIT, association_id=over
        ) as incoming:
            incoming.write(dataset(**changes))
            return incoming.commit()

    def settle(self) -> None:
        assert self.filer.settle(patience_s=10)

    def rows(self) -> list[tuple[str, str, int]]:
        with self.store.read() as tx:
            rows = tx.execute(select(instance).order_by(instance.c.sop_uid, instance.c.ordinal)).all()
        for row in rows:
            assert (self.store.root / row.path).is_file()
        return [(row.sop_uid.removeprefix(f"{ROOT}.1.1."), row.state, row.ordinal) for row in rows]

    def counted(self, name: str) -> int:
        with self.store.read() as tx:
            return sum(row.value for row in counters.listing(tx) if row.name == name)


@pytest.fixture
def node(tmp_path: Path, clock: FakeClock, disk: FakeDisk) -> Iterator[Node]:
    opened = Node(tmp_path / "state", clock, disk)
    yield opened
    if opened.store.log is not None:
        opened.stop()


def test_success_needs_one_flush_and_the_rest_follows(node: Node, disk: FakeDisk) -> None:
    node.bring()
    node.settle()
    node.pause()
    disk.steps.clear()
    outcome = node.bring(sop=f"{ROOT}.1.1.2")
    assert isinstance(outcome, Stored)
    assert disk.steps == ["append", "sync_segment"]
    assert len(node.rows()) == 1
    assert [(state.alive, state.appended, state.filed) for state in states(node.folder)] == [(True, 2, 1)]
    assert not settle(node.folder, patience_s=0.01)


def test_the_filer_makes_the_file_and_the_rows_that_were_foretold(node: Node) -> None:
    outcomes = [node.bring(sop=f"{ROOT}.1.1.{number}") for number in range(3)]
    assert settle(node.folder, patience_s=10)
    node.settle()
    assert node.rows() == [("0", "stored", 0), ("1", "stored", 0), ("2", "stored", 0)]
    for outcome in outcomes:
        kept = node.store.root / outcome.instance.path
        assert kept.read_bytes().endswith(dataset(sop=outcome.instance.sop_instance_uid))
    with node.store.read() as tx:
        (waiting,) = studies.collecting(tx, now=node.clock.now())
    assert waiting.study_key == outcomes[0].study_key
    assert (node.counted("instances_received"), node.counted("received_bytes")) == (
        3, sum(outcome.instance.size_bytes for outcome in outcomes),
    )  # fmt: skip


def test_equal_bytes_again_are_a_duplicate_before_and_after_they_are_filed(node: Node) -> None:
    node.bring()
    node.pause()
    later = node.bring(sop=f"{ROOT}.1.1.2")
    again = node.bring(sop=f"{ROOT}.1.1.2")
    assert isinstance(again, Duplicate)
    assert again.instance == later.instance
    node.die()
    node.start()
    assert isinstance(node.bring(), Duplicate)
    node.settle()
    assert len(node.rows()) == 2
    assert node.counted("instances_repeated") == 1


def test_other_pixels_are_a_conflict_also_while_the_first_is_not_filed(node: Node) -> None:
    for _ in range(5):
        node.bring(sop=f"{ROOT}.1.1.7")
    assert isinstance(node.bring(sop=f"{ROOT}.1.1.7", pixels=bytes(16)), Conflict)
    node.settle()
    assert node.rows() == [("7", "stored", 0), ("7", "stored", 1)]


def test_two_who_bring_the_same_at_once_make_one_copy(node: Node) -> None:
    outcomes: list[Outcome] = []
    threads = [threading.Thread(target=lambda: outcomes.append(node.bring())) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["Duplicate"] * 5 + ["Stored"]
    node.settle()
    assert len(node.rows()) == 1


def test_large_objects_and_what_cannot_be_read_take_the_literal_order(node: Node, disk: FakeDisk) -> None:
    assert isinstance(node.bring(pixels=bytes(80 << 10)), Stored)
    assert len(node.rows()) == 1
    bad = open_instance(
        node.store, CT1, sop_class_uid=MR, sop_instance_uid="1.2", transfer_syntax_uid=EXPLICIT, association_id=None
    )
    bad.write(b"nothing that can be read")
    assert isinstance(bad.commit(), Quarantined)
    assert "append" not in disk.steps


def test_what_a_dead_receiver_logged_is_filed_before_the_next_one_opens(node: Node) -> None:
    over = begin_association(node.store, CT1, process="receiver-1")
    node.bring(over=over)
    node.settle()
    node.pause()
    for number in range(2, 5):
        node.bring(sop=f"{ROOT}.1.1.{number}", over=over)
    node.die()
    assert not settle(node.folder, patience_s=0.01)
    assert len(list(unfiled(node.folder))) == 4
    node.start()
    assert node.replayed == 4
    assert [sop for sop, _, _ in node.rows()] == ["1", "2", "3", "4"]
    assert settle(node.folder, patience_s=0)
    assert not list(unfiled(node.folder))
    assert node.counted("instances_received") == 4
    with node.store.read() as tx:
        (row,) = associations.recent(tx)
        assert (row.id, row.stored, row.how) == (over, 4, "")
        assert studies.collecting(tx, now=node.clock.now())[0].activity.associations_open == 1


def test_a_replay_mends_what_a_power_cut_took(node: Node) -> None:
    outcomes = [node.bring(sop=f"{ROOT}.1.1.{number}") for number in range(3)]
    node.settle()
    paths = [node.store.root / outcome.instance.path for outcome in outcomes]
    node.die()
    paths[0].unlink()
    paths[1].write_bytes(paths[1].read_bytes()[:300])
    with sqlite3.connect(node.folder / "node.sqlite") as database:
        database.execute("DELETE FROM instance WHERE sop_uid = ?", (outcomes[2].instance.sop_instance_uid,))
    database.close()
    node.start()
    assert len(node.rows()) == 3
    for number, outcome in enumerate(outcomes):
        kept = node.store.root / outcome.instance.path
        assert kept.read_bytes().endswith(dataset(sop=f"{ROOT}.1.1.{number}"))


def test_a_replay_takes_what_a_lost_race_left_behind(node: Node) -> None:
    """A batch wrote under a key that its study did not get; a power cut brings the name back with half a file."""
    node.pause()
    node.bring(sop=f"{ROOT}.1.1.1")
    (item,) = (backlog.read(record) for record in unfiled(node.store.root))
    # By the literal order, which gives the study its row at once.
    node.bring(sop=f"{ROOT}.1.1.2", pixels=bytes(80 << 10))
    node.die()
    stray = node.folder / filing.path_of(item.arrival, item.study_key)
    stray.parent.mkdir(parents=True, exist_ok=True)
    stray.write_bytes(b"half")
    node.start()
    assert node.replayed == 1 and len(node.rows()) == 2
    assert not stray.exists()


def test_a_replay_flushes_the_log_before_it_believes_it(node: Node, disk: FakeDisk) -> None:
    """1. a record is written; 2. its process dies before the flush; 3. the next start files it; 4. the power goes."""
    node.bring()
    node.settle()
    outcome = node.bring(sop=f"{ROOT}.1.1.2")
    node.die()
    (node.store.root / outcome.instance.path).unlink(missing_ok=True)
    disk.steps.clear()
    node.start()
    assert disk.steps.index("sync_segment") < disk.steps.index("write")


def test_what_was_removed_on_purpose_does_not_come_back(node: Node) -> None:
    outcome = node.bring()
    node.settle()
    with node.store.begin() as tx:
        tx.execute(instance.update().values(state="expired"))
    (node.store.root / outcome.instance.path).unlink()
    node.die()
    node.start()
    assert not (node.store.root / outcome.instance.path).exists()


def look_away(node: Node) -> None:
    """As after a look-up that the database did not answer."""
    node.filer._away_until = node.clock.monotonic() + 1.0


def lose(node: Node, outcome: Outcome, state: str) -> None:
    """As retention does, or `verify --repair` after the file was lost."""
    with node.store.begin() as tx:
        tx.execute(instance.update().values(state=state, path="" if state == "expired" else instance.c.path))
    (node.store.root / outcome.instance.path).unlink()
    node.clock.advance(timedelta(days=40))


@pytest.mark.parametrize("state", ["expired", "missing"])
@pytest.mark.parametrize("dies", [False, True])
def test_what_is_sent_again_while_the_database_is_away_comes_back(node: Node, state: str, dies: bool) -> None:
    """1. its file went; 2. the same bytes come and are logged without a look; 3. the filer, or a replay, finds them."""
    lost = node.bring()
    node.settle()
    if dies:
        # The record that the row was made of is still there, too.
        node.pause()
    lose(node, lost, state)
    look_away(node)
    assert isinstance(node.bring(), Stored)
    if dies:
        node.die()
        node.start()
    node.settle()
    assert node.rows() == [("1", "stored", 0)]
    with node.store.read() as tx:
        (row,) = tx.execute(select(instance)).all()
    if state == "expired":
        # Its time begins anew.
        assert row.received_at == node.clock.now()
    assert (node.store.root / row.path).read_bytes().endswith(dataset())
    assert [path.name for path in (node.store.root / "store").rglob("*.dcm")] == [f"{row.sha256}.dcm"]


def test_what_was_removed_once_more_does_not_come_back_a_second_time(node: Node) -> None:
    """The record that brought it back is still in the log when retention has taken it again."""
    lost = node.bring()
    node.settle()
    node.filer._checkpoint = lambda **_: None  # type: ignore[method-assign]
    lose(node, lost, "expired")
    look_away(node)
    node.bring()
    node.settle()
    with node.store.read() as tx:
        (row,) = tx.execute(select(instance)).all()
    (node.store.root / row.path).unlink()
    with node.store.begin() as tx:
        tx.execute(instance.update().values(state="expired", path=""))
    node.die()
    node.start()
    assert node.replayed == 2
    assert not list((node.store.root / "store").rglob("*.dcm"))


def test_what_was_marked_missing_is_filed_from_the_log(node: Node) -> None:
    outcome = node.bring()
    node.settle()
    node.pause()
    lose(node, outcome, "missing")
    node.die()
    node.start()
    assert node.rows() == [("1", "stored", 0)]


def test_an_orderly_end_leaves_nothing_to_replay(node: Node) -> None:
    node.bring()
    node.stop()
    assert not list(unfiled(node.folder))
    node.start()
    assert node.replayed == 0
    assert len(node.rows()) == 1


def test_segments_go_round(node: Node, disk: FakeDisk) -> None:
    """Far more than the log holds: each segment is emptied after a flush of everything and a synchronous commit."""
    for number in range(40):
        assert isinstance(node.bring(sop=f"{ROOT}.1.1.{number}", pixels=bytes([number]) * 30_000), Stored)
    node.settle()
    assert len(node.rows()) == 40
    assert disk.steps.count("sync_all") >= 2
    assert len(list(unfiled(node.folder))) < 20


def test_an_old_record_leaves_the_log_without_traffic(node: Node) -> None:
    node.bring()
    node.settle()
    node.clock.advance(timedelta(seconds=61))
    for _ in range(200):
        if not list(unfiled(node.folder)):
            break
        threading.Event().wait(0.02)
    assert not list(unfiled(node.folder))


def test_when_the_flush_of_everything_fails_each_file_is_written_and_flushed_again(node: Node, disk: FakeDisk) -> None:
    outcome = node.bring()
    node.settle()
    disk.sync_all_fails = [errno.EIO]
    # What the page cache shows is not what is on the disk.
    (node.store.root / outcome.instance.path).write_bytes(b"lost")
    disk.steps.clear()
    node.stop()
    assert disk.steps.count("rename") == 1
    assert disk.steps.index("sync_all") < disk.steps.index("sync") < disk.steps.index("rename")
    assert not list(unfiled(node.folder))
    node.start()
    assert (node.store.root / outcome.instance.path).read_bytes().endswith(dataset())


def test_a_write_that_failed_before_the_flush_of_everything_is_seen(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = Kernel()
    monkeypatch.setattr(disks, "_LIBC", kernel)
    outcome = node.bring()
    node.settle()
    (node.store.root / outcome.instance.path).write_bytes(b"lost")
    kernel.fail()
    node.stop()
    assert (node.store.root / outcome.instance.path).read_bytes().endswith(dataset())


def test_a_replay_believes_no_file_that_was_not_flushed(node: Node, disk: FakeDisk) -> None:
    """After a failed write-back the page cache shows a file that the disk does not have; the log has it."""
    outcome = node.bring()
    node.settle()
    kept = node.store.root / outcome.instance.path
    before = kept.stat().st_ino
    node.die()
    disk.steps.clear()
    node.start()
    assert kept.stat().st_ino != before
    assert disk.steps.index("write") < disk.steps.index("sync_all")
    assert kept.read_bytes().endswith(dataset())


def test_an_end_lets_go_of_the_file_system(node: Node) -> None:
    def held() -> list[Path]:
        return [path for path in Path("/proc/self/fd").iterdir() if path.resolve() == node.folder / "store"]

    assert len(held()) == 1
    node.stop()
    assert held() == []


def test_a_locked_database_stops_no_sender(node: Node) -> None:
    node.bring()
    node.settle()
    other = sqlite3.connect(node.folder / "node.sqlite", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    over = begin_association(node.store, CT1, process="receiver-1")
    for number in range(2, 6):
        assert isinstance(node.bring(sop=f"{ROOT}.1.1.{number}", over=over), Stored)
    end_association(node.store, over, "release")
    assert not settle(node.folder, patience_s=0.05)
    other.execute("ROLLBACK")
    other.close()
    node.settle()
    assert len(node.rows()) == 5
    with node.store.read() as tx:
        assert [(row.how, row.stored) for row in associations.recent(tx)] == [("release", 4)]


def test_a_log_that_fails_twice_refuses_and_says_so(node: Node, disk: FakeDisk) -> None:
    node.bring()
    disk.segment_fails = [errno.EIO, errno.EIO]
    for number in (2, 3):
        with pytest.raises(Unavailable, match="failed a write"):
            node.bring(sop=f"{ROOT}.1.1.{number}")
    assert node.store.space.stopped
    assert [state.failed for state in states(node.folder)] == [True]
    with pytest.raises(Unavailable, match="failed twice"):
        node.bring(sop=f"{ROOT}.1.1.4")
    node.stop()
    node.start()
    assert isinstance(node.bring(sop=f"{ROOT}.1.1.4"), Stored)
    node.settle()
    assert {"1", "4"} <= {sop for sop, _, _ in node.rows()}


def test_an_association_that_ends_holds_until_its_last_instance_is_filed(node: Node) -> None:
    over = begin_association(node.store, CT1, process="receiver-1")
    node.bring(over=over)
    node.settle()
    node.pause()
    node.bring(sop=f"{ROOT}.1.1.2", over=over)
    end_association(node.store, over, "release")
    with node.store.read() as tx:
        assert tx.execute(select(association.c.how)).scalar_one() == ""


def test_without_segments_the_order_is_literal(tmp_path: Path, clock: FakeClock, disk: FakeDisk) -> None:
    node = Node.__new__(Node)
    node.folder, node.clock, node.disk = tmp_path / "state", clock, disk
    node.start(segments=0)
    node.bring()
    assert len(node.rows()) == 1
    assert part10_bytes() and "append" not in disk.steps
    node.store.close()
