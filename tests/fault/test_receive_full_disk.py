"""A receiver without room answers 0xA700, lets only an echo in, and resumes by itself."""

import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pynetdicom.sop_class import Verification

from dicomguard.dimse.ae import make_ae
from dicomguard.store import refusals
from tests.instances import ROOT, part10_file
from tests.killing import dataset_sha256
from tests.peers import wait_for
from tests.receiver import LiveReceiver, associated, receiver, send

MIB = 1 << 20


def echo(live: LiveReceiver) -> bool:
    ae = make_ae("CT1")
    ae.add_requested_context(Verification)
    association = ae.associate("127.0.0.1", live.port, ae_title="DICOMGUARD")
    if not association.is_established:
        return False
    answer = association.send_c_echo()
    association.release()
    return "Status" in answer and int(answer.Status) == 0


def test_low_disk_stops_reception_but_not_the_echo(tmp_path: Path) -> None:
    """No disk has what is asked for here, whatever others write to it or take off it meanwhile."""
    file = part10_file(tmp_path / "in")
    with receiver(tmp_path, more=f"[storage]\nlow_bytes = 0\nstop_bytes = {1 << 50}") as live:
        wait_for(lambda: bool(live.events("reception.stopped")), what="the stop")
        with associated(live, [file]) as refused:
            assert refused.is_rejected
            answer = refused.acceptor.primitive
            # Transient, presentation related, temporary congestion.
            assert (answer.result, answer.result_source, answer.diagnostic) == (2, 3, 1)
        assert echo(live)
        wait_for(lambda: bool(live.events("association.refused")), what="the note")
        with live.store().read() as tx:
            assert [row.reason for row in refusals.recent(tx)] == ["the store has no room"]


def test_a_write_that_fails_midway_is_answered_and_the_association_goes_on(tmp_path: Path) -> None:
    """No file of the process may pass 8 MiB, so the dataset of 10 MiB fails in the middle, as on a full disk."""
    large = part10_file(tmp_path / "in", pixels=bytes(10 * MIB))
    small = part10_file(tmp_path / "in", sop=f"{ROOT}.1.1.2")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with receiver(tmp_path) as live, associated(live, [small]) as association:
        resource.prlimit(live.process.pid, resource.RLIMIT_FSIZE, (8 * MIB, before[1]))
        assert send(association, large) == 0xA700
        assert send(association, small) == 0
        resource.prlimit(live.process.pid, resource.RLIMIT_FSIZE, before)
        assert send(association, large) == 0
        assert not list((live.state / "store/incoming").iterdir())


def _mount(folder: Path, *, size_bytes: int) -> bool:
    command = ["mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "none", str(folder)]
    try:
        return subprocess.run(command, capture_output=True, timeout=20, check=False).returncode == 0
    except FileNotFoundError:
        return False


def _can_mount() -> bool:
    """Only root with the right to mount can make a small file system."""
    if os.geteuid() != 0:
        return False
    probe = Path(sys.prefix) / f"mount-probe-{os.getpid()}"
    probe.mkdir()
    mounted = _mount(probe, size_bytes=MIB)
    if mounted:
        subprocess.run(["umount", str(probe)], timeout=20, check=False)
    probe.rmdir()
    return mounted


if _can_mount():
    # Where mounting is not allowed the test above stands for these.

    @pytest.fixture
    def small_disk(tmp_path: Path) -> Iterator[Path]:
        folder = tmp_path / "small"
        folder.mkdir()
        assert _mount(folder, size_bytes=6 * MIB)
        yield folder
        subprocess.run(["umount", "-l", str(folder)], timeout=20, check=True)

    def test_a_full_file_system_loses_nothing_that_was_acknowledged(small_disk: Path, tmp_path: Path) -> None:
        """Fill 6 MiB with instances until 0xA700; all answered with Success are whole; make room; it goes on."""
        files = [part10_file(tmp_path / "in", sop=f"{ROOT}.1.1.{number}", pixels=bytes(MIB)) for number in range(9)]
        (small_disk / "state").mkdir()
        ballast = small_disk / "ballast"
        ballast.write_bytes(bytes(2 * MIB))
        with receiver(small_disk) as live, associated(live, files) as association:
            answers = {path: send(association, path) for path in files}
            assert set(answers.values()) == {0x0000, 0xA700}
            taken = [path for path, status in answers.items() if status == 0]
            assert len(list((live.state / "store").rglob("*.dcm"))) >= len(taken)
            ballast.unlink()
            failed = next(path for path, status in answers.items() if status == 0xA700)
            assert send(association, failed) == 0
            for path in taken:
                # The same bytes again: known, with its file.
                assert send(association, path) == 0
            assert len(list((live.state / "store").rglob("*.dcm"))) == len(taken) + 1

    def test_what_the_log_took_is_filed_when_there_is_room_again(tmp_path: Path) -> None:
        """1. the log has its place, the store has none left; 2. 0xA700; 3. room: all that was acknowledged is filed."""
        disk = tmp_path / "small"
        disk.mkdir()
        assert _mount(disk, size_bytes=20 * MIB)
        files = [part10_file(tmp_path / "in", sop=f"{ROOT}.1.1.{n}", pixels=bytes([n]) * MIB) for n in range(12)]
        more = f"[storage]\nlow_bytes = 0\nstop_bytes = 0\nlog_segments = 2\nlog_segment_bytes = {4 * MIB}"
        try:
            ballast = disk / "ballast"
            with receiver(disk, more=more) as live, associated(live, files) as association:
                ballast.write_bytes(bytes(shutil.disk_usage(disk).free - 3 * MIB))
                answers = {path: send(association, path) for path in files}
                assert set(answers.values()) == {0x0000, 0xA700}
                taken = [path for path, status in answers.items() if status == 0]
                ballast.unlink()
                live.settle()
                kept = [path for path in (live.state / "store").rglob("*.dcm") if path.stat().st_size > MIB]
                assert len(kept) == len(taken)
                # It resumes by itself.
                refused = next(path for path, status in answers.items() if status == 0xA700)
                assert send(association, refused) == 0
                # A receiver that dies now has lost nothing either.
                live.kill()
            with receiver(disk, more=more) as again:
                again.settle()
                kept = list((again.state / "store").rglob("*.dcm"))
                assert len(kept) == len(taken) + 1
                assert all(path.stem == dataset_sha256(path) for path in kept)
        finally:
            subprocess.run(["umount", "-l", str(disk)], timeout=20, check=True)

    def test_reception_stops_on_an_open_association_and_resumes_by_itself(small_disk: Path, tmp_path: Path) -> None:
        """1. room; 2. none: 0xA700, no new association, an echo is answered; 3. room: the next sender gets in."""
        first, second = part10_file(tmp_path / "in"), part10_file(tmp_path / "in", sop=f"{ROOT}.1.1.2")
        ballast = small_disk / "ballast"
        with receiver(small_disk, more=f"[storage]\nlow_bytes = 0\nstop_bytes = {MIB}") as live:
            with associated(live, [first]) as association:
                assert send(association, first) == 0
                ballast.write_bytes(bytes(5 * MIB))
                wait_for(lambda: bool(live.events("reception.stopped")), what="the stop")
                assert send(association, second) == 0xA700
            with associated(live, [second]) as association:
                assert association.is_rejected
            assert echo(live)
            ballast.unlink()
            with associated(live, [second]) as association:
                assert send(association, second) == 0
            wait_for(lambda: bool(live.events("reception.resumed")), what="the resumption")
