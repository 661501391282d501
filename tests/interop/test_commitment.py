"""Storage commitment in both directions (PS3.4 annex J), against Orthanc and against scripted peers of pynetdicom."""

import contextlib
import itertools
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import AE, evt
from pynetdicom.events import Event
from pynetdicom.presentation import build_context, build_role
from pynetdicom.sop_class import (
    Comprehensive3DSRStorage,
    ComprehensiveSRStorage,
    SegmentationStorage,
    StorageCommitmentPushModel,
    StorageCommitmentPushModelInstance,
)

from demo.ports import free_port
from dicomguard import part10
from dicomguard.clock import Clock, FakeClock, SystemClock
from dicomguard.core import commitment as core
from dicomguard.core.commitment import Commitment, Patience, Reference, State
from dicomguard.core.delivery import Backoff, Delivery
from dicomguard.core.peer import Destination
from dicomguard.deliver.association import Timeouts
from dicomguard.flow import commitment, delivery
from dicomguard.flow.study import items_of
from dicomguard.store import commitments, deliveries, results, studies
from dicomguard.store.db import Limits, Store, open_store
from tests import web_cases
from tests.instances import ROOT, part10_file
from tests.peers import Postgres, orthanc, wait_for
from tests.receiver import LiveReceiver, associated, receiver, send

Need = Callable[[str, str], str]
QUICK = Timeouts(connect_s=5, answer_s=10)
CLASS, INSTANCE = StorageCommitmentPushModel, StorageCommitmentPushModelInstance
_NUMBERS = itertools.count()
PEERS = {"ct1": ("CT1", "127.0.0.1"), "archive": ("ARCHIVE", "127.0.0.1"), "orthanc": ("ORTHANC", "127.0.0.1")}


def planned(store: Store, folder: Path, *, destination: str) -> tuple[str, Delivery]:
    """A judged study whose SEG and SR wait for their delivery."""
    key = web_cases.receive(store, folder, web_cases.datasets())
    web_cases.judge(store, key, "added", state="delivering")
    now = store.clock.now()
    with store.begin() as tx:
        items = items_of(results.of_revision(tx, key, 1))
        way = Delivery(study_key=key, revision=1, destination=destination, items=items, planned_at=now, next_at=now)
        deliveries.plan(tx, [way])
    return key, way


@dataclass
class Worker:
    """Delivers, and asks for commitment, as the workflows do."""

    store: Store
    key: str
    peer: Destination
    clock: Clock
    linger_s: float = 2.0
    patience: Patience = field(default_factory=Patience)

    def deliver(self, state: str = "sent") -> None:
        """The attempt that is due, and where it ends."""
        settings = delivery.Settings(
            calling_ae="DICOMGUARD", destinations={self.peer.name: self.peer}, backoff=Backoff(), timeouts=QUICK
        )
        work = delivery.DeliveryWork(store=self.store, clock=self.clock, settings=settings)
        with self.store.read() as tx:
            way = deliveries.get(tx, self.key, 1, self.peer.name)
        assert way is not None
        assert work.attempt(self.key, 1, self.peer.name, way.attempt)["state"] == state

    def work(self) -> commitment.CommitmentWork:
        return commitment.CommitmentWork(
            store=self.store,
            clock=self.clock,
            settings=commitment.Settings(
                calling_ae="DICOMGUARD",
                destinations={self.peer.name: self.peer},
                patience=self.patience,
                timeouts=QUICK,
                linger_s=self.linger_s,
            ),
        )

    def commit(self) -> str:
        """The attempt that is due."""
        value = self.value()
        return self.work().attempt(self.key, 1, self.peer.name, value.attempt)

    def value(self) -> Commitment:
        with self.store.read() as tx:
            value = commitments.get(tx, self.key, 1, self.peer.name)
        assert value is not None
        return value


# --- scripted archives -----------------------------------------------------------------------------------------------


@dataclass
class Archive:
    """An SCP of storage and storage commitment; `reasons` are the Failure Reasons of the n-th question by class."""

    port: int
    reasons: list[dict[str, int]] = field(default_factory=list)
    stored: list[str] = field(default_factory=list)
    asked: list[list[str]] = field(default_factory=list)
    reported: list[int] = field(default_factory=list)
    # SOP classes that storage refuses from now on (A900).
    refuses: set[str] = field(default_factory=set)


