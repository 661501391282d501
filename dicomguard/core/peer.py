"""AEs that may send to us, and AEs that we send to."""

import ipaddress
import re
from dataclasses import dataclass

from dicomguard.core.urgency import Policy
from dicomguard.errors import Refused

_SHA256 = re.compile(r"[0-9a-f]{64}")
_DAY_S = 86400
# What a peer may have for itself: least and most.
_RANGES = {
    "idle_s": (1, _DAY_S),
    "connections_per_s": (0, 10000),
    "quiet_s": (0.1, _DAY_S),
    "quiet_released_s": (0.1, _DAY_S),
    "longest_s": (1, 7 * _DAY_S),
    "assoc_hold_s": (0, _DAY_S),
}


def check_ae_title(title: str, *, where: str) -> str:
    """Return the title without padding, or raise `Refused` (PS3.5 6.2: 1 to 16 characters, no backslash or control)."""
    bare = title.strip(" ")
    if not bare:
        raise Refused(f"The AE title of [{where}] is empty. Give it 1 to 16 characters.")
    if len(bare) > 16:
        raise Refused(f'AE title "{bare}" has {len(bare)} characters; PS3.5 allows 16. Shorten it in [{where}].')
    if "\\" in bare or any(not 32 <= ord(character) <= 126 for character in bare):
        raise Refused(f"AE title {bare!r} has a backslash or a character outside ASCII. Change it in [{where}].")
    return bare


def _bare(key: str) -> str:
    return key.replace(":", "").lower()


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """An AE that may open an association: title and address are checked together."""

    name: str
    ae_title: str
    # Networks or single addresses; never empty.
    networks: tuple[str, ...]
    # SHA-256 of the public keys of its certificates, in hex; with one the peer has to come by TLS.
    key_sha256: tuple[str, ...] = ()
    # Seconds between two messages; None for the receiver's own.
    idle_s: float | None = None
    # New connections a second of each of its addresses, 0 for any number; None for the receiver's own.
    connections_per_s: float | None = None
    # When a study of its is complete; None for what [completion] says.
    quiet_s: float | None = None
    quiet_released_s: float | None = None
    longest_s: float | None = None
    assoc_hold_s: float | None = None
    # Whether its studies go before others.
    urgent: Policy = "asked"

    def __post_init__(self) -> None:
        # Padding is not significant (PS3.5 6.2), and what a request brings is compared without it.
        object.__setattr__(self, "ae_title", check_ae_title(self.ae_title, where=f"peers.{self.name}"))
        for key in self.key_sha256:
            if not _SHA256.fullmatch(_bare(key)):
                raise Refused(
                    f'"{key}" is no SHA-256 in hex. Write the 64 digits of the public key\'s hash '
                    f"in key_sha256 of [peers.{self.name}]."
                )
        for key, (least, most) in _RANGES.items():
            value = getattr(self, key)
            if value is not None and not least <= value <= most:
                raise Refused(f"{key} = {value:g} of [peers.{self.name}] is impossible. Use {least:g} to {most:g}.")
        for network in self.networks:
            try:
                ipaddress.ip_network(network, strict=False)
            except ValueError:
                raise Refused(
                    f'"{network}" is no IP address or network. '
                    f"Write for example 192.0.2.7 or 192.0.2.0/24 in [peers.{self.name}]."
                ) from None
        if not self.networks:
            raise Refused(f'[peers.{self.name}] names no address. Add addresses = ["192.0.2.7"].')

    def has_key(self, sha256: str | None) -> bool:
        """Whether a certificate with this public key is its own; None is a connection without TLS."""
        if sha256 is None:
            return not self.key_sha256
        return sha256 in [_bare(key) for key in self.key_sha256]

    def allows(self, address: str) -> bool:
        """Whether the IP address lies in one of the networks."""
        ip = ipaddress.ip_address(address)
        if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
            ip = ip.ipv4_mapped
        return any(ip in ipaddress.ip_network(network, strict=False) for network in self.networks)


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination:
    """An AE that results are sent to."""

    name: str
    ae_title: str
    host: str
    port: int
    # Ask it for storage commitment of what was sent.
    commitment: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "ae_title", check_ae_title(self.ae_title, where=f"destinations.{self.name}"))
        if not 1 <= self.port <= 65535:
            raise Refused(f"Port {self.port} of [destinations.{self.name}] is impossible. Use 1 to 65535.")
