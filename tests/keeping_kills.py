"""SIGKILL at every effect of retention and of backup: what is left is explained by verify and finished by the next run.

Effects are commits, removed names, made files and renames; the process is killed before the n-th, for n = 1, 2, 3 …
until a run completes. Some of them in tests/fault, each one in tests/long.
"""

import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Connection, event, select
from sqlalchemy.engine import Engine

from dicomguard.clock import FakeClock
from dicomguard.core.retention import Policy
from dicomguard.errors import Refused
from dicomguard.store import backup, retention, tables
from dicomguard.store.db import Store, open_store
from dicomguard.store.files import SystemDisk
from dicomguard.store.restore import restore
from dicomguard.store.verify.inspection import Inspector
from tests.keeping import finished
from tests.unit.store.conftest import NOW

DAY = timedelta(days=1)
POLICY = Policy(images=30 * DAY, images_bytes=None, results=365 * DAY)
_EFFECTS = frozenset({"os.remove", "os.rmdir", "os.rename", "os.mkdir"})


def make_template(folder: Path) -> Path:
    """A finished study, to be copied."""
    made = open_store(folder / "state", "", FakeClock(NOW))
    finished(made, folder)
    made.close()
    return folder / "state"


def killed_before(number: int, work: Callable[[], object]) -> bool:
    """Do the work in a process that is killed before its n-th effect; false when it had fewer and completed."""
    child = os.fork()
    if child == 0:
        left = number

        def count() -> None:
            nonlocal left
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

        def hook(name: str, arguments: tuple[object, ...]) -> None:
            made = name == "open" and isinstance(arguments[2], int) and bool(arguments[2] & os.O_CREAT)
            if name in _EFFECTS or made:
                count()

        def commit(_: Connection) -> None:
            count()

        try:
            sys.addaudithook(hook)
            event.listen(Engine, "commit", commit)
            work()
        except BaseException:  # noqa: BLE001 -- the top of a child
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    assert os.WEXITSTATUS(status) == 0, "the work itself failed"
    return False


def opened(state: Path, now: datetime) -> Store:
    return open_store(state, "", FakeClock(now))


def cuts(template: Path, folder: Path, work: Callable[[Path], object], *, every: int) -> Iterator[tuple[int, Path]]:
    """A fresh copy of the template for each n, left by a process killed before its n-th effect."""
    number = 1
    while True:
        state = folder / str(number)
        shutil.copytree(template, state)
        if not killed_before(number, lambda state=state: work(state)):  # type: ignore[misc]
            return
        yield number, state
        shutil.rmtree(state)
        number += every


def delete(state: Path, now: datetime) -> None:
    store = opened(state, now)
    retention.run(store, POLICY)
    store.close()


def check(state: Path, now: datetime, *, images: int, results: int, rows: int) -> None:
    """Verify explains the rest; the next run leaves what an uncut one leaves."""
    store = opened(state, now)
    try:
        assert [finding for finding in Inspector(store, full=True).inspect().findings if not finding.heals] == []
        retention.run(store, POLICY)
        assert Inspector(store, full=True).inspect().findings == ()
        assert sum(path.is_file() for path in (state / "store").rglob("*")) == images
        assert sum(path.is_file() for path in (state / "results").rglob("*")) == results
        with store.read() as tx:
            assert len(tx.execute(select(tables.instance.c.id)).all()) == rows
    finally:
        store.close()


def kill_retention_of_images(tmp_path: Path, *, every: int) -> int:
    """How many kills."""
    template = make_template(tmp_path)
    now = NOW + 31 * DAY
    count = 0
    for _, state in cuts(template, tmp_path, lambda state: delete(state, now), every=every):
        check(state, now, images=0, results=3, rows=2)
        count += 1
    return count


def kill_removal_of_a_study(tmp_path: Path, *, every: int) -> int:
    """How many kills."""
    template = make_template(tmp_path)
    bare = tmp_path / "bare"
    shutil.copytree(template, bare)
    delete(bare, NOW + 31 * DAY)
    now = NOW + 366 * DAY
    count = 0
    for _, state in cuts(bare, tmp_path, lambda state: delete(state, now), every=every):
        check(state, now, images=0, results=0, rows=0)
        count += 1
    return count


def silent(done: int, total: int) -> None:
    assert done <= total


def copy(state: Path, target: Path) -> None:
    # Files are as old as the machine says.
    store = opened(state, NOW + 3650 * DAY)
    url = f"sqlite:///{state / 'node.sqlite'}"
    document = backup.make(store, url, target, on_progress=silent)
    backup.check(store.clock, url, target, document, full=True, on_progress=silent)
    backup.finish(store, target, document)
    store.close()


def contents(state: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(state)): path.read_bytes()
        for path in sorted(state.rglob("*"))
        if path.is_file() and not path.name.startswith("node.sqlite")
    }


def kill_backup(tmp_path: Path, *, every: int) -> int:
    """How many kills."""
    template = make_template(tmp_path)
    before = contents(template)
    count = 0
    for number, state in cuts(
        template, tmp_path, lambda state: copy(state, tmp_path / f"copy-{state.name}"), every=every
    ):
        target = tmp_path / f"copy-{number}"
        assert contents(state) == before
        store = opened(state, NOW + 3650 * DAY)
        assert Inspector(store, full=True).inspect().findings == ()
        store.close()
        again = tmp_path / f"again-{number}"
        again.mkdir()
        url = f"sqlite:///{again / 'node.sqlite'}"
        if (target / backup.DOCUMENT).exists():
            # Whole, and flushed before it said so; only the marker or the audit line came too late.
            restore(target, again, url, disk=SystemDisk(), on_progress=silent)
            back = opened(again, NOW)
            assert Inspector(back, full=True).inspect().findings == ()
            back.close()
        else:
            with pytest.raises(Refused, match=r"was not finished|holds no backup"):
                restore(target, again, url, disk=SystemDisk(), on_progress=silent)
            assert list(again.iterdir()) == []
        shutil.rmtree(target, ignore_errors=True)
        shutil.rmtree(again)
        count += 1
    return count
