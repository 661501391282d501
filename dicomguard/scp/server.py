"""The acceptor: its port, a thread a connection, who may associate, and an end in order."""

import socket
import struct
import threading
from collections.abc import Sequence
from dataclasses import dataclass

from dicomguard import log
from dicomguard.core import admission
from dicomguard.core.peer import Peer
from dicomguard.scp import services
from dicomguard.scp.association import Association
from dicomguard.scp.commitment import NOBODY, Settings
from dicomguard.scp.connection import Connection
from dicomguard.scp.deadlines import Deadlines
from dicomguard.scp.guard import Caps, Guard
from dicomguard.scp.negotiation import Agreement, Proposal
from dicomguard.scp.notes import Notes
from dicomguard.scp.shared import Tally
from dicomguard.scp.tls import Certificates
from dicomguard.store.db import Store
from dicomguard.store.filer import Filer
from dicomguard.store.intake import Sender
from dicomguard.store.log_figures import Figures

_LOG = log.get("scp")
# A burst of connects must not wait for SYN retries, which come after a second; a flood makes bursts of hundreds.
_BACKLOG = 1024
# A silent connection reaches us after this; when thousands are silent at once, it reaches us at once as without.
_DEFER_S = 3
# The kernel forgets the connection at once and tells the peer so (SO_LINGER with no time).
_RESET = struct.pack("ii", 1, 0)
# accept(2) looks up this often whether the receiver ends (struct timeval).
_LOOK_UP, _FOR_EVER = struct.pack("ll", 0, 200_000), struct.pack("ll", 0, 0)
# Without descriptors or threads the next accept is tried after this.
_PAUSE_S = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """Limits of the network side."""

    caps: Caps
    max_pdu_bytes: int
    # Seconds between two messages.
    idle_s: float
    # Answer a conflict with 0xB000.
    warn_of_conflict: bool
    commitment: Settings = NOBODY