@contextlib.contextmanager
def archive(*reasons: dict[str, int], answer: str, to: int = 0) -> Iterator[Archive]:
    """`answer`: "same" association, a "new" one to the port `to`, or "never"."""
    made = Archive(free_port(), list(reasons))
    threads: list[threading.Thread] = []

    def store(event: Event) -> int:
        if event.request.AffectedSOPClassUID in made.refuses:
            return 0xA900
        made.stored.append(str(event.dataset.SOPClassUID))
        return 0x0000

    def action(event: Event) -> tuple[int, None]:
        question = event.action_information
        references = list(question.ReferencedSOPSequence)
        made.asked.append([str(item.ReferencedSOPClassUID) for item in references])
        failing = made.reasons.pop(0) if made.reasons else {}
        report = Dataset()
        report.TransactionUID = question.TransactionUID
        good = [item for item in references if item.ReferencedSOPClassUID not in failing]
        bad = [item for item in references if item.ReferencedSOPClassUID in failing]
        for item in bad:
            item.FailureReason = failing[item.ReferencedSOPClassUID]
        if good:
            report.ReferencedSOPSequence = good
        if bad:
            report.FailedSOPSequence = bad
        if answer != "never":
            association = event.assoc if answer == "same" else None
            threads.append(threading.Thread(target=tell, args=(association, report, 2 if bad else 1)))
            threads[-1].start()
        return 0x0000, None

    def tell(association: Any, report: Dataset, kind: int) -> None:
        own = None
        if association is None:
            association = own = new_association(to, "ARCHIVE")
        else:
            # Behind the response to the question.
            threading.Event().wait(0.3)
        status, _ = association.send_n_event_report(report, kind, CLASS, INSTANCE)
        made.reported.append(int(status.Status))
        if own is not None:
            own.release()

    ae = AE("ARCHIVE")
    for sop_class in (Comprehensive3DSRStorage, ComprehensiveSRStorage, SegmentationStorage):
        ae.add_supported_context(sop_class, ExplicitVRLittleEndian)
    ae.add_supported_context(CLASS)
    handlers = [(evt.EVT_C_STORE, store), (evt.EVT_N_ACTION, action)]
    server = ae.start_server(("127.0.0.1", made.port), block=False, evt_handlers=handlers)
    try:
        yield made
        for thread in threads:
            thread.join(20)
    finally:
        server.shutdown()


def new_association(port: int, title: str) -> Any:
    """As SCP of storage commitment, which the role selection says."""
    association = AE(title).associate(
        "127.0.0.1",
        port,
        contexts=[build_context(CLASS)],
        ae_title="DICOMGUARD",
        ext_neg=[build_role(CLASS, scp_role=True)],
    )
    assert association.is_established
    return association


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(SystemClock().now())


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest) -> str:
    """Of a database of this test."""
    if request.param == "sqlite":
        return ""
    server: Postgres = request.getfixturevalue("postgres_server")
    return server.create(f"commitment-{next(_NUMBERS)}")


@pytest.fixture
def store(tmp_path: Path, clock: FakeClock, url: str) -> Iterator[Store]:
    opened = open_store(tmp_path / "state", url, clock, limits=Limits(low_bytes=1, stop_bytes=1))
    yield opened
    opened.close()


def worker(store: Store, folder: Path, clock: Clock, port: int, *, linger_s: float = 5.0) -> Worker:
    peer = Destination(name="archive", ae_title="ARCHIVE", host="127.0.0.1", port=port, commitment=True)
    key, _ = planned(store, folder, destination="archive")
    return Worker(store, key, peer, clock, linger_s=linger_s)


def test_a_report_on_the_same_association(store: Store, tmp_path: Path, clock: FakeClock) -> None:
    with archive(answer="same") as peer:
        work = worker(store, tmp_path / "in", clock, peer.port)
        work.deliver()
        assert work.value().state is State.DUE
        assert work.commit() == "asked"
    assert work.value().state is State.COMMITTED
    assert peer.asked == [[SegmentationStorage, Comprehensive3DSRStorage]]
    assert peer.reported == [0x0000]


