"""Bad peers by the hundred in a process of their own, and the two good ones that are measured meanwhile.

`python -m tests.attackers PORT TLS_PORT` attacks until it is ended. Attackers come from other loopback addresses than
the good peers; some of these addresses are peers', some nobody's.
"""

import asyncio
import contextlib
import json
import multiprocessing
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.fuzz import wire
from tests.instances import MR, ROOT, part10_bytes
from tests.peers import end

PEERS = {
    "good": ("CT1", "127.0.0.1"),
    "drips": ("DRIPS", "127.0.0.8"),
    "floods": ("FLOODS", "127.0.0.9"),
    "silent": ("SILENT", "127.0.0.10"),
}
STRANGER = "127.0.0.66"
_FORK = multiprocessing.get_context("fork")


@dataclass(frozen=True)
class Attack:
    """How many of each."""

    silent: int = 300
    drips: int = 50
    headers: int = 4
    rate: int = 200
    silent_tls: int = 12


def _request(title: str) -> bytes:
    return wire.associate_rq([(MR, wire.EXPLICIT), (wire.VERIFICATION, wire.IMPLICIT)], calling=title)


class _Attackers:
    """All attackers of one process."""

    def __init__(self, port: int, tls_port: int) -> None:
        self._port = port
        self._tls_port = tls_port
        self.counts: Counter[str] = Counter()

    async def _open(self, address: str, *, port: int = 0) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", port or self._port, local_addr=(address, 0))

    async def _again(self, name: str, attack: Coroutine[None, None, None]) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await attack
        self.counts[name] += 1

    async def silent(self, address: str, *, port: int = 0) -> None:
        """Connects, says nothing, and comes back when it is cut."""
        while True:
            await self._again("silent cut", self._silent(address, port))
            await asyncio.sleep(1.0)

    async def _silent(self, address: str, port: int) -> None:
        reader, writer = await self._open(address, port=port)
        await reader.read(64)
        writer.close()

    async def drip(self, *, associated: bool) -> None:
        """Brings a PDU byte by byte: the request for an association, or a dataset in one."""
        while True:
            await self._again("drip cut", self._drip(associated=associated))
            await asyncio.sleep(1.0)

    async def _drip(self, *, associated: bool) -> None:
        reader, writer = await self._open("127.0.0.8")
        slow = _request("DRIPS")
        if associated:
            writer.write(slow)
            await reader.readexactly(6)
            slow = wire.c_store_rq(bytes(4000), sop_class=MR, sop_instance="1.2.3")[-1]
        ended = asyncio.ensure_future(_to_the_end(reader))
        for at in range(len(slow)):
            writer.write(slow[at : at + 1])
            await writer.drain()
            await asyncio.sleep(0.2)
            if ended.done():
                break
        writer.close()

    async def header(self) -> None:
        """A PDU of four gigabytes, before or after the association, and bytes for it as fast as they are taken."""
        while True:
            await self._again("header cut", self._header(associated=bool(self.counts["header cut"] % 2)))
            await asyncio.sleep(0.2)

    async def _header(self, *, associated: bool) -> None:
        reader, writer = await self._open("127.0.0.9")
        if associated:
            writer.write(_request("FLOODS"))
            await reader.readexactly(6)
        writer.write(bytes((4 if associated else 1, 0)) + b"\xff\xff\xff\xff")
        ended = asyncio.ensure_future(_to_the_end(reader))
        while not ended.done():
            writer.write(bytes(1 << 16))
            await writer.drain()
        writer.close()

    async def flood(self, rate: int) -> None:
        """Associates and releases so many times a second, not waiting for one before the next."""
        began, number = time.monotonic(), 0
        running: set[asyncio.Task[None]] = set()
        while True:
            number += 1
            await asyncio.sleep(max(0.0, began + number / rate - time.monotonic()))
            if len(running) < rate:
                task = asyncio.ensure_future(self._again("associations", self._associate()))
                running.add(task)
                task.add_done_callback(running.discard)

    async def _associate(self) -> None:
        reader, writer = await self._open("127.0.0.9")
        writer.write(_request("FLOODS"))
        kind = (await reader.readexactly(1))[0]
        self.counts[f"answer {kind}"] += 1
        writer.write(wire.release_rq())
        await reader.read()
        writer.close()


async def _to_the_end(reader: asyncio.StreamReader) -> None:
    with contextlib.suppress(OSError):
        await reader.read()


async def _attack(port: int, tls_port: int, attack: Attack) -> None:
    attackers = _Attackers(port, tls_port)
    addresses = ("127.0.0.10", STRANGER)
    tasks = [attackers.silent(addresses[number % 2]) for number in range(attack.silent)]
    tasks += [attackers.drip(associated=number % 2 == 0) for number in range(attack.drips)]
    tasks += [attackers.header() for _ in range(attack.headers)]
    tasks += [attackers.silent("127.0.0.10", port=tls_port) for _ in range(attack.silent_tls)]
    if attack.rate:
        tasks.append(attackers.flood(attack.rate))
    running = [asyncio.ensure_future(task) for task in tasks]
    began = time.monotonic()
    while True:
        await asyncio.sleep(0.5)
        for task in running:
            if task.done():
                task.result()
        said = {"seconds": round(time.monotonic() - began, 1), **attackers.counts}
        print(json.dumps(said), flush=True)


