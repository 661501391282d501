"""What health and metrics say of the parts of a node."""

import hashlib
import itertools
import json
import logging
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from demo.ports import free_port
from dicomguard import config
from dicomguard.analyze import weights
from dicomguard.clock import FakeClock
from dicomguard.core.commitment import Commitment, State
from dicomguard.core.completion import Patience
from dicomguard.core.delivery import Delivery, Item
from dicomguard.errors import Refused, Unavailable
from dicomguard.flow import approval, completion
from dicomguard.log import JsonLines
from dicomguard.node import Node
from dicomguard.store import commitments, deliveries, executors, log_figures, models, refusals, set_aside
from dicomguard.store.db import open_store
from dicomguard.store.log_figures import Figures
from dicomguard.store.verify import record
from dicomguard.store.verify.findings import Finding, Kind
from dicomguard.store.verify.inspection import Inspection
from tests.fault.world import send_study


@pytest.mark.parametrize(("silent_s", "state"), [(5, None), (15, None), (16, "red")])
def test_trap_15_a_worker_that_waits_for_a_database_in_silence_turns_red(
    tmp_path: Path, silent_s: int, state: str | None
) -> None:
    """Its lease runs on for half a minute, its heartbeat stopped when the database did."""
    clock = FakeClock(datetime(2026, 11, 24, 8, 0, tzinfo=UTC))
    store = open_store(tmp_path, "", clock)
    with store.begin() as tx:
        executors.beat(tx, "node:1", "node", clock.now(), clock.now() + timedelta(seconds=30))
    clock.advance(timedelta(seconds=silent_s))
    node = Node(config.load(None), store=store, clock=clock)
    parts = node.ready()[1]
    assert parts.get("worker", {}).get("state") == state
    assert parts["receiver"]["state"] == "red"


def test_metrics_show_the_figures_of_each_receiver_and_the_last_inspection(tmp_path: Path) -> None:
    clock = FakeClock(datetime(2026, 11, 24, 8, 0, tzinfo=UTC))
    store = open_store(tmp_path, "", clock)
    text = '[peers.ct1]\nae_title = "CT1"\naddresses = ["192.0.2.7"]\n'
    node = Node(config.parse(text, base=tmp_path, path=None), store=store, clock=clock)
    one = Figures(
        slot="0", flushes=[5, 0, 0, 2, 0, 0, 0, 0, 1], flush_s=4.5, records=12, free_segments=3, unfiled=7,
        oldest_s=1.5, associations={"ct1": 2}, waiting=4,
    )  # fmt: skip
    other = replace(one, slot="1", associations={"ct1": 1}, waiting=1)
    found = Inspection(
        studies=1, instances=2, hashed=2, unfiled=0, findings=(Finding(kind=Kind.ROW_WITHOUT_FILE, place="store/1"),)
    )
    with store.begin() as tx:
        for process, figures in (("r1", one), ("r2", other)):
            log_figures.keep(tx, process, figures, until=clock.now() + timedelta(seconds=10))
        record.keep(tx, found, at=clock.now())
        reason = "the certificate is not the peer's; add it to key_sha256 if it is right: 00ff"
        refusals.record(tx, clock.now(), "192.0.2.9", "CT1", "ME", reason)
    lines = node.scrape().decode().splitlines()
    assert {
        'dicomguard_associations_open{peer="ct1"} 3.0',
        "dicomguard_connections_waiting 5.0",
        'dicomguard_log_segments_free{receiver="1"} 3.0',
        'dicomguard_filer_lag_seconds{receiver="0"} 1.5',
        'dicomguard_log_flush_seconds_bucket{le="0.001",receiver="0"} 5.0',
        'dicomguard_log_flush_seconds_bucket{le="0.03",receiver="0"} 7.0',
        'dicomguard_log_flush_seconds_bucket{le="+Inf",receiver="0"} 8.0',
        'dicomguard_log_flush_seconds_sum{receiver="0"} 4.5',
        'dicomguard_log_flush_seconds_count{receiver="0"} 8.0',
        'dicomguard_verify_findings{kind="row_without_file"} 1.0',
        'dicomguard_associations_refused{reason="the certificate is not the peer\'s"} 1.0',
    } <= set(lines)
    ready = node.ready()[1]["store"]
    assert (ready["state"], ready["findings"]) == ("yellow", {"row_without_file": 1})
    # A receiver that is gone is not shown.
    clock.advance(timedelta(seconds=11))
    assert 'receiver="0"' not in node.scrape().decode()


