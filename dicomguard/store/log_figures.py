"""Figures of the receive log of one process, for its heartbeat and the metrics of the node."""

from bisect import bisect_left
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from dicomguard.store import ephemeral
from dicomguard.store.db import Tx

# Upper bounds of the buckets of flush times, in seconds; a quiet disk needs less than the first.
BOUNDS_S = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
_KIND = "receiver"


class Flushes:
    """How long flushes took; written by whoever leads a flush, one at a time."""

    def __init__(self) -> None:
        # The last is for those beyond all bounds.
        self.counts = [0] * (len(BOUNDS_S) + 1)
        self.seconds = 0.0
        self.records = 0

    def note(self, seconds: float, records: int) -> None:
        """One more, with so many records in it."""
        self.counts[bisect_left(BOUNDS_S, seconds)] += 1
        self.seconds += seconds
        self.records += records


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """Of one receiver process since its start."""

    # Folder of its log; the next process that takes the folder continues under this name.
    slot: str
    # Flushes by bucket of `BOUNDS_S`, seconds of all, and records that they held.
    flushes: list[int]
    flush_s: float
    records: int
    free_segments: int
    # Acknowledged instances without file and row, and the age of the oldest in seconds.
    unfiled: int
    oldest_s: float
    # Open associations by configured name of the peer, and connections without one.
    associations: dict[str, int]
    waiting: int


def keep(tx: Tx, process: str, figures: Figures, *, until: datetime) -> None:
    """Take the place of the one before; it is over when the process has not renewed it."""
    ephemeral.put(tx, _KIND, process, asdict(figures), until)


def drop(tx: Tx, process: str) -> None:
    """It ended in order."""
    ephemeral.drop(tx, _KIND, process)


def listing(tx: Tx, now: datetime) -> list[Figures]:
    """Of all receivers that live, by slot."""
    found: list[dict[str, Any]] = []
    for process in ephemeral.keys(tx, _KIND):
        value = ephemeral.get(tx, _KIND, process, now)
        if value is not None:
            found.append(value)
    return sorted((Figures(**value) for value in found), key=lambda figures: figures.slot)
