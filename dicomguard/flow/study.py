"""One revision of a study, from the frozen list to the deliveries: freeze, analyse, build, hand over.

Each step looks for its own finished effect first, so it may run any number of times, here or in another process. What a
step answers is small JSON; bulk lies in files whose hashes are in rows. An expected failure is an answer, not an
exception: the workflow itself always ends well.
"""

import contextlib
import secrets
import shutil
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from dicomguard import log
from dicomguard.analyze import client as analyze_client
from dicomguard.clock import Clock
from dicomguard.core import freeze, routing
from dicomguard.core.delivery import Delivery, Item
from dicomguard.core.job import DECODE_MEMORY_BYTES, DECODE_S, AnalysisJob, AnalysisReport
from dicomguard.core.peer import Destination
from dicomguard.core.result import ResultObject
from dicomguard.core.selection import Rule
from dicomguard.core.study import Manifest
from dicomguard.core.verdict import NO_MODEL, Model, Predecessor, Verdict, not_analysable
from dicomguard.errors import Broken, Refused, Unavailable, shortage
from dicomguard.flow import judge, kept, reports
from dicomguard.flow.engine import DELIVER, STUDY, Engine
from dicomguard.flow.states import (
    ANALYSING,
    BEFORE_DELIVERY,
    BUILT,
    DELIVERING,
    DONE,
    FAILED,
    IN_ORDER,
    JUDGED,
    OPENED,
    WITHDRAWN,
)
from dicomguard.sr import build as sr_build
from dicomguard.store import deliveries, jobs, results, studies
from dicomguard.store.db import Store, Tx
from dicomguard.store.files import write_durably

WORKFLOW = "study_v1"
DELIVERY_WORKFLOW = "deliver_v1"
# A child that dies once may have met a full machine; twice it has met this study.
CHILD_DEATHS = 2
# By itself; a person who retries gives as many again.
ATTEMPTS = 20
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 5.0, 900.0
_DIED = "the analysis stopped unexpectedly"
_FAILED = "the analysis failed, for a reason that the log of the node names"
_UNREPORTED = "the report on their analysis could not be made, for a reason that the log of the node names"
_NO_WEIGHTS = "the program cannot read the weights of its model"

_log = log.get("flow")


