import hashlib
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian

from dicomguard import part10
from dicomguard.clock import FakeClock
from dicomguard.core.result import ResultObject
from dicomguard.errors import Refused, Unavailable
from dicomguard.store import associations, counters, results, studies
from dicomguard.store.db import Store
from dicomguard.store.files import FakeDisk
from dicomguard.store.intake import (
    Conflict,
    Duplicate,
    Outcome,
    Quarantined,
    QuarantineFull,
    Stored,
    TooLarge,
    receive,
    receive_file,
)
from dicomguard.store.tables import instance
from tests.instances import CT1, MR, ROOT, part10_bytes, part10_file

NOW = datetime(2026, 11, 24, 10, 0, tzinfo=UTC)
SEG = "1.2.840.10008.5.1.4.1.1.66.4"


def bring(store: Store, folder: Path, **changes: object) -> Outcome:
    return receive_file(store, CT1, part10_file(folder, **changes), channel="cli")


def close_study(store: Store, key: str) -> int:
    with store.begin() as tx:
        return studies.open_revision(tx, key, closed_because="quiet", now=NOW).number


def opened_because(store: Store) -> list[str]:
    with store.read() as tx:
        return [study.opened_because for study in studies.collecting(tx, now=NOW)]


def dataset_bytes(path: Path) -> bytes:
    return path.read_bytes()[part10.dataset_offset(path) :]


def test_the_dataset_is_kept_byte_for_byte_under_a_path_of_ours(store: Store, tmp_path: Path) -> None:
    source = part10_file(tmp_path / "in")
    outcome = receive_file(store, CT1, source, channel="cli")
    assert isinstance(outcome, Stored)
    kept = store.root / outcome.instance.path
    assert dataset_bytes(kept) == dataset_bytes(source)
    assert outcome.instance.sha256 == hashlib.sha256(dataset_bytes(source)).hexdigest()
    day, key, sha256 = "store/2026/11/24", outcome.study_key, outcome.instance.sha256
    assert outcome.instance.path == f"{day}/{key}/{sha256}.dcm"
    assert part10.read_meta(kept).sop_instance_uid == f"{ROOT}.1.1.1"
    # Nothing is left of the temporary file.
    assert not list((store.root / "store/incoming").iterdir())


def test_the_order_of_the_durable_write_is_literal(store: Store, disk: FakeDisk, tmp_path: Path) -> None:
    bring(store, tmp_path / "in")
    disk.steps.clear()
    bring(store, tmp_path / "in", sop=f"{ROOT}.1.1.2")
    kept = [step for step in disk.steps if step != "write"]
    # Its folder is there already; the last steps are always these.
    assert kept[0] == "sync"
    assert kept[-2:] == ["rename", "sync_folder"]


def test_equal_bytes_again_are_a_duplicate_and_no_copy(store: Store, tmp_path: Path) -> None:
    first = bring(store, tmp_path / "in")
    number = close_study(store, first.study_key)
    again = bring(store, tmp_path / "in")
    assert isinstance(again, Duplicate)
    assert again.instance == first.instance
    assert len(list((store.root / "store").rglob("*.dcm"))) == 1
    assert opened_because(store) == []
    assert number == 1


def test_a_duplicate_heals_a_file_that_was_lost(store: Store, tmp_path: Path) -> None:
    first = bring(store, tmp_path / "in")
    (store.root / first.instance.path).unlink()
    assert isinstance(bring(store, tmp_path / "in"), Duplicate)
    assert (store.root / first.instance.path).is_file()


def test_other_pixels_under_a_known_uid_are_kept_beside_the_first(store: Store, tmp_path: Path) -> None:
    first = bring(store, tmp_path / "in")
    close_study(store, first.study_key)
    other = bring(store, tmp_path / "in", pixels=bytes(16))
    assert isinstance(other, Conflict)
    assert (first.instance.ordinal, other.instance.ordinal) == (0, 1)
    assert (store.root / first.instance.path).is_file()
    assert (store.root / other.instance.path).is_file()
    assert opened_because(store) == ["pixel_conflict"]
    number = close_study(store, first.study_key)
    with store.read() as tx:
        assert [item.ordinal for item in studies.instances(tx, first.study_key, number)] == [0, 1]
    # The conflicting copy again is a duplicate of itself.
    assert isinstance(bring(store, tmp_path / "in", pixels=bytes(16)), Duplicate)


