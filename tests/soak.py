"""Hours of an ordinary day for a receiver: callers that store, ask, repeat, abort and are refused, and what it holds.

Each caller is a thread with its own chance; one of them brings every fifth of its associations by pynetdicom's
requestor, the rest is cheaper bytes. What the receiver holds is read from /proc, its children included.
"""

import itertools
import os
import socket
import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from dicomguard.dimse.ae import make_ae
from dicomguard.dimse.contexts import VERIFICATION
from tests.fuzz import wire
from tests.instances import MR, ROOT, part10_bytes
from tests.receiver import LiveReceiver

CT = "1.2.840.10008.5.1.4.1.1.2"
CALLERS = {f"caller{number}": (f"CALLER{number}", "127.0.0.1") for number in range(4)}
STRANGER = "NOBODY"
SAMPLE_S = 10.0
# Of a window whose quietest sample has no association open.
WINDOW_S = 300.0
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class Sample:
    """What the receiver held at a moment."""

    # Since the load began.
    seconds: float
    # Resident.
    kib: int
    descriptors: int
    threads: int

    def __str__(self) -> str:
        return f"{self.seconds:6.0f} s {self.kib:7d} KiB {self.descriptors:3d} descriptors {self.threads:3d} threads"


def sample(pid: int, seconds: float) -> Sample:
    """Of a process and its children."""
    pages = descriptors = threads = 0
    for one in (pid, *_children(pid)):
        pages += int(Path(f"/proc/{one}/statm").read_text().split()[1])
        descriptors += sum(1 for _ in Path(f"/proc/{one}/fd").iterdir())
        threads += sum(1 for _ in Path(f"/proc/{one}/task").iterdir())
    return Sample(seconds, pages * _PAGE_BYTES >> 10, descriptors, threads)


def _children(pid: int) -> list[int]:
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in found]


def slope_percent_an_hour(samples: Sequence[Sample]) -> float:
    """Theil-Sen: the median of the slopes of all pairs, as a share of the median; single peaks do not move it."""
    pairs = itertools.combinations(samples, 2)
    slopes = [(late.kib - early.kib) / (late.seconds - early.seconds) for early, late in pairs]
    return 100.0 * 3600.0 * statistics.median(slopes) / statistics.median(one.kib for one in samples)


