"""The model card that travels in the head of a weights file: what to know before an answer is believed.

That of the shipped weights is `docs/model-card.md` in short. The data with their licences stand beside it, under
`training` of the head.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

from dicomguard.errors import Refused

# A card is read in a minute; what is longer is no card, and lies in the memory of every process that reads the head.
_LONGEST_TEXT = 2000
_MOST_COUNTS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class FalseAlarms:
    """One count of authentic studies that were flagged."""

    flagged: int
    of: int
    # 95 % upper bound on the rate (Clopper-Pearson), 0…1.
    upper: float
    # Which studies these are, and whether the alert was set on them.
    studies: str

    def __post_init__(self) -> None:
        _check_text("studies", self.studies)
        if not (_is_count(self.flagged) and _is_count(self.of) and self.flagged <= self.of and self.of > 0):
            raise Refused("A count of false alarms is no count. Write how many were flagged of how many, 1 at least.")
        if type(self.upper) not in (int, float) or not self.flagged / self.of <= self.upper <= 1:
            raise Refused("The bound on false alarms lies below their rate or above 1. Write the 95 % upper bound.")

    def __str__(self) -> str:
        bound = f"95 % upper bound {100 * self.upper:.1f} %"
        return f"{self.flagged} of {self.of} authentic studies flagged ({bound}): {self.studies}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """What a weights file says of its worth and its limits, in sentences."""

    # The first is that which counts most.
    false_alarms: tuple[FalseAlarms, ...]
    intended_use: str
    # Modalities, body parts and sequences outside the scope.
    not_validated: str
    # Sources and kinds of forgeries that had no part in training.
    never_seen: str
    figures: str
    known_failures: str
    # Id of the weights that training began with; empty where it began from chance.
    parent: str

    def __post_init__(self) -> None:
        if not 1 <= len(self.false_alarms) <= _MOST_COUNTS:
            raise Refused(f"The card has {len(self.false_alarms)} counts of false alarms. Write 1 to {_MOST_COUNTS}.")
        for name in ("intended_use", "not_validated", "never_seen", "figures", "known_failures"):
            _check_text(name, getattr(self, name))
        if self.parent != "":
            _check_text("parent", self.parent)

    def to_json(self) -> dict[str, Any]:
        """JSON value; `from_json` gives an equal card back."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: object) -> Self:
        """The card in a JSON value; `Refused` where it is none."""
        found = _members(cls, value)
        counts = found.pop("false_alarms")
        if not isinstance(counts, list | tuple):
            raise Refused('"false_alarms" of the card is no list. Write a list of counts.')
        return cls(false_alarms=tuple(FalseAlarms(**_members(FalseAlarms, one)) for one in counts), **found)

    def lines(self) -> Iterator[tuple[str, str]]:
        """Headings and sentences in the order in which they are read."""
        for count in self.false_alarms:
            yield "False alarms", str(count)
        yield "Intended use", self.intended_use
        yield "Not validated", self.not_validated
        yield "Never seen in training", self.never_seen
        yield "Figures", self.figures
        yield "Known failures", self.known_failures
        yield "Training began with", self.parent or "chance"


def _members(kind: type[Card] | type[FalseAlarms], value: object) -> dict[str, Any]:
    names = [field.name for field in fields(kind)]
    if not isinstance(value, dict) or set(value) != set(names):
        raise Refused(f"A part of the card lacks or misnames a member. Write {', '.join(names)}, and nothing else.")
    return dict(value)


def _is_count(value: object) -> bool:
    return type(value) is int and value >= 0


def _check_text(name: str, value: object) -> None:
    # Not printable: control characters, which would break lines or their direction, and halves of surrogate pairs.
    if not isinstance(value, str) or not value.strip() or not value.isprintable() or len(value) > _LONGEST_TEXT:
        raise Refused(
            f'"{name}" of the card is no line of text of 1 to {_LONGEST_TEXT} printable characters. Correct the card.'
        )
