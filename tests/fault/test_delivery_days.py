"""Three destinations, one dead for hours, on a clock that a test moves: who waits for whom, in what order it drains.

The attempts, their rows and files are real; the queue is played as the workflow engine has it: one at a time for a
destination, destinations side by side, the longest due first.
"""

import hashlib
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from dicomguard.clock import FakeClock
from dicomguard.core.completion import Patience
from dicomguard.core.delivery import Answer, Backoff, Delivery, Event, Item, State
from dicomguard.core.peer import Destination
from dicomguard.core.result import ResultObject
from dicomguard.deliver.association import Timeouts
from dicomguard.deliver.storage import Sent
from dicomguard.flow import completion, sweep
from dicomguard.flow.delivery import DeliveryWork, Settings
from dicomguard.flow.engine import Engine, Run
from dicomguard.flow.study import delivery_id
from dicomguard.store import deliveries, results, studies
from dicomguard.store.db import Store, open_store
from tests.fault import world

START = datetime(2026, 11, 23, 6, 0, tzinfo=UTC)
NAMES = ("pacs", "archive", "viewer")
STUDIES_AN_HOUR = 2


class Hospital:
    """The rows of a node, three destinations, and a queue."""

    def __init__(self, folder: Path) -> None:
        self.clock = FakeClock(START)
        self.store: Store = open_store(folder / "state", "", self.clock)
        self.key = world.send_study(self.store, folder / "in", slices=1)
        self.dead = {"pacs"}
        # What a destination got: (number of the revision, kind), and the seconds since it was planned.
        self.got: dict[str, list[tuple[int, str]]] = {name: [] for name in NAMES}
        self.late: dict[str, list[float]] = {name: [] for name in NAMES}
        self.calls: Counter[str] = Counter()
        # What a living destination says to a kind.
        self.says: dict[str, Event] = {}
        # A fault of ours in the sender.
        self.fault: Exception | None = None
        self.work = DeliveryWork(
            store=self.store,
            clock=self.clock,
            settings=Settings(
                calling_ae="DICOMGUARD",
                destinations={
                    name: Destination(name=name, ae_title=name.upper(), host="127.0.0.1", port=104) for name in NAMES
                },
                backoff=Backoff(),
                timeouts=Timeouts(),
            ),
            send=self._send,
        )

    def _send(self, files: list[Path], destination: Destination, *, calling_ae: str, timeouts: Timeouts) -> list[Sent]:
        name = destination.name
        self.calls[name] += 1
        if self.fault is not None:
            raise self.fault
        sent = []
        for path in files:
            kind, number = path.name.split("-")[1], int(path.parent.name.removeprefix("r"))
            event = Event.UNREACHED if name in self.dead else self.says.get(kind, Event.STORED)
            uid = f"2.25.{number}{'12'[kind == 'SR']}"
            sent.append(Sent(path=path, sop_instance_uid=uid, answer=Answer(event=event, comment=event.value)))
            if event is not Event.STORED:
                break
            self.got[name].append((number, kind))
            with self.store.read() as tx:
                planned = deliveries.get(tx, self.key, number, name)
            assert planned is not None
            self.late[name].append((self.clock.now() - planned.planned_at).total_seconds())
        return sent

    def finish_study(self, number: int) -> None:
        """A revision with a SEG and an SR that is handed over now."""
        with self.store.begin() as tx:
            studies.open_revision(tx, self.key, closed_because="asked", now=self.clock.now())
            studies.advance(tx, self.key, number, "delivering", from_=("opened",))
        made = []
        for order, kind in enumerate(("SEG", "SR")):
            content = f"{number} {kind}".encode()
            made.append(
                (
                    ResultObject(
                        kind="SEG" if kind == "SEG" else "SR",
                        sop_class_uid="1.2",
                        sop_instance_uid=f"2.25.{number}{order + 1}",
                        series_instance_uid="2.25.9",
                        sha256=hashlib.sha256(content).hexdigest(),
                        order=order,
                    ),
                    content,
                )
            )
        results.keep(self.store, self.key, number, made)
        items = tuple(Item(kind=value.kind, forms=(value.sop_instance_uid,)) for value, _ in made)
        now = self.clock.now()
        fresh = Delivery(study_key=self.key, revision=number, destination="", items=items, planned_at=now, next_at=now)
        with self.store.begin() as tx:
            deliveries.plan(tx, [replace(fresh, destination=name) for name in NAMES])

    def run_until(self, end: datetime) -> None:
        """Attempt whatever is due, then move the clock to the next time that something is."""
        while True:
            with self.store.read() as tx:
                due = deliveries.waiting(tx, before=self.clock.now())
                later = [item.next_at for item in deliveries.waiting(tx, limit=1) if item.next_at is not None]
            for item in due:
                self.work.attempt(item.study_key, item.revision, item.destination, item.attempt)
            if due:
                continue
            at = min([*later, end])
            self.clock.advance(max(timedelta(0), min(at, end) - self.clock.now()))
            if self.clock.now() >= end:
                return

    def states(self, name: str) -> Counter[State]:
        """How many deliveries of a destination are where."""
        with self.store.read() as tx:
            return Counter(item.state for item in deliveries.of_study(tx, self.key) if item.destination == name)


