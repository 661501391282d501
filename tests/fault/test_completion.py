"""Studies that come in pieces, twice, late and round in a circle: how many revisions they open, and what they cover."""

from pathlib import Path

import pydicom
import pytest

from dicomguard.clock import SystemClock
from dicomguard.store import results, studies
from dicomguard.store.db import Store, open_store
from dicomguard.store.intake import Sender, receive_file
from tests.fault import world
from tests.fault.test_kill_destination import worker
from tests.peer import peer, until


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """The store of the worker."""
    return open_store(tmp_path / "state", "", SystemClock())


def test_a_study_that_comes_in_pieces_twice_and_back_from_the_pacs_is_reported_once(
    store: Store, tmp_path: Path
) -> None:
    """1. Two AEs bring a half each. 2. One repeats everything. 3. The PACS forwards our own reports, twice."""
    key = world.send_study(store, tmp_path / "in", slices=3, ae="CT1")
    assert world.send_study(store, tmp_path / "in", slices=3, first=3, ae="MR1") == key
    world.send_study(store, tmp_path / "in", slices=6, ae="CT1")

    def state(number: int) -> str | None:
        with store.read() as tx:
            return studies.state(tx, key, number)

    with peer() as archive, worker(store.root, destinations={"archive": archive.port}):
        until(lambda: state(1) == "done", 150)
        with store.read() as tx:
            assert len(studies.instances(tx, key, 1)) == 6
            kept = results.of_revision(tx, key, 1)
        back = Sender(peer="pacs", calling_ae="PACS", called_ae="DICOMGUARD", address="127.0.0.1")
        for _ in range(2):
            for item in kept:
                outcome = receive_file(store, back, results.bytes_path(store, item), channel="dimse")
                assert outcome.instance.state == "own"
        world.send_study(store, tmp_path / "in", slices=6, ae="MR1")
        with store.read() as tx:
            assert studies.collecting(tx, now=store.clock.now()) == []
        # A late one opens the second revision, which covers all seven and none of ours.
        world.send_study(store, tmp_path / "in", slices=1, first=6, ae="MR1")
        until(lambda: state(2) == "done", 150)
        with store.read() as tx:
            assert len(studies.instances(tx, key, 2)) == 7
            assert [item.number for item in studies.revisions(tx, key)] == [1, 2]
        assert len(set(archive.uids())) == 4
    store.close()


def test_a_study_that_is_marked_stat_is_judged_before_those_that_came_earlier(store: Store, tmp_path: Path) -> None:
    """All are complete in one look; the queue may have begun with one of the others by then, and not with two."""
    for number in (1, 2, 3):
        world.send_study(store, tmp_path / "in", number=number, slices=3)
    stat = ""
    sender = Sender(peer="ct", calling_ae="CT1", called_ae="DICOMGUARD", address="127.0.0.1")
    for path in world.write_study(tmp_path / "stat", number=4, slices=3):
        dataset = pydicom.dcmread(path)
        dataset.RequestedProcedurePriority = "STAT"
        dataset.save_as(path)
        stat = receive_file(store, sender, path, channel="dimse").study_key
    with store.read() as tx:
        waiting = [study.study_key for study in studies.collecting(tx, now=store.clock.now())]
    assert waiting.index(stat) == 3

    def judged() -> list[str]:
        """In the order in which their verdicts were kept."""
        with store.read() as tx:
            rows = [(studies.verdict(tx, key, 1), key) for key in waiting]
        return [key for _, key in sorted(((store.root / path).stat().st_mtime_ns, key) for path, key in rows if path)]

    with worker(store.root):
        until(lambda: len(judged()) == 4, 150)
    assert judged().index(stat) <= 1
    with store.read() as tx:
        assert studies.urgent(tx, [(key, 1) for key in waiting]) == {(stat, 1)}
    store.close()
