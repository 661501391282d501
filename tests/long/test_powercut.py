"""Two thousand power cuts of receiver and worker: acknowledged and missing 0, torn 0, results kept before they go out.

Recorded runs hold what the short one in tests/fault does not: a kill and a start on what it left, transfers that are
aborted, cuts in the recovery from a cut, and the worker, which then has to finish with the same results.
"""

import contextlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pydicom
import pytest

from dicomguard.clock import SystemClock
from dicomguard.store import worklist
from dicomguard.store.db import open_store
from tests.fault import world
from tests.fault.world import run_worker
from tests.peers import storescp
from tests.powercut import choices, plants, prover, runs
from tests.powercut.disk import Disk
from tests.powercut.strace import Unsupported
from tests.powercut.trace import Event, Trace

Need = Callable[[str, str], str]
Record = Callable[[str, object], None]
Recorded = tuple[Trace, prover.Sent]
pytestmark = pytest.mark.timeout(3600)


def kept(verdict: prover.Verdict, record: Record) -> None:
    """Print and record what was replayed; no promise is broken in it."""
    print(verdict.say())
    record("power cuts: replayed", verdict.cuts)
    record("power cuts: distinct states", verdict.states)
    record("power cuts: broken promises", len(verdict.findings))
    assert not verdict.findings, verdict.say()


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Path]:
    """A folder for states, in memory where there is some: the disk of this machine is not on trial."""
    with contextlib.ExitStack() as stack:
        yield runs.memory_folder(tmp_path, stack)


def again(record: Callable[[Path], Recorded], folder: Path) -> Recorded:
    """A kill can hit a call whose effect nobody knows: record once more then."""
    for attempt in range(5):
        with contextlib.suppress(Unsupported):
            return record(folder / str(attempt))
    return record(folder / "last")


def record_receiver(folder: Path, strace: str, *, seed: int, order: str) -> Recorded:
    """Receive and abort, die in the middle of receiving, start again, receive, stop."""
    recording, sent = runs.Recording(folder, strace), runs.Sent()
    recording.install()
    first, dying, last = (
        runs.studies(folder / name, senders=3, instances=7, sizes=runs.SIZES, seed=10 * seed + number)
        for number, name in enumerate(("first", "dying", "last"))
    )
    with recording.receiver(more=runs.RECEIVERS[order]) as live:
        runs.send_all(live, first, sent)
        runs.abort(live, first[0][0], pdus=3)
        runs.send_until(live, dying, sent, after=10)
    with recording.receiver(more=runs.RECEIVERS[order]) as live:
        runs.send_all(live, last, sent)
        assert live.stop() == 0
    return recording.trace(), sent.datasets


@pytest.mark.parametrize(("order", "seed"), [("log", 1), ("log", 2), ("log", 3), ("literal", 4)])
def test_five_hundred_cuts_of_a_receiver(
    order: str, seed: int, tmp_path: Path, memory: Path, need: Need, record_property: Record
) -> None:
    strace = runs.tracer(need)
    trace, sent = again(lambda folder: record_receiver(folder, strace, seed=seed, order=order), tmp_path)
    verdict = prover.prove(trace, sent, memory, count=650, rng=np.random.default_rng(seed))
    kept(verdict, record_property)
    assert verdict.states >= 500
    assert verdict.acknowledged >= 50


def test_cuts_in_the_recovery_from_a_cut(tmp_path: Path, memory: Path, need: Need, record_property: Record) -> None:
    """The receiver starts on what a cut left, and the power goes again; what was acknowledged before stays."""
    strace = runs.tracer(need)
    trace, sent = again(lambda folder: record_receiver(folder, strace, seed=5, order="log"), tmp_path / "run")
    rng, disk, states = np.random.default_rng(5), Disk(trace), 0
    for number, cut in enumerate(prover.cuts(trace, 8, rng)):
        before = prover.promise(trace, sent, cut)
        recording = runs.Recording(tmp_path / f"recovery-{number}", strace)
        shutil.rmtree(recording.watched)
        prover.lay_out(disk.after(cut, choices.draw(disk.pending(cut), rng)), recording.watched)
        with recording.receiver(more=runs.RECEIVERS["log"]) as live:
            assert live.stop() == 0
        verdict = prover.prove(recording.trace(), {}, memory, count=40, rng=rng, given=before)
        kept(verdict, record_property)
        states += verdict.states
    print(f"{states} distinct states of a recovery that was cut")
    assert states >= 50


