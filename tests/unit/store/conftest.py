from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from dicomguard.clock import FakeClock
from dicomguard.store.db import Limits, Store, open_store
from dicomguard.store.files import FakeDisk

NOW = datetime(2026, 11, 24, 10, 0, tzinfo=UTC)


@pytest.fixture
def disk() -> FakeDisk:
    return FakeDisk()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(NOW)


@pytest.fixture
def store(tmp_path: Path, clock: FakeClock, disk: FakeDisk) -> Iterator[Store]:
    limits = Limits(low_bytes=2000, stop_bytes=1000, max_instance_bytes=1 << 20, max_quarantine_bytes=4000)
    opened = open_store(tmp_path / "state", "", clock, limits=limits, disk=disk, device_uid="2.25.77")
    yield opened
    opened.close()
