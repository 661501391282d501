"""Several workers on one PostgreSQL, and a database that goes away: the work is done once, and goes on by itself."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from dicomguard.clock import SystemClock
from dicomguard.errors import Unavailable
from dicomguard.store import results, studies
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
            os.kill(a.pid, signal.SIGKILL)
            killed = time.monotonic()
            until(lambda: done(store, keys), 40)
            # Lease 2 s, and ten.
            assert time.monotonic() - killed < 12
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
