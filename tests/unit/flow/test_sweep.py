"""What should run and does not: started again, with an end, and with a way out of that end."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import pytest

from dicomguard.clock import FakeClock
from dicomguard.core.commitment import Commitment, Part, Reference, State
from dicomguard.core.completion import Patience
from dicomguard.core.delivery import Backoff, Delivery, Item
from dicomguard.flow import completion
from dicomguard.flow.client import Client
from dicomguard.flow.engine import EXCEEDED, Engine, Run
from dicomguard.flow.study import ATTEMPTS
from dicomguard.flow.sweep import Settings, Sweep
from dicomguard.store import commitments, deliveries, executors, studies
from dicomguard.store.db import Store
from tests.fault.world import send_study
from tests.unit.flow.conftest import NOW

SECOND = timedelta(seconds=1)
OBJECT = Reference(sop_class_uid="1.2.3", sop_instance_uid="2.25.1")

ITEM = Item(kind="sr", forms=("2.25.2",))


class Crashing:
    """In the engine's place: each workflow has ended, without a word, when the next tick looks."""

    executor_id = "worker:1"

    def __init__(self) -> None:
        self.started: list[tuple[str, tuple[Any, ...]]] = []
        self.status = "ERROR"

    def enqueue(self, queue: str, workflow: str, *arguments: Any, workflow_id: str, **options: Any) -> None:
        assert workflow_id not in [name for name, _ in self.started], "the engine would do nothing"
        self.started.append((workflow_id, arguments))

    def runs(self, prefix: str) -> list[Run]:
        names = [name for name, _ in self.started if name.startswith(prefix)]
        return [Run(workflow_id=name, status=self.status, queue="", executor=None) for name in names]

    def live(self, queue: str | None = None) -> list[Run]:
        return []

    def purge(self, **_: Any) -> int:
        return 0


@pytest.fixture
def engine() -> Crashing:
    """No workflow gets anywhere."""
    return Crashing()


@pytest.fixture
def sweep(store: Store, clock: FakeClock, engine: Crashing) -> Sweep:
    """The only one, which leads at its first tick."""
    patience = Patience(quiet=timedelta(days=1), longest=timedelta(days=2))
    settings = completion.Settings(patience=patience, association_hold=SECOND)
    return Sweep(
        engine=cast(Engine, engine), store=store, clock=clock, node="n", settings=Settings(completion=settings)
    )


@pytest.fixture
def key(store: Store, tmp_path: Path) -> str:
    """A study with a first revision."""
    key = send_study(store, tmp_path / "in", slices=1)
    with store.begin() as tx:
        studies.open_revision(tx, key, closed_because="test", now=NOW)
    return key


def state(store: Store, key: str) -> str | None:
    with store.read() as tx:
        return studies.state(tx, key, 1)


def tick(sweep: Sweep, times: int) -> None:
    for _ in range(times):
        sweep.tick()


@pytest.mark.parametrize(("status", "attempts"), [("ERROR", ATTEMPTS), (EXCEEDED, 2)])
def test_a_retry_after_the_sweep_gave_up_is_worth_as_many_attempts_as_the_first(
    store: Store, clock: FakeClock, engine: Crashing, sweep: Sweep, key: str, status: str, attempts: int
) -> None:
    engine.status = status
    tick(sweep, attempts)
    assert state(store, key) == "opened"
    sweep.tick()
    assert state(store, key) == "failed"
    for turn in (2, 3):
        Client(store, clock).retry(key, "anna")
        tick(sweep, attempts)
        assert state(store, key) == "opened"
        assert len(engine.started) == turn * attempts
        sweep.tick()
        assert state(store, key) == "failed"
    # The first one after a retry opens the pixels: a person says that what ended the process is mended.
    assert [poisoned for _, (*_, poisoned) in engine.started[::attempts]] == [False] * 3


def test_each_attempt_tells_whether_it_is_the_last_of_its_turn(
    store: Store, clock: FakeClock, engine: Crashing, sweep: Sweep, key: str
) -> None:
    """The work itself counts on from the number that the sweep gives it."""
    tick(sweep, ATTEMPTS + 1)
    Client(store, clock).retry(key, "anna")
    sweep.tick()
    assert [number for _, (_, _, number, _) in engine.started] == list(range(ATTEMPTS + 1))