@dataclass
class Running:
    """An attack under way."""

    process: subprocess.Popen[str]
    # What the attackers counted, once it is over.
    counts: dict[str, float] = field(default_factory=dict)

    @property
    def cpu_s(self) -> float:
        """Seconds of a processor that the attackers have taken so far; their victim lacks these, too."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def attacked(port: int, tls_port: int, attack: Attack) -> Iterator[Running]:
    """Attack for as long as the block runs."""
    numbers = (attack.silent, attack.drips, attack.headers, attack.rate, attack.silent_tls)
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.attackers", str(port), str(tls_port), *map(str, numbers)],
        stdout=subprocess.PIPE,
        text=True,
    )
    running = Running(process)
    assert process.stdout is not None
    try:
        assert process.stdout.readline(), "the attackers did not start"
        yield running
        assert process.poll() is None, "the attackers ended"
    finally:
        end(process)
        lines = process.stdout.read().splitlines()
        process.stdout.close()
        if lines:
            running.counts = json.loads(lines[-1])


@dataclass(frozen=True)
class Measured:
    """What the good peers saw."""

    echoes: list[float]
    images: int
    seconds: float

    @property
    def echo_p99_s(self) -> float:
        """Seconds of an association with a C-ECHO."""
        return sorted(self.echoes)[int(0.99 * len(self.echoes))]

    @property
    def rate(self) -> float:
        """Images a second."""
        return self.images / self.seconds


def good_peers(port: int, *, seconds: float, run: int, called: str = "DICOMGUARD", pause_s: float = 0.02) -> Measured:
    """One peer that echoes on a new association each time, one that stores on one; both in processes of their own."""
    queue = _FORK.SimpleQueue()
    echo = _FORK.Process(target=_echo, args=(port, called, seconds, pause_s, queue), daemon=True)
    store = _FORK.Process(target=_store, args=(port, called, seconds, run, queue), daemon=True)
    for process in (echo, store):
        process.start()
    # First their end, then what they say: one that was not served says nothing. A pipe holds more than both bring.
    for process in (echo, store):
        process.join(seconds + 90)
        assert process.exitcode == 0, "a good peer was not served"
    said = dict(queue.get() for _ in range(2))
    images, took_s = said["store"]
    return Measured(said["echo"], images, took_s)


def _echo(port: int, called: str, seconds: float, pause_s: float, queue: "multiprocessing.SimpleQueue[object]") -> None:
    request = wire.associate_rq([(wire.VERIFICATION, wire.IMPLICIT)], calling="CT1", called=called)
    message = b"".join(wire.c_echo_rq())
    latencies, until = [], time.monotonic() + seconds
    while time.monotonic() < until:
        began = time.monotonic()
        with wire.associated(port, request, timeout_s=60) as (connection, _):
            connection.sendall(message)
            kind, body = wire.read_pdu(connection)
            assert (kind, wire.status_of(body)) == (wire.P_DATA, 0)
        latencies.append(time.monotonic() - began)
        time.sleep(pause_s)
    queue.put(("echo", latencies))


def _store(port: int, called: str, seconds: float, run: int, queue: "multiprocessing.SimpleQueue[object]") -> None:
    request = wire.associate_rq([(MR, wire.EXPLICIT)], calling="CT1", called=called)
    images = 0
    with wire.associated(port, request, timeout_s=60) as (connection, longest):
        first = f"{ROOT}.1{run:03d}.1{0:07d}"
        whole = part10_bytes(sop=first, study=f"{ROOT}.1{run:03d}", pixels=bytes(131072), Rows=256, Columns=256)
        dataset = whole[whole.index(b"\x08\x00\x16\x00") :]
        pdus = wire.c_store_rq(dataset, sop_class=MR, sop_instance=first, max_pdu_bytes=longest or 131072)
        template = b"".join(pdus)
        began = time.monotonic()
        while time.monotonic() < began + seconds:
            content = template.replace(first.encode(), f"{ROOT}.1{run:03d}.1{images:07d}".encode())
            connection.sendall(content)
            kind, body = wire.read_pdu(connection)
            assert (kind, wire.status_of(body)) == (wire.P_DATA, 0), (kind, wire.status_of(body))
            images += 1
        took_s = time.monotonic() - began
    queue.put(("store", (images, took_s)))


if __name__ == "__main__":
    plain_port, secured_port, *counts = map(int, sys.argv[1:])
    # So many sockets are more than the usual limit of descriptors.
    import resource

    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096) if hard > 0 else 4096, hard))
    # Attackers have machines of their own; here they share two cores with their victim.
    os.nice(10)
    asyncio.run(_attack(plain_port, secured_port, Attack(*counts)))