def test_what_is_not_there_is_sent_again_once(store: Store, tmp_path: Path, clock: FakeClock) -> None:
    lost = {Comprehensive3DSRStorage: core.NO_SUCH_INSTANCE}
    with archive(lost, lost, answer="same") as peer:
        work = worker(store, tmp_path / "in", clock, peer.port)
        work.deliver()
        work.commit()
        assert work.value().comment == "not committed: 1 × no such object instance"
        assert work.commit() == "due"
        with store.read() as tx:
            assert studies.state(tx, work.key, 1) == "delivering"
        # Nothing to ask before it has arrived.
        assert work.value().next_at is None
        work.deliver()
        with store.read() as tx:
            assert studies.state(tx, work.key, 1) == "done"
        work.commit()
        assert peer.stored == [SegmentationStorage, Comprehensive3DSRStorage, Comprehensive3DSRStorage]
        # Only what is open is asked about.
        assert peer.asked == [[SegmentationStorage, Comprehensive3DSRStorage], [Comprehensive3DSRStorage]]
        assert work.commit() == "failed"
    assert work.value().state is State.FAILED
    assert len(peer.stored) == 3


def test_what_is_refused_when_it_is_sent_again_is_not_asked_about(
    store: Store, tmp_path: Path, clock: FakeClock
) -> None:
    with archive({SegmentationStorage: core.NO_SUCH_INSTANCE}, answer="same") as peer:
        work = worker(store, tmp_path / "in", clock, peer.port)
        work.deliver()
        work.commit()
        assert work.commit() == "due"
        peer.refuses.add(SegmentationStorage)
        work.deliver("refused")
        # What arrived is committed; nobody is asked about nothing.
        assert (work.value().state, work.value().next_at) == (State.COMMITTED, None)
        assert work.commit() == "overtaken"
    assert len(peer.asked) == 1


def test_a_destination_that_is_short_of_room_is_asked_again(store: Store, tmp_path: Path, clock: FakeClock) -> None:
    with archive({SegmentationStorage: core.RESOURCE_LIMITATION}, answer="same") as peer:
        work = worker(store, tmp_path / "in", clock, peer.port)
        work.deliver()
        work.commit()
        assert work.commit() == "overtaken"
        clock.advance(timedelta(minutes=15))
        work.commit()
    assert work.value().state is State.COMMITTED
    assert peer.asked[1] == [SegmentationStorage]


def test_no_report_is_asked_for_again_after_the_deadline_and_given_up(
    store: Store, tmp_path: Path, clock: FakeClock
) -> None:
    with archive(answer="never") as peer:
        work = worker(store, tmp_path / "in", clock, peer.port, linger_s=0.1)
        work.deliver()
        work.commit()
        first = work.value()
        assert (first.state, first.next_at) == (State.ASKED, clock.now() + timedelta(hours=24))
        assert work.commit() == "overtaken"
        clock.advance(timedelta(hours=24))
        work.commit()
        assert work.value().transaction_uid != first.transaction_uid
        clock.advance(timedelta(days=7))
        assert work.commit() == "failed"
    assert len(peer.asked) == 2


def test_a_destination_without_the_service_is_asked_later(store: Store, tmp_path: Path, clock: FakeClock) -> None:
    with archive(answer="never") as peer:
        work = worker(store, tmp_path / "in", clock, peer.port)
        work.deliver()
    assert work.commit() == "asked"
    value = work.value()
    assert (value.state, value.next_at) == (State.DUE, clock.now() + timedelta(minutes=15))
    assert "cannot be reached" in value.comment


def test_a_destination_that_is_not_asked_any_more_holds_nothing_up(
    store: Store, tmp_path: Path, clock: FakeClock
) -> None:
    with archive(answer="same") as peer:
        work = worker(store, tmp_path / "in", clock, peer.port)
        work.deliver()
    work.peer = Destination(name="archive", ae_title="ARCHIVE", host="127.0.0.1", port=peer.port)
    assert work.commit() == "dropped"
    with store.read() as tx:
        assert commitments.of_study(tx, work.key) == []


# --- our own port ----------------------------------------------------------------------------------------------------


def live_worker(live: LiveReceiver, folder: Path, peer: Destination) -> Worker:
    store = live.store()
    key, _ = planned(store, folder, destination=peer.name)
    return Worker(store, key, peer, SystemClock(), linger_s=0.1)


