"""The durable write, in the literal order: temporary file, fdatasync, rename, fsync of the folder.

No path here is made of a sender's text: callers pass keys and hashes of ours.
"""

import errno
import fcntl
import os
import secrets
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from dicomguard.clock import Clock
from dicomguard.errors import Refused, Unavailable
from dicomguard.store.disk import Died as Died
from dicomguard.store.disk import Disk as Disk
from dicomguard.store.disk import FakeDisk as FakeDisk
from dicomguard.store.disk import Piece as Piece
from dicomguard.store.disk import SystemDisk as SystemDisk

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
        self._free_bytes = 0
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
        self._free_bytes = self._disk.free_bytes(self._folder) - self.owed_bytes
        bound = self._stop_bytes * 11 // 10 if self._stopped else self._stop_bytes
        self._stopped = self._free_bytes < bound

    @property
    def free_bytes(self) -> int:
        """Bytes that are free and not owed; below zero when more is owed than there is."""
        self._sample()
        return self._free_bytes

    @property
    def stopped(self) -> bool:
        """True while nothing is accepted for lack of space, or because the disk fails."""
        self._sample()
        return self._stopped or self.failed

    @property
    def low(self) -> bool:
        """True while a person should make room."""
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
            # It is not wanted any more.
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
        try:
            with _create_loosely(disk, aside) as file:
                for piece in pieces:
                    disk.write(file, piece)
            try:
                disk.rename(aside, target)
            except FileNotFoundError:
                _make_loosely(disk, target.parent)
                disk.rename(aside, target)
        except BaseException:
            aside.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise unavailable(error) from error
    return target


def _create_loosely(disk: Disk, path: Path) -> BinaryIO:
    try:
        return disk.create(path)
    except FileNotFoundError:
        _make_loosely(disk, path.parent)
        return disk.create(path)


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
        # Another receiver process may finish with a file while this one looks at it.
        with suppress(FileNotFoundError):
            found = path.stat()
            if stat.S_ISREG(found.st_mode) and found.st_mtime < older_than:
                path.unlink()
                removed += 1
    return removed


@contextmanager
def lock_folder(root: Path) -> Iterator[None]:
    """Own the state folder for as long as the block runs; a second node on the same folder is refused."""
    try:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = (root / "node.lock").open("a")
    except OSError as error:
        raise Refused(
            f"The state folder {root} cannot be used: {error.strerror}. "
            "Make it a folder that belongs to the user of the node, or name another as state in [node]."
        ) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Refused(
                f"The state folder {root} is in use by another running node. Stop that one or give this one its own."
            ) from None
        yield
