"""A real Orthanc as the sender: a study goes out of it and is kept."""

from pathlib import Path

from dicomguard import part10
from dicomguard.store import studies
from tests.instances import PYDICOM, ROOT, part10_file
from tests.peers import Need, orthanc
from tests.receiver import receiver


def test_orthanc_sends_a_study(need: Need, tmp_path: Path) -> None:
    files = [part10_file(tmp_path / "in", sop=f"{ROOT}.1.1.{number}") for number in range(1, 6)]
    files.append(PYDICOM / "JPEG2000.dcm")
    with receiver(tmp_path, peers={"orthanc": ("ORTHANC", "127.0.0.1")}) as live:
        modalities = {"node": ["DICOMGUARD", "127.0.0.1", live.port]}
        with orthanc(need, tmp_path / "orthanc", modalities=modalities) as pacs:
            for file in files:
                pacs.post("/instances", file.read_bytes())
            assert pacs.post("/modalities/node/echo", {}) == {}
            done = pacs.post("/modalities/node/store", pacs.get("/studies"))
            assert done["FailedInstancesCount"] == 0
            assert done["InstancesCount"] == len(files)
        with live.store().begin() as tx:
            lines = studies.listing(tx, limit=9)
            assert sorted(line.instance_count for line in lines) == [1, 5]
            assert {line.calling_ae for line in lines} == {"ORTHANC"}
            kept = []
            for line in lines:
                studies.open_revision(tx, line.study_key, closed_because="test", now=line.received_at)
                kept += studies.instances(tx, line.study_key, 1)
    pixels = {part10.read_meta(file).sop_instance_uid: part10.pixel_sha256(file) for file in files}
    assert {item.sop_instance_uid: part10.pixel_sha256(live.state / item.path) for item in kept} == pixels
