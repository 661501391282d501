"""The whole circle of retraining, small: a real worker process, real children, real planes of five persons.

0. The model that judges was trained on the same few planes, so that a few steps more can be as good. 1. Cases arrive,
one person adds them, another accepts them. 2. The clock passes Saturday night; the schedule asks for
the week's run. 3. The worker freezes, trains from the incumbent, evaluates both on the golden set. 4. A second person
approves; the next study's SR names the new model. 5. Rollback; the next SR names the old one. 6. A candidate that was
spoilt is refused with its reason.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar

import numpy as np
import pydicom
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from dicomguard import config
from dicomguard.analyze import weights
from dicomguard.clock import FakeClock, SystemClock
from dicomguard.errors import Refused, Unavailable
from dicomguard.flow import approval, retraining
from dicomguard.flow.client import Client
from dicomguard.retrain import client, dataset
from dicomguard.retrain.archive import adding, contents, frozen, review
from dicomguard.retrain.archive.importers import slices
from dicomguard.retrain.tamper.study import Acquisition, write_planes
from dicomguard.store import models, results, runs, worklist
from dicomguard.store.db import Store, open_store
from dicomguard.store.intake import Sender, receive_file
from tests.conftest import ROOT

T = TypeVar("T")
PLANES = ROOT / "tests" / "data" / "planes"
COMMAND = [sys.executable, "-m", "dicomguard.flow", "--config"]
MONDAY = datetime(2026, 11, 23, 9, 0, tzinfo=UTC)
SUNDAY = MONDAY + timedelta(days=6)


def curate(archive: Path, store: Store) -> None:
    """Ada adds, Grace accepts; Ada cannot accept her own."""
    clock = FakeClock(MONDAY)
    for new in slices.read(PLANES, licence="CC BY 3.0"):
        case = adding.add(archive, new, curator="ada", clock=clock, disk=store.disk)
        with pytest.raises(Refused, match="second person"):
            review.review(archive, case.case_id, by="ada", accepted=True, clock=clock, disk=store.disk)
        review.review(archive, case.case_id, by="grace", accepted=True, clock=clock, disk=store.disk)
    assert {entry.case.split for entry in contents.read(archive).accepted()} == {"train", "validation", "test"}


@contextmanager
def worker(file: Path, log: Path) -> Iterator[None]:
    """The node's worker as a process of its own."""
    with log.open("ab") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "dicomguard.flow", "--config", str(file)], cwd=ROOT, stderr=out
        )
    try:
        yield
        assert process.poll() is None, log.read_text()
    finally:
        process.terminate()
        process.wait(30)


