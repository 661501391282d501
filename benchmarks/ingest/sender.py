"""Senders that are not the limit: requests encoded beforehand, one process an association, one image after the other.

An SCU may send its next image only after the answer to the last (PS3.7 D.3.3.3, no asynchronous operations), so the
rate of one association is the acceptor's latency turned over.
"""

import gc
import multiprocessing
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import cast

from benchmarks.ingest.images import Kind, Request
from tests.fuzz import wire

_FORK = multiprocessing.get_context("fork")
CALLING = "BENCH"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """What one cell of the table was made from."""

    images: int
    seconds: float
    # Median from the first byte of a request to its answer.
    latency_ms: float
    # Epoch seconds of each request's first byte and of its answer.
    spans: Sequence[tuple[float, float]]

    @property
    def rate(self) -> float:
        """Images a second over all associations."""
        return self.images / self.seconds


def send(port: int, called: str, kind: Kind, *, run: int, associations: int, images: int, pause_s: float = 0.0) -> Sent:
    """Bring `images` over so many associations at once; raises when one of them is not answered by Success."""
    pipes, processes = [], []
    for sender in range(associations):
        ours, theirs = _FORK.Pipe()
        count = images // associations
        arguments = (theirs, port, called, kind, run, sender, count, pause_s)
        process = _FORK.Process(target=_one, args=arguments, daemon=True)
        process.start()
        theirs.close()
        pipes.append(ours)
        processes.append(process)
    for pipe in pipes:
        assert pipe.recv() == "ready"
    for pipe in pipes:
        pipe.send("go")
    spans = [cast(list[tuple[float, float]], pipe.recv()) for pipe in pipes]
    for process in processes:
        process.join(30)
        assert process.exitcode == 0, "a sender failed"
    every = [span for of_one in spans for span in of_one]
    return Sent(
        images=len(every),
        seconds=max(end for _, end in every) - min(begin for begin, _ in every),
        latency_ms=statistics.median(end - begin for begin, end in every) * 1e3,
        spans=every,
    )


def _one(
    pipe: Connection, port: int, called: str, kind: Kind, run: int, sender: int, count: int, pause_s: float
) -> None:
    request_pdu = wire.associate_rq([(kind.sop_class, wire.EXPLICIT)], calling=CALLING, called=called)
    with wire.associated(port, request_pdu, timeout_s=120) as (connection, longest):
        request = Request(kind, run=run, sender=sender, max_pdu_bytes=longest)
        gc.disable()
        pipe.send("ready")
        assert pipe.recv() == "go"
        spans = []
        for number in range(count):
            request.set_number(number)
            begin = time.time()
            connection.sendall(request.data)
            kind_of_pdu, body = wire.read_pdu(connection)
            spans.append((begin, time.time()))
            status = wire.status_of(body)
            assert (kind_of_pdu, status) == (wire.P_DATA, 0), f"PDU of type {kind_of_pdu}, status {status}"
            time.sleep(pause_s)
        pipe.send(spans)
