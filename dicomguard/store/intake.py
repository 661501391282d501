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
from dicomguard.store import associations, filing
from dicomguard.store.arrival import Arrival, Association
from dicomguard.store.arrival import Channel as Channel
from dicomguard.store.arrival import Conflict as Conflict
from dicomguard.store.arrival import Duplicate as Duplicate
from dicomguard.store.arrival import Outcome as Outcome
from dicomguard.store.arrival import Quarantined as Quarantined
from dicomguard.store.arrival import QuarantineFull as QuarantineFull
from dicomguard.store.arrival import Sender as Sender
from dicomguard.store.arrival import Stored as Stored
from dicomguard.store.arrival import TooLarge as TooLarge
from dicomguard.store.associations import How
from dicomguard.store.db import Store
from dicomguard.store.files import Aside, Piece, Written, read_pieces, write_aside
from dicomguard.store.filing import RESULT_CLASSES as RESULT_CLASSES
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
        head = part10.file_head(
            transfer_syntax_uid=arrival.transfer_syntax_uid,
            sop_class_uid=arrival.sop_class_uid,
            sop_instance_uid=arrival.sop_instance_uid,
            source_ae=arrival.sender.calling_ae,
        )
        self._head_bytes = len(head)
        try:
            store.space.check()
            self._memory = io.BytesIO()
            self._keep(head)
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
                return self._commit_file(arrival, self._aside.finish())
            if self._memory is None:
                raise Unavailable("The transfer has ended. Send the instance again.")
            return self._commit_memory(arrival, self._memory)
        finally:
            self.discard()

    def _commit_file(self, arrival: Arrival, written: Written) -> Outcome:
        """The literal order: what is said is in its file and in the database."""
        try:
            with written.path.open("rb") as file:
                identity = _checked_identity(file, arrival)
        except Refused as error:
            return filing.quarantine(self._store, arrival, written, str(error))

        def literal() -> Outcome:
            return filing.file(self._store, arrival, written, identity)

        if self._store.log is None:
            return literal()
        return self._store.log.take(arrival, identity, None, head_bytes=self._head_bytes, literal=literal)

    def _commit_memory(self, arrival: Arrival, memory: io.BytesIO) -> Outcome:
        """By the log where there is one; what only the database can decide takes the literal order."""
        store = self._store
        try:
            identity = _checked_identity(memory, arrival)
        except Refused as error:
            with write_aside(store.disk, store.root, [memory.getbuffer()]) as written:
                return filing.quarantine(store, arrival, written, str(error))

        def literal() -> Outcome:
            with write_aside(store.disk, store.root, [memory.getbuffer()]) as written:
                return filing.file(store, arrival, written, identity)

        if store.log is None:
            return literal()
        return store.log.take(arrival, identity, memory.getbuffer(), head_bytes=self._head_bytes, literal=literal)

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
    urgent: bool = False,
) -> Incoming:
    """Begin to take a dataset; never raises for disk or size, `Incoming.commit` does."""
    arrival = Arrival(
        sender=sender,
        channel=channel,
        association=_association(store, association_id),
        sop_class_uid=sop_class_uid,
        sop_instance_uid=sop_instance_uid,
        transfer_syntax_uid=transfer_syntax_uid,
        received_at=store.clock.now(),
        urgent=urgent,
    )
    return Incoming(store, arrival)


def _association(store: Store, id: str | None) -> Association | None:
    if id is None:
        return None
    return Association(id=id) if store.log is None else store.log.association(id)


def begin_association(store: Store, sender: Sender, *, process: str) -> str:
    """Note an accepted association of a receiver process that stores for the first time; returns its id.

    With a receive log this needs no database.
    """
    if store.log is not None:
        return store.log.begin_association(sender, process=process)
    with store.begin() as tx:
        return associations.opened(
            tx,
            process=process,
            peer=sender.peer,
            calling_ae=sender.calling_ae,
            called_ae=sender.called_ae,
            address=sender.address,
            now=store.clock.now(),
        )


def end_association(store: Store, id: str, how: How) -> None:
    """It is over; with a receive log its row says so behind all its instances. Raises `Unavailable` without one."""
    if store.log is not None:
        store.log.end_association(id, how)
        return
    with store.begin() as tx:
        associations.closed(tx, id, how, store.clock.now())


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


def _checked_identity(file: BinaryIO, arrival: Arrival) -> Identity:
    identity = read_identity(file)
    identity.check(sop_class_uid=arrival.sop_class_uid, sop_instance_uid=arrival.sop_instance_uid)
    return identity
