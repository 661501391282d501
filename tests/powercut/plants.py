"""Nodes that forget one kind of sync: the prover has to find each."""

from collections.abc import Callable, Mapping

from tests.powercut.trace import Event, Sync


def _file(event: Event) -> bool:
    """The content of an instance, before it gets its final name."""
    return event.path.endswith(".part")


def _folder(event: Event) -> bool:
    """The final name of an instance."""
    return event.path.startswith(("state/store/2", "state/quarantine"))


def _rows(event: Event) -> bool:
    """The commit of the database."""
    return event.path.endswith(".sqlite-wal")


def _log(event: Event) -> bool:
    """The records of the receive log."""
    return "/segment-" in event.path


def _checkpoint(event: Event) -> bool:
    """Everything, before a segment of the log is used again."""
    return event.op == Sync(inode=None) and event.path != ""


def _results(event: Event) -> bool:
    """The final names of results and verdicts."""
    return event.path.startswith("state/results")


RECEIVER: Mapping[str, Callable[[Event], bool]] = {
    "file": _file,
    "folder": _folder,
    "rows": _rows,
    "log": _log,
    "checkpoint": _checkpoint,
}
WORKER: Mapping[str, Callable[[Event], bool]] = {"file": _file, "folder": _results, "rows": _rows}
