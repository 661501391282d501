"""What each kind of instance is answered and becomes, on a live receiver."""

import json
import re
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import ImplicitVRLittleEndian

from dicomguard import part10
from dicomguard.store import counters, executors, refusals, studies
from tests.instances import ROOT, part10_bytes, part10_file
from tests.peers import Postgres, wait_for
from tests.receiver import LiveReceiver, associated, receiver, send


def conflict(folder: Path) -> Path:
    return part10_file(folder, pixels=bytes(16))


def unreadable(folder: Path) -> Path:
    """A Part 10 file whose dataset is no dataset."""
    content = part10_bytes(sop=f"{ROOT}.9")
    path = part10_file(folder)
    offset = content.index(b"\x08\x00\x16\x00")
    path.write_bytes(content[:offset] + b"\xff" * 100)
    return path


def counted(live: LiveReceiver) -> dict[str, int]:
    with live.store().read() as tx:
        return {row.name: row.value for row in counters.listing(tx) if row.peer == "ct1"}


def wait_for_repeat(live: LiveReceiver) -> None:
    """Nothing is logged of what came again: its count follows when the filer gets to it."""
    wait_for(lambda: counted(live).get("instances_repeated") == 1, what="the count of what came again")


@pytest.mark.parametrize(("more", "answer"), [("", 0xB000), ("[receive]\nconflict_warning = false", 0x0000)])
def test_answers(tmp_path: Path, more: str, answer: int) -> None:
    first = part10_file(tmp_path / "in")
    with receiver(tmp_path, more=more) as live:
        with associated(live, [first]) as association:
            assert send(association, first) == 0x0000
            assert send(association, first) == 0x0000
            assert send(association, conflict(tmp_path / "in")) == answer
            assert send(association, unreadable(tmp_path / "in")) == 0x0000
        wait_for_repeat(live)
        assert counted(live) | {"received_bytes": 0} == {
            "instances_received": 2,
            "instances_repeated": 1,
            "instances_conflicting": 1,
            "instances_quarantined": 1,
            "received_bytes": 0,
        }
        with live.store().begin() as tx:
            (line,) = studies.listing(tx, limit=9)
            studies.open_revision(tx, line.study_key, closed_because="test", now=line.received_at)
            assert [item.ordinal for item in studies.instances(tx, line.study_key, 1)] == [0, 1]
        assert len(list((live.state / "quarantine").rglob("*.dcm"))) == 1


def test_the_log_names_no_patient_and_no_uid_of_the_sender(tmp_path: Path) -> None:
    first = part10_file(tmp_path / "in", StudyDescription="SECRET-TEXT", PatientBirthDate="not a date: SECRET")
    with receiver(tmp_path) as live:
        with associated(live, [first]) as association:
            send(association, first)
            send(association, conflict(tmp_path / "in"))
            send(association, unreadable(tmp_path / "in"))
        live.stop()
        text = live.log.read_text()
    assert "SECRET" not in text
    assert ROOT not in text
    for line in text.splitlines():
        assert isinstance(json.loads(line), dict), line


def test_the_receiver_maps_no_decoder_numpy_or_torch(tmp_path: Path) -> None:
    first = part10_file(tmp_path / "in")
    with receiver(tmp_path) as live:
        with associated(live, [first]) as association:
            assert send(association, first) == 0
            assert send(association, conflict(tmp_path / "in")) == 0xB000
        maps = Path(f"/proc/{live.process.pid}/maps").read_text()
    objects = {line.split("/", 1)[1].lower() for line in maps.splitlines() if ".so" in line}
    assert objects
    foreign = re.compile("numpy|torch|openjp|libjpeg|jpeg_ls|charls|_imaging|pillow|cv2|scipy|gdcm|/rle|openblas")
    assert not [name for name in objects if foreign.search(name)]


def test_private_elements_are_kept_as_they_came(tmp_path: Path) -> None:
    """The receiver knows no private dictionary; without VRs in the file one would say how to read them."""
    known, unknown = Dataset(), Dataset()
    known.add_new((0x0029, 0x0010), "LO", "SIEMENS CSA HEADER")
    known.add_new((0x0029, 0x1008), "CS", "IMAGE NUM 4")
    known.add_new((0x0029, 0x1010), "OB", bytes(range(256)))
    unknown.add_new((0x0045, 0x0010), "LO", "NOBODY KNOWS")
    unknown.add_new((0x0045, 0x1001), "UN", b"\x01\x02\x03\x04")
    first = part10_file(tmp_path / "in")
    image = dcmread(first)
    image.update(known)
    image.update(unknown)
    image.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    image.save_as(first, implicit_vr=True, little_endian=True)
    with receiver(tmp_path) as live:
        with associated(live, [first]) as association:
            assert send(association, first) == 0
            assert send(association, first) == 0
        live.settle()
        (kept,) = (live.state / "store").rglob("*.dcm")
        wait_for_repeat(live)
    assert _dataset_bytes(kept) == _dataset_bytes(first)


