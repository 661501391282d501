"""When a study is complete.

DICOM has no "last instance" signal for C-STORE, so silence has to stand for it (PS3.4 B). This module
judges silence; it does not keep time, count associations or open revisions.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class Activity:
    """What is known of an open study."""

    first_received_at: datetime
    last_received_at: datetime
    # Associations that have sent to this study and are still open.
    associations_open: int
    # Whether associations brought it, and each of them was released in order.
    released: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long to wait, per calling AE."""

    quiet: timedelta
    # Bounds the wait behind a peer that never releases its association.
    longest: timedelta
    # Instead of `quiet` once every association was released in order, if it is shorter: who releases has said goodbye,
    # but may have more in another association.
    quiet_released: timedelta = timedelta(seconds=20)


@dataclass(frozen=True, slots=True)
class Close:
    """The study is complete."""

    reason: str


@dataclass(frozen=True, slots=True)
class Wait:
    """Not yet; ask again then."""

    until: datetime


def decide(
    activity: Activity, patience: Patience, *, now: datetime, forced_by: str = "", on_hold: bool = False
) -> Close | Wait:
    """Close the study, or say when to ask again. All times are aware UTC.

    A person's word goes before the clock's: a study on hold is never complete, a forced one is at once.
    """
    last_call = activity.first_received_at + patience.longest
    if on_hold:
        return Wait(max(last_call, now + patience.quiet))
    if forced_by:
        return Close(f"forced by {forced_by}")
    if now >= last_call:
        return Close(f"longest wait of {patience.longest} is over")
    if activity.associations_open > 0:
        return Wait(last_call)
    quiet = min(patience.quiet, patience.quiet_released) if activity.released else patience.quiet
    quiet_at = activity.last_received_at + quiet
    if now >= quiet_at:
        return Close(f"no instance for {quiet}")
    return Wait(min(quiet_at, last_call))
