"""The acceptor on pynetdicom: who may associate, what is negotiated, and the rows that open associations leave.

pynetdicom runs two threads an association and calls the handlers here in them.
"""

import socket
import threading
from collections.abc import Sequence
from dataclasses import dataclass

from pydicom import Dataset
from pynetdicom import _config, dimse_messages, evt
from pynetdicom.ae import ApplicationEntity
from pynetdicom.association import Association
from pynetdicom.events import Event
from pynetdicom.service_class import StorageServiceClass
from pynetdicom.sop_class import register_uid, uid_to_service_class
from pynetdicom.transport import ThreadedAssociationServer

from dicomguard import log
from dicomguard.core import admission
from dicomguard.core.peer import Peer
from dicomguard.dimse import contexts
from dicomguard.dimse.ae import make_ae
from dicomguard.errors import Unavailable
from dicomguard.scp import storage
from dicomguard.scp.bounded import bound_reading
from dicomguard.scp.spool import Spooled
from dicomguard.store import associations, refusals
from dicomguard.store.associations import How
from dicomguard.store.db import Store
from dicomguard.store.intake import Sender

_LOG = log.get("scp")
# A burst of connects (one association an image is common) must not wait for SYN retries.
_BACKLOG = 128
# A peer that stops inside a PDU is cut; pynetdicom looks at its own timers only between PDUs.
_RECEIVE_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """Limits of the network side."""

    max_associations: int
    max_pdu_bytes: int
    # Seconds between two messages.
    idle_s: float
    # Answer a conflict with 0xB000.
    warn_of_conflict: bool


class _Server(ThreadedAssociationServer):  # type: ignore[misc]
    request_queue_size = _BACKLOG
    receive_timeout_s = _RECEIVE_TIMEOUT_S

    def get_request(self) -> tuple[socket.socket, tuple[str, int]]:
        client, address = super().get_request()
        client.settimeout(self.receive_timeout_s)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return client, address


