"""The durable write, in the literal order: temporary file, fdatasync, rename, fsync of the folder.

`Disk` is the port to the file system; `FakeDisk` beside it is a real folder whose space can run out and whose writer
can die between two steps. No path here is made of a sender's text: callers pass keys and hashes of ours.
"""

import ctypes
import errno
import fcntl
import os
import secrets
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Protocol

from dicomguard.clock import Clock
from dicomguard.errors import Refused, Unavailable

INCOMING = "store/incoming"
_FULL = {errno.ENOSPC, errno.EDQUOT}
_COPY_BYTES = 1 << 20
# Paths that are remembered as flushed; beyond it they are flushed once more.
_MOST_FOLDERS = 20_000
_NETWORK = frozenset(
    """
    nfs nfs4 cifs smb3 smbfs ncpfs afs ceph lustre beegfs glusterfs orangefs fuse.sshfs fuse.glusterfs fuse.cephfs
    fuse.s3fs fuse.rclone
    """.split()
)
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

    def sync_all(self, folder: Path) -> None:
        """Return when everything that was written to the file system of the folder would survive a power cut."""
        ...


class SystemDisk:
    """The machine's file system."""

    def __init__(self) -> None:
        self.durable: set[Path] = set()

    def create(self, path: Path) -> BinaryIO:
        """Exclusive, so that two writers can never share a temporary name."""
        return os.fdopen(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600), "wb", _COPY_BYTES)

    def write(self, file: BinaryIO, piece: Piece) -> None:
        """Through the file's buffer."""
        file.write(piece)

    def sync(self, file: BinaryIO) -> None:
        """Buffer out, then fdatasync: size and content, not the time stamps."""
        file.flush()
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

    def sync_all(self, folder: Path) -> None:
        """syncfs(2), which Python does not have."""
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            if _LIBC.syncfs(descriptor) != 0:
                number = ctypes.get_errno()
                raise OSError(number, os.strerror(number))
        finally:
            os.close(descriptor)


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


class Space:
    """Whether there is room to receive: stops below one bound, resumes 10 % above it (so that it does not flap)."""

    def __init__(self, disk: Disk, folder: Path, clock: Clock, *, low_bytes: int, stop_bytes: int) -> None:
        self._disk = disk
        self._folder = folder
        self._clock = clock
        self._low_bytes = low_bytes
        self._stop_bytes = stop_bytes
        self._stopped = False
        self._sampled_at: float | None = None
        self.free_bytes = 0
        # What the files of acknowledged instances will still take.
        self.owed_bytes = 0
        # The receive log takes nothing any more.
        self.failed = False

    def _sample(self) -> None:
        now = self._clock.monotonic()
        # While stopped every call looks, so that reception resumes with the first sender that asks.
        if not self._stopped and self._sampled_at is not None and now - self._sampled_at < 1.0:
            return
        self._sampled_at = now
        self.free_bytes = self._disk.free_bytes(self._folder) - self.owed_bytes
        bound = self._stop_bytes * 11 // 10 if self._stopped else self._stop_bytes
        self._stopped = self.free_bytes < bound

    @property
    def stopped(self) -> bool:
        """True while nothing is accepted for lack of space, or because the disk fails."""
        self._sample()
        return self._stopped or self.failed

    @property
    def low(self) -> bool:
        """True while a person should make room."""
        self._sample()
        return self.free_bytes < self._low_bytes

    def check(self) -> None:
        """Raise `Unavailable` while reception is stopped."""
        if self.failed:
            raise Unavailable("The receive log failed twice. Look after the disk and start the receiver again.")
        if self.stopped:
            raise Unavailable(
                f"The store has {self.free_bytes} bytes free, less than stop_bytes = {self._stop_bytes}. "
                "Make room; reception resumes by itself."
            )


class Written:
    """A file that is complete and flushed under a temporary name, waiting for its final one."""

    def __init__(self, disk: Disk, root: Path, path: Path) -> None:
        self._disk = disk
        self._root = root
        self.path = path
        self.moved = False

    def move_to(self, relative: str) -> Path:
        """Give it its final name below the root and flush that name; the folders on the way are made durable too."""
        target = self._root / relative
        try:
            make_folders(self._disk, self._root, target.parent)
            self._disk.rename(self.path, target)
            self.path, self.moved = target, True
            self._disk.sync_folder(target.parent)
        except OSError as error:
            raise unavailable(error) from error
        return target

    def drop(self) -> None:
        """Remove the file unless it has its final name."""
        if not self.moved:
            self.path.unlink(missing_ok=True)


class Aside:
    """A file that grows under a temporary name below the root; gone after `drop` unless it was moved."""

    def __init__(self, disk: Disk, root: Path) -> None:
        self._disk = disk
        folder = root / INCOMING
        try:
            make_folders(disk, root, folder)
            self.written = Written(disk, root, folder / f"{secrets.token_hex(12)}.part")
            self._file: BinaryIO | None = disk.create(self.written.path)
        except OSError as error:
            raise unavailable(error) from error

    def write(self, piece: Piece) -> None:
        """Append; raises `Unavailable`."""
        if self._file is None:
            raise ValueError("the file is finished")
        try:
            self._disk.write(self._file, piece)
        except OSError as error:
            raise unavailable(error) from error

    def finish(self) -> Written:
        """Flush all that was written; raises `Unavailable`."""
        if self._file is not None:
            file, self._file = self._file, None
            try:
                with file:
                    self._disk.sync(file)
            except OSError as error:
                raise unavailable(error) from error
        return self.written

    def drop(self) -> None:
        """Close, and remove the file unless it has its final name."""
        if self._file is not None:
            file, self._file = self._file, None
            # What is still buffered may find no room; it is not wanted any more.
            with suppress(OSError):
                file.close()
        self.written.drop()


