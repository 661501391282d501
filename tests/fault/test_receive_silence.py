"""Peers that fall silent or speak something else are cut, and others are served meanwhile."""

import contextlib
import socket
import time
from pathlib import Path

from pynetdicom import evt
from pynetdicom.sop_class import Verification

from dicomguard.dimse.ae import make_ae
from tests.instances import part10_file
from tests.peers import wait_for
from tests.receiver import LiveReceiver, associated, receiver, send

IDLE = "[receive]\nidle_s = 1.5\nmax_associations = 20"


def closed_within(peer: socket.socket, seconds: float) -> bool:
    """Whether the other side hangs up (after an A-ABORT or without)."""
    peer.settimeout(seconds)
    deadline = time.monotonic() + seconds
    with contextlib.suppress(TimeoutError):
        while time.monotonic() < deadline:
            try:
                if peer.recv(1024) == b"":
                    return True
            except ConnectionResetError:
                return True
    return False


def echo_s(live: LiveReceiver) -> float:
    """Seconds for a good peer's C-ECHO."""
    started = time.monotonic()
    ae = make_ae("CT1")
    ae.add_requested_context(Verification)
    association = ae.associate("127.0.0.1", live.port, ae_title="DICOMGUARD")
    assert association.is_established
    assert int(association.send_c_echo().Status) == 0
    association.release()
    return time.monotonic() - started


def test_an_idle_association_is_ended_and_its_row_too(tmp_path: Path) -> None:
    file = part10_file(tmp_path / "in")
    with receiver(tmp_path, more=IDLE) as live, associated(live, [file]) as association:
        assert send(association, file) == 0
        wait_for(lambda: not association.is_established, seconds=10, what="the end of the idle association")


def test_half_a_pdu_and_silence(tmp_path: Path) -> None:
    """A-ASSOCIATE-RQ says 200 bytes and brings 10."""
    with receiver(tmp_path, more=IDLE) as live, socket.create_connection(("127.0.0.1", live.port)) as peer:
        peer.sendall(b"\x01\x00\x00\x00\x00\xc8" + bytes(10))
        assert echo_s(live) < 5
        assert closed_within(peer, 15)


def test_a_pdu_that_claims_four_gigabytes_is_cut_at_once(tmp_path: Path) -> None:
    def peak_kib() -> int:
        return int(Path(f"/proc/{live.process.pid}/status").read_text().split("VmHWM:")[1].split()[0])

    with receiver(tmp_path, more=IDLE) as live:
        before = peak_kib()
        with socket.create_connection(("127.0.0.1", live.port)) as peer:
            peer.sendall(b"\x01\x00\xff\xff\xff\xff")
            with contextlib.suppress(ConnectionError):
                for _ in range(1000):
                    peer.sendall(bytes(1 << 16))
            assert closed_within(peer, 15)
        assert echo_s(live) < 5
        assert peak_kib() < before + (16 << 10)


def test_a_dripping_pdu_is_cut_although_it_never_falls_silent(tmp_path: Path) -> None:
    with receiver(tmp_path, more=IDLE) as live, socket.create_connection(("127.0.0.1", live.port)) as peer:
        peer.sendall(b"\x01\x00\x00\x00\x00\xc8")
        started = time.monotonic()
        with contextlib.suppress(ConnectionError):
            while time.monotonic() < started + 20:
                peer.sendall(b"\0")
                time.sleep(0.3)
        assert time.monotonic() < started + 15


def test_what_is_no_pdu_is_cut_and_the_receiver_lives(tmp_path: Path) -> None:
    with receiver(tmp_path, more=IDLE) as live:
        for garbage in (
            b"GET / HTTP/1.1\r\n\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc",
            b"\x04\x00\x00\x00\x00\x04abcd",
        ):
            with socket.create_connection(("127.0.0.1", live.port)) as peer:
                peer.sendall(garbage)
                peer.shutdown(socket.SHUT_WR)
                assert closed_within(peer, 15)
        assert echo_s(live) < 5
        assert live.process.poll() is None


def test_an_aborted_transfer_leaves_nothing_behind(tmp_path: Path) -> None:
    """1. an association sends half a dataset; 2. its connection is cut; 3. no file stays, the next sender is served."""
    file = part10_file(tmp_path / "in", pixels=bytes(4 << 20))
    with receiver(tmp_path) as live:
        with associated(live, [file]) as association:
            pdus = 0

            def cut_after_five(_: object) -> None:
                nonlocal pdus
                pdus += 1
                if pdus == 5:
                    association.dul.socket.close()

            association.bind(evt.EVT_PDU_SENT, cut_after_five)
            assert send(association, file) is None
        with associated(live, [file]) as again:
            assert send(again, file) == 0
        wait_for(lambda: not list((live.state / "store/incoming").iterdir()), what="an empty folder")
        assert len(list((live.state / "store").rglob("*.dcm"))) == 1