def test_an_inspection_that_does_not_come_turns_its_part_yellow(tmp_path: Path) -> None:
    clock = FakeClock(datetime(2026, 11, 24, 8, 0, tzinfo=UTC))
    store = open_store(tmp_path, "", clock)
    node = Node(config.load(None), store=store, clock=clock)
    assert node.ready()[1]["store"]["state"] == "green"
    clean = Inspection(studies=0, instances=0, hashed=0, unfiled=0, findings=())
    with store.begin() as tx:
        record.keep(tx, clean, at=clock.now())
    assert node.ready()[1]["store"]["state"] == "green"
    clock.advance(timedelta(days=3, hours=1))
    assert node.ready()[1]["store"]["state"] == "yellow"


def test_a_destination_that_does_not_keep_what_it_took_is_yellow(tmp_path: Path) -> None:
    """It refused, or has not answered for a day; one that was asked since then is as it should be."""
    clock = FakeClock(datetime(2026, 11, 24, 8, 0, tzinfo=UTC))
    store = open_store(tmp_path, "", clock)
    text = "".join(
        f'[destinations.{name}]\nae_title = "{name.upper()}"\nhost = "192.0.2.7"\nport = 104\ncommitment = true\n'
        for name in ("kept", "asked", "late", "failed")
    )
    node = Node(config.parse(text, base=tmp_path, path=None), store=store, clock=clock)
    key = send_study(store, tmp_path / "in", slices=1)
    clock.advance(timedelta(minutes=1))
    patience = Patience(quiet=timedelta(seconds=60), longest=timedelta(minutes=30))
    settings = completion.Settings(patience=patience, association_hold=timedelta(minutes=10))
    assert len(completion.open_complete(store, settings, now=clock.now())) == 1
    with store.begin() as tx:
        for name, state, hours in (
            ("kept", State.COMMITTED, 100),
            ("asked", State.ASKED, 23),
            ("late", State.ASKED, 24),
            ("failed", State.FAILED, 1),
        ):
            at = clock.now() - timedelta(hours=hours)
            way = Delivery(
                study_key=key, revision=1, destination=name, items=(Item(kind="SR", forms=("2.25.1",)),),
                planned_at=at, next_at=None,
            )  # fmt: skip
            deliveries.plan(tx, [way])
            asked = Commitment(
                study_key=key, revision=1, destination=name, parts=(), state=state, planned_at=at, next_at=None
            )
            commitments.save(tx, asked)
    parts = node.ready()[1]
    shown = {name: parts[f"destination {name}"] for name in ("kept", "asked", "late", "failed")}
    assert [one["state"] for one in shown.values()] == ["green", "green", "yellow", "yellow"]
    assert [one["commitment_late"] for one in shown.values()] == [0, 0, 1, 0]
    assert [one["not_committed"] for one in shown.values()] == [0, 0, 0, 1]
    lines = node.scrape().decode().splitlines()
    assert 'dicomguard_commitments_late{destination="late"} 1.0' in lines
    assert 'dicomguard_commitments_late{destination="asked"} 0.0' in lines
    assert 'dicomguard_commitments{destination="failed",state="failed"} 1.0' in lines


def test_metrics_count_what_was_set_aside_by_its_fault(tmp_path: Path) -> None:
    clock = FakeClock(datetime(2026, 11, 24, 8, 0, tzinfo=UTC))
    store = open_store(tmp_path, "", clock)
    node = Node(config.load(None), store=store, clock=clock)
    folder = store.root / set_aside.FOLDER
    folder.mkdir()
    for name, fault in (("00", set_aside.KILLED), ("01", "ValueError"), ("02", "ValueError")):
        text = {"row": {}, "size_bytes": 0, "head_bytes": 0, "fault": fault, "version": "0.1.0"}
        (folder / f"{name}.json").write_text(json.dumps(text))
    lines = node.scrape().decode().splitlines()
    assert 'dicomguard_instances_set_aside{fault="killed the receiver"} 1.0' in lines
    assert 'dicomguard_instances_set_aside{fault="ValueError"} 2.0' in lines
    log = node.ready()[1]["log"]
    assert (log["state"], log["set_aside"]) == ("yellow", 3)


