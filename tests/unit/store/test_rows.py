"""The small tables: results, deliveries, leases, executors, refusals, audit, counts, state with an end."""

import hashlib
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import text

from dicomguard.core.delivery import Delivery, Item, State
from dicomguard.core.result import ResultKind, ResultObject
from dicomguard.errors import Broken
from dicomguard.store import audit, counters, deliveries, ephemeral, executors, leases, refusals, results, studies
from dicomguard.store.db import Store
from dicomguard.store.files import Died, FakeDisk
from dicomguard.store.intake import receive_file
from tests.instances import CT1, part10_file

NOW = datetime(2026, 11, 24, 10, 0, tzinfo=UTC)
SECOND = timedelta(seconds=1)


@pytest.fixture
def key(store: Store, tmp_path: Path) -> str:
    """A study with one revision."""
    study_key = receive_file(store, CT1, part10_file(tmp_path / "in"), channel="cli").study_key
    with store.begin() as tx:
        studies.open_revision(tx, study_key, closed_because="quiet", now=NOW)
    return study_key


def a_result(content: bytes, *, kind: ResultKind = "SR", order: int = 0) -> tuple[ResultObject, bytes]:
    value = ResultObject(
        kind=kind, sop_class_uid="1.2", sop_instance_uid=f"2.25.{order}", series_instance_uid="2.25.3",
        sha256=hashlib.sha256(content).hexdigest(), order=order,
    )  # fmt: skip
    return value, content


def test_results_are_files_then_rows_and_keeping_again_changes_nothing(store: Store, key: str) -> None:
    objects = [a_result(b"report", order=1), a_result(b"mask", kind="SEG", order=0)]
    kept = results.keep(store, key, 1, objects)
    assert results.keep(store, key, 1, objects) == kept
    with store.read() as tx:
        in_order = results.of_revision(tx, key, 1)
        assert [value.kind for value in in_order] == ["SEG", "SR"]
        assert results.is_own(tx, "2.25.1")
        assert not results.is_own(tx, "2.25.7")
    assert results.bytes_path(store, in_order[0]).read_bytes() == b"mask"
    assert in_order[0].path.startswith(f"results/{key}/r1/00-SEG-")


def test_a_result_has_no_row_before_its_file_is_durable(store: Store, disk: FakeDisk, key: str) -> None:
    disk.die_before = "rename"
    with pytest.raises(Died):
        results.keep(store, key, 1, [a_result(b"report")])
    with store.read() as tx:
        assert results.of_revision(tx, key, 1) == []


def test_other_bytes_under_a_kept_uid_break_a_promise(store: Store, key: str) -> None:
    results.keep(store, key, 1, [a_result(b"report")])
    with pytest.raises(Broken, match="different bytes"):
        results.keep(store, key, 1, [a_result(b"another")])
    value, _ = a_result(b"report")
    with pytest.raises(Broken, match="Build it again"):
        results.keep(store, key, 1, [(value, b"not that")])


def a_delivery(key: str, destination: str, *, next_at: datetime | None = NOW) -> Delivery:
    items = (
        Item(kind="SEG", forms=("2.25.1",)),
        Item(kind="SR", forms=("2.25.2", "2.25.3"), form=1, status=0xA700, comment="busy"),
    )
    return Delivery(study_key=key, revision=1, destination=destination, items=items, planned_at=NOW, next_at=next_at)


def test_deliveries_come_back_as_they_were_kept(store: Store, key: str) -> None:
    first, second = a_delivery(key, "pacs"), a_delivery(key, "archive", next_at=NOW + SECOND)
    with store.begin() as tx:
        deliveries.plan(tx, [first, second])
        # Planning again must not undo what has happened.
        tried = replace(
            first, attempt=1, comment="x", items=(replace(first.items[0], state=State.SENT), first.items[1])
        )
        deliveries.save(tx, tried)
        deliveries.plan(tx, [first])
        assert deliveries.get(tx, key, 1, "pacs") == tried
        assert deliveries.get(tx, key, 1, "nowhere") is None
        assert deliveries.waiting(tx, before=NOW) == [tried]
        assert deliveries.waiting(tx) == [tried, second]
        assert {value.destination for value in deliveries.of_study(tx, key)} == {"pacs", "archive"}
        assert len(deliveries.of_revision(tx, key, 1)) == 2
        assert deliveries.count_by_state(tx) == {("pacs", "waiting"): 1, ("archive", "waiting"): 1}
        done = tuple(replace(item, state=State.SENT) for item in tried.items)
        deliveries.save(tx, replace(tried, items=done, next_at=None))
        assert deliveries.waiting(tx, before=NOW) == []


def test_a_lease_has_one_owner_until_it_is_over(store: Store) -> None:
    with store.begin() as tx:
        assert leases.take(tx, "sweep", "a", NOW, NOW + SECOND)
        assert not leases.take(tx, "sweep", "b", NOW, NOW + SECOND)
        assert leases.take(tx, "sweep", "a", NOW, NOW + 2 * SECOND)
        assert leases.take(tx, "sweep", "b", NOW + 3 * SECOND, NOW + 9 * SECOND)
        leases.release(tx, "sweep", "a")
        assert not leases.take(tx, "sweep", "a", NOW + 4 * SECOND, NOW + 9 * SECOND)
        leases.release(tx, "sweep", "b")
        assert leases.take(tx, "sweep", "a", NOW + 4 * SECOND, NOW + 9 * SECOND)


