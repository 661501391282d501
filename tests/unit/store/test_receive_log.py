"""The records, their segments and the group commit, without database and filer."""

import errno
import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dicomguard.clock import FakeClock
from dicomguard.errors import Refused, Unavailable
from dicomguard.store.files import Died, FakeDisk
from dicomguard.store.log_records import PAGE_BYTES, Logged, read_segment
from dicomguard.store.log_slots import claiming, new_slot, read_slot, states, unfiled
from dicomguard.store.receive_log import ReceiveLog, open_segments

NOW = datetime(2026, 11, 24, 10, 0, tzinfo=UTC)
SEGMENT = 16 * PAGE_BYTES
Make = Callable[..., ReceiveLog]


@pytest.fixture
def make(tmp_path: Path, disk: FakeDisk, clock: FakeClock) -> Iterator[Make]:
    opened: list[ReceiveLog] = []

    def one(
        *, count: int = 3, patience_s: float = 0.05, appended: Callable[[Logged], None] = lambda _: None
    ) -> ReceiveLog:
        with claiming(disk, tmp_path) as held:
            slot = held[0] if held else new_slot(disk, tmp_path)
        files = open_segments(disk, slot, count=count, size_bytes=SEGMENT)
        opened.append(
            ReceiveLog(
                disk, clock, slot, segments=files, segment_bytes=SEGMENT, patience_s=patience_s, appended=appended
            )
        )
        return opened[-1]

    yield one
    for each in opened:
        each.close()


def put(log: ReceiveLog, content: bytes, *, sop: str = "1.2") -> Logged:
    head = b"H" * 10
    whole = memoryview(head + content)
    return log.append({"sop_uid": sop}, whole, head_bytes=10, sha256=hashlib.sha256(content).hexdigest())


def contents(root: Path) -> list[bytes]:
    return [b"".join(record.pieces())[10:] for record in unfiled(root)]


def file_all(log: ReceiveLog, root: Path) -> None:
    """As a filer would: all records have file and row."""
    for segment in log.covered():
        records = list(read_segment(segment.path))[-segment.unfiled :] if segment.unfiled else []
        log.note_filed(records, all_below=log.last_sequence)


def test_a_record_is_read_as_it_was_written(make: Make, tmp_path: Path) -> None:
    log = make()
    written = [put(log, os.urandom(size), sop=f"1.{size}") for size in (0, 1, 5000, 3 * PAGE_BYTES)]
    assert list(unfiled(tmp_path)) == written
    assert [record.sequence for record in written] == [1, 2, 3, 4]
    assert [record.sop_instance_uid for record in written] == ["1.0", "1.1", "1.5000", f"1.{3 * PAGE_BYTES}"]
    # No page of a record is touched by the next one.
    assert all((record.segment, record.end % PAGE_BYTES) == (written[0].segment, 0) for record in written)


def test_the_flush_comes_before_the_answer(make: Make, disk: FakeDisk) -> None:
    told: list[list[str]] = []
    log = make(appended=lambda _: told.append(list(disk.steps)))
    disk.steps.clear()
    put(log, b"x")
    assert told == [["append", "sync_segment"]]


def test_those_who_wait_share_one_flush(make: Make, disk: FakeDisk, tmp_path: Path) -> None:
    """1. a leader is in its flush; 2. nine others queue; 3. it ends: one more flush covers all nine."""
    log = make()
    inside, go = threading.Event(), threading.Event()

    def slow(descriptor: int) -> None:
        inside.set()
        assert go.wait(10)
        del disk.sync_segment

    disk.sync_segment = slow  # type: ignore[method-assign]
    threads = [threading.Thread(target=put, args=(log, b"%d" % number)) for number in range(10)]
    threads[0].start()
    assert inside.wait(10)
    for thread in threads[1:]:
        thread.start()
    while len(log._queue) < 9:
        threading.Event().wait(0.001)
    disk.steps.clear()
    go.set()
    for thread in threads:
        thread.join(10)
    assert disk.steps == ["append", "sync_segment"]
    assert sorted(contents(tmp_path)) == [b"%d" % number for number in range(10)]


def test_a_segment_is_used_again_only_when_it_was_emptied(make: Make, tmp_path: Path) -> None:
    log = make(count=2)
    large = [bytes([number]) * (SEGMENT - 2 * PAGE_BYTES) for number in range(4)]
    put(log, large[0])
    put(log, large[1])
    with pytest.raises(Unavailable, match="is full"):
        put(log, large[2])
    assert not log.settled_segments()
    file_all(log, tmp_path)
    log.reuse(log.settled_segments()[0])
    put(log, large[2])
    # The first is gone with its segment, the second is still covered.
    assert sorted(contents(tmp_path)) == [large[1], large[2]]


def test_a_sender_that_waits_for_a_segment_goes_on_when_one_is_free(make: Make, tmp_path: Path) -> None:
    log = make(count=1, patience_s=10)
    put(log, bytes(SEGMENT - PAGE_BYTES))
    waiting = threading.Thread(target=put, args=(log, b"waits"))
    waiting.start()
    while not log.full:
        threading.Event().wait(0.001)
    file_all(log, tmp_path)
    log.reuse(log.settled_segments()[0])
    waiting.join(10)
    assert contents(tmp_path) == [b"waits"]


