"""What keeps the work going: each second the holder of a lease asks what should be running and is not.

Everything here is level-triggered. It looks at rows, not at events, so a lost event, a dead worker or a restored
database costs a second or a lease, and nothing else.
"""

from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from dicomguard import log
from dicomguard.clock import CLOCKS_APART, Clock
from dicomguard.core.commitment import Patience
from dicomguard.core.delivery import Backoff, put_off
from dicomguard.errors import Broken, Unavailable
from dicomguard.flow import commitment, completion
from dicomguard.flow.engine import DELIVER, EXCEEDED, RETRAIN, STUDY, Engine
from dicomguard.flow.states import BEFORE_DELIVERY, FAILED
from dicomguard.flow.study import (
    ATTEMPTS,
    DELIVERY_WORKFLOW,
    WORKFLOW,
    delivery_id,
    workflow_id,
)
from dicomguard.store import commitments, deliveries, executors, leases, log_slots, runs, studies
from dicomguard.store.db import Store

LEASE = "sweep"
RETRAIN_WORKFLOW = "retrain_v1"
# The process that dies over a study, then dies again with the study's pixels closed, meets something else.
_POISONED_TWICE = 2
_CRASHES = 5
_PURGED_AT_ONCE = 100
# How long one look waits for the receivers to write their rows, and how long all looks together.
_SETTLE_S, _BEHIND_S = 1.0, 60.0

_log = log.get("flow")


class Retired(Broken):
    """Another worker has taken this one for dead and has its work; it must end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Times of the worker's own life."""

    completion: completion.Settings
    backoff: Backoff = field(default_factory=Backoff)
    patience: Patience = field(default_factory=Patience)
    heartbeat: timedelta = timedelta(seconds=5)
    lease: timedelta = timedelta(seconds=30)
    # Ended workflows are kept this long for those who look for a cause.
    keep_workflows: timedelta = timedelta(days=90)


