"""Between the receive log and the store: what is answered before Success, and the thread that files behind it.

Whoever brings an instance claims its SOP Instance UID first. Equal bytes that are logged or kept are a duplicate; other
bytes under a known UID take the literal order, so that their answer says what the database says; everything else is
logged. While the database is away nothing can be looked up: the instance is logged, and the filer finds a conflict by
the unique key when the database is back.
"""

import secrets
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Literal

from sqlalchemy import bindparam, select

from dicomguard import log
from dicomguard.core.instance import Instance
from dicomguard.errors import Unavailable
from dicomguard.store import associations, backlog, filing, set_aside
from dicomguard.store.arrival import Arrival, Association, Conflict, Duplicate, Outcome, Sender, Stored
from dicomguard.store.associations import How
from dicomguard.store.backlog import Item, Repeated
from dicomguard.store.db import Store
from dicomguard.store.identity import Identity
from dicomguard.store.log_records import Logged, read_segment
from dicomguard.store.receive_log import ReceiveLog
from dicomguard.store.studies import read_instance
from dicomguard.store.tables import instance, study

_LOG = log.get("store")
# Records in one transaction.
_BATCH = 256
# A sender waits this long for a free segment, or for another who brings the same instance; then it gets 0xA700.
PATIENCE_S = 20.0
# A record does not stay in the log much longer: a replay must not bring back what was removed since.
_OLDEST_S = 60.0
_LOOK_S = 0.5
# The filer leaves the processor to those who receive until nothing has come for so long, but not more often than this
# in a row: a batch costs little more than one record.
_QUIET_S = 0.05
_MOST_QUIET = 6
_LONGEST_PAUSE_S = 2.0
# Keys of studies that were seen lately.
_STUDIES = 4096
# Repeats that wait to be counted; more of them are not counted.
_MOST_WAITING = 20_000
_COPIES = select(instance.c.sha256, instance.c.state, instance.c.path).where(instance.c.sop_uid == bindparam("uid"))
_STUDY_KEY = select(study.c.study_key).where(study.c.study_uid == bindparam("uid"))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ended:
    """An association is over."""

    id: str
    how: How
    at: datetime


class _Claim:
    """Somebody brings an instance, or it is logged and has no row yet."""

    __slots__ = ("arrival", "identity", "logged", "study_key")

    def __init__(self, arrival: Arrival, identity: Identity) -> None:
        self.arrival = arrival
        self.identity = identity
        self.study_key = ""
        self.logged = False

    def outcome(self) -> Duplicate:
        """For who brings the same bytes again."""
        return _duplicate(_instance(self.arrival, self.identity, self.study_key), self.study_key)