def test_what_an_earlier_use_left_behind_is_no_record(make: Make, tmp_path: Path) -> None:
    """A segment held three records; it was emptied and holds one: the old second and third are not read."""
    log = make(count=1)
    for number in range(3):
        put(log, b"old %d" % number)
    log.close_old(older_than_s=0)
    file_all(log, tmp_path)
    log.reuse(log.settled_segments()[0])
    assert contents(tmp_path) == []
    put(log, b"new")
    assert contents(tmp_path) == [b"new"]


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC])
def test_a_failed_flush_is_told_to_all_and_its_segment_is_not_used_again(
    make: Make, disk: FakeDisk, tmp_path: Path, number: int
) -> None:
    log = make()
    first = put(log, b"kept")
    disk.segment_fails = [number]
    with pytest.raises(Unavailable):
        put(log, b"not told")
    assert disk.steps.count("sync_segment") == 2
    again = put(log, b"again")
    assert again.segment != first.segment
    assert not log.failed
    # The one before it is still there; the failed one may be, its sender brings it again.
    assert {b"kept", b"again"} <= set(contents(tmp_path))
    file_all(log, tmp_path)
    log.reuse(log.settled_segments()[0])
    assert log.free_segments == 1


def test_two_failures_in_a_row_end_reception(make: Make, disk: FakeDisk, tmp_path: Path) -> None:
    log = make(count=4)
    put(log, b"kept")
    disk.segment_fails = [errno.EIO, errno.EIO]
    for _ in range(2):
        with pytest.raises(Unavailable, match="failed a write"):
            put(log, b"x")
    assert log.failed
    assert [state.failed for state in states(tmp_path)] == [True]
    with pytest.raises(Unavailable, match="failed twice"):
        put(log, b"x")
    assert contents(tmp_path)[0] == b"kept"


@pytest.mark.parametrize("step", ["append", "sync_segment"])
def test_a_death_in_the_flush_tells_nobody(make: Make, disk: FakeDisk, tmp_path: Path, step: str) -> None:
    log = make()
    put(log, b"kept")
    disk.die_before = step
    with pytest.raises(Died):
        put(log, b"x")
    assert contents(tmp_path)[0] == b"kept"


@settings(max_examples=60, deadline=None)
@given(cut=st.integers(0, 3 * PAGE_BYTES), filler=st.sampled_from([b"\0", b"\xff", b"D"]))
def test_a_torn_tail_is_recognised(tmp_path_factory: pytest.TempPathFactory, cut: int, filler: bytes) -> None:
    """The last record keeps only its first `cut` bytes: it is whole or not there, and those before it are."""
    root = tmp_path_factory.mktemp("torn")
    disk, clock = FakeDisk(), FakeClock(NOW)
    with claiming(disk, root):
        slot = new_slot(disk, root)
    files = open_segments(disk, slot, count=1, size_bytes=SEGMENT)
    log = ReceiveLog(disk, clock, slot, segments=files, segment_bytes=SEGMENT, patience_s=1, appended=lambda _: None)
    put(log, b"first" * 1000)
    last = put(log, b"last" * 2000)
    start = last.offset - (last.offset % PAGE_BYTES)
    whole = last.offset + last.size_bytes
    with last.segment.open("r+b") as file:
        file.seek(start + cut)
        file.write(filler * max(0, last.end - start - cut))
    found = contents(root)
    assert found[0] == b"first" * 1000
    assert len(found) == (2 if start + cut >= whole else 1)
    log.close()


def test_a_damaged_record_does_not_take_those_behind_it(make: Make, tmp_path: Path) -> None:
    log = make()
    records = [put(log, b"%d" % number * 2000) for number in range(3)]
    with records[1].segment.open("r+b") as file:
        file.seek(records[1].offset + 500)
        file.write(b"damage")
    assert [record.sequence for record in unfiled(tmp_path)] == [1, 3]


def test_a_log_of_a_newer_version_is_not_guessed_at(make: Make, tmp_path: Path) -> None:
    import struct
    import zlib

    log = make()
    record = put(log, b"x")
    with record.segment.open("r+b") as file:
        header = bytearray(file.read(76))
        header[4] = 9
        file.seek(0)
        file.write(header + struct.pack("<I", zlib.crc32(header)))
    with pytest.raises(Refused, match="has version 9"):
        list(unfiled(tmp_path))


def test_the_records_of_a_slot_come_in_the_order_of_their_answers(make: Make, tmp_path: Path, disk: FakeDisk) -> None:
    log = make(count=3)
    for number in range(6):
        put(log, b"%d" % number * (SEGMENT // 3))
    log.close_old(older_than_s=0)
    with closing(read_slot(log.slot)) as records:
        assert [record.sequence for record in records] == [1, 2, 3, 4, 5, 6]
    # Nobody takes the log of a living process.
    with claiming(disk, tmp_path) as held:
        assert held == []
