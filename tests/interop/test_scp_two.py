"""What one receiver process promises, with two on the same ports: each of them is reached, and both keep it."""

import contextlib
import hashlib
import io
import math
import socket
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from pydicom import dcmwrite
from pydicom.dataset import FileDataset
from sqlalchemy import select

from dicomguard import headers
from dicomguard.core import wording
from dicomguard.core.freeze import freeze
from dicomguard.core.job import AnalysisJob
from dicomguard.store import associations, counters, studies, tables
from dicomguard.store.verify.inspection import Inspector
from tests import studies as pictures
from tests.fuzz import wire
from tests.instances import MR, ROOT, part10_bytes
from tests.interop.test_reload import rewrite
from tests.killing import dataset_sha256
from tests.peers import Need, Postgres, wait_for
from tests.receiver import LiveReceiver, receiver
from tests.unit.analyze.test_study import SCOPE, Judge, examined

REQUEST = wire.associate_rq([(MR, wire.EXPLICIT)], calling="CT1")
BOTH = (0, 1)


def dataset(number: int, *, pixels: bytes = bytes(16)) -> tuple[str, bytes]:
    """SOP Instance UID and dataset of one of a study."""
    sop = f"{ROOT}.9.1.{number}"
    whole = part10_bytes(study=f"{ROOT}.9", series=f"{ROOT}.9.1", sop=sop, pixels=pixels)
    return sop, whole[144 + int.from_bytes(whole[140:144], "little") :]


@dataclass(frozen=True)
class Held:
    """An open association with one of the processes."""

    connection: socket.socket
    longest: int

    def store(self, sop: str, content: bytes) -> int | None:
        """Send it whole; the status."""
        self.send(self.pdus(sop, content))
        return self.answer()

    def pdus(self, sop: str, content: bytes) -> list[bytes]:
        return wire.c_store_rq(content, sop_class=MR, sop_instance=sop, max_pdu_bytes=min(self.longest, 16384))

    def send(self, pdus: list[bytes]) -> None:
        self.connection.sendall(b"".join(pdus))

    def answer(self) -> int | None:
        return wire.status_of(wire.read_pdu(self.connection)[1])

    def ends_with(self) -> int:
        """Type of the next PDU."""
        return wire.read_pdu(self.connection)[0]


def held(live: LiveReceiver, number: int, stack: contextlib.ExitStack) -> Held:
    """Released with the stack."""
    with live.only(number):
        return Held(*stack.enter_context(wire.associated(live.port, REQUEST, timeout_s=60)))


def connected(live: LiveReceiver, stack: contextlib.ExitStack) -> Held:
    """The same with whoever takes it, and left to its end."""
    connection = stack.enter_context(socket.create_connection(("127.0.0.1", live.port), timeout=60))
    connection.sendall(REQUEST)
    kind, body = wire.read_pdu(connection)
    assert kind == wire.ASSOCIATE_AC
    return Held(connection, wire.accepted(body)[0])


def echoscu(need: Need, live: LiveReceiver, number: int, calling: str) -> str:
    """Of DCMTK, with this process: "accepted" or "rejected"."""
    command = [need("echoscu", "dcmtk"), "-v", "-aet", calling, "-aec", "DICOMGUARD", "127.0.0.1", str(live.port)]
    with live.only(number):
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    said = done.stdout + done.stderr
    assert (done.returncode == 0) is ("Association Rejected" not in said), said
    return "accepted" if done.returncode == 0 else "rejected"


def test_peers_change_in_both_and_what_is_open_goes_on_in_either(need: Need, tmp_path: Path) -> None:
    with (
        receiver(tmp_path, peers={"ct1": ("CT1", "127.0.0.1")}, processes=2) as live,
        contextlib.ExitStack() as stack,
    ):
        opened = [held(live, number, stack) for number in BOTH]
        assert [echoscu(need, live, number, "MR9") for number in BOTH] == ["rejected"] * 2
        rewrite(live, lambda text: text.replace('"CT1"', '"MR9"').replace("[peers.ct1]", "[peers.mr9]"))
        assert [echoscu(need, live, number, "MR9") for number in BOTH] == ["accepted"] * 2
        assert [echoscu(need, live, number, "CT1") for number in BOTH] == ["rejected"] * 2
        # They were let in under the old file.
        assert [opened[number].store(*dataset(number)) for number in BOTH] == [0x0000] * 2


