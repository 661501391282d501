"""`python -m benchmarks.node`: `dicomguard serve`, small studies by C-STORE, reports back into DCMTK's storescp.

The clock of a study begins with its first byte and ends when the PACS has taken its last result; where the time went is
read from the events in the node's log.
"""

import argparse
import contextlib
import datetime
import io
import json
import os
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pydicom

from benchmarks.ingest.receivers import ENVIRONMENT, Running, storescp, versions
from demo.ports import free_port
from dicomguard import part10
from tests import studies
from tests.fuzz import wire
from tests.peers import end, wait_for

CALLING = "BENCH"
# The node's own wait for a study to be complete; a hospital has 60 s here.
QUIET_S = 1.0
# Event of the log → the stage that ends with it, in order.
STAGES = {
    "revision.opened": "wait until complete",
    "study.frozen": "freeze",
    "study.judged": "analyse",
    "results.kept": "build, keep",
    "deliveries.planned": "plan",
    "delivery.attempted": "deliver",
}


@dataclass
class Case:
    """One study that is sent."""

    study_uid: str
    files: list[Path]
    began: float = 0.0
    sent: float = 0.0
    # Epoch seconds of the events of `STAGES`.
    at: dict[str, float] = field(default_factory=dict)

    @property
    def done(self) -> bool:
        """Whether its results lie in the PACS."""
        return "delivery.attempted" in self.at


@contextlib.contextmanager
def node(folder: Path, pacs: Running, *, threads: int) -> Iterator[tuple[int, Path]]:
    """The whole node; its receiver's port and its log."""
    port, page, health = free_port(), free_port(), free_port()
    (folder / "dicomguard.toml").write_text(
        f"""[node]
port = {port}
state = "var"
[peers.bench]
ae_title = "{CALLING}"
addresses = ["127.0.0.1"]
[destinations.pacs]
ae_title = "{pacs.ae_title}"
host = "127.0.0.1"
port = {pacs.port}
[[routes]]
name = "everything to the PACS"
to = ["pacs"]
[completion]
quiet_s = {QUIET_S}
[storage]
low_bytes = 0
stop_bytes = 0
[analysis]
threads = {threads}
[web]
port = {page}
health_port = {health}
"""
    )
    log = folder / "node.log"
    with log.open("wb") as target:
        command = [sys.executable, "-m", "dicomguard", "serve", "--config", str(folder / "dicomguard.toml")]
        process = subprocess.Popen(command, stdout=target, stderr=target, env=ENVIRONMENT)
    try:
        wait_for(lambda: '"node.started"' in log.read_text(), seconds=120, what="the node")
        yield port, log
    finally:
        end(process, seconds=20)


def make(folder: Path, count: int, *, slices: int, side: int) -> list[Case]:
    """Studies of one series each; every second one shows a bright disc, so that regions are drawn and sent too."""
    cases = []
    for number in range(count):
        disc = (side // 2, side // 2, side // 9) if number % 2 else None
        made = studies.series(
            slices, study=f"load-{number}", size=(side, side), tumor=disc, tumor_on=range(slices // 3, slices // 2 + 1)
        )
        cases.append(Case(str(made[0].StudyInstanceUID), studies.save(folder / str(number), made)))
    return cases


def send(port: int, case: Case) -> None:
    """One association, one image after the other."""
    case.began = time.time()
    metas = [part10.read_meta(path) for path in case.files]
    contexts = sorted({(meta.sop_class_uid, meta.transfer_syntax_uid) for meta in metas})
    request = wire.associate_rq(contexts, calling=CALLING)
    with wire.associated(port, request, timeout_s=120) as (connection, longest):
        for path, meta in zip(case.files, metas, strict=True):
            context = 2 * contexts.index((meta.sop_class_uid, meta.transfer_syntax_uid)) + 1
            pdus = wire.c_store_rq(
                path.read_bytes()[meta.dataset_offset :],
                sop_class=meta.sop_class_uid,
                sop_instance=meta.sop_instance_uid,
                context_id=context,
                max_pdu_bytes=longest or 16382,
            )
            connection.sendall(b"".join(pdus))
            assert wire.status_of(wire.read_pdu(connection)[1]) == 0
    case.sent = time.time()


def read_events(log: Path, database: Path, cases: list[Case]) -> None:
    """Fill `at` of each case; a delivery counts once it is sent."""
    with contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=30)) as tx:
        keys = dict(tx.execute("SELECT study_key, study_uid FROM study").fetchall())
    by_uid = {case.study_uid: case for case in cases}
    for text in log.read_text().splitlines():
        with contextlib.suppress(ValueError):
            line = json.loads(text)
            case = by_uid.get(keys.get(line.get("study"), ""))
            if case is None or line["event"] not in STAGES or line.get("state", "sent") not in ("sent", "warned"):
                continue
            case.at[line["event"]] = datetime.datetime.fromisoformat(line["time"]).timestamp()