def test_native_pixels_are_compared_across_implicit_and_explicit(store: Store, tmp_path: Path) -> None:
    bring(store, tmp_path / "in")
    again = bring(store, tmp_path / "in", syntax=ImplicitVRLittleEndian)
    assert isinstance(again, Stored)
    assert again.instance.ordinal == 0


def test_a_copy_in_a_syntax_that_cannot_be_compared_counts_as_a_conflict(store: Store, tmp_path: Path) -> None:
    bring(store, tmp_path / "in")
    again = bring(store, tmp_path / "in", syntax=ExplicitVRBigEndian)
    assert isinstance(again, Conflict)
    assert "not compared" in again.reason


@pytest.mark.parametrize(
    ("changes", "revision"),
    [
        # Nothing that a report or the grouping reads.
        ({"InstitutionName": "ELSEWHERE"}, []),
        ({"PatientID": "MERGED"}, ["late_instance"]),
        ({"ImagePositionPatient": [1, 2, 3]}, ["late_instance"]),
    ],
)
def test_a_newer_header_of_the_same_pixels(
    store: Store, tmp_path: Path, changes: dict[str, object], revision: list[str]
) -> None:
    first = bring(store, tmp_path / "in")
    close_study(store, first.study_key)
    newer = bring(store, tmp_path / "in", **changes)
    assert isinstance(newer, Stored)
    assert newer.instance.ordinal == 0
    assert opened_because(store) == revision
    number = close_study(store, first.study_key)
    with store.read() as tx:
        # One image, with its newest header.
        assert [item.sha256 for item in studies.instances(tx, first.study_key, number)] == [newer.instance.sha256]


def test_a_late_instance_opens_a_revision_that_covers_all(store: Store, clock: FakeClock, tmp_path: Path) -> None:
    first = bring(store, tmp_path / "in")
    assert opened_because(store) == ["first"]
    close_study(store, first.study_key)
    clock.advance(timedelta(hours=1))
    bring(store, tmp_path / "in", sop=f"{ROOT}.1.1.2")
    with store.read() as tx:
        (open_study,) = studies.collecting(tx, now=clock.now())
    assert open_study.opened_because == "late_instance"
    assert open_study.activity.first_received_at == NOW + timedelta(hours=1)
    number = close_study(store, first.study_key)
    with store.read() as tx:
        assert len(studies.instances(tx, first.study_key, 1)) == 1
        assert len(studies.instances(tx, first.study_key, number)) == 2


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "no valid SOP Instance UID"),
        (b"not a dataset at all, only some words that somebody sent us", ""),
        (b"\x08\x00\x18\x00UI\xff\xff1.2.3", ""),
    ],
)
def test_bytes_that_cannot_be_read_are_kept_in_quarantine(store: Store, content: bytes, sentence: str) -> None:
    def send() -> Outcome:
        return receive(
            store, CT1, sop_class_uid=MR, sop_instance_uid="1.2.3", transfer_syntax_uid="1.2.840.10008.1.2.1",
            chunks=[content], association_id=None, channel="dimse",
        )  # fmt: skip

    outcome = send()
    assert isinstance(outcome, Quarantined)
    assert sentence in outcome.reason
    assert outcome.instance.state == "quarantined"
    kept = store.root / outcome.instance.path
    assert kept.is_relative_to(store.root / "quarantine")
    assert kept.read_bytes().endswith(content)
    # Sent again by a stubborn modality: no second copy, same answer.
    assert isinstance(send(), Quarantined)
    assert len(list((store.root / "quarantine").rglob("*.dcm"))) == 1
    assert opened_because(store) == []


