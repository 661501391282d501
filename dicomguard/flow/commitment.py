"""Storage commitment of results, and the answers to peers that ask us for it: short workflows, one an attempt.

What is due stands in rows; the sweep starts an attempt for each, so a restart loses nothing.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from dicomguard import log
from dicomguard.clock import Clock
from dicomguard.core import commitment as core
from dicomguard.core import delivery as core_delivery
from dicomguard.core.commitment import NO_SUCH_INSTANCE, Commitment, Part, Patience, Reference, State
from dicomguard.core.delivery import Delivery
from dicomguard.core.delivery import State as Sent
from dicomguard.core.peer import Destination
from dicomguard.deliver import commitment as network
from dicomguard.deliver.association import Timeouts
from dicomguard.errors import Shortage
from dicomguard.flow.engine import Engine
from dicomguard.flow.states import DELIVERING, DONE
from dicomguard.flow.study import guarded
from dicomguard.store import commitments, deliveries, log_slots, results, studies
from dicomguard.store.db import Store, Tx

COMMIT_WORKFLOW, ANSWER_WORKFLOW = "commit_v1", "answer_v1"
# An attempt that died without a word is made again after this.
_ASKING = timedelta(minutes=10)
# What a peer has just sent gets its rows within this.
_SETTLE_S = 5.0
# After attempts that ended before they wrote anything down.
_WORN_OUT = "alarm: its attempts ended without a word; look at the log. It is tried again each hour"
_WORN_OUT_PAUSE = timedelta(hours=1)
_NOBODY = "No destination has the AE title of this peer any more. Add it again."

_log = log.get("flow")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the configuration says about it."""

    calling_ae: str
    destinations: Mapping[str, Destination]
    patience: Patience
    timeouts: Timeouts
    linger_s: float


def commit_id(value: Commitment) -> str:
    """Workflow id of the next attempt at one commitment."""
    return f"commit/{value.study_key}/r{value.revision}/{value.destination}/{value.attempt}"


def answer_id(value: commitments.Request) -> str:
    """Workflow id of the next attempt to answer a peer."""
    return f"answer/{value.key}/{value.attempt}"


def plan(tx: Tx, delivery: Delivery, *, clock: Clock) -> None:
    """After a delivery: what has arrived is asked about, and nothing where nothing has.

    What was refused is told by the delivery. Where all is refused that the destination had taken before and does not
    have, a person has to look.
    """
    arrived = {item.sop_instance_uid for item in delivery.items if item.state in (Sent.SENT, Sent.WARNED)}
    now = clock.now()
    known = commitments.get(tx, delivery.study_key, delivery.revision, delivery.destination)
    old = {part.reference: part for part in known.parts} if known is not None else {}
    references = [
        Reference(sop_class_uid=value.sop_class_uid, sop_instance_uid=value.sop_instance_uid)
        for value in results.of_revision(tx, delivery.study_key, delivery.revision)
        if value.sop_instance_uid in arrived
    ]
    if not references:
        if known is not None:
            commitments.save(tx, core.fail(known))
        return
    parts = tuple(old.get(reference) or Part(reference=reference) for reference in references)
    if known is not None and known.parts == parts and known.state is State.COMMITTED:
        return
    fresh = known or Commitment(
        study_key=delivery.study_key,
        revision=delivery.revision,
        destination=delivery.destination,
        parts=parts,
        planned_at=now,
        next_at=now,
    )
    commitments.save(tx, core.renew(replace(fresh, parts=parts), now=now))


def release(store: Store, destinations: Collection[Destination]) -> None:
    """When the worker starts: what is asked of nobody any more has no attempt to end it, and would keep its study."""
    with store.begin() as tx:
        count = commitments.release(tx, [item.name for item in destinations if item.commitment])
    if count:
        _log.event("commitment.released", count=count)


def furthest(patience: Patience) -> timedelta:
    """Nothing is put off further than this."""
    return max(patience.again, patience.deadline, _WORN_OUT_PAUSE)


def put_off(store: Store, value: Commitment, *, now: datetime) -> None:
    """Its attempts ended again and again before they were written down: a person has to look, and it goes on later."""
    with store.begin() as tx:
        deliveries.lock(tx, value.study_key, value.revision)
        if commitments.get(tx, value.study_key, value.revision, value.destination) != value:
            return
        commitments.save(tx, core.not_taken(value, _WORN_OUT, Patience(again=_WORN_OUT_PAUSE), now=now))
    _log.error(
        "commitment.put_off", study=value.study_key, revision=value.revision, destination=value.destination,
        attempt=value.attempt, reason=_WORN_OUT,
    )  # fmt: skip


def put_off_answer(store: Store, request: commitments.Request, *, now: datetime) -> None:
    """The same of an answer to a peer."""
    with store.begin() as tx:
        if not commitments.advance(tx, request, "waiting", next_at=now + _WORN_OUT_PAUSE, comment=_WORN_OUT):
            return
    _log.error("commitment.put_off", ae=request.calling_ae, attempt=request.attempt, reason=_WORN_OUT)


