import json
import logging
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from dicomguard.clock import FakeClock
from dicomguard.log import JsonLines
from dicomguard.scp.notes import Notes
from dicomguard.store import counters
from dicomguard.store.db import open_store
from tests.peers import wait_for


def test_the_log_says_the_same_once_a_minute_and_the_database_counts_all(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "dicomguard.scp")
    clock = FakeClock(datetime(2026, 1, 1, tzinfo=UTC))
    store = open_store(tmp_path, "", clock)
    notes = Notes(store)

    def said(address: str) -> list[int]:
        lines = [json.loads(JsonLines(clock).format(record)) for record in caplog.records]
        return [line["count"] for line in lines if line.get("address") == address]

    def counted() -> dict[str, int]:
        with store.read() as tx:
            return {row.name: row.value for row in counters.listing(tx)}

    notes.start()
    notes.too_many(address="192.0.2.1")
    wait_for(lambda: said("192.0.2.1") == [1], what="the first line")
    for _ in range(500):
        notes.too_many(address="192.0.2.1")
    notes.slowed(address="192.0.2.2")
    wait_for(lambda: said("192.0.2.2") == [1], what="the line of another address")
    assert counted() == {"connections_cut_too_many": 501, "connections_slowed": 1}
    assert said("192.0.2.1") == [1]
    clock.advance(timedelta(seconds=61))
    wait_for(lambda: said("192.0.2.1") == [1, 500], what="the line of the next minute")
    # At the end nothing is held back.
    notes.too_many(address="192.0.2.1")
    notes.stop()
    assert said("192.0.2.1") == [1, 500, 1]
    events = {json.loads(JsonLines(clock).format(record))["event"] for record in caplog.records}
    assert events == {"connection.cut", "connection.slowed"}
    store.close()
