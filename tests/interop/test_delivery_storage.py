"""C-STORE as SCU against DCMTK and against a scripted peer: each answer becomes one result, however it came."""

from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pydicom
import pytest
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import StoragePresentationContexts
from pynetdicom.service_class import StorageServiceClass
from pynetdicom.sop_class import (
    Comprehensive3DSRStorage,
    ComprehensiveSRStorage,
    SegmentationStorage,
    uid_to_service_class,
)

from demo.ports import free_port
from dicomguard import part10
from dicomguard.clock import SystemClock
from dicomguard.core.delivery import Event
from dicomguard.core.peer import Destination
from dicomguard.deliver import storage
from dicomguard.deliver.association import Timeouts
from dicomguard.deliver.echo import echo
from dicomguard.errors import Refused
from dicomguard.sr.build import Built, fallback
from tests import sr_cases
from tests.peer import ABORT, mute, peer
from tests.peers import storescp

Need = Callable[[str, str], str]
QUICK = Timeouts(connect_s=2, answer_s=1)


@pytest.fixture(scope="module")
def built() -> list[Built]:
    """SEG, SR, and the SR in its plain form."""
    source = sr_cases.frames(sr_cases.single_frame())
    objects = sr_cases.case("real", [source], [sr_cases.Spot(category="real", places=[2, 3])]).build()
    return [*objects, fallback(objects[-1].dataset)]


@pytest.fixture
def files(built: list[Built], tmp_path: Path) -> list[Path]:
    """SEG and SR as files."""
    paths = []
    for item in built[:2]:
        paths.append(tmp_path / f"{item.result.kind}.dcm")
        paths[-1].write_bytes(item.data)
    return paths


def at(port: int, ae_title: str = "ARCHIVE") -> Destination:
    return Destination(name="archive", ae_title=ae_title, host="127.0.0.1", port=port)


def events(sent: list[storage.Sent]) -> list[Event]:
    return [item.answer.event for item in sent]


def test_dcmtk_gets_the_kept_bytes(files: list[Path], tmp_path: Path, need: Need) -> None:
    # +B: the dataset is written exactly as it was read.
    with storescp(need, tmp_path / "archive", options=("+B",)) as archive:
        sent = storage.send(files, at(archive.port), calling_ae="DICOMGUARD")
        assert events(sent) == [Event.STORED, Event.STORED]
        kept = {path.read_bytes()[part10.dataset_offset(path) :] for path in files}
        there = {path.read_bytes()[part10.dataset_offset(path) :] for path in archive.files()}
    assert there == kept


def test_the_bytes_on_the_wire_are_those_of_the_file(files: list[Path]) -> None:
    with peer() as archive:
        storage.send(files, at(archive.port), calling_ae="DICOMGUARD")
        assert [data for _, data, _ in archive.received] == [
            path.read_bytes()[part10.dataset_offset(path) :] for path in files
        ]
        assert {syntax for _, _, syntax in archive.received} == {ExplicitVRLittleEndian}
        assert archive.associations == 1


def test_an_archive_that_takes_only_implicit_gets_the_same_values(files: list[Path]) -> None:
    with peer(syntaxes=(ImplicitVRLittleEndian,)) as archive:
        sent = storage.send(files, at(archive.port), calling_ae="DICOMGUARD")
        assert events(sent) == [Event.STORED, Event.STORED]
        _, data, syntax = archive.received[1]
    assert syntax == ImplicitVRLittleEndian
    read = pydicom.filereader.read_dataset(BytesIO(data), is_implicit_VR=True, is_little_endian=True)
    assert read.ContentSequence == pydicom.dcmread(files[1]).ContentSequence


@pytest.mark.parametrize(
    ("status", "event"),
    [
        (0xB000, Event.STORED_WITH_WARNING),
        (0xA900, Event.FORM_REFUSED),
        (0xC123, Event.FORM_REFUSED),
        (0x0122, Event.FORM_REFUSED),
        (0x0124, Event.NOT_AUTHORISED),
        (0x0111, Event.FAILED),
    ],
)
def test_each_status_is_its_own_event(files: list[Path], status: int, event: Event) -> None:
    with peer(status={SegmentationStorage: status}) as archive:
        sent = storage.send(files[:1], at(archive.port), calling_ae="DICOMGUARD")
    assert events(sent) == [event]
    assert sent[0].answer.status == status
    assert sent[0].answer.comment.endswith("It says: as scripted")


