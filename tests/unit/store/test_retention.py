"""Retention deletes what is judged, delivered and past its time, can be cut off anywhere, and says what it did."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import select, update

from dicomguard.core.commitment import Commitment
from dicomguard.core.commitment import State as Committed
from dicomguard.core.delivery import State
from dicomguard.core.retention import Policy
from dicomguard.flow import states as flow_states
from dicomguard.store import associations, audit, commitments, counters, leases, retention, studies, tables
from dicomguard.store.db import Store
from dicomguard.store.intake import Duplicate, Outcome, Stored, receive, receive_file
from dicomguard.store.verify.findings import Kind
from dicomguard.store.verify.inspection import Inspector
from tests.instances import CT1, MR, ROOT, part10_file
from tests.keeping import Kept, deliver, finished, judge
from tests.keeping import receive as bring

DAY = timedelta(days=1)
POLICY = Policy(images=30 * DAY, images_bytes=None, results=365 * DAY)


@pytest.fixture
def store(finished_store: Store) -> Store:
    return finished_store


def run(store: Store, after: timedelta, policy: Policy = POLICY) -> retention.Done:
    store.clock.advance(after)  # type: ignore[attr-defined]
    return retention.run(store, policy)


def states(store: Store) -> list[str]:
    with store.read() as tx:
        return list(tx.execute(select(tables.instance.c.state).order_by(tables.instance.c.id)).scalars())


def files(store: Store, folder: str = "store") -> list[Path]:
    return [path for path in (store.root / folder).rglob("*") if path.is_file()]


def found(store: Store) -> list[tuple[Kind, bool]]:
    return [(item.kind, item.heals) for item in Inspector(store, full=True).inspect().findings]


def counts(store: Store) -> dict[str, int]:
    with store.read() as tx:
        return {row.name: row.value for row in counters.listing(tx) if row.peer == ""}


def send_again(store: Store, folder: Path, number: int = 0) -> Outcome:
    uid = f"{ROOT}.1"
    file = part10_file(folder, study=uid, series=f"{uid}.1", sop=f"{uid}.1.{number}", InstanceNumber=number)
    return receive_file(store, CT1, file, channel="cli")


# --- what goes ---


def test_nothing_goes_before_a_destination_that_is_asked_has_committed_itself(store: Store, kept: Kept) -> None:
    now = store.clock.now()
    asked = Commitment(
        study_key=kept.key, revision=1, destination="archive", parts=(), state=Committed.ASKED, planned_at=now,
        next_at=now,
    )  # fmt: skip
    with store.begin() as tx:
        commitments.save(tx, asked)
    assert not run(store, 400 * DAY)
    with store.begin() as tx:
        commitments.save(tx, replace(asked, state=Committed.COMMITTED, next_at=None))
    assert run(store, DAY).studies_expired == 1
    assert run(store, 400 * DAY).studies_removed == 1
    with store.read() as tx:
        assert commitments.of_study(tx, kept.key) == []


def test_images_go_after_a_month_verdict_and_results_stay(store: Store, kept: Kept) -> None:
    assert not run(store, 29 * DAY)
    done = run(store, 2 * DAY)
    assert (done.studies_expired, done.images) == (1, 2)
    assert files(store) == []
    # Not even a folder.
    assert [path.name for path in (store.root / "store").iterdir()] == ["incoming"]
    assert len(files(store, "results")) == 3
    assert found(store) == []
    with store.read() as tx:
        (line,) = audit.recent(tx)
    assert (line.actor, line.action, line.object) == ("retention", "images.expired", kept.key)
    assert "older than 30 days" in line.change
    assert counts(store)["instances_expired"] == 2
    assert counts(store)["expired_bytes"] == done.bytes
    # The rows stay as long as the revision that names them.
    assert states(store) == ["expired", "expired"]
    assert not run(store, DAY)


def test_past_associations_go_once_their_studies_are_gone(store: Store, kept: Kept) -> None:
    ids = []
    with store.begin() as tx:
        for _ in range(3):
            sender = {"process": "r1", "peer": "ct1", "calling_ae": "CT1", "called_ae": "ME", "address": "192.0.2.7"}
            ids.append(associations.opened(tx, **sender, now=store.clock.now()))
        associations.touch(tx, ids[0], kept.key, store.clock.now())
        for one in ids[:2]:
            associations.closed(tx, one, "release", store.clock.now())

    def left(after: timedelta) -> list[str]:
        run(store, after)
        with store.read() as tx:
            return [ids[number] for number, one in enumerate(ids) if one in {row.id for row in associations.recent(tx)}]

    assert left(29 * DAY) == ids
    # One stored nothing; one is open still.
    assert left(2 * DAY) == [ids[0], ids[2]]
    assert left(365 * DAY) == [ids[2]]


def test_the_study_goes_after_a_year(store: Store, kept: Kept) -> None:
    run(store, 31 * DAY)
    done = run(store, 335 * DAY)
    assert done.studies_removed == 1
    assert files(store, "results") == []
    assert states(store) == []
    with store.read() as tx:
        assert studies.row(tx, kept.key) is None
        assert audit.recent(tx)[0].action == "study.removed"
        assert audit.first_break(tx) is None
    assert found(store) == []
    assert counts(store)["instances_removed"] == 2


def test_what_comes_after_that_is_a_new_study(store: Store, kept: Kept, tmp_path: Path) -> None:
    run(store, 31 * DAY)
    run(store, 335 * DAY)
    outcome = send_again(store, tmp_path / "again")
    assert isinstance(outcome, Stored)
    assert outcome.study_key != kept.key
    assert found(store) == []


@pytest.mark.parametrize("case", ["waiting", "held", "collecting", "in work", "failed"])
def test_what_must_stay(store: Store, kept: Kept, tmp_path: Path, case: str) -> None:
    with store.begin() as tx:
        if case == "held":
            studies.hold(tx, kept.key, True, "ada")
        elif case in ("in work", "failed"):
            state = "judged" if case == "in work" else "failed"
            tx.execute(update(tables.revision).values(state=state))
    if case == "collecting":
        bring(store, tmp_path / "late", first=7, slices=1)
    if case == "waiting":
        with store.begin() as tx:
            tx.execute(tables.delivery_instance.delete())
            tx.execute(tables.delivery.delete())
        deliver(store, kept.key, 1, kept.results, State.WAITING)
    before = len(files(store))
    assert not run(store, 3650 * DAY)
    assert len(files(store)) == before
    assert set(states(store)) == {"stored"}


def test_states_are_those_of_the_workflow() -> None:
    assert set(retention._ON_ITS_WAY) == {*flow_states.BEFORE_DELIVERY, flow_states.DELIVERING}
    assert retention._WAITS_FOR_A_PERSON == (flow_states.FAILED,)


def test_a_failed_revision_that_was_overtaken_holds_nothing(store: Store, kept: Kept, tmp_path: Path) -> None:
    bring(store, tmp_path / "late", first=7, slices=1)
    _, results = judge(store, kept.key)
    deliver(store, kept.key, 2, results)
    with store.begin() as tx:
        tx.execute(update(tables.revision).where(tables.revision.c.number == 1).values(state="failed"))
    assert run(store, 31 * DAY).images == 3


def test_bytes_beyond_the_most_go_oldest_first(store: Store, kept: Kept, tmp_path: Path) -> None:
    store.clock.advance(DAY)  # type: ignore[attr-defined]
    younger = finished(store, tmp_path, study=2)
    with store.read() as tx:
        size = tx.execute(select(tables.instance.c.size)).scalars().all()
    done = run(store, DAY, Policy(images=None, images_bytes=sum(size) - 1, results=None))
    assert done.images == 2
    assert {path.relative_to(store.root).as_posix() for path in files(store)} == set(younger.instances)


def test_quarantine_empties_itself(store: Store, tmp_path: Path) -> None:
    receive(store, CT1, sop_class_uid=MR, sop_instance_uid="1.2.3", transfer_syntax_uid="1.2.840.10008.1.2",
            chunks=[b"no dataset"], association_id=None, channel="dimse")  # fmt: skip
    assert len(files(store, "quarantine")) == 1
    assert run(store, 31 * DAY).images == 3
    assert files(store, "quarantine") == []
    # No revision names it, so its row goes too.
    assert states(store) == ["expired", "expired"]
    assert found(store) == []


# --- cut off ---


def test_cut_off_before_the_files_went(store: Store, kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    class Cut(BaseException):
        pass

    def cut(_: Store) -> None:
        raise Cut

    with monkeypatch.context() as patch:
        patch.setattr(retention, "_unlink", lambda store: None)
        run(store, 31 * DAY)
    assert states(store) == ["expired", "expired"]
    assert found(store) == [(Kind.EXPIRED_WITH_FILE, True)] * 2
    retention.finish(store)
    assert files(store) == []
    assert found(store) == []


def test_cut_off_between_two_files(store: Store, kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    """The transaction is rolled back, one file is gone; the next run goes on."""

    class Cut(BaseException):
        pass

    real = Path.unlink
    calls: list[Path] = []

    def once(self: Path, missing_ok: bool = False) -> None:
        if calls:
            raise Cut
        calls.append(self)
        real(self, missing_ok=missing_ok)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", once)
        with pytest.raises(Cut):
            run(store, 31 * DAY)
    assert len(files(store)) == 1
    assert found(store) == [(Kind.EXPIRED_WITH_FILE, True)]
    retention.finish(store)
    assert files(store) == []
    assert found(store) == []


def test_cut_off_after_the_rows_of_a_study_went(store: Store, kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    run(store, 31 * DAY)
    with monkeypatch.context() as patch:
        patch.setattr(retention, "_remove_folders", lambda store: None)
        run(store, 335 * DAY)
    assert found(store) == [(Kind.REMOVED_WITH_FILE, True)] * 3
    retention.finish(store)
    assert files(store, "results") == []
    assert found(store) == []


# --- once a day ---


def test_once_a_day_and_by_one(store: Store) -> None:
    store.clock.advance(31 * DAY)  # type: ignore[attr-defined]
    now = store.clock.now()
    with store.begin() as tx:
        leases.take(tx, leases.RETENTION, "backup-1", now, now + timedelta(minutes=10))
    assert retention.daily(store, POLICY) is None
    assert len(files(store)) == 2
    store.clock.advance(timedelta(minutes=11))  # type: ignore[attr-defined]
    done = retention.daily(store, POLICY)
    assert done is not None
    assert done.images == 2
    assert retention.daily(store, POLICY) is None
    store.clock.advance(DAY)  # type: ignore[attr-defined]
    assert retention.daily(store, POLICY) == retention.Done()


def test_a_stop_ends_it_between_two_studies_and_the_next_start_goes_on(store: Store, tmp_path: Path) -> None:
    finished(store, tmp_path, study=2)
    store.clock.advance(31 * DAY)  # type: ignore[attr-defined]
    answers = iter([False, True, True])
    done = retention.daily(store, POLICY, stop=lambda: next(answers))
    assert done is not None
    assert done.studies_expired == 1
    done = retention.daily(store, POLICY)
    assert done is not None
    assert done.studies_expired == 1


def test_what_came_meanwhile_saves_a_study(store: Store, kept: Kept, tmp_path: Path) -> None:
    """1. the study is planned; 2. an image comes; 3. its turn: nothing goes."""
    store.clock.advance(31 * DAY)  # type: ignore[attr-defined]

    def late() -> bool:
        if not (tmp_path / "late").exists():
            bring(store, tmp_path / "late", first=7, slices=1)
        return True

    assert not retention.run(store, POLICY, renew=late)
    assert len(files(store)) == 3


# --- what comes after its time ---


def test_the_same_bytes_again_come_back_and_are_not_judged_again(store: Store, kept: Kept, tmp_path: Path) -> None:
    run(store, 31 * DAY)
    outcome = send_again(store, tmp_path / "again")
    assert isinstance(outcome, Duplicate)
    # Acknowledged, so kept: as long as anything else that came today.
    assert sorted(states(store)) == ["expired", "stored"]
    assert (store.root / outcome.instance.path).is_file()
    with store.read() as tx:
        assert studies.collecting(tx, now=store.clock.now()) == []
    assert found(store) == []
    assert not run(store, 29 * DAY)
    assert run(store, 2 * DAY).images == 1


def test_the_same_bytes_between_row_and_file(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """1. rows are expired; 2. the same bytes come; 3. the files of what is still expired go."""
    with monkeypatch.context() as patch:
        patch.setattr(retention, "_unlink", lambda store: None)
        run(store, 31 * DAY)
    outcome = send_again(store, tmp_path / "again")
    retention.finish(store)
    assert (store.root / outcome.instance.path).is_file()
    assert len(files(store)) == 1
    assert found(store) == []


def test_a_late_image_of_an_expired_study_waits_for_a_person(store: Store, kept: Kept, tmp_path: Path) -> None:
    """A report on the one late image must not take the place of the report on the whole study by itself."""
    run(store, 31 * DAY)
    bring(store, tmp_path / "late", first=7, slices=1)
    with store.read() as tx:
        (waiting,) = studies.collecting(tx, now=store.clock.now())
        assert waiting.on_hold
    assert not run(store, 365 * DAY)
    with store.begin() as tx:
        studies.hold(tx, kept.key, False, "ada")
        opened = studies.open_revision(tx, kept.key, closed_because="quiet", now=store.clock.now())
        assert len(studies.instances(tx, kept.key, opened.number)) == 1


def test_a_newer_header_of_an_expired_image_is_no_conflict(store: Store, tmp_path: Path) -> None:
    """Its pixels cannot be compared any more; that is no evidence of anything."""
    run(store, 31 * DAY)
    uid = f"{ROOT}.1"
    file = part10_file(tmp_path / "new", study=uid, series=f"{uid}.1", sop=f"{uid}.1.0", PatientID="CHANGED")
    outcome = receive_file(store, CT1, file, channel="cli")
    assert isinstance(outcome, Stored)
    assert "deleted" in outcome.reason


def test_a_missing_image_comes_back(store: Store, kept: Kept, tmp_path: Path) -> None:
    (store.root / kept.instances[0]).unlink()
    with store.begin() as tx:
        same = tables.instance.c.path == kept.instances[0]
        tx.execute(update(tables.instance).where(same).values(state="missing"))
    assert isinstance(send_again(store, tmp_path / "again"), Duplicate)
    assert states(store) == ["stored", "stored"]
    assert found(store) == []
