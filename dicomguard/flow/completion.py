"""Asks `core.completion` about each study that collects, and opens the revision of those that are complete."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from dicomguard import log, part10
from dicomguard.core.completion import Close, Patience, decide
from dicomguard.core.study import StudyRevision
from dicomguard.core.urgency import Policy, why_urgent
from dicomguard.errors import Refused
from dicomguard.flow.states import BEFORE_DELIVERY, SUPERSEDED
from dicomguard.store import studies
from dicomguard.store.db import Store, Tx

# A study that comes back this often within the window is being sent in pieces, or round in a circle.
_MANY_REVISIONS = 5
_WINDOW = timedelta(hours=1)
# Receivers on other machines have clocks of their own.
_CLOCKS_APART = timedelta(minutes=1)

_log = log.get("flow")


# Requested Procedure Priority and Study Priority ID.
_PRIORITIES = ("RequestedProcedurePriority", "StudyPriorityID")


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """How the studies of a sender are waited for."""

    patience: Patience
    # An open association that stored something this long ago no longer holds a study.
    association_hold: timedelta
    urgent: Policy = "asked"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings(Terms):
    """What the configuration says about waiting."""

    # Of peers with terms of their own, by calling AE title.
    senders: Mapping[str, Terms] = field(default_factory=dict)

    def of(self, calling_ae: str) -> Terms:
        """Those that hold for studies of this sender."""
        return self.senders.get(calling_ae, self)


def open_complete(store: Store, settings: Settings, *, now: datetime) -> list[StudyRevision]:
    """Close what is complete; earlier revisions that did not begin delivery are superseded in the same transaction."""
    _follow_the_clock(store, now=now)
    with store.read() as tx:
        complete = [study.study_key for study, _ in _complete(tx, settings, now=now)]
    opened = (_open(store, settings, study_key, now=now) for study_key in complete)
    return [revision for revision in opened if revision is not None]


def _follow_the_clock(store: Store, *, now: datetime) -> None:
    """A clock that was ahead and is right again must not have studies wait until it gets there once more."""
    with store.read() as tx:
        if not studies.ahead(tx, now=now + _CLOCKS_APART):
            return
    with store.begin() as tx:
        studies.come_by(tx, now=now)
    _log.warning("clock.returned", reason="Images came later than now. Look after the time of this machine.")


def _open(store: Store, settings: Settings, study_key: str, *, now: datetime) -> StudyRevision | None:
    """None when a sender, a person, or a worker that took the lease while this one slept has changed the matter."""
    said = _priorities(store, study_key)
    with store.begin() as tx:
        studies.lock(tx, study_key)
        found = _complete(tx, settings, now=now, only=study_key)
        if not found:
            return None
        ((study, reason),) = found
        urgent = why_urgent(settings.of(study.calling_ae).urgent, asked=study.asked_urgent, priorities=said)
        revision = studies.open_revision(tx, study_key, closed_because=reason, now=now, urgent=bool(urgent))
        _supersede(tx, revision)
    _log.event("revision.opened", study=study_key, revision=revision.number, reason=reason)
    if urgent:
        _log.event("revision.preferred", study=study_key, revision=revision.number, reason=urgent)
    return revision


def _complete(
    tx: Tx, settings: Settings, *, now: datetime, only: str | None = None
) -> list[tuple[studies.OpenStudy, str]]:
    """Studies (or that of the key `only`) that are complete as the rows stand, with the reason."""
    found = []
    for study in studies.collecting(
        tx,
        now=now,
        association_hold=settings.association_hold,
        holds={title: terms.association_hold for title, terms in settings.senders.items()},
        only=only,
    ):
        past = studies.revisions(tx, study.study_key)
        patience = slowed(settings.of(study.calling_ae).patience, past, now=now)
        answer = decide(study.activity, patience, now=now, forced_by=study.forced_by, on_hold=study.on_hold)
        if isinstance(answer, Close):
            found.append((study, answer.reason))
    return found


def slowed(patience: Patience, past: Sequence[StudyRevision], *, now: datetime) -> Patience:
    """Double the quiet time for each revision beyond five in an hour, up to an hour."""
    surplus = sum(1 for revision in past if revision.created_at > now - _WINDOW) - _MANY_REVISIONS
    if surplus < 0:
        return patience
    quiet = min(_WINDOW, patience.quiet * (1 << min(surplus + 1, 12)))
    return replace(patience, quiet=quiet, quiet_released=quiet)


def _priorities(store: Store, study_key: str) -> list[str]:
    """What the header of its first instance says; nothing when it cannot be read, which is no reason to wait."""
    with store.read() as tx:
        first = studies.first_instance(tx, study_key)
    if first is None:
        return []
    try:
        dataset = part10.read_dataset_head(store.root / first.path, tags=_PRIORITIES)
    except (Refused, OSError):
        return []
    return [str(dataset.get(keyword, "")) for keyword in _PRIORITIES]


def _supersede(tx: Tx, revision: StudyRevision) -> None:
    for earlier in studies.revisions(tx, revision.study_key):
        if earlier.number < revision.number:
            reason = f"Revision {revision.number} came before this one was sent."
            studies.advance(tx, revision.study_key, earlier.number, SUPERSEDED, from_=BEFORE_DELIVERY, reason=reason)
