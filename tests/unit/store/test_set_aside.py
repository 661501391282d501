"""What a fault of ours keeps from being filed: nothing stops for it, nothing is lost, and it is tried again."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dicomguard.clock import FakeClock
from dicomguard.errors import Unavailable
from dicomguard.store import backlog, filing, set_aside
from dicomguard.store.arrival import Arrival
from dicomguard.store.files import FakeDisk
from dicomguard.store.intake import Stored
from dicomguard.store.verify.findings import Kind
from dicomguard.store.verify.inspection import Inspection, Inspector
from dicomguard.store.verify.repair import repair
from tests.instances import ROOT
from tests.unit.store.test_filer import Node
from tests.unit.store.test_incoming import dataset

BAD = f"{ROOT}.1.1.2"


@pytest.fixture
def node(tmp_path: Path, clock: FakeClock, disk: FakeDisk) -> Iterator[Node]:
    opened = Node(tmp_path / "state", clock, disk)
    yield opened
    if opened.store.log is not None:
        opened.stop()


@pytest.fixture
def fault(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A row that cannot be made for one instance; undone, it is another version."""
    row_of = filing.row_of

    def faulty(arrival: Arrival, *rest: Any) -> dict[str, object]:
        if arrival.sop_instance_uid == BAD:
            raise ValueError("a fault of ours")
        return row_of(arrival, *rest)

    monkeypatch.setattr(filing, "row_of", faulty)
    return monkeypatch


def inspect(node: Node) -> Inspection:
    return Inspector(node.store, full=True, second_look_s=0.0).inspect()


def bring_three(node: Node) -> None:
    for number in (1, 2, 3):
        assert isinstance(node.bring(sop=f"{ROOT}.1.1.{number}"), Stored)


def lies_aside(node: Node) -> set_aside.SetAside:
    (item,) = set_aside.listing(node.store.root)
    assert item.is_whole
    assert item.record.segment.read_bytes().endswith(dataset(sop=BAD))
    return item


def test_the_filer_goes_on_and_its_segments_become_free(node: Node, fault: pytest.MonkeyPatch) -> None:
    bring_three(node)
    node.settle()
    assert node.rows() == [("1", "stored", 0), ("3", "stored", 0)]
    item = lies_aside(node)
    assert (item.fault, item.version) == ("ValueError", "0.1.0")
    assert set_aside.count(node.store.root) == 1
    node.filer._checkpoint(older_than_s=0.0)
    assert node.filer._log is not None
    assert node.filer._log.covered() == []
    # The same again is no reason to stop, either.
    assert isinstance(node.bring(sop=BAD), Stored)
    node.settle()
    lies_aside(node)
    node.stop()


def test_the_receiver_starts(node: Node, fault: pytest.MonkeyPatch) -> None:
    node.pause()
    bring_three(node)
    node.die()
    node.start()
    assert node.replayed == 3
    assert node.rows() == [("1", "stored", 0), ("3", "stored", 0)]
    lies_aside(node)
    assert isinstance(node.bring(sop=f"{ROOT}.1.1.4"), Stored)


def test_a_record_that_says_it_otherwise_does_not_keep_the_receiver_from_starting(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Written by a version that had no patient hash, for instance."""
    describe = backlog.describe

    def older(*arguments: Any) -> dict[str, Any]:
        row = describe(*arguments)
        if row["sop_uid"] == BAD:
            del row["patient_sha256"]
        return row

    monkeypatch.setattr(backlog, "describe", older)
    node.pause()
    bring_three(node)
    node.die()
    node.start()
    assert node.rows() == [("1", "stored", 0), ("3", "stored", 0)]
    assert lies_aside(node).fault == "KeyError"


def test_verify_names_it_and_repair_files_it_when_the_fault_is_gone(node: Node, fault: pytest.MonkeyPatch) -> None:
    bring_three(node)
    node.settle()
    (finding,) = inspect(node).findings
    assert (finding.kind, finding.detail) == (Kind.SET_ASIDE, "ValueError in 0.1.0")
    assert repair(node.store, finding, by="ada").startswith("not repaired: it still cannot be filed (ValueError)")
    lies_aside(node)
    fault.undo()
    assert repair(node.store, finding, by="ada").startswith("filed as store/")
    assert node.rows() == [("1", "stored", 0), ("2", "stored", 0), ("3", "stored", 0)]
    assert set_aside.count(node.store.root) == 0
    assert inspect(node).findings == ()


def test_the_next_version_files_it_at_its_start(node: Node, fault: pytest.MonkeyPatch) -> None:
    bring_three(node)
    node.settle()
    node.stop()
    # The same version does not try the same again at each start.
    fault.undo()
    node.start()
    assert set_aside.count(node.store.root) == 1
    node.stop()
    fault.setattr(set_aside, "__version__", "0.2.0")
    node.start()
    assert node.rows() == [("1", "stored", 0), ("2", "stored", 0), ("3", "stored", 0)]
    assert set_aside.count(node.store.root) == 0


def test_it_stays_in_the_log_while_the_disk_does_not_take_it(
    node: Node, fault: pytest.MonkeyPatch, disk: FakeDisk
) -> None:
    node.pause()
    bring_three(node)
    put = set_aside.put

    def full(*_: object) -> None:
        raise Unavailable("The file system of the store is full. Make room.")

    fault.setattr(set_aside, "put", full)
    node.die()
    with pytest.raises(Unavailable):
        node.start()
    node.store.close()
    fault.setattr(set_aside, "put", put)
    node.start()
    assert node.rows() == [("1", "stored", 0), ("3", "stored", 0)]
    lies_aside(node)
