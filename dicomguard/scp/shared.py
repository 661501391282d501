"""What the receiver processes of a node share: the listening sockets, how many connections there are, and how often.

Whoever starts them makes both and hands them on as descriptors. Sockets are bound there and listen once the first
receiver has replayed the log. A connection goes to the process that has waited longest for one (accept(2) wakes one
waiter, in turn), and one that waits outlives a process that dies.
"""

import json
import mmap
import os
import socket
import threading
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Self

from dicomguard.config import LOOPBACK, Config
from dicomguard.errors import Unavailable

# Cells of one process, each of the keys that hash to it: times first, for their alignment, then counts.
_CELLS = 8192
_TIMES_BYTES = 8 * _CELLS
_REGION_BYTES = _TIMES_BYTES + 2 * _CELLS
# One process does not fill more than two processors with anything but Python, and senders want one, too.
_MOST_BY_ITSELF = 2


def processes(config: Config) -> int:
    """How many receiver processes a node runs."""
    return config.receive.processes or min(_MOST_BY_ITSELF, len(os.sched_getaffinity(0)))


class Tally:
    """Connections of all receiver processes by key; each process writes in its own region and reads all."""

    def __init__(self, memory: memoryview, *, number: int) -> None:
        """`memory`: one region for each process; the one of `number` (from 0) is ours."""
        regions = [memory[at : at + _REGION_BYTES] for at in range(0, len(memory), _REGION_BYTES)]
        self._regions = [region[_TIMES_BYTES:].cast("H") for region in regions]
        self._mine = self._regions[number]
        self._times = [region[:_TIMES_BYTES].cast("d") for region in regions]
        self._my_times = self._times[number]
        self._lock = threading.Lock()
        # How many processes share it.
        self.of = len(self._regions)

    @classmethod
    def alone(cls) -> Self:
        """Of a process that shares with nobody."""
        return cls(memoryview(bytearray(_REGION_BYTES)), number=0)

    def take(self, key: str, *, most: int) -> bool:
        """One more under this key, unless there are as many already.

        It is counted before it is judged: two processes that take the last one at the same moment may both be refused,
        and never both have it.
        """
        if self.add(key) <= most:
            return True
        self.give(key)
        return False

    def add(self, key: str) -> int:
        """One more of ours; returns how many there are now."""
        with self._lock:
            self._mine[_cell(key)] += 1
        return self.count(key)

    def count(self, key: str) -> int:
        """Of all processes."""
        cell = _cell(key)
        return sum(region[cell] for region in self._regions)

    def give(self, key: str) -> None:
        """One less of ours."""
        with self._lock:
            self._mine[_cell(key)] -= 1

    def latest(self, key: str) -> float:
        """The latest time that a process has noted under this key, in monotonic seconds of the machine; else 0.0."""
        return min(max(times[cell] for times in self._times) for cell in _two_cells(key))

    def note(self, key: str, at: float) -> None:
        """Two processes that note after the same look may not know of each other, and the later time counts."""
        with self._lock:
            for cell in _two_cells(key):
                self._my_times[cell] = max(self._my_times[cell], at)


def _cell(key: str) -> int:
    # Two keys in one cell are counted too strictly, and that is all.
    return zlib.crc32(key.encode()) % _CELLS


def _two_cells(key: str) -> tuple[int, int]:
    # A key that is busy for hours must not shut out the one that shares its cell: only both together would.
    code = zlib.crc32(key.encode())
    return code % _CELLS, code // _CELLS % _CELLS


@dataclass(frozen=True, slots=True, kw_only=True)
class Inherited:
    """What one receiver process is given: its number (from 0), and descriptors."""

    number: int
    tally: int
    # By kind, "node" and "tls".
    ports: Mapping[str, int]

    def to_text(self) -> str:
        """For the command line."""
        return json.dumps(asdict(self))

    @classmethod
    def of_text(cls, text: str) -> Self:
        """What `to_text` wrote."""
        return cls(**json.loads(text))

    def open_tally(self) -> Tally:
        """The table."""
        size = os.fstat(self.tally).st_size
        return Tally(memoryview(mmap.mmap(self.tally, size)), number=self.number)

    def listeners(self) -> dict[str, socket.socket]:
        """The bound sockets by kind, "node" and "tls"."""
        return {kind: socket.socket(fileno=descriptor) for kind, descriptor in self.ports.items()}


class Shared:
    """The side of who starts the processes."""

    def __init__(self, config: Config) -> None:
        """Raises `Unavailable` when a port cannot be had."""
        self._count = processes(config)
        self._sockets = bind_all(config)
        self._tally = os.memfd_create("dicomguard-connections", os.MFD_CLOEXEC)
        os.ftruncate(self._tally, self._count * _REGION_BYTES)

    def argument(self, number: int) -> str:
        """For the process of this number."""
        ports = {kind: bound.fileno() for kind, bound in self._sockets.items()}
        return Inherited(number=number, tally=self._tally, ports=ports).to_text()

    @property
    def descriptors(self) -> list[int]:
        """What a child has to inherit."""
        return [self._tally, *(bound.fileno() for bound in self._sockets.values())]

    def forget(self, number: int) -> None:
        """The process of this number is dead, and its associations with it."""
        os.pwrite(self._tally, bytes(_REGION_BYTES), number * _REGION_BYTES)

    def close(self) -> None:
        """Our descriptors; the children have their own."""
        for bound in self._sockets.values():
            bound.close()
        os.close(self._tally)


def bind_all(config: Config) -> dict[str, socket.socket]:
    """The ports of the configuration, bound and not listening yet. Raises `Unavailable`."""
    host = config.node.host if config.peers or config.node.host in LOOPBACK else LOOPBACK[0]
    wanted = {"node": config.node.port} | ({"tls": config.tls.port} if config.tls.port else {})
    bound: dict[str, socket.socket] = {}
    for kind, port in wanted.items():
        made = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
        bound[kind] = made
        try:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            made.bind((host, port))
        except OSError as error:
            for one in bound.values():
                one.close()
            raise taken(error, host, port, kind) from error
    return bound


def taken(error: OSError, host: str, port: int, kind: str) -> Unavailable:
    """The sentence for a port that is not to be had."""
    return Unavailable(f"Port {port} on {host} cannot be opened ({error.strerror}). Choose another in [{kind}].")
