"""The receive log of this process: what was acknowledged, whole, before it has its file and its rows.

A few segments of fixed size are written full once, so that the log cannot run out of space while a sender waits. Those
who wait share one flush: the first becomes leader and writes all that is queued, the first of the next batch becomes
leader after it. There is no thread for it, and no hand-over for a sender that is alone.
"""

import json
import os
import secrets
import struct
import threading
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from dicomguard import log
from dicomguard.clock import Clock
from dicomguard.errors import Unavailable
from dicomguard.store.files import Disk, Piece, unavailable
from dicomguard.store.log_figures import Flushes
from dicomguard.store.log_records import HEADER_BYTES, PAGE_BYTES, Logged, pack_header, pages
from dicomguard.store.log_slots import MARKS, Slot, erase, segment_files

_LOG = log.get("store")
# Failed flushes in a row after which nothing is taken any more.
_MOST_FAILURES = 2
_U64 = struct.Struct("<Q")
_JSON = json.JSONEncoder(separators=(",", ":"))
# Offsets of the marks.
_APPENDED, _FILED, _FAILED = 0, 8, 16


class _Entry:
    """One instance that waits for its flush."""

    __slots__ = ("content", "done", "error", "head_bytes", "logged", "row", "sha256", "text", "wake")

    def __init__(self, row: Mapping[str, Any], content: memoryview, head_bytes: int, sha256: str) -> None:
        self.row = row
        self.text = _JSON.encode(row).encode()
        self.content = content
        self.head_bytes = head_bytes
        self.sha256 = sha256
        self.wake = threading.Semaphore(0)
        self.done = False
        self.error: Unavailable | None = None
        self.logged: Logged | None = None

    @property
    def size_bytes(self) -> int:
        return pages(HEADER_BYTES + len(self.text) + len(self.content))


