"""What health says of processes that give no sign of life."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from dicomguard import config
from dicomguard.clock import FakeClock
from dicomguard.node import Node
from dicomguard.store import executors
from dicomguard.store.db import open_store


@pytest.mark.parametrize(("silent_s", "state"), [(5, None), (15, None), (16, "red")])
def test_trap_15_a_worker_that_waits_for_a_database_in_silence_turns_red(
    tmp_path: Path, silent_s: int, state: str | None
) -> None:
    """Its lease runs on for half a minute, its heartbeat stopped when the database did."""
    clock = FakeClock(datetime(2026, 11, 24, 8, 0, tzinfo=UTC))
    store = open_store(tmp_path, "", clock)
    with store.begin() as tx:
        executors.beat(tx, "node:1", "node", clock.now(), clock.now() + timedelta(seconds=30))
    clock.advance(timedelta(seconds=silent_s))
    node = Node(config.load(None), store=store, clock=clock)
    parts = node.ready()[1]
    assert parts.get("worker", {}).get("state") == state
    assert parts["receiver"]["state"] == "red"
