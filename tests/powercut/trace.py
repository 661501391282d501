"""What a run asked of the disk, and when it gave its word: the events that states after a power cut are built from.

Files and folders are numbered as a file system numbers inodes, so that a name and what it names are apart: after a cut
a name may stand without its content and a content without its name.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

# The folder that is watched.
ROOT = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Write:
    """Bytes at an offset of a file."""

    inode: int
    offset: int
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Resize:
    """A file gets this size; what is cut off is gone, what is added is zero."""

    inode: int
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """A name in a folder now means this inode."""

    folder: int
    name: str
    inode: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Unlink:
    """A name in a folder is gone."""

    folder: int
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Rename:
    """A name is gone and another one, perhaps in another folder, means its inode."""

    source: int
    old: str
    target: int
    new: str
    inode: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Sync:
    """fsync or fdatasync of a file or folder; of everything when `inode` is None."""

    inode: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """The node gave its word for an instance: it answered a sender, or began to send a result."""

    kind: Literal["acknowledged", "announced"]
    sop_instance_uid: str


Op = Write | Resize | Link | Unlink | Rename | Sync | Mark


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Event:
    """One operation, equal only to itself; other threads' events may lie between its begin and its end."""

    # Lines of the record: the call was entered at `at` and had returned at `done`.
    at: int
    done: int
    op: Op
    # For people: the path as it was then, relative to the root.
    path: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """A recorded run below one folder, which exists and is durable at its begin."""

    # In order of `done`.
    events: tuple[Event, ...]
    # One past the last line: a cut there is a cut after the run.
    end: int
    # First line of the run; what stands before it was there, and durable.
    begin: int = 0
    folders: frozenset[int] = field(default_factory=lambda: frozenset({ROOT}))

    def marks(self, kind: str, *, before: int | None = None) -> list[str]:
        """UIDs in the order in which the word was given; a call that was entered before the cut counts."""
        return [
            event.op.sop_instance_uid
            for event in self.events
            if isinstance(event.op, Mark) and event.op.kind == kind and (before is None or event.at < before)
        ]

    def without(self, drop: Callable[[Event], bool]) -> "Trace":
        """The trace of a node that forgets these syncs."""
        kept = tuple(event for event in self.events if not (isinstance(event.op, Sync) and drop(event)))
        return replace(self, events=kept)


Tree = Mapping[str, bytes | None]
"""Relative path → content, None for a folder; parents before children."""
