import json
import logging
import threading
from datetime import timedelta
from pathlib import Path

import pytest

from dicomguard import config
from dicomguard.clock import FakeClock
from dicomguard.core.retention import Policy
from dicomguard.flow import retention
from dicomguard.log import JsonLines
from dicomguard.store.db import Store, open_store
from tests.keeping import finished
from tests.peers import wait_for

MONTH = Policy(images=timedelta(days=30), images_bytes=None, results=None)


def events(caplog: pytest.LogCaptureFixture, clock: FakeClock) -> list[dict[str, object]]:
    lines = JsonLines(clock)
    return [json.loads(lines.format(record)) for record in caplog.records if record.name == "dicomguard.flow"]


def test_the_policy_is_that_of_the_configuration() -> None:
    text = "[storage]\nkeep_days = 7\nkeep_bytes = 1000\nkeep_results_days = 0\n"
    chosen = retention.policy(config.parse(text, base=Path("/"), path=None))
    assert chosen == Policy(images=timedelta(days=7), images_bytes=1000, results=None)
    off = config.parse("[storage]\nkeep_days = 0\nkeep_results_days = 0\n", base=Path("/"), path=None)
    assert retention.policy(off) == Policy(images=None, images_bytes=None, results=None)


def test_a_run_is_logged_and_a_database_that_is_away_is_waited_for(
    store: Store, clock: FakeClock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "dicomguard.flow")
    finished(store, tmp_path)
    clock.advance(timedelta(days=31))
    # The folder stands for a database file that cannot be opened.
    away = open_store(tmp_path / "away", "", clock)
    away.close()
    (tmp_path / "away/node.sqlite").unlink()
    (tmp_path / "away/node.sqlite").mkdir()
    retention.once(away, MONTH, threading.Event())
    retention.once(store, MONTH, threading.Event())
    retention.once(store, MONTH, threading.Event())
    postponed, done = events(caplog, clock)
    assert postponed["event"] == "retention.postponed"
    assert (done["event"], done["count"], done["instances"], done["total"]) == ("retention.finished", 1, 2, 0)


def test_it_runs_in_a_thread_of_its_own_that_ends(store: Store, clock: FakeClock, tmp_path: Path) -> None:
    kept = finished(store, tmp_path)
    clock.advance(timedelta(days=31))
    with retention.running(store, MONTH):
        wait_for(lambda: not (store.root / kept.instances[0]).exists(), seconds=20, what="retention")
    assert "retention" not in {thread.name for thread in threading.enumerate()}
