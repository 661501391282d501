"""What was refused and what was cut, for log and database: in batches, so that a flood of it costs no flood of writes.

One row says how often, and one line a minute; the first of its kind is written at once.
"""

import threading
from collections import Counter
from dataclasses import dataclass

from dicomguard import log
from dicomguard.errors import Unavailable
from dicomguard.store import counters, refusals
from dicomguard.store.db import Store

_LOG = log.get("scp")
# Between two batches: each is a transaction, which senders may have to wait for.
_PAUSE_S = 1.0
# Between two lines of the log about the same.
_SILENT_S = 60.0
# Different notes in one batch; more of them share one.
_MOST = 500
_MANY = "(many)"
_MORE = "if that is right, raise connections_per_s of its peer or of [receive]"


@dataclass(frozen=True, slots=True)
class _Refusal:
    address: str
    calling_ae: str
    called_ae: str
    reason: str


@dataclass(frozen=True, slots=True)
class _CutOff:
    # "" for one that only had to wait.
    reason: str
    # Configured name, "unknown" before an association.
    peer: str
    address: str
    # What the peer did, a sentence, or "".
    why: str


class Notes:
    """Takes notes from all threads and writes them in its own."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._pending: Counter[_Refusal | _CutOff] = Counter()
        # What the log has not said yet of what it said lately, and when it said it.
        self._unsaid: Counter[_CutOff] = Counter()
        self._said_at: dict[_CutOff, float] = {}
        self._changed = threading.Condition()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="notes", daemon=True)

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def stop(self) -> None:
        """Write what is left and end."""
        with self._changed:
            self._stopped.set()
            self._changed.notify()
        self._thread.join()

    def refused(self, *, address: str, calling_ae: str, called_ae: str, reason: str) -> None:
        """An association was refused."""
        self._note(_Refusal(address, calling_ae, called_ae, reason), _Refusal(_MANY, _MANY, _MANY, reason))

    def cut(self, *, reason: str, peer: str, address: str, why: str = "") -> None:
        """A connection was ended from our side."""
        self._note(_CutOff(reason, peer, address, why), _CutOff(reason, peer, _MANY, ""))

    def too_many(self, *, address: str) -> None:
        """A connection was closed at the door, because its address makes too many."""
        self.cut(reason="too_many", peer="unknown", address=address, why=f"its address connects too often; {_MORE}")

    def slowed(self, *, address: str) -> None:
        """A connection has to wait for its turn."""
        self.cut(reason="", peer="unknown", address=address, why=f"its address connects often and waits; {_MORE}")

    def _note(self, note: _Refusal | _CutOff, crowded: _Refusal | _CutOff) -> None:
        with self._changed:
            if note not in self._pending and len(self._pending) >= _MOST:
                note = crowded
            self._pending[note] += 1
            self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                timeout_s = _PAUSE_S if self._unsaid else None
                self._changed.wait_for(lambda: self._pending or self._stopped.is_set(), timeout_s)
                last = self._stopped.is_set()
                batch, self._pending = self._pending, Counter()
            if batch:
                try:
                    self._write(batch)
                except Unavailable as error:
                    # The answer to the peer is out already; only its row is missing.
                    _LOG.warning("refusal.lost", reason=str(error), count=batch.total())
                except Exception:  # noqa: BLE001 -- the top of the thread
                    _LOG.crashed("refusal.lost", count=batch.total())
            self._say(batch)
            if last:
                return
            self._stopped.wait(_PAUSE_S)

    def _write(self, batch: Counter[_Refusal | _CutOff]) -> None:
        with self._store.begin() as tx:
            now = self._store.clock.now()
            for note, count in batch.items():
                if isinstance(note, _Refusal):
                    refusals.record(tx, now, note.address, note.calling_ae, note.called_ae, note.reason, count=count)
                elif note.reason:
                    counters.add(tx, f"{counters.CUT}{note.reason}", note.peer, count)
                else:
                    counters.add(tx, "connections_slowed", note.peer, count)

    def _say(self, batch: Counter[_Refusal | _CutOff]) -> None:
        for note, count in batch.items():
            if isinstance(note, _Refusal):
                _LOG.warning(
                    "association.refused",
                    address=note.address,
                    calling_ae=note.calling_ae,
                    called_ae=note.called_ae,
                    reason=note.reason,
                    count=count,
                )
            else:
                full = note not in self._unsaid and len(self._unsaid) >= _MOST
                self._unsaid[_CutOff(note.reason, note.peer, _MANY, "") if full else note] += count
        now = self._store.clock.monotonic()
        self._said_at = {note: at for note, at in self._said_at.items() if at > now - _SILENT_S}
        for note in list(self._unsaid):
            if note in self._said_at and not self._stopped.is_set():
                continue
            self._said_at[note] = now
            _LOG.warning(
                "connection.cut" if note.reason else "connection.slowed",
                reason=note.reason or "too_many",
                peer=note.peer,
                address=note.address,
                cause=note.why,
                count=self._unsaid.pop(note),
            )