def _dataset_bytes(file: Path) -> bytes:
    """What follows the file meta information (PS3.10 7.1)."""
    content = file.read_bytes()
    return content[144 + int.from_bytes(content[140:144], "little") :]


def test_a_large_object_is_never_in_memory(tmp_path: Path) -> None:
    large = part10_file(tmp_path / "in", pixels=bytes(200 << 20), Rows=1024, Columns=1024)
    with receiver(tmp_path) as live:
        with associated(live, [large]) as association:
            assert send(association, large) == 0
        status = Path(f"/proc/{live.process.pid}/status").read_text()
        peak_kib = int(re.search(r"VmHWM:\s+(\d+) kB", status).group(1))  # type: ignore[union-attr]
        (kept,) = (live.state / "store").rglob("*.dcm")
        assert kept.stat().st_size >= 200 << 20
        assert part10.pixel_sha256(kept) == part10.pixel_sha256(large)
    assert peak_kib < 150 << 10


def test_an_object_over_the_limit_is_refused_and_the_association_goes_on(tmp_path: Path) -> None:
    large = part10_file(tmp_path / "in", pixels=bytes(3 << 20))
    small = part10_file(tmp_path / "in", sop=f"{ROOT}.1.1.2")
    with receiver(tmp_path, more=f"[receive]\nmax_instance_bytes = {2 << 20}") as live:
        with associated(live, [small]) as association:
            assert send(association, large) == 0xA700
            assert send(association, small) == 0x0000
        live.settle()
        assert len(list((live.state / "store").rglob("*.dcm"))) == 1
        # Nothing of it is left on the way.
        assert not list((live.state / "store/incoming").iterdir())


def test_a_class_without_context_is_noted(tmp_path: Path) -> None:
    strange = part10_file(tmp_path / "in", sop_class="1.2.840.10008.5.1.4.1.1.999")
    with receiver(tmp_path) as live:
        with associated(live, [strange]) as association:
            assert send(association, strange) is None
        wait_for(lambda: bool(live.events("association.refused")), what="the note")
        with live.store().read() as tx:
            assert [row.reason for row in refusals.recent(tx)] == [
                "none of the proposed presentation contexts is taken"
            ]


def test_on_postgresql(tmp_path: Path, postgres_server: Postgres) -> None:
    first = part10_file(tmp_path / "in")
    with receiver(tmp_path, url=postgres_server.create("receiver")) as live:
        with associated(live, [first]) as association:
            assert send(association, first) == 0
            assert send(association, conflict(tmp_path / "in")) == 0xB000
        with live.store().read() as tx:
            (line,) = studies.listing(tx, limit=9)
            assert line.instance_count == 1
            assert [row.role for row in executors.listing(tx)] == ["receiver"]


def test_two_receivers_share_a_store(tmp_path: Path) -> None:
    first, second = part10_file(tmp_path / "in"), part10_file(tmp_path / "in", sop=f"{ROOT}.1.1.2")
    with receiver(tmp_path) as one, receiver(tmp_path) as two:
        assert one.port != two.port
        with associated(one, [first]) as to_one, associated(two, [second]) as to_two:
            assert send(to_one, first) == 0
            assert send(to_two, second) == 0
            assert send(to_two, first) == 0
        assert counted(one)["instances_received"] == 2
        with one.store().read() as tx:
            assert len(executors.listing(tx)) == 2


@pytest.mark.parametrize(("priority", "expected"), [(1, True), (0, False), (2, False)])
def test_the_priority_of_a_request_is_kept_also_over_a_kill(tmp_path: Path, priority: int, expected: bool) -> None:
    """PS3.7 E.1: 0 is medium, 1 high, 2 low."""
    first = part10_file(tmp_path / "in")
    with receiver(tmp_path) as live, associated(live, [first]) as association:
        assert association.send_c_store(first, priority=priority).Status == 0x0000
        live.kill()
    with receiver(tmp_path) as live, live.store().read() as tx:
        (study,) = studies.collecting(tx, now=live.store().clock.now())
        assert study.asked_urgent is expected
