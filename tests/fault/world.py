"""A worker with everything real except the network's judgement: studies, a steered analysis, and places to die at.

Run as `python -m tests.fault.world JSON` by the tests of this tier; each process is one worker.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from pydicom import dcmwrite
from pydicom.dataset import Dataset

from dicomguard import log
from dicomguard.analyze import masks, weights
from dicomguard.analyze.client import model_of, software
from dicomguard.child import Child, ChildEnded, ChildSilent
from dicomguard.clock import SystemClock
from dicomguard.core import commitment as core_commitment
from dicomguard.core.completion import Patience
from dicomguard.core.delivery import Backoff
from dicomguard.core.finding import Coverage
from dicomguard.core.job import AnalysisJob, AnalysisReport
from dicomguard.core.peer import Destination
from dicomguard.core.routing import Route
from dicomguard.core.verdict import (
    Masks,
    Predecessor,
    Score,
    SliceReport,
    Study,
    Verdict,
    series_report,
)
from dicomguard.deliver.association import Timeouts
from dicomguard.errors import DicomguardError
from dicomguard.flow import commitment, completion, delivery, study, sweep
from dicomguard.flow.engine import Engine, lock_state, work_database
from dicomguard.flow.states import BEFORE_DELIVERY, DELIVERING
from dicomguard.store import commitments, studies
from dicomguard.store.db import Store, make_wal, open_store
from dicomguard.store.intake import Sender, receive_file
from tests import sr_cases
from tests.conftest import ROOT

DESTINATION = "archive"
# For a report on the association of the question; an archive of these tests answers in a tenth of it.
LINGER_S = 1.0


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What one worker process is told."""

    state: str
    url: str = ""
    node: str = "node-a"
    # Name → port on loopback; all get every study.
    destinations: dict[str, int] = field(default_factory=dict)
    # [study key, step, "before" | "after"]: the first that is reached and not yet used kills the process.
    deaths: list[list[str]] = field(default_factory=list)
    # "ok", "child dies", "child hangs", "process dies", "slow".
    analysis: str = "ok"
    lease_s: float = 2.0
    # The worker ends by itself once no revision is under way and no delivery waits.
    until_idle: bool = False
    # … and then does not take its time to close.
    in_a_hurry: bool = False
    first_retry_s: float = 0.2
    keep_workflows_s: float = 3600.0
    answer_s: float = 10.0
    # An open association that was silent this long does not hold a study.
    hold_s: float = 600.0
    # Destinations are asked for storage commitment.
    commitment: bool = False
    # The worker's clock is so far ahead: what waits for hours is done at once.
    ahead_s: float = 0.0


# ---- studies ------------------------------------------------------------------------------------------------------


def write_weights(path: Path) -> Path:
    """A weights file with a head and no tensors: enough for everything outside the analysis child."""
    head = weights.WeightsHead(
        id="test-1",
        version="1",
        architecture="none",
        channels=("intensity",),
        scope=weights.Scope(modalities=("MR",), body_parts=("HEAD",), sequences=("flair",)),
        operating_point=weights.OperatingPoint(
            name="alert", forgery=0.6, tumor=0.5, n_authentic=100, flagged=2, false_alarm_upper=0.07
        ),
        calibration={},
        authentic_scores=(0.1, 0.2),
        training={},
        sha256="",
    )
    text = json.dumps({"__metadata__": weights.to_metadata(head)}).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text)
    return path


