"""DCMTK's dcmqrscp as the destination PACS: results lie in the sender's study, and query and retrieve give them back.

The node is a worker with everything real but the network's judgement (`tests.fault.world`).
"""

import contextlib
import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pydicom
import pytest

from demo.ports import free_port, listens
from dicomguard.clock import SystemClock
from dicomguard.store import results, studies, worklist
from dicomguard.store.db import open_store
from tests.fault import world
from tests.fault.world import run_worker
from tests.peers import Need, Storescp, end, storescp, wait_for

AE_TITLE = "ARCHIVE"
VIEWER = "VIEWER"


@dataclass(frozen=True)
class Archive:
    """A running dcmqrscp, and the AE that it moves to."""

    port: int
    viewer: Storescp

    def address(self) -> list[str]:
        return ["-aet", VIEWER, "-aec", AE_TITLE, "127.0.0.1", str(self.port)]


@pytest.fixture
def archive(tmp_path: Path, need: Need) -> Iterator[Archive]:
    program, port = need("dcmqrscp", "dcmtk"), free_port()
    (tmp_path / "database").mkdir()
    with storescp(need, tmp_path / "viewer", ae_title=VIEWER, options=("+B",)) as viewer:
        (tmp_path / "dcmqrscp.cfg").write_text(
            f"""NetworkTCPPort = {port}
MaxPDUSize = 16384
MaxAssociations = 16
HostTable BEGIN
viewer = ({VIEWER}, 127.0.0.1, {viewer.port})
HostTable END
VendorTable BEGIN
VendorTable END
AETable BEGIN
{AE_TITLE} {tmp_path / "database"} RW (100, 1024mb) ANY
AETable END
"""
        )
        with (tmp_path / "dcmqrscp.log").open("wb") as log:
            process = subprocess.Popen(
                [program, "-c", str(tmp_path / "dcmqrscp.cfg")],
                stdout=log,
                stderr=log,
                env={**os.environ, "TCP_NODELAY": "1"},
            )
        try:
            wait_for(lambda: listens(port), what="dcmqrscp")
            yield Archive(port, viewer)
        finally:
            end(process)


def ask(program: str, *arguments: str) -> str:
    done = subprocess.run([program, *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def found(answer: str, tag: str) -> list[str]:
    """Values of one attribute in findscu's responses, in order."""
    return [value.strip(" \0") for value in re.findall(rf"\({tag}\) [A-Z]{{2}} \[(.*?)\]", answer)]


def test_results_lie_in_the_senders_study_and_come_back_unchanged(archive: Archive, need: Need, tmp_path: Path) -> None:
    findscu, movescu, dcmsend = (need(name, "dcmtk") for name in ("findscu", "movescu", "dcmsend"))
    state = tmp_path / "state"
    with contextlib.closing(open_store(state, "", SystemClock())) as store:
        key = world.send_study(store, tmp_path / "in", slices=5)
        # The archive has the images already, as the PACS that routes to us has.
        ask(dcmsend, "-aec", AE_TITLE, "127.0.0.1", str(archive.port), *map(str, sorted((tmp_path / "in").iterdir())))
        # The worker dies before it can note that the archive has everything, so the next one sends it again.
        plan = {"state": str(state), "destinations": {"archive": archive.port}, "until_idle": True}
        assert run_worker(60, **plan, deaths=[[key, "send", "after"]]) == -9
        assert run_worker(60, **plan, deaths=[[key, "send", "after"]]) == 0
        with store.read() as tx:
            row = worklist.row(tx, key)
            kept = {item.kind: item for item in results.of_revision(tx, key, 1)}
            paths = {kind: results.bytes_path(store, item) for kind, item in kept.items()}
            images = studies.instances(tx, key, 1)
    assert row is not None
    assert (row.state, sorted(kept)) == ("done", ["SEG", "SR", "SR-2D"])

    patients = ask(findscu, "-v", "-S", *archive.address(), "-k", "QueryRetrieveLevel=STUDY", "-k", "PatientID",
                   "-k", "StudyInstanceUID", "-k", "StudyDate=")  # fmt: skip
    # One study of one patient: the results opened no second one.
    assert [uid for uid in found(patients, "0020,000d") if uid] == [row.study_instance_uid]
    series = ask(findscu, "-v", "-S", *archive.address(), "-k", "QueryRetrieveLevel=SERIES", "-k", "Modality",
                 "-k", "SeriesInstanceUID", "-k", f"StudyInstanceUID={row.study_instance_uid}")  # fmt: skip
    assert sorted(filter(None, found(series, "0008,0060"))) == ["MR", "SEG", "SR"]
    assert {kept["SEG"].series_instance_uid, kept["SR"].series_instance_uid} <= set(found(series, "0020,000e"))
    instances = ask(findscu, "-v", "-S", *archive.address(), "-k", "QueryRetrieveLevel=IMAGE", "-k", "SOPInstanceUID",
                    "-k", f"SeriesInstanceUID={kept['SR'].series_instance_uid}",
                    "-k", f"StudyInstanceUID={row.study_instance_uid}")  # fmt: skip
    # Sent twice, held once: a retry sends the kept bytes.
    assert [uid for uid in found(instances, "0008,0018") if uid] == [kept["SR"].sop_instance_uid]

    ask(movescu, "-S", "-aem", VIEWER, *archive.address(), "-k", "QueryRetrieveLevel=STUDY",
        "-k", f"StudyInstanceUID={row.study_instance_uid}")  # fmt: skip
    moved = {str(ds.SOPInstanceUID): ds for ds in map(pydicom.dcmread, archive.viewer.files())}
    assert set(moved) == {item.sop_instance_uid for item in images} | {
        kept["SEG"].sop_instance_uid, kept["SR"].sop_instance_uid
    }  # fmt: skip
    for kind in ("SEG", "SR"):
        # The dataset alone: an archive writes meta information of its own.
        assert moved[kept[kind].sop_instance_uid] == pydicom.dcmread(paths[kind])