def reports(pacs: Running) -> set[str]:
    """Study Instance UIDs whose SR lies in the PACS."""
    found = set()
    for path in (pacs.folder / "held").iterdir():
        head = pydicom.dcmread(io.BytesIO(path.read_bytes()), stop_before_pixels=True)
        if head.Modality == "SR":
            found.add(str(head.StudyInstanceUID))
    return found


def stages(cases: list[Case]) -> dict[str, float]:
    """Median seconds of each stage."""
    spent: dict[str, list[float]] = {"receive": [case.sent - case.began for case in cases]}
    for case in cases:
        last = case.sent
        for event, stage in STAGES.items():
            spent.setdefault(stage, []).append(case.at[event] - last)
            last = case.at[event]
    return {stage: statistics.median(values) for stage, values in spent.items()}


def run(port: int, log: Path, database: Path, cases: list[Case], *, at_once: int, patience_s: float) -> float:
    """Send all, so many associations at once; seconds until the last result lies in the PACS."""
    waiting = list(reversed(cases))
    lock = threading.Lock()

    def sender() -> None:
        while True:
            with lock:
                if not waiting:
                    return
                case = waiting.pop()
            send(port, case)

    threads = [threading.Thread(target=sender) for _ in range(at_once)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    def done() -> bool:
        read_events(log, database, cases)
        return all(case.done for case in cases)

    wait_for(done, seconds=patience_s, what="the last report")
    return max(case.at["delivery.attempted"] for case in cases) - min(case.began for case in cases)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.node", description=__doc__)
    parser.add_argument("--studies", type=int, default=12)
    parser.add_argument("--slices", type=int, default=12)
    parser.add_argument("--side", type=int, default=128, help="rows and columns of a slice")
    parser.add_argument("--at-once", type=int, default=2, help="associations that send at the same time")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="of the analysis child")
    parser.add_argument("--patience", type=float, default=1800, help="seconds to wait for the last report")
    parser.add_argument("--output", type=Path, help="folder for result.json")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="dicomguard-node-") as scratch:
        folder = Path(scratch)
        first, *rest = make(folder / "studies", given.studies + 1, slices=given.slices, side=given.side)
        with storescp(folder / "pacs") as pacs, node(folder, pacs, threads=given.threads) as (port, log):
            database = folder / "var" / "node.sqlite"
            cold = run(port, log, database, [first], at_once=1, patience_s=given.patience)
            seconds = run(port, log, database, rest, at_once=given.at_once, patience_s=given.patience)
            assert reports(pacs) == {case.study_uid for case in [first, *rest]}, "a report is missing in the PACS"
    result = {
        "versions": versions(),
        "studies": len(rest),
        "slices": given.slices,
        "side": given.side,
        "studies_per_hour": round(3600 * len(rest) / seconds),
        "slices_per_second": round(len(rest) * given.slices / seconds, 2),
        "first_study_seconds": round(cold, 1),
        "stage_seconds": {stage: round(value, 2) for stage, value in stages(rest).items()},
        "first_study_stage_seconds": {stage: round(value, 2) for stage, value in stages([first]).items()},
    }
    print(f"{len(rest)} studies of {given.slices} slices of {given.side}x{given.side}, {given.at_once} senders at once")
    print(f"{result['studies_per_hour']} studies an hour ({result['slices_per_second']} slices a second)")
    print(f"{'stage':22}{'median s':>10}{'the first, alone':>20}")
    for stage, value in stages(rest).items():
        print(f"{stage:22}{value:>10.2f}{stages([first])[stage]:>20.2f}")
    print("(a stage includes the wait for its turn; the first study also starts the analysis child)")
    if given.output:
        given.output.mkdir(parents=True, exist_ok=True)
        (given.output / "result.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
