"""The states that a disk may be in after a power cut.

What the model promises, and no more:

- The content of a file is durable up to its last fsync or fdatasync that had returned; all later writes may be there or
  not, each sector for itself and in any order (a torn write is one of which some sectors are there). A sector is old or
  new, never a mixture, and nothing beside it suffers.
- The size of a file is one more thing that a later write or truncation may or may not have changed; bytes that a larger
  size uncovers are zero.
- A name in a folder is durable by fsync of that folder. Later names, renames and removals may be there or not, in any
  order, whatever happened to the content behind them. Of a rename the removal of the old name comes never without the
  new name; the new name may come without the removal.
- `sync` and `syncfs` make everything durable that had returned before them.

No order between files, between a file and its name, or between names is assumed: that ext4 happens to keep one with
its default options is not used.
"""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tests.powercut.trace import ROOT, Event, Link, Rename, Resize, Sync, Trace, Unlink, Write

SECTOR = 512


class Choice(Protocol):
    """Decides which effects that were not yet durable are there after the cut."""

    def entry(self, event: Event) -> bool:
        """Whether a new name, removal or the new name of a rename is there."""
        ...

    def removal(self, event: Event) -> bool:
        """Whether the old name of a rename, whose new one is there, is gone."""
        ...

    def size(self, event: Event) -> bool:
        """Whether the size of the file is already the one after this write or truncation."""
        ...

    def sectors(self, event: Event, count: int) -> NDArray[np.bool_]:
        """Which of the `count` sectors that a write touches are as they were after it."""
        ...


class Disk:
    """The states of one trace; ask in ascending order of cuts, and contents are built only once."""

    def __init__(self, trace: Trace) -> None:
        self._data: dict[int, list[Event]] = defaultdict(list)
        # By folder; a rename stands in both.
        self._entries: dict[int, list[Event]] = defaultdict(list)
        syncs: dict[int | None, list[Event]] = defaultdict(list)
        self._folders = trace.folders
        for event in trace.events:
            match event.op:
                case Write() | Resize():
                    self._data[event.op.inode].append(event)
                case Link() | Unlink():
                    self._entries[event.op.folder].append(event)
                case Rename():
                    for folder in {event.op.source, event.op.target}:
                        self._entries[folder].append(event)
                case Sync():
                    syncs[event.op.inode].append(event)
        # Inode → lines at which its syncs had returned, and up to which line each of them flushed.
        self._syncs = {
            inode: ([event.done for event in events], list(accumulate((event.at for event in events), max)))
            for inode, events in syncs.items()
        }
        # Inode → how many of its operations are in the content, and the content.
        self._durable: dict[int, tuple[int, bytes]] = {}

    def after(self, cut: int, choice: Choice) -> dict[str, bytes | None]:
        """Names and contents after a cut before line `cut`; parents before children, None for a folder."""
        return dict(self._walk(ROOT, "", cut, choice, {}))

    def pending(self, cut: int) -> list[Event]:
        """What had begun and was not yet durable."""
        found = [
            event
            for events in (*self._data.values(), *self._entries.values())
            for event in events
            if event.at < cut and not self._is_durable(event, cut)
        ]
        return sorted(set(found), key=lambda event: event.done)

    def _is_durable(self, event: Event, cut: int) -> bool:
        match event.op:
            case Write() | Resize():
                return event.done < self._flushed(event.op.inode, cut)
            case Link() | Unlink():
                return event.done < self._flushed(event.op.folder, cut)
            case Rename():
                return self._durable_rename(event, event.op, cut) == (True, True)
        return True

    def _flushed(self, inode: int, cut: int) -> int:
        """Operations that had returned before this line are durable."""
        return max(self._last_sync(inode, cut), self._last_sync(None, cut))

    def _last_sync(self, inode: int | None, cut: int) -> int:
        returned, flushed = self._syncs.get(inode, ([], []))
        done = bisect_left(returned, cut)
        return flushed[done - 1] if done else -1

    # ---- names ----------------------------------------------------------------------------------------------------

    def _walk(
        self, folder: int, prefix: str, cut: int, choice: Choice, decided: dict[Event, tuple[bool, bool]]
    ) -> Iterator[tuple[str, bytes | None]]:
        for name, inode in sorted(self._names(folder, cut, choice, decided).items()):
            if inode in self._folders:
                yield prefix + name, None
                yield from self._walk(inode, f"{prefix}{name}/", cut, choice, decided)
            else:
                yield prefix + name, self._content(inode, cut, choice)

    def _names(self, folder: int, cut: int, choice: Choice, decided: dict[Event, tuple[bool, bool]]) -> dict[str, int]:
        names: dict[str, int] = {}
        flushed = self._flushed(folder, cut)
        for event in self._entries.get(folder, ()):
            if event.at >= cut:
                continue
            match event.op:
                case Link() if event.done < flushed or choice.entry(event):
                    names[event.op.name] = event.op.inode
                case Unlink() if event.done < flushed or choice.entry(event):
                    names.pop(event.op.name, None)
                case Rename():
                    if event not in decided:
                        decided[event] = self._decide(event, event.op, cut, choice)
                    added, removed = decided[event]
                    if removed and folder == event.op.source:
                        names.pop(event.op.old, None)
                    if added and folder == event.op.target:
                        names[event.op.new] = event.op.inode
        return names

    def _durable_rename(self, event: Event, op: Rename, cut: int) -> tuple[bool, bool]:
        """Whether the new name is durably there, and the old one durably gone."""
        removed = event.done < self._flushed(op.source, cut)
        return removed or event.done < self._flushed(op.target, cut), removed

    def _decide(self, event: Event, op: Rename, cut: int, choice: Choice) -> tuple[bool, bool]:
        durable, gone = self._durable_rename(event, op, cut)
        added = durable or choice.entry(event)
        return added, gone or (added and choice.removal(event))

    # ---- contents -------------------------------------------------------------------------------------------------

    def _content(self, inode: int, cut: int, choice: Choice) -> bytes:
        events = self._data.get(inode, [])
        flushed = self._flushed(inode, cut)
        durable = sum(event.done < flushed for event in events)
        base = self._base(inode, events, durable)
        pending = [event for event in events[durable:] if event.at < cut]
        return base if not pending else _mixed(base, pending, choice)

    def _base(self, inode: int, events: Sequence[Event], durable: int) -> bytes:
        applied, content = self._durable.get(inode, (0, b""))
        if applied != durable:
            changed = bytearray(content if applied < durable else b"")
            for event in events[applied if applied < durable else 0 : durable]:
                _apply(changed, event)
            content = bytes(changed)
            self._durable[inode] = (durable, content)
        return content


