"""Both SQLite files are locked by somebody else for longer than the busy timeout, in the middle of the work."""

import sqlite3
import time
from pathlib import Path

import pytest

from dicomguard.clock import SystemClock
from dicomguard.store import results, studies
from dicomguard.store.db import open_store
from tests.fault import world
from tests.fault.test_kill_destination import worker
from tests.peer import peer, until

LOCKED_S = 36


@pytest.mark.timeout(600)
def test_work_goes_on_by_itself_after_the_lock(tmp_path: Path) -> None:
    """1. Studies are under way. 2. The files are locked for 36 s. 3. All are reported, each with one set of UIDs."""
    state = tmp_path / "state"
    store = open_store(state, "", SystemClock())
    keys = [world.send_study(store, tmp_path / "in", number=n) for n in range(3)]
    with peer() as archive, worker(state, destinations={"archive": archive.port}, lease_s=30):
        until(lambda: len(archive.received) >= 1, 200)
        holders = [sqlite3.connect(state / name, timeout=20) for name in ("node.sqlite", "work.sqlite")]
        for holder in holders:
            holder.execute("BEGIN EXCLUSIVE")
        time.sleep(LOCKED_S)
        for holder in holders:
            holder.rollback()
            holder.close()

        def done() -> bool:
            with store.read() as tx:
                return all(studies.state(tx, key, 1) == "done" for key in keys)

        until(done, 200)
        with store.read() as tx:
            kept = {item.sop_instance_uid for key in keys for item in results.of_revision(tx, key, 1)[:2]}
        assert len(kept) == 6
        assert set(archive.uids()) == kept
    store.close()
