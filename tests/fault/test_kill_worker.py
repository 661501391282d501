"""Death at every step, before and after its effect: each study is reported once, with one set of UIDs.

One state folder per test holds a study for each place to die at; a worker dies at the first place that it reaches, the
next one takes over and dies at the next, until all are through.
"""

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pydicom
import pytest

from dicomguard.clock import SystemClock
from dicomguard.store import results, worklist
from dicomguard.store.db import open_store
from tests.conftest import ROOT
from tests.fault import world
from tests.peers import Postgres, storescp

Need = Callable[[str, str], str]
MOMENTS = ("before", "after")


def run_worker(seconds: float, **plan: object) -> int:
    """One worker process to its end; its exit status, minus the signal that killed it."""
    command = [sys.executable, "-m", "tests.fault.world", json.dumps(plan)]
    return subprocess.run(command, cwd=ROOT, timeout=seconds, check=False, stderr=subprocess.DEVNULL).returncode


@pytest.mark.parametrize("executor", ["same node", "other node"])
@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_death_at_every_step(
    database: str, executor: str, tmp_path: Path, need: Need, request: pytest.FixtureRequest
) -> None:
    url = ""
    if database == "postgresql":
        server: Postgres = request.getfixturevalue("postgres_server")
        url = server.create(f"kill_{executor.replace(' ', '_')}")
    state = tmp_path / "state"
    store = open_store(state, url, SystemClock())
    places = [(step, moment) for step in world.STEPS for moment in MOMENTS]
    keys = [world.send_study(store, tmp_path / "in", number=n) for n in range(len(places))]
    deaths = [[key, step, moment] for key, (step, moment) in zip(keys, places, strict=True)]
    with storescp(need, tmp_path / "archive", ae_title="ARCHIVE", options=("-ll", "fatal")) as archive:
        statuses = []
        for turn in range(len(places) + 2):
            node = "node-b" if executor == "other node" and turn % 2 else "node-a"
            statuses.append(
                run_worker(
                    60,
                    state=str(state),
                    url=url,
                    node=node,
                    destinations={"archive": archive.port},
                    deaths=deaths,
                    until_idle=True,
                )
            )
            if statuses[-1] == 0:
                break
        assert statuses == [-9] * len(places) + [0]
        received = [pydicom.dcmread(path, stop_before_pixels=True) for path in archive.files()]
    sent = Counter(str(ds.StudyInstanceUID) for ds in received)
    for key in keys:
        with store.read() as tx:
            row = worklist.row(tx, key)
            kept = results.of_revision(tx, key, 1)
        assert row is not None
        assert (row.state, row.revision, row.category) == ("done", 1, "real")
        # SEG, SR, and the plain form that this archive did not need.
        assert [item.kind for item in kept] == ["SEG", "SR", "SR-2D"]
        assert sent[row.study_instance_uid] == 2
        mine = {str(ds.SOPInstanceUID) for ds in received if ds.StudyInstanceUID == row.study_instance_uid}
        assert mine == {item.sop_instance_uid for item in kept[:2]}
    store.close()