def of_another_network(source: Path, target: Path) -> str:
    """A copy of weights whose head names the network of another version; returns the hash of its bytes."""
    with safe_open(source, "np") as file:
        record = file.metadata()["dicomguard"]
    save_file(load_file(source), target, metadata={"dicomguard": record.replace(weights.ARCHITECTURE, "older-1")})
    return hashlib.sha256(target.read_bytes()).hexdigest()


def test_a_model_that_this_version_cannot_run_is_yellow_until_it_is_rolled_back(tmp_path: Path) -> None:
    """What an upgrade meets: the model that was approved before it was made for another network."""
    clock = FakeClock(datetime(2026, 11, 24, 8, 0, tzinfo=UTC))
    store = open_store(tmp_path / "state", "", clock)
    node = Node(config.load(None), store=store, clock=clock)
    shipped = weights.read_head(weights.shipped())
    assert node.ready()[1]["model"] == {"state": "green", "id": shipped.id}
    sha256 = of_another_network(weights.shipped(), tmp_path / "older.safetensors")
    path = models.keep_weights(store, tmp_path / "older.safetensors", sha256)
    with store.begin() as tx:
        models.propose(
            tx, id=shipped.id, sha256=sha256, path=path, decision={}, rejected=False, by="ada", now=clock.now()
        )
        models.approve(tx, shipped.id, by="grace", two_people=True, now=clock.now())
    found = node.ready()[1]["model"]
    assert found["state"] == "yellow"
    assert 'fits the network "older-1"' in found["reason"] and "roll back" in found["reason"]
    (store.root / path).unlink()
    assert "Restore" in node.ready()[1]["model"]["reason"]
    approval.rollback(store, by="grace", now=clock.now())
    assert node.ready()[1]["model"]["state"] == "green"


def test_weights_of_the_configuration_that_are_not_there_are_yellow(tmp_path: Path) -> None:
    clock = FakeClock(datetime(2026, 11, 24, 8, 0, tzinfo=UTC))
    store = open_store(tmp_path / "state", "", clock)
    text = '[analysis]\nweights = "gone.safetensors"\n'
    node = Node(config.parse(text, base=tmp_path, path=None), store=store, clock=clock)
    assert node.ready()[1]["model"]["state"] == "yellow"


@dataclass(kw_only=True)
class Scripted:
    """A child that runs until a test says how it ended."""

    name: str
    exit_status: int | None = None

    def alive(self) -> bool:
        return self.exit_status is None

    def exit_reason(self) -> str:
        return f"ended with status {self.exit_status}"

    def kill(self) -> None:
        """It is dead as soon as the test says so."""

    def ask_to_reload(self) -> None:
        """What it makes of the configuration is no matter of its supervisor."""

    def ask_to_stop(self) -> None:
        self.exit_status = self.exit_status or 0

    def terminate(self, grace_s: float) -> None:
        self.ask_to_stop()


@dataclass(kw_only=True)
class Starter:
    """In place of `Child.start`: what was started, by module, and what is so each time."""

    started: list[Scripted] = field(default_factory=list)
    fail: bool = False
    refuses: str = ""

    def __call__(self, argv: Sequence[str], **limits: object) -> Scripted:
        if self.fail:
            raise Unavailable("It could not be started: Resource temporarily unavailable. Try again with less load.")
        module = argv[argv.index("-m") + 1]
        # Each process reads it first, and ends with 2 when it cannot.
        try:
            config.load(Path(argv[argv.index("--config") + 1]))
            refuses = module == self.refuses
        except Refused:
            refuses = True
        self.started.append(Scripted(name=module, exit_status=2 if refuses else None))
        return self.started[-1]

    def of(self, module: str) -> list[Scripted]:
        return [child for child in self.started if child.name == module]


class Steps(threading.Event):
    """The event that stops a node: each wait is half a second of its clock, and a step of the test."""

    def __init__(self, clock: FakeClock, steps: Iterator[object]) -> None:
        super().__init__()
        self._clock, self._steps = clock, steps

    def wait(self, timeout: float | None = None) -> bool:
        self._clock.advance(timedelta(seconds=0.5))
        return next(self._steps, self) is self


@pytest.fixture
def starter(monkeypatch: pytest.MonkeyPatch) -> Starter:
    made = Starter()
    monkeypatch.setattr("dicomguard.node.Child.start", made)
    return made


