import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicomguard.core.admission import Accept, Reject, Request, decide
from dicomguard.core.peer import Peer

PEERS = (
    Peer(name="ct", ae_title="CT1", networks=("192.0.2.7",)),
    Peer(name="mr", ae_title="MR1", networks=("198.51.100.0/24", "2001:db8::/32")),
    # Two devices of one title, told apart by their address.
    Peer(name="ct-annex", ae_title="CT1", networks=("203.0.113.0/24",)),
)


def request(calling: str, called: str, address: str, *, stores: bool = True) -> Request:
    return Request(calling_ae=calling, called_ae=called, address=address, stores=stores)


@pytest.mark.parametrize(
    ("calling", "called", "address", "peer"),
    [
        ("CT1", "NODE", "192.0.2.7", "ct"),
        # Padding of PS3.5 6.2 means nothing.
        ("CT1 ", " NODE", "192.0.2.7", "ct"),
        ("CT1\0", "NODE\0", "192.0.2.7", "ct"),
        ("CT1", "NODE", "203.0.113.9", "ct-annex"),
        ("MR1", "NODE", "198.51.100.200", "mr"),
        ("MR1", "NODE", "2001:db8::1", "mr"),
        # IPv4 on an IPv6 socket.
        ("CT1", "NODE", "::ffff:192.0.2.7", "ct"),
    ],
)
def test_accepted(calling: str, called: str, address: str, peer: str) -> None:
    decision = decide(request(calling, called, address), ae_title="NODE", peers=PEERS, congested=False)
    assert isinstance(decision, Accept)
    assert decision.peer.name == peer


@pytest.mark.parametrize(
    ("calling", "called", "address", "answer", "reason"),
    [
        ("STRANGER", "NODE", "192.0.2.7", (1, 1, 3), "no peer's"),
        ("ct1", "NODE", "192.0.2.7", (1, 1, 3), "differs from peer ct only in case"),
        ("", "NODE", "192.0.2.7", (1, 1, 3), "no peer's"),
        ("CT1", "OTHER", "192.0.2.7", (1, 1, 7), "not ours"),
        ("CT1", "node", "192.0.2.7", (1, 1, 7), "not ours"),
        # Right titles from a wrong place: the caller learns nothing.
        ("CT1", "NODE", "198.51.100.1", (1, 1, 1), "address"),
        ("CT1", "OTHER", "198.51.100.1", (1, 1, 1), "address"),
    ],
)
def test_rejected(calling: str, called: str, address: str, answer: tuple[int, int, int], reason: str) -> None:
    decision = decide(request(calling, called, address), ae_title="NODE", peers=PEERS, congested=False)
    assert isinstance(decision, Reject)
    assert (decision.result, decision.source, decision.diagnostic) == answer
    assert reason in decision.reason


def test_without_peers_nobody_associates() -> None:
    decision = decide(request("CT1", "NODE", "127.0.0.1"), ae_title="NODE", peers=(), congested=False)
    assert isinstance(decision, Reject)


@pytest.mark.parametrize(("stores", "accepted"), [(True, False), (False, True)])
def test_without_room_only_an_echo_is_let_in(stores: bool, accepted: bool) -> None:
    asked = request("CT1", "NODE", "192.0.2.7", stores=stores)
    decision = decide(asked, ae_title="NODE", peers=PEERS, congested=True)
    assert isinstance(decision, Accept) == accepted
    if isinstance(decision, Reject):
        # Transient, presentation related, temporary congestion: the sender comes again.
        assert (decision.result, decision.source, decision.diagnostic) == (2, 3, 1)


def test_a_stranger_is_not_told_that_there_is_no_room() -> None:
    decision = decide(request("STRANGER", "NODE", "192.0.2.7"), ae_title="NODE", peers=PEERS, congested=True)
    assert isinstance(decision, Reject)
    assert decision.result == 1


@given(st.text(max_size=20), st.text(max_size=20), st.ip_addresses(), st.booleans())
def test_only_a_peer_from_its_own_network_is_ever_accepted(
    calling: str, called: str, address: object, congested: bool
) -> None:
    decision = decide(request(calling, called, str(address)), ae_title="NODE", peers=PEERS, congested=congested)
    if isinstance(decision, Accept):
        assert decision.peer.ae_title == calling.strip(" \0")
        assert called.strip(" \0") == "NODE"
        assert decision.peer.allows(str(address))


KEY, OTHER = "ab" * 32, "cd" * 32
BOUND = (
    # Colons and capitals as some programs print them.
    Peer(name="ct", ae_title="CT1", networks=("192.0.2.7",), key_sha256=(":".join(["AB"] * 32),)),
    Peer(name="mr", ae_title="MR1", networks=("192.0.2.7",)),
)


@pytest.mark.parametrize(
    ("calling", "key", "sentence"),
    [
        ("CT1", KEY, ""),
        ("MR1", None, ""),
        ("CT1", None, "must come by TLS"),
        ("CT1", OTHER, f"is not the peer's; add it to key_sha256 if it is right: {OTHER}"),
        ("MR1", KEY, "is named for no peer"),
    ],
)
def test_a_certificate_counts_with_title_and_address(calling: str, key: str | None, sentence: str) -> None:
    asked = Request(calling_ae=calling, called_ae="NODE", address="192.0.2.7", stores=True, key_sha256=key)
    decision = decide(asked, ae_title="NODE", peers=BOUND, congested=False)
    if sentence == "":
        assert isinstance(decision, Accept)
    else:
        assert isinstance(decision, Reject)
        assert sentence in decision.reason
        # Without a hint for who tries.
        assert (decision.result, decision.source, decision.diagnostic) == (1, 1, 1)
