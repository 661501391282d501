"""What a delivery means for a commitment, who is not asked any more, and a machine that is short as a peer asks us."""

import errno
import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import select

from dicomguard.clock import FakeClock
from dicomguard.core import commitment as core
from dicomguard.core.commitment import Commitment, Patience, Reference, Report, State
from dicomguard.core.delivery import Delivery, resend
from dicomguard.core.delivery import State as Sent
from dicomguard.core.peer import Destination
from dicomguard.core.retention import Policy
from dicomguard.deliver import commitment as network
from dicomguard.deliver.association import Timeouts
from dicomguard.flow import commitment
from dicomguard.store import backlog, commitments, deliveries, retention
from dicomguard.store.db import Store
from dicomguard.store.tables import instance
from tests.instances import MR
from tests.keeping import Kept, finished
from tests.unit.flow.conftest import NOW

PATIENCE = Patience()
MONTH = Policy(images=timedelta(days=30), images_bytes=None, results=None)


@pytest.fixture
def kept(store: Store, tmp_path: Path) -> Kept:
    """A study whose SEG and SR the archive took."""
    return finished(store, tmp_path / "in")


def delivered(store: Store, kept: Kept) -> Delivery:
    with store.read() as tx:
        found = deliveries.get(tx, kept.key, 1, "archive")
    assert found is not None
    return found


def value(store: Store, kept: Kept) -> Commitment | None:
    with store.read() as tx:
        return commitments.get(tx, kept.key, 1, "archive")


def lost(store: Store, kept: Kept, clock: FakeClock, *kinds: str) -> Delivery:
    """The archive was asked, does not have these, and is sent them again; the delivery that is under way."""
    way = delivered(store, kept)
    with store.begin() as tx:
        commitment.plan(tx, way, clock=clock)
    planned = value(store, kept)
    assert planned is not None and planned.state is State.DUE
    asked = core.ask(planned, now=NOW, within=timedelta(minutes=10))
    gone = {item.sop_instance_uid for item in way.items if item.kind in kinds}
    failed = {part.reference: core.NO_SUCH_INSTANCE for part in asked.parts if part.reference.sop_instance_uid in gone}
    there = [part.reference for part in asked.parts if part.reference not in failed]
    report = Report(transaction_uid=asked.transaction_uid, committed=there, failed=failed)
    with store.begin() as tx:
        commitments.save(tx, core.resend(core.answer(asked, report, PATIENCE, now=NOW)))
    return resend(way, gone, now=NOW)


def end(store: Store, way: Delivery, clock: FakeClock, **states: Sent) -> None:
    """The delivery is over, its items in these states."""
    items = tuple(replace(item, state=states.get(item.kind, item.state)) for item in way.items)
    with store.begin() as tx:
        deliveries.save(tx, replace(way, items=items, next_at=None))
        commitment.plan(tx, replace(way, items=items, next_at=None), clock=clock)


def images_gone(store: Store, clock: FakeClock) -> int:
    clock.advance(timedelta(days=31))
    return retention.run(store, MONTH).studies_expired


def test_what_is_refused_when_sent_again_is_not_asked_about_any_more(
    store: Store, kept: Kept, clock: FakeClock
) -> None:
    way = lost(store, kept, clock, "SEG")
    end(store, way, clock, SEG=Sent.REFUSED)
    after = value(store, kept)
    assert after is not None
    # All that arrived is committed; what was refused is told by its delivery.
    assert (after.state, after.next_at, after.open, after.comment) == (State.COMMITTED, None, (), "")
    assert len(after.parts) == 1
    assert delivered(store, kept).state is Sent.REFUSED
    assert images_gone(store, clock) == 1