class CommitmentWork:
    """The attempts, with what they need."""

    def __init__(self, *, store: Store, clock: Clock, settings: Settings) -> None:
        self._store = store
        self._clock = clock
        self._settings = settings

    # --- asking destinations -------------------------------------------------------------------------------------

    def run(self, engine: Engine, study_key: str, number: int, destination: str, attempt: int) -> dict[str, Any]:
        """The workflow of one attempt at one commitment."""
        step = self._step(lambda: self.attempt(study_key, number, destination, attempt))
        answer: dict[str, Any] = engine.step("commit", guarded, "commit", step, study_key, number)
        return answer

    def _step(self, act: Callable[[], str]) -> Callable[[], dict[str, Any]]:
        return lambda: {"outcome": "done", "did": act()}

    def attempt(self, study_key: str, number: int, destination: str, attempt: int) -> str:
        """Do what is to be done about it now; "overtaken" when that is nothing."""
        now = self._clock.now()
        with self._store.begin() as tx:
            deliveries.lock(tx, study_key, number)
            value = commitments.get(tx, study_key, number, destination)
            if value is None or value.next_at is None or value.next_at > now or value.attempt != attempt:
                return "overtaken"
            peer = self._settings.destinations.get(destination)
            if peer is None or not peer.commitment:
                commitments.drop(tx, value)
                return "dropped"
            step = core.next_step(value, self._settings.patience, now=now)
            if step == "fail":
                value = core.fail(value)
            elif step == "resend" and self._resend(tx, value):
                value = core.resend(value)
            else:
                value = core.ask(value, now=now, within=_ASKING)
            commitments.save(tx, value)
        self._tell(value)
        if value.state is State.ASKED:
            self._ask(value, peer)
        return value.state.value

    def _resend(self, tx: Tx, value: Commitment) -> bool:
        """Put back what the destination does not have; false when the delivery is not there or is under way."""
        delivery = deliveries.get(tx, value.study_key, value.revision, value.destination)
        if delivery is None or delivery.next_at is not None:
            return False
        lost = [part.reference.sop_instance_uid for part in value.open if part.reason == NO_SUCH_INSTANCE]
        deliveries.save(tx, core_delivery.resend(delivery, lost, now=self._clock.now()))
        studies.advance(tx, value.study_key, value.revision, DELIVERING, from_=(DONE,))
        return True

    def _ask(self, value: Commitment, peer: Destination) -> None:
        asked = network.ask(
            peer,
            value.transaction_uid,
            [part.reference for part in value.open],
            calling_ae=self._settings.calling_ae,
            timeouts=self._settings.timeouts,
            linger_s=self._settings.linger_s,
        )
        now, patience = self._clock.now(), self._settings.patience
        with self._store.begin() as tx:
            deliveries.lock(tx, value.study_key, value.revision)
            current = commitments.get(tx, value.study_key, value.revision, value.destination)
            # The report may have come to our port meanwhile.
            if current != value:
                return
            if asked.report is not None:
                after = core.answer(current, asked.report, patience, now=now)
            elif asked.refused:
                after = core.not_taken(current, asked.refused, patience, now=now)
            else:
                after = core.taken(current, patience, now=now)
            commitments.save(tx, after)
        self._tell(after)

    def _tell(self, value: Commitment) -> None:
        say = _log.error if value.state is State.FAILED else _log.event
        say(
            "commitment.attempted",
            study=value.study_key,
            revision=value.revision,
            destination=value.destination,
            attempt=value.attempt,
            state=value.state.value,
            reason=value.comment,
        )

    # --- answering peers -----------------------------------------------------------------------------------------

    def answer(self, engine: Engine, key: str, attempt: int) -> dict[str, Any]:
        """The workflow of one attempt to answer a peer."""
        step = self._step(lambda: self.report(key, attempt))
        answer: dict[str, Any] = engine.step("answer", guarded, "answer", step, key, attempt)
        return answer

    def report(self, key: str, attempt: int) -> str:
        """Look whether what was named is kept, and say so."""
        with self._store.read() as tx:
            found = commitments.requests(tx, key=key)
        if not found or found[0].next_at is None or found[0].attempt != attempt:
            return "overtaken"
        request = found[0]
        why = _NOBODY
        peer = next(
            (item for item in self._settings.destinations.values() if item.ae_title == request.calling_ae), None
        )
        # Before rows are there, nobody can tell what is not.
        settled = log_slots.settle(self._store.root, patience_s=_SETTLE_S)
        if peer is not None and not settled:
            why = "Instances that were acknowledged have no rows yet. It is tried again."
        elif peer is not None:
            why = self._vouch(peer, request)
        now, patience = self._clock.now(), self._settings.patience
        state = "waiting" if why else "answered"
        if why and now >= request.received_at + patience.give_up:
            state = "given up"
        # Quickly at first: what hinders a peer is often its own association that it has not closed yet.
        again = min(patience.again, timedelta(seconds=5 * (1 << min(request.attempt, 10))))
        with self._store.begin() as tx:
            commitments.advance(tx, request, state, next_at=now + again if state == "waiting" else None, comment=why)
            commitments.forget(tx, before=now - commitments.FORGOTTEN_AFTER)
        say = _log.error if state == "given up" else _log.event
        say("commitment.answered", ae=request.calling_ae, state=state, attempt=request.attempt, reason=why,
            count=len(request.references))  # fmt: skip
        return state

    def _vouch(self, peer: Destination, request: commitments.Request) -> str:
        """Look and tell the peer; "" when it took the answer, else why not."""
        try:
            committed, failed = commitments.look(self._store, request.references)
        except Shortage as error:
            return str(error)
        return network.report(
            peer, request.transaction_uid, committed, failed,
            calling_ae=self._settings.calling_ae, timeouts=self._settings.timeouts,
        )  # fmt: skip
