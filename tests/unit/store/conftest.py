import ctypes
import errno
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from dicomguard.clock import FakeClock
from dicomguard.store.db import Limits, Store, open_store
from dicomguard.store.files import FakeDisk
from tests.keeping import Kept, finished

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


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Kept]:
    """State folder of a finished study, made once a module: copies of it need no flushes."""
    folder = tmp_path_factory.mktemp("template")
    made = open_store(folder / "state", "", FakeClock(NOW))
    kept = finished(made, folder)
    made.close()
    return folder / "state", kept


@pytest.fixture
def kept(template: tuple[Path, Kept]) -> Kept:
    """What lies in a copy of the template."""
    return template[1]


@pytest.fixture
def finished_store(tmp_path: Path, template: tuple[Path, Kept], clock: FakeClock) -> Iterator[Store]:
    """A copy of the template, open."""
    shutil.copytree(template[0], tmp_path / "state")
    opened = open_store(tmp_path / "state", "", clock)
    yield opened
    opened.close()


class Kernel:
    """syncfs of Linux since 5.8: a failed write-back is told once to each descriptor that was open at that time."""

    def __init__(self) -> None:
        self._owed: set[int] = set()

    def fail(self) -> None:
        """And somebody else saw it: a descriptor that is opened later does not."""
        self._owed = {int(path.name) for path in Path("/proc/self/fd").iterdir() if path.is_dir()}

    def syncfs(self, descriptor: int) -> int:
        if descriptor not in self._owed:
            return 0
        self._owed.remove(descriptor)
        ctypes.set_errno(errno.EIO)
        return -1
