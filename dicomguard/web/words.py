"""Short words of the page itself: states, labels, figures. What is said of a study comes from `core.wording`."""

from dicomguard.core.commitment import State as Commitment
from dicomguard.core.delivery import State
from dicomguard.store.expiry import HOLDER

# State of a study in the worklist → its word and a mark that does not need colour.
STATES = {
    "collecting": "Collecting",
    "held": "On hold",
    "opened": "Queued",
    "analysing": "Analysing",
    "judged": "Writing report",
    "built": "Writing report",
    "delivering": "Delivering",
    "done": "Reported",
    "failed": "Failed",
    "superseded": "Superseded",
    "cancelled": "Cancelled",
}
# A revision in these is worked on, and nothing of it has been sent.
CANCELLABLE = frozenset({"opened", "analysing", "judged", "built"})
BUSY = frozenset({"collecting", "opened", "analysing", "judged", "built", "delivering"})
CATEGORIES = ("real", "absent", "added", "removed", "not_analysable")
# Marks before the answer: shape says what colour says.
MARKS = {"real": "●", "absent": "○", "added": "▲", "removed": "▼", "not_analysable": "–"}
DELIVERIES = {
    State.WAITING: "Waiting",
    State.SENT: "Sent",
    State.WARNED: "Sent, with a warning",
    State.SKIPPED: "Skipped",
    State.REFUSED: "Refused",
}
# What a destination vouches for.
COMMITMENTS = {
    Commitment.DUE: "to be asked to keep it",
    Commitment.ASKED: "asked to keep it",
    Commitment.ANSWERED: "not committed yet",
    Commitment.COMMITTED: "committed",
    Commitment.FAILED: "not committed",
}
RESULTS = {
    "SR": "Structured report (DICOM SR)",
    "SR-2D": "Structured report in its older form (DICOM SR)",
    "SEG": "Segmentation (DICOM SEG)",
}
# State of a training run.
RUNS = {
    "asked": "Queued",
    "freezing": "Freezing the cases",
    "training": "Training",
    "evaluating": "Measuring on the golden set",
    "waiting": "Waits for approval",
    "refused": "Candidate refused",
    "failed": "Failed",
    "approved": "Approved",
    "declined": "Declined",
    "rolled_back": "Rolled back",
}


def state(row_state: str, done: int = 0, total: int = 0) -> str:
    """ "Analysing 12 of 20"."""
    word = STATES.get(row_state, row_state)
    return f"{word} {done} of {total}" if row_state == "analysing" and total else word


def held(by: str, *, in_work: bool) -> str:
    """Why nothing new is analysed, and what ends it; `by` is a person or retention."""
    goes_on = " The report under way goes on; cancel it to stop it." if in_work else ""
    if by == HOLDER:
        return (
            "A new image came after retention had deleted others of this study; a report on it would not speak of all. "
            "Have the whole study sent again, then let it go; or let it go to have the new image reported alone."
            f"{goes_on}"
        )
    return f"{by} keeps this study on hold. What came since is analysed when it is let go.{goes_on}"


def sender(calling_ae: str) -> str:
    """AE title, or how else it came."""
    return calling_ae or "Upload"


def score(value: float | None) -> str:
    """Two digits are what the calibration can bear."""
    return "–" if value is None else f"{value:.2f}"


def rank(as_high: int, of: int) -> str:
    """How many authentic studies of the calibration scored as high, as people read it."""
    if as_high == 0:
        return f"none of {of} authentic studies scored as high"
    return f"{as_high} of {of} authentic studies scored as high"


def size(count: int) -> str:
    """Bytes for people."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= factor:
            return f"{count / factor:.1f} {unit}"
    return f"{count} bytes"
