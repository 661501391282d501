"""What a person may ask of the work: rows that the worker's sweep finds, and a line in the audit."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from dicomguard.clock import FakeClock
from dicomguard.core.commitment import Commitment, Part, Reference
from dicomguard.core.commitment import State as Committed
from dicomguard.core.completion import Patience
from dicomguard.core.delivery import Answer, Backoff, Delivery, Event, Item, record
from dicomguard.errors import Refused
from dicomguard.flow import completion
from dicomguard.flow.client import Client
from dicomguard.store import associations, audit, commitments, deliveries, runs, studies, worklist
from dicomguard.store.db import Store, open_store
from dicomguard.store.intake import Sender, begin_association, end_association, open_instance
from tests.fault.world import send_study
from tests.instances import MR, ROOT, part10_bytes

START = datetime(2026, 11, 24, 8, 0, tzinfo=UTC)
SETTINGS = completion.Settings(
    patience=Patience(quiet=timedelta(seconds=60), longest=timedelta(minutes=30)),
    association_hold=timedelta(minutes=10),
)


@pytest.fixture
def clock() -> FakeClock:
    """Time that the test moves."""
    return FakeClock(START)


@pytest.fixture
def store(tmp_path: Path, clock: FakeClock) -> Store:
    """An empty store."""
    return open_store(tmp_path / "state", "", clock)


def close(store: Store, clock: FakeClock) -> list[int]:
    """Numbers of the revisions that are opened now."""
    return [item.number for item in completion.open_complete(store, SETTINGS, now=clock.now())]


def state(store: Store, key: str, number: int) -> str | None:
    with store.read() as tx:
        return studies.state(tx, key, number)


def test_forcing_closes_at_once_and_names_the_person(store: Store, clock: FakeClock, tmp_path: Path) -> None:
    key = send_study(store, tmp_path / "in", slices=2)
    assert close(store, clock) == []
    Client(store, clock).force(key, "anna")
    assert close(store, clock) == [1]
    with store.read() as tx:
        assert studies.revision(tx, key, 1).closed_because == "forced by anna"
        assert [(line.actor, line.action) for line in audit.recent(tx)] == [("anna", "study.forced")]


def test_a_study_on_hold_waits_for_its_release(store: Store, clock: FakeClock, tmp_path: Path) -> None:
    key = send_study(store, tmp_path / "in", slices=2)
    client = Client(store, clock)
    client.hold(key, True, "anna")
    clock.advance(timedelta(hours=2))
    assert close(store, clock) == []
    client.hold(key, False, "anna")
    assert close(store, clock) == [1]


@pytest.mark.parametrize(("reached", "goes_on"), [("analysing", True), ("delivering", False), ("cancelled", False)])
def test_a_hold_tells_whether_a_report_is_under_way_all_the_same(
    store: Store, clock: FakeClock, tmp_path: Path, reached: str, goes_on: bool
) -> None:
    key = send_study(store, tmp_path / "in", slices=2)
    client = Client(store, clock)
    assert not client.hold(key, True, "anna")
    assert not client.hold(key, False, "anna")
    clock.advance(timedelta(seconds=60))
    close(store, clock)
    with store.begin() as tx:
        studies.advance(tx, key, 1, reached, from_=("opened",))
    assert client.hold(key, True, "anna") is goes_on


def test_a_late_instance_supersedes_what_was_not_sent_and_nothing_else(
    store: Store, clock: FakeClock, tmp_path: Path
) -> None:
    key = send_study(store, tmp_path / "in", slices=2)
    clock.advance(timedelta(seconds=60))
    assert close(store, clock) == [1]
    with store.begin() as tx:
        assert studies.advance(tx, key, 1, "delivering", from_=("opened",))
    for number in (2, 3):
        send_study(store, tmp_path / "in", slices=1, first=number)
        clock.advance(timedelta(seconds=60))
        assert close(store, clock) == [number]
    assert [state(store, key, number) for number in (1, 2, 3)] == ["delivering", "superseded", "opened"]


def test_retry_opens_what_failed_and_refuses_when_nothing_did(store: Store, clock: FakeClock, tmp_path: Path) -> None:
    key = send_study(store, tmp_path / "in", slices=2)
    client = Client(store, clock)
    clock.advance(timedelta(seconds=60))
    close(store, clock)
    with pytest.raises(Refused, match="Nothing of study"):
        client.retry(key, "anna")
    with store.begin() as tx:
        studies.advance(tx, key, 1, "failed", from_=("opened",), reason="The weights are gone. Restore them.")
    assert [(row.state, row.message) for row in client.queue()] == [("failed", "The weights are gone. Restore them.")]
    client.retry(key, "anna")
    assert state(store, key, 1) == "opened"


def test_retry_starts_refused_deliveries_again(store: Store, clock: FakeClock, tmp_path: Path) -> None:
    key = send_study(store, tmp_path / "in", slices=2)
    clock.advance(timedelta(seconds=60))
    close(store, clock)
    planned = Delivery(
        study_key=key, revision=1, destination="pacs", planned_at=clock.now(), next_at=clock.now(),
        items=(Item(kind="SEG", forms=("2.25.1",)), Item(kind="SR", forms=("2.25.2",))),
    )  # fmt: skip
    answers = {"2.25.1": Answer(event=Event.STORED), "2.25.2": Answer(event=Event.FAILED, status=0x0111)}
    failed = record(planned, answers, now=clock.now(), backoff=Backoff())
    with store.begin() as tx:
        deliveries.plan(tx, [planned, replace(planned, destination="other")])
        deliveries.save(tx, failed)
    client = Client(store, clock)
    listed = [(row.destination, row.state) for row in client.queue() if row.kind == "delivery"]
    assert sorted(listed) == [("other", "waiting"), ("pacs", "refused")]
    sent = Reference(sop_class_uid="1.2.3", sop_instance_uid="2.25.1")
    refused = Commitment(
        study_key=key, revision=1, destination="pacs", parts=(Part(reference=sent),), state=Committed.FAILED,
        planned_at=clock.now(), next_at=None,
    )  # fmt: skip
    with store.begin() as tx:
        commitments.save(tx, refused)
        studies.advance(tx, key, 1, "done", from_=("opened",))
    assert [(row.destination, row.state) for row in client.queue() if row.kind == "commitment"] == [("pacs", "failed")]
    client.retry(key, "anna")
    (asked,) = (row for row in client.queue() if row.kind == "commitment")
    assert (asked.state, asked.next_at) == ("due", clock.now())
    with store.read() as tx:
        assert [one.next_at for one in commitments.of_study(tx, key)] == [clock.now()]
        assert studies.state(tx, key, 1) == "delivering"
        again = deliveries.get(tx, key, 1, "pacs")
    assert again is not None
    assert [item.state.value for item in again.items] == ["sent", "waiting"]
    assert again.attempt == 2


def test_training_is_asked_for_once_a_moment(store: Store, clock: FakeClock) -> None:
    client = Client(store, clock)
    assert client.start_retraining("anna") == client.start_retraining("anna")
    with store.read() as tx:
        assert [run.started_by for run in runs.asked(tx)] == ["anna"]


def test_an_unknown_study_is_refused(store: Store, clock: FakeClock) -> None:
    with pytest.raises(Refused, match="There is no study"):
        Client(store, clock).force("nothing", "anna")
    with store.read() as tx:
        assert worklist.row(tx, "nothing") is None


def test_a_cancelled_study_is_neither_judged_nor_reported_until_somebody_retries_it(
    store: Store, clock: FakeClock, tmp_path: Path
) -> None:
    key = send_study(store, tmp_path / "in", slices=2)
    client = Client(store, clock)
    with pytest.raises(Refused, match="under way"):
        client.cancel(key, "anna")
    clock.advance(timedelta(seconds=60))
    close(store, clock)
    client.cancel(key, "anna")
    assert state(store, key, 1) == "cancelled"
    assert client.queue() == []
    with store.read() as tx:
        assert [line.action for line in audit.recent(tx)] == ["study.cancelled"]
    client.retry(key, "anna")
    assert state(store, key, 1) == "opened"
    with store.begin() as tx:
        studies.advance(tx, key, 1, "delivering", from_=("opened",))
    with pytest.raises(Refused, match="cannot be taken back"):
        client.cancel(key, "anna")


def store_one(store: Store, *, calling_ae: str, how: associations.How | None, urgent: bool = False) -> str:
    """One instance over an association that ends so; None: it stays open. Returns the study key."""
    sender = Sender(peer="ct", calling_ae=calling_ae, called_ae="DICOMGUARD", address="192.0.2.7")
    id = begin_association(store, sender, process="r1")
    content = part10_bytes()
    with open_instance(
        store, sender, sop_class_uid=MR, sop_instance_uid=f"{ROOT}.1.1.1", transfer_syntax_uid="1.2.840.10008.1.2.1",
        association_id=id, urgent=urgent,
    ) as incoming:  # fmt: skip
        incoming.write(content[content.index(b"\x08\x00\x16\x00") :])
        key = incoming.commit().study_key
    if how is not None:
        end_association(store, id, how)
    return key


@pytest.mark.parametrize(("how", "seconds"), [("release", 20), ("abort", 60), ("lost", 60), (None, 600)])
def test_after_an_orderly_release_a_study_is_complete_sooner(
    store: Store, clock: FakeClock, how: associations.How | None, seconds: int
) -> None:
    store_one(store, calling_ae="CT1", how=how)
    clock.advance(timedelta(seconds=seconds - 1))
    assert close(store, clock) == []
    clock.advance(timedelta(seconds=2))
    assert close(store, clock) == [1]


def test_a_sender_has_its_own_patience_and_its_own_say_about_urgency(store: Store, clock: FakeClock) -> None:
    patience = Patience(quiet=timedelta(seconds=5), longest=timedelta(minutes=30))
    own = completion.Terms(patience=patience, association_hold=timedelta(seconds=7), urgent="never")
    settings = replace(SETTINGS, senders={"FAST": own})
    key = store_one(store, calling_ae="FAST", how=None, urgent=True)
    clock.advance(timedelta(seconds=6))
    # Quiet for long enough, but its association still holds it.
    assert completion.open_complete(store, settings, now=clock.now()) == []
    clock.advance(timedelta(seconds=2))
    (opened,) = completion.open_complete(store, settings, now=clock.now())
    assert (opened.study_key, opened.urgent) == (key, False)


def test_high_priority_of_one_request_makes_the_revision_urgent_and_only_this_one(
    store: Store, clock: FakeClock
) -> None:
    key = store_one(store, calling_ae="CT1", how="release", urgent=True)
    clock.advance(timedelta(minutes=2))
    assert close(store, clock) == [1]
    Client(store, clock).force(key, "anna")
    assert close(store, clock) == [2]
    with store.read() as tx:
        assert [item.urgent for item in studies.revisions(tx, key)] == [True, False]
        assert studies.urgent(tx, [(key, 1), (key, 2)]) == {(key, 1)}
