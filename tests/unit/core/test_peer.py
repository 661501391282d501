"""Peers: what an AE title and an address may be."""

import pytest

from dicomguard.core.peer import Destination, Peer, check_ae_title
from dicomguard.errors import Refused


def test_padding_of_a_title_is_not_part_of_it() -> None:
    assert check_ae_title("  CT01 ", where="x") == "CT01"


@pytest.mark.parametrize(
    ("title", "sentence"),
    [("", "is empty"), ("A" * 17, "17 characters"), ("A\\B", "backslash"), ("CT\n1", "backslash")],
)
def test_an_impossible_title_is_refused(title: str, sentence: str) -> None:
    with pytest.raises(Refused, match=sentence):
        check_ae_title(title, where="peers.x")


@pytest.mark.parametrize(
    ("network", "address", "allowed"),
    [
        ("192.0.2.0/24", "192.0.2.77", True),
        ("192.0.2.0/24", "192.0.3.1", False),
        ("192.0.2.7", "192.0.2.7", True),
        ("192.0.2.7", "::ffff:192.0.2.7", True),
        ("2001:db8::/32", "2001:db8::1", True),
        ("2001:db8::/32", "192.0.2.7", False),
    ],
)
def test_addresses(network: str, address: str, allowed: bool) -> None:
    assert Peer(name="p", ae_title="P", networks=(network,)).allows(address) is allowed


def test_a_port_has_to_exist() -> None:
    with pytest.raises(Refused, match="Port 0"):
        Destination(name="d", ae_title="D", host="h", port=0)