def write_study(folder: Path, *, number: int = 1, slices: int = 5, first: int = 0) -> list[Path]:
    """Files of `slices` slices (from `first`) of study `number`."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for ds in sr_cases.single_frame(first + slices)[first:]:
        _renumber(ds, number)
        paths.append(folder / f"{ds.SOPInstanceUID}.dcm")
        dcmwrite(paths[-1], ds, enforce_file_format=True)
    return paths


def send_study(store: Store, folder: Path, *, number: int = 1, slices: int = 5, first: int = 0, ae: str = "CT1") -> str:
    """Receive them; returns the study key."""
    sender = Sender(peer="ct", calling_ae=ae, called_ae="DICOMGUARD", address="127.0.0.1")
    key = ""
    for path in write_study(folder, number=number, slices=slices, first=first):
        key = receive_file(store, sender, path, channel="dimse").study_key or ""
    return key


def _renumber(ds: Dataset, number: int) -> None:
    uid = f"{ds.StudyInstanceUID}.{number}"
    ds.SOPInstanceUID = f"{uid}.1.{ds.InstanceNumber}"
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    ds.StudyInstanceUID, ds.SeriesInstanceUID = uid, f"{uid}.1"
    ds.PatientName, ds.SeriesDescription = "Faultless^Patient", "FLAIR"
    ds.BitsAllocated = ds.BitsStored = 16
    ds.HighBit, ds.PixelRepresentation, ds.SamplesPerPixel = 15, 0, 1
    ds.PhotometricInterpretation = "MONOCHROME2"
    ds.add_new("PixelData", "OW", np.full((ds.Rows, ds.Columns), int(ds.InstanceNumber), np.uint16).tobytes())


# ---- the steered analysis -----------------------------------------------------------------------------------------


def judge(job: AnalysisJob) -> AnalysisReport:
    """A tumor on the second and third analysed slice. Each call makes another verdict hash, as a real run does."""
    manifest = job.manifest
    headers = [
        ds
        for ds in sr_cases.single_frame(20)
        if any(int(ds.InstanceNumber) == item.instance_number for plan in manifest.series for item in plan.slices)
    ]
    renamed = {
        item.instance_number: item.sop_instance_uid for plan in manifest.series for item in plan.slices
    }  # one series
    for ds in headers:
        ds.SOPInstanceUID = renamed[int(ds.InstanceNumber)]
        ds.SeriesInstanceUID = manifest.series[0].series_instance_uid
    spot = sr_cases.Spot(category="real", places=[1, 2])
    made = sr_cases.case("real", [sr_cases.frames(headers)], [spot])
    findings = tuple(replace(item, series=manifest.series[0].series_instance_uid) for item in made.verdict.findings)
    content = masks.pack(
        {
            masks.key(name, uid, frame): mask
            for name, drawn in made.masks.items()
            for uid, frame, mask in drawn
        }
    )  # fmt: skip
    output = Path(job.output)
    (output / "masks.npz").write_bytes(content)
    slices = tuple(
        SliceReport(
            series=plan.series_instance_uid,
            sop_instance_uid=item.sop_instance_uid,
            frame=item.frame,
            position_mm=item.position_mm,
            state="analysed",
            reason="",
            forgery=0.1,
            pixel_sha256=None,
        )
        for plan in manifest.series
        for item in plan.slices
    )
    verdict = Verdict(
        study=Study(
            study_instance_uid=manifest.study_instance_uid,
            revision=manifest.revision,
            manifest_sha256=manifest.sha256,
            predecessor=None if job.predecessor is None else Predecessor(**job.predecessor),
            opened_because=manifest.opened_because,
        ),
        created=SystemClock().now().isoformat(),
        software=software(),
        model=model_of(Path(job.weights)),
        category="real",
        score=Score(forgery=0.1, tumor=0.9, authentic_rank=None),
        headline_finding="F1",
        series=tuple(series_report(plan, slices_analysed=len(plan.slices)) for plan in manifest.series),
        slices=slices,
        findings=findings,
        coverage=Coverage(
            slices_total=len(slices),
            slices_analysed=len(slices),
            head_area_share=1.0,
            complete=True,
            outside_scope=False,
        ),
        masks=Masks(file="masks.npz", sha256=_sha256(content)),
    )
    (output / "verdict.json").write_bytes(verdict.to_bytes())
    return AnalysisReport(
        verdict_path=str(output / "verdict.json"),
        verdict_sha256=_sha256(verdict.to_bytes()),
        masks_path=str(output / "masks.npz"),
        masks_sha256=_sha256(content),
        seconds=0.1,
    )


def _sha256(content: bytes) -> str:
    import hashlib

    return hashlib.sha256(content).hexdigest()


def analysis(kind: str, count: Path) -> study.Analyse:
    """An analysis of the kind; each call adds a byte to the file `count`."""

    def run(
        job: AnalysisJob, *, on_progress: Callable[[int, int], None] | None, stop: Callable[[], bool] | None
    ) -> AnalysisReport:
        with count.open("ab") as file:
            file.write(b".")
        if kind == "process dies":
            os.kill(os.getpid(), signal.SIGKILL)
        if kind == "child dies":
            with Child.start(
                [sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"], memory_bytes=None, cpu_s=None
            ) as poisoned:
                poisoned.receive(20)
        if kind == "child hangs":
            hang = [sys.executable, "-c", "import time; time.sleep(600)"]
            with Child.start(hang, memory_bytes=None, cpu_s=None) as hung:
                count.with_name("child").write_text(str(hung.pid))
                while stop is None or not stop():
                    # As `Analyst` does.
                    with contextlib.suppress(ChildSilent):
                        hung.receive(1.0)
            raise ChildEnded("The child was stopped. It was asked to.")
        if kind == "slow":
            wait = threading.Event()
            while not wait.wait(0.1):
                if stop is not None and stop():
                    raise ChildEnded("The child was stopped. It was overtaken.")
        if on_progress is not None:
            on_progress(1, 1)
        return judge(job)

    return run


# ---- the worker ---------------------------------------------------------------------------------------------------


class AheadClock(SystemClock):
    """The machine's clock in some hours."""

    def __init__(self, ahead_s: float) -> None:
        self._ahead = timedelta(seconds=ahead_s)

    def now(self) -> datetime:
        """Aware UTC time of day, later."""
        return super().now() + self._ahead