def test_a_report_on_a_new_association_to_our_port(tmp_path: Path, url: str) -> None:
    with receiver(tmp_path, peers=PEERS, url=url) as live, archive(answer="new", to=live.port) as peer:
        at = Destination(name="archive", ae_title="ARCHIVE", host="127.0.0.1", port=peer.port, commitment=True)
        work = live_worker(live, tmp_path / "in", at)
        work.deliver()
        work.commit()
        wait_for(lambda: work.value().state is State.COMMITTED, what="the commitment")
        wait_for(lambda: peer.reported == [0x0000], what="the answer to the report")
        # Once more, and to a question that nobody asked.
        for transaction_uid in (work.value().transaction_uid, "2.25.99"):
            report = Dataset()
            report.TransactionUID = transaction_uid
            report.ReferencedSOPSequence = []
            association = new_association(live.port, "ARCHIVE")
            status, _ = association.send_n_event_report(report, 1, CLASS, INSTANCE)
            assert status.Status == 0x0110
            association.release()
        assert len(live.events("commitment.refused")) == 2


def question(live: LiveReceiver, transaction_uid: str, references: list[tuple[str, str]], *, title: str) -> int:
    """N-ACTION as a modality; the status."""
    asked = Dataset()
    asked.TransactionUID = transaction_uid
    asked.ReferencedSOPSequence = []
    for sop_class, sop_instance in references:
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class, sop_instance
        asked.ReferencedSOPSequence.append(item)
    association = AE(title).associate("127.0.0.1", live.port, contexts=[build_context(CLASS)], ae_title="DICOMGUARD")
    assert association.is_established
    status, _ = association.send_n_action(asked, 1, CLASS, INSTANCE)
    association.release()
    return int(status.Status)


@contextlib.contextmanager
def modality(port: int) -> Iterator[list[Dataset]]:
    """What is reported to a modality that listens."""
    reports: list[Dataset] = []

    def reported(event: Event) -> tuple[int, None]:
        reports.append(event.event_information)
        return 0x0000, None

    ae = AE("CT1")
    ae.add_supported_context(CLASS, scu_role=True, scp_role=True)
    handlers = [(evt.EVT_N_EVENT_REPORT, reported)]
    server = ae.start_server(("127.0.0.1", port), block=False, evt_handlers=handlers)
    try:
        yield reports
    finally:
        server.shutdown()


def to_modality(port: int) -> str:
    return f'[destinations.ct]\nae_title = "CT1"\nhost = "127.0.0.1"\nport = {port}'


def test_a_modality_is_told_what_is_kept_and_what_is_not(tmp_path: Path, url: str) -> None:
    files = [part10_file(tmp_path / "in", sop=f"{ROOT}.1.1.{number}") for number in range(3)]
    port = free_port()
    metas = [part10.read_meta(file) for file in files]
    names = [(meta.sop_class_uid, meta.sop_instance_uid) for meta in metas]
    wrong = [("1.2.840.10008.5.1.4.1.1.7", names[2][1]), (names[0][0], f"{ROOT}.9.9")]
    with receiver(tmp_path, peers=PEERS, more=to_modality(port), url=url) as live:
        with associated(live, files) as association:
            assert [send(association, file) for file in files] == [0, 0, 0]
        assert question(live, "2.25.7", [*names[:2], *wrong], title="CT1") == 0x0000
        # The same once more is answered once more; other instances under its UID are refused.
        assert question(live, "2.25.7", [*names[:2], *wrong], title="CT1") == 0x0000
        assert question(live, "2.25.7", names, title="CT1") == 0x0110
        assert question(live, "2.25.8", [], title="CT1") == 0x0110
        # Nobody could be told.
        assert question(live, "2.25.9", names, title="ARCHIVE") == 0x0110
        store = live.store()
        torn = next(path for path in store.root.rglob("*.dcm") if names[1][1].encode() in path.read_bytes())
        torn.write_bytes(torn.read_bytes()[:-4])
        with store.read() as tx:
            (request,) = commitments.requests(tx, now=SystemClock().now())
        work = Worker(store, "", Destination(name="ct", ae_title="CT1", host="127.0.0.1", port=port), SystemClock())
        # It does not listen yet.
        assert work.work().report(request.key, request.attempt) == "waiting"
        with modality(port) as reports:
            assert work.work().report(request.key, request.attempt) == "overtaken"
            assert work.work().report(request.key, request.attempt + 1) == "answered"
    (report,) = reports
    assert report.TransactionUID == "2.25.7"
    assert [item.ReferencedSOPInstanceUID for item in report.ReferencedSOPSequence] == [names[0][1]]
    failed = {item.ReferencedSOPInstanceUID: item.FailureReason for item in report.FailedSOPSequence}
    assert failed == {names[1][1]: 0x0112, names[2][1]: 0x0119, f"{ROOT}.9.9": 0x0112}