@pytest.fixture
def hospital(tmp_path: Path) -> Hospital:
    """With nothing to deliver yet."""
    return Hospital(tmp_path)


def dead_for(hospital: Hospital, hours: int) -> str:
    """1. Studies come in for so long. 2. The PACS is back. 3. It gets all, oldest first, each once; the figures."""
    count = hours * STUDIES_AN_HOUR
    for number in range(1, count + 1):
        hospital.finish_study(number)
        hospital.run_until(START + timedelta(hours=number / STUDIES_AN_HOUR))
    whole = [(number, kind) for number in range(1, count + 1) for kind in ("SEG", "SR")]
    for name in ("archive", "viewer"):
        assert hospital.got[name] == whole
        assert max(hospital.late[name]) < 1.0
    assert hospital.got["pacs"] == []
    assert hospital.states("pacs") == {State.WAITING: count}
    # One that tries, at least each quarter of an hour, however many wait.
    assert 4 * hours <= hospital.calls["pacs"] < 2 * 4 * hours + 100
    hospital.dead.clear()
    back = hospital.clock.now()
    hospital.run_until(back + timedelta(minutes=16))
    assert hospital.got["pacs"] == whole
    assert hospital.states("pacs") == {State.SENT: count}
    with hospital.store.read() as tx:
        assert {studies.state(tx, hospital.key, number) for number in range(1, count + 1)} == {"done"}
    return f"{count} studies, {hospital.calls['pacs']} attempts at the dead one, late {max(hospital.late['archive'])} s"


def test_a_dead_destination_delays_nobody_and_drains_in_order(hospital: Hospital) -> None:
    """Six hours here, seventy-two in the long tier."""
    dead_for(hospital, 6)


def test_an_object_that_is_never_taken_does_not_stop_what_stands_behind_it(hospital: Hospital) -> None:
    """A destination that ends the association over one kind is reached all the same: nobody stands back."""
    hospital.dead.clear()
    hospital.says["SEG"] = Event.SILENT
    hospital.finish_study(1)
    hospital.run_until(START + timedelta(minutes=1))
    hospital.says.clear()
    hospital.finish_study(2)
    hospital.run_until(START + timedelta(minutes=2))
    assert (2, "SR") in hospital.got["pacs"]
    # Its success also woke the first.
    assert (1, "SR") in hospital.got["pacs"]


def test_a_person_need_not_wait_for_the_one_that_tries(hospital: Hospital) -> None:
    from dicomguard.flow.client import Client

    for number in (1, 2):
        hospital.finish_study(number)
    hospital.run_until(START + timedelta(hours=3))
    hospital.dead.clear()
    Client(hospital.store, hospital.clock).retry(hospital.key, "anna")
    asked = hospital.clock.now()
    hospital.run_until(asked + timedelta(seconds=1))
    assert hospital.states("pacs") == {State.SENT: 2}


def test_an_attempt_that_crashes_is_written_down_and_tried_again(hospital: Hospital) -> None:
    hospital.dead.clear()
    hospital.fault = RuntimeError("not foreseen")
    hospital.finish_study(1)
    hospital.run_until(START + timedelta(minutes=30))
    with hospital.store.read() as tx:
        waiting = deliveries.of_study(tx, hospital.key)
    assert {item.destination for item in waiting} == set(NAMES)
    assert all(item.state is State.WAITING and item.attempt > 5 for item in waiting)
    assert all("A fault of ours while sending (RuntimeError)" in item.comment for item in waiting)
    hospital.fault = None
    hospital.run_until(START + timedelta(hours=2))
    assert [hospital.states(name) for name in NAMES] == [Counter({State.SENT: 1})] * len(NAMES)


def test_a_delivery_whose_attempts_leave_no_trace_is_put_off_with_an_alarm(
    hospital: Hospital, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when a step is killed each time before it writes; without it the delivery would wait for ever, unseen."""
    hospital.finish_study(1)
    started: list[str] = []
    # Not launched: only these three are asked.
    engine = Engine.__new__(Engine)
    monkeypatch.setattr(engine, "live", lambda *_: [])
    monkeypatch.setattr(engine, "enqueue", lambda *_, workflow_id, **__: started.append(workflow_id))

    def runs(first: str) -> list[Run]:
        names = [name for name in started if name.startswith(first)]
        return [Run(workflow_id=name, status="SUCCESS", queue=None, executor=None) for name in names]

    monkeypatch.setattr(engine, "runs", runs)
    minute = timedelta(minutes=1)
    patience = Patience(quiet=minute, longest=minute, quiet_released=minute)
    settings = sweep.Settings(completion=completion.Settings(patience=patience, association_hold=minute))
    beat = sweep.Sweep(engine=engine, store=hospital.store, clock=hospital.clock, node="n", settings=settings)
    for _ in range(7):
        beat._start_deliveries(hospital.clock.now())
    with hospital.store.read() as tx:
        after = deliveries.of_study(tx, hospital.key)
    assert len(started) == 5 * len(NAMES)
    assert all(item.alarm and item.attempt == 1 and item.next_at == START + timedelta(hours=1) for item in after)
    hospital.clock.advance(timedelta(hours=1))
    beat._start_deliveries(hospital.clock.now())
    assert delivery_id(hospital.key, 1, NAMES[0], 1) in started