def test_a_dataset_that_contradicts_its_request_is_quarantined_and_later_taken(store: Store, tmp_path: Path) -> None:
    path = part10_file(tmp_path)
    content = dataset_bytes(path)
    wrong = receive(
        store, CT1, sop_class_uid=SEG, sop_instance_uid=f"{ROOT}.1.1.1", transfer_syntax_uid="1.2.840.10008.1.2.1",
        chunks=[content], association_id=None, channel="dimse",
    )  # fmt: skip
    assert isinstance(wrong, Quarantined)
    assert isinstance(receive_file(store, CT1, path, channel="dimse"), Stored)


@pytest.mark.parametrize("uid", ["../../etc/passwd", "1.2.3/4", "", "1." * 40 + "1", "1.2\\3"])
def test_no_text_of_a_sender_becomes_a_path(store: Store, uid: str) -> None:
    outcome = receive(
        store, CT1, sop_class_uid=MR, sop_instance_uid=uid, transfer_syntax_uid="1.2.840.10008.1.2.1",
        chunks=[b"\0" * 50], association_id=None, channel="dimse",
    )  # fmt: skip
    assert isinstance(outcome, Quarantined)
    for path in store.root.rglob("*"):
        assert "passwd" not in path.name
    assert not list(store.root.parent.glob("*passwd*"))


def test_quarantine_has_an_end(store: Store) -> None:
    def send(number: int) -> None:
        receive(
            store, CT1, sop_class_uid=MR, sop_instance_uid=f"1.{number}", transfer_syntax_uid="1.2.840.10008.1.2",
            chunks=[bytes([number]) * 1500], association_id=None, channel="dimse",
        )  # fmt: skip

    send(1)
    send(2)
    with pytest.raises(QuarantineFull, match="empty it"):
        send(3)


def test_a_dataset_over_the_limit_is_refused_and_leaves_nothing(store: Store) -> None:
    with pytest.raises(TooLarge, match="1048576 bytes"):
        receive(
            store, CT1, sop_class_uid=MR, sop_instance_uid="1.2", transfer_syntax_uid="1.2.840.10008.1.2",
            chunks=(bytes(1 << 16) for _ in range(17)), association_id=None, channel="dimse",
        )  # fmt: skip
    assert not [path for path in store.root.rglob("*") if path.is_file() and "sqlite" not in path.name]


