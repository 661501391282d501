"""The way of a revision's results to one destination: what a status means, when to try again, when it is over.

C-STORE answers each instance with its own status (PS3.4 B.2.3, PS3.7 C); success is that word, never the end of an
association. This module turns answers into the next state; it opens no socket and keeps no time. A failing destination
has no part in another's value, so it cannot delay one.
"""

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum


class Event(StrEnum):
    """What one attempt said about one instance."""

    STORED = "stored"
    # Stored with coercion or discarded elements; an archive that coerces an SR may have broken a reference.
    STORED_WITH_WARNING = "stored_with_warning"
    # Out of resources.
    BUSY = "busy"
    # No answer, or abort.
    SILENT = "silent"
    # No association: no connection, or a transient reject. Nothing else would get through either.
    UNREACHED = "unreached"
    # The SOP class or the dataset is not taken in this form.
    FORM_REFUSED = "form_refused"
    # No presentation context was accepted: the peer takes none of this kind.
    NO_CONTEXT = "no_context"
    NOT_AUTHORISED = "not_authorised"
    # A-ASSOCIATE-RJ permanent: AE titles are wrong, a person has to act.
    REJECTED = "rejected"
    FAILED = "failed"


class State(StrEnum):
    """Where an instance stands; a delivery stands where its worst instance does."""

    WAITING = "waiting"
    SENT = "sent"
    WARNED = "warned"
    # The peer takes none of its forms; the other instances were sent without it.
    SKIPPED = "skipped"
    REFUSED = "refused"


# From best to worst; a delivery with anything waiting is waiting.
_BADNESS = (State.SENT, State.WARNED, State.SKIPPED, State.REFUSED, State.WAITING)

# state × event → state, for an instance in its last form. A final state answers to nothing.
TABLE: Mapping[tuple[State, Event], State] = {
    (State.WAITING, Event.STORED): State.SENT,
    (State.WAITING, Event.STORED_WITH_WARNING): State.WARNED,
    (State.WAITING, Event.BUSY): State.WAITING,
    (State.WAITING, Event.SILENT): State.WAITING,
    (State.WAITING, Event.UNREACHED): State.WAITING,
    (State.WAITING, Event.FORM_REFUSED): State.REFUSED,
    (State.WAITING, Event.NO_CONTEXT): State.SKIPPED,
    (State.WAITING, Event.NOT_AUTHORISED): State.WAITING,
    (State.WAITING, Event.REJECTED): State.WAITING,
    (State.WAITING, Event.FAILED): State.REFUSED,
}
# Another form of the same content may still be taken after these.
_NEXT_FORM = frozenset({Event.FORM_REFUSED, Event.NO_CONTEXT})
# A person has to act; asking each few seconds would only fill the peer's log.
_HOURLY = frozenset({Event.NOT_AUTHORISED, Event.REJECTED})
# After these the rest of the objects stays for the next attempt, so that the SR still goes last.
ENDS_ATTEMPT = frozenset({Event.BUSY, Event.SILENT, Event.UNREACHED, Event.NOT_AUTHORISED, Event.REJECTED})
# After these other deliveries to the destination need not try.
CLOSES = frozenset({Event.UNREACHED, Event.REJECTED})
_WORN_OUT = "alarm: its attempts ended without an answer; look at the log. It is tried again each hour"
_STANDS_BACK = "the destination was not reached; this waits for the one that tries it"


def classify(status: int) -> Event:
    """The meaning of a C-STORE status (PS3.4 Table B.2-1, PS3.7 Annex C)."""
    if status == 0x0000:
        return Event.STORED
    if status & 0xF000 == 0xB000 or status in (0x0001, 0x0107, 0x0116):
        return Event.STORED_WITH_WARNING
    if status & 0xFF00 == 0xA700 or status == 0x0213:
        return Event.BUSY
    if status & 0xFF00 == 0xA900 or status & 0xF000 == 0xC000 or status == 0x0122:
        return Event.FORM_REFUSED
    if status == 0x0124:
        return Event.NOT_AUTHORISED
    return Event.FAILED


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the peer said to one sent object."""

    event: Event
    # None when no status came.
    status: int | None = None
    comment: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One result on its way to one destination."""

    kind: str
    # SOP Instance UIDs of its forms in order of preference (Comprehensive 3D SR, then Comprehensive SR).
    forms: tuple[str, ...]
    # Index of the form that is sent next or was taken.
    form: int = 0
    state: State = State.WAITING
    # Last status word, None when none came.
    status: int | None = None
    comment: str = ""

    @property
    def sop_instance_uid(self) -> str:
        """Of the form that counts now."""
        return self.forms[self.form]


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """All results of one revision for one destination."""

    study_key: str
    revision: int
    destination: str
    # In sending order.
    items: tuple[Item, ...]
    # Attempts made or overtaken so far; also the name of the next one.
    attempt: int = 0
    planned_at: datetime
    # None when it is over.
    next_at: datetime | None
    comment: str = ""

    @property
    def state(self) -> State:
        """The worst state of its instances; nothing to send counts as sent."""
        return max((item.state for item in self.items), key=_BADNESS.index, default=State.SENT)

    @property
    def urged(self) -> bool:
        """Whether a person wants it tried now (see `retry`)."""
        return self.attempt > 0 and not self.comment

    @property
    def alarm(self) -> bool:
        """Whether a person has to look."""
        return self.state is State.REFUSED or self.comment.startswith("alarm: ")


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """When to try again."""

    first: timedelta = timedelta(seconds=5)
    longest: timedelta = timedelta(minutes=15)
    # After a refusal that only a person can lift.
    refused: timedelta = timedelta(hours=1)
    give_up: timedelta = timedelta(days=7)

    @property
    def furthest(self) -> timedelta:
        """Nothing is put off further than this (see `stand_back`)."""
        return max(self.longest, self.refused) + self.refused


