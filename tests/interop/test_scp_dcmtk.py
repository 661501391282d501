"""DCMTK against a live receiver: C-ECHO, C-STORE in each transfer syntax, bytes kept as they came."""

import hashlib
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from demo.ports import free_port, listens
from dicomguard import part10
from dicomguard.core.instance import Instance
from dicomguard.dimse.contexts import TRANSFER_SYNTAXES
from dicomguard.errors import Refused
from dicomguard.store import studies
from tests.instances import PYDICOM
from tests.peers import Need, wait_for
from tests.receiver import LiveReceiver, receiver

SENT = {
    "1.2.840.10008.1.2": "SC_rgb_jpeg_dcmd.dcm",
    "1.2.840.10008.1.2.1": "CT_small.dcm",
    "1.2.840.10008.1.2.5": "SC_rgb_rle_2frame.dcm",
    "1.2.840.10008.1.2.4.50": "SC_rgb_jpeg_dcmtk.dcm",
    "1.2.840.10008.1.2.4.51": "JPGExtended.dcm",
    "1.2.840.10008.1.2.4.70": "SC_rgb_jpeg_gdcm.dcm",
    "1.2.840.10008.1.2.4.80": "MR_small_jpeg_ls_lossless.dcm",
    "1.2.840.10008.1.2.4.81": "JPEGLSNearLossless_16.dcm",
    "1.2.840.10008.1.2.4.90": "examples_jpeg2k.dcm",
    "1.2.840.10008.1.2.4.91": "JPEG2000.dcm",
}
IMPLICIT, EXPLICIT = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"
# Lacks a Study Instance UID, so it is kept in quarantine.
NO_STUDY = "JPEGLSNearLossless_16.dcm"
# What is no image that we judge is taken too.
OTHERS = ("reportsi.dcm", "waveform_ecg.dcm", "examples_ybr_color.dcm")


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveReceiver]:
    with receiver(tmp_path_factory.mktemp("receiver")) as running:
        yield running


def instances(live: LiveReceiver) -> list[Instance]:
    found: list[Instance] = []
    with live.store().begin() as tx:
        for line in studies.listing(tx, limit=1000):
            now = line.received_at
            number = studies.open_revision(tx, line.study_key, closed_because="test", now=now).number
            found += studies.instances(tx, line.study_key, number)
    return found


def dataset_sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()[part10.dataset_offset(path) :]).hexdigest()


def dcmsend(program: str, port: int, called_ae: str, files: list[Path]) -> subprocess.CompletedProcess[str]:
    """Send unchanged: each file in the syntax that it has."""
    command = [program, "-v", "-aet", "CT1", "-aec", called_ae, "--decompress-never", "127.0.0.1", str(port)]
    return subprocess.run([*command, *map(str, files)], capture_output=True, text=True, timeout=60, check=False)


def answered(done: subprocess.CompletedProcess[str], family: str) -> int:
    """How many instances dcmsend got an answer of this family for."""
    found = re.search(rf"with status {family}\s*: (\d+)", done.stdout + done.stderr)
    return int(found.group(1)) if found else 0


def test_echo(live: LiveReceiver, need: Need) -> None:
    program = need("echoscu", "dcmtk")
    command = [program, "-aet", "CT1", "-aec", "DICOMGUARD", "127.0.0.1", str(live.port)]
    assert subprocess.run(command, timeout=30, check=False).returncode == 0


