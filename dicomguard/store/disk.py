"""The port to the file system, the machine's, and a fake beside it: a real folder whose space can run out and whose
writer can die between two steps.
"""

import ctypes
import errno
import os
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, Protocol

_COPY_BYTES = 1 << 20
# Most pieces that pwritev(2) takes at once on Linux.
_IOV_MAX = 1024
_LIBC = ctypes.CDLL(None, use_errno=True)
Piece = bytes | bytearray | memoryview


class Disk(Protocol):
    """What the store asks of a file system."""

    # Folders whose names this process flushed in their parents.
    durable: set[Path]

    def create(self, path: Path) -> BinaryIO:
        """A new file that did not exist, open for writing, readable by its owner only."""
        ...

    def write(self, file: BinaryIO, piece: Piece) -> None:
        """Append."""
        ...

    def sync(self, file: BinaryIO) -> None:
        """Return when the content would survive a power cut."""
        ...

    def rename(self, source: Path, target: Path) -> None:
        """Atomic within one file system; an existing target is replaced."""
        ...

    def sync_folder(self, folder: Path) -> None:
        """Return when the names in the folder would survive a power cut."""
        ...

    def make_folder(self, folder: Path) -> None:
        """Make one folder whose parent exists; no error when it is there."""
        ...

    def free_bytes(self, folder: Path) -> int:
        """Bytes that an unprivileged process may still write."""
        ...

    def open_segment(self, path: Path, size_bytes: int) -> int:
        """A descriptor of a file of this size whose blocks are all written and flushed, made when it is not there."""
        ...

    def append(self, descriptor: int, pieces: Sequence[Piece], offset: int) -> None:
        """Write the pieces one after the other from the offset on."""
        ...

    def sync_segment(self, descriptor: int) -> None:
        """Return when what was appended would survive a power cut."""
        ...

    def watch(self, folder: Path) -> None:
        """From now on `sync_all` of the folder learns of each write that the disk lost, also of one that others saw."""
        ...

    def unwatch(self, folder: Path) -> None:
        """No more."""
        ...

    def sync_all(self, folder: Path) -> None:
        """Return when everything that was written to the file system of the folder would survive a power cut.

        What was lost before `watch`, and told to somebody, is not told again.
        """
        ...