@pytest.fixture
def asked(store: Store, key: str) -> Commitment:
    """One that is to be asked for now."""
    delivery = Delivery(study_key=key, revision=1, destination="pacs", items=(), planned_at=NOW, next_at=None)
    value = Commitment(
        study_key=key, revision=1, destination="pacs", parts=(Part(reference=OBJECT),), planned_at=NOW, next_at=NOW
    )
    with store.begin() as tx:
        deliveries.plan(tx, [delivery])
        commitments.save(tx, value)
        studies.advance(tx, key, 1, "done", from_=("opened",))
    return value


def test_a_commitment_whose_attempts_write_nothing_is_put_off_and_goes_on(
    store: Store, clock: FakeClock, engine: Crashing, sweep: Sweep, asked: Commitment
) -> None:
    tick(sweep, 5)
    assert len(engine.started) == 5
    tick(sweep, 3)
    assert len(engine.started) == 5
    with store.read() as tx:
        put_off = commitments.get(tx, asked.study_key, 1, "pacs")
    assert put_off is not None
    assert put_off.comment.startswith("alarm: ")
    assert (put_off.state, put_off.next_at) == (State.DUE, NOW + timedelta(hours=1))
    clock.advance(timedelta(hours=1))
    tick(sweep, 1)
    assert len(engine.started) == 6


def test_a_commitment_that_was_answered_meanwhile_is_not_put_off(
    store: Store, sweep: Sweep, engine: Crashing, asked: Commitment
) -> None:
    tick(sweep, 5)
    answered = replace(asked, state=State.COMMITTED, attempt=1, next_at=None)
    runs = engine.runs

    def answering(prefix: str) -> list[Run]:
        with store.begin() as tx:
            commitments.save(tx, answered)
        return runs(prefix)

    engine.runs = answering  # type: ignore[method-assign]
    sweep.tick()
    with store.read() as tx:
        assert commitments.get(tx, asked.study_key, 1, "pacs") == answered


def test_an_answer_to_a_peer_whose_attempts_write_nothing_is_put_off_and_goes_on(
    store: Store, clock: FakeClock, engine: Crashing, sweep: Sweep
) -> None:
    with store.begin() as tx:
        assert commitments.ask(tx, transaction_uid="1.2", calling_ae="CT1", references=[OBJECT], now=NOW)
    tick(sweep, 8)
    assert len(engine.started) == 5
    with store.read() as tx:
        assert commitments.requests(tx, now=NOW) == []
        (waiting,) = commitments.requests(tx, now=NOW + timedelta(hours=1))
    assert (waiting.state, waiting.attempt) == ("waiting", 1)
    assert waiting.comment.startswith("alarm: ")
    clock.advance(timedelta(hours=1))
    tick(sweep, 1)
    assert len(engine.started) == 6


def test_a_clock_that_is_set_back_does_not_silence_the_worker(
    store: Store, clock: FakeClock, sweep: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep.tick()
    elapsed = clock.monotonic() + 60
    earlier = NOW - timedelta(hours=3)
    monkeypatch.setattr(clock, "monotonic", lambda: elapsed)
    monkeypatch.setattr(clock, "now", lambda: earlier)
    sweep.tick()
    with store.read() as tx:
        (row,) = executors.listing(tx)
    assert row.heartbeat_at == earlier


def test_work_put_off_by_a_clock_that_ran_ahead_is_done_now(
    store: Store, sweep: Sweep, engine: Crashing, asked: Commitment
) -> None:
    years = timedelta(days=4 * 365)
    usual = NOW + Backoff().furthest
    with store.begin() as tx:
        for destination, next_at in (("ahead", NOW + years), ("usual", usual)):
            value = Delivery(
                study_key=asked.study_key, revision=1, destination=destination, items=(ITEM,), attempt=3,
                planned_at=NOW, next_at=next_at,
            )  # fmt: skip
            deliveries.plan(tx, [value])
        commitments.save(tx, replace(asked, next_at=NOW + years))
        assert commitments.ask(tx, transaction_uid="1.2", calling_ae="CT1", references=[OBJECT], now=NOW + years)
    sweep.tick()
    started = {name.rsplit("/", 1)[0].split("/")[0]: arguments for name, arguments in engine.started}
    assert started == {
        "deliver": (asked.study_key, 1, "ahead", 4),
        "commit": (asked.study_key, 1, "pacs", asked.attempt),
        "answer": started["answer"],
    }
    with store.read() as tx:
        left = deliveries.get(tx, asked.study_key, 1, "usual")
    assert left is not None
    assert (left.next_at, left.attempt) == (usual, 3)
