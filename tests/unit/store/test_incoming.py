"""The door for one dataset that comes in pieces."""

import errno
import hashlib
import os
from pathlib import Path

import pytest

from dicomguard.clock import FakeClock
from dicomguard.errors import Unavailable
from dicomguard.store.db import Limits, Store, open_store
from dicomguard.store.files import Died, FakeDisk
from dicomguard.store.intake import Duplicate, Incoming, Quarantined, Stored, TooLarge, open_instance
from tests.instances import CT1, MR, ROOT, part10_bytes

EXPLICIT = "1.2.840.10008.1.2.1"


def dataset(**changes: object) -> bytes:
    content = part10_bytes(**changes)  # type: ignore[arg-type]
    return content[content.index(b"\x08\x00\x16\x00") :]


def begin(store: Store, *, sop: str = f"{ROOT}.1.1.1") -> Incoming:
    return open_instance(
        store, CT1, sop_class_uid=MR, sop_instance_uid=sop, transfer_syntax_uid=EXPLICIT, association_id=None
    )


def files(store: Store) -> list[Path]:
    return [path for path in (store.root / "store").rglob("*") if path.is_file()]


@pytest.mark.parametrize("spill_bytes", [1 << 20, 700, 0])
def test_pieces_in_memory_or_in_a_file_end_as_the_same_bytes(
    tmp_path: Path, clock: FakeClock, disk: FakeDisk, spill_bytes: int
) -> None:
    limits = Limits(low_bytes=0, stop_bytes=0, spill_bytes=spill_bytes)
    store = open_store(tmp_path / "state", "", clock, limits=limits, disk=disk)
    content = dataset(pixels=os.urandom(3000))
    # The sender's buffer is used again for the next piece.
    buffer = bytearray(100)
    incoming = begin(store)
    for start in range(0, len(content), 100):
        piece = content[start : start + 100]
        buffer[: len(piece)] = piece
        incoming.write(memoryview(buffer)[: len(piece)])
    outcome = incoming.commit()
    assert isinstance(outcome, Stored)
    assert outcome.instance.sha256 == hashlib.sha256(content).hexdigest()
    assert (store.root / outcome.instance.path).read_bytes().endswith(content)
    assert len(files(store)) == 1
    with begin(store) as again:
        again.write(content)
        assert isinstance(again.commit(), Duplicate)
    store.close()


@pytest.mark.parametrize("spill_bytes", [1 << 20, 0])
def test_an_aborted_transfer_leaves_nothing(tmp_path: Path, clock: FakeClock, disk: FakeDisk, spill_bytes: int) -> None:
    limits = Limits(low_bytes=0, stop_bytes=0, spill_bytes=spill_bytes, buffer_bytes=5000)
    store = open_store(tmp_path / "state", "", clock, limits=limits, disk=disk)
    for _ in range(20):
        incoming = begin(store)
        incoming.write(bytes(2000))
        incoming.discard()
        incoming.discard()
        with pytest.raises(Unavailable, match="has ended"):
            incoming.commit()
    assert not files(store)
    # The memory of all of them is there again.
    assert store.buffers.take(5000)
    store.close()


def test_memory_that_all_share_is_bounded_and_the_rest_goes_to_files(
    tmp_path: Path, clock: FakeClock, disk: FakeDisk
) -> None:
    limits = Limits(low_bytes=0, stop_bytes=0, buffer_bytes=3000)
    store = open_store(tmp_path / "state", "", clock, limits=limits, disk=disk)
    several = [begin(store, sop=f"{ROOT}.1.1.{number}") for number in range(4)]
    for number, incoming in enumerate(several):
        incoming.write(dataset(sop=f"{ROOT}.1.1.{number}", pixels=bytes(1400)))
    assert 1 <= len(files(store)) <= 3
    assert all(isinstance(incoming.commit(), Stored) for incoming in several)
    assert store.buffers.take(3000)
    store.close()


def test_a_failure_is_kept_until_the_message_is_complete(store: Store) -> None:
    incoming = begin(store)
    for _ in range(17):
        incoming.write(bytes(1 << 16))
    assert incoming.failed
    incoming.write(b"more")
    with pytest.raises(TooLarge, match="1048576 bytes"):
        incoming.commit()
    assert not files(store)


def test_a_disk_that_fills_while_a_large_one_comes(tmp_path: Path, clock: FakeClock, disk: FakeDisk) -> None:
    limits = Limits(low_bytes=0, stop_bytes=0, spill_bytes=0)
    store = open_store(tmp_path / "state", "", clock, limits=limits, disk=disk)
    incoming = begin(store)
    incoming.write(dataset())
    disk.space = 10
    incoming.write(bytes(11))
    disk.space = None
    incoming.write(bytes(11))
    with pytest.raises(Unavailable, match="is full"):
        incoming.commit()
    assert not files(store)
    store.close()


def test_a_failed_flush_is_not_acknowledged_and_the_next_try_is_taken(store: Store, disk: FakeDisk) -> None:
    disk.sync_fails = errno.EIO
    incoming = begin(store)
    incoming.write(dataset())
    with pytest.raises(Unavailable, match="failed a write"):
        incoming.commit()
    assert not files(store)
    with begin(store) as again:
        again.write(dataset())
        assert isinstance(again.commit(), Stored)


@pytest.mark.parametrize("step", ["sync", "rename", "sync_folder"])
def test_a_death_before_any_step_is_no_answer(store: Store, disk: FakeDisk, step: str) -> None:
    disk.die_before = step
    incoming = begin(store)
    incoming.write(dataset())
    with pytest.raises(Died):
        incoming.commit()
    disk.die_before = ""
    with begin(store) as again:
        again.write(dataset())
        assert isinstance(again.commit(), Stored)


def test_an_empty_dataset_is_quarantined(store: Store) -> None:
    assert isinstance(begin(store).commit(), Quarantined)