class Sweep:
    """The worker's heartbeat, and the sweep while it holds the lease."""

    def __init__(self, *, engine: Engine, store: Store, clock: Clock, node: str, settings: Settings) -> None:
        self._engine = engine
        self._store = store
        self._clock = clock
        self._node = node
        self._settings = settings
        # Monotonic: a clock that is set back must not silence the worker.
        self._next_beat: float | None = None
        self._leads = False
        self._behind_since: float | None = None

    def renew(self, settings: Settings) -> None:
        """Other times from now on."""
        self._settings = settings

    def begin(self) -> None:
        """Before the engine starts. Whoever had our node name is dead: the lock on the state folder is ours."""
        with self._store.begin() as tx:
            for row in executors.listing(tx):
                if row.role == "worker" and row.node == self._node:
                    executors.retire(tx, row.id)
                    leases.release(tx, LEASE, row.id)
        self._beat()
        # The first tick beats again, and asks for the lease.
        self._next_beat = None

    def end(self) -> None:
        """After the engine has stopped: another worker need not wait for the lease."""
        with self._store.begin() as tx:
            executors.retire(tx, self._engine.executor_id)
            leases.release(tx, LEASE, self._engine.executor_id)

    def tick(self) -> None:
        """Once a second. Raises `Retired`; a database that is away is waited for."""
        try:
            beaten = self._beat()
            now = self._clock.now()
            if beaten:
                # Not each second: every renewal is a flush to the disk.
                with self._store.begin() as tx:
                    self._leads = leases.take(tx, LEASE, self._engine.executor_id, now, now + self._settings.lease)
            if not self._leads:
                return
            if self._settled():
                completion.open_complete(self._store, self._settings.completion, now=now)
            if beaten:
                self._follow_the_clock(now)
            self._start_studies()
            self._start_deliveries(now)
            self._start_commitments(now)
            self._start_retraining()
            if beaten:
                self._take_over(now)
                self._engine.purge(before=now - self._settings.keep_workflows, limit=_PURGED_AT_ONCE)
        except Unavailable as error:
            _log.warning("sweep.postponed", reason=str(error))

    def _follow_the_clock(self, now: datetime) -> None:
        """A clock that was ahead and is right again must not have work put off until it gets there once more."""
        deliver_by = now + self._settings.backoff.furthest + CLOCKS_APART
        commit_by = now + commitment.furthest(self._settings.patience) + CLOCKS_APART
        with self._store.begin() as tx:
            count = deliveries.come_due(tx, beyond=deliver_by, now=now)
            count += commitments.come_due(tx, beyond=commit_by, now=now)
        if count:
            why = "Work was put off further than it ever is. Look after the time of this machine."
            _log.warning("clock.returned", count=count, reason=why)

    def _settled(self) -> bool:
        """Whether all that was acknowledged before this tick has its rows.

        A receiver that was killed and does not come back is waited for only so long: it must not stop the others'
        studies, and what its log holds comes as late instances.
        """
        monotonic = self._clock.monotonic()
        if log_slots.settle(self._store.root, patience_s=_SETTLE_S):
            self._behind_since = None
            return True
        if self._behind_since is None:
            self._behind_since = monotonic
            _log.warning("completion.postponed", reason="instances that were acknowledged have no rows yet")
        return monotonic - self._behind_since > _BEHIND_S

    def _beat(self) -> bool:
        now, monotonic = self._clock.now(), self._clock.monotonic()
        if self._next_beat is not None and monotonic < self._next_beat:
            return False
        with self._store.begin() as tx:
            lives = executors.beat(tx, self._engine.executor_id, self._node, now, now + self._settings.lease)
        if not lives:
            raise Retired(
                "This worker was silent past its lease, or its clock differs much from another worker's; its work was"
                " taken over. It ends. Look after the time of both machines and start it again."
            )
        self._next_beat = monotonic + self._settings.heartbeat.total_seconds()
        return True

    def _start_studies(self) -> None:
        """Each revision on its way has a live workflow; one whose process died too often goes on with closed pixels."""
        with self._store.read() as tx:
            wanted = studies.in_state(tx, BEFORE_DELIVERY)
            urgent = studies.urgent(tx, wanted)
        if not wanted:
            return
        live = {_without_attempt(run.workflow_id) for run in self._engine.live(STUDY)}
        for study_key, number in wanted:
            first = workflow_id(study_key, number, 0)
            if first in live:
                continue
            with self._store.read() as tx:
                begin = ATTEMPTS * studies.retries(tx, study_key, number)
            runs = [run for run in self._engine.runs(first) if _without_attempt(run.workflow_id) == first]
            # What was before a person's retry does not count any more.
            past = {_attempt(run.workflow_id): run for run in runs if _attempt(run.workflow_id) >= begin}
            deaths = sum(run.status == EXCEEDED for run in past.values())
            attempt = max(past, default=begin - 1) + 1
            if deaths >= _POISONED_TWICE or attempt >= begin + ATTEMPTS:
                self._give_up(study_key, number)
                continue
            self._engine.enqueue(
                STUDY, WORKFLOW, study_key, number, attempt, deaths > 0,
                workflow_id=workflow_id(study_key, number, attempt), urgent=(study_key, number) in urgent,
            )  # fmt: skip

    def _give_up(self, study_key: str, number: int) -> None:
        reason = "The work on this study ended without a result too often. Look at the log, then retry it."
        with self._store.begin() as tx:
            studies.advance(tx, study_key, number, FAILED, from_=BEFORE_DELIVERY, reason=reason)
        _log.error("study.failed", study=study_key, revision=number, reason=reason)

    def _start_deliveries(self, now: datetime) -> None:
        """Each delivery that is due has a live attempt."""
        with self._store.read() as tx:
            due = deliveries.waiting(tx, before=now)
            urgent = studies.urgent(tx, [(delivery.study_key, delivery.revision) for delivery in due])
        if not due:
            return
        live = {run.workflow_id for run in self._engine.live(DELIVER)}
        for delivery in due:
            place = (delivery.study_key, delivery.revision)
            goes_on = self._start_attempt(
                live, delivery_id(*place, delivery.destination, delivery.attempt), DELIVERY_WORKFLOW,
                *place, delivery.destination, delivery.attempt,
                partition=delivery.destination, urgent=place in urgent,
            )  # fmt: skip
            if goes_on:
                continue
            with self._store.begin() as tx:
                deliveries.lock(tx, *place)
                if deliveries.get(tx, *place, delivery.destination) == delivery:
                    deliveries.save(tx, put_off(delivery, now=now, backoff=self._settings.backoff))

    def _start_commitments(self, now: datetime) -> None:
        """Each commitment that is to be asked for or answered now has a live attempt; none waits for a delivery."""
        with self._store.read() as tx:
            due = commitments.due(tx, now=now)
            requests = commitments.requests(tx, now=now)
        live = {run.workflow_id for run in self._engine.live(DELIVER)} if due or requests else set()
        for value in due:
            goes_on = self._start_attempt(
                live, commitment.commit_id(value), commitment.COMMIT_WORKFLOW,
                value.study_key, value.revision, value.destination, value.attempt,
                partition=f"commit {value.destination}",
            )  # fmt: skip
            if not goes_on:
                commitment.put_off(self._store, value, now=now)
        for request in requests:
            goes_on = self._start_attempt(
                live, commitment.answer_id(request), commitment.ANSWER_WORKFLOW, request.key, request.attempt,
                partition=f"answer {request.calling_ae}",
            )  # fmt: skip
            if not goes_on:
                commitment.put_off_answer(self._store, request, now=now)

    def _start_attempt(
        self, live: Collection[str], wanted: str, workflow: str, *arguments: str | int, partition: str,
        urgent: bool = False,
    ) -> bool:  # fmt: skip
        """One attempt of that name, unless it is live; False when it has crashed too often."""
        if any(_is_attempt(run, wanted) for run in live):
            return True
        crashes = sum(_is_attempt(run.workflow_id, wanted) for run in self._engine.runs(wanted))
        if crashes < _CRASHES:
            self._engine.enqueue(
                DELIVER, workflow, *arguments, workflow_id=f"{wanted}/again{crashes}" if crashes else wanted,
                partition=partition, urgent=urgent,
            )  # fmt: skip
        return crashes < _CRASHES

    def _start_retraining(self) -> None:
        """Each run that was asked for and has not ended has a live workflow; one that dies too often has failed."""
        with self._store.read() as tx:
            wanted = [run for run in runs.listing(tx) if not run.ended]
        live = [run.workflow_id for run in self._engine.live(RETRAIN)] if wanted else []
        for run in wanted:
            first = f"retrain/{run.key}"
            if any(name == first or name.startswith(f"{first}/") for name in live):
                continue
            attempt = len(self._engine.runs(first))
            if attempt >= _CRASHES:
                with self._store.begin() as tx:
                    message = (
                        "The training ended without a result too often. Look at the log, then start a run by hand."
                    )
                    runs.advance(tx, run.key, "failed", now=self._clock.now(), message=message)
                continue
            name = f"{first}/a{attempt}" if attempt else first
            self._engine.enqueue(RETRAIN, RETRAIN_WORKFLOW, run.key, attempt, workflow_id=name)

    def _take_over(self, now: datetime) -> None:
        """Work of executors that are silent or unknown goes back to its queues, as often as it takes."""
        with self._store.begin() as tx:
            for executor_id in executors.expired(tx, now):
                if executor_id == self._engine.executor_id:
                    # The database was away for longer than the lease, and nobody took over: the next beat renews it.
                    continue
                # First, so that it ends when it was only slow.
                executors.retire(tx, executor_id)
                _log.warning("executor.expired", executor=executor_id)
            alive = {row.id for row in executors.listing(tx)}
        running = {run.executor for run in self._engine.live() if run.status == "PENDING"}
        for executor_id in sorted(id for id in running - alive if id is not None):
            self._engine.take_over(executor_id)


def _without_attempt(run_id: str) -> str:
    """`study/<key>/r<n>` of any attempt at it."""
    return "/".join(run_id.split("/")[:3])


def _attempt(run_id: str) -> int:
    """`k` of `study/<key>/r<n>/a<k>`; the first attempt does not name it."""
    return int("".join(run_id.split("/")[3:]).removeprefix("a") or 0)


def _is_attempt(run_id: str, wanted: str) -> bool:
    """Whether a workflow is the attempt of that name, or a repetition of it after a crash."""
    return run_id == wanted or run_id.startswith(f"{wanted}/again")
