"""The upper layer of one connection, as acceptor, in one thread (PS3.8 9.2): associate, messages, release or abort.

It knows no table of peers and no database; its `Owner` decides who may associate.
"""

import socket
from collections.abc import Callable, Mapping
from typing import Protocol

from dicomguard import log
from dicomguard.clock import Clock
from dicomguard.core.admission import Reject
from dicomguard.scp import command, negotiation, pdu, services
from dicomguard.scp.association import Association
from dicomguard.scp.deadlines import Deadlines
from dicomguard.scp.messages import Message
from dicomguard.scp.negotiation import Agreement, Context, Proposal
from dicomguard.scp.notes import Notes
from dicomguard.scp.pdu import Fault
from dicomguard.scp.services import Service
from dicomguard.scp.tls import Certificates, key_sha256
from dicomguard.scp.wire import Closed, Cut, NotSecured, Pace, Plaintext, Wire
from dicomguard.store.associations import How

_LOG = log.get("scp")
# From accept to a whole A-ASSOCIATE-RQ (ARTIM timer of PS3.8 9.1.5), TLS handshake included.
_ASSOCIATE_S = 10.0
_MAX_COMMAND_BYTES = 64 << 10
# A-ABORT reasons by why the connection is cut; the rest have none.
_ABORT_REASONS = {"stalled": pdu.INVALID_PARAMETER}
STOP = "stop"
CROWDED = "crowded"


class Owner(Protocol):
    """Who decides for a connection."""

    def decide(self, connection: "Connection", proposal: Proposal) -> tuple[Association, float] | Reject:
        """The association that comes about and how long it may be idle, or the refusal, which has been noted."""
        ...

    def agreed(self, connection: "Connection", proposal: Proposal, agreement: Agreement) -> None:
        """What was negotiated."""
        ...

    def parted(self, connection: "Connection") -> None:
        """Its last PDU is about to be sent."""
        ...

    def left(self, connection: "Connection") -> None:
        """It is closed."""
        ...


