from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from dicomguard.clock import FakeClock
from dicomguard.core.study import Manifest
from dicomguard.errors import Broken, Refused
from dicomguard.store import studies
from dicomguard.store.db import Store
from dicomguard.store.intake import receive_file
from tests.instances import CT1, ROOT, part10_file

NOW = datetime(2026, 11, 24, 10, 0, tzinfo=UTC)


def study_of(store: Store, folder: Path, number: int = 1) -> str:
    """One instance of study `number`; returns the study's key."""
    study = f"{ROOT}.{number}"
    path = part10_file(folder, study=study, series=f"{study}.1", sop=f"{study}.1.1")
    return receive_file(store, CT1, path, channel="cli").study_key


def open_revision(store: Store, key: str, *, now: datetime = NOW) -> int:
    with store.begin() as tx:
        return studies.open_revision(tx, key, closed_because="no instance for 0:01:00", now=now).number


MANIFEST = Manifest(study_instance_uid=f"{ROOT}.1", revision=1, opened_because="first", series=())


def keep_verdict(store: Store, key: str, *, category: str, now: datetime = NOW) -> None:
    with store.begin() as tx:
        studies.keep_verdict(
            tx, key, 1, verdict_sha256="00", path=f"jobs/{key}/r1/verdict.json", category=category, score=0.9,
            complete=True, model_id="m1", now=now,
        )  # fmt: skip


def test_a_revision_freezes_what_was_received(store: Store, tmp_path: Path) -> None:
    key = study_of(store, tmp_path)
    with store.begin() as tx:
        opened = studies.open_revision(tx, key, closed_because="no instance for 0:01:00", now=NOW)
    assert (opened.number, opened.opened_because, opened.calling_ae) == (1, "first", "CT1")
    with store.read() as tx:
        assert studies.revision(tx, key, 1) == opened
        assert studies.revisions(tx, key) == [opened]
        assert studies.state(tx, key, 1) == "opened"
        assert studies.collecting(tx, now=NOW) == []
        assert [item.sop_instance_uid for item in studies.instances(tx, key, 1)] == [f"{ROOT}.1.1.1"]


def test_a_revision_that_is_gone_breaks_a_promise(store: Store, tmp_path: Path) -> None:
    key = study_of(store, tmp_path)
    with store.read() as tx, pytest.raises(Broken, match="Revision 7"):
        studies.revision(tx, key, 7)


def test_an_unknown_study_is_refused(store: Store) -> None:
    with store.begin() as tx:
        with pytest.raises(Refused, match="worklist"):
            studies.open_revision(tx, "nothing", closed_because="", now=NOW)
        with pytest.raises(Refused, match="worklist"):
            studies.force(tx, "nothing", "ada", now=NOW)
        with pytest.raises(Refused, match="worklist"):
            studies.hold(tx, "nothing", True, "ada")


def test_force_and_hold_of_a_study_that_collects(store: Store, tmp_path: Path) -> None:
    key = study_of(store, tmp_path)
    with store.begin() as tx:
        studies.hold(tx, key, True, "ada")
        assert studies.collecting(tx, now=NOW)[0].on_hold
        assert studies.counts(tx) == {"held": 1}
        studies.force(tx, key, "grace", now=NOW)
        (waiting,) = studies.collecting(tx, now=NOW)
    assert (waiting.forced_by, waiting.on_hold, waiting.opened_because) == ("grace", False, "first")


def test_force_of_a_finished_study_judges_it_again(store: Store, tmp_path: Path) -> None:
    key = study_of(store, tmp_path)
    open_revision(store, key)
    with store.begin() as tx:
        studies.force(tx, key, "grace", now=NOW)
        (waiting,) = studies.collecting(tx, now=NOW)
        assert waiting.opened_because == "forced"
    assert open_revision(store, key) == 2
    with store.read() as tx:
        assert len(studies.instances(tx, key, 2)) == 1
        assert studies.revision(tx, key, 2).opened_because == "forced"