@pytest.mark.parametrize("order", runs.RECEIVERS)
def test_every_missing_sync_of_a_receiver_is_found(order: str, tmp_path: Path, memory: Path, need: Need) -> None:
    strace = runs.tracer(need)
    trace, sent = again(lambda folder: record_receiver(folder, strace, seed=6, order=order), tmp_path)
    for name, plant in plants.RECEIVER.items():
        planted = trace.without(plant)
        if order == "literal" and name in ("log", "checkpoint"):
            assert len(planted.events) == len(trace.events)
            continue
        assert len(planted.events) < len(trace.events)
        verdict = prover.prove(planted, sent, memory, count=400, rng=np.random.default_rng(7), until_found=True)
        print(f"{name}: {verdict.say()}")
        assert verdict.findings, f"the missing sync of the {name} was not found"


def test_cuts_after_the_first_start(tmp_path: Path, memory: Path, need: Need, record_property: Record) -> None:
    """The state folder itself is new: its own name has to last."""
    recording, sent = runs.Recording(tmp_path, runs.tracer(need)), runs.Sent()
    files = runs.studies(tmp_path / "in", senders=1, instances=4, sizes=runs.SIZES, seed=7)
    with recording.receiver(more=runs.RECEIVERS["log"]) as live:
        runs.send_all(live, files, sent)
        assert live.stop() == 0
    verdict = prover.prove(recording.trace(), sent.datasets, memory, count=150, rng=np.random.default_rng(9))
    kept(verdict, record_property)


# ---- the worker -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def worked(tmp_path_factory: pytest.TempPathFactory, need: Need) -> tuple[Trace, Sequence[str]]:
    """A worker that reports two studies: its trace, and the keys of the studies."""
    folder = tmp_path_factory.mktemp("worked")
    recording = runs.Recording(folder, runs.tracer(need))
    state = recording.install()
    store = open_store(state, "", SystemClock())
    keys = [world.send_study(store, folder / "in", number=number) for number in range(2)]
    store.close()
    with storescp(need, folder / "archive", ae_title="ARCHIVE", options=("-ll", "fatal")) as archive:
        plan = world.Plan(state=str(state), destinations={"archive": archive.port}, until_idle=True)
        with recording.worker(plan) as tracer:
            assert tracer.wait(120) == 0
    trace = recording.trace()
    # A SEG and an SR of each.
    assert len(set(trace.marks("announced"))) == 4
    return trace, keys


def test_six_hundred_cuts_of_a_worker(
    worked: tuple[Trace, Sequence[str]], memory: Path, record_property: Record
) -> None:
    verdict = prover.prove(worked[0], {}, memory, count=900, rng=np.random.default_rng(6))
    kept(verdict, record_property)
    assert verdict.states >= 600
    assert verdict.announced == 4


@pytest.mark.parametrize(("name", "plant"), plants.WORKER.items(), ids=plants.WORKER)
def test_a_missing_sync_of_a_result_is_found(
    name: str, plant: Callable[[Event], bool], worked: tuple[Trace, Sequence[str]], memory: Path
) -> None:
    trace = worked[0].without(plant)
    assert len(trace.events) < len(worked[0].events)
    verdict = prover.prove(trace, {}, memory, count=400, rng=np.random.default_rng(7), until_found=True)
    print(verdict.say())
    assert verdict.findings, f"the missing sync of the {name} was not found"


def test_a_worker_ends_with_one_set_of_results_after_a_cut(
    worked: tuple[Trace, Sequence[str]], tmp_path: Path, memory: Path, need: Need
) -> None:
    """What was on its way when the power went, and what goes out afterwards, is one SEG and one SR for each study."""
    trace, keys = worked
    rng, disk = np.random.default_rng(8), Disk(trace)
    for number, cut in enumerate(prover.cuts(trace, 10, rng)):
        folder = memory / str(number)
        prover.lay_out(disk.after(cut, choices.draw(disk.pending(cut), rng)), folder)
        state = str(folder / "state")
        before = set(trace.marks("announced", before=cut))
        with storescp(need, tmp_path / str(number), ae_title="ARCHIVE", options=("-ll", "fatal")) as archive:
            assert run_worker(120, state=state, destinations={"archive": archive.port}, until_idle=True) == 0
            after = {str(pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID) for path in archive.files()}
        assert len(before | after) == 4
        store = open_store(Path(state), "", SystemClock())
        with store.read() as tx:
            rows = [worklist.row(tx, key) for key in keys]
        store.close()
        assert [(row.state, row.revision) for row in rows if row is not None] == [("done", 1)] * 2
