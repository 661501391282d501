import errno
import io
from pathlib import Path
from typing import Any

import pytest

from dicomguard.clock import SystemClock
from dicomguard.errors import Unavailable
from dicomguard.scp.spool import Spooled
from dicomguard.store.db import Limits, Store, open_store
from dicomguard.store.files import FakeDisk
from dicomguard.store.intake import TooLarge
from tests.instances import part10_bytes


def opened(folder: Path, disk: FakeDisk | None = None) -> Store:
    limits = Limits(low_bytes=0, stop_bytes=1000, max_instance_bytes=10_000)
    return open_store(folder, "", SystemClock(), limits=limits, disk=disk)


def test_the_dataset_comes_back_without_what_pynetdicom_put_before_it(tmp_path: Path) -> None:
    content = part10_bytes()
    spooled = Spooled(opened(tmp_path))
    for start in range(0, len(content), 100):
        spooled.write(content[start : start + 100])
        spooled.file.flush()
    offset = content.index(b"\x08\x00\x16\x00")
    assert b"".join(spooled.dataset()) == content[offset:]
    # It never had a name.
    assert not list((tmp_path / "store/incoming").iterdir())
    spooled.close()
    spooled.close()


def test_too_much_is_dropped_as_it_comes_and_said_at_the_end(tmp_path: Path) -> None:
    spooled = Spooled(opened(tmp_path))
    for _ in range(20):
        assert spooled.write(bytes(1000)) == 1000
    with pytest.raises(TooLarge, match="10000 bytes"):
        next(spooled.dataset())


def test_without_room_nothing_is_written(tmp_path: Path) -> None:
    disk = FakeDisk()
    store = opened(tmp_path, disk)
    disk.space = 10
    spooled = Spooled(store)
    assert spooled.write(b"x") == 1
    with pytest.raises(Unavailable, match="10 bytes free"):
        next(spooled.dataset())


def test_a_disk_that_fills_is_no_exception_before_the_end(tmp_path: Path) -> None:
    class Full(io.BytesIO):
        def write(self, *_: Any) -> int:
            raise OSError(errno.ENOSPC, "full")

    spooled = Spooled(opened(tmp_path))
    spooled._file = Full()
    assert spooled.write(b"abc") == 3
    with pytest.raises(Unavailable, match="is full"):
        next(spooled.dataset())


def test_a_transfer_that_has_ended_has_no_dataset(tmp_path: Path) -> None:
    spooled = Spooled(opened(tmp_path))
    spooled.close()
    with pytest.raises(Unavailable, match="ended"):
        next(spooled.dataset())
