"""Destinations that fail beside one that works: nobody waits for another, and what failed arrives in the end."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pynetdicom.sop_class import (
    Comprehensive3DSRStorage,
    ComprehensiveSRStorage,
    MRImageStorage,
    SegmentationStorage,
)

from demo.ports import free_port
from dicomguard.clock import SystemClock
from dicomguard.core.delivery import Delivery, State
from dicomguard.store import deliveries, results, studies
from dicomguard.store.db import Store, open_store
from tests.conftest import ROOT
from tests.fault import world
from tests.peer import mute, peer, until


@contextmanager
def worker(state: Path, **plan: object) -> Iterator[subprocess.Popen[bytes]]:
    """A worker for as long as the block runs."""
    command = [sys.executable, "-m", "tests.fault.world", json.dumps({"state": str(state), **plan})]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """The store of the worker."""
    return open_store(tmp_path / "state", "", SystemClock())


def delivery(store: Store, key: str, destination: str = "archive") -> Delivery | None:
    """How far it is."""
    with store.read() as tx:
        return deliveries.get(tx, key, 1, destination)


def over(store: Store, key: str, destination: str = "archive") -> bool:
    """Whether it is over."""
    found = delivery(store, key, destination)
    return found is not None and found.next_at is None


def test_dead_and_mute_destinations_do_not_delay_a_living_one(store: Store, tmp_path: Path) -> None:
    """Four studies; one destination is a closed port, one accepts and says nothing for 10 s an attempt."""
    keys = [world.send_study(store, tmp_path / "in", number=n) for n in range(4)]
    with peer() as living, mute() as silent:
        ports = {"archive": living.port, "dead": free_port(), "mute": silent}
        with worker(store.root, destinations=ports):
            until(lambda: any(over(store, key) for key in keys), 30)
            seconds = until(lambda: all(over(store, key) for key in keys), 15)
            assert seconds < 8
            assert len(set(living.uids())) == 8
        for key in keys:
            late = delivery(store, key, "dead")
            assert late is not None
            assert late.state is State.WAITING
            with store.read() as tx:
                assert studies.state(tx, key, 1) == "delivering"


def test_what_a_dead_destination_missed_arrives_when_it_lives(store: Store, tmp_path: Path) -> None:
    """It comes back after several attempts; the second study's delivery stands back and is woken by the first's."""
    keys = [world.send_study(store, tmp_path / "in", number=n) for n in range(2)]
    port = free_port()
    with worker(store.root, destinations={"archive": port}):
        until(lambda: any((found := delivery(store, key)) is not None and found.attempt >= 3 for key in keys), 30)
        until(lambda: all((found := delivery(store, key)) is not None and found.attempt >= 1 for key in keys), 10)
        with peer(port=port) as archive:
            until(lambda: all(over(store, key) for key in keys), 15)
            assert len(set(archive.uids())) == 4
    with store.read() as tx:
        assert [studies.state(tx, key, 1) for key in keys] == ["done", "done"]


def test_the_plain_report_goes_where_the_3d_report_is_refused(store: Store, tmp_path: Path) -> None:
    key = world.send_study(store, tmp_path / "in")
    classes = (SegmentationStorage, ComprehensiveSRStorage, MRImageStorage)
    with peer(classes=classes) as archive, worker(store.root, destinations={"archive": archive.port}):
        until(lambda: over(store, key), 30)
        with store.read() as tx:
            kept = {item.kind: item.sop_instance_uid for item in results.of_revision(tx, key, 1)}
        assert archive.uids() == [kept["SEG"], kept["SR-2D"]]
    found = delivery(store, key)
    assert found is not None
    assert found.state is State.SENT


def test_the_report_is_sent_where_segmentations_are_refused_and_it_is_said(store: Store, tmp_path: Path) -> None:
    key = world.send_study(store, tmp_path / "in")
    with (
        peer(classes=(Comprehensive3DSRStorage,)) as archive,
        worker(store.root, destinations={"archive": archive.port}),
    ):
        until(lambda: over(store, key), 30)
        assert len(archive.received) == 1
    found = delivery(store, key)
    assert found is not None
    assert [item.state for item in found.items] == [State.SKIPPED, State.SENT]
    assert found.comment == "SEG skipped: not accepted: Segmentation Storage"


def test_a_warning_counts_as_delivered_and_is_shown(store: Store, tmp_path: Path) -> None:
    key = world.send_study(store, tmp_path / "in")
    with (
        peer(status={Comprehensive3DSRStorage: 0xB000}) as archive,
        worker(store.root, destinations={"archive": archive.port}),
    ):
        until(lambda: over(store, key), 30)
    found = delivery(store, key)
    assert found is not None
    assert (found.state, found.items[1].status) == (State.WARNED, 0xB000)
    assert "as scripted" in found.comment


def test_a_busy_archive_gets_the_same_objects_again(store: Store, tmp_path: Path) -> None:
    """Out of resources twice, then well: nothing is sent out of order, nothing twice after its success."""
    key = world.send_study(store, tmp_path / "in")

    def busy_twice(_sop_class: str, arrived: int) -> int:
        return 0xA700 if arrived < 2 else 0

    with peer(status=busy_twice) as archive, worker(store.root, destinations={"archive": archive.port}):
        until(lambda: over(store, key), 30)
        seg, report = dict.fromkeys(archive.uids())
        assert archive.uids() == [seg, seg, seg, report]


def test_a_person_may_retry_what_was_refused(store: Store, tmp_path: Path) -> None:
    from dicomguard.flow.client import Client

    key = world.send_study(store, tmp_path / "in")
    port = free_port()
    refuse = {SegmentationStorage: 0x0111, Comprehensive3DSRStorage: 0x0111}
    with worker(store.root, destinations={"archive": port}):
        with peer(port=port, status=refuse):
            until(lambda: over(store, key), 30)
        found = delivery(store, key)
        assert found is not None
        assert (found.state, found.alarm) == (State.REFUSED, True)
        with peer(port=port) as archive:
            Client(store, SystemClock()).retry(key, "admin")
            assert [row.kind for row in Client(store, SystemClock()).queue()] == ["delivery"]
            until(lambda: over(store, key), 15)
            assert len(archive.received) == 2


def test_the_worker_may_die_while_an_archive_is_slow(store: Store, tmp_path: Path) -> None:
    """Killed in the middle of a C-STORE; the next worker sends the same objects, and they are stored."""
    key = world.send_study(store, tmp_path / "in")
    port = free_port()
    with peer(port=port, delay_s=30), worker(store.root, destinations={"archive": port}) as first:
        until(lambda: delivery(store, key) is not None, 30)
        time.sleep(0.5)
        first.kill()
        first.wait()
    with peer(port=port) as archive, worker(store.root, destinations={"archive": port}):
        until(lambda: over(store, key), 30)
        with store.read() as tx:
            kept = [item.sop_instance_uid for item in results.of_revision(tx, key, 1)]
        assert archive.uids() == kept[:2]