def test_what_is_no_question_is_answered_so(tmp_path: Path) -> None:
    with receiver(tmp_path, peers=PEERS, more=to_modality(free_port())) as live:
        association = AE("CT1").associate(
            "127.0.0.1", live.port, contexts=[build_context(CLASS)], ae_title="DICOMGUARD"
        )
        asked = Dataset()
        asked.TransactionUID = "2.25.7"
        for action, instance, status in ((2, INSTANCE, 0x0123), (1, "1.2.3", 0x0112), (1, INSTANCE, 0x0110)):
            answer, _ = association.send_n_action(asked, action, CLASS, instance)
            assert answer.Status == status
        association.release()


# --- Orthanc ---------------------------------------------------------------------------------------------------------


def test_orthanc_commits_itself_to_our_results(need: Need, tmp_path: Path) -> None:
    with receiver(tmp_path, peers=PEERS) as live:
        known = {"guard": ["DICOMGUARD", "127.0.0.1", live.port]}
        with orthanc(need, tmp_path / "orthanc", modalities=known) as peer:
            at = Destination(name="orthanc", ae_title="ORTHANC", host="127.0.0.1", port=peer.port, commitment=True)
            work = live_worker(live, tmp_path / "in", at)
            work.deliver()
            assert work.commit() == "asked"
            wait_for(lambda: work.value().state is State.COMMITTED, seconds=60, what="Orthanc's commitment")
            # What it has lost is sent again, and then it has it.
            with work.store.begin() as tx:
                commitments.save(tx, lost(work.value()))
            for id in peer.instances("SEG"):
                peer.delete(f"/instances/{id}")
            work.commit()
            wait_for(lambda: work.value().state is State.ANSWERED, seconds=60, what="Orthanc's refusal")
            assert work.commit() == "due"
            work.deliver()
            assert len(peer.instances("SEG")) == 1
            work.commit()
            wait_for(lambda: work.value().state is State.COMMITTED, seconds=60, what="Orthanc's second commitment")


def lost(value: Commitment) -> Commitment:
    """As if nothing had been committed yet."""
    parts = tuple(core.Part(reference=part.reference) for part in value.parts)
    return core.renew(replace(value, parts=parts), now=SystemClock().now())


def test_orthanc_is_told_that_its_images_are_kept(need: Need, tmp_path: Path) -> None:
    file = part10_file(tmp_path / "in")
    meta = part10.read_meta(file)
    orthanc_port = free_port()
    more = f'[destinations.orthanc]\nae_title = "ORTHANC"\nhost = "127.0.0.1"\nport = {orthanc_port}'
    with receiver(tmp_path, peers=PEERS, more=more) as live:
        known = {"guard": ["DICOMGUARD", "127.0.0.1", live.port]}
        settings = {"DicomPort": orthanc_port}
        with orthanc(need, tmp_path / "orthanc", modalities=known, settings=settings) as peer:
            id = peer.post("/instances", file.read_bytes())["ID"]
            peer.post("/modalities/guard/store", [id])
            references = [[meta.sop_class_uid, meta.sop_instance_uid], [meta.sop_class_uid, "1.2.3.4"]]
            asked = peer.post("/modalities/guard/storage-commitment", {"DicomInstances": references})
            store = live.store()
            with store.read() as tx:
                (request,) = commitments.requests(tx, now=SystemClock().now())
            at = Destination(name="orthanc", ae_title="ORTHANC", host="127.0.0.1", port=orthanc_port)
            work = Worker(store, "", at, SystemClock())
            assert work.work().report(request.key, request.attempt) == "answered"
            wait_for(lambda: peer.get(asked["Path"])["Status"] != "Pending", seconds=30, what="Orthanc's view")
            seen = peer.get(asked["Path"])
    assert seen["Status"] == "Failure"
    assert [item["SOPInstanceUID"] for item in seen["Success"]] == [meta.sop_instance_uid]
    assert [item["SOPInstanceUID"] for item in seen["Failures"]] == ["1.2.3.4"]
    assert Reference(sop_class_uid=meta.sop_class_uid, sop_instance_uid="1.2.3.4") in request.references
