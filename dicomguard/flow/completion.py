"""Asks `core.completion` about each study that collects, and opens the revision of those that are complete."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from dicomguard import log
from dicomguard.core.completion import Close, Patience, decide
from dicomguard.core.study import StudyRevision
from dicomguard.flow.states import BEFORE_DELIVERY, SUPERSEDED
from dicomguard.store import studies
from dicomguard.store.db import Store, Tx

# A study that comes back this often within the window is being sent in pieces, or round in a circle.
_MANY_REVISIONS = 5
_WINDOW = timedelta(hours=1)

_log = log.get("flow")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the configuration says about waiting."""

    patience: Patience
    # An open association that stored something this long ago no longer holds a study.
    association_hold: timedelta


def open_complete(store: Store, settings: Settings, *, now: datetime) -> list[StudyRevision]:
    """Close what is complete; earlier revisions that did not begin delivery are superseded in the same transaction."""
    with store.read() as tx:
        open_studies = studies.collecting(tx, now=now, association_hold=settings.association_hold)
        past = {study.study_key: studies.revisions(tx, study.study_key) for study in open_studies}
    opened = []
    for study in open_studies:
        patience = slowed(settings.patience, past[study.study_key], now=now)
        answer = decide(study.activity, patience, now=now, forced_by=study.forced_by, on_hold=study.on_hold)
        if isinstance(answer, Close):
            with store.begin() as tx:
                revision = studies.open_revision(tx, study.study_key, closed_because=answer.reason, now=now)
                _supersede(tx, revision)
            _log.event("revision.opened", study=study.study_key, revision=revision.number, reason=answer.reason)
            opened.append(revision)
    return opened


def slowed(patience: Patience, past: Sequence[StudyRevision], *, now: datetime) -> Patience:
    """Double the quiet time for each revision beyond five in an hour, up to an hour."""
    surplus = sum(1 for revision in past if revision.created_at > now - _WINDOW) - _MANY_REVISIONS
    if surplus < 0:
        return patience
    return replace(patience, quiet=min(_WINDOW, patience.quiet * (1 << min(surplus + 1, 12))))


def _supersede(tx: Tx, revision: StudyRevision) -> None:
    for earlier in studies.revisions(tx, revision.study_key):
        if earlier.number < revision.number:
            reason = f"Revision {revision.number} came before this one was sent."
            studies.advance(tx, revision.study_key, earlier.number, SUPERSEDED, from_=BEFORE_DELIVERY, reason=reason)
