"""Nodes that forget one kind of sync: the prover has to find each."""

from collections.abc import Callable, Mapping

from tests.powercut.trace import Event


def _file(event: Event) -> bool:
    """The content of an instance, before it gets its final name."""
    return event.path.endswith(".part")


def _folder(event: Event) -> bool:
    """The final name of an instance."""
    return event.path.startswith(("state/store/2", "state/quarantine"))


def _rows(event: Event) -> bool:
    """The commit of the database."""
    return event.path.endswith(".sqlite-wal")


def _results(event: Event) -> bool:
    """The final names of results and verdicts."""
    return event.path.startswith("state/results")


RECEIVER: Mapping[str, Callable[[Event], bool]] = {"file": _file, "folder": _folder, "rows": _rows}
WORKER: Mapping[str, Callable[[Event], bool]] = {"file": _file, "folder": _results, "rows": _rows}
