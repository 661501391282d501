"""Several workers on one PostgreSQL, and a database that goes away: the work is done once, and goes on by itself."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from dicomguard.clock import SystemClock
from dicomguard.core.delivery import Answer, Backoff, Delivery, Event, Item
from dicomguard.core.peer import Destination
from dicomguard.core.result import ResultObject
from dicomguard.deliver import storage
from dicomguard.deliver.association import Timeouts
from dicomguard.errors import Unavailable
from dicomguard.flow import delivery
from dicomguard.store import deliveries, results, studies
from dicomguard.store.db import Store, open_store
from tests.conftest import ROOT
from tests.fault import world
from tests.peer import peer, until
from tests.peers import Postgres, postgres

Need = Callable[[str, str], str]


def worker(state: Path, url: str, node: str, **plan: object) -> subprocess.Popen[bytes]:
    """A worker process of a node name."""
    document = {"state": str(state), "url": url, "node": node, **plan}
    log = (state.parent / f"log-{node}").open("wb")
    with log:
        return subprocess.Popen([sys.executable, "-m", "tests.fault.world", json.dumps(document)], cwd=ROOT, stderr=log)


def end(*processes: subprocess.Popen[bytes]) -> None:
    """Stop what runs."""
    for process in processes:
        if process.poll() is None:
            process.terminate()
    for process in processes:
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def done(store: Store, keys: list[str]) -> bool:
    """Whether all first revisions are through; a database that is away means no."""
    try:
        with store.read() as tx:
            return all(studies.state(tx, key, 1) == "done" for key in keys)
    except Unavailable:
        return False


def test_a_living_worker_takes_over_from_a_killed_one(tmp_path: Path, postgres_server: Postgres) -> None:
    """1. A and B run. 2. Six studies come. 3. A is killed at work. 4. B finishes all: one set of UIDs each."""
    url = postgres_server.create("takeover")
    state = tmp_path / "state"
    store = open_store(state, url, SystemClock())
    with peer() as archive:
        ports = {"archive": archive.port}
        a, b = (worker(state, url, node, destinations=ports) for node in ("node-a", "node-b"))
        try:
            keys = [world.send_study(store, tmp_path / "in", number=n) for n in range(6)]
            until(lambda: len(archive.received) >= 2, 30)
            with store.read() as tx:
                # Trap 20: what listens does not get through a transaction pooler.
                listening = "SELECT count(*) FROM pg_stat_activity WHERE query ILIKE 'LISTEN%%'"
                assert tx.exec_driver_sql(listening).scalar() == 0
            os.kill(a.pid, signal.SIGKILL)
            killed = time.monotonic()
            until(lambda: done(store, keys), 40)
            # Lease 2 s, and the time of a slow machine.
            assert time.monotonic() - killed < 30
        finally:
            end(a, b)
        with store.read() as tx:
            kept = {item.sop_instance_uid for key in keys for item in results.of_revision(tx, key, 1)[:2]}
        assert len(kept) == 12
        assert set(archive.uids()) == kept
    store.close()


def test_a_worker_that_was_only_slow_ends_when_its_work_was_taken(tmp_path: Path, postgres_server: Postgres) -> None:
    """1. A is stopped in the middle. 2. B waits for the lease and does all. 3. A goes on, is told, and ends."""
    url = postgres_server.create("slow")
    state = tmp_path / "state"
    store = open_store(state, url, SystemClock())
    with peer() as archive:
        ports = {"archive": archive.port}
        key = world.send_study(store, tmp_path / "in")
        a = worker(state, url, "node-a", destinations=ports, analysis="slow")
        try:
            until(lambda: (state / "analyses").is_file(), 30)
            os.kill(a.pid, signal.SIGSTOP)
            b = worker(state, url, "node-b", destinations=ports)
            until(lambda: done(store, [key]), 30)
            os.kill(a.pid, signal.SIGCONT)
            assert a.wait(30) != 0
            assert "This worker was silent past its lease" in (tmp_path / "log-node-a").read_text()
        finally:
            if a.poll() is None:
                os.kill(a.pid, signal.SIGCONT)
            end(a, b)
        assert len(set(archive.uids())) == 2
    store.close()


def test_a_database_that_is_away_for_some_seconds(tmp_path: Path, need: Need) -> None:
    """It crashes in the middle of the work; after its return everything ends by itself (trap 3)."""
    state = tmp_path / "state"
    with postgres(need) as server, peer() as archive:
        url = server.create("outage")
        store = open_store(state, url, SystemClock())
        keys = [world.send_study(store, tmp_path / "in", number=n) for n in range(3)]
        a = worker(state, url, "node-a", destinations={"archive": archive.port})
        try:
            until(lambda: len(archive.received) >= 2, 30)
            server.kill()
            time.sleep(2)
            server.start()
            until(lambda: done(store, keys) or a.poll() is not None, 60)
            if a.poll() is not None:
                # As the supervisor would.
                a = worker(state, url, "node-a", destinations={"archive": archive.port})
                until(lambda: done(store, keys), 60)
        finally:
            end(a)
        assert len(set(archive.uids())) == 6
        store.close()


def test_the_last_of_two_deliveries_that_end_at_one_moment_closes_the_revision(
    tmp_path: Path, postgres_server: Postgres
) -> None:
    """1. Two archives answer at the same moment. 2. Each attempt writes its answer. 3. One of them sees both."""
    store = open_store(tmp_path / "state", postgres_server.create("together"), SystemClock())
    key = world.send_study(store, tmp_path / "in", slices=1)
    content = b"a result"
    kept = ResultObject(
        kind="SR", sop_class_uid="1.2", sop_instance_uid="2.25.1", series_instance_uid="2.25.2",
        sha256=hashlib.sha256(content).hexdigest(), order=0,
    )  # fmt: skip
    together = threading.Barrier(2)

    def send(files: list[Path], *_: object, **__: object) -> list[storage.Sent]:
        together.wait(10)
        uid = f"2.25.{files[0].parent.name.removeprefix('r')}"
        return [storage.Sent(path=files[0], sop_instance_uid=uid, answer=Answer(event=Event.STORED))]

    places = {name: Destination(name=name, ae_title="A", host="127.0.0.1", port=1) for name in ("one", "two")}
    work = delivery.DeliveryWork(
        store=store,
        clock=SystemClock(),
        settings=delivery.Settings(
            calling_ae="DICOMGUARD", destinations=places, backoff=Backoff(), timeouts=Timeouts()
        ),
        send=send,
    )
    for number in range(1, 9):
        now = store.clock.now()
        with store.begin() as tx:
            studies.open_revision(tx, key, closed_because="asked", now=now)
            studies.advance(tx, key, number, "delivering", from_=("opened",))
            fresh = Delivery(
                study_key=key, revision=number, destination="", planned_at=now, next_at=now,
                items=(Item(kind="SR", forms=(f"2.25.{number}",)),),
            )  # fmt: skip
            deliveries.plan(tx, [replace(fresh, destination=name) for name in places])
        results.keep(store, key, number, [(replace(kept, sop_instance_uid=f"2.25.{number}"), content)])
        threads = [threading.Thread(target=work.attempt, args=(key, number, name, 0)) for name in places]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        with store.read() as tx:
            assert studies.state(tx, key, number) == "done"
    store.close()
