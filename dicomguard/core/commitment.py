"""Storage commitment (PS3.4 annex J): a destination is asked about what it was sent until it vouches for it.

Success of C-STORE says that an archive has taken an object, commitment that it will keep it. This module turns answers
into the next step; it opens no socket and keeps no time.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Literal

from dicomguard.core import uid

# Failure Reason (0008,1197), PS3.4 J.3.3.1.2 and PS3.3 C.14.1.1.
PROCESSING_FAILURE = 0x0110
NO_SUCH_INSTANCE = 0x0112
CLASS_CONFLICT = 0x0119
DUPLICATE_TRANSACTION = 0x0131
RESOURCE_LIMITATION = 0x0213
_REASONS = {
    PROCESSING_FAILURE: "processing failure",
    NO_SUCH_INSTANCE: "no such object instance",
    CLASS_CONFLICT: "class and instance do not fit",
    0x0122: "SOP class not supported",
    DUPLICATE_TRANSACTION: "duplicate transaction UID",
    RESOURCE_LIMITATION: "resource limitation",
}


class State(StrEnum):
    """Where the commitment of one delivery stands."""

    # To be asked, at the next time or when what is sent again has arrived.
    DUE = "due"
    ASKED = "asked"
    # Not everything is committed; what follows from that is to be done.
    ANSWERED = "answered"
    COMMITTED = "committed"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """An object by its SOP class and instance UID."""

    sop_class_uid: str
    sop_instance_uid: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One object of a delivery."""

    reference: Reference
    committed: bool = False
    # Of the last answer that was not a commitment.
    reason: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What an N-EVENT-REPORT says: SOP Instance UIDs that are committed, and why others are not."""

    transaction_uid: str
    committed: Sequence[Reference] = ()
    failed: Mapping[Reference, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long is waited."""

    # Between two attempts to ask.
    again: timedelta = timedelta(minutes=15)
    # For the N-EVENT-REPORT, which may come hours later.
    deadline: timedelta = timedelta(hours=24)
    give_up: timedelta = timedelta(days=7)


@dataclass(frozen=True, slots=True, kw_only=True)
class Commitment:
    """The commitment of what a revision sent to a destination."""

    study_key: str
    revision: int
    destination: str
    parts: tuple[Part, ...]
    state: State = State.DUE
    # Of the last question, "" before the first.
    transaction_uid: str = ""
    # Changes of its state so far; names the next attempt.
    attempt: int = 0
    # Whether what the destination did not have was sent again.
    resent: bool = False
    planned_at: datetime
    # None when nothing is to be done.
    next_at: datetime | None
    comment: str = ""

    @property
    def open(self) -> tuple[Part, ...]:
        """What is not committed yet."""
        return tuple(part for part in self.parts if not part.committed)


Step = Literal["ask", "resend", "fail"]


def next_step(commitment: Commitment, patience: Patience, *, now: datetime) -> Step:
    """What is to be done about one whose time has come."""
    if now >= commitment.planned_at + patience.give_up:
        return "fail"
    if commitment.state is not State.ANSWERED:
        return "ask"
    reasons = {part.reason for part in commitment.open}
    if reasons <= {None, RESOURCE_LIMITATION}:
        return "ask"
    if reasons <= {None, RESOURCE_LIMITATION, NO_SUCH_INSTANCE} and not commitment.resent:
        return "resend"
    return "fail"


def ask(commitment: Commitment, *, now: datetime, within: timedelta) -> Commitment:
    """Before the question goes out: under a transaction UID of its own, and due again if nobody says how that went."""
    place = (commitment.study_key, commitment.revision, commitment.destination, commitment.attempt)
    return replace(
        commitment,
        state=State.ASKED,
        transaction_uid=uid.derive("commitment", *place),
        attempt=commitment.attempt + 1,
        next_at=now + within,
    )


def taken(commitment: Commitment, patience: Patience, *, now: datetime) -> Commitment:
    """The destination took the question; its answer comes by itself, or is asked for again after the deadline."""
    return replace(commitment, next_at=now + patience.deadline, comment="")


def not_taken(commitment: Commitment, comment: str, patience: Patience, *, now: datetime) -> Commitment:
    """The question did not arrive, or was refused."""
    return replace(
        commitment, state=State.DUE, attempt=commitment.attempt + 1, next_at=now + patience.again, comment=comment
    )


def answer(commitment: Commitment, report: Report, patience: Patience, *, now: datetime) -> Commitment:
    """The commitment after the report on its last question; what the report does not name stays open."""
    committed = {item.sop_instance_uid for item in report.committed}
    failed = {item.sop_instance_uid: reason for item, reason in report.failed.items()}
    parts = tuple(
        replace(part, committed=True, reason=None)
        if part.committed or part.reference.sop_instance_uid in committed
        else replace(part, reason=failed.get(part.reference.sop_instance_uid))
        for part in commitment.parts
    )
    after = replace(commitment, parts=parts, attempt=commitment.attempt + 1)
    if not after.open:
        return replace(after, state=State.COMMITTED, next_at=None, comment="")
    waits = {part.reason for part in after.open} <= {None, RESOURCE_LIMITATION}
    return replace(after, state=State.ANSWERED, next_at=now + patience.again if waits else now, comment=_said(after))


def resend(commitment: Commitment) -> Commitment:
    """What the destination did not have is being sent again; `renew` has it asked about."""
    return replace(commitment, state=State.DUE, attempt=commitment.attempt + 1, resent=True, next_at=None)


def renew(commitment: Commitment, *, now: datetime) -> Commitment:
    """Ask now: what was sent again has arrived, or a person wants it; where nothing is open there is no question."""
    after = replace(commitment, attempt=commitment.attempt + 1, planned_at=now)
    if not after.open:
        return replace(after, state=State.COMMITTED, next_at=None, comment="")
    return replace(after, state=State.DUE, next_at=now)


def fail(commitment: Commitment) -> Commitment:
    """A person has to look."""
    comment = commitment.comment or "no answer"
    return replace(commitment, state=State.FAILED, attempt=commitment.attempt + 1, next_at=None, comment=comment)


def _said(commitment: Commitment) -> str:
    """One line for the page."""
    reasons: dict[str, int] = {}
    for part in commitment.open:
        word = "not answered" if part.reason is None else _REASONS.get(part.reason, f"{part.reason:04X}")
        reasons[word] = reasons.get(word, 0) + 1
    return "not committed: " + ", ".join(f"{count} × {word}" for word, count in sorted(reasons.items()))