class Segment:
    """One file of the log."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self.descriptor = descriptor
        self.generation = 0
        self.end = 0
        # Records that have no file and row yet.
        self.unfiled = 0
        # Monotonic seconds of the first record.
        self.began_at = 0.0


class ReceiveLog:
    """The log of this process. `append` is what senders wait for; the filer calls the rest."""

    def __init__(
        self,
        disk: Disk,
        clock: Clock,
        slot: Slot,
        *,
        segments: list[Segment],
        segment_bytes: int,
        patience_s: float,
        appended: Callable[[Logged], None],
    ) -> None:
        self._disk = disk
        self._clock = clock
        self.slot = slot
        self._segment_bytes = segment_bytes
        self._patience_s = patience_s
        # Called in the order of the records, after their flush and before their senders are told.
        self._appended = appended
        self._sequence = 0
        self._failures = 0
        self.flushes = Flushes()
        self._queue: deque[_Entry] = deque()
        self._leading = False
        self._turn = threading.Lock()
        # Of what follows; never held while something is written.
        self.changed = threading.Condition()
        self._all = segments
        self._free = deque(segments)
        self._active: Segment | None = None
        # Segments that take no more records, the oldest first, and those whose flush failed, which are not used again.
        self.full: deque[Segment] = deque()
        self.retired: list[Segment] = []
        self._marks = os.open(slot.folder / MARKS, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        self._told = 0
        os.pwrite(self._marks, bytes(24), 0)

    @property
    def most_bytes(self) -> int:
        """Larger content does not fit; a page is left for header and row."""
        return self._segment_bytes - 4 * PAGE_BYTES

    @property
    def failed(self) -> bool:
        """Nothing is taken any more."""
        return self._failures >= _MOST_FAILURES or len(self.retired) == len(self._all)

    def append(self, row: Mapping[str, Any], content: memoryview, *, head_bytes: int, sha256: str) -> Logged:
        """Return when the record is durable. Raises `Unavailable` without room or when the disk fails."""
        entry = _Entry(row, content, head_bytes, sha256)
        if entry.size_bytes > self._segment_bytes:
            raise Unavailable(
                f"The record of {entry.size_bytes} bytes is larger than a segment. Raise log_segment_bytes."
            )
        with self._turn:
            self._queue.append(entry)
            lead, self._leading = not self._leading, True
        if not lead:
            entry.wake.acquire()
        if not entry.done:
            self._lead()
        if entry.error is not None:
            raise entry.error
        if entry.logged is None:
            raise Unavailable("The receive log ended while the instance waited. Send it again.")
        return entry.logged

    def _lead(self) -> None:
        with self._turn:
            batch = list(self._queue)
            self._queue.clear()
        try:
            self._write(batch)
        except Unavailable as error:
            for entry in batch:
                if entry.logged is None:
                    entry.error = error
        finally:
            with self._turn:
                successor = self._queue[0] if self._queue else None
                self._leading = successor is not None
                for entry in batch:
                    entry.done = True
                    entry.wake.release()
                if successor is not None:
                    successor.wake.release()

    def _write(self, batch: list[_Entry]) -> None:
        """Write all, segment by segment; what was flushed before an error counts."""
        while batch:
            segment = self._segment_for(batch[0])
            fitting, room = 0, self._segment_bytes - segment.end
            while fitting < len(batch) and batch[fitting].size_bytes <= room:
                room -= batch[fitting].size_bytes
                fitting += 1
            try:
                self._write_into(segment, batch[:fitting])
            except OSError as error:
                self._retire(segment)
                raise unavailable(error) from error
            self._failures = 0
            batch = batch[fitting:]

    def _write_into(self, segment: Segment, entries: list[_Entry]) -> None:
        pieces: list[Piece] = []
        records = []
        offset = segment.end
        for entry in entries:
            self._sequence += 1
            header = pack_header(
                entry.text,
                entry.content,
                head_bytes=entry.head_bytes,
                sha256=entry.sha256,
                generation=segment.generation,
                sequence=self._sequence,
            )
            filled = len(header) + len(entry.text) + len(entry.content)
            pieces += [header, entry.text, entry.content, bytes(entry.size_bytes - filled)]
            records.append(
                Logged(
                    row=entry.row,
                    sha256=entry.sha256,
                    sequence=self._sequence,
                    segment=segment.path,
                    offset=offset + len(header) + len(entry.text),
                    size_bytes=len(entry.content),
                    head_bytes=entry.head_bytes,
                )
            )
            offset += entry.size_bytes
        began = self._clock.monotonic()
        self._disk.append(segment.descriptor, pieces, segment.end)
        self._disk.sync_segment(segment.descriptor)
        self.flushes.note(self._clock.monotonic() - began, len(records))
        with self.changed:
            if segment.end == 0:
                segment.began_at = self._clock.monotonic()
            segment.end = offset
            segment.unfiled += len(records)
        for entry, record in zip(entries, records, strict=True):
            self._appended(record)
            entry.logged = record
        # Only now: the filer takes what it has not heard of for filed.
        with self.changed:
            self._told = self._sequence
            os.pwrite(self._marks, _U64.pack(self._told), _APPENDED)

    def _segment_for(self, entry: _Entry) -> Segment:
        """The active segment, or a free one when the entry does not fit; waits for one to become free."""
        with self.changed:
            if self.failed:
                raise Unavailable("The receive log failed twice. Look after the disk and start the receiver again.")
            active = self._active
            if active is not None and active.end + entry.size_bytes <= self._segment_bytes:
                return active
            self._close_active()
            if not self.changed.wait_for(lambda: self._free, timeout=self._patience_s):
                raise Unavailable(
                    "The receive log is full: files and rows do not follow. Look after disk and database."
                )
            segment = self._free.popleft()
            segment.generation, segment.end = secrets.randbits(64), 0
            self._active = segment
            return segment

    def _close_active(self) -> None:
        """Under `changed`."""
        if self._active is not None:
            self.full.append(self._active)
            self._active = None
            self.changed.notify_all()

    def close_old(self, *, older_than_s: float) -> None:
        """Take no more records into a segment whose first one is that old, unless a sender is writing."""
        with self._turn:
            if self._leading:
                return
            self._leading = True
        try:
            with self.changed:
                active = self._active
                old = active is not None and self._clock.monotonic() - active.began_at >= older_than_s
                if active is not None and active.end > 0 and old:
                    self._close_active()
        finally:
            with self._turn:
                successor = self._queue[0] if self._queue else None
                self._leading = successor is not None
                if successor is not None:
                    successor.wake.release()

    def _retire(self, segment: Segment) -> None:
        """After a failed flush the page cache lies about what is on the disk: the segment is not used again."""
        with self.changed:
            self._failures += 1
            self.retired.append(segment)
            if self._active is segment:
                self._active = None
            if self.failed:
                os.pwrite(self._marks, _U64.pack(1), _FAILED)
            self.changed.notify_all()
        _LOG.error("log.failed", count=self._failures, path=segment.path.name)

    def note_filed(self, records: list[Logged], *, all_below: int) -> None:
        """These have file and row; `all_below` is the last sequence up to which every record has."""
        with self.changed:
            by_path = {segment.path: segment for segment in self._all}
            for record in records:
                by_path[record.segment].unfiled -= 1
            os.pwrite(self._marks, _U64.pack(all_below), _FILED)
            self.changed.notify_all()

    @property
    def last_sequence(self) -> int:
        """Of the newest record."""
        with self.changed:
            return self._told

    def settled_segments(self) -> list[Segment]:
        """Full or retired ones whose records all have file and row."""
        with self.changed:
            return [segment for segment in (*self.full, *self.retired) if segment.unfiled == 0 and segment.end > 0]

    def covered(self) -> list[Segment]:
        """All that hold records."""
        with self.changed:
            active = [self._active] if self._active is not None else []
            return [segment for segment in (*self.full, *self.retired, *active) if segment.end > 0]

    def reuse(self, segment: Segment) -> None:
        """Its files and rows are durable: empty it; a retired one is not used again."""
        try:
            erase(self._disk, segment.descriptor)
        except OSError:
            self._retire(segment)
        with self.changed:
            segment.end = 0
            if segment in self.full:
                self.full.remove(segment)
            if segment not in self.retired:
                self._free.append(segment)
            self.changed.notify_all()

    @property
    def is_pressed(self) -> bool:
        """Whether more than half of the segments are in use."""
        with self.changed:
            return 2 * len(self._free) < len(self._all)

    @property
    def free_segments(self) -> int:
        """How many wait to be used."""
        with self.changed:
            return len(self._free)

    def close(self) -> None:
        """Give the slot back; what is in it stays for the next start."""
        os.close(self._marks)
        for segment in self._all:
            os.close(segment.descriptor)
        self.slot.give_back()


def open_segments(disk: Disk, slot: Slot, *, count: int, size_bytes: int) -> list[Segment]:
    """The files of a slot; those of an earlier, larger number are removed. All must be empty. Raises `Unavailable`."""
    wanted = [slot.folder / f"segment-{number}" for number in range(count)]
    segments: list[Segment] = []
    try:
        for left in segment_files(slot.folder):
            if left not in wanted:
                left.unlink()
        for path in wanted:
            segments.append(Segment(path, disk.open_segment(path, size_bytes)))
    except OSError as error:
        for segment in segments:
            os.close(segment.descriptor)
        # All are empty: what they took is given back.
        for path in slot.folder.glob("segment-*"):
            path.unlink(missing_ok=True)
        raise unavailable(error) from error
    return segments
