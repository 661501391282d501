"""How states after one cut are drawn: the extremes, one effect apart from all others, tears, and fair coins.

Most losses need only one effect that is missing, or only one that is there too early (ALICE found its bugs so), hence
those kinds; coins with several biases cover the rest.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tests.powercut.disk import SECTOR
from tests.powercut.trace import Event, Resize, Write

_PAGE = 4096


def _inode(event: Event) -> int:
    return event.op.inode if isinstance(event.op, Write | Resize) else -1


@dataclass(kw_only=True)
class Drawn:
    """A choice by rules: one for entries, one for sizes, one for sectors."""

    kind: str
    named: Callable[[Event], bool]
    removed: Callable[[Event], bool]
    sized: Callable[[Event], bool]
    flushed: Callable[[Event, int], NDArray[np.bool_]]

    def entry(self, event: Event) -> bool:
        """See `disk.Choice`."""
        return self.named(event)

    def removal(self, event: Event) -> bool:
        """See `disk.Choice`."""
        return self.removed(event)

    def size(self, event: Event) -> bool:
        """See `disk.Choice`."""
        return self.sized(event)

    def sectors(self, event: Event, count: int) -> NDArray[np.bool_]:
        """See `disk.Choice`."""
        return self.flushed(event, count)


def _by_event(kind: str, there: Callable[[Event], bool]) -> Drawn:
    """Each effect wholly there or not."""
    return Drawn(
        kind=kind,
        named=there,
        removed=there,
        sized=there,
        flushed=lambda event, count: np.full(count, there(event)),
    )


def nothing() -> Drawn:
    """Only what was synced."""
    return _by_event("nothing", lambda _: False)


def everything() -> Drawn:
    """All that was asked, as after a kill of the process."""
    return _by_event("everything", lambda _: True)


def _one(kind: str, pending: Sequence[Event], rng: np.random.Generator) -> Drawn:
    chosen = pending[int(rng.integers(len(pending)))]
    return _by_event(kind, (lambda event: event is not chosen) if kind == "one lost" else lambda event: event is chosen)


def _coins(rng: np.random.Generator) -> Drawn:
    bias = float(rng.choice([0.1, 0.5, 0.9]))
    return Drawn(
        kind="coins",
        named=lambda _: bool(rng.random() < bias),
        removed=lambda _: bool(rng.random() < bias),
        sized=lambda _: bool(rng.random() < bias),
        flushed=lambda _, count: np.full(count, rng.random() < bias),
    )


def _sectors(rng: np.random.Generator) -> Drawn:
    """Every sector, or every page, for itself."""
    bias = float(rng.choice([0.2, 0.5, 0.8]))
    step = int(rng.choice([SECTOR, _PAGE])) // SECTOR

    def flushed(_: Event, count: int) -> NDArray[np.bool_]:
        return np.repeat(rng.random(-(-count // step)) < bias, step)[:count]

    coins = _coins(rng)
    return Drawn(
        kind="sectors",
        named=coins.named,
        removed=coins.removed,
        sized=lambda _: bool(rng.random() < 0.8),
        flushed=flushed,
    )


def _torn(pending: Sequence[Event], rng: np.random.Generator) -> Drawn:
    """All up to one effect, some sectors of that one (its head, or its tail), none after it."""
    last = pending[int(rng.integers(len(pending)))]
    head = bool(rng.random() < 0.5)
    share = float(rng.random())

    def flushed(event: Event, count: int) -> NDArray[np.bool_]:
        if event is not last:
            return np.full(count, event.done < last.done)
        reached = np.arange(count) < share * count
        return reached if head else ~reached

    def there(event: Event) -> bool:
        return event.done <= last.done

    return Drawn(kind="torn", named=there, removed=there, sized=there, flushed=flushed)


def _files(rng: np.random.Generator) -> Drawn:
    """Each file with all its writes or none, each name by its own coin."""
    fate: dict[int, bool] = {}

    def there(event: Event) -> bool:
        return fate.setdefault(_inode(event), bool(rng.random() < 0.5))

    coins = _coins(rng)
    return Drawn(
        kind="files",
        named=coins.named,
        removed=coins.removed,
        sized=there,
        flushed=lambda event, count: np.full(count, there(event)),
    )


def _names_first(rng: np.random.Generator) -> Drawn:
    """All names and sizes are there and no content (delayed allocation), or the other way round."""
    names = bool(rng.random() < 0.7)
    sizes = names and bool(rng.random() < 0.5)
    return Drawn(
        kind="names first" if names else "content first",
        named=lambda _: names,
        removed=lambda _: names,
        sized=lambda _: sizes or not names,
        flushed=lambda _, count: np.full(count, not names),
    )


def draw(pending: Sequence[Event], rng: np.random.Generator) -> Drawn:
    """One choice for a cut with these pending effects."""
    if not pending:
        return nothing()
    kind = rng.choice(
        ["nothing", "everything", "one lost", "one kept", "coins", "sectors", "torn", "files", "names first"],
        p=[0.12, 0.05, 0.13, 0.13, 0.15, 0.15, 0.12, 0.08, 0.07],
    )
    match str(kind):
        case "nothing":
            return nothing()
        case "everything":
            return everything()
        case "one lost" | "one kept" as one:
            return _one(one, pending, rng)
        case "coins":
            return _coins(rng)
        case "sectors":
            return _sectors(rng)
        case "torn":
            return _torn(pending, rng)
        case "files":
            return _files(rng)
        case _:
            return _names_first(rng)
