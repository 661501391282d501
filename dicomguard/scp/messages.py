"""What a message is to the upper layer's loop: it is written piece by piece, finished once, and always discarded."""

import mmap
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from dicomguard.store.db import Budget

# Datasets of messages that store nothing are kept in memory: so much of one, and of all that are under way.
MAX_COLLECTED_BYTES = 8 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """Status word of a response, what is said with it, and further elements of the command set."""

    status: int
    comment: str = ""
    more: Mapping[int, bytes] = field(default_factory=dict)


class Message(Protocol):
    """A request whose dataset is under way."""

    def write(self, piece: memoryview) -> None:
        """Take the next bytes; the view is only valid during the call."""
        ...

    def finish(self) -> Answer:
        """The answer, once the dataset is whole."""
        ...

    def discard(self) -> None:
        """It is over, or was cut off; nothing stays behind."""
        ...


class Dropped:
    """Its dataset is of no use: read to its end, and answered as was clear from the beginning."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer

    def write(self, piece: memoryview) -> None:
        """Not kept."""

    def finish(self) -> Answer:
        """As decided."""
        return self._answer

    def discard(self) -> None:
        """There is nothing."""


class Collected:
    """Its dataset is small and kept in memory for whom it concerns; one that is not is read to its end and refused."""

    def __init__(self, handle: Callable[[memoryview], Answer], refuse: Callable[[str], Answer], budget: Budget) -> None:
        self._handle = handle
        self._refuse = refuse
        self._budget = budget
        # Mapped: what grows and goes on the heap leaves holes behind that add up. Pages are taken as they are filled.
        self._dataset: mmap.mmap | None = None
        self._length = 0
        self._why_not = ""

    def write(self, piece: memoryview) -> None:
        """Keep it, as long as there is room."""
        if self._why_not:
            return
        if self._length + len(piece) > MAX_COLLECTED_BYTES:
            self.discard()
            self._why_not = f"its dataset has more than {MAX_COLLECTED_BYTES} bytes; send less at once"
        elif not self._budget.take(len(piece)):
            self.discard()
            self._why_not = "others of its kind are being read; send it again"
        else:
            self._dataset = self._dataset or mmap.mmap(-1, MAX_COLLECTED_BYTES)
            self._length += self._dataset.write(piece)

    def finish(self) -> Answer:
        """What the service says."""
        if self._why_not:
            return self._refuse(self._why_not)
        return self._handle(memoryview(self._dataset or b"")[: self._length])

    def discard(self) -> None:
        """Give the memory back."""
        self._budget.give(self._length)
        self._dataset, self._length = None, 0