def test_a_file_that_is_no_dicom_file_is_refused(store: Store, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("hello")
    with pytest.raises(Refused, match="no readable DICOM file"):
        receive_file(store, CT1, tmp_path / "a.txt", channel="cli")


def test_without_room_nothing_is_taken_until_there_is_more(
    store: Store, disk: FakeDisk, clock: FakeClock, tmp_path: Path
) -> None:
    disk.space = 999
    clock.advance(timedelta(seconds=2))
    with pytest.raises(Unavailable, match="999 bytes free"):
        bring(store, tmp_path / "in")
    # Resumes a tenth above the bound only.
    disk.space = 1050
    with pytest.raises(Unavailable):
        bring(store, tmp_path / "in")
    disk.space = 50_000
    assert isinstance(bring(store, tmp_path / "in"), Stored)


def test_a_disk_that_fills_while_writing_acknowledges_nothing(
    store: Store, disk: FakeDisk, clock: FakeClock, tmp_path: Path
) -> None:
    bring(store, tmp_path / "in")
    disk.space = 1200
    clock.advance(timedelta(seconds=2))
    with pytest.raises(Unavailable, match="is full"):
        bring(store, tmp_path / "in", sop=f"{ROOT}.1.1.2", pixels=bytes(3000))
    assert not list((store.root / "store/incoming").iterdir())
    disk.space = None
    clock.advance(timedelta(seconds=2))
    assert isinstance(bring(store, tmp_path / "in", sop=f"{ROOT}.1.1.2", pixels=bytes(3000)), Stored)


def test_our_own_results_that_come_back_are_no_work(store: Store, tmp_path: Path) -> None:
    first = bring(store, tmp_path / "in")
    close_study(store, first.study_key)
    content = part10_bytes(sop="2.25.1", sop_class=SEG)
    seg = ResultObject(
        kind="SEG", sop_class_uid=SEG, sop_instance_uid="2.25.1", series_instance_uid="2.25.2",
        sha256=hashlib.sha256(content).hexdigest(),
    )  # fmt: skip
    results.keep(store, first.study_key, 1, [(seg, content)])
    back = bring(store, tmp_path / "in", sop="2.25.1", sop_class=SEG, SeriesDescription="came back")
    assert back.instance.state == "own"
    # Recognised by who made it too: another node of the same name may have lost its database.
    other = bring(store, tmp_path / "in", sop="2.25.9", sop_class=SEG, InstanceCreatorUID="2.25.77")
    assert other.instance.state == "own"
    assert opened_because(store) == []


def test_our_own_result_is_no_work_when_it_comes_back_after_retention(store: Store, tmp_path: Path) -> None:
    first = bring(store, tmp_path / "in")
    close_study(store, first.study_key)
    ours = {"sop": "2.25.9", "sop_class": SEG, "InstanceCreatorUID": "2.25.77"}
    bring(store, tmp_path / "in", **ours)
    with store.begin() as tx:
        tx.execute(instance.update().values(state="expired", path=""))
    for path in (store.root / "store").rglob("*.dcm"):
        path.unlink()
    assert bring(store, tmp_path / "in", **ours).instance.state == "own"
    assert bring(store, tmp_path / "in").instance.state == "stored"
    with store.begin() as tx:
        # Asked for by a person.
        opened = studies.open_revision(tx, first.study_key, closed_because="forced", now=NOW)
        covered = studies.instances(tx, first.study_key, opened.number)
    assert [item.sop_instance_uid for item in covered] == [f"{ROOT}.1.1.1"]


def test_a_forged_image_cannot_pass_as_our_own_result(store: Store, tmp_path: Path) -> None:
    outcome = bring(store, tmp_path / "in", InstanceCreatorUID="2.25.77")
    assert outcome.instance.state == "stored"
    assert opened_because(store) == ["first"]


def test_two_patient_ids_in_one_study_are_counted(store: Store, tmp_path: Path) -> None:
    first = bring(store, tmp_path / "in")
    bring(store, tmp_path / "in", sop=f"{ROOT}.1.1.2", PatientID="OTHER")
    number = close_study(store, first.study_key)
    with store.read() as tx:
        assert studies.patient_ids(tx, first.study_key, number) == 2


def test_an_association_holds_the_studies_that_it_stored_to(store: Store, clock: FakeClock) -> None:
    with store.begin() as tx:
        id = associations.opened(
            tx, process="r1", peer="ct1", calling_ae="CT1", called_ae="ME", address="192.0.2.7", now=clock.now()
        )
    content = part10_bytes()
    offset = content.index(b"\x08\x00\x16\x00")
    receive(
        store, CT1, sop_class_uid=MR, sop_instance_uid=f"{ROOT}.1.1.1", transfer_syntax_uid="1.2.840.10008.1.2.1",
        chunks=[content[offset:]], association_id=id, channel="dimse",
    )  # fmt: skip

    def holding() -> int:
        with store.read() as tx:
            return studies.collecting(tx, now=clock.now())[0].activity.associations_open

    assert holding() == 1
    # An association that has not stored for long no longer holds.
    clock.advance(timedelta(seconds=601))
    assert holding() == 0
    clock.advance(timedelta(seconds=-601))
    # The process died: whoever looks next closes what it left open.
    with store.begin() as tx:
        assert associations.close_lost(tx, clock.now()) == 1
    assert holding() == 0


def test_counts_by_peer(store: Store, tmp_path: Path) -> None:
    bring(store, tmp_path / "in")
    bring(store, tmp_path / "in")
    bring(store, tmp_path / "in", pixels=bytes(16))
    with store.read() as tx:
        counted = {row.name: row.value for row in counters.listing(tx) if row.peer == "ct1"}
    assert counted["instances_received"] == 2
    assert counted["instances_repeated"] == 1
    assert counted["instances_conflicting"] == 1