class Receiver:
    """A listening acceptor; `close` ends it in order."""

    def __init__(
        self, store: Store, *, process: str, ae_title: str, peers: Sequence[Peer], bounds: Bounds, tally: Tally
    ) -> None:
        self._store = store
        self._process = process
        self._ae_title = ae_title
        self._peers = tuple(peers)
        self._bounds = bounds
        self._services = services.table(store, warn_of_conflict=bounds.warn_of_conflict, commitment=bounds.commitment)
        self._guard = Guard(bounds.caps, peers, tally)
        self._deadlines = Deadlines(store.clock)
        self._notes = Notes(store)
        self._stopping = threading.Event()
        self._accepting: list[threading.Thread] = []
        # All that have a thread; notified when one leaves.
        self._changed = threading.Condition()
        self._connections: set[Connection] = set()
        # Those that connected too early for their address and have neither thread nor buffer yet.
        self._held: set[socket.socket] = set()

    def open(self, listener: socket.socket, certificates: Certificates | None = None) -> None:
        """Listen on a bound socket, perhaps together with other processes; with TLS where there are certificates.

        Raises `OSError` when somebody else listens there.
        """
        # Who connects speaks first, in DICOM and in TLS; the kernel keeps those that say nothing to itself meanwhile.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, _DEFER_S)
        listener.listen(_BACKLOG)
        # Closing or shutting down would not wake us alone: other processes may share it.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _LOOK_UP)
        if not self._accepting:
            self._deadlines.start()
            self._notes.start()
        arguments = (listener, certificates)
        accepting = threading.Thread(target=self._accept, args=arguments, name="accept", daemon=True)
        accepting.start()
        self._accepting.append(accepting)

    def renew(self, peers: Sequence[Peer], bounds: Bounds) -> None:
        """Other peers and bounds for all associations that begin from now on."""
        self._peers, self._bounds = tuple(peers), bounds
        self._services = services.table(
            self._store, warn_of_conflict=bounds.warn_of_conflict, commitment=bounds.commitment
        )
        self._guard.renew(bounds.caps, peers)

    def figures(self) -> Figures | None:
        """How it stands; None without a receive log."""
        filer = self._store.log
        log, unfiled = filer.standing() if isinstance(filer, Filer) else (None, [])
        if log is None:
            return None
        oldest_s = (self._store.clock.now() - unfiled[0]).total_seconds() if unfiled else 0.0
        return Figures(
            slot=log.slot.folder.name,
            flushes=list(log.flushes.counts),
            flush_s=log.flushes.seconds,
            records=log.flushes.records,
            free_segments=log.free_segments,
            unfiled=len(unfiled),
            oldest_s=max(0.0, oldest_s),
            associations=dict(self._guard.by_peer()),
            waiting=self._guard.counts[0],
        )

    def close(self, *, patience_s: float) -> None:
        """No new associations; running messages get their answer if it comes in time; the rest is aborted."""
        self._stopping.set()
        for accepting in self._accepting:
            accepting.join()
        with self._changed:
            idle = [connection for connection in self._connections if not connection.in_message]
        for connection in idle:
            connection.stop()
        with self._changed:
            self._changed.wait_for(lambda: not self._connections, timeout=patience_s)
            left = list(self._connections)
        for connection in left:
            connection.stop(hard=True)
        with self._changed:
            self._changed.wait_for(lambda: not self._connections, timeout=patience_s)
        self._deadlines.stop()
        for held in list(self._held):
            held.close()
        self._notes.stop()

    # --- accepting -------------------------------------------------------------------------------------------------

    def _accept(self, listener: socket.socket, certificates: Certificates | None) -> None:
        with listener:
            self._accept_from(listener, certificates)

    def _accept_from(self, listener: socket.socket, certificates: Certificates | None) -> None:
        while not self._stopping.is_set():
            try:
                connected, address = listener.accept()
                # It has the timeout of the socket that it came from.
                connected.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _FOR_EVER)
            except BlockingIOError:
                continue
            except OSError as error:
                if not self._stopping.is_set():
                    _LOG.warning("connection.missed", reason=str(error.strerror))
                    self._stopping.wait(_PAUSE_S)
                continue
            try:
                self._arrived(connected, str(address[0]), certificates)
            except Exception:  # noqa: BLE001 -- the top of the thread: no peer ends the port
                _LOG.crashed("connection.failed")
                connected.close()
                self._stopping.wait(_PAUSE_S)

    def _arrived(self, connected: socket.socket, address: str, certificates: Certificates | None) -> None:
        """Begin it now, or when its turn comes, or not at all: what is refused here costs a few system calls."""
        if not self._guard.admits(address):
            self._notes.cut(reason="stranger", peer="unknown", address=address)
            connected.close()
            return
        now = self._store.clock.monotonic()
        secured = certificates is not None
        wait_s = self._guard.turn(address, secured=secured, held=len(self._held), now=now)
        if wait_s is None:
            self._notes.too_many(address=address)
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            connected.close()
        elif wait_s > 0.0:
            self._notes.slowed(address=address)
            self._held.add(connected)
            timer = self._deadlines.timer(lambda _: self._let_in(connected, address, certificates))
            timer.arm(now + wait_s, "turn")
        else:
            self._begin(connected, address, certificates)

    def _let_in(self, connected: socket.socket, address: str, certificates: Certificates | None) -> None:
        self._held.discard(connected)
        if self._stopping.is_set():
            connected.close()
            return
        try:
            self._begin(connected, address, certificates)
        except Exception:  # noqa: BLE001 -- the deadlines of all others are carried out in this thread
            _LOG.crashed("connection.failed")
            connected.close()

    def _begin(self, connected: socket.socket, address: str, certificates: Certificates | None) -> None:
        """A thread for it, unless there are too many."""
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = Connection(
            connected,
            address,
            owner=self,
            clock=self._store.clock,
            deadlines=self._deadlines,
            notes=self._notes,
            services=self._services,
            max_pdu_bytes=self._bounds.max_pdu_bytes,
            stopping=self._stopping.is_set,
            certificates=certificates,
        )
        if not self._guard.enter(connection):
            # Another thread was faster.
            self._notes.cut(reason="stranger", peer="unknown", address=address)
            connection.refuse()
            return
        with self._changed:
            self._connections.add(connection)
        try:
            threading.Thread(target=connection.run, name="connection", daemon=True).start()
        except RuntimeError:
            # No thread is to be had.
            self.left(connection)
            connection.refuse()
            raise

    # --- what connections ask --------------------------------------------------------------------------------------

    def decide(self, connection: Connection, proposal: Proposal) -> tuple[Association, float] | admission.Reject:
        """Judge an association request; a refusal is noted."""
        request = admission.Request(
            calling_ae=proposal.calling_ae,
            called_ae=proposal.called_ae,
            address=connection.address,
            stores=proposal.stores,
            key_sha256=connection.key_sha256,
        )
        decision = admission.decide(
            request, ae_title=self._ae_title, peers=self._peers, congested=self._store.space.stopped
        )
        if isinstance(decision, admission.Accept):
            match self._guard.associate(connection, decision.peer.name):
                case "":
                    idle_s = self._bounds.idle_s if decision.peer.idle_s is None else decision.peer.idle_s
                    return self._association(request, decision.peer), idle_s
                case "all":
                    decision = admission.LIMIT_REACHED
                case "peer":
                    decision = admission.PEER_LIMIT_REACHED
        self._note_refusal(connection, proposal, decision.reason)
        return decision

    def _association(self, request: admission.Request, peer: Peer) -> Association:
        sender = Sender(
            peer=peer.name, calling_ae=request.calling_ae, called_ae=request.called_ae, address=request.address
        )
        return Association(self._store, sender, process=self._process)

    def agreed(self, connection: Connection, proposal: Proposal, agreement: Agreement) -> None:
        """An association without a context is of no use to its sender."""
        if not agreement.accepted:
            self._note_refusal(connection, proposal, "none of the proposed presentation contexts is taken")

    def _note_refusal(self, connection: Connection, proposal: Proposal, reason: str) -> None:
        self._notes.refused(
            address=connection.address,
            calling_ae=proposal.calling_ae,
            called_ae=proposal.called_ae,
            reason=reason,
        )

    def parted(self, connection: Connection) -> None:
        """Its place is free."""
        self._guard.part(connection)

    def left(self, connection: Connection) -> None:
        """It is closed."""
        self._guard.leave(connection)
        with self._changed:
            self._connections.discard(connection)
            self._changed.notify_all()
