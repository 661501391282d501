"""The traps of the workflow engine that concern correctness and safety, each as it would bite.

Rows are planted and read with the database's own library, as an attacker or a
crash would leave them.
"""

import json
import os
import pickle
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from demo.ports import free_port
from dicomguard.clock import SystemClock
from dicomguard.flow import client
from dicomguard.store import deliveries, results, studies, worklist
from dicomguard.store.db import Store, open_store
from tests.conftest import ROOT
from tests.fault import world
from tests.peers import storescp, wait_for

Need = Callable[[str, str], str]


class Worker:
    """A worker process; its log lies beside the state folder."""

    def __init__(self, state: Path, *, environment: dict[str, str] | None = None, **plan: object) -> None:
        self.log = state.parent / f"log-{time.monotonic_ns()}"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.fault.world", json.dumps({"state": str(state), **plan})],
                cwd=ROOT,
                stderr=log,
                env={**os.environ, **(environment or {})},
            )

    def ended(self, seconds: float = 40) -> int:
        """Its exit status."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise AssertionError(self.log.read_text()) from None

    def stop(self) -> None:
        """End in order."""
        self.process.terminate()
        self.ended()

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """Where the node keeps everything."""
    return tmp_path / "state"


@pytest.fixture
def store(state: Path) -> Store:
    """A view of it from outside."""
    return open_store(state, "", SystemClock())


def state_of(store: Store, key: str, number: int = 1) -> str | None:
    """State of a revision."""
    with store.read() as tx:
        return studies.state(tx, key, number)


def test_trap_1_a_second_worker_on_one_state_folder_is_refused(state: Path, store: Store) -> None:
    with Worker(state) as first:
        wait_for(lambda: "executor.started" in first.log.read_text(), what="the first worker")
        second = Worker(state)
        assert second.ended() != 0
        assert f"is in use by another worker (process {first.process.pid})" in second.log.read_text()


def test_trap_1_an_executor_id_is_never_used_again(state: Path, store: Store) -> None:
    ids = set()
    for _ in range(2):
        worker = Worker(state, until_idle=True)
        assert worker.ended() == 0
        ids |= {
            json.loads(line)["executor"] for line in worker.log.read_text().splitlines() if "executor.started" in line
        }
    assert len(ids) == 2


def test_traps_2_and_4_work_of_a_dead_worker_of_another_name_and_environment_is_finished(
    state: Path, store: Store, tmp_path: Path
) -> None:
    """A dies in a step; B has another node name and an environment that would change its version and id."""
    key = world.send_study(store, tmp_path / "in")
    assert Worker(state, deaths=[[key, "build", "before"]], node="node-a").ended() == -9
    assert state_of(store, key) == "judged"
    began = time.monotonic()
    forced = {"DBOS__APPVERSION": "edited", "DBOS__VMID": "local", "DBOS__CLOUD": "true"}
    b = Worker(state, node="node-b", until_idle=True, environment=forced)
    assert b.ended() == 0
    # Lease 2 s, and the time of a slow machine.
    assert time.monotonic() - began < 30
    assert state_of(store, key) == "done"


def test_trap_3_take_over_goes_on_until_nothing_is_left(state: Path, store: Store, tmp_path: Path) -> None:
    """A take-over that does half the work (here: its executor row is gone, the work is not) is done again."""
    key = world.send_study(store, tmp_path / "in")
    assert Worker(state, deaths=[[key, "build", "before"]], node="node-a").ended() == -9
    with sqlite3.connect(state / "node.sqlite") as database:
        assert database.execute("DELETE FROM executor").rowcount == 1
    assert Worker(state, node="node-b", until_idle=True).ended() == 0
    assert state_of(store, key) == "done"


def test_trap_5_a_planted_pickle_is_not_read(state: Path, store: Store, tmp_path: Path) -> None:
    """A row that says py_pickle and would run a command ends in ERROR, and the command does not run."""

    class Bomb:
        def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
            return os.system, (f"touch {tmp_path / 'ran'}",)

    import base64

    assert Worker(state, until_idle=True).ended() == 0
    bomb = base64.b64encode(pickle.dumps({"args": (Bomb(),), "kwargs": {}})).decode()
    with sqlite3.connect(state / "work.sqlite") as database:
        columns = [row[1] for row in database.execute("PRAGMA table_info(workflow_status)")]
        values = {
            "workflow_uuid": "study/planted/r1",
            "status": "ENQUEUED",
            "name": "study_v1",
            "queue_name": "study",
            "application_version": "dicomguard-1",
            "serialization": "py_pickle",
            "recovery_attempts": 0,
            "priority": 0,
            "created_at": 0,
            "updated_at": 0,
            **({"inputs": bomb} if "inputs" in columns else {}),
        }
        values = {name: value for name, value in values.items() if name in columns}
        names, marks = ", ".join(values), ", ".join("?" for _ in values)
        database.execute(f"INSERT INTO workflow_status ({names}) VALUES ({marks})", list(values.values()))
        tables = {row[0] for row in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if "workflow_input" in tables:
            wide = [row[1] for row in database.execute("PRAGMA table_info(workflow_input)")]
            row = {"workflow_uuid": "study/planted/r1", "inputs": bomb, "serialization": "py_pickle"}
            row = {name: value for name, value in row.items() if name in wide}
            database.execute(
                f"INSERT INTO workflow_input ({', '.join(row)}) VALUES ({', '.join('?' for _ in row)})",
                list(row.values()),
            )

    def status() -> str:
        with sqlite3.connect(state / "work.sqlite") as reader:
            return str(
                reader.execute(
                    "SELECT status FROM workflow_status WHERE workflow_uuid = 'study/planted/r1'"
                ).fetchone()[0]
            )

    with Worker(state):
        wait_for(lambda: status() not in ("ENQUEUED", "PENDING"), seconds=15, what="the end of the planted row")
    assert status() == "ERROR"
    assert not (tmp_path / "ran").exists()


def test_trap_6_a_study_that_kills_its_child_is_reported_as_not_analysable(
    state: Path, store: Store, tmp_path: Path, need: Need
) -> None:
    key = world.send_study(store, tmp_path / "in")
    with storescp(need, tmp_path / "archive") as archive:
        worker = Worker(state, analysis="child dies", until_idle=True, destinations={"archive": archive.port})
        assert worker.ended() == 0
        assert len(archive.files()) == 1
    with store.read() as tx:
        row = worklist.row(tx, key)
        assert [item.kind for item in results.of_revision(tx, key, 1)] == ["SR", "SR-2D"]
    assert row is not None
    assert (row.state, row.category, row.score) == ("done", "not_analysable", None)
    assert (state / "analyses").stat().st_size == 2


def test_trap_6_a_study_that_kills_the_worker_each_time_is_reported_too(
    state: Path, store: Store, tmp_path: Path
) -> None:
    """Once and three recoveries, then its pixels stay closed."""
    key = world.send_study(store, tmp_path / "in")
    statuses = []
    for _ in range(7):
        statuses.append(Worker(state, analysis="process dies", until_idle=True).ended())
        if statuses[-1] == 0:
            break
    assert statuses == [-9, -9, -9, -9, 0]
    with store.read() as tx:
        row = worklist.row(tx, key)
    assert row is not None
    assert (row.state, row.category) == ("done", "not_analysable")


def test_trap_7_recovered_work_stays_on_its_queue(state: Path, store: Store, tmp_path: Path) -> None:
    """Two studies are under way when the worker dies; the next one still judges one at a time, on the queue."""
    keys = [world.send_study(store, tmp_path / "in", number=n) for n in (1, 2)]
    assert Worker(state, deaths=[[key, "build", "before"] for key in keys]).ended() == -9
    assert Worker(state, until_idle=True).ended() == 0
    with sqlite3.connect(state / "work.sqlite") as database:
        queues = dict(database.execute("SELECT workflow_uuid, queue_name FROM workflow_status").fetchall())
    assert {queues[f"study/{key}/r1"] for key in keys} == {"study"}


def test_trap_8_retry_is_a_new_attempt(state: Path, store: Store, tmp_path: Path) -> None:
    """A final workflow cannot be resumed; what a person retries is delivered by attempts with new ids."""
    key = world.send_study(store, tmp_path / "in")
    port = free_port()
    with Worker(state, destinations={"archive": port}, first_retry_s=600) as worker:
        wait_for(lambda: "delivery.attempted" in worker.log.read_text(), what="the failed attempt")
        worker.stop()
    client.Client(store, SystemClock()).retry(key, "admin")
    with store.read() as tx:
        (delivery,) = deliveries.of_study(tx, key)
    assert delivery.attempt == 2
    with Worker(state, destinations={"archive": port}, first_retry_s=600) as worker:
        wait_for(lambda: "delivery.attempted" in worker.log.read_text(), seconds=10, what="the retried attempt")


def test_trap_9_the_child_of_a_cancelled_study_is_gone_within_two_seconds(
    state: Path, store: Store, tmp_path: Path
) -> None:
    """1. The child is at work. 2. A person cancels. 3. The child is gone, nothing is reported, the next study is."""
    key = world.send_study(store, tmp_path / "in")
    with Worker(state, analysis="child hangs", destinations={"archive": free_port()}) as worker:
        wait_for(lambda: (state / "child").is_file() and bool((state / "child").read_text()), what="the child")
        pid = int((state / "child").read_text())
        assert Path(f"/proc/{pid}").exists()
        client.Client(store, SystemClock()).cancel(key, "anna")
        wait_for(lambda: not Path(f"/proc/{pid}").exists(), seconds=2.0, what="the end of the child")
        wait_for(lambda: "study.withdrawn" in worker.log.read_text(), seconds=5, what="the end of the step")
        worker.stop()
    assert state_of(store, key) == "cancelled"
    with store.read() as tx:
        assert results.of_revision(tx, key, 1) == []
        assert deliveries.of_study(tx, key) == []
    other = world.send_study(store, tmp_path / "in", number=2)
    assert Worker(state, until_idle=True).ended() == 0
    assert (state_of(store, key), state_of(store, other)) == ("cancelled", "done")


def test_trap_11_the_work_database_has_a_write_ahead_log(state: Path, store: Store) -> None:
    assert Worker(state, until_idle=True).ended() == 0
    with sqlite3.connect(state / "work.sqlite") as database:
        assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)


# An engine of its own with one workflow, which waits and adds a byte to a file; figures as JSON on standard output.
_PARTITIONS = """
import json, sys, time
from pathlib import Path
from dicomguard.flow.engine import DELIVER, Engine
folder = Path(sys.argv[1])
engine = Engine(node="n", database_url=f"sqlite:///{folder / 'work.sqlite'}")
def work(_engine, destination, seconds):
    def effect():
        began = time.monotonic()
        time.sleep(seconds)
        with (folder / destination).open("ab") as file:
            file.write(b".")
        return began
    return engine.step("effect", effect)