def test_both_end_in_order_and_keep_what_they_acknowledged(tmp_path: Path) -> None:
    """On each: one that has sent, one that sends on and gets its answer, one that stops in the middle and is cut."""
    more = "[storage]\nlow_bytes = 0\nstop_bytes = 0\nlog_segment_bytes = 4194304\nlog_spill_bytes = 100000\n"
    kept: dict[str, str] = {}
    with receiver(tmp_path, more=more, processes=2) as live, contextlib.ExitStack() as stack:
        idle, sending, stalled = [], [], []
        for number in BOTH:
            with live.only(number):
                idle.append(connected(live, stack))
                sending.append(connected(live, stack))
                stalled.append(connected(live, stack))
        for number, one in enumerate(idle):
            sop, content = dataset(number)
            assert one.store(sop, content) == 0x0000
            kept[sop] = hashlib.sha256(content).hexdigest()
        rest = []
        for number, one in enumerate((*sending, *stalled)):
            sop, content = dataset(10 + number, pixels=bytes([number]) * 300_000)
            pdus = one.pdus(sop, content)
            one.send(pdus[: 2 * len(pdus) // 3])
            if one in sending:
                rest.append((one, sop, content, pdus[2 * len(pdus) // 3 :]))
        incoming = live.state / "store" / "incoming"
        wait_for(lambda: len(list(incoming.glob("*"))) == 4, what="the two that are in the middle, on each")
        for process in live.processes:
            process.terminate()
        # From here on both are ending.
        assert [one.ends_with() for one in idle] == [wire.ABORT] * 2
        for one, sop, content, pdus in rest:
            one.send(pdus)
            assert one.answer() == 0x0000
            kept[sop] = hashlib.sha256(content).hexdigest()
        assert [one.ends_with() for one in sending] == [wire.ABORT] * 2
        # After the patience the transport is closed, which is an abort, too (PS3.8 7.4).
        assert [one.ends_with() for one in stalled] == [0] * 2
        assert live.stop() == 0
        assert list(incoming.iterdir()) == []
    # The number of processes was lowered: it takes over what either left in its log.
    with receiver(tmp_path, more=more) as live:
        store = live.store()
        with store.read() as tx:
            rows = tx.execute(select(tables.instance.c.sop_uid, tables.instance.c.path)).all()
            ended = [row.how for row in associations.recent(tx)]
        assert {row.sop_uid: dataset_sha256(store.root / row.path) for row in rows} == kept
        assert ended == ["stop"] * 4
        assert Inspector(store, full=True).inspect().findings == ()


def test_an_address_has_its_rate_once_and_not_once_for_each(tmp_path: Path) -> None:
    """Five seconds' worth went to the one; who then floods the other gets what is left."""
    with receiver(tmp_path, more="[receive]\nconnections_per_s = 2\n", processes=2) as live:
        begun = time.monotonic()
        with live.only(0):
            for _ in range(10):
                with wire.associated(live.port, REQUEST, timeout_s=60):
                    pass
        with live.only(1), contextlib.ExitStack() as stack:
            flood = [
                stack.enter_context(socket.create_connection(("127.0.0.1", live.port), timeout=60)) for _ in range(30)
            ]
            admitted = sum(answered(connection) for connection in flood)
        # Who is a second too early waits for its turn.
        most = math.floor(2 * (time.monotonic() - begun + 1.0))
    assert 0 < admitted <= most, f"{admitted} of at most {most}"


def answered(connection: socket.socket) -> bool:
    """False when it was closed at the door."""
    try:
        connection.sendall(REQUEST)
        return wire.read_pdu(connection)[0] in (wire.ASSOCIATE_AC, wire.ASSOCIATE_RJ)
    except ConnectionError:
        return False


def test_who_makes_an_association_for_each_image_is_slowed_and_gets_no_error(tmp_path: Path) -> None:
    """However the connections fall to the two: less than a second's worth at once is under the rate of the address."""
    failed: list[Exception] = []

    def bring() -> None:
        for _ in range(9):
            try:
                with wire.associated(live.port, REQUEST, timeout_s=60):
                    pass
            except (OSError, AssertionError) as error:
                failed.append(error)

    with receiver(tmp_path, more="[receive]\nconnections_per_s = 8\n", processes=2) as live:
        senders = [threading.Thread(target=bring) for _ in range(7)]
        for sender in senders:
            sender.start()
        for sender in senders:
            sender.join(120)
        assert failed == []
        wait_for(lambda: bool(live.events("connection.slowed")), what="the line of the log that it was slowed")


def encoded(picture: FileDataset) -> bytes:
    """Its dataset, without the file around it."""
    target = io.BytesIO()
    dcmwrite(target, picture, enforce_file_format=True)
    whole = target.getvalue()
    return whole[144 + int.from_bytes(whole[140:144], "little") :]


@pytest.mark.parametrize(("path", "on"), [("log", "sqlite"), ("literal", "sqlite"), ("literal", "postgresql")])
def test_other_pixels_under_one_uid_brought_to_both_at_once_are_both_kept_and_said(
    path: str, on: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Exactly one of each pair is analysed; the report names every pair."""
    url = ""
    if on == "postgresql":
        server: Postgres = request.getfixturevalue("postgres_server")
        url = server.create("two_copies")
    spill_bytes = 4 << 20 if path == "log" else 1000
    more = f"[storage]\nlow_bytes = 0\nstop_bytes = 0\nlog_spill_bytes = {spill_bytes}\n"
    pairs: list[tuple[str, bytes, bytes]] = []
    for picture in pictures.series(10):
        first = encoded(picture)
        pictures.put_pixels(picture, picture.pixel_array // 2)
        pairs.append((str(picture.SOPInstanceUID), first, encoded(picture)))
    together = threading.Barrier(2)
    answers: dict[int, list[int | None]] = {0: [], 1: []}

    def bring(number: int, one: Held) -> None:
        for sop, *copies in pairs:
            pdus = one.pdus(sop, copies[number])
            together.wait(60)
            one.send(pdus)
            answers[number].append(one.answer())

    with receiver(tmp_path, more=more, url=url, processes=2) as live:
        with contextlib.ExitStack() as stack:
            opened = [held(live, number, stack) for number in BOTH]
            senders = [threading.Thread(target=bring, args=(number, opened[number])) for number in BOTH]
            for sender in senders:
                sender.start()
            for sender in senders:
                sender.join(120)
        store = live.store()
        # By the log neither may see the other, and the filer finds out; the database sees both.
        fair = [{0x0000, 0xB000}, {0x0000}][: 2 if path == "log" else 1]
        told = [set(pair) for pair in zip(answers[0], answers[1], strict=True)]
        assert len(told) == len(pairs)
        assert all(pair in fair for pair in told), told
        with store.begin() as tx:
            (line,) = studies.listing(tx, limit=9)
            number = studies.open_revision(tx, line.study_key, closed_because="test", now=line.received_at).number
            instances = studies.instances(tx, line.study_key, number)
            counted = {row.name: row.value for row in counters.listing(tx) if row.peer == "ct1"}
        copies = sorted((item.sop_instance_uid, dataset_sha256(store.root / item.path)) for item in instances)
        assert copies == sorted((sop, hashlib.sha256(copy).hexdigest()) for sop, *both in pairs for copy in both)
        places = sorted((item.sop_instance_uid, item.ordinal) for item in instances)
        assert places == sorted((sop, ordinal) for sop, *_ in pairs for ordinal in (0, 1))
        assert (counted["instances_received"], counted["instances_conflicting"]) == (2 * len(pairs), len(pairs))
        assert Inspector(store, full=True).inspect().findings == ()
    manifest = freeze(
        ((headers.read_header(store.root / item.path), item) for item in instances),
        study_instance_uid=instances[0].study_instance_uid,
        revision=number,
        opened_because="first",
        calling_ae="CT1",
        rules=(),
        scope=SCOPE,
    )
    job = AnalysisJob(manifest=manifest, files_root=str(store.root), output=str(tmp_path / "out"), weights="")
    verdict = examined(job, Judge()).verdict
    assert [item.state for item in verdict.slices].count("analysed") == len(pairs)
    assert [[copy.analysed for copy in conflict.copies] for conflict in verdict.conflicts] == [[True, False]] * len(
        pairs
    )
    said = wording.compose(verdict, manifest).conflicts
    assert len(said) == len(pairs)
    for place in range(1, 1 + len(pairs)):
        words = f"2 copies of slice {place} of series 1 with different pixels arrived under one identifier"
        assert [line.startswith(words) for line in said].count(True) == 1