def _apply(content: bytearray, event: Event) -> None:
    match event.op:
        case Write(offset=offset, data=data):
            content.extend(bytes(max(0, offset - len(content))))
            content[offset : offset + len(data)] = data
        case Resize(size=size):
            del content[size:]
            content.extend(bytes(size - len(content)))


def _mixed(base: bytes, pending: Sequence[Event], choice: Choice) -> bytes:
    """The page cache goes through all writes; of each, the chosen sectors reach the disk as they are in the cache."""
    cache, size = bytearray(base), len(base)
    disk = bytearray(base)
    for event in pending:
        before = len(cache)
        _apply(cache, event)
        match event.op:
            case Write(offset=offset, data=data):
                # What lies between the old end and the offset is new as well.
                first = min(offset, before) // SECTOR if offset > before else offset // SECTOR
                last = -(-(offset + len(data)) // SECTOR)
            case Resize(size=to):
                first, last = min(before, to) // SECTOR, -(-max(before, to) // SECTOR)
        if last > first:
            _flush(cache, disk, first, choice.sectors(event, last - first))
        if len(cache) != before and choice.size(event):
            size = len(cache)
    disk.extend(bytes(max(0, size - len(disk))))
    return bytes(disk[:size])


def _flush(cache: bytearray, disk: bytearray, first: int, chosen: NDArray[np.bool_]) -> None:
    """Copy runs of chosen sectors; beyond the end of the cache there are zeros."""
    edges = np.flatnonzero(np.diff(np.concatenate(([False], chosen, [False]))))
    for start, stop in zip(edges[::2], edges[1::2], strict=True):
        low, high = (first + int(start)) * SECTOR, (first + int(stop)) * SECTOR
        piece = cache[low:high]
        piece.extend(bytes(high - low - len(piece)))
        disk.extend(bytes(max(0, low - len(disk))))
        disk[low:high] = piece
