"""The one door for bytes: C-STORE, uploads and the command line bring a dataset, and it is durable when this returns.

A small dataset is assembled in memory, a large one in a temporary file of the store; what becomes of it is decided in
`filing`.
"""

import hashlib
import io
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from dicomguard import part10
from dicomguard.errors import Refused, Unavailable
from dicomguard.store import filing
from dicomguard.store.db import Store
from dicomguard.store.files import Aside, Piece, Written, read_pieces, write_aside
from dicomguard.store.filing import RESULT_CLASSES as RESULT_CLASSES
from dicomguard.store.filing import Arrival
from dicomguard.store.filing import Channel as Channel
from dicomguard.store.filing import Conflict as Conflict
from dicomguard.store.filing import Duplicate as Duplicate
from dicomguard.store.filing import Outcome as Outcome
from dicomguard.store.filing import Quarantined as Quarantined
from dicomguard.store.filing import QuarantineFull as QuarantineFull
from dicomguard.store.filing import Sender as Sender
from dicomguard.store.filing import Stored as Stored
from dicomguard.store.filing import TooLarge as TooLarge
from dicomguard.store.identity import Identity, read_identity


class Incoming:
    """One dataset on its way in; use it in one thread, and as a context so that an aborted transfer leaves nothing."""

    def __init__(self, store: Store, arrival: Arrival) -> None:
        self._store = store
        self._arrival = arrival
        self._sha256 = hashlib.sha256()
        self._size_bytes = 0
        # Exactly one of the two holds the bytes; neither after a failure or the end.
        self._memory: io.BytesIO | None = None
        self._aside: Aside | None = None
        self._reserved_bytes = 0
        self._failure: Refused | Unavailable | None = None
        try:
            store.space.check()
            self._memory = io.BytesIO()
            self._keep(
                part10.file_head(
                    transfer_syntax_uid=arrival.transfer_syntax_uid,
                    sop_class_uid=arrival.sop_class_uid,
                    sop_instance_uid=arrival.sop_instance_uid,
                    source_ae=arrival.sender.calling_ae,
                )
            )
        except Unavailable as error:
            self._fail(error)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.discard()

    @property
    def failed(self) -> bool:
        """Whether `commit` will raise whatever still comes."""
        return self._failure is not None

    def write(self, piece: Piece) -> None:
        """Take the next bytes of the dataset; a failure waits for `commit`, so that the message is read to its end."""
        if self._failure is not None:
            return
        self._size_bytes += len(piece)
        most = self._store.limits.max_instance_bytes
        if self._size_bytes > most:
            self._fail(TooLarge(f"The dataset has more than {most} bytes. Send it in parts, or raise the limit."))
            return
        self._sha256.update(piece)
        try:
            self._keep(piece)
        except Unavailable as error:
            self._fail(error)

    def commit(self) -> Outcome:
        """Return when the dataset is durable. Raises `Unavailable`, `TooLarge`, `QuarantineFull`, `Refused`."""
        try:
            if self._failure is not None:
                raise self._failure
            arrival = self._arrival.whole(
                sha256=self._sha256.hexdigest(), size_bytes=self._size_bytes, received_at=self._store.clock.now()
            )
            if self._aside is not None:
                return _decide(self._store, arrival, self._aside.finish())
            if self._memory is None:
                raise Unavailable("The transfer has ended. Send the instance again.")
            with write_aside(self._store.disk, self._store.root, [self._memory.getbuffer()]) as written:
                return _decide(self._store, arrival, written)
        finally:
            self.discard()

    def discard(self) -> None:
        """Give memory and space back; nothing stays behind."""
        if self._aside is not None:
            self._aside.drop()
        self._memory = self._aside = None
        self._store.buffers.give(self._reserved_bytes)
        self._reserved_bytes = 0

    def _fail(self, error: Refused | Unavailable) -> None:
        self.discard()
        self._failure = error

    def _keep(self, piece: Piece) -> None:
        if self._memory is not None:
            fits = self._reserved_bytes + len(piece) <= self._store.limits.spill_bytes
            if fits and self._store.buffers.take(len(piece)):
                self._reserved_bytes += len(piece)
                self._memory.write(piece)
                return
            self._aside = Aside(self._store.disk, self._store.root)
            self._aside.write(self._memory.getvalue())
            self._memory = None
            self._store.buffers.give(self._reserved_bytes)
            self._reserved_bytes = 0
        if self._aside is not None:
            self._aside.write(piece)


def open_instance(
    store: Store,
    sender: Sender,
    *,
    sop_class_uid: str,
    sop_instance_uid: str,
    transfer_syntax_uid: str,
    association_id: str | None,
    channel: Channel = "dimse",
) -> Incoming:
    """Begin to take a dataset; never raises for disk or size, `Incoming.commit` does."""
    arrival = Arrival(
        sender=sender,
        channel=channel,
        association_id=association_id,
        sop_class_uid=sop_class_uid,
        sop_instance_uid=sop_instance_uid,
        transfer_syntax_uid=transfer_syntax_uid,
        received_at=store.clock.now(),
    )
    return Incoming(store, arrival)


def receive(
    store: Store,
    sender: Sender,
    *,
    sop_class_uid: str,
    sop_instance_uid: str,
    transfer_syntax_uid: str,
    chunks: Iterable[Piece],
    association_id: str | None,
    channel: Channel,
) -> Outcome:
    """Keep the dataset bytes as they come. Raises `Unavailable` without room, `TooLarge` beyond the limit."""
    with open_instance(
        store,
        sender,
        sop_class_uid=sop_class_uid,
        sop_instance_uid=sop_instance_uid,
        transfer_syntax_uid=transfer_syntax_uid,
        association_id=association_id,
        channel=channel,
    ) as incoming:
        for chunk in chunks:
            incoming.write(chunk)
            if incoming.failed:
                break
        return incoming.commit()


def receive_file(store: Store, sender: Sender, path: Path, *, channel: Channel) -> Outcome:
    """A Part 10 file through the same door; raises `Refused` when it is none."""
    meta = part10.read_meta(path)
    return receive(
        store,
        sender,
        sop_class_uid=meta.sop_class_uid,
        sop_instance_uid=meta.sop_instance_uid,
        transfer_syntax_uid=meta.transfer_syntax_uid,
        chunks=read_pieces(path, start=meta.dataset_offset),
        association_id=None,
        channel=channel,
    )


def _decide(store: Store, arrival: Arrival, written: Written) -> Outcome:
    """The literal order: what is said is in its file and in the database."""
    try:
        with written.path.open("rb") as file:
            identity = _checked_identity(file, arrival)
    except Refused as error:
        return filing.quarantine(store, arrival, written, str(error))
    return filing.file(store, arrival, written, identity)


def _checked_identity(file: BinaryIO, arrival: Arrival) -> Identity:
    identity = read_identity(file)
    identity.check(sop_class_uid=arrival.sop_class_uid, sop_instance_uid=arrival.sop_instance_uid)
    return identity
