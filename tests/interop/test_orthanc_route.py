"""A real Orthanc routes a study by its own configuration, and holds SR and SEG in the sender's study."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path

import pydicom
import pytest

from demo.ports import free_port, listens
from dicomguard.clock import SystemClock
from dicomguard.store import commitments
from dicomguard.store.db import Store, open_store
from tests.peers import Orthanc, end, orthanc, wait_for

ROOT = Path(__file__).resolve().parents[2]
SCANS = ROOT / "demo" / "scans"
PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancPython.so")
PATIENCE_S = 240.0


@pytest.fixture
def routed(tmp_path: Path, need: Callable[[str, str], str]) -> Iterator[Orthanc]:
    """Orthanc with deploy/orthanc/dicomguard.py, and a node that returns results to it."""
    if not PLUGIN.is_file():
        pytest.skip("Orthanc's Python plugin is missing: install the Debian package orthanc-python")
    receiver = free_port()
    settings = {"Plugins": [str(PLUGIN)], "PythonScript": str(ROOT / "deploy" / "orthanc" / "dicomguard.py")}
    modalities = {"dicomguard": ["DICOMGUARD", "127.0.0.1", receiver]}
    with orthanc(need, tmp_path / "orthanc", modalities=modalities, settings=settings) as peer:
        config = tmp_path / "node.toml"
        config.write_text(
            f"""[node]
port = {receiver}
state = "var"
[peers.orthanc]
ae_title = "ORTHANC"
addresses = ["127.0.0.1"]
[destinations.orthanc]
ae_title = "ORTHANC"
host = "127.0.0.1"
port = {peer.port}
commitment = true
[[routes]]
name = "return to sender"
to = ["sender"]
[completion]
quiet_s = 1
[storage]
low_bytes = 0
stop_bytes = 0
[web]
port = {free_port()}
health_port = {free_port()}
"""
        )
        log = (tmp_path / "node.log").open("wb")
        node = subprocess.Popen([sys.executable, "-m", "dicomguard", "serve", "--config", str(config)], stderr=log)
        try:
            wait_for(lambda: listens(receiver), seconds=60, what="the node")
            yield peer
        finally:
            end(node, seconds=30)
            log.close()


def held(peer: Orthanc, modality: str) -> list[pydicom.FileDataset]:
    """Instances of a modality as Orthanc holds them."""
    return [pydicom.dcmread(BytesIO(peer.get_bytes(f"/instances/{key}/file"))) for key in peer.instances(modality)]


@pytest.mark.timeout(400)
def test_orthanc_holds_report_and_regions_in_the_senders_study(routed: Orthanc, tmp_path: Path) -> None:
    files = sorted((SCANS / "3-tumor-added").glob("*.dcm"))
    for path in files:
        routed.post("/instances", path.read_bytes())
    wait_for(lambda: bool(routed.instances("SR")), seconds=PATIENCE_S, what="the report in Orthanc")
    sent = pydicom.dcmread(files[0], stop_before_pixels=True)
    (report,) = held(routed, "SR")
    (regions,) = held(routed, "SEG")
    for result in (report, regions):
        assert result.StudyInstanceUID == sent.StudyInstanceUID
        assert result.PatientID == sent.PatientID
    expected = json.loads((SCANS / "expected.json").read_text())["3-tumor-added"]["category"]
    title = {"added": "DG0003", "removed": "DG0004", "real": "DG0001", "absent": "DG0002"}[expected]
    assert report.ConceptNameCodeSequence[0].CodeValue == title
    # The page that the script adds shows the same sentence.
    (study,) = routed.get("/studies")
    page = routed.get_bytes(f"/dicomguard/report/{study}").decode()
    assert "Research use only" in page
    assert "consistent with a tumor that was added" in page
    assert report.ConceptNameCodeSequence[0].CodeMeaning in page
    # Results came back to the study and made it stable again: nothing is sent or reported twice.
    wait_for(lambda: routed.get(f"/studies/{study}")["IsStable"], seconds=30, what="a stable study")
    assert len(routed.instances("SR")) == 1
    assert len(routed.instances("SEG")) == 1
    # It vouches for what it was sent, and is told that its own images are kept.
    store = open_store(tmp_path / "var", "", SystemClock())
    try:
        wait_for(lambda: commitment_states(store) == {"committed"}, seconds=60, what="Orthanc's commitment")
    finally:
        store.close()
    images = [
        [str(sent.SOPClassUID), str(pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID)] for path in files
    ]
    asked = routed.post("/modalities/dicomguard/storage-commitment", {"DicomInstances": images})["Path"]
    wait_for(lambda: routed.get(asked)["Status"] != "Pending", seconds=60, what="the node's commitment")
    assert routed.get(asked)["Status"] == "Success"


def commitment_states(store: Store) -> set[str]:
    with store.read() as tx:
        return {state for _, state in commitments.count_by_state(tx)}