def test_a_state_moves_only_from_where_it_is_expected(store: Store, tmp_path: Path) -> None:
    key = study_of(store, tmp_path)
    open_revision(store, key)
    with store.begin() as tx:
        assert studies.advance(tx, key, 1, "analysing", from_={"opened"})
        assert not studies.advance(tx, key, 1, "analysing", from_={"opened"})
        assert studies.in_state(tx, {"analysing"}) == [(key, 1)]
        assert studies.advance(tx, key, 1, "failed", from_={"analysing"}, reason="no weights")
        assert studies.row(tx, key).reason == "no weights"  # type: ignore[union-attr]


def test_a_manifest_is_kept_once_and_read_back(store: Store, tmp_path: Path) -> None:
    key = study_of(store, tmp_path)
    open_revision(store, key)
    with store.begin() as tx:
        assert studies.manifest(tx, key, 1) is None
        studies.keep_manifest(tx, key, 1, MANIFEST)
        studies.keep_manifest(tx, key, 1, MANIFEST)
        assert studies.manifest(tx, key, 1) == MANIFEST
        with pytest.raises(Broken, match="other content"):
            studies.keep_manifest(tx, key, 1, replace(MANIFEST, patient_ids=2))


def test_a_verdict_stands_in_the_worklist(store: Store, tmp_path: Path) -> None:
    key = study_of(store, tmp_path)
    open_revision(store, key)
    with store.begin() as tx:
        assert studies.verdict(tx, key, 1) is None
        studies.set_progress(tx, key, 1, 3, 20)
    keep_verdict(store, key, category="added")
    with store.read() as tx:
        assert studies.verdict(tx, key, 1) == Path(f"jobs/{key}/r1/verdict.json")
        line = studies.row(tx, key)
        assert line is not None
        assert (line.category, line.score, line.complete, line.instance_count) == ("added", 0.9, True, 1)
        assert (line.progress_done, line.progress_total, line.state) == (3, 20, "opened")


def test_the_worklist_is_paged_newest_first(store: Store, clock: FakeClock, tmp_path: Path) -> None:
    keys = []
    for number in range(1, 6):
        keys.append(study_of(store, tmp_path, number))
        # Two arrive at one moment: the cursor must not lose one.
        if number != 3:
            clock.advance(timedelta(seconds=1))
    seen: list[str] = []
    cursor = None
    with store.read() as tx:
        while page := studies.listing(tx, limit=2, before=cursor):
            seen += [line.study_key for line in page]
            cursor = page[-1].cursor
    assert seen[0] == keys[4]
    assert seen[-1] == keys[0]
    assert sorted(seen) == sorted(keys)


def test_the_worklist_is_filtered(store: Store, tmp_path: Path) -> None:
    first, second = study_of(store, tmp_path, 1), study_of(store, tmp_path, 2)
    open_revision(store, first)
    keep_verdict(store, first, category="removed")
    with store.read() as tx:
        assert [line.study_key for line in studies.listing(tx, limit=9, state="collecting")] == [second]
        assert [line.study_key for line in studies.listing(tx, limit=9, category="removed")] == [first]
        assert studies.listing(tx, limit=9, calling_ae="OTHER") == []
        assert studies.counts(tx) == {"opened": 1, "collecting": 1}
        assert studies.find(tx, f"{ROOT}.2") == second
        with pytest.raises(Refused, match="no place in the worklist"):
            studies.listing(tx, limit=9, before="yesterday|x")


def test_the_first_instance_is_known_before_a_revision(store: Store, tmp_path: Path) -> None:
    key = study_of(store, tmp_path)
    with store.read() as tx:
        found = studies.first_instance(tx, key)
        assert found is not None
        assert found.sop_instance_uid == f"{ROOT}.1.1.1"
        assert studies.first_instance(tx, "nothing") is None