def test_busy_ends_the_attempt_so_that_the_report_stays_last(files: list[Path]) -> None:
    with peer(status={SegmentationStorage: 0xA700}) as archive:
        sent = storage.send(files, at(archive.port), calling_ae="DICOMGUARD")
    assert events(sent) == [Event.BUSY]


def test_a_class_that_is_not_taken_is_told_before_it_is_sent(files: list[Path]) -> None:
    with peer(classes=(SegmentationStorage, ComprehensiveSRStorage)) as archive:
        sent = storage.send(files, at(archive.port), calling_ae="DICOMGUARD")
    assert events(sent) == [Event.STORED, Event.NO_CONTEXT]
    assert sent[1].answer.comment == "not accepted: Comprehensive 3D SR Storage"


def test_a_peer_that_takes_nothing_of_ours(files: list[Path]) -> None:
    with peer(classes=(pydicom.uid.CTImageStorage,)) as archive:
        sent = storage.send(files, at(archive.port), calling_ae="DICOMGUARD")
    assert events(sent) == [Event.NO_CONTEXT, Event.NO_CONTEXT]


def test_abort_and_silence_are_one_event_and_an_unreached_peer_another(files: list[Path]) -> None:
    with peer(status={Comprehensive3DSRStorage: ABORT}) as archive:
        aborted = storage.send(files, at(archive.port), calling_ae="DICOMGUARD", timeouts=QUICK)
    with peer(delay_s=20) as archive:
        slow = storage.send(files, at(archive.port), calling_ae="DICOMGUARD", timeouts=QUICK)
    with mute() as port:
        silent = storage.send(files, at(port), calling_ae="DICOMGUARD", timeouts=QUICK)
    nobody = storage.send(files, at(free_port()), calling_ae="DICOMGUARD", timeouts=QUICK)
    assert events(aborted) == [Event.STORED, Event.SILENT]
    assert events(slow) == [Event.SILENT]
    assert events(silent) == events(nobody) == [Event.UNREACHED]


def test_wrong_titles_are_an_alarm(files: list[Path]) -> None:
    with peer(check_called=True) as archive:
        wrong_called = storage.send(files, at(archive.port, "ELSEWHERE"), calling_ae="DICOMGUARD")
    with peer(calling=("SOMEBODY",)) as archive:
        wrong_calling = storage.send(files, at(archive.port), calling_ae="DICOMGUARD")
    assert events(wrong_called) == events(wrong_calling) == [Event.REJECTED]
    assert "the called AE title is not theirs" in wrong_called[0].answer.comment
    assert "our AE title is not known there" in wrong_calling[0].answer.comment


def test_more_kinds_than_one_association_can_carry(built: list[Built], tmp_path: Path) -> None:
    """Each SOP class takes two contexts; 70 of them do not fit into 128."""
    paths = []
    known = [str(context.abstract_syntax) for context in StoragePresentationContexts]
    classes = tuple(uid for uid in known if uid_to_service_class(uid) is StorageServiceClass)[:70]
    for number, sop_class in enumerate(classes):
        ds = pydicom.dcmread(BytesIO(built[1].data))
        ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = pydicom.uid.UID(sop_class)
        paths.append(tmp_path / f"{number}.dcm")
        ds.save_as(paths[-1])
    with peer(classes=classes) as archive:
        sent = storage.send(paths, at(archive.port), calling_ae="DICOMGUARD")
        assert set(events(sent)) == {Event.STORED}
        assert archive.associations == 2


def test_what_is_no_dicom_file_is_refused_before_anything_is_sent(files: list[Path], tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing")
    with peer() as archive, pytest.raises(Refused, match=r"notes\.txt is no DICOM file"):
        storage.send([*files, tmp_path / "notes.txt"], at(archive.port), calling_ae="DICOMGUARD")
    assert archive.associations == 0


def test_echo(need: Need, tmp_path: Path) -> None:
    clock = SystemClock()
    with storescp(need, tmp_path / "archive") as archive:
        assert echo(at(archive.port), calling_ae="DICOMGUARD", clock=clock).answered
    gone = echo(at(free_port()), calling_ae="DICOMGUARD", clock=clock, timeouts=QUICK)
    assert not gone.answered
    assert "cannot be reached" in gone.sentence
    with peer(check_called=True) as other:
        wrong = echo(at(other.port, "NOBODY"), calling_ae="DICOMGUARD", clock=clock)
    assert not wrong.answered
    with peer(classes=(SegmentationStorage,)) as other:
        unable = echo(at(other.port), calling_ae="DICOMGUARD", clock=clock)
    assert "accepts none of the SOP classes" in unable.sentence