@pytest.mark.parametrize("name", [name for name in (*SENT.values(), *OTHERS) if name != NO_STUDY])
def test_each_syntax_gets_its_answer_and_the_pixels_are_kept(live: LiveReceiver, need: Need, name: str) -> None:
    program = need("dcmsend", "dcmtk")
    source = PYDICOM / name
    done = dcmsend(program, live.port, "DICOMGUARD", [source])
    # A warning where two of the files are one instance in two syntaxes.
    assert answered(done, "SUCCESS") + answered(done, "WARNING") == 1, done.stderr
    meta = part10.read_meta(source)
    # Plain datasets go out in explicit little endian, which is proposed and preferred.
    syntax = EXPLICIT if meta.transfer_syntax_uid == IMPLICIT else meta.transfer_syntax_uid
    (kept,) = [
        instance
        for instance in instances(live)
        if (instance.sop_instance_uid, instance.transfer_syntax_uid) == (meta.sop_instance_uid, syntax)
    ]
    path = live.state / kept.path
    assert part10.pixel_sha256(path) == part10.pixel_sha256(source)
    # The hash in the row is that of the bytes in the file.
    assert dataset_sha256(path) == kept.sha256
    assert kept.calling_ae == "CT1"


def test_the_bytes_are_those_that_went_over_the_wire(need: Need, tmp_path: Path) -> None:
    """DCMTK writes elements anew when it sends; its own receiver with +B keeps what arrives, and so must ours."""
    storescp, program = need("storescp", "dcmtk"), need("dcmsend", "dcmtk")
    # storescp names a file after its instance: one of each.
    files = list(
        {part10.read_meta(path).sop_instance_uid: path for path in map(PYDICOM.joinpath, SENT.values())}.values()
    )
    (tmp_path / "reference").mkdir()
    port = free_port()
    with subprocess.Popen([storescp, "+B", "+xa", "-od", str(tmp_path / "reference"), str(port)]) as reference:
        try:
            wait_for(lambda: listens(port), what="storescp")
            assert dcmsend(program, port, "ANY", files).returncode == 0
        finally:
            reference.terminate()
    with receiver(tmp_path / "ours") as live:
        assert dcmsend(program, live.port, "DICOMGUARD", files).returncode == 0
        live.settle()
        ours = {dataset_sha256(path) for path in live.state.rglob("*.dcm")}
        assert len(list((live.state / "quarantine").rglob("*.dcm"))) == 1
    theirs = {dataset_sha256(path) for path in (tmp_path / "reference").iterdir()}
    assert len(ours) == len(files) >= 8
    assert ours == theirs


def test_storescu_with_many_syntaxes_a_class_and_one_association(need: Need, tmp_path: Path) -> None:
    program = need("storescu", "dcmtk")
    files = [PYDICOM / "CT_small.dcm", PYDICOM / "MR_small.dcm"]
    with receiver(tmp_path) as live:
        command = [program, "-v", "-R", "-aet", "CT1", "-aec", "DICOMGUARD", "127.0.0.1", str(live.port)]
        done = subprocess.run([*command, *map(str, files)], capture_output=True, text=True, timeout=30, check=False)
        assert (done.stdout + done.stderr).count("(Success)") == 2
        assert len(instances(live)) == 2


def test_real_files_in_every_syntax(need: Need, shared_data: Path, tmp_path: Path) -> None:
    """Real objects of the WG04 set and odd ones; every one that DCMTK can send is kept."""
    program = need("dcmsend", "dcmtk")
    for name in ("wg04-syntaxes", "syntaxes-and-odd"):
        shutil.unpack_archive(shared_data / "dicom" / f"{name}.tar.xz", tmp_path / "in")
    files = [path for path in sorted((tmp_path / "in").rglob("*")) if path.is_file() and is_sendable(path)]
    assert len(files) >= 10
    with receiver(tmp_path / "state") as live:
        for path in files:
            done = dcmsend(program, live.port, "DICOMGUARD", [path])
            # Some of them are one instance in several syntaxes: a conflict, said as a warning.
            assert answered(done, "SUCCESS") + answered(done, "WARNING") == 1, done.stderr
        kept = instances(live)
        assert {instance.sop_instance_uid for instance in kept} == {
            part10.read_meta(path).sop_instance_uid for path in files
        }
        for instance in kept:
            assert dataset_sha256(live.state / instance.path) == instance.sha256


def is_sendable(path: Path) -> bool:
    try:
        return part10.read_meta(path).transfer_syntax_uid in TRANSFER_SYNTAXES
    except Refused:
        return False