def test_a_lease_taken_by_a_clock_that_ran_ahead_is_not_waited_for(store: Store) -> None:
    ahead = NOW + timedelta(days=400)
    with store.begin() as tx:
        assert leases.take(tx, "sweep", "dead", ahead, ahead + SECOND)
        assert leases.take(tx, "sweep", "b", NOW, NOW + SECOND)
        # A few minutes are another machine's clock, and a lease that is made for longer.
        assert leases.take(tx, "retention", "other", NOW, NOW + timedelta(minutes=30))
        assert not leases.take(tx, "retention", "b", NOW, NOW + SECOND)


def test_a_worker_that_died_while_its_clock_ran_ahead_is_taken_for_dead(store: Store) -> None:
    ahead, minutes = NOW + timedelta(days=400), NOW + timedelta(minutes=30)
    with store.begin() as tx:
        assert executors.beat(tx, "dead", "node-1", ahead, ahead + SECOND)
        assert executors.beat(tx, "minutes", "node-2", minutes, minutes + SECOND)
        assert executors.expired(tx, NOW) == ["dead"]


def test_those_that_ended_are_forgotten_and_those_whose_work_waits_are_not(store: Store) -> None:
    with store.begin() as tx:
        for name, role in (("killed", "receiver"), ("dead", "worker"), ("ended", "worker"), ("living", "receiver")):
            executors.beat(tx, name, "node", NOW, NOW + SECOND, role=role)
        executors.retire(tx, "ended")
        later = NOW + timedelta(days=2)
        executors.beat(tx, "living", "node", later, later + SECOND, role="receiver")
        executors.beat(tx, "new", "node", later, later + SECOND)
        assert {row.id for row in executors.listing(tx)} == {"dead", "living", "new"}
        assert executors.expired(tx, later) == ["dead"]


def test_a_retired_executor_learns_of_it_with_its_next_beat(store: Store) -> None:
    with store.begin() as tx:
        assert executors.beat(tx, "w1", "node", NOW, NOW + SECOND)
        assert executors.expired(tx, NOW) == []
        assert executors.beat(tx, "w1", "node", NOW, NOW + 2 * SECOND)
        assert executors.expired(tx, NOW + 3 * SECOND) == ["w1"]
        assert executors.expired(tx, NOW + 3 * SECOND, role="receiver") == []
        executors.retire(tx, "w1")
        assert not executors.beat(tx, "w1", "node", NOW + 3 * SECOND, NOW + 9 * SECOND)
        assert executors.expired(tx, NOW + 3 * SECOND) == []
        assert executors.listing(tx) == []


def test_refusals_are_counted_by_hour_and_bounded(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    with store.begin() as tx:
        for minute in range(3):
            refusals.record(tx, NOW + minute * timedelta(minutes=1), "192.0.2.9", "ME", "YOU", "unknown")
        refusals.record(tx, NOW + timedelta(hours=1), "192.0.2.9", "ME", "YOU", "unknown")
        found = refusals.recent(tx)
        assert [(row.count, row.hour) for row in found] == [(1, NOW + timedelta(hours=1)), (3, NOW)]
        monkeypatch.setattr(refusals, "MAX_ROWS_PER_HOUR", 3)
        for number in range(10):
            refusals.record(tx, NOW, "192.0.2.9", f"GUESS{number}", "YOU", "unknown")
        assert len([row for row in refusals.recent(tx) if row.hour == NOW]) == 4
        # Old hours are removed with the first refusal of a new one.
        refusals.record(tx, NOW + timedelta(days=91), "192.0.2.9", "ME", "YOU", "unknown")
        assert len(refusals.recent(tx)) == 1


def test_the_audit_chain_shows_what_was_changed_or_removed(store: Store) -> None:
    with store.begin() as tx:
        for number in range(3):
            audit.append(tx, "ada", "model.approved", f"m{number}", {"was": None}, now=NOW)
        assert audit.first_break(tx) is None
        assert [line.object for line in audit.recent(tx, limit=2)] == ["m2", "m1"]
    with store.begin() as tx:
        tx.execute(text("update audit set actor = 'eve' where seq = 2"))
        assert audit.first_break(tx) == 2
        tx.execute(text("update audit set actor = 'ada' where seq = 2"))
        assert audit.first_break(tx) is None
        tx.execute(text("delete from audit where seq = 3"))
        assert audit.first_break(tx) == 3


def test_ephemeral_state_ends(store: Store) -> None:
    with store.begin() as tx:
        ephemeral.put(tx, "session", "k", {"name": "ada"}, NOW + SECOND)
        ephemeral.put(tx, "session", "k", {"name": "grace"}, NOW + SECOND)
        assert ephemeral.get(tx, "session", "k", NOW) == {"name": "grace"}
        assert ephemeral.get(tx, "session", "k", NOW + SECOND) is None
        assert ephemeral.get(tx, "other", "k", NOW) is None
        assert ephemeral.sweep(tx, NOW + 2 * SECOND) == 1
        assert not ephemeral.drop(tx, "session", "k")


def test_counts_add_up(store: Store) -> None:
    with store.begin() as tx:
        counters.add(tx, "instances_received", "ct1")
        counters.add(tx, "instances_received", "ct1", 4)
        assert [(row.name, row.peer, row.value) for row in counters.listing(tx)] == [("instances_received", "ct1", 5)]