class Receiver:
    """A listening acceptor; `close` ends it in order."""

    def __init__(self, store: Store, *, process: str, ae_title: str, peers: Sequence[Peer], bounds: Bounds) -> None:
        self._store = store
        self._process = process
        self._ae_title = ae_title
        self._peers = tuple(peers)
        self._bounds = bounds
        self._lock = threading.Lock()
        # Accepted associations, each with its row's id, "" until it stores something.
        self._open: dict[Association, tuple[Sender, str]] = {}
        self._busy = 0
        self._idle = threading.Condition(self._lock)
        self._ae: ApplicationEntity = make_ae(ae_title, max_pdu_bytes=bounds.max_pdu_bytes)
        self._ae.maximum_associations = bounds.max_associations
        self._ae.network_timeout = bounds.idle_s
        self._server: _Server | None = None

    def open(self, host: str, port: int) -> int:
        """Listen; returns the port, which differs from the asked one when that is 0. Raises `Unavailable`."""
        # Datasets go to a file as they arrive instead of growing in memory.
        _config.STORE_RECV_CHUNKED_DATASET = True
        dimse_messages.NamedTemporaryFile = lambda **_: Spooled(self._store)
        patience_s = min(_RECEIVE_TIMEOUT_S, self._bounds.idle_s)
        bound_reading(self._store.clock, max_pdu_bytes=self._bounds.max_pdu_bytes, seconds=patience_s)
        for sop_class in contexts.STORAGE_CLASSES:
            if uid_to_service_class(sop_class) is not StorageServiceClass:
                # Retired classes (PS3.6 A): it would negotiate them and then abort the first message.
                register_uid(sop_class, f"Retired_{sop_class.replace('.', '_')}", StorageServiceClass)
            self._ae.add_supported_context(sop_class, list(contexts.TRANSFER_SYNTAXES))
        self._ae.add_supported_context(contexts.VERIFICATION, list(contexts.TRANSFER_SYNTAXES[:2]))
        handlers = [
            (evt.EVT_REQUESTED, self._requested),
            (evt.EVT_REJECTED, self._rejected),
            (evt.EVT_ACCEPTED, self._accepted),
            (evt.EVT_RELEASED, self._ended, ["release"]),
            (evt.EVT_ABORTED, self._ended, ["abort"]),
            (evt.EVT_CONN_CLOSE, self._ended, ["abort"]),
            (evt.EVT_C_STORE, self._store_one),
        ]
        try:
            server = self._ae.make_server((host, port), evt_handlers=handlers, server_class=_Server)
        except OSError as error:
            raise Unavailable(
                f"Port {port} on {host} cannot be opened ({error.strerror}). Choose another in [node]."
            ) from error
        server.receive_timeout_s = patience_s
        threading.Thread(target=server.serve_forever, name="accept", daemon=True).start()
        # `make_server` leaves this to its caller; without it `AE.shutdown` does not know the server.
        self._ae._servers.append(server)
        self._server = server
        return int(server.server_address[1])

    def close(self, *, patience_s: float) -> None:
        """No new associations; running messages get their answer if it comes in time; the rest is aborted."""
        if self._server is not None:
            self._server.shutdown()
        with self._idle:
            self._idle.wait_for(lambda: self._busy == 0, timeout=patience_s)
        self._ae.shutdown()
        with self._lock:
            left = list(self._open)
        for association in left:
            self._close_row(association, "stop")

    def _requested(self, event: Event) -> None:
        request = _request(event.assoc)
        decision = admission.decide(
            request, ae_title=self._ae_title, peers=self._peers, congested=self._store.space.stopped
        )
        match decision:
            case admission.Accept(peer):
                sender = Sender(
                    peer=peer.name,
                    calling_ae=request.calling_ae,
                    called_ae=request.called_ae,
                    address=request.address,
                )
                with self._lock:
                    self._open[event.assoc] = (sender, "")
            case admission.Reject():
                event.assoc.acse.send_reject(decision.result, decision.source, decision.diagnostic)
                self._note_refusal(request, decision.reason)
                # As pynetdicom does for its own rejections: without it the socket can be shut before the answer is out.
                event.assoc.kill()

    def _rejected(self, event: Event) -> None:
        """pynetdicom itself said no: its limit of associations."""
        with self._lock:
            self._open.pop(event.assoc, None)
        self._note_refusal(_request(event.assoc), admission.LIMIT_REACHED.reason)

    def _accepted(self, event: Event) -> None:
        if not event.assoc.accepted_contexts:
            self._note_refusal(_request(event.assoc), "none of the proposed presentation contexts is taken")

    def _note_refusal(self, request: admission.Request, reason: str) -> None:
        _LOG.warning(
            "association.refused",
            address=request.address,
            calling_ae=request.calling_ae,
            called_ae=request.called_ae,
            reason=reason,
        )
        try:
            with self._store.begin() as tx:
                refusals.record(
                    tx, self._store.clock.now(), request.address, request.calling_ae, request.called_ae, reason
                )
        except Unavailable as error:
            # The answer to the peer is out already; only its row is missing.
            _LOG.warning("refusal.lost", reason=str(error))

    def _store_one(self, event: Event) -> Dataset:
        with self._lock:
            self._busy += 1
        try:
            sender, association_id = self._row_of(event.assoc)
            return storage.answer(
                self._store,
                event,
                sender,
                association_id=association_id,
                warn_of_conflict=self._bounds.warn_of_conflict,
            )
        except Unavailable as error:
            _LOG.warning("instance.refused", status="A700", reason=str(error))
            response = Dataset()
            response.Status = 0xA700
            return response
        finally:
            with self._idle:
                self._busy -= 1
                self._idle.notify_all()

    def _row_of(self, association: Association) -> tuple[Sender, str]:
        """Sender and row id of an association; the row is made when it first stores, so that echoes leave none."""
        with self._lock:
            sender, id = self._open[association]
        if id:
            return sender, id
        with self._store.begin() as tx:
            id = associations.opened(
                tx,
                process=self._process,
                peer=sender.peer,
                calling_ae=sender.calling_ae,
                called_ae=sender.called_ae,
                address=sender.address,
                now=self._store.clock.now(),
            )
        with self._lock:
            self._open[association] = (sender, id)
        return sender, id

    def _ended(self, event: Event, how: How) -> None:
        self._close_row(event.assoc, how)

    def _close_row(self, association: Association, how: How) -> None:
        with self._lock:
            _, id = self._open.pop(association, (None, ""))
        if not id:
            return
        try:
            with self._store.begin() as tx:
                associations.closed(tx, id, how, self._store.clock.now())
        except Unavailable as error:
            # It holds its studies until the longest wait; completion still comes.
            _LOG.warning("association.lost", reason=str(error))


def _request(association: Association) -> admission.Request:
    primitive = association.requestor.primitive
    proposed = {context.abstract_syntax for context in primitive.presentation_context_definition_list}
    return admission.Request(
        calling_ae=str(primitive.calling_ae_title).strip(" \0"),
        called_ae=str(primitive.called_ae_title).strip(" \0"),
        address=str(association.requestor.address),
        stores=bool(proposed - {contexts.VERIFICATION}),
    )