@contextmanager
def write_aside(disk: Disk, root: Path, pieces: Iterable[Piece]) -> Iterator[Written]:
    """Write the pieces to a flushed temporary file below the root; it is removed on leaving unless it was moved."""
    aside = Aside(disk, root)
    try:
        for piece in pieces:
            aside.write(piece)
        yield aside.finish()
    finally:
        aside.drop()


def write_durably(disk: Disk, root: Path, relative: str, pieces: Iterable[Piece]) -> Path:
    """Write a whole file under its final name; readers see all of it or none."""
    with write_aside(disk, root, pieces) as written:
        return written.move_to(relative)


def write_loosely(disk: Disk, root: Path, relative: str, pieces: Iterable[Piece]) -> Path:
    """Write a whole file under its final name; a power cut may still take it until `Disk.sync_all` has returned."""
    target = root / relative
    aside = root / INCOMING / f"{secrets.token_hex(12)}.part"
    try:
        for folder in (aside.parent, target.parent):
            _make_loosely(disk, folder)
        try:
            with disk.create(aside) as file:
                for piece in pieces:
                    disk.write(file, piece)
            disk.rename(aside, target)
        finally:
            aside.unlink(missing_ok=True)
    except OSError as error:
        raise unavailable(error) from error
    return target


def make_folders(disk: Disk, root: Path, folder: Path) -> None:
    """Make the folders between root and folder durably.

    That a folder is there says nothing: another thread may be before its flush, a dead process may never have come to
    it, and the filer makes folders that it does not flush. Only what this process flushed counts.
    """
    chain: list[Path] = []
    while folder != root:
        chain.append(folder)
        folder = folder.parent
    for new in reversed(chain):
        if new in disk.durable and new.is_dir():
            continue
        disk.make_folder(new)
        disk.sync_folder(new.parent)
        if len(disk.durable) >= _MOST_FOLDERS:
            disk.durable.clear()
        disk.durable.add(new)


def _make_loosely(disk: Disk, folder: Path) -> None:
    """Make a folder and those above it without a flush; what is made here is durable for nobody."""
    if folder.is_dir():
        return
    _make_loosely(disk, folder.parent)
    disk.durable.discard(folder)
    disk.make_folder(folder)


def make_root(disk: Disk, root: Path) -> None:
    """Make the state folder and those above it; each new name is flushed in its parent, as is that of the folder."""
    if root.is_dir():
        # A dead process may have made it and not come to the flush; a parent that may not be read was not made by one.
        with suppress(PermissionError):
            disk.sync_folder(root.parent)
        return
    make_root(disk, root.parent)
    disk.make_folder(root)
    disk.sync_folder(root.parent)


def refuse_network(root: Path) -> None:
    """Raise `Refused` where a flush is another machine's word: SQLite's locks and the receive log need a local disk."""
    device = root.stat().st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    try:
        mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return
    for line in mounts:
        # proc_pid_mountinfo(5): the type follows a lone hyphen, behind optional fields.
        fields, _, rest = line.partition(" - ")
        kind = rest.partition(" ")[0]
        if fields.split(" ")[2:3] == [wanted] and kind in _NETWORK:
            raise Refused(
                f"The state folder {root} lies on a network file system ({kind}). Give it a local disk, "
                "or allow it with network_file_system in [storage]."
            )


def unavailable(error: OSError) -> Unavailable:
    """The sentence for a write that the file system did not take; the file is never half acknowledged."""
    what = "is full" if error.errno in _FULL else f"failed a write ({os.strerror(error.errno or 0)})"
    return Unavailable(f"The file system of the store {what}. Make room or repair it; the sender will try again.")


def read_pieces(path: Path, *, start: int = 0) -> Iterator[bytes]:
    """The bytes of a file from an offset, a megabyte at a time."""
    with path.open("rb") as file:
        file.seek(start)
        while piece := file.read(_COPY_BYTES):
            yield piece


def remove_leftovers(root: Path, *, older_than: float) -> int:
    """Remove temporary files last changed before `older_than` (POSIX seconds); they were never acknowledged."""
    removed = 0
    for path in (root / INCOMING).rglob("*"):
        if path.is_file() and path.stat().st_mtime < older_than:
            path.unlink(missing_ok=True)
            removed += 1
    return removed


@contextmanager
def lock_folder(root: Path) -> Iterator[None]:
    """Own the state folder for as long as the block runs; a second node on the same folder is refused."""
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (root / "node.lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Refused(
                f"The state folder {root} is in use by another running node. Stop that one or give this one its own."
            ) from None
        yield