class MortalEngine(Engine):
    """An engine whose steps may be the last thing the process does."""

    deaths: list[list[str]]
    used: Path

    def step(self, name: str, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Die before the effect, or after it and before its answer is recorded."""

        def mortal(*inner: Any, **options: Any) -> Any:
            # `guarded(name, step, study_key, number)` for all steps that matter.
            key = str(inner[2]) if len(inner) > 2 else ""
            self._die(key, name, "before")
            answer = function(*inner, **options)
            self._die(key, name, "after")
            return answer

        return super().step(name, mortal, *args, **kwargs)

    def _die(self, key: str, name: str, when: str) -> None:
        mark = f"{key} {name} {when}\n"
        if [key, name, when] in self.deaths and mark not in self.used.read_text():
            with self.used.open("a") as file:
                file.write(mark)
                os.fsync(file.fileno())
            os.kill(os.getpid(), signal.SIGKILL)


def work(plan: Plan) -> None:
    """One worker process until SIGTERM, or until nothing is left to do."""
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    clock = AheadClock(plan.ahead_s)
    state = Path(plan.state)
    store = open_store(state, plan.url, clock)
    shared = plan.url.startswith("postgresql")
    destinations = tuple(
        Destination(name=name, ae_title=name.upper(), host="127.0.0.1", port=port, commitment=plan.commitment)
        for name, port in plan.destinations.items()
    )
    with lock_state(state, name=f"worker-{plan.node}" if shared else "worker"):
        if not shared:
            make_wal(state / "work.sqlite")
        engine = MortalEngine(node=plan.node, database_url=work_database(state, plan.url), studies_at_once=1)
        engine.deaths, engine.used = plan.deaths, state / "deaths"
        engine.used.touch()
        steps = study.StudyWork(
            store=store,
            clock=clock,
            settings=study.Settings(
                node=sr_cases.NODE,
                rules=(),
                routes=(Route(name="all", to=tuple(plan.destinations)),),
                destinations=destinations,
                weights=write_weights(state / f"weights-{os.getpid()}.safetensors"),
                device="",
                threads=1,
                deadline_s=60,
            ),
            analyse=analysis(plan.analysis, state / "analyses"),
        )
        engine.register(study.WORKFLOW, steps.run)
        sending = delivery.DeliveryWork(
            store=store,
            clock=clock,
            settings=delivery.Settings(
                calling_ae="DICOMGUARD",
                destinations={item.name: item for item in destinations},
                backoff=Backoff(first=timedelta(seconds=plan.first_retry_s), longest=timedelta(seconds=1)),
                timeouts=Timeouts(connect_s=2, answer_s=plan.answer_s),
            ),
        )
        engine.register(study.DELIVERY_WORKFLOW, sending.run)
        committing = commitment.CommitmentWork(
            store=store,
            clock=clock,
            settings=commitment.Settings(
                calling_ae="DICOMGUARD",
                destinations={item.name: item for item in destinations},
                patience=core_commitment.Patience(),
                timeouts=Timeouts(connect_s=2, answer_s=plan.answer_s),
                linger_s=LINGER_S,
            ),
        )
        engine.register(commitment.COMMIT_WORKFLOW, committing.run)
        engine.register(commitment.ANSWER_WORKFLOW, committing.answer)
        beat = sweep.Sweep(
            engine=engine,
            store=store,
            clock=clock,
            node=plan.node,
            settings=sweep.Settings(
                completion=completion.Settings(
                    patience=Patience(quiet=timedelta(seconds=0.3), longest=timedelta(seconds=60)),
                    association_hold=timedelta(seconds=plan.hold_s),
                ),
                heartbeat=timedelta(seconds=plan.lease_s / 4),
                lease=timedelta(seconds=plan.lease_s),
                keep_workflows=timedelta(seconds=plan.keep_workflows_s),
            ),
        )
        beat.begin()
        engine.launch()
        while not stop.wait(0.2):
            beat.tick()
            if plan.until_idle and idle(store) and not engine.live():
                if plan.in_a_hurry:
                    return
                break
        engine.close(1)
        beat.end()


def run_worker(seconds: float, **plan: object) -> int:
    """One worker process to its end; its exit status, minus the signal that killed it."""
    command = [sys.executable, "-m", "tests.fault.world", json.dumps(plan)]
    return subprocess.run(command, cwd=ROOT, timeout=seconds, check=False, stderr=subprocess.DEVNULL).returncode


def idle(store: Store) -> bool:
    """Whether nothing collects, is under way, waits or is to be asked or answered now."""
    now = store.clock.now()
    with store.read() as tx:
        busy = studies.in_state(tx, (*BEFORE_DELIVERY, DELIVERING))
        open_questions = commitments.due(tx, now=now) or commitments.requests(tx, now=now)
        return not busy and not open_questions and not studies.collecting(tx, now=now)


if __name__ == "__main__":
    log.configure("INFO")
    # As `flow.__main__`: what outlives the end is left in the middle.
    status = 0
    try:
        work(Plan(**json.loads(sys.argv[1])))
    except DicomguardError as error:
        sys.stderr.write(f"{error}\n")
        status = error.exit_status
    sys.stderr.flush()
    os._exit(status)