class SystemDisk:
    """The machine's file system."""

    def __init__(self) -> None:
        self.durable: set[Path] = set()
        # Descriptors by folder, not by file system: who flushes one folder takes no error from who flushes another.
        self._watched: dict[Path, int] = {}

    def create(self, path: Path) -> BinaryIO:
        """Exclusive, so that two writers can never share a temporary name; without a buffer of its own."""
        return os.fdopen(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600), "wb", 0)

    def write(self, file: BinaryIO, piece: Piece) -> None:
        """write(2), once more where it wrote less."""
        view = memoryview(piece)
        while view:
            view = view[file.write(view) :]

    def sync(self, file: BinaryIO) -> None:
        """fdatasync(2): size and content, not the time stamps."""
        os.fdatasync(file.fileno())

    def rename(self, source: Path, target: Path) -> None:
        """rename(2)."""
        source.replace(target)

    def sync_folder(self, folder: Path) -> None:
        """fsync of the folder's own descriptor."""
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def make_folder(self, folder: Path) -> None:
        """mkdir(2), private to the owner."""
        folder.mkdir(mode=0o700, exist_ok=True)

    def free_bytes(self, folder: Path) -> int:
        """Of the file system that holds the folder."""
        state = os.statvfs(folder)
        return state.f_bavail * state.f_frsize

    def open_segment(self, path: Path, size_bytes: int) -> int:
        """Of another size than asked it is made anew; the name appears when the content is there."""
        if not path.is_file() or path.stat().st_size != size_bytes:
            aside = path.with_suffix(".new")
            with aside.open("wb", buffering=0) as file:
                zeros = bytes(min(size_bytes, _COPY_BYTES))
                for _ in range(size_bytes // len(zeros)):
                    file.write(zeros)
                os.ftruncate(file.fileno(), size_bytes)
                os.fsync(file.fileno())
            aside.replace(path)
            self.sync_folder(path.parent)
        return os.open(path, os.O_RDWR | os.O_CLOEXEC)

    def append(self, descriptor: int, pieces: Sequence[Piece], offset: int) -> None:
        """pwritev(2), once more where it wrote less or takes no more pieces at once."""
        left = [memoryview(piece) for piece in pieces if len(piece)]
        while left:
            written = os.pwritev(descriptor, left[:_IOV_MAX], offset)
            offset += written
            while left and written >= len(left[0]):
                written -= len(left.pop(0))
            if left:
                left[0] = left[0][written:]

    def sync_segment(self, descriptor: int) -> None:
        """fdatasync(2)."""
        os.fdatasync(descriptor)

    def watch(self, folder: Path) -> None:
        """Keep it open: Linux (since 5.8) tells each descriptor of what failed since it was opened."""
        if folder not in self._watched:
            self._watched[folder] = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def unwatch(self, folder: Path) -> None:
        """Close it."""
        if (descriptor := self._watched.pop(folder, None)) is not None:
            os.close(descriptor)

    def sync_all(self, folder: Path) -> None:
        """syncfs(2), which Python does not have."""
        for_this_only = folder not in self._watched
        self.watch(folder)
        try:
            if _LIBC.syncfs(self._watched[folder]) != 0:
                number = ctypes.get_errno()
                raise OSError(number, os.strerror(number))
        finally:
            if for_this_only:
                self.unwatch(folder)


class Died(BaseException):
    """A `FakeDisk` stands for a process that was killed here; nothing after this step happened."""


class FakeDisk(SystemDisk):
    """A real folder whose space and life a test controls."""

    def __init__(self) -> None:
        super().__init__()
        # Bytes that can still be written; None for no bound.
        self.space: int | None = None
        # Name of the step before which the writer dies: "write", "sync", "rename", "sync_folder".
        self.die_before = ""
        # Error number that `sync` fails with once.
        self.sync_fails: int | None = None
        # Error numbers with which the next flushes of the receive log, or of everything, fail.
        self.segment_fails: list[int] = []
        self.sync_all_fails: list[int] = []
        # Names of the steps taken, in order.
        self.steps: list[str] = []

    def _step(self, name: str) -> None:
        if self.die_before == name:
            raise Died(name)
        self.steps.append(name)

    def write(self, file: BinaryIO, piece: Piece) -> None:
        """Fail with ENOSPC when the space is used up."""
        self._step("write")
        if self.space is not None:
            if len(piece) > self.space:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self.space -= len(piece)
        super().write(file, piece)

    def sync(self, file: BinaryIO) -> None:
        """Fail once with the error that was ordered."""
        self._step("sync")
        if self.sync_fails is not None:
            number, self.sync_fails = self.sync_fails, None
            raise OSError(number, os.strerror(number))
        super().sync(file)

    def rename(self, source: Path, target: Path) -> None:
        """As on the machine."""
        self._step("rename")
        super().rename(source, target)

    def sync_folder(self, folder: Path) -> None:
        """As on the machine."""
        self._step("sync_folder")
        super().sync_folder(folder)

    def free_bytes(self, folder: Path) -> int:
        """The ordered space, or the machine's."""
        return super().free_bytes(folder) if self.space is None else self.space

    def append(self, descriptor: int, pieces: Sequence[Piece], offset: int) -> None:
        """As on the machine."""
        self._step("append")
        super().append(descriptor, pieces, offset)

    def sync_segment(self, descriptor: int) -> None:
        """Fail as often as was ordered."""
        self._step("sync_segment")
        _fail(self.segment_fails)
        super().sync_segment(descriptor)

    def sync_all(self, folder: Path) -> None:
        """Fail as often as was ordered."""
        self._step("sync_all")
        _fail(self.sync_all_fails)
        super().sync_all(folder)


def _fail(ordered: list[int]) -> None:
    if ordered:
        number = ordered.pop(0)
        raise OSError(number, os.strerror(number))
