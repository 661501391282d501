"""The folders of the receive log: one below `log/` for each receiver process, held by a lock for as long as it lives.

Other processes of the machine see how each stands; a folder whose process is dead is replayed by the next that starts.
"""

import contextlib
import fcntl
import os
import struct
import threading
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from dicomguard.errors import Unavailable
from dicomguard.store.files import Disk, make_folders, unavailable
from dicomguard.store.log_records import PAGE_BYTES, Logged, read_segment

FOLDER = "log"
MARKS = "marks"
# What others read of a living process: last sequence appended, last up to which all is filed, whether it failed.
_MARKS = struct.Struct("<QQQ")


def unfiled(root: Path) -> Iterator[Logged]:
    """Every record that the logs below a state folder still hold, of living and dead receivers and of a copy alike.

    Some have their file and row already; none that was acknowledged lacks them once its record is gone from here.
    """
    for slot in _slots(root):
        for segment in segment_files(slot):
            yield from read_segment(segment)


def _slots(root: Path) -> list[Path]:
    return sorted((path for path in (root / FOLDER).glob("[0-9]*") if path.is_dir()), key=lambda path: int(path.name))


def segment_files(slot: Path) -> list[Path]:
    return sorted(slot.glob("segment-*[0-9]"))


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotState:
    """How one receiver's log stands, as other processes of the machine see it."""

    slot: str
    # Whether a process holds it.
    alive: bool
    appended: int
    # Last sequence up to which every record has its file and its row.
    filed: int
    # Whether the log takes nothing any more.
    failed: bool


def states(root: Path) -> list[SlotState]:
    """Of all receivers of this machine that have a log here."""
    found = []
    for slot in _slots(root):
        with contextlib.suppress(OSError, struct.error):
            appended, filed, failed = _MARKS.unpack((slot / MARKS).read_bytes()[: _MARKS.size])
            with _locked(slot) as free:
                alive = not free
            if not alive:
                # A power cut may have taken the marks back; the records themselves say what is open.
                open_records = any(_first(segment) for segment in segment_files(slot))
                appended, filed = (1, 0) if open_records else (0, 0)
            found.append(
                SlotState(slot=slot.name, alive=alive, appended=appended, filed=filed, failed=alive and failed != 0)
            )
    return found


@contextlib.contextmanager
def _locked(slot: Path) -> Iterator[bool]:
    """True while no process holds the slot; nobody can take it for the block then."""
    descriptor = os.open(slot, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)


def settle(root: Path, *, patience_s: float) -> bool:
    """Wait until all that is acknowledged now has its file and its row; false when that takes longer."""
    pause = threading.Event()
    wanted = {state.slot: state.appended for state in states(root)}
    waited_s, step_s = 0.0, 0.002
    while True:
        behind = [state for state in states(root) if state.filed < min(wanted.get(state.slot, 0), state.appended)]
        if not behind:
            return True
        if waited_s >= patience_s:
            return False
        pause.wait(step_s)
        waited_s += step_s
        step_s = min(0.1, step_s * 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """A log folder that this process holds."""

    folder: Path
    lock: int

    @property
    def number(self) -> int:
        """From 0; the next free one is taken."""
        return int(self.folder.name)

    def give_back(self) -> None:
        """For another process."""
        os.close(self.lock)


@contextlib.contextmanager
def claiming(disk: Disk, root: Path, *, patience_s: float = 600.0) -> Iterator[list[Slot]]:
    """Hold every slot whose process is dead; no other process claims any for as long as the block runs."""
    base = root / FOLDER
    make_folders(disk, root, base)
    with _only_claimer(base, patience_s=patience_s):
        held = [Slot(folder=folder, lock=lock) for folder in _slots(root) if (lock := _try_lock(folder)) is not None]
        for slot in held:
            # Whoever waits for this log now waits for its replay.
            with (slot.folder / MARKS).open("wb") as file:
                file.write(_MARKS.pack(1, 0, 0).ljust(PAGE_BYTES, b"\0"))
        try:
            yield held
        except BaseException:
            # Nothing was taken over; whoever comes next finds all of it.
            for slot in held:
                slot.give_back()
            raise


def new_slot(disk: Disk, root: Path) -> Slot:
    """One more; only while claiming."""
    taken = {int(folder.name) for folder in _slots(root)}
    folder = root / FOLDER / str(next(number for number in range(len(taken) + 1) if number not in taken))
    make_folders(disk, root, folder)
    lock = _try_lock(folder)
    if lock is None:
        raise Unavailable("Another receiver holds the new log folder. Start it again.")
    return Slot(folder=folder, lock=lock)


@contextlib.contextmanager
def _only_claimer(base: Path, *, patience_s: float) -> Iterator[None]:
    pause = threading.Event()
    with (base / "claim").open("a") as file:
        waited_s = 0.0
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if waited_s >= patience_s:
                    raise Unavailable("Another receiver is replaying the log. Wait until it is done.") from None
                pause.wait(0.05)
                waited_s += 0.05
        yield


def _try_lock(folder: Path) -> int | None:
    """A descriptor that holds the folder, None when a living process does."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    # Those who only look hold it for a moment.
    for _ in range(5):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return descriptor
        except BlockingIOError:
            threading.Event().wait(0.02)
    os.close(descriptor)
    return None


def flush_slot(disk: Disk, slot: Slot) -> None:
    """What its process had written and not flushed when it died is flushed, before anybody believes it."""
    for path in segment_files(slot.folder):
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            disk.sync_segment(descriptor)
        except OSError as error:
            raise unavailable(error) from error
        finally:
            os.close(descriptor)


def read_slot(slot: Slot) -> Generator[Logged]:
    """All records of a slot in the order in which they were acknowledged."""
    begun = [(first.sequence, path) for path in segment_files(slot.folder) if (first := _first(path)) is not None]
    for _, path in sorted(begun):
        yield from read_segment(path)


def _first(path: Path) -> Logged | None:
    with closing(read_segment(path)) as records:
        return next(records, None)


def empty_slot(disk: Disk, slot: Slot) -> None:
    """Its records are filed and durable: no later start sees them."""
    for path in segment_files(slot.folder):
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            erase(disk, descriptor)
        finally:
            os.close(descriptor)


def remove_segments(slot: Slot) -> None:
    """Of a slot that is empty and that no process will take."""
    for path in segment_files(slot.folder):
        path.unlink()


def erase(disk: Disk, descriptor: int) -> None:
    """Make a segment empty for every later reader."""
    disk.append(descriptor, [bytes(PAGE_BYTES)], 0)
    disk.sync_segment(descriptor)