def delay(delivery: Delivery, backoff: Backoff) -> timedelta:
    """Full jitter over first × 2^(attempt-1), at most `longest`; the jitter is a hash, so it repeats."""
    ceiling = min(backoff.longest, backoff.first * (1 << min(max(delivery.attempt - 1, 0), 20)))
    name = f"{delivery.study_key}|{delivery.revision}|{delivery.destination}|{delivery.attempt}"
    fraction = (int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big") + 1) / 2**32
    return max(timedelta(seconds=1), timedelta(seconds=ceiling.total_seconds() * fraction))


def advance(item: Item, answer: Answer) -> Item:
    """The item after one answer; a final item stays as it is."""
    if item.state is not State.WAITING:
        return item
    if answer.event in _NEXT_FORM and item.form + 1 < len(item.forms):
        return replace(item, form=item.form + 1, status=answer.status, comment=answer.comment)
    return replace(item, state=TABLE[item.state, answer.event], status=answer.status, comment=answer.comment)


def record(delivery: Delivery, answers: Mapping[str, Answer], *, now: datetime, backoff: Backoff) -> Delivery:
    """The delivery after one attempt.

    `answers` is keyed by the SOP Instance UID that was sent; an object without answer was not reached and waits.
    """
    items = tuple(
        advance(item, answers[item.sop_instance_uid]) if item.sop_instance_uid in answers else item
        for item in delivery.items
    )
    tried = replace(delivery, items=items, attempt=delivery.attempt + 1, next_at=None, comment=_said(items, answers))
    if tried.state is not State.WAITING:
        return tried
    if now >= delivery.planned_at + backoff.give_up:
        return replace(tried, items=tuple(_give_up(item, backoff) for item in items))
    if any(answer.event in _HOURLY for answer in answers.values()):
        return replace(tried, next_at=now + backoff.refused, comment=f"alarm: {tried.comment}")
    if any(before.form != after.form for before, after in zip(delivery.items, items, strict=True)):
        # The peer is well, only another form is wanted.
        return replace(tried, next_at=now)
    return replace(tried, next_at=now + delay(tried, backoff))


def retry(delivery: Delivery, *, now: datetime) -> Delivery:
    """Asked by a person: what was refused, skipped or waits starts again with its first form, at once."""
    done = (State.SENT, State.WARNED)
    items = tuple(
        item if item.state in done else replace(item, state=State.WAITING, form=0, status=None, comment="")
        for item in delivery.items
    )
    if not any(item.state is State.WAITING for item in items):
        return delivery
    return hasten(replace(delivery, items=items, planned_at=now, comment=""), now=now)


def resend(delivery: Delivery, sop_instance_uids: Collection[str], *, now: datetime) -> Delivery:
    """Send these once more, which the destination has taken and does not have."""
    items = tuple(
        replace(item, state=State.WAITING, status=None, comment="")
        if item.sop_instance_uid in sop_instance_uids
        else item
        for item in delivery.items
    )
    return hasten(replace(delivery, items=items, planned_at=now, comment=""), now=now)


def stand_back(delivery: Delivery, *, until: datetime, backoff: Backoff) -> Delivery:
    """Another delivery found the destination unreachable and tries it again at `until`.

    When that one gets through it wakes all that stand back; in case it never does, they look later themselves.
    """
    return replace(delivery, attempt=delivery.attempt + 1, next_at=until + backoff.refused, comment=_STANDS_BACK)


def put_off(delivery: Delivery, *, now: datetime, backoff: Backoff) -> Delivery:
    """Its attempt ended again and again before it was written down: a person has to look, and it goes on later."""
    return replace(delivery, attempt=delivery.attempt + 1, next_at=now + backoff.refused, comment=_WORN_OUT)


def hasten(delivery: Delivery, *, now: datetime) -> Delivery:
    """Try at once, for instance since the destination has just taken something else.

    It counts as an attempt, so that the one that was put off finds itself overtaken.
    """
    return replace(delivery, attempt=delivery.attempt + 1, next_at=now)


def _give_up(item: Item, backoff: Backoff) -> Item:
    if item.state is not State.WAITING:
        return item
    return replace(item, state=State.REFUSED, comment=f"given up after {backoff.give_up.days} days: {item.comment}")


def _said(items: tuple[Item, ...], answers: Mapping[str, Answer]) -> str:
    """One line for the page: what is not simply sent, by kind, and the peer's words."""
    left = [
        f"{item.kind} {item.state}: {item.comment}" for item in items if item.state is not State.SENT and item.comment
    ]
    if left:
        return "; ".join(left)
    return "; ".join(sorted({answer.comment for answer in answers.values() if answer.comment}))
