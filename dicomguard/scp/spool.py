"""Where a dataset lies while it arrives: a nameless file of the store's file system.

It takes the place of the named temporary file of `pynetdicom.dimse_messages`, which is flushed with each PDU, stays
behind after an aborted transfer, and whose full disk ends the association's thread without an answer. This one has no
name, so it is gone with the transfer however that ends, and it remembers a failure until the message is complete: then
the sender gets its status word.
"""

import tempfile
from collections.abc import Iterator
from typing import BinaryIO, cast

from dicomguard import part10
from dicomguard.errors import Refused, Unavailable
from dicomguard.store.db import Store
from dicomguard.store.files import INCOMING, unavailable
from dicomguard.store.intake import TooLarge

_BUFFER_BYTES = 256 << 10
_PIECE_BYTES = 1 << 20
# Preamble and file meta information that pynetdicom puts before the dataset.
_HEAD_BYTES = 4096


class Spooled:
    """One dataset; the parts of a file's interface that pynetdicom uses."""

    def __init__(self, store: Store) -> None:
        folder = store.root / INCOMING
        # pynetdicom unlinks this name when it is done; there is nothing under it.
        self.name = str(folder / "nameless")
        self._most = store.limits.max_instance_bytes + _HEAD_BYTES
        self._size_bytes = 0
        self._failure: Refused | Unavailable | None = None
        self._file: BinaryIO | None = None
        try:
            store.space.check()
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            opened = tempfile.TemporaryFile("w+b", buffering=_BUFFER_BYTES, dir=folder)  # noqa: SIM115
            self._file = cast(BinaryIO, opened)
        except Unavailable as error:
            self._fail(error)
        except OSError as error:
            self._fail(unavailable(error))

    def _fail(self, error: Refused | Unavailable) -> None:
        """Give the space back at once; the rest of the message is read and dropped."""
        self._failure = error
        self.close()

    @property
    def file(self) -> "Spooled":
        """pynetdicom flushes `.file`."""
        return self

    def write(self, piece: bytes) -> int:
        """Never raises: pynetdicom has no answer for that."""
        if self._file is None:
            return len(piece)
        self._size_bytes += len(piece)
        if self._size_bytes > self._most:
            self._fail(TooLarge(f"The dataset has more than {self._most - _HEAD_BYTES} bytes. Send it in parts."))
            return len(piece)
        try:
            return self._file.write(piece)
        except OSError as error:
            self._fail(unavailable(error))
            return len(piece)

    def flush(self) -> None:
        """Not with each PDU: nothing is acknowledged from here."""

    def tell(self) -> int:
        """Bytes so far."""
        return self._size_bytes

    def close(self) -> None:
        """The file is gone."""
        if self._file is None:
            return
        file, self._file = self._file, None
        try:
            file.close()
        except OSError:
            # What was still buffered found no room; it is not wanted any more.
            return

    def dataset(self) -> Iterator[bytes]:
        """The dataset bytes as they came; raises what went wrong on the way."""
        if self._failure is not None:
            raise self._failure
        if self._file is None:
            raise Unavailable("The transfer has ended. Send the instance again.")
        try:
            self._file.seek(0)
            self._file.seek(part10.read_meta_of(self._file).dataset_offset)
            while piece := self._file.read(_PIECE_BYTES):
                yield piece
        except OSError as error:
            raise unavailable(error) from error