def test_when_nothing_arrives_the_second_time_a_person_has_to_look(store: Store, kept: Kept, clock: FakeClock) -> None:
    way = lost(store, kept, clock, "SEG", "SR")
    end(store, way, clock, SEG=Sent.REFUSED, SR=Sent.REFUSED)
    after = value(store, kept)
    assert after is not None
    assert (after.state, after.next_at) == (State.FAILED, None)
    assert after.comment == "not committed: 2 × no such object instance"
    assert images_gone(store, clock) == 0
    # A person has it sent again, and it arrives.
    end(store, delivered(store, kept), clock, SEG=Sent.SENT, SR=Sent.SENT)
    again = value(store, kept)
    assert again is not None
    assert (again.state, again.next_at, len(again.open)) == (State.DUE, clock.now(), 2)


def test_where_nothing_ever_arrived_nothing_is_asked(store: Store, kept: Kept, clock: FakeClock) -> None:
    end(store, delivered(store, kept), clock, SEG=Sent.REFUSED, SR=Sent.REFUSED)
    assert value(store, kept) is None


# --- destinations that are not asked any more ---


def archive(*, asked: bool) -> Destination:
    return Destination(name="archive", ae_title="ARCHIVE", host="127.0.0.1", port=104, commitment=asked)


@pytest.mark.parametrize("state", [State.FAILED, State.DUE, State.ASKED])
@pytest.mark.parametrize("now", [[archive(asked=False)], []], ids=["turned off", "removed"])
def test_a_destination_that_is_not_asked_any_more_holds_up_no_deletion(
    store: Store, kept: Kept, clock: FakeClock, state: State, now: list[Destination]
) -> None:
    with store.begin() as tx:
        commitment.plan(tx, delivered(store, kept), clock=clock)
        (planned,) = commitments.of_study(tx, kept.key)
        commitments.save(tx, replace(planned, state=state, next_at=None))
    commitment.release(store, [archive(asked=True)])
    assert value(store, kept) is not None
    assert images_gone(store, clock) == 0
    commitment.release(store, now)
    assert value(store, kept) is None
    assert images_gone(store, clock) == 1


def test_what_a_destination_committed_itself_to_stays_written(store: Store, kept: Kept, clock: FakeClock) -> None:
    with store.begin() as tx:
        commitment.plan(tx, delivered(store, kept), clock=clock)
        (planned,) = commitments.of_study(tx, kept.key)
        commitments.save(tx, replace(planned, state=State.COMMITTED, next_at=None))
    commitment.release(store, [])
    after = value(store, kept)
    assert after is not None and after.state is State.COMMITTED


# --- a peer asks us ---


def test_a_machine_that_is_short_tells_a_peer_nothing_until_it_can_look(
    store: Store, kept: Kept, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def short(*_: object, **__: object) -> Iterator[bytes]:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    reported: list[Mapping[Reference, int]] = []

    def report(*arguments: object, **_: object) -> str:
        reported.append(arguments[3])  # type: ignore[arg-type]
        return ""

    with store.begin() as tx:
        sop = next(tx.execute(select(instance.c.sop_uid)).scalars())
        reference = Reference(sop_class_uid=MR, sop_instance_uid=sop)
        assert commitments.ask(tx, transaction_uid="1.2", calling_ae="ARCHIVE", references=[reference], now=NOW)
        (request,) = commitments.requests(tx, now=NOW)
    settings = commitment.Settings(
        calling_ae="DICOMGUARD", destinations={"archive": archive(asked=False)}, patience=PATIENCE,
        timeouts=Timeouts(), linger_s=0.1,
    )  # fmt: skip
    work = commitment.CommitmentWork(store=store, clock=clock, settings=settings)
    monkeypatch.setattr(network, "report", report)
    with monkeypatch.context() as patched:
        patched.setattr(backlog, "read_pieces", short)
        assert work.report(request.key, request.attempt) == "waiting"
    assert reported == []
    with store.read() as tx:
        (waiting,) = commitments.requests(tx, now=NOW + timedelta(seconds=5))
    assert "Too many open files" in waiting.comment
    clock.advance(timedelta(seconds=5))
    assert work.report(waiting.key, waiting.attempt) == "answered"
    assert reported == [{}]