def wait(what: str, seconds: float, look: Callable[[], T | None]) -> T:
    """Ask until there is an answer."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = look()
        if found is not None:
            return found
        time.sleep(0.1)
    raise AssertionError(f"{what} did not come within {seconds} s")


def ended(store: Store, key: str) -> runs.RunRow:
    """The run when it waits for nobody but a person."""

    def look() -> runs.RunRow | None:
        with store.read() as tx:
            row = runs.row(tx, key)
        return row if row is not None and row.ended else None

    return wait("the end of the run", 600, look)


def model_in_next_report(store: Store, folder: Path, number: int) -> str:
    """Receive a study, let the worker report on it, and give all texts of its SR."""
    series = next(one for one in dataset.read_index(PLANES) if one.patient == "btp-09")
    pixels = dataset.read_pixels(PLANES, series).stored[:3].astype(np.float32)
    acquisition = Acquisition(
        key=f"study {number}", sequence="t1c", bits=16, spacing_mm=(0.86, 0.86), positions_mm=(0.0, 6.5, 13.0)
    )
    key = ""
    for path, _ in write_planes(pixels, acquisition, folder / str(number)):
        key = (
            receive_file(store, Sender(peer="", calling_ae="", called_ae="", address=""), path, channel="cli").study_key
            or ""
        )
    Client(store, SystemClock()).force(key, by="mary")

    def look() -> str | None:
        with store.read() as tx:
            row = worklist.row(tx, key)
            assert row is not None and row.state != "failed", row
            reports = [item for item in results.of_revision(tx, key, 1) if item.kind == "SR"] if row.revision else []
        return str(pydicom.dcmread(store.root / reports[0].path)) if reports else None

    return wait("the SR", 300, look)


def last_month(archive: Path, store: Store, folder: Path) -> models.ModelRow:
    """The model that judges when the test begins."""
    frozen.freeze(archive, folder)
    made = client.train(
        folder / frozen.TRAIN,
        folder,
        incumbent=weights.shipped(),
        seed=1,
        minutes=5,
        small=True,
        device="",
        version="last month",
        nice=0,
    )
    path = models.keep_weights(store, Path(made["candidate"]), made["sha256"])
    with store.begin() as tx:
        models.propose(
            tx, id=made["id"], sha256=made["sha256"], path=path, decision={}, rejected=False, by="ada", now=MONDAY
        )
        return models.approve(tx, made["id"], by="grace", two_people=True, now=MONDAY)


def spoil(source: Path, target: Path) -> None:
    """The incumbent with noise of the size of its weights: a network that has forgotten all."""
    rng = np.random.default_rng(1)
    tensors = {
        name: (value + rng.normal(0, 2 * value.std() + 1e-3, value.shape)).astype(value.dtype)
        if value.dtype.kind == "f" and "running_var" not in name
        else value
        for name, value in load_file(source).items()
    }
    with safe_open(source, "np") as file:
        record = file.metadata()["dicomguard"]
    target.parent.mkdir(parents=True)
    save_file(tensors, target, metadata={"dicomguard": record.replace(weights.read_head(source).id, "spoilt-1")})


@pytest.mark.smoke
@pytest.mark.timeout(1200)
def test_from_cases_to_a_report_by_the_new_model_and_back(tmp_path: Path) -> None:
    archive, state = tmp_path / "archive", tmp_path / "state"
    file = tmp_path / "node.toml"
    file.write_text(
        f'[node]\nstate = "{state}"\n[retrain]\narchive = "{archive}"\ncron = "0 2 * * 6"\nsmall = true\nnice = 0\n'
        "[completion]\nquiet_s = 600\n[analysis]\nthreads = 1\n"
    )
    settings = config.load(file)
    store = open_store(state, settings.database_url, SystemClock())
    curate(archive, store)
    old = last_month(archive, store, tmp_path / "last month")

    clock = FakeClock(MONDAY)
    with retraining.schedule(store, settings, clock), store.read() as tx:
        assert runs.listing(tx) == [], "a node set up on Monday owes nothing for last Saturday"
    clock.advance(SUNDAY - MONDAY)
    for _ in range(2):
        with retraining.schedule(store, settings, clock), store.read() as tx:
            (run,) = runs.listing(tx)
    assert (run.period, run.state, run.started_by) == ("retrain-2026-W48", "asked", "schedule")

    with worker(file, tmp_path / "worker.log"):
        run = ended(store, run.key)
        assert run.state == "waiting", run.message
        with store.read() as tx:
            (candidate,) = (row for row in models.listing(tx) if row.id != old.id)
        assert candidate.sha256 == run.candidate_sha256 != old.sha256
        report = json.loads((state / run.report_path).read_bytes())
        assert report["incumbent"]["model_id"] == old.id
        assert (state / run.report_path).with_suffix(".html").is_file()

        assert old.id in model_in_next_report(store, tmp_path, 1)
        with pytest.raises(Refused, match="ada started the run or added its cases"):
            approval.approve(store, candidate.id, by="ada", two_people=True, now=SUNDAY)
        approval.approve(store, candidate.id, by="grace", two_people=True, now=SUNDAY)
        assert candidate.id in model_in_next_report(store, tmp_path, 2)
        approval.rollback(store, by="grace", now=SUNDAY)
        after = model_in_next_report(store, tmp_path, 3)
        assert old.id in after and candidate.id not in after

        with store.begin() as tx:
            worse = runs.ask(tx, "by-hand-1", by="mary", now=SUNDAY)
            # Where the trainer would put its result; the worker sees the row only after this block.
            spoil(state / old.path, state / retraining.FOLDER / worse.key / "candidate.safetensors")
        worse = ended(store, worse.key)
    assert worse.state == "refused", worse.message
    assert "incumbent" in worse.message
    with store.read() as tx:
        current = models.current(tx)
    assert current is not None and current.id == old.id
    store.close()


@pytest.mark.timeout(1200)
def test_training_that_is_killed_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    """1. The child is killed after its last step, while it calibrates. 2. The same job again trains no step twice."""
    archive = tmp_path / "archive"
    store = open_store(tmp_path / "state", "", SystemClock())
    curate(archive, store)
    store.close()
    frozen.freeze(archive, tmp_path / "run")
    stages: list[str] = []

    def train() -> dict[str, object]:
        return client.train(
            tmp_path / "run" / frozen.TRAIN,
            tmp_path / "run",
            incumbent=weights.shipped(),
            seed=1,
            minutes=5,
            small=True,
            device="",
            version="w48",
            nice=0,
            progress=lambda line: stages.append(str(line["stage"])),
            stop=lambda: stages.count("calibrating") == 1,
        )

    with pytest.raises(Unavailable, match="go on from its last checkpoint"):
        train()
    assert "joint" in stages and not (tmp_path / "run" / "candidate.safetensors").exists()
    done = len(stages)
    stages.append("calibrating")
    made = train()
    assert set(stages[done:]) == {"calibrating"}, "a step was trained again"
    assert weights.read_head(tmp_path / "run" / "candidate.safetensors").sha256 == made["sha256"]
