"""How many connections there may be, and how often: in all, per address, per peer.

Newcomers win over those that stay silent. It counts and decides; what it decides to end it ends through
`Guarded.evict`.
"""

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, Protocol

from dicomguard.core import arrivals
from dicomguard.core.peer import Peer
from dicomguard.scp.shared import Tally

# Keys of what all processes count together.
_STRANGERS, _ASSOCIATED = "strangers", "associated"
# When each address may connect again; the port with TLS is counted for itself.
_PORTS = ("plain", "tls")


class Guarded(Protocol):
    """A connection as the guard sees it."""

    @property
    def address(self) -> str:
        """IP address of the peer's end."""
        ...

    def evict(self) -> None:
        """End it at once, from another thread."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Caps:
    """Most connections of each kind."""

    # Without an association yet.
    waiting: int = 64
    waiting_per_address: int = 8
    # From addresses that no peer has, together: enough to record their AE titles.
    strangers: int = 8
    associations: int = 100
    associations_per_peer: int = 20
    # New connections a second of one address, unless its peer has another number; 0: any.
    connections_per_s: float = 20.0
    # Those that came too early and wait for their turn, in all.
    held: int = 256


class _Crowd:
    """Connections by age; a newcomer takes the place of the oldest when there are too many.

    The oldest is one of this process. Where it has none the newcomer comes in all the same: so there may be one more
    than allowed for each further process.
    """

    def __init__(self, name: str, tally: Tally, *, most: int, most_per_address: int) -> None:
        self._name = name
        self._tally = tally
        self._most = most
        self._most_per_address = most_per_address
        # In order of arrival; a dict is a set that keeps it.
        self._all: dict[Guarded, None] = {}
        self._by_address: dict[str, dict[Guarded, None]] = {}

    def add(self, connection: Guarded) -> Guarded | None:
        """Returns the one that has to go for it."""
        here = self._by_address.setdefault(connection.address, {})
        gone: Guarded | None = None
        crowded_here = self._tally.add(self._key(connection)) > self._most_per_address
        crowded = self._tally.add(self._name) > self._most
        if crowded_here and here:
            gone = next(iter(here))
        elif crowded and self._all:
            gone = next(iter(self._all))
        here[connection] = None
        self._all[connection] = None
        if gone is not None:
            self.remove(gone)
        return gone

    def remove(self, connection: Guarded) -> bool:
        """True when it was there."""
        if connection not in self._all:
            return False
        del self._all[connection]
        self._tally.give(self._key(connection))
        self._tally.give(self._name)
        here = self._by_address[connection.address]
        del here[connection]
        if not here:
            del self._by_address[connection.address]
        return True

    def _key(self, connection: Guarded) -> str:
        return f"{self._name} {connection.address}"

    def __len__(self) -> int:
        return len(self._all)


class Guard:
    """Shared by all connections of a receiver process.

    Connections, and how often an address connects, are counted over all processes of the node.
    """

    def __init__(self, caps: Caps, peers: Sequence[Peer], tally: Tally | None = None) -> None:
        self._tally = tally = Tally.alone() if tally is None else tally
        self._caps = caps
        self._per_s = _rates(caps, peers)
        self._lock = threading.Lock()
        self._waiting = _Crowd("waiting", tally, most=caps.waiting, most_per_address=caps.waiting_per_address)
        # After the last word, until the peer has closed.
        self._leaving = _Crowd("leaving", tally, most=caps.waiting, most_per_address=caps.waiting_per_address)
        self._strangers: set[Guarded] = set()
        self._associated: dict[Guarded, str] = {}

    def renew(self, caps: Caps, peers: Sequence[Peer]) -> None:
        """Other bounds and peers from now on; what is open stays open and is counted as before."""
        self._caps = caps
        self._per_s = _rates(caps, peers)

    def admits(self, address: str) -> bool:
        """False when a connection from this address would be closed; asked before anything is made for it."""
        return self._per_s(address) is not None or self._tally.count(_STRANGERS) < self._caps.strangers

    def turn(self, address: str, *, secured: bool, held: int, now: float) -> float | None:
        """Seconds until a connection of this address has its turn, None when it is refused.

        Strangers have one turn for all, and do not wait. `held`: how many wait already; `now`: monotonic seconds.
        """
        per_s = self._per_s(address)
        known = per_s is not None
        rate = self._caps.connections_per_s if per_s is None else per_s
        if rate == 0.0:
            return 0.0
        longest_wait_s = arrivals.LONGEST_WAIT_S if known and held < self._caps.held // self._tally.of else 0.0
        key = f"{_PORTS[secured]} {address if known else ''}"
        with self._lock:
            turn = arrivals.arrive(self._tally.latest(key), per_s=rate, now=now, longest_wait_s=longest_wait_s)
            if turn is None:
                return None
            self._tally.note(key, turn.full_at)
            return turn.wait_s

    def enter(self, connection: Guarded) -> bool:
        """A new connection; false when it must be closed. The oldest silent one may go for it."""
        known = self._per_s(connection.address) is not None
        with self._lock:
            if not known:
                if not self._tally.take(_STRANGERS, most=self._caps.strangers):
                    return False
                self._strangers.add(connection)
                return True
            gone = self._waiting.add(connection)
        if gone is not None:
            gone.evict()
        return True

    def associate(self, connection: Guarded, peer: str) -> Literal["", "all", "peer"]:
        """It asks for an association and may have one as this peer's; else which bound is reached."""
        with self._lock:
            if not self._tally.take(_ASSOCIATED, most=self._caps.associations):
                return "all"
            if not self._tally.take(f"{_ASSOCIATED} {peer}", most=self._caps.associations_per_peer):
                self._tally.give(_ASSOCIATED)
                return "peer"
            self._waiting.remove(connection)
            self._forget_stranger(connection)
            self._associated[connection] = peer
            return ""

    def part(self, connection: Guarded) -> None:
        """Our last word is about to be said; its place is free from now on."""
        with self._lock:
            if connection in self._strangers:
                # They stay counted where they are few.
                return
            self._drop(connection)
            gone = self._leaving.add(connection)
        if gone is not None:
            gone.evict()

    def leave(self, connection: Guarded) -> None:
        """It is closed."""
        with self._lock:
            self._drop(connection)

    def _drop(self, connection: Guarded) -> None:
        self._waiting.remove(connection)
        self._leaving.remove(connection)
        self._forget_stranger(connection)
        peer = self._associated.pop(connection, None)
        if peer is not None:
            self._tally.give(f"{_ASSOCIATED} {peer}")
            self._tally.give(_ASSOCIATED)

    def _forget_stranger(self, connection: Guarded) -> None:
        if connection in self._strangers:
            self._strangers.remove(connection)
            self._tally.give(_STRANGERS)

    def by_peer(self) -> Counter[str]:
        """Associations of this process by configured name."""
        with self._lock:
            return Counter(self._associated.values())

    @property
    def counts(self) -> tuple[int, int]:
        """Connections without an association, and associations."""
        with self._lock:
            return len(self._waiting) + len(self._leaving) + len(self._strangers), len(self._associated)


def _rates(caps: Caps, peers: Sequence[Peer]) -> Callable[[str], float | None]:
    """By address."""
    return lru_cache(4096)(lambda address: _connections_per_s(address, peers, caps.connections_per_s))


def _connections_per_s(address: str, peers: Sequence[Peer], usual: float) -> float | None:
    """What the most generous of the peers at an address has; 0.0: any number; None: it is no peer's."""
    rates = [
        usual if peer.connections_per_s is None else peer.connections_per_s for peer in peers if peer.allows(address)
    ]
    if not rates:
        return None
    return 0.0 if 0.0 in rates else max(rates)
