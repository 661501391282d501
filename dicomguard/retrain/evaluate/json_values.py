"""JSON that another run wrote, taken apart value by value: what is wrong is said with its place. Pure."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

# Larger counts than any data set has slices.
_LARGEST = 10**9


@dataclass(frozen=True, slots=True)
class Value:
    """A value and where it stands. Whatever is not as it should be raises ValueError with a sentence's worth."""

    raw: object
    place: str = "the file"

    def __getitem__(self, key: str) -> "Value":
        """What an object has under a key."""
        found = self.get(key)
        if found is None:
            raise ValueError(f"{self.place} has no {key!r}")
        return found

    def get(self, key: str) -> "Value | None":
        """The same; None where the key is missing or null."""
        if not isinstance(self.raw, dict):
            raise ValueError(f"{self.place} is no object")
        raw = self.raw.get(key)
        return None if raw is None else Value(raw, f"{key} of {self.place}")

    def each(self) -> Iterator["Value"]:
        """The items of a list."""
        if not isinstance(self.raw, list):
            raise ValueError(f"{self.place} is no list")
        return (Value(raw, f"item {index} of {self.place}") for index, raw in enumerate(self.raw, start=1))

    def named(self) -> Iterator[tuple[str, "Value"]]:
        """Keys and values of an object."""
        if not isinstance(self.raw, dict):
            raise ValueError(f"{self.place} is no object")
        return ((key, Value(raw, f"{key!r:.40} of {self.place}")) for key, raw in self.raw.items())

    def number(self, low: float, high: float) -> float:
        """A number from low to high."""
        # JSON as Python reads it knows NaN, and its true is a number.
        if isinstance(self.raw, int | float) and not isinstance(self.raw, bool) and low <= self.raw <= high:
            return float(self.raw)
        raise ValueError(f"{self.place} is no number from {low:g} to {high:g}")

    def whole(self) -> int:
        """A count."""
        if isinstance(self.raw, int) and not isinstance(self.raw, bool) and 0 <= self.raw <= _LARGEST:
            return self.raw
        raise ValueError(f"{self.place} is no count")

    def flag(self) -> bool:
        """True or false."""
        if isinstance(self.raw, bool):
            return self.raw
        raise ValueError(f"{self.place} is neither true nor false")

    def text(self, pattern: str) -> str:
        """A text that matches the whole pattern."""
        if isinstance(self.raw, str) and re.fullmatch(pattern, self.raw):
            return self.raw
        raise ValueError(f"{self.place} is no text of the form {pattern}")

    def triple(self, low: float, high: float) -> tuple[float, float, float]:
        """Three numbers from low to high."""
        found = [item.number(low, high) for item in self.each()]
        if len(found) != 3:
            raise ValueError(f"{self.place} has {len(found)} numbers instead of 3")
        return found[0], found[1], found[2]

    def share(self) -> tuple[int, int]:
        """Count, and of how many, the first two of a list."""
        found = list(self.each())[:2]
        if len(found) < 2 or found[0].whole() > found[1].whole():
            raise ValueError(f"{self.place} is no count and of how many")
        return found[0].whole(), found[1].whole()
