"""Mutated associations: no connection crashes or hangs, nothing stays open, and good peers are served afterwards."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dicomguard.clock import SystemClock
from dicomguard.scp import pdu
from dicomguard.store.db import Limits, open_store
from tests.fuzz import pdus, upper_layer, wire
from tests.fuzz.reading import LooseDisk
from tests.instances import MR
from tests.receiver import LiveReceiver, receiver

STORED = tuple(wire.c_store_rq(pdus.dataset(), sop_class=MR, sop_instance="1.2.3.4", context_id=3, max_pdu_bytes=256))
OPENED, RELEASE = pdus.seeds()[0]


def run_campaign(folder: Path, *options: str) -> dict[str, Any]:
    """Run `python -m tests.fuzz pdus` and read what it says."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz", "pdus", "--folder", str(folder), *options],
        capture_output=True, text=True, check=False, timeout=200, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return dict(json.loads(done.stdout.splitlines()[-1]))


@pytest.fixture
def campaign(tmp_path: Path) -> Iterator[upper_layer.Campaign]:
    store = open_store(
        tmp_path / "state", "", SystemClock(), limits=Limits(low_bytes=0, stop_bytes=0), disk=LooseDisk()
    )
    made = upper_layer.Campaign(tmp_path, store, np.random.default_rng(5))
    yield made
    made.close()
    store.close()


def test_mutants_end_in_order(tmp_path: Path) -> None:
    said = run_campaign(tmp_path, "--seed", "21", "--count", "1500", "--store-every", "100")
    assert said["faults"] == {}
    assert said["count"] >= 1500
    assert said["slowest_s"] < 5
    assert said["peak_mib"] < 400
    assert said["descriptors"] < 40
    # They reach every kind of end, and more ways to it than there are kinds.
    assert {"released", "rejected", "closed", "aborted 2,1", "aborted 2,2", "aborted 2,6", "aborted 0,0"} <= {
        *said["ends"]
    }
    assert said["ways"] > 20


def test_cut_at_every_byte_leaves_nothing_open(campaign: upper_layer.Campaign) -> None:
    content = b"".join((OPENED, *STORED, RELEASE))
    for length in range(0, len(content), 3):
        answers = campaign.play(content[:length], most=1 << 20)
        assert [kind for kind, _ in answers] in ([], [wire.ASSOCIATE_AC], [wire.ASSOCIATE_AC, wire.P_DATA])


@pytest.mark.parametrize("most", [1, 2, 5, 6, 7, 11, 1000])
def test_any_size_of_reads_gives_the_same_dataset(campaign: upper_layer.Campaign, most: int) -> None:
    mutator = pdus.Mutator(pdus.seeds(), np.random.default_rng(most))
    sound = [mutant for mutant in mutator.mutants(64) if mutant.whole]
    for mutant in sound:
        answers = campaign.play(b"".join(mutant.stream), most=most)
        assert [kind for kind, _ in answers] == [wire.ASSOCIATE_AC, wire.P_DATA, wire.RELEASE_RP]
        assert campaign.datasets == [pdus.dataset()]


def test_abort_after_every_pdu_is_taken_in_silence(campaign: upper_layer.Campaign) -> None:
    for count in range(len(STORED) + 1):
        answers = campaign.play(b"".join((OPENED, *STORED[:count], wire.abort())), most=1 << 20)
        assert [kind for kind, _ in answers][:1] == [wire.ASSOCIATE_AC]
        assert wire.ABORT not in [kind for kind, _ in answers]


def test_a_planted_fault_is_found(campaign: upper_layer.Campaign, monkeypatch: pytest.MonkeyPatch) -> None:
    """A campaign that finds nothing has to be one that could."""
    genuine = pdu.fragments

    def careless(body: memoryview) -> Iterator[tuple[int, int, memoryview]]:
        for context_id, control, piece in genuine(body):
            # A slip by one: the last byte of longer fragments is lost.
            yield context_id, control, piece[:-1] if len(piece) > 600 else piece

    monkeypatch.setattr(pdu, "fragments", careless)
    campaign.run(pdus.Mutator(pdus.seeds(), np.random.default_rng(1)).mutants(200))
    assert any("dataset that arrived is another" in fault for fault in campaign.faults)


# ---- a live receiver ------------------------------------------------------------------------------------------------


def throw(live: LiveReceiver, content: bytes) -> float:
    """Send it over TCP and wait until the receiver has closed or says no more; the seconds that took."""
    began = time.monotonic()
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", live.port), timeout=12) as connection:
        connection.sendall(content)
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(65536):
            pass
    return time.monotonic() - began


def serves(live: LiveReceiver, number: int) -> None:
    """A good peer stores an instance."""
    request = wire.associate_rq([(wire.VERIFICATION, wire.IMPLICIT), (MR, wire.EXPLICIT)], calling="CT1")
    sop = f"1.2.826.0.1.3680043.8.498.5.{number}"
    data = pdus.dataset().replace(b"1.2.826.0.1.3680043.8.498.1.1.1.1", b"x" * 33)
    assert b"x" * 33 in data
    data = data.replace(b"x" * 33, sop.encode().ljust(33, b"\0"))
    with wire.associated(live.port, request, timeout_s=10) as (connection, _):
        connection.sendall(b"".join(wire.c_store_rq(data, sop_class=MR, sop_instance=sop, context_id=3)))
        assert wire.status_of(wire.read_pdu(connection)[1]) == 0


def resident_mib(live: LiveReceiver) -> float:
    """Resident memory of the receiver."""
    pages = int(Path(f"/proc/{live.process.pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


def test_live_receiver_outlives_mutants_and_serves_good_peers(tmp_path: Path) -> None:
    with receiver(tmp_path) as live:
        serves(live, 100)
        before = resident_mib(live)
        mutator = pdus.Mutator(pdus.seeds(), np.random.default_rng(31))
        slowest = max(throw(live, b"".join(mutant.stream)) for mutant in mutator.mutants(120))
        assert slowest < 5
        serves(live, 101)
        assert live.process.poll() is None
        assert resident_mib(live) - before < 60
        assert [line for line in live.events() if line["event"].endswith(".failed")] == []
        # Threads of connections are gone; those of the receiver itself stay.
        assert len(list(Path(f"/proc/{live.process.pid}/task").iterdir())) < 20
