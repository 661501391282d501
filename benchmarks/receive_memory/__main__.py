"""`python -m benchmarks.receive_memory`: what receiver and Orthanc hold while multi-frames, then CT slices come.

The receiver is all its processes: their proportional set sizes (PSS of /proc/PID/smaps_rollup, proc(5)) added, so that
a page which they share counts once. Beside it stands the resident memory of the largest process.
"""

import argparse
import contextlib
import socket
import struct
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from benchmarks.ingest import receivers
from benchmarks.ingest.images import KINDS, Request, dataset_bytes, instance_uid
from benchmarks.ingest.sender import CALLING
from tests.fuzz import wire

_SAMPLE_S = 0.1
_LINE_S = 1.0
_MAX_PDU_BYTES = 131_072
_CT = KINDS[1]


class Curve:
    """What some processes hold, MiB, sampled ten times a second: the sum of their PSS, and the largest RSS."""

    def __init__(self, pids: Sequence[int]) -> None:
        self._files = [Path(f"/proc/{pid}/smaps_rollup") for pid in pids]
        # Seconds, sum, largest.
        self.samples: list[tuple[float, float, float]] = []

    def _now(self, seconds: float) -> tuple[float, float, float]:
        texts = [file.read_text() for file in self._files]
        return seconds, sum(_mib(text, "Pss") for text in texts), max(_mib(text, "Rss") for text in texts)

    @contextlib.contextmanager
    def sampled(self, what: str) -> Iterator[None]:
        """Sample for as long as the block runs, and print the curve."""
        began = time.monotonic()
        stop = threading.Event()
        self.samples = [self._now(0.0)]

        def run() -> None:
            while not stop.wait(_SAMPLE_S):
                self.samples.append(self._now(time.monotonic() - began))

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
        self._say(what)

    def _say(self, what: str) -> None:
        """The highest value of each second, and of all."""
        highest: dict[int, float] = {}
        for at, held, _ in self.samples:
            second = int(at / _LINE_S)
            highest[second] = max(held, highest.get(second, 0.0))
        _, before, before_largest = self.samples[0]
        print(f"  {what}: {' '.join(f'{value:.0f}' for value in highest.values())}")
        print(
            f"  {what}: peak {max(held for _, held, _ in self.samples):.0f} MiB ({before:.0f} before), "
            f"largest process {max(largest for _, _, largest in self.samples):.0f} MiB ({before_largest:.0f} before)",
            flush=True,
        )


def _mib(text: str, name: str) -> float:
    return int(text.split(f"\n{name}:")[1].split()[0]) / 1024


def send_large(connection: socket.socket, *, run: int, size_bytes: int, longest: int) -> None:
    """One instance whose pixels are `size_bytes` long, made as it is sent."""
    uid = instance_uid(run, 0, 1)
    head = dataset_bytes(_CT, run=run, sender=0).replace(instance_uid(run, 0, 0).encode(), uid.encode())
    # All before the pixels; then Pixel Data (OW, length of four bytes) anew.
    head = head[: head.index(b"\xe0\x7f\x10\x00OW")] + b"\xe0\x7f\x10\x00OW\0\0" + struct.pack("<I", size_bytes)
    command = wire.c_store_rq(b"\0\0", sop_class=_CT.sop_class, sop_instance=uid)[0]
    connection.sendall(command[: 6 + 4 + struct.unpack_from(">I", command, 6)[0]])
    piece_bytes = min(longest or _MAX_PDU_BYTES, _MAX_PDU_BYTES) - 6 & ~1
    left, content = len(head) + size_bytes, head
    while left:
        piece = content[:piece_bytes].ljust(min(piece_bytes, left), b"\0")
        content = content[piece_bytes:]
        left -= len(piece)
        header = struct.pack(">BxIIBB", wire.P_DATA, 6 + len(piece), 2 + len(piece), 1, 0 if left else 2)
        connection.sendall(header + piece)
    _expect_success(connection)


def send_slices(connection: socket.socket, *, run: int, slices: int, longest: int) -> None:
    """One after the other."""
    message = Request(_CT, run=run, sender=0, max_pdu_bytes=longest)
    for number in range(slices):
        message.set_number(number)
        connection.sendall(message.data)
        _expect_success(connection)


def _expect_success(connection: socket.socket) -> None:
    kind, body = wire.read_pdu(connection)
    assert (kind, wire.status_of(body)) == (wire.P_DATA, 0), (kind, wire.status_of(body))


def measure(running: receivers.Running, *, associations: int, size_bytes: int, slices: int) -> None:
    """Print both curves of a receiver; each association brings one large instance, and its share of the slices."""
    print(f"{running.name}: {len(running.pids)} process(es), {associations} association(s); MiB, peak of each second")
    request = wire.associate_rq(
        [(_CT.sop_class, wire.EXPLICIT)], calling=CALLING, called=running.ae_title, max_pdu_bytes=_MAX_PDU_BYTES
    )
    curve = Curve(running.pids)
    with contextlib.ExitStack() as opened, ThreadPoolExecutor(associations) as senders:
        held = []
        for _ in range(associations):
            held.append(opened.enter_context(wire.associated(running.port, request, timeout_s=600)))
            # One after the other, so that each process of several takes one.
            time.sleep(0.3)

        def all_of(act: Callable[..., None], first: int) -> None:
            calls = [
                senders.submit(act, connection, run=first + number, longest=longest)
                for number, (connection, longest) in enumerate(held)
            ]
            for call in calls:
                call.result()

        with curve.sampled(f"{associations} x {size_bytes >> 20} MiB"):
            all_of(partial(send_large, size_bytes=size_bytes), 900)
        with curve.sampled(f"{slices} CT slices"):
            all_of(partial(send_slices, slices=slices // associations), 910)


def main() -> None:
    """Measure our receiver with one process, and with two for one association and for two; Orthanc with the same."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mib", type=int, default=600, help="pixels of a large instance")
    parser.add_argument("--slices", type=int, default=2000)
    arguments = parser.parse_args()
    size_bytes, slices = arguments.mib << 20, arguments.slices
    ours, orthanc = receivers.dicomguard, receivers.orthanc
    for associations, starts in (
        (1, (partial(ours, count=1), partial(ours, count=2), orthanc)),
        (2, (partial(ours, count=2), orthanc)),
    ):
        for start in starts:
            with tempfile.TemporaryDirectory() as folder, start(Path(folder) / "state") as running:
                measure(running, associations=associations, size_bytes=size_bytes, slices=slices)


if __name__ == "__main__":
    main()
