"""May this AE associate with us: calling AE title, called AE title, address and certificate, judged together.

Deny by default (answers of PS3.8 9.3.4). An AE title is a claim that anybody can make, so it counts only from an
address that its peer has, and with the key that its peer has. This module judges; it opens nothing and writes nothing
down.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from dicomguard.core.peer import Peer

# Result and source of PS3.8 Table 9-21.
_PERMANENT, _TRANSIENT = 1, 2
_USER, _PRESENTATION = 1, 3
_NO_REASON_GIVEN, _CALLING_UNKNOWN, _CALLED_UNKNOWN = 1, 3, 7
_TEMPORARY_CONGESTION, _LOCAL_LIMIT = 1, 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is known of an association request before it is answered."""

    calling_ae: str
    called_ae: str
    # IP address of the peer's end.
    address: str
    # Whether it proposes more than C-ECHO.
    stores: bool
    # SHA-256 of the public key of the certificate it came with; None without TLS.
    key_sha256: str | None = None


@dataclass(frozen=True, slots=True)
class Accept:
    """The association may come about, as this peer's."""

    peer: Peer


@dataclass(frozen=True, slots=True, kw_only=True)
class Reject:
    """It may not. The peer gets the three numbers of A-ASSOCIATE-RJ; the sentence stays here."""

    reason: str
    result: int
    source: int
    diagnostic: int


def decide(request: Request, *, ae_title: str, peers: Sequence[Peer], congested: bool) -> Accept | Reject:
    """Judge one request. `congested`: nothing can be stored now; C-ECHO is still answered, so that monitors see us."""
    calling, called = request.calling_ae.strip(" \0"), request.called_ae.strip(" \0")
    named = [peer for peer in peers if peer.ae_title == calling]
    if not named:
        return Reject(
            reason=f"the calling AE title is no peer's{_hint(calling, peers)}",
            result=_PERMANENT,
            source=_USER,
            diagnostic=_CALLING_UNKNOWN,
        )
    here = [peer for peer in named if peer.allows(request.address)]
    if not here:
        # No hint for the caller: it may be somebody who guesses titles.
        return Reject(
            reason="the address is not one of the peer's", result=_PERMANENT, source=_USER, diagnostic=_NO_REASON_GIVEN
        )
    bound = [peer for peer in here if peer.has_key(request.key_sha256)]
    if not bound:
        return Reject(
            reason=_key_reason(here[0], request.key_sha256),
            result=_PERMANENT,
            source=_USER,
            diagnostic=_NO_REASON_GIVEN,
        )
    if called != ae_title:
        return Reject(
            reason="the called AE title is not ours", result=_PERMANENT, source=_USER, diagnostic=_CALLED_UNKNOWN
        )
    if congested and request.stores:
        return Reject(
            reason="the store has no room", result=_TRANSIENT, source=_PRESENTATION, diagnostic=_TEMPORARY_CONGESTION
        )
    return Accept(bound[0])


def _key_reason(peer: Peer, key_sha256: str | None) -> str:
    if key_sha256 is None:
        return "the peer has a certificate and must come by TLS"
    which = "is not the peer's" if peer.key_sha256 else "is named for no peer"
    return f"the certificate {which}; add it to key_sha256 if it is right: {key_sha256}"


def _hint(calling: str, peers: Sequence[Peer]) -> str:
    close = [peer.name for peer in peers if peer.ae_title.upper() == calling.upper()]
    return f"; it differs from peer {close[0]} only in case" if close else ""


# Answers when all places are taken (PS3.8 Table 9-21: local limit exceeded).
LIMIT_REACHED = Reject(
    reason="all associations are in use", result=_TRANSIENT, source=_PRESENTATION, diagnostic=_LOCAL_LIMIT
)
PEER_LIMIT_REACHED = Reject(
    reason="all associations of this peer are in use",
    result=_TRANSIENT,
    source=_PRESENTATION,
    diagnostic=_LOCAL_LIMIT,
)
