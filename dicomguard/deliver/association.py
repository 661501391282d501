"""One association as requestor, and why it did not come about (PS3.8 9.3)."""

import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from pynetdicom.ae import ApplicationEntity
from pynetdicom.association import Association
from pynetdicom.events import EventHandlerType
from pynetdicom.pdu_primitives import SCP_SCU_RoleSelectionNegotiation
from pynetdicom.presentation import PresentationContext

from dicomguard.core.delivery import Event
from dicomguard.core.peer import Destination
from dicomguard.dimse.ae import make_ae

# A-ASSOCIATE-RJ, PS3.8 Table 9-21: (source, reason) → words.
_REJECTIONS = {
    (1, 1): "no reason given",
    (1, 2): "application context not supported",
    (1, 3): "our AE title is not known there",
    (1, 7): "the called AE title is not theirs",
    (2, 1): "no reason given",
    (2, 2): "protocol version not supported",
    (3, 1): "temporary congestion",
    (3, 2): "local limit exceeded",
}
_PERMANENT = 1
_LET_GO_S = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """Seconds; pynetdicom's own defaults are none for connecting, and 30 for an answer, short for a busy archive."""

    connect_s: float = 10.0
    answer_s: float = 180.0


@dataclass(frozen=True, slots=True, kw_only=True)
class NotAssociated:
    """The peer was not reached or did not want us."""

    # UNREACHED (try again), REJECTED (a person has to act) or NO_CONTEXT.
    event: Event
    sentence: str


@contextmanager
def associate(
    destination: Destination,
    contexts: Sequence[PresentationContext],
    *,
    calling_ae: str,
    timeouts: Timeouts,
    roles: Sequence[SCP_SCU_RoleSelectionNegotiation] = (),
    handlers: Sequence[EventHandlerType] = (),
) -> Iterator[Association | NotAssociated]:
    """An established association that is released at the end, or why there is none.

    `handlers` answer what the peer asks on it.
    """
    ae: ApplicationEntity = make_ae(calling_ae)
    ae.connection_timeout = ae.acse_timeout = timeouts.connect_s
    ae.dimse_timeout = ae.network_timeout = timeouts.answer_s
    try:
        association = ae.associate(
            destination.host,
            destination.port,
            contexts=list(contexts),
            ae_title=destination.ae_title,
            ext_neg=list(roles),
            evt_handlers=list(handlers),
        )
    except (socket.gaierror, UnicodeError):
        # The name is looked up before there is an association; a label beyond what IDNA takes is a UnicodeError.
        yield NotAssociated(
            event=Event.UNREACHED,
            sentence=f'The host name "{destination.host}" of {destination.ae_title} is not known to the name service. '
            "Correct the host, or look after DNS.",
        )
        return
    if not association.is_established:
        yield _refusal(association, destination)
        return
    try:
        yield association
        with bounded(association, timeouts.connect_s):
            association.release()
    finally:
        # The threads of pynetdicom are not daemons: left alone they keep the process alive.
        if association.is_established:
            association.abort()


@contextmanager
def bounded(association: Association, within_s: float) -> Iterator[None]:
    """End pynetdicom's wait for its reactor to pause, which has no end of its own, after so many seconds.

    It waits so before each message and release; a thread that has served an N-EVENT-REPORT meanwhile marks the paused
    reactor as running (pynetdicom 3.0.4, dimse.py and association.py). What follows the wait has timeouts of its own.
    """
    done = threading.Event()

    def let_go() -> None:
        late = not done.wait(within_s)
        # Again and again: the reactor, where it does run, writes it as well.
        while late and not done.wait(_LET_GO_S):
            association._is_paused = True

    threading.Thread(target=let_go, name="association-watch", daemon=True).start()
    try:
        yield
    finally:
        done.set()


def _refusal(association: Association, destination: Destination) -> NotAssociated:
    name = f"{destination.ae_title} at {destination.host}:{destination.port}"
    if association.is_rejected:
        answer = association.acceptor.primitive
        why = _REJECTIONS.get((answer.result_source, answer.diagnostic), "reason not in the standard")
        if answer.result == _PERMANENT:
            return NotAssociated(
                event=Event.REJECTED,
                sentence=f"{name} rejected the association for good: {why}. Compare the AE titles on both sides.",
            )
        return NotAssociated(
            event=Event.UNREACHED, sentence=f"{name} rejected the association for now: {why}. It is tried again."
        )
    if association.is_aborted and association.acceptor.primitive is not None:
        if association.accepted_contexts:
            # An abort right behind its acceptance, which pynetdicom's reactor saw before we could.
            return NotAssociated(
                event=Event.UNREACHED, sentence=f"{name} ended the association at once. It is tried again."
            )
        # Accepted, but none of our presentation contexts: pynetdicom aborts by itself.
        return NotAssociated(
            event=Event.NO_CONTEXT, sentence=f"{name} accepts none of the SOP classes. Ask its administrator."
        )
    return NotAssociated(
        event=Event.UNREACHED, sentence=f"{name} cannot be reached. Check the host, the port and the network."
    )