class Analyse(Protocol):
    """`Analysts.analyse`."""

    def __call__(
        self, job: AnalysisJob, *, on_progress: Callable[[int, int], None] | None, stop: Callable[[], bool] | None
    ) -> AnalysisReport: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the configuration says about the work on a study."""

    node: sr_build.NodeIdentity
    rules: tuple[Rule, ...]
    routes: tuple[routing.Route, ...]
    destinations: tuple[Destination, ...]
    # Overrides the approved and the shipped model.
    weights: Path | None
    device: str
    threads: int
    deadline_s: float
    decode_memory_bytes: int = DECODE_MEMORY_BYTES
    decode_s: float = DECODE_S


class Withdrawn(Exception):
    """A later revision of the study reports instead, or a person cancelled this one: it ends without a word."""


class Stopped(Unavailable):
    """The worker ends; what it leaves is for the next one."""


def workflow_id(study_key: str, number: int, attempt: int) -> str:
    """`study/<study_key>/r<n>`, later attempts `…/a<k>`; our own keys only, since ids are logged.

    Attempts are counted on through retries by a person; each begins at the next multiple of `ATTEMPTS`.
    """
    return f"study/{study_key}/r{number}" + (f"/a{attempt}" if attempt else "")


def delivery_id(study_key: str, number: int, destination: str, attempt: int) -> str:
    """One attempt of one delivery."""
    return f"deliver/{study_key}/r{number}/{destination}/{attempt}"


class StudyWork:
    """The steps, with what they need."""

    def __init__(
        self,
        *,
        store: Store,
        clock: Clock,
        settings: Settings,
        analyse: Analyse,
        stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        """`stopping`: whether this worker was asked to end."""
        self._store = store
        self._clock = clock
        self._settings = settings
        self._analyse = analyse
        self._stopping = stopping

    def run(self, engine: Engine, study_key: str, number: int, attempt: int, poisoned: bool) -> dict[str, Any]:
        """The workflow. `poisoned`: the process died again and again over this study, so its pixels stay closed."""
        steps: tuple[tuple[str, Callable[[], dict[str, Any]]], ...] = (
            ("freeze", lambda: self.freeze(study_key, number)),
            ("analyse", lambda: self.analyse(study_key, number, poisoned=poisoned)),
            ("build", lambda: self.build(study_key, number, poisoned=poisoned)),
            ("hand_over", lambda: self.hand_over(study_key, number)),
        )
        excuses = {"freeze": self.excuse, "analyse": self.excuse, "build": self.excuse_report}
        last = (attempt + 1) % ATTEMPTS == 0
        answer: dict[str, Any] = {}
        urgent = False
        for name, step in steps:
            answer = engine.step(name, guarded, name, step, study_key, number)
            urgent = answer.get("urgent", urgent)
            hopeless = answer["outcome"] in ("refused", "broken") or (answer["outcome"] == "unavailable" and last)
            if hopeless and name in excuses:
                excuse = partial(excuses[name], study_key, number, answer["reason"])
                answer = engine.step("excuse", guarded, "excuse", excuse, study_key, number)
            if answer["outcome"] == "done":
                continue
            if answer["outcome"] == "stopped" or (answer["outcome"] == "unavailable" and not last):
                engine.enqueue(
                    STUDY, WORKFLOW, study_key, number, attempt + 1, poisoned,
                    workflow_id=workflow_id(study_key, number, attempt + 1),
                    # Of a worker that is stopped: so long that it does not take it up again itself.
                    delay_s=_FIRST_PAUSE_S if answer["outcome"] == "stopped" else pause_s(attempt),
                    urgent=urgent,
                )  # fmt: skip
            elif answer["outcome"] != "withdrawn":
                engine.step("fail", self.fail, study_key, number, answer["reason"])
            return answer
        for destination in answer["destinations"]:
            engine.enqueue(
                DELIVER, DELIVERY_WORKFLOW, study_key, number, destination, 0,
                workflow_id=delivery_id(study_key, number, destination, 0), partition=destination,
                urgent=urgent,
            )  # fmt: skip
        return answer

    # --- steps -----------------------------------------------------------------------------------------------------

    def freeze(self, study_key: str, number: int) -> dict[str, Any]:
        """Write down what the analysis covers."""
        with self._store.begin() as tx:
            self._enter(tx, study_key, number, ANALYSING, from_=(OPENED, ANALYSING))
            manifest = studies.manifest(tx, study_key, number)
            revision = studies.revision(tx, study_key, number)
            instances = studies.instances(tx, study_key, number)
            patient_ids = studies.patient_ids(tx, study_key, number)
        if manifest is None:
            manifest = freeze.freeze(
                ((kept.header(self._store, instance), instance) for instance in instances),
                study_instance_uid=revision.study_instance_uid,
                revision=number,
                opened_because=revision.opened_because,
                calling_ae=revision.calling_ae,
                rules=self._settings.rules,
                scope=self._model().scope,
                patient_ids=max(1, patient_ids),
            )
            with self._store.begin() as tx:
                studies.keep_manifest(tx, study_key, number, manifest)
        _log.event("study.frozen", study=study_key, revision=number, series=len(manifest.series), count=len(instances))
        return {"outcome": "done", "manifest": manifest.sha256, "urgent": revision.urgent}

    def analyse(self, study_key: str, number: int, *, poisoned: bool) -> dict[str, Any]:
        """Keep exactly one verdict, whoever comes first; a study that kills its child gets "not analysable"."""
        with self._store.begin() as tx:
            row = studies.kept_verdict(tx, study_key, number)
            if row is None:
                self._enter(tx, study_key, number, ANALYSING, from_=(OPENED, ANALYSING))
            manifest = kept.present(studies.manifest(tx, study_key, number), "manifest")
            predecessor = kept.predecessor(tx, study_key, number)
        if row is None:
            folder = self._jobs(study_key, number) / secrets.token_hex(6)
            try:
                verdict, mask_bytes = self._judge(study_key, number, manifest, predecessor, folder, poisoned=poisoned)
                self._keep_verdict(study_key, number, verdict, mask_bytes)
            finally:
                jobs.remove_run(self._store, folder)
        with self._store.read() as tx:
            row = kept.present(studies.kept_verdict(tx, study_key, number), "verdict")
        _log.event("study.judged", study=study_key, revision=number, category=row.category, score=row.score)
        return {"outcome": "done", "verdict": row.sha256}

    def excuse(self, study_key: str, number: int, reason: str) -> dict[str, Any]:
        """Keep "not analysable" for a study that was refused or met a fault, so that its sender is told."""
        self.freeze(study_key, number)
        with self._store.begin() as tx:
            manifest = kept.present(studies.manifest(tx, study_key, number), "manifest")
            predecessor = kept.predecessor(tx, study_key, number)
            judged = studies.kept_verdict(tx, study_key, number) is not None
        if not judged:
            model = self._model()
            why = _NO_WEIGHTS if model == NO_MODEL else _FAILED
            self._keep_verdict(study_key, number, self._not_analysable(manifest, why, model, predecessor), None)
        _log.error("study.excused", study=study_key, revision=number, reason=reason)
        return {"outcome": "done"}

    def build(self, study_key: str, number: int, *, poisoned: bool) -> dict[str, Any]:
        """Make SEG and SR, and keep their bytes before the first is sent."""
        with self._store.begin() as tx:
            objects = results.of_revision(tx, study_key, number)
            manifest = kept.present(studies.manifest(tx, study_key, number), "manifest")
            instances = studies.instances(tx, study_key, number)
            judged = kept.present(studies.kept_verdict(tx, study_key, number), "verdict")
        if not objects:
            if poisoned and judged.category != "not_analysable":
                raise Broken("The process ended over the results of this study. Look at the log of the worker.")
            made = reports.full(self._store, study_key, manifest, instances, self._settings.node)
            objects = list(results.keep(self._store, study_key, number, made))
        return self._built(study_key, number, objects)

    def excuse_report(self, study_key: str, number: int, reason: str) -> dict[str, Any]:
        """Keep "not analysable" for a study whose results could not be made, and a report that says so.

        It takes the place of the verdict: what is kept is what was told.
        """
        with self._store.begin() as tx:
            objects = results.of_revision(tx, study_key, number)
            manifest = kept.present(studies.manifest(tx, study_key, number), "manifest")
            instances = studies.instances(tx, study_key, number)
            judged = kept.present(studies.kept_verdict(tx, study_key, number), "verdict")
            predecessor = kept.predecessor(tx, study_key, number)
        _log.error("study.unreported", study=study_key, revision=number, category=judged.category, reason=reason)
        if not objects:
            if judged.category != "not_analysable":
                verdict = self._not_analysable(manifest, _UNREPORTED, self._model(), predecessor)
                self._keep_verdict(study_key, number, verdict, None, from_=(ANALYSING, JUDGED))
            made = reports.plain(self._store, study_key, manifest, instances, self._settings.node)
            objects = list(results.keep(self._store, study_key, number, made))
        kept.drop_other_verdicts(self._store, study_key, number)
        return self._built(study_key, number, objects)

    def _built(self, study_key: str, number: int, objects: Collection[ResultObject]) -> dict[str, Any]:
        with self._store.begin() as tx:
            self._enter(tx, study_key, number, BUILT, from_=(ANALYSING, JUDGED, BUILT))
        _log.event("results.kept", study=study_key, revision=number, count=len(objects))
        return {"outcome": "done", "results": [value.sha256 for value in objects]}

    def hand_over(self, study_key: str, number: int) -> dict[str, Any]:
        """Plan one delivery a destination; from here on a later revision can no longer cancel this one."""
        with self._store.begin() as tx:
            self._enter(tx, study_key, number, DELIVERING, from_=(BUILT, DELIVERING))
            verdict = kept.present(studies.kept_verdict(tx, study_key, number), "verdict")
            revision = studies.revision(tx, study_key, number)
            chosen = routing.decide(
                calling_ae=revision.calling_ae,
                category=verdict.category,
                routes=self._settings.routes,
                destinations=self._settings.destinations,
            )
            planned = tuple(choice.destination.name for choice in chosen)
            now = self._clock.now()
            fresh = Delivery(
                study_key=study_key,
                revision=number,
                destination="",
                items=items_of(results.of_revision(tx, study_key, number)),
                planned_at=now,
                next_at=now,
            )
            deliveries.plan(tx, [replace(fresh, destination=name) for name in planned])
            if not planned:
                studies.advance(tx, study_key, number, DONE, from_=(DELIVERING,), reason="no route names a destination")
        # Whoever still analyses this revision was taken for dead and has lost.
        shutil.rmtree(self._jobs(study_key, number), ignore_errors=True)
        _log.event("deliveries.planned", study=study_key, revision=number, count=len(planned))
        return {"outcome": "done", "destinations": list(planned), "urgent": revision.urgent}

    def fail(self, study_key: str, number: int, reason: str) -> dict[str, Any]:
        """Hold the revision for a person."""
        with self._store.begin() as tx:
            studies.advance(tx, study_key, number, FAILED, from_=BEFORE_DELIVERY, reason=reason)
        _log.error("study.failed", study=study_key, revision=number, reason=reason)
        return {"outcome": "failed"}

    # --- their parts -----------------------------------------------------------------------------------------------

    def _enter(self, tx: Tx, study_key: str, number: int, state: str, *, from_: Collection[str]) -> None:
        """Move the revision on, atomically with what the caller does; `Withdrawn` when nobody wants it any more."""
        if studies.advance(tx, study_key, number, state, from_=from_):
            return
        found = studies.state(tx, study_key, number)
        if found in WITHDRAWN:
            raise Withdrawn
        # A twin that was taken for dead is further on: what it did is found by the steps.
        if found in IN_ORDER and IN_ORDER.index(found) > IN_ORDER.index(state):
            return
        raise Broken(f'Revision {number} of study {study_key} is "{found}", not ready for "{state}". Retry it by hand.')

    def _weights(self) -> Path:
        with self._store.read() as tx:
            return judge.weights_in_use(self._store, tx, self._settings.weights)

    def _model(self) -> Model:
        """Who judges; `NO_MODEL` where the weights cannot be read: the study is reported all the same."""
        try:
            return analyze_client.model_of(self._weights())
        except (Refused, Broken) as error:
            passing = shortage(error)
            if passing is not None:
                raise passing from error
            _log.error("weights.unreadable", reason=str(error))
            return NO_MODEL

    def _jobs(self, study_key: str, number: int) -> Path:
        return self._store.root / "jobs" / study_key / f"r{number}"

    def _judge(
        self,
        study_key: str,
        number: int,
        manifest: Manifest,
        predecessor: Predecessor | None,
        folder: Path,
        *,
        poisoned: bool,
    ) -> tuple[Verdict, bytes | None]:
        weights_path = self._weights()
        deaths = CHILD_DEATHS if poisoned else 0
        while deaths < CHILD_DEATHS:
            if self._stopping():
                raise Stopped("The worker is being stopped. The next one judges the study.")
            job = AnalysisJob(
                manifest=manifest,
                files_root=str(self._store.root),
                output=str(folder),
                weights=str(weights_path),
                device=self._settings.device,
                threads=self._settings.threads,
                deadline_s=self._settings.deadline_s,
                decode_memory_bytes=self._settings.decode_memory_bytes,
                decode_s=self._settings.decode_s,
                predecessor=None if predecessor is None else asdict(predecessor),
            )
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            try:
                report = self._analyse(
                    job,
                    on_progress=self._progress(study_key, number),
                    stop=lambda: self._unwanted(study_key, number),
                )
            except Unavailable as error:
                # Died, hung, took too long, or was stopped by us.
                if self._withdrawn(study_key, number):
                    raise Withdrawn from None
                if shortage(error) is not None:
                    raise
                if self._stopping():
                    # Whoever ended the child, it was not the study.
                    continue
                deaths += 1
                _log.warning("child.ended", study=study_key, revision=number, attempt=deaths, reason=str(error))
            else:
                return kept.read_report(report)
        return self._not_analysable(manifest, _DIED, self._model(), predecessor), None

    def _not_analysable(
        self, manifest: Manifest, reason: str, model: Model, predecessor: Predecessor | None
    ) -> Verdict:
        return not_analysable(
            manifest,
            reason,
            model=model,
            software=analyze_client.software(),
            created=self._clock.now().isoformat(timespec="seconds"),
            predecessor=predecessor,
        )

    def _withdrawn(self, study_key: str, number: int) -> bool:
        with self._store.read() as tx:
            return studies.state(tx, study_key, number) in WITHDRAWN

    def _unwanted(self, study_key: str, number: int) -> bool:
        """Whether the child is to end; a database that does not answer for a moment is no reason."""
        if self._stopping():
            return True
        try:
            return self._withdrawn(study_key, number)
        except Unavailable:
            return False

    def _progress(self, study_key: str, number: int) -> Callable[[int, int], None]:
        """Writes how far it is, at most once a second: each row is a flush to the disk. One may be missed."""
        written = -1.0

        def write(done: int, total: int) -> None:
            nonlocal written
            now = self._clock.monotonic()
            if written < 0 or now - written >= 1.0 or done == total:
                written = now
                with contextlib.suppress(Unavailable), self._store.begin() as tx:
                    studies.set_progress(tx, study_key, number, done, total)

        return write

    def _keep_verdict(
        self,
        study_key: str,
        number: int,
        verdict: Verdict,
        mask_bytes: bytes | None,
        *,
        from_: Collection[str] = (ANALYSING,),
    ) -> None:
        """Files under names with their hash first, then the row: two analyses never mix, and the first row stays."""
        folder = f"results/{study_key}/r{number}/{verdict.sha256[:16]}"
        if mask_bytes is not None:
            write_durably(self._store.disk, self._store.root, f"{folder}/masks.npz", [mask_bytes])
        write_durably(self._store.disk, self._store.root, f"{folder}/verdict.json", [verdict.to_bytes()])
        with self._store.begin() as tx:
            if not studies.advance(tx, study_key, number, JUDGED, from_=from_):
                self._enter(tx, study_key, number, JUDGED, from_=(JUDGED,))
                return
            studies.keep_verdict(
                tx,
                study_key,
                number,
                verdict_sha256=verdict.sha256,
                path=f"{folder}/verdict.json",
                category=verdict.category,
                score=verdict.score.forgery,
                complete=verdict.coverage.complete,
                model_id=verdict.model.id,
                now=self._clock.now(),
            )


def guarded(name: str, step: Callable[[], dict[str, Any]], study_key: str, number: int) -> dict[str, Any]:
    """The top of a step: what went wrong becomes its answer, by family."""
    try:
        return step()
    except Withdrawn:
        _log.event("study.withdrawn", study=study_key, revision=number, step=name)
        return {"outcome": "withdrawn"}
    except Stopped as error:
        _log.event("step.left", study=study_key, revision=number, step=name)
        return {"outcome": "stopped", "reason": str(error)}
    except Exception as error:  # noqa: BLE001 -- the top of a step
        later = error if isinstance(error, Unavailable) else shortage(error)
        if later is not None:
            _log.warning("step.postponed", study=study_key, revision=number, step=name, reason=str(later))
            return {"outcome": "unavailable", "reason": str(later)}
        if isinstance(error, Refused | Broken):
            return {"outcome": "refused" if isinstance(error, Refused) else "broken", "reason": str(error)}
        _log.crashed("step.crashed", study=study_key, revision=number, step=name)
        reason = f"A fault of ours in the step {name} ({type(error).__name__}). Send the log to the makers."
        return {"outcome": "broken", "reason": reason}


def pause_s(attempt: int) -> float:
    """Seconds before the next attempt at a study whose disk or database was away; short again after a retry."""
    return min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * float(1 << min(attempt % ATTEMPTS, 10)))


def items_of(objects: Collection[ResultObject]) -> tuple[Item, ...]:
    """What is sent, in order; the plain form of the report stands behind the Comprehensive 3D SR, not beside it."""
    plain = [value.sop_instance_uid for value in objects if value.kind == "SR-2D"]
    return tuple(
        Item(kind=value.kind, forms=(value.sop_instance_uid, *(plain if value.kind == "SR" else ())))
        for value in sorted(objects, key=lambda value: value.order)
        if value.kind != "SR-2D"
    )
