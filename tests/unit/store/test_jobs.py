"""Working folders of analyses: only what nobody works on any more goes."""

import os
from datetime import timedelta
from pathlib import Path

import pytest

from dicomguard.clock import FakeClock
from dicomguard.core.retention import Policy
from dicomguard.store import jobs, retention, studies
from dicomguard.store.db import Store, open_store
from tests.keeping import receive


@pytest.fixture
def store(tmp_path: Path, clock: FakeClock) -> Store:
    return open_store(tmp_path / "state", "", clock)


def left(store: Store, key: str, number: int, *, age: timedelta) -> Path:
    folder = store.root / "jobs" / key / f"r{number}"
    (folder / "a1b2").mkdir(parents=True)
    (folder / "a1b2" / "masks.npz").write_bytes(b"masks")
    then = (store.clock.now() - age).timestamp()
    os.utime(folder, (then, then))
    return folder


def test_folders_of_withdrawn_and_finished_revisions_go_after_an_hour(store: Store, tmp_path: Path) -> None:
    key = receive(store, tmp_path / "in")[0]
    long, short = timedelta(hours=2), timedelta(minutes=5)
    with store.begin() as tx:
        for number, state in enumerate(("superseded", "cancelled", "done", "analysing", "cancelled"), start=1):
            studies.open_revision(tx, key, closed_because="test", now=store.clock.now())
            studies.advance(tx, key, number, state, from_=("opened",))
    gone = [left(store, key, number, age=long) for number in (1, 2, 3)]
    gone.append(left(store, "unknown", 1, age=long))
    kept = [left(store, key, 4, age=long), left(store, key, 5, age=short)]
    retention.run(store, Policy(images=None, images_bytes=None, results=None))
    assert [folder.exists() for folder in gone] == [False] * 4
    assert [folder.exists() for folder in kept] == [True, True]
    assert not (store.root / "jobs/unknown").exists()
    store.close()


def test_a_run_takes_its_own_folder_and_leaves_that_of_another(store: Store) -> None:
    mine = store.root / "jobs/k/r1/mine"
    other = store.root / "jobs/k/r1/other"
    mine.mkdir(parents=True)
    other.mkdir()
    jobs.remove_run(store, mine)
    assert other.is_dir()
    jobs.remove_run(store, other)
    assert not (store.root / "jobs/k").exists()
    assert (store.root / "jobs").is_dir()
    store.close()