engine.register("work", work)
engine.launch()
for number in range(40):
    engine.enqueue(DELIVER, "work", "slow", 0.5, workflow_id=f"slow/{number}", partition="slow")
for number in (0, 1, 2, 3, 0, 1):
    engine.enqueue(DELIVER, "work", "quick", 0.0, workflow_id=f"quick/{number}", partition="quick")
while not (folder / "quick").is_file() or (folder / "quick").stat().st_size < 4:
    time.sleep(0.01)
time.sleep(1.0)
done = {name: (folder / name).stat().st_size for name in ("quick", "slow")}
print(json.dumps(done))
sys.stdout.flush()
import os
os._exit(0)
"""


def test_traps_10_12_and_17_destinations_do_not_wait_for_each_other_and_an_id_runs_once(tmp_path: Path) -> None:
    """Forty jobs of half a second for one destination; four for another, two of which are asked for twice."""
    done = subprocess.run(
        [sys.executable, "-c", _PARTITIONS, str(tmp_path)],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    figures = json.loads(done.stdout.splitlines()[-1])
    assert figures["quick"] == 4
    assert 0 < figures["slow"] < 40


def test_trap_13_ended_workflows_are_forgotten_after_their_time(state: Path, store: Store, tmp_path: Path) -> None:
    key = world.send_study(store, tmp_path / "in")
    assert Worker(state, until_idle=True).ended() == 0

    def kept() -> int:
        with sqlite3.connect(state / "work.sqlite") as database:
            return int(database.execute("SELECT count(*) FROM workflow_status").fetchone()[0])

    assert kept() == 1
    with Worker(state, keep_workflows_s=0.5):
        wait_for(lambda: kept() == 0, seconds=15, what="the purge")
    assert state_of(store, key) == "done"


def test_trap_14_no_patient_and_no_uid_in_the_log(state: Path, store: Store, tmp_path: Path) -> None:
    """Also when a step fails with the values in its hands."""
    keys = [world.send_study(store, tmp_path / "in", number=n) for n in (1, 2)]
    with store.read() as tx:
        broken = studies.revisions(tx, keys[1]) or worklist.row(tx, keys[1])
        assert broken
    for path in (state / "store").rglob("*.dcm"):
        if keys[1] in str(path):
            path.write_bytes(path.read_bytes()[:400])
    worker = Worker(state, until_idle=True, destinations={"archive": free_port()}, analysis="ok")
    wait_for(lambda: "delivery.attempted" in worker.log.read_text(), seconds=20, what="a delivery")
    worker.stop()
    text = worker.log.read_text()
    assert keys[0] in text
    assert "Faultless" not in text
    assert "1.2.826.0.1" not in text
    # What could not be judged is told to its sender all the same.
    with store.read() as tx:
        row = worklist.row(tx, keys[1])
    assert row is not None
    assert (row.state, row.category) == ("delivering", "not_analysable")


def test_a_late_instance_takes_the_place_of_a_revision_that_was_not_sent(
    state: Path, store: Store, tmp_path: Path, need: Need
) -> None:
    """r1 is under analysis when another slice comes: only r2 reports, and it names no predecessor."""
    key = world.send_study(store, tmp_path / "in", slices=4)
    with storescp(need, tmp_path / "archive") as archive:
        with Worker(state, analysis="slow", destinations={"archive": archive.port}) as worker:
            wait_for(lambda: state_of(store, key) == "analysing", what="the analysis")
            world.send_study(store, tmp_path / "in", slices=1, first=4)
            wait_for(lambda: state_of(store, key) == "superseded", what="the second revision")
            wait_for(lambda: "study.withdrawn" in worker.log.read_text(), seconds=5, what="the end of the first")
            worker.stop()
        assert Worker(state, until_idle=True, destinations={"archive": archive.port}).ended() == 0
        assert len(archive.files()) == 2
    assert (state_of(store, key, 1), state_of(store, key, 2)) == ("superseded", "done")
    with store.read() as tx:
        assert results.of_revision(tx, key, 1) == []


def test_a_late_instance_after_the_report_makes_a_report_that_names_it(
    state: Path, store: Store, tmp_path: Path, need: Need
) -> None:
    import pydicom

    key = world.send_study(store, tmp_path / "in", slices=4)
    with storescp(need, tmp_path / "archive") as archive:
        assert Worker(state, until_idle=True, destinations={"archive": archive.port}).ended() == 0
        world.send_study(store, tmp_path / "in", slices=1, first=4)
        assert Worker(state, until_idle=True, destinations={"archive": archive.port}).ended() == 0
        reports = [ds for ds in map(pydicom.dcmread, archive.files()) if ds.Modality == "SR"]
    assert (state_of(store, key, 1), state_of(store, key, 2)) == ("done", "done")
    first, second = sorted(reports, key=lambda ds: int(ds.InstanceNumber))
    named = second.PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence[0]
    assert named.ReferencedSOPInstanceUID == first.SOPInstanceUID
    assert "PredecessorDocumentsSequence" not in first
