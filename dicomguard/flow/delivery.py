"""The results of a revision on their way to one destination: one short workflow an attempt, put off in the database.

Nothing sleeps in a thread, so a restart loses nothing, and a destination that fails has no part in another's queue.
Sending twice is harmless: the kept bytes go out again under the same UIDs.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from dicomguard import log
from dicomguard.clock import Clock
from dicomguard.core.delivery import CLOSES, Answer, Backoff, Delivery, Event, State, hasten, record, stand_back
from dicomguard.core.peer import Destination
from dicomguard.deliver import storage
from dicomguard.deliver.association import Timeouts
from dicomguard.errors import Broken, Refused, Unavailable
from dicomguard.flow import commitment, kept
from dicomguard.flow.engine import DELIVER, Engine
from dicomguard.flow.states import DELIVERING, DONE
from dicomguard.flow.study import DELIVERY_WORKFLOW, delivery_id, guarded
from dicomguard.store import deliveries, results, studies
from dicomguard.store.db import Store, Tx

_log = log.get("flow")


class Send(Protocol):
    """`deliver.storage.send`."""

    def __call__(
        self, files: list[Path], destination: Destination, *, calling_ae: str, timeouts: Timeouts
    ) -> list[storage.Sent]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the configuration says about sending."""

    calling_ae: str
    destinations: Mapping[str, Destination]
    backoff: Backoff
    timeouts: Timeouts


class DeliveryWork:
    """The attempts, with what they need."""

    def __init__(self, *, store: Store, clock: Clock, settings: Settings, send: Send = storage.send) -> None:
        self._store = store
        self._clock = clock
        self._settings = settings
        self._send = send
        # Destinations that were not reached, and when that is tried again. Each worker learns it for itself.
        self._closed: dict[str, datetime] = {}

    def run(self, engine: Engine, study_key: str, number: int, destination: str, attempt: int) -> dict[str, Any]:
        """The workflow of one attempt; the next one is enqueued with its delay."""
        answer: dict[str, Any] = engine.step(
            "send", guarded, "send", lambda: self.attempt(study_key, number, destination, attempt), study_key, number
        )
        wait_s = answer.get("wait_s")
        if wait_s is not None:
            engine.enqueue(
                DELIVER, DELIVERY_WORKFLOW, study_key, number, destination, attempt + 1,
                workflow_id=delivery_id(study_key, number, destination, attempt + 1),
                partition=destination, delay_s=wait_s,
            )  # fmt: skip
        return answer

    def attempt(self, study_key: str, number: int, destination: str, attempt: int) -> dict[str, Any]:
        """Send what waits and write down each answer; an attempt that was overtaken does nothing."""
        with self._store.read() as tx:
            planned = deliveries.get(tx, study_key, number, destination)
            files = {value.sop_instance_uid: value for value in results.of_revision(tx, study_key, number)}
        if planned is None or planned.next_at is None or planned.attempt != attempt:
            return {"outcome": "overtaken", "wait_s": None}
        closed = self._closed.get(destination)
        if closed is not None and self._clock.now() < closed and not planned.urged:
            return self._stand_back(planned, closed)
        waiting = [item.sop_instance_uid for item in planned.items if item.state is State.WAITING]
        try:
            paths = [results.bytes_path(self._store, files[uid]) for uid in waiting]
            for path, uid in zip(paths, waiting, strict=True):
                kept.verified(path, files[uid].sha256)
            answers = self._answers(paths, destination, waiting)
        except Unavailable:
            raise
        except (Refused, Broken, KeyError, FileNotFoundError):
            comment = "A kept result is missing or was altered. Restore the store from its backup."
            answers = {uid: Answer(event=Event.FAILED, comment=comment) for uid in waiting}
        except Exception as error:  # noqa: BLE001 -- the top of an attempt: one that is not written down is never seen
            _log.crashed("step.crashed", study=study_key, revision=number, step="send")
            comment = f"A fault of ours while sending ({type(error).__name__}). Send the log to the makers."
            answers = {waiting[0]: Answer(event=Event.SILENT, comment=comment)}
        with self._store.begin() as tx:
            deliveries.lock(tx, study_key, number)
            current = deliveries.get(tx, study_key, number, destination)
            if current is None or current.attempt != attempt:
                return {"outcome": "overtaken", "wait_s": None}
            after = record(current, answers, now=self._clock.now(), backoff=self._settings.backoff)
            deliveries.save(tx, after)
            self._finish(tx, after)
        self._tell(after)
        if after.next_at is not None and any(answer.event in CLOSES for answer in answers.values()):
            self._closed[destination] = after.next_at
        else:
            self._closed.pop(destination, None)
        return self._next(after)

    def _stand_back(self, planned: Delivery, until: datetime) -> dict[str, Any]:
        """Nothing is sent: one delivery that waits for an answer in vain is enough."""
        with self._store.begin() as tx:
            deliveries.lock(tx, planned.study_key, planned.revision)
            current = deliveries.get(tx, planned.study_key, planned.revision, planned.destination)
            if current != planned:
                return {"outcome": "overtaken", "wait_s": None}
            after = stand_back(current, until=until, backoff=self._settings.backoff)
            deliveries.save(tx, after)
        return self._next(after)

    def _next(self, after: Delivery) -> dict[str, Any]:
        wait_s = None if after.next_at is None else max(0.0, (after.next_at - self._clock.now()).total_seconds())
        return {"outcome": "done", "state": after.state.value, "wait_s": wait_s}

    def _answers(self, paths: list[Path], destination: str, waiting: list[str]) -> dict[str, Answer]:
        peer = self._settings.destinations.get(destination)
        if peer is None:
            comment = f'The configuration has no destination "{destination}" any more. Add it again.'
            return {waiting[0]: Answer(event=Event.REJECTED, comment=comment)}
        sent = self._send(paths, peer, calling_ae=self._settings.calling_ae, timeouts=self._settings.timeouts)
        return {item.sop_instance_uid: item.answer for item in sent}

    def _finish(self, tx: Tx, delivery: Delivery) -> None:
        """Close the revision after its last delivery; wake what waits for a destination that has just answered."""
        siblings = deliveries.of_revision(tx, delivery.study_key, delivery.revision)
        if all(sibling.next_at is None for sibling in siblings):
            studies.advance(tx, delivery.study_key, delivery.revision, DONE, from_=(DELIVERING,))
        if delivery.next_at is not None:
            return
        peer = self._settings.destinations.get(delivery.destination)
        if peer is not None and peer.commitment:
            commitment.plan(tx, delivery, clock=self._clock)
        now = self._clock.now()
        for other in deliveries.put_off(tx, delivery.destination, now=now):
            if not other.alarm:
                deliveries.save(tx, hasten(other, now=now))

    def _tell(self, delivery: Delivery) -> None:
        say = _log.error if delivery.alarm else _log.event
        say(
            "delivery.attempted",
            study=delivery.study_key,
            revision=delivery.revision,
            destination=delivery.destination,
            attempt=delivery.attempt,
            state=delivery.state.value,
            reason=delivery.comment,
            next_at=delivery.next_at.isoformat(timespec="seconds") if delivery.next_at else None,
        )
