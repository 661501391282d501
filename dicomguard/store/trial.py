"""What is known of earlier replays of one log that ended with their process: at which record they died.

An exception is caught and its record set aside; what kills the process (the kernel for want of memory, a library in C)
leaves no time for that, and would do so at each start. So a replay notes that it begins. After one that did not end,
the next names each record before it files it, and a record at which two such replays died is set aside, too.
"""

import os
import struct
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from dicomguard.errors import Unavailable
from dicomguard.store.disk import Disk
from dicomguard.store.files import unavailable
from dicomguard.store.log_records import Logged

NAME = "trial"
# Deaths at one record that are no accident.
MOST_DEATHS = 2
# Replays that began and did not end, and how many of them died at the suspected record; its SHA-256 and that of the one
# that is being filed, zero for none.
_NOTE = struct.Struct("<QQ32s32s")
_NOBODY = bytes(32)


class Trial:
    """Of the replay of one log; a context: what ends it by an exception is no death."""

    def __init__(self, disk: Disk, folder: Path) -> None:
        self._disk = disk
        self._path = folder / NAME
        self._descriptor = -1
        try:
            note = self._path.read_bytes()
        except FileNotFoundError:
            note = b""
        # A power cut may have left a piece of it.
        begun = _NOTE.unpack(note) if len(note) == _NOTE.size else (0, 0, _NOBODY, _NOBODY)
        self._deaths: int = begun[0]
        self._deaths_at: int = begun[1]
        self._suspect: bytes = begun[2]
        last: bytes = begun[3]
        if last != _NOBODY:
            self._deaths_at = self._deaths_at + 1 if last == self._suspect else 1
            self._suspect = last

    def __enter__(self) -> Self:
        try:
            self._descriptor = os.open(self._path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
            self.note(None)
            self._disk.sync_folder(self._path.parent)
        except OSError as error:
            raise unavailable(error) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Where this fails it is counted as a death, and the next one is more careful than it need be.
        with suppress(OSError, Unavailable):
            if kind is None:
                self._path.unlink()
            elif issubclass(kind, Exception):
                self._write(self._deaths, _NOBODY)
        os.close(self._descriptor)

    @property
    def deaths(self) -> int:
        """Replays of this log that died."""
        return self._deaths

    def condemns(self, record: Logged) -> bool:
        """Whether no further attempt is to be made at this record."""
        return bytes.fromhex(record.sha256) == self._suspect and self._deaths_at >= MOST_DEATHS

    def note(self, record: Logged | None) -> None:
        """It is about to be filed, or none by itself; durable when this returns."""
        self._write(self._deaths + 1, _NOBODY if record is None else bytes.fromhex(record.sha256))

    def _write(self, begun: int, current: bytes) -> None:
        try:
            self._disk.append(self._descriptor, [_NOTE.pack(begun, self._deaths_at, self._suspect, current)], 0)
            self._disk.sync_segment(self._descriptor)
        except OSError as error:
            raise unavailable(error) from error
