"""A-ASSOCIATE-RQ, -AC and -RJ (PS3.8 9.3.2 to 9.3.4) with pynetdicom's codecs, and what is negotiated in them."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from pydicom.uid import UID
from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RJ, A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    ImplementationClassUIDNotification,
    ImplementationVersionNameNotification,
    MaximumLengthNotification,
    SCP_SCU_RoleSelectionNegotiation,
)
from pynetdicom.presentation import PresentationContext, build_context, negotiate_as_acceptor

from dicomguard.core.uid import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from dicomguard.dimse import contexts
from dicomguard.scp import pdu
from dicomguard.scp.pdu import Fault

# PS3.7 Annex A.2.1.
_APPLICATION_CONTEXT = UID("1.2.840.10008.3.1.1.1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """A presentation context that was accepted."""

    id: int
    abstract_syntax: str
    transfer_syntax: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """What an A-ASSOCIATE-RQ asks for."""

    calling_ae: str
    called_ae: str
    primitive: A_ASSOCIATE

    @property
    def stores(self) -> bool:
        """Whether it proposes what takes room: more than C-ECHO and storage commitment."""
        roomless = (contexts.VERIFICATION, contexts.STORAGE_COMMITMENT)
        return any(cx.abstract_syntax not in roomless for cx in _proposed(self.primitive))


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """The answer, and what both sides keep to."""

    answer: bytes
    accepted: Mapping[int, Context]
    # Longest P-DATA-TF that the peer takes, 0 for any.
    peer_max_pdu_bytes: int


def read(body: memoryview) -> Proposal:
    """Decode the body of an A-ASSOCIATE-RQ; raises `Fault` when it is none."""
    pdu.check_items(body)
    whole = bytes((pdu.ASSOCIATE_RQ, 0)) + len(body).to_bytes(4, "big") + bytes(body)
    request = A_ASSOCIATE_RQ()
    try:
        request.decode(whole)
        primitive = request.to_primitive()
        # Read here, so that what is missing is found here.
        calling, called = str(primitive.calling_ae_title), str(primitive.called_ae_title)
        proposed = _proposed(primitive)
        complete = all(cx.abstract_syntax and cx.transfer_syntax for cx in proposed)
        _ = primitive.maximum_length_received, primitive.user_information
    except Exception as error:  # noqa: BLE001 -- a stranger's bytes in a decoder that raises whatever it stumbles over
        raise Fault(f"The A-ASSOCIATE-RQ cannot be decoded ({type(error).__name__}).") from None
    if not complete:
        raise Fault("A presentation context of the A-ASSOCIATE-RQ lacks a syntax.")
    return Proposal(calling_ae=calling.strip(" \0"), called_ae=called.strip(" \0"), primitive=primitive)


def _proposed(primitive: A_ASSOCIATE) -> list[PresentationContext]:
    """The first context of each id: a second one under the same id could not be told from it."""
    first: dict[int, PresentationContext] = {}
    for context in primitive.presentation_context_definition_list:
        first.setdefault(context.context_id, context)
    return list(first.values())


@cache
def _supported() -> dict[str, PresentationContext]:
    taken = [build_context(sop_class, list(contexts.TRANSFER_SYNTAXES)) for sop_class in contexts.STORAGE_CLASSES]
    taken.append(build_context(contexts.VERIFICATION, list(contexts.TRANSFER_SYNTAXES[:2])))
    committing = build_context(contexts.STORAGE_COMMITMENT, list(contexts.TRANSFER_SYNTAXES[:2]))
    # A peer asks as SCU; a destination that reports to us proposes itself as SCP (PS3.4 J.3.3).
    committing.scu_role = committing.scp_role = True
    taken.append(committing)
    return {str(context.abstract_syntax): context for context in taken}


def accept(proposal: Proposal, *, max_pdu_bytes: int) -> Agreement:
    """Take what we know of the proposal, each context in the first of our syntaxes that it offers; raises `Fault`."""
    try:
        return _accept(proposal, max_pdu_bytes=max_pdu_bytes)
    except Exception as error:  # noqa: BLE001 -- as above: it was decoded, yet may not be encoded again
        raise Fault(f"The A-ASSOCIATE-RQ cannot be answered ({type(error).__name__}).") from None


def _accept(proposal: Proposal, *, max_pdu_bytes: int) -> Agreement:
    primitive = proposal.primitive
    proposed = _proposed(primitive)
    ours = [_supported()[uid] for uid in {str(cx.abstract_syntax) for cx in proposed} if uid in _supported()]
    roles = {
        item.sop_class_uid: (item.scu_role, item.scp_role)
        for item in primitive.user_information
        if isinstance(item, SCP_SCU_RoleSelectionNegotiation)
    }
    results, role_items = negotiate_as_acceptor(proposed, ours, roles)
    answer = A_ASSOCIATE()
    answer.application_context_name = _APPLICATION_CONTEXT
    answer.calling_ae_title = primitive.calling_ae_title
    answer.called_ae_title = primitive.called_ae_title
    answer.result, answer.result_source = 0x00, 0x01
    answer.presentation_context_definition_results_list = results
    answer.user_information = [*_user_information(max_pdu_bytes), *role_items]
    encoded = A_ASSOCIATE_AC()
    encoded.from_primitive(answer)
    accepted = {
        int(cx.context_id): Context(
            id=int(cx.context_id), abstract_syntax=str(cx.abstract_syntax), transfer_syntax=str(cx.transfer_syntax[0])
        )
        for cx in results
        if cx.result == 0x00
    }
    return Agreement(
        answer=bytes(encoded.encode()),
        accepted=accepted,
        peer_max_pdu_bytes=int(primitive.maximum_length_received or 0),
    )


def _user_information(max_pdu_bytes: int) -> list[object]:
    """PS3.7 Annex D.3.3; asynchronous operations are not offered, so one message is under way at a time."""
    length = MaximumLengthNotification()
    length.maximum_length_received = max_pdu_bytes
    implementation = ImplementationClassUIDNotification()
    implementation.implementation_class_uid = UID(IMPLEMENTATION_CLASS_UID)
    version = ImplementationVersionNameNotification()
    version.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    return [length, implementation, version]


def reject(result: int, source: int, diagnostic: int) -> bytes:
    """A-ASSOCIATE-RJ (PS3.8 9.3.4)."""
    answer = A_ASSOCIATE()
    answer.result, answer.result_source, answer.diagnostic = result, source, diagnostic
    encoded = A_ASSOCIATE_RJ()
    encoded.from_primitive(answer)
    return bytes(encoded.encode())
