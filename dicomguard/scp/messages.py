"""What a message is to the upper layer's loop: it is written piece by piece, finished once, and always discarded."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from dicomguard.scp.pdu import SERVICE_USER, Fault

# Datasets of messages that store nothing are kept in memory.
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
    """Its dataset is small and kept in memory for whom it concerns."""

    def __init__(self, handle: Callable[[bytes], Answer]) -> None:
        self._handle = handle
        self._dataset = bytearray()

    def write(self, piece: memoryview) -> None:
        """Raises `Fault` beyond the bound."""
        if len(self._dataset) + len(piece) > MAX_COLLECTED_BYTES:
            raise Fault("The dataset of a message that stores nothing is too large.", source=SERVICE_USER, reason=0)
        self._dataset += piece

    def finish(self) -> Answer:
        """What the service says."""
        return self._handle(bytes(self._dataset))

    def discard(self) -> None:
        """Give the memory back."""
        self._dataset = bytearray()
