"""`python -m benchmarks.receive_memory`: resident memory of receiver and Orthanc, one multi-frame, then CT slices."""

import argparse
import contextlib
import socket
import struct
import tempfile
import threading
import time
from collections.abc import Iterator
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
    """Resident memory of a process (VmRSS), MiB, sampled ten times a second."""

    def __init__(self, pid: int) -> None:
        self._status = Path(f"/proc/{pid}/status")
        self._stop = threading.Event()
        self.samples: list[tuple[float, float]] = []

    def _now(self) -> float:
        return int(self._status.read_text().split("VmRSS:")[1].split()[0]) / 1024

    @contextlib.contextmanager
    def sampled(self) -> Iterator[None]:
        """Sample for as long as the block runs."""
        began = time.monotonic()

        def run() -> None:
            while not self._stop.wait(_SAMPLE_S):
                self.samples.append((time.monotonic() - began, self._now()))

        thread = threading.Thread(target=run)
        self.samples.append((0.0, self._now()))
        thread.start()
        try:
            yield
        finally:
            self._stop.set()
            thread.join()
            self._stop.clear()

    def say(self, what: str) -> None:
        """The highest value of each second, and of all."""
        highest: dict[int, float] = {}
        for at, value in self.samples:
            second = int(at / _LINE_S)
            highest[second] = max(value, highest.get(second, 0.0))
        print(f"  {what}: {' '.join(f'{value:.0f}' for value in highest.values())}")
        print(
            f"  {what}: peak {max(value for _, value in self.samples):.0f} MiB, at first {self.samples[0][1]:.0f} MiB"
        )
        self.samples.clear()


def send_large(connection: socket.socket, *, size_bytes: int, longest: int) -> None:
    """One instance whose pixels are `size_bytes` long, made as it is sent."""
    uid = instance_uid(900, 0, 1)
    head = dataset_bytes(_CT, run=900, sender=0).replace(instance_uid(900, 0, 0).encode(), uid.encode())
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
    kind, body = wire.read_pdu(connection)
    assert (kind, wire.status_of(body)) == (wire.P_DATA, 0), (kind, wire.status_of(body))


def measure(running: receivers.Running, *, size_bytes: int, slices: int) -> None:
    """Print both curves of a receiver."""
    print(f"{running.name}, MiB at the peak of each second")
    request = wire.associate_rq(
        [(_CT.sop_class, wire.EXPLICIT)], calling=CALLING, called=running.ae_title, max_pdu_bytes=_MAX_PDU_BYTES
    )
    curve = Curve(running.pid)
    with wire.associated(running.port, request, timeout_s=300) as (connection, longest):
        with curve.sampled():
            send_large(connection, size_bytes=size_bytes, longest=longest)
        curve.say(f"one instance of {size_bytes >> 20} MiB")
        message = Request(_CT, run=901, sender=0, max_pdu_bytes=longest)
        with curve.sampled():
            for number in range(slices):
                message.set_number(number)
                connection.sendall(message.data)
                kind, body = wire.read_pdu(connection)
                assert (kind, wire.status_of(body)) == (wire.P_DATA, 0), (kind, wire.status_of(body))
        curve.say(f"{slices} CT slices")


def main() -> None:
    """Measure our receiver, then Orthanc."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mib", type=int, default=600, help="pixels of the large instance")
    parser.add_argument("--slices", type=int, default=2000)
    parser.add_argument("--only", choices=("dicomguard", "orthanc"), default=None)
    arguments = parser.parse_args()
    for name, start in (("dicomguard", receivers.dicomguard), ("orthanc", receivers.orthanc)):
        if arguments.only in (None, name):
            with tempfile.TemporaryDirectory() as folder, start(Path(folder) / name) as running:
                measure(running, size_bytes=arguments.mib << 20, slices=arguments.slices)


if __name__ == "__main__":
    main()