def run_through(
    folder: Path, steps: Callable[[Node], Iterator[object]], *, peers: str = "", reload: threading.Event | None = None
) -> None:
    """A node of scripted children on `node.toml`; its receiver and worker give a sign of life all the time."""
    clock = FakeClock(datetime(2026, 11, 24, 8, 0, tzinfo=UTC))
    store = open_store(folder, "", clock)
    with socket.create_server(("127.0.0.1", 0)) as page:
        text = (
            f"[node]\nport = {free_port()}\n[receive]\nprocesses = 1\n"
            f"[web]\nport = {page.getsockname()[1]}\nhealth_port = {free_port()}\n"
        )
        file = folder / "node.toml"
        file.write_text(text + peers)
        node = Node(config.load(file), store=store, clock=clock)
        with store.begin() as tx:
            for process, role in (("receiver-1", "receiver"), ("node:1", "worker")):
                later = clock.now() + timedelta(hours=1)
                executors.beat(tx, process, "node", later, later, role=role)
        node.run(Steps(clock, steps(node)), reload or threading.Event(), say=lambda line: None)


def test_a_child_that_refuses_at_the_start_ends_the_node(tmp_path: Path, starter: Starter) -> None:
    def steps(node: Node) -> Iterator[object]:
        yield None

    starter.refuses = "dicomguard.flow"
    with pytest.raises(Refused, match="The worker refuses to run; its reason stands above"):
        run_through(tmp_path, steps)
    assert [child.exit_status for child in starter.of("dicomguard.scp")] == [0]


def test_a_child_that_refuses_later_is_started_again_ever_more_seldom(tmp_path: Path, starter: Starter) -> None:
    """Its receivers would else stop over a fault that is the worker's alone."""
    began: list[float] = []

    def steps(node: Node) -> Iterator[object]:
        for half_second in range(140):
            if starter.of("dicomguard.flow")[-1].exit_status is None:
                began.append(half_second / 2)
                starter.of("dicomguard.flow")[-1].exit_status = 2
            else:
                assert node.ready()[1]["worker"]["state"] == "red"
            yield None

    run_through(tmp_path, steps)
    pauses = [int(after - before) for before, after in itertools.pairwise(began)]
    assert pauses[:5] == [1, 2, 4, 8, 16]
    assert len(starter.of("dicomguard.scp")) == 1


def test_a_child_that_the_system_cannot_start_is_tried_again(tmp_path: Path, starter: Starter) -> None:
    def steps(node: Node) -> Iterator[object]:
        starter.of("dicomguard.flow")[0].exit_status = -9
        starter.fail = True
        for _ in range(20):
            yield None
            assert node.ready()[1]["worker"]["state"] == "red"
        starter.fail = False
        for _ in range(20):
            yield None
        assert node.ready()[1]["worker"]["state"] == "green"

    run_through(tmp_path, steps)
    assert [len(starter.of(f"dicomguard.{room}")) for room in ("scp", "flow", "web")] == [1, 2, 1]


_TLS = "[tls]\nport = 2762\ncertificate = 'c'\nkey = 'k'\nauthorities = 'a'\n"
_PEER = "[peers.ct1]\nae_title = 'CT1'\naddresses = ['192.0.2.7']\n"


def test_a_file_of_which_only_the_half_could_be_taken_over_is_refused_as_a_whole(
    tmp_path: Path, starter: Starter, caplog: pytest.LogCaptureFixture
) -> None:
    """TLS waits for a restart, the key of the peer does not: what dies later was started on a mix that all refuse."""
    caplog.set_level(logging.INFO, "dicomguard.node")
    reload = threading.Event()

    def steps(node: Node) -> Iterator[object]:
        yield None
        file = tmp_path / "node.toml"
        key = f"key_sha256 = ['{'0' * 64}']\n"
        file.write_text(file.read_text() + key + _TLS)
        assert config.load(file).peers[0].key_sha256
        reload.set()
        yield None
        starter.of("dicomguard.flow")[0].exit_status = -9
        for _ in range(20):
            yield None
        assert node.ready()[1]["worker"]["state"] == "green"

    run_through(tmp_path, steps, peers=_PEER, reload=reload)
    assert len(starter.of("dicomguard.flow")) == 2
    lines = [json.loads(JsonLines(FakeClock(datetime(2026, 11, 24, tzinfo=UTC))).format(one)) for one in caplog.records]
    said = [line for line in lines if line["event"].startswith("configuration.")]
    assert [line["event"] for line in said] == ["configuration.refused"]
    assert "belong together" in said[0]["reason"]
