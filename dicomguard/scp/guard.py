"""How many connections there may be: in all, per address, per peer. Newcomers win over those that stay silent.

It counts and decides; what it decides to end it ends through `Guarded.evict`.
"""

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, Protocol

from dicomguard.core.peer import Peer


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


class _Crowd:
    """Connections by age; a newcomer takes the place of the oldest when there are too many."""

    def __init__(self, *, most: int, most_per_address: int) -> None:
        self._most = most
        self._most_per_address = most_per_address
        # In order of arrival; a dict is a set that keeps it.
        self._all: dict[Guarded, None] = {}
        self._by_address: dict[str, dict[Guarded, None]] = {}

    def add(self, connection: Guarded) -> Guarded | None:
        """Returns the one that has to go for it."""
        here = self._by_address.setdefault(connection.address, {})
        gone: Guarded | None = None
        if len(here) >= self._most_per_address:
            gone = next(iter(here))
        elif len(self._all) >= self._most:
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
        here = self._by_address[connection.address]
        del here[connection]
        if not here:
            del self._by_address[connection.address]
        return True

    def __len__(self) -> int:
        return len(self._all)


class Guard:
    """Shared by all connections of a receiver."""

    def __init__(self, caps: Caps, peers: Sequence[Peer]) -> None:
        self._caps = caps
        self._knows: Callable[[str], bool] = lru_cache(4096)(
            lambda address: any(peer.allows(address) for peer in peers)
        )
        self._lock = threading.Lock()
        self._waiting = _Crowd(most=caps.waiting, most_per_address=caps.waiting_per_address)
        # After the last word, until the peer has closed.
        self._leaving = _Crowd(most=caps.waiting, most_per_address=caps.waiting_per_address)
        self._strangers: set[Guarded] = set()
        self._associated: dict[Guarded, str] = {}
        self._per_peer: Counter[str] = Counter()

    def admits(self, address: str) -> bool:
        """False when a connection from this address would be closed; asked before anything is made for it."""
        return self._knows(address) or len(self._strangers) < self._caps.strangers

    def enter(self, connection: Guarded) -> bool:
        """A new connection; false when it must be closed. The oldest silent one may go for it."""
        known = self._knows(connection.address)
        with self._lock:
            if not known:
                if len(self._strangers) >= self._caps.strangers:
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
            if len(self._associated) >= self._caps.associations:
                return "all"
            if self._per_peer[peer] >= self._caps.associations_per_peer:
                return "peer"
            self._waiting.remove(connection)
            self._strangers.discard(connection)
            self._associated[connection] = peer
            self._per_peer[peer] += 1
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
        self._strangers.discard(connection)
        peer = self._associated.pop(connection, None)
        if peer is not None:
            self._per_peer[peer] -= 1

    @property
    def counts(self) -> tuple[int, int]:
        """Connections without an association, and associations."""
        with self._lock:
            return len(self._waiting) + len(self._leaving) + len(self._strangers), len(self._associated)