class Connection:
    """One accepted socket."""

    def __init__(
        self,
        connected: socket.socket,
        address: str,
        *,
        owner: Owner,
        clock: Clock,
        deadlines: Deadlines,
        notes: Notes,
        services: Mapping[int, Service],
        max_pdu_bytes: int,
        stopping: Callable[[], bool],
        certificates: Certificates | None,
    ) -> None:
        self.address = address
        self._owner = owner
        self._notes = notes
        self._services = services
        self._max_pdu_bytes = max_pdu_bytes
        self._stopping = stopping
        # None on the port without TLS.
        self._certificates = certificates
        self.key_sha256: str | None = None
        self._wire = Wire(connected, clock=clock, deadlines=deadlines, max_pdu_bytes=max_pdu_bytes)
        self._deadline = clock.monotonic() + _ASSOCIATE_S
        self._association: Association | None = None
        self._agreement: Agreement | None = None
        # Command set under way, the message whose dataset is under way, and the context of both.
        self._command = bytearray()
        self._request: command.Command | None = None
        self._message: Message | None = None
        self._context: Context | None = None
        self._pace: Pace | None = None

    @property
    def in_message(self) -> bool:
        """Whether a message has begun that is not answered yet."""
        return self._context is not None

    def evict(self) -> None:
        """Make room for a newer one; from any thread."""
        self._wire.cut(CROWDED, hard=True)

    def refuse(self) -> None:
        """Close it before its thread has begun."""
        self._wire.close()

    def stop(self, *, hard: bool = False) -> None:
        """The receiver ends; from any thread."""
        self._wire.cut(STOP, hard=hard)

    def run(self) -> None:
        """Serve the peer until one side ends it."""
        how: How = "abort"
        try:
            how = self._serve()
        except Fault as fault:
            self._note_cut("protocol", str(fault))
            self._abort(fault.source, fault.reason)
        except Cut as cut:
            how = "stop" if cut.reason == STOP else "abort"
            if cut.reason != STOP:
                self._note_cut(cut.reason)
            self._abort(pdu.SERVICE_PROVIDER, _ABORT_REASONS.get(cut.reason, pdu.NOT_SPECIFIED))
        except Plaintext:
            self._refuse("plaintext", "it speaks no TLS on the TLS port; use TLS at the sender, or the other port")
        except NotSecured as error:
            self._refuse("handshake", str(error))
        except (Closed, OSError):
            how = "abort"
        except Exception:  # noqa: BLE001 -- the top of a connection
            _LOG.crashed("connection.failed", address=self.address)
            self._abort(pdu.SERVICE_PROVIDER, pdu.NOT_SPECIFIED)
        finally:
            self._end(how)

    def _end(self, how: How) -> None:
        try:
            if self._message is not None:
                self._message.discard()
            if self._association is not None:
                self._association.ended(how)
            self._wire.drain()
        finally:
            self._wire.close()
            self._owner.left(self)

    def _refuse(self, reason: str, why: str) -> None:
        """No association was asked for yet; there is nobody to answer in a language that both speak."""
        self._note_cut(reason)
        self._notes.refused(address=self.address, calling_ae="", called_ae="", reason=why)
        # It would wait for us, and we for it, until the deadline of the handshake.
        self._last_word(b"")

    def _note_cut(self, reason: str, why: str = "") -> None:
        peer = "unknown" if self._association is None else self._association.sender.peer
        self._notes.cut(reason=reason, peer=peer, address=self.address, why=why)

    def _abort(self, source: int, reason: int) -> None:
        self._last_word(pdu.abort(source, reason))

    def _last_word(self, content: bytes) -> None:
        self._owner.parted(self)
        self._wire.last_word(content)

    # --- states of PS3.8 Table 9-10 --------------------------------------------------------------------------------

    def _serve(self) -> How:
        """States 2, 3 and 6."""
        self._wire.wait(self._deadline, "unassociated")
        if self._certificates is not None:
            self.key_sha256 = key_sha256(self._wire.secure(self._certificates.context))
        kind, body = self._wire.read_first()
        if kind == pdu.ABORT:
            return self._aborted()
        proposal = negotiation.read(body)
        decision = self._owner.decide(self, proposal)
        if isinstance(decision, Reject):
            self._last_word(negotiation.reject(decision.result, decision.source, decision.diagnostic))
            return "abort"
        self._association, idle_s = decision
        self._agreement = negotiation.accept(proposal, max_pdu_bytes=self._max_pdu_bytes)
        self._owner.agreed(self, proposal, self._agreement)
        self._wire.send(self._agreement.answer)
        return self._messages(idle_s)

    def _messages(self, idle_s: float) -> How:
        """State 6."""
        while True:
            if not self.in_message and self._stopping():
                raise Cut(STOP)
            kind, body = self._wire.read(self._check, idle_s=idle_s, pace=self._pace)
            if kind == pdu.P_DATA:
                for context_id, control, piece in pdu.fragments(body):
                    self._fragment(context_id, control, piece)
            elif kind == pdu.RELEASE_RQ:
                if self.in_message:
                    raise Fault("A release came inside a message.", reason=pdu.UNEXPECTED_PDU)
                self._last_word(pdu.RELEASE_ANSWER)
                return "release"
            else:
                return self._aborted()

    def _aborted(self) -> How:
        """The peer has aborted; the transport is ours to close (PS3.8 AA-3), and it may wait for that."""
        self._last_word(b"")
        return "abort"

    def _check(self, kind: int, length: int) -> None:
        pdu.check_next(kind, length, max_pdu_bytes=self._max_pdu_bytes)

    # --- messages (PS3.8 Annex E, PS3.7 6.3) -----------------------------------------------------------------------

    def _fragment(self, context_id: int, control: int, piece: memoryview) -> None:
        if self._context is None:
            assert self._agreement is not None
            self._context = self._agreement.accepted.get(context_id)
            self._pace = Pace()
            if self._context is None:
                raise Fault("A PDV has a presentation context that was not accepted.")
        elif self._context.id != context_id:
            raise Fault("A message continues on another presentation context.")
        assert self._pace is not None
        self._pace.received_bytes += len(piece)
        last = bool(control & pdu.LAST)
        if control & pdu.COMMAND:
            self._command_piece(piece, last=last)
        elif self._message is None:
            raise Fault("Data came without a command.", reason=pdu.UNEXPECTED_PDU)
        else:
            self._message.write(piece)
            if last:
                self._finish()

    def _command_piece(self, piece: memoryview, *, last: bool) -> None:
        if self._message is not None:
            raise Fault("A command came inside a dataset.", reason=pdu.UNEXPECTED_PDU)
        if len(self._command) + len(piece) > _MAX_COMMAND_BYTES:
            raise Fault("A command set is too long.")
        self._command += piece
        if last:
            self._begin()

    def _begin(self) -> None:
        """The command set is whole."""
        assert self._association is not None
        assert self._context is not None
        request = command.parse(bytes(self._command))
        self._command.clear()
        if request.field == command.C_CANCEL_RQ and not request.has_dataset:
            # Nothing is under way that it could end, and it has no answer (PS3.7 9.3.2.3).
            self._context = None
            return
        if request.is_response:
            raise Fault("A response came to nothing that was asked.", source=pdu.SERVICE_USER, reason=0)
        begin = self._services.get(request.field)
        self._request = request
        self._message = begin(self._association, self._context, request) if begin else services.unrecognised(request)
        if not request.has_dataset:
            self._finish()

    def _finish(self) -> None:
        """The message is whole: answer it."""
        assert self._message is not None
        assert self._request is not None
        assert self._context is not None
        assert self._agreement is not None
        try:
            answer = self._message.finish()
        finally:
            self._message.discard()
            self._message = None
        content = command.response(self._request, answer.status, answer.comment, answer.more)
        self._wire.send(pdu.command(self._context.id, content, max_pdu_bytes=self._agreement.peer_max_pdu_bytes))
        self._context = self._pace = self._request = None
