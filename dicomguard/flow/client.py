"""What the page and the command line may ask of the work. Only rows are written; the worker's sweep picks them up."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from dicomguard.clock import Clock, SystemClock
from dicomguard.config import Config
from dicomguard.core import commitment
from dicomguard.core.delivery import retry
from dicomguard.errors import Refused
from dicomguard.flow.states import BEFORE_DELIVERY, CANCELLED, DELIVERING, DONE, FAILED
from dicomguard.store import audit, commitments, deliveries, runs, studies, worklist
from dicomguard.store.db import Store, open_configured


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueRow:
    """One thing that is under way or waits for a person."""

    study_key: str
    revision: int
    kind: Literal["study", "delivery", "commitment"]
    # State of the revision, of the delivery, or of its commitment.
    state: str
    # Name of the destination; "" for a study.
    destination: str
    attempts: int
    next_at: datetime | None
    message: str


class Client:
    """Asks, in the name of a person."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    def force(self, study_key: str, by: str) -> None:
        """Close the study now; one that was judged is judged again."""
        with self._store.begin() as tx:
            studies.force(tx, study_key, by, now=self._clock.now())
            audit.append(tx, by, "study.forced", study_key, {}, now=self._clock.now())

    def hold(self, study_key: str, on: bool, by: str) -> bool:
        """Keep the study from being closed, or let it go; whether a revision is under way, which goes on either way."""
        with self._store.begin() as tx:
            studies.hold(tx, study_key, on, by)
            audit.append(tx, by, "study.held" if on else "study.freed", study_key, {}, now=self._clock.now())
            current = [revision.number for revision in studies.revisions(tx, study_key)[-1:]]
            return any(studies.state(tx, study_key, number) in BEFORE_DELIVERY for number in current)

    def cancel(self, study_key: str, by: str) -> None:
        """Stop the work on the current revision: its child ends within two seconds, and nothing is reported."""
        reason = f"cancelled by {by}"
        with self._store.begin() as tx:
            current = [revision.number for revision in studies.revisions(tx, study_key)[-1:]]
            if not any(
                studies.advance(tx, study_key, number, CANCELLED, from_=BEFORE_DELIVERY, reason=reason)
                for number in current
            ):
                raise Refused(
                    f'No work on study "{study_key}" is under way. What is being sent cannot be taken back; '
                    "hold the study to keep what it collects from being judged."
                )
            audit.append(tx, by, "study.cancelled", study_key, {}, now=self._clock.now())

    def retry(self, study_key: str, by: str) -> None:
        """Start again what failed or was cancelled: the work on the current revision, every delivery not through."""
        again = 0
        with self._store.begin() as tx:
            for revision in studies.revisions(tx, study_key)[-1:]:
                reason = f"retried by {by}"
                again += studies.reopen(tx, study_key, revision.number, from_=(FAILED, CANCELLED), reason=reason)
            for revision in studies.revisions(tx, study_key):
                deliveries.lock(tx, study_key, revision.number)
            for delivery in deliveries.of_study(tx, study_key):
                renewed = retry(delivery, now=self._clock.now())
                if renewed != delivery:
                    deliveries.save(tx, renewed)
                    studies.advance(tx, study_key, delivery.revision, DELIVERING, from_=(DONE,))
                    again += 1
            for value in commitments.of_study(tx, study_key):
                if value.state is commitment.State.FAILED:
                    commitments.save(tx, commitment.renew(value, now=self._clock.now()))
                    again += 1
            if not again:
                raise Refused(f"Nothing of study {study_key} has failed or was cancelled. To judge it again, force it.")
            audit.append(tx, by, "study.retried", study_key, {"parts": again}, now=self._clock.now())

    def start_retraining(self, by: str) -> str:
        """Ask for a training run now; returns its key."""
        now = self._clock.now()
        with self._store.begin() as tx:
            return runs.ask(tx, f"by-hand-{now:%Y%m%dT%H%M%SZ}", by=by, now=now).key

    def queue(self) -> list[QueueRow]:
        """Revisions in work or failed, deliveries that wait or were refused, commitments not given; the oldest first.

        What a later revision has overtaken waits for nobody.
        """
        rows = []
        with self._store.read() as tx:
            for study_key, number in studies.in_state(tx, (*BEFORE_DELIVERY, FAILED)):
                line = worklist.row(tx, study_key)
                if line is None or line.revision != number:
                    continue
                rows.append(
                    QueueRow(
                        study_key=study_key,
                        revision=number,
                        kind="study",
                        state=studies.state(tx, study_key, number) or "",
                        destination="",
                        attempts=0,
                        next_at=None,
                        message=line.reason,
                    )
                )
            for delivery in (*deliveries.waiting(tx), *deliveries.refused(tx)):
                rows.append(
                    QueueRow(
                        study_key=delivery.study_key,
                        revision=delivery.revision,
                        kind="delivery",
                        state=delivery.state.value,
                        destination=delivery.destination,
                        attempts=delivery.attempt,
                        next_at=delivery.next_at,
                        message=delivery.comment,
                    )
                )
            for value in commitments.uncommitted(tx):
                rows.append(
                    QueueRow(
                        study_key=value.study_key,
                        revision=value.revision,
                        kind="commitment",
                        state=value.state.value,
                        destination=value.destination,
                        attempts=value.attempt,
                        next_at=value.next_at,
                        message=value.comment,
                    )
                )
        return rows


def open(config: Config) -> Client:
    """A client on the node's database; only process entries have a configuration."""
    clock = SystemClock()
    return Client(open_configured(config, clock), clock)
