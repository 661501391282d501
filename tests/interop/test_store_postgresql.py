"""The tests of the store once more, on a real PostgreSQL; and what only concurrent transactions can show."""

import os
import socket
import threading
from collections.abc import Iterator
from datetime import timedelta
from itertools import count
from pathlib import Path

import pytest
from sqlalchemy import create_engine

from dicomguard.clock import FakeClock, SystemClock
from dicomguard.core.completion import Patience
from dicomguard.errors import Unavailable
from dicomguard.flow import completion
from dicomguard.store import audit, studies
from dicomguard.store.db import Limits, Store, open_store
from dicomguard.store.files import FakeDisk
from dicomguard.store.intake import Conflict, Duplicate, Outcome, Stored, receive_file
from tests.instances import CT1, ROOT, part10_file
from tests.peers import Need, Postgres, postgres
from tests.unit.store.conftest import NOW, clock, disk
from tests.unit.store.test_intake import *  # noqa: F403
from tests.unit.store.test_rows import *  # noqa: F403
from tests.unit.store.test_studies import *  # noqa: F403

__all__ = ["clock", "disk"]
_numbers = count()


@pytest.fixture(scope="module")
def database(postgres_server: Postgres) -> str:
    return postgres_server.create("store")


@pytest.fixture
def store(tmp_path: Path, clock: FakeClock, disk: FakeDisk, database: str) -> Iterator[Store]:
    limits = Limits(low_bytes=2000, stop_bytes=1000, max_instance_bytes=1 << 20, max_quarantine_bytes=4000)
    # A schema a test: a new database is a thousand files.
    schema = f"test{next(_numbers)}"
    engine = create_engine(database)
    with engine.begin() as connection:
        connection.exec_driver_sql(f"CREATE SCHEMA {schema}")
    engine.dispose()
    url = f"{database}?options=-csearch_path%3D{schema}"
    opened = open_store(tmp_path / "state", url, clock, limits=limits, disk=disk, device_uid="2.25.77")
    yield opened
    opened.close()


def at_once(*calls: object) -> None:
    threads = [threading.Thread(target=call) for call in calls]  # type: ignore[arg-type]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_two_senders_of_one_instance_at_the_same_moment(store: Store, tmp_path: Path) -> None:
    same = [part10_file(tmp_path / str(number)) for number in range(4)]
    outcomes: list[Outcome] = []
    at_once(*[lambda path=path: outcomes.append(receive_file(store, CT1, path, channel="cli")) for path in same])
    assert sum(isinstance(outcome, Stored) for outcome in outcomes) == 1
    assert sum(isinstance(outcome, Duplicate) for outcome in outcomes) == 3


def test_two_senders_of_one_uid_with_different_pixels(store: Store, tmp_path: Path) -> None:
    different = [part10_file(tmp_path / str(number), pixels=bytes([number]) * 16) for number in range(4)]
    outcomes: list[Outcome] = []
    at_once(*[lambda path=path: outcomes.append(receive_file(store, CT1, path, channel="cli")) for path in different])
    assert sum(isinstance(outcome, Stored) for outcome in outcomes) == 1
    assert sorted(outcome.instance.ordinal for outcome in outcomes if isinstance(outcome, Conflict)) == [1, 2, 3]


def test_an_instance_that_arrives_while_a_revision_opens_is_in_it_or_starts_the_next(
    store: Store, tmp_path: Path
) -> None:
    key = receive_file(store, CT1, part10_file(tmp_path / "first"), channel="cli").study_key
    late = [part10_file(tmp_path / "late", sop=f"{ROOT}.1.1.{number}") for number in range(2, 12)]

    def close() -> None:
        for _ in range(5):
            with store.begin() as tx:
                studies.open_revision(tx, key, closed_because="quiet", now=NOW)

    at_once(close, *[lambda path=path: receive_file(store, CT1, path, channel="cli") for path in late])
    with store.begin() as tx:
        last = len(studies.revisions(tx, key))
        if studies.collecting(tx, now=NOW):
            last = studies.open_revision(tx, key, closed_because="quiet", now=NOW).number
        assert len(studies.instances(tx, key, last)) == 11


def test_two_workers_that_both_saw_a_complete_study_open_one_revision(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when the leader sleeps past its lease between its look and its write."""
    key = receive_file(store, CT1, part10_file(tmp_path / "first"), channel="cli").study_key
    both = threading.Barrier(2, timeout=30)

    def priorities(*_: object) -> list[str]:
        both.wait()
        return []

    monkeypatch.setattr(completion, "_priorities", priorities)
    patience = Patience(quiet=timedelta(minutes=1), longest=timedelta(hours=1))
    settings = completion.Settings(patience=patience, association_hold=timedelta(minutes=10))
    opened: list[int] = []

    def close() -> None:
        opened.extend(item.number for item in completion.open_complete(store, settings, now=NOW + timedelta(hours=2)))

    at_once(close, close)
    assert opened == [1]
    with store.read() as tx:
        assert [item.number for item in studies.revisions(tx, key)] == [1]


def test_two_writers_continue_one_audit_chain(store: Store) -> None:
    def write() -> None:
        for _ in range(20):
            with store.begin() as tx:
                audit.append(tx, "ada", "did", "it", {}, now=NOW)

    at_once(write, write, write)
    with store.read() as tx:
        assert audit.first_break(tx) is None
        assert len(audit.recent(tx)) == 60


def test_a_server_whose_machine_is_gone_is_not_waited_for_for_ever(store: Store) -> None:
    """No packet comes back then: only the kernel's own bounds end the wait, and only over TCP, which loopback is."""
    with store.look() as tx:
        connection = tx.connection.driver_connection
        assert connection is not None
        with socket.socket(fileno=os.dup(connection.fileno())) as wire:
            assert wire.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 3000
            assert wire.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 1
            assert wire.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT) == 1


def test_a_standby_that_takes_no_writes_is_unavailable(store: Store) -> None:
    with pytest.raises(Unavailable, match="read-only"), store.begin() as tx:
        tx.exec_driver_sql("SET TRANSACTION READ ONLY")
        audit.append(tx, "ada", "did", "it", {}, now=NOW)


def test_a_database_that_is_away_is_unavailable_and_comes_back(need: Need, tmp_path: Path) -> None:
    # A cluster of its own: recovery flushes every file of every database that the other tests made.
    with postgres(need) as server:
        store = open_store(tmp_path / "state", server.create("away"), SystemClock())
        path = part10_file(tmp_path / "in")
        server.kill()
        with pytest.raises(Unavailable, match="does not answer"):
            receive_file(store, CT1, path, channel="cli")
        server.start()
        assert isinstance(receive_file(store, CT1, path, channel="cli"), Stored)
        store.close()