class Filer:
    """The receive log of a store, with its filer; `open_log` makes it."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._log: ReceiveLog | None = None
        lock = threading.RLock()
        self._changed = threading.Condition(lock)
        # Only the filer's thread waits for it.
        self._work = threading.Condition(lock)
        # Everything that was ever put into the queue.
        self._came = 0
        self._claims: dict[str, _Claim] = {}
        self._associations: dict[str, Association] = {}
        self._studies: OrderedDict[str, str] = OrderedDict()
        self._waiting: deque[Item | Repeated | _Ended] = deque()
        self._owed_bytes = 0
        # Those who wait for the filer.
        self._hurried = 0
        self._stopping = False
        self._away_until = 0.0
        self._trusted = True
        # Bytes whose filing ends the process, from what earlier ones died of.
        self._killers = set_aside.killers(store.root)
        self._thread = threading.Thread(target=self._run, name="filer", daemon=True)

    # --- before Success --------------------------------------------------------------------------------------------

    def take(
        self,
        arrival: Arrival,
        identity: Identity,
        content: memoryview | None,
        *,
        head_bytes: int,
        literal: Callable[[], Outcome],
    ) -> Outcome:
        """Durable when it returns. `content` is None for what must take the literal order. Raises `Unavailable`."""
        claim, is_mine = self._claim(arrival, identity)
        if not is_mine:
            self._repeated(arrival, identity)
            return claim.outcome()
        logged = False
        try:
            known = self._known(arrival, identity)
            if isinstance(known, Duplicate):
                self._repeated(arrival, identity)
                return known
            if known == "other" or content is None or self._log is None or len(content) > self._log.most_bytes:
                return literal()
            claim.study_key = self._study_key(identity.study_uid)
            row = backlog.describe(arrival, identity, claim.study_key)
            try:
                self._log.append(row, content, head_bytes=head_bytes, sha256=arrival.sha256)
            finally:
                self._store.space.failed = self._log.failed
            logged = True
            with self._changed:
                claim.logged = True
                self._changed.notify_all()
            return Stored(instance=_instance(arrival, identity, claim.study_key), study_key=claim.study_key)
        finally:
            if not logged:
                self._release([identity.sop_uid])

    def _claim(self, arrival: Arrival, identity: Identity) -> tuple[_Claim, bool]:
        """Be the only one who brings this UID; or what is logged under it (false), when the bytes are the same."""
        sop_uid = identity.sop_uid

        def free() -> bool:
            held = self._claims.get(sop_uid)
            return held is None or (held.arrival.sha256 == arrival.sha256 and held.logged)

        with self._changed:
            if not free():
                with self._hurrying():
                    if not self._changed.wait_for(free, timeout=PATIENCE_S):
                        raise Unavailable("Another copy under this SOP Instance UID waits to be filed. Send it again.")
            held = self._claims.get(sop_uid)
            if held is not None:
                return held, False
            claim = self._claims[sop_uid] = _Claim(arrival, identity)
            return claim, True

    def _release(self, sop_uids: list[str]) -> None:
        with self._changed:
            for sop_uid in sop_uids:
                self._claims.pop(sop_uid, None)
            self._changed.notify_all()

    def _known(self, arrival: Arrival, identity: Identity) -> Duplicate | Literal["other", "nothing"]:
        """What the database has under this UID; nothing while it is away."""
        if self._store.clock.monotonic() < self._away_until:
            return "nothing"
        try:
            rows = self._store.ask(_COPIES, {"uid": identity.sop_uid})
            if not rows and identity.study_uid not in self._studies:
                for (key,) in self._store.ask(_STUDY_KEY, {"uid": identity.study_uid}):
                    self._remember(identity.study_uid, str(key))
            for sha256, state, path in rows:
                if sha256 == arrival.sha256 and state in ("stored", "own"):
                    return self._kept(arrival, identity) if (self._store.root / path).is_file() else "other"
        except Unavailable:
            self._away_until = self._store.clock.monotonic() + 1.0
            return "nothing"
        return "other" if rows else "nothing"

    def _kept(self, arrival: Arrival, identity: Identity) -> Duplicate | Literal["other"]:
        with self._store.look() as tx:
            rows = filing.copies(tx, identity.sop_uid)
        for row in rows:
            if row.sha256 == arrival.sha256 and row.state in ("stored", "own"):
                return _duplicate(read_instance(row), str(row.study_key))
        return "other"

    def _study_key(self, study_uid: str) -> str:
        """The known key, else a new one, the same for all who ask."""
        with self._changed:
            key = self._studies.get(study_uid)
            return key if key is not None else self._remember(study_uid, secrets.token_hex(8))

    def _remember(self, study_uid: str, key: str) -> str:
        with self._changed:
            key = self._studies.setdefault(study_uid, key)
            self._studies.move_to_end(study_uid)
            while len(self._studies) > _STUDIES:
                self._studies.popitem(last=False)
            return key

    def _repeated(self, arrival: Arrival, identity: Identity) -> None:
        with self._changed:
            if len(self._waiting) < _MOST_WAITING:
                self._queue(Repeated(arrival=arrival, study_uid=identity.study_uid))

    def _queue(self, item: Item | Repeated | _Ended) -> None:
        """Under the lock."""
        self._waiting.append(item)
        self._came += 1
        if len(self._waiting) == 1:
            self._work.notify()

    # --- associations ----------------------------------------------------------------------------------------------

    def begin_association(self, sender: Sender, *, process: str) -> str:
        """An id for an association that begins; its row follows with the first instance."""
        id = secrets.token_hex(8)
        with self._changed:
            self._associations[id] = Association(id=id, process=process, opened_at=self._store.clock.now())
        return id

    def association(self, id: str) -> Association:
        """What is known of an association by its id."""
        with self._changed:
            return self._associations.get(id) or Association(id=id)

    def end_association(self, id: str, how: How) -> None:
        """Its row says so behind all its instances; until then it holds their studies."""
        with self._changed:
            if self._associations.pop(id, None) is not None:
                self._queue(_Ended(id=id, how=how, at=self._store.clock.now()))

    # --- behind Success --------------------------------------------------------------------------------------------

    def standing(self) -> tuple[ReceiveLog | None, list[datetime]]:
        """The log, and when each instance came that has no file and row yet, the oldest first."""
        with self._changed:
            return self._log, [item.arrival.received_at for item in self._waiting if isinstance(item, Item)]

    def appended(self, record: Logged) -> None:
        """The log has flushed it."""
        claim = self._claims[record.sop_instance_uid]
        item = Item(record=record, arrival=claim.arrival, identity=claim.identity, study_key=claim.study_key)
        with self._changed:
            self._queue(item)
            self._owe(record.size_bytes)

    def start(self, opened: ReceiveLog) -> None:
        """Begin to file what this log gets."""
        self._log = opened
        self._thread.start()

    def settle(self, *, patience_s: float) -> bool:
        """Wait until everything that was taken has its file and row and is counted."""
        with self._changed, self._hurrying():
            return self._changed.wait_for(lambda: not self._waiting, timeout=patience_s)

    @contextmanager
    def _hurrying(self) -> Iterator[None]:
        """Under the lock: somebody waits for the filer, which lingers no more."""
        self._hurried += 1
        self._work.notify()
        try:
            yield
        finally:
            self._hurried -= 1

    def close(self, *, patience_s: float) -> None:
        """File what is left, empty the log, end. What does not get filed in time is replayed at the next start."""
        self.settle(patience_s=patience_s)
        with self._changed:
            self._stopping = True
            self._work.notify()
        self._thread.join(patience_s)
        if self._log is not None and not self._thread.is_alive():
            self._log.close()
            self._store.disk.unwatch(self._store.root / backlog.FOLDER)

    def _owe(self, size_bytes: int) -> None:
        """Free space that the files of logged records will take."""
        self._owed_bytes += size_bytes
        self._store.space.owed_bytes = self._owed_bytes

    def _run(self) -> None:
        pause_s = 0.0
        while not self._stopping:
            with self._changed:
                if pause_s:
                    self._work.wait_for(lambda: self._stopping, timeout=pause_s)
                else:
                    self._work.wait_for(lambda: self._waiting or self._stopping, timeout=_LOOK_S)
                    self._linger()
                batch = list(islice(self._waiting, _BATCH))
            try:
                self._file(batch)
                self._checkpoint(older_than_s=_OLDEST_S)
            except Unavailable as error:
                if pause_s == 0.0:
                    _LOG.warning("filing.postponed", reason=str(error), count=len(self._waiting))
                pause_s = min(_LONGEST_PAUSE_S, max(0.05, 2 * pause_s))
            except Exception:  # noqa: BLE001 -- the top of the thread
                _LOG.crashed("filing.failed")
                pause_s = _LONGEST_PAUSE_S
            else:
                pause_s = 0.0
        try:
            self._checkpoint(older_than_s=0.0)
        except Unavailable as error:
            _LOG.warning("filing.postponed", reason=str(error), count=len(self._waiting))

    def _linger(self) -> None:
        """Under the lock: as long as more comes, nobody waits for the filer, and the log has room."""
        for _ in range(_MOST_QUIET if self._waiting else 0):
            if self._stopping or self._hurried or (self._log is not None and self._log.is_pressed):
                return
            came = self._came
            self._work.wait(_QUIET_S)
            if self._came == came:
                return

    def _file(self, batch: list[Item | Repeated | _Ended]) -> None:
        """Each is off the queue once it is done, so that what an error leaves there is tried again."""
        items: list[Item] = []
        for item in batch:
            if isinstance(item, Item) and item.record.sha256 in self._killers:
                set_aside.put_killer(self._store, item.record)
                self._done([item])
            elif isinstance(item, Item):
                items.append(item)
        repeated = [item for item in batch if isinstance(item, Repeated)]
        if items or repeated:
            try:
                left = backlog.file_batch(self._store, items, repeated)
            except Unavailable:
                raise
            except Exception:  # noqa: BLE001 -- the top of filing: one record must not stop the others
                _LOG.crashed("filing.failed", count=len(items))
                left = items
            singly = {id(item) for item in left}
            self._done([item for item in items if id(item) not in singly])
            self._done(repeated)
            for item in left:
                self._file_singly(item)
        for ended in (item for item in batch if isinstance(item, _Ended)):
            with self._store.begin_relaxed() as tx:
                associations.closed(tx, ended.id, ended.how, ended.at)
            self._done([ended])

    def _file_singly(self, item: Item) -> None:
        outcome = set_aside.file_singly(self._store, item)
        if isinstance(outcome, Conflict):
            peer = item.arrival.sender.peer
            _LOG.warning("instance.conflicted", study=outcome.study_key, peer=peer, reason=outcome.reason)
        self._done([item])

    def _done(self, items: Sequence[Item | Repeated | _Ended]) -> None:
        """Take them off the front of the queue and let go of what they held."""
        done = {id(item) for item in items}
        records = [item.record for item in items if isinstance(item, Item)]
        with self._changed:
            kept = [item for item in islice(self._waiting, _BATCH) if id(item) not in done]
            for _ in range(min(_BATCH, len(self._waiting))):
                self._waiting.popleft()
            self._waiting.extendleft(reversed(kept))
            for record in records:
                claim = self._claims.pop(record.sop_instance_uid, None)
                if claim is not None:
                    # Another process may have given the study its key; the next look-up tells.
                    self._studies.pop(claim.identity.study_uid, None)
                self._owe(-record.size_bytes)
            if self._log is not None:
                first = next((item.record.sequence for item in self._waiting if isinstance(item, Item)), None)
                self._log.note_filed(records, all_below=self._log.last_sequence if first is None else first - 1)
            self._changed.notify_all()

    def _checkpoint(self, *, older_than_s: float) -> None:
        """Empty the segments whose records are all filed, once files and rows are durable. Raises `Unavailable`."""
        if self._log is None:
            return
        self._log.close_old(older_than_s=older_than_s)
        segments = self._log.settled_segments()
        if not segments:
            return

        def records() -> Iterator[Logged]:
            for segment in segments:
                yield from read_segment(segment.path)

        self._trusted = backlog.make_durable(self._store, records, trust=self._trusted)
        for segment in segments:
            self._log.reuse(segment)


def _duplicate(kept: Instance, study_key: str) -> Duplicate:
    return Duplicate(instance=kept, study_key=study_key, reason="the same bytes are kept already")


def _instance(arrival: Arrival, identity: Identity, study_key: str) -> Instance:
    return Instance(
        sop_instance_uid=identity.sop_uid,
        sop_class_uid=identity.sop_class,
        study_instance_uid=identity.study_uid,
        series_instance_uid=identity.series_uid,
        transfer_syntax_uid=arrival.transfer_syntax_uid,
        sha256=arrival.sha256,
        size_bytes=arrival.size_bytes,
        path=filing.path_of(arrival, study_key),
        calling_ae=arrival.sender.calling_ae,
        called_ae=arrival.sender.called_ae,
        address=arrival.sender.address,
        received_at=arrival.received_at,
        ordinal=0,
        state="stored",
        reason="",
    )
