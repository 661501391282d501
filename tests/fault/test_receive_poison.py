"""An instance whose filing kills the process, and not by an exception: the receiver starts, and its bytes are kept."""

import contextlib
import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from demo.ports import free_port, listens
from dicomguard import config
from dicomguard.clock import SystemClock
from dicomguard.scp import process as receiving
from dicomguard.store import filing, set_aside, tables
from dicomguard.store.arrival import Arrival
from dicomguard.store.db import Store, open_store
from dicomguard.store.verify.findings import Kind
from dicomguard.store.verify.inspection import Inspector
from dicomguard.store.verify.repair import repair
from tests.fuzz import wire
from tests.instances import MR, ROOT, part10_bytes
from tests.peers import wait_for
from tests.receiver import configuration

BAD = f"{ROOT}.8.1.2"
FORK = multiprocessing.get_context("fork")
REQUEST = wire.associate_rq([(MR, wire.EXPLICIT)], calling="CT1")


def dataset(sop: str) -> bytes:
    whole = part10_bytes(study=f"{ROOT}.8", series=f"{ROOT}.8.1", sop=sop)
    return whole[144 + int.from_bytes(whole[140:144], "little") :]


class Poisoned:
    """A receiver, start after start, in forks of this process: with a row to make for `BAD` the kernel ends it."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self.state = folder / "state"
        self._file = folder / "dicomguard.toml"
        self._file.write_text(configuration(self.port))
        self.log = folder / "log.jsonl"

    def _run(self) -> None:
        # Pytest has put its own there.
        sys.stderr = self.log.open("a", buffering=1)
        os._exit(receiving.run(config.load(self._file)))

    def start(self) -> BaseProcess:
        """It may die before it listens."""
        started = FORK.Process(target=self._run)
        started.start()
        return started

    def opens(self, started: BaseProcess) -> bool:
        """Wait until it listens, or is dead."""
        wait_for(lambda: not started.is_alive() or listens(self.port), seconds=60, what="the receiver")
        return started.is_alive()

    def store(self) -> Store:
        return open_store(self.state, "", SystemClock())

    def filed(self, store: Store) -> list[str]:
        with store.read() as tx:
            return [row.rpartition(".")[2] for row in tx.execute(select(tables.instance.c.sop_uid)).scalars()]


def answers(port: int, sops: list[str]) -> list[int | None]:
    """Of C-STOREs on one association that may break."""
    found: list[int | None] = []
    with (
        contextlib.suppress(OSError, AssertionError),
        wire.associated(port, REQUEST) as (connection, longest),
    ):
        for sop in sops:
            pdus = wire.c_store_rq(dataset(sop), sop_class=MR, sop_instance=sop, max_pdu_bytes=longest)
            connection.sendall(b"".join(pdus))
            found.append(wire.status_of(wire.read_pdu(connection)[1]))
    return found


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Poisoned]:
    row_of = filing.row_of

    def deadly(arrival: Arrival, *rest: Any) -> dict[str, object]:
        if arrival.sop_instance_uid == BAD:
            os.kill(os.getpid(), signal.SIGKILL)
        return row_of(arrival, *rest)

    monkeypatch.setattr(filing, "row_of", deadly)
    poisoned = Poisoned(tmp_path)
    yield poisoned
    for left in multiprocessing.active_children():
        left.kill()
        left.join()


def die(node: Poisoned, started: BaseProcess) -> None:
    started.join(60)
    assert started.exitcode == -signal.SIGKILL, node.log.read_text()[-2000:]


def test_it_is_set_aside_after_two_more_deaths_at_it_and_the_receiver_goes_on(node: Poisoned) -> None:
    first = node.start()
    assert node.opens(first)
    sent = [f"{ROOT}.8.1.{number}" for number in (1, 2, 3)]
    # What comes behind it may find nobody any more.
    acknowledged = [sop for sop, status in zip(sent, answers(node.port, sent), strict=False) if status == 0]
    assert BAD in acknowledged
    die(node, first)
    # All at once; each by itself, twice.
    for _ in range(3):
        died = node.start()
        assert not node.opens(died)
        die(node, died)
    last = node.start()
    assert node.opens(last)
    said = node.log.read_text()
    assert said.count('"log.replay_died"') == 3
    assert said.count('"instance.set_aside"') == 1
    assert "dicomguard verify --repair" in said
    store = node.store()
    assert sorted(node.filed(store)) == [sop[-1] for sop in acknowledged if sop != BAD]
    (item,) = set_aside.listing(store.root)
    assert item.is_whole
    assert item.record.segment.read_bytes().endswith(dataset(BAD))
    assert not (store.root / "log" / "0" / "trial").exists()
    # The same again is acknowledged, and kills nobody; others are filed.
    assert answers(node.port, [BAD, f"{ROOT}.8.1.4"]) == [0, 0]
    wait_for(lambda: "4" in node.filed(store), what="the row of another")
    assert last.is_alive()
    assert set_aside.count_by_fault(store.root) == {set_aside.KILLED: 1}
    (finding,) = Inspector(store, full=True, second_look_s=0.0).inspect().findings
    assert (finding.kind, finding.detail) == (Kind.SET_ASIDE, "killed the receiver in 0.1.0")
    last.terminate()
    last.join(60)
    assert last.exitcode == 0
    store.close()


def test_another_version_tries_it_once_and_starts_the_next_time(
    node: Poisoned, monkeypatch: pytest.MonkeyPatch
) -> None:
    test_it_is_set_aside_after_two_more_deaths_at_it_and_the_receiver_goes_on(node)
    with monkeypatch.context() as other:
        other.setattr(set_aside, "__version__", "0.2.0")
        died = node.start()
        assert not node.opens(died)
        die(node, died)
        lives = node.start()
        assert node.opens(lives)
        lives.kill()
        lives.join()
    # With the fault gone a person has it filed.
    monkeypatch.undo()
    store = node.store()
    (finding,) = (
        one for one in Inspector(store, full=True, second_look_s=0.0).inspect().findings if one.kind is Kind.SET_ASIDE
    )
    assert repair(store, finding, by="ada").startswith("filed as store/")
    assert BAD[-1] in node.filed(store)
    assert set_aside.count(store.root) == 0
    store.close()
