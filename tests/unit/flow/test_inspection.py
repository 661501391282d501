import json
import logging
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from dicomguard import config
from dicomguard.clock import FakeClock
from dicomguard.errors import Refused
from dicomguard.flow import inspection
from dicomguard.log import JsonLines
from dicomguard.store import leases
from dicomguard.store.db import Store, open_store
from dicomguard.store.verify import record
from tests.keeping import finished
from tests.unit.store.conftest import NOW

SETTINGS = config.parse("", base=Path("/"), path=None)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(NOW)


@pytest.fixture
def store(tmp_path: Path, clock: FakeClock) -> Iterator[Store]:
    opened = open_store(tmp_path / "state", "", clock)
    yield opened
    opened.close()


def found(store: Store) -> record.Record | None:
    with store.read() as tx:
        return record.last(tx, store.clock.now())


def events(caplog: pytest.LogCaptureFixture, clock: FakeClock) -> list[dict[str, object]]:
    lines = JsonLines(clock)
    return [json.loads(lines.format(record)) for record in caplog.records if record.name == "dicomguard.flow"]


def test_each_day_has_one_inspection_and_its_faults_are_said_with_their_remedy(
    store: Store, clock: FakeClock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "dicomguard.flow")
    kept = finished(store, tmp_path)
    assert found(store) is None
    inspection.once(store, SETTINGS, threading.Event())
    first = found(store)
    assert first is not None
    assert (first.at, first.instances, dict(first.findings)) == (NOW, 2, {})
    (store.root / kept.instances[0]).unlink()
    clock.advance(timedelta(hours=1))
    inspection.once(store, SETTINGS, threading.Event())
    assert found(store) == first
    clock.advance(timedelta(days=1))
    inspection.once(store, SETTINGS, threading.Event())
    second = found(store)
    assert second is not None
    assert dict(second.findings) == {"row_without_file": 1}
    clean, fault, sums = events(caplog, clock)
    assert (clean["event"], clean["count"], clean["total"]) == ("verify.finished", 0, 2)
    assert (fault["event"], fault["level"], fault["path"]) == ("verify.found", "error", kept.instances[0])
    assert "--repair" in str(fault["reason"])
    assert (sums["event"], sums["count"]) == ("verify.finished", 1)


def test_one_worker_of_several_does_it(store: Store, clock: FakeClock, tmp_path: Path) -> None:
    with store.begin() as tx:
        assert leases.take(tx, "verify", "another", NOW, NOW + timedelta(minutes=10))
    inspection.once(store, SETTINGS, threading.Event())
    assert found(store) is None
    clock.advance(timedelta(minutes=11))
    inspection.once(store, SETTINGS, threading.Event())
    assert found(store) is not None


def test_a_worker_that_ends_leaves_it_to_the_next(store: Store, tmp_path: Path) -> None:
    finished(store, tmp_path)
    stop = threading.Event()
    stop.set()
    inspection.once(store, SETTINGS, stop)
    assert found(store) is None
    inspection.once(store, SETTINGS, threading.Event())
    assert found(store) is not None


def test_without_a_time_there_is_no_thread(store: Store) -> None:
    off = config.parse('[storage]\nverify_at = ""\n', base=Path("/"), path=None)
    with inspection.running(store, off):
        assert "inspection" not in {thread.name for thread in threading.enumerate()}
    with inspection.running(store, SETTINGS):
        assert "inspection" in {thread.name for thread in threading.enumerate()}
    assert "inspection" not in {thread.name for thread in threading.enumerate()}


@pytest.mark.parametrize("wrong", ["24:00", "3:30", "noon", "03:60"])
def test_a_time_that_does_not_exist_is_refused(wrong: str) -> None:
    with pytest.raises(Refused, match="no time of day"):
        config.parse(f'[storage]\nverify_at = "{wrong}"\n', base=Path("/"), path=None)
