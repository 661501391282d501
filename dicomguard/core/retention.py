"""What may be deleted at `now`: images that are judged, delivered and past their time; verdict and results later.

A study goes as a whole, since a report on what is left of one would replace the report on all of it. This module
plans; it counts no bytes on a disk and deletes nothing.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """How long is kept; None is for ever."""

    # Images, counted from the last that came to the study.
    images: timedelta | None
    # Most bytes that images may take in all; the oldest go first.
    images_bytes: int | None
    # Verdict, results, deliveries and the study itself, counted from its last revision.
    results: timedelta | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A study that holds something."""

    study_key: str
    last_received_at: datetime
    # Of its last revision; when it was first seen before there is one.
    last_judged_at: datetime
    # Images that are there.
    images: int
    images_bytes: int
    collecting: bool
    on_hold: bool
    # A revision is being worked off, or its current one waits for a person.
    in_work: bool
    # A delivery is not over.
    waiting: bool
    # A destination that is asked for storage commitment has not given it.
    uncommitted: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Expiry:
    """The images of a study go."""

    study_key: str
    reason: str
    images_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Removal:
    """A study whose images are gone goes with verdict and results."""

    study_key: str
    reason: str


def kept_because(study: Candidate) -> str:
    """Why nothing of the study may be deleted now, "" when it may."""
    if study.on_hold:
        return "it is on hold"
    if study.collecting:
        return "it is collecting"
    if study.in_work:
        return "a revision is not finished"
    if study.waiting:
        return "a delivery is not over"
    if study.uncommitted:
        return "a destination has not committed itself to keep the results"
    return ""


def plan(studies: Iterable[Candidate], policy: Policy, *, now: datetime) -> list[Expiry | Removal]:
    """What goes, the oldest first. All times are aware UTC."""
    ordered = sorted(studies, key=lambda study: (study.last_received_at, study.study_key))
    free = [study for study in ordered if not kept_because(study)]
    planned: list[Expiry | Removal] = []
    left = sum(study.images_bytes for study in ordered)
    for study in free:
        if study.images == 0:
            if policy.results is not None and study.last_judged_at + policy.results <= now:
                planned.append(Removal(study_key=study.study_key, reason=_older(policy.results)))
            continue
        reason = ""
        if policy.images is not None and study.last_received_at + policy.images <= now:
            reason = _older(policy.images)
        elif policy.images_bytes is not None and left > policy.images_bytes:
            reason = f"more than {policy.images_bytes} bytes are kept"
        if reason:
            left -= study.images_bytes
            planned.append(Expiry(study_key=study.study_key, reason=reason, images_bytes=study.images_bytes))
    return planned


def _older(age: timedelta) -> str:
    return f"older than {age / timedelta(days=1):g} days"