def quietest(samples: Sequence[Sample], of: Callable[[Sample], int]) -> list[int]:
    """The least of each full window: what is held when nobody is connected."""
    windows: dict[int, list[int]] = {}
    for one in samples:
        windows.setdefault(int(one.seconds // WINDOW_S), []).append(of(one))
    full = [values for values in windows.values() if len(values) >= 0.8 * WINDOW_S / SAMPLE_S]
    return [min(values) for values in full]


@dataclass
class Load:
    """Callers that go on until they are stopped."""

    live: LiveReceiver
    # Of all callers together, an hour.
    associations: int
    seed: int = 1
    # What they did.
    counts: Counter[str] = field(default_factory=Counter)
    # SOP Instance UIDs that were answered with Success.
    acknowledged: set[str] = field(default_factory=set)
    failures: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._threads = [
            threading.Thread(target=self._call, args=(number, title), daemon=True)
            for number, (title, _) in enumerate(CALLERS.values())
        ]

    def start(self) -> None:
        """All callers, out of step."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """When each has finished its association."""
        self._stop.set()
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive()

    def _call(self, number: int, title: str) -> None:
        rng = np.random.default_rng([self.seed, number])
        period_s = 3600.0 * len(self._threads) / self.associations
        due = time.monotonic() + period_s * number / len(self._threads)
        for turn in itertools.count():
            # Not in step with each other, and still so many an hour.
            if self._stop.wait(max(0.0, due + float(rng.uniform(0, 0.5)) * period_s - time.monotonic())):
                return
            due += period_s
            kinds = (self._store, self._store, self._store, self._echo, self._repeat, self._abort, self._refused)
            kind = kinds[int(rng.integers(len(kinds)))] if number or turn % 5 else self._requestor
            try:
                kind(title, f"{ROOT}.{9000 + number}.{self.seed}.{turn}", rng)
            except (AssertionError, OSError) as error:
                self.failures.append(f"{kind.__name__}: {type(error).__name__} {error}")
            self._note(kind.__name__.strip("_"))

    def _note(self, what: str, sops: Sequence[str] = ()) -> None:
        with self._lock:
            self.counts[what] += 1
            self.acknowledged.update(sops)

    def _store(self, title: str, study: str, rng: np.random.Generator, *, repeat: bool = False) -> None:
        sop_class = (MR, CT)[int(rng.integers(2))]
        contexts = [(wire.VERIFICATION, wire.IMPLICIT), (sop_class, wire.EXPLICIT)]
        with wire.associated(self.live.port, wire.associate_rq(contexts, calling=title)) as (connection, longest):
            for number in range(int(rng.integers(1, 12))):
                sop = f"{study}.1.{number}"
                dataset = _dataset(study, sop, sop_class, int(rng.choice([2_000, 32_000, 131_072])), rng)
                for _ in range(2 if repeat else 1):
                    pdus = wire.c_store_rq(
                        dataset, sop_class=sop_class, sop_instance=sop, context_id=3, max_pdu_bytes=longest
                    )
                    connection.sendall(b"".join(pdus))
                    status = wire.status_of(wire.read_pdu(connection)[1])
                    assert status == 0, f"C-STORE was answered {status}"
                self._note("instances", [sop])

    def _repeat(self, title: str, study: str, rng: np.random.Generator) -> None:
        """Each instance twice."""
        self._store(title, study, rng, repeat=True)

    def _echo(self, title: str, _study: str, _rng: np.random.Generator) -> None:
        request = wire.associate_rq([(wire.VERIFICATION, wire.IMPLICIT)], calling=title)
        with wire.associated(self.live.port, request) as (connection, _):
            connection.sendall(b"".join(wire.c_echo_rq(context_id=1)))
            assert wire.status_of(wire.read_pdu(connection)[1]) == 0

    def _abort(self, title: str, study: str, rng: np.random.Generator) -> None:
        """In the middle of a dataset."""
        with socket.create_connection(("127.0.0.1", self.live.port), timeout=30) as connection:
            connection.sendall(wire.associate_rq([(MR, wire.EXPLICIT)], calling=title))
            assert wire.read_pdu(connection)[0] == wire.ASSOCIATE_AC
            dataset = _dataset(study, f"{study}.1.1", MR, 60_000, rng)
            pdus = wire.c_store_rq(dataset, sop_class=MR, sop_instance=f"{study}.1.1", context_id=1)
            connection.sendall(b"".join(pdus[: len(pdus) // 2]))
            connection.sendall(wire.abort())

    def _refused(self, _title: str, _study: str, _rng: np.random.Generator) -> None:
        """A name that is no peer's."""
        with socket.create_connection(("127.0.0.1", self.live.port), timeout=30) as connection:
            connection.sendall(wire.associate_rq([(MR, wire.EXPLICIT)], calling=STRANGER))
            assert wire.read_pdu(connection)[0] == wire.ASSOCIATE_RJ

    def _requestor(self, title: str, _study: str, _rng: np.random.Generator) -> None:
        ae = make_ae(title)
        ae.add_requested_context(VERIFICATION)
        association = ae.associate("127.0.0.1", self.live.port, ae_title="DICOMGUARD")
        assert association.is_established
        try:
            assert int(association.send_c_echo().Status) == 0
        finally:
            association.release()


def _dataset(study: str, sop: str, sop_class: str, size: int, rng: np.random.Generator) -> bytes:
    """Without preamble and file meta information."""
    whole = part10_bytes(study=study, series=f"{study}.1", sop=sop, sop_class=sop_class, pixels=rng.bytes(size))
    return whole[144 + int.from_bytes(whole[140:144], "little") :]


def soak(load: Load, *, seconds: float) -> list[Sample]:
    """The curve, printed as it grows; the callers have stopped at its end."""
    began = time.monotonic()
    samples: list[Sample] = []
    load.start()
    for number in itertools.count(1):
        time.sleep(max(0.0, began + SAMPLE_S * number - time.monotonic()))
        samples.append(sample(load.live.process.pid, time.monotonic() - began))
        print(samples[-1], flush=True)
        if samples[-1].seconds >= seconds:
            break
    load.stop()
    return samples
