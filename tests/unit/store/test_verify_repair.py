"""What repair does with each planted fault, and what it leaves alone."""

import shutil
from pathlib import Path

import pytest
from sqlalchemy import select

from dicomguard.store import audit, tables
from dicomguard.store.db import Store
from dicomguard.store.verify.findings import Finding, Kind
from dicomguard.store.verify.repair import repair
from tests.keeping import Kept
from tests.unit.store.plants import (
    alter_result,
    flip_bit,
    inspect,
    kinds,
    leave_job,
    leave_temporary,
    lose_file,
    lose_row,
    stray_quarantine,
    stray_study_folder,
)


@pytest.fixture
def store(finished_store: Store) -> Store:
    return finished_store


def mend(store: Store) -> list[tuple[Finding, str]]:
    return [(finding, repair(store, finding, by="ada")) for finding in inspect(store).findings]


def rows(store: Store) -> dict[str, str]:
    with store.read() as tx:
        return {row.path: row.state for row in tx.execute(select(tables.instance))}


def test_a_found_file_is_filed_again(store: Store, kept: Kept, tmp_path: Path) -> None:
    lose_row(store, kept, tmp_path)
    ((_, done),) = mend(store)
    assert done.startswith("filed as ")
    assert rows(store)[kept.instances[0]] == "stored"
    assert kinds(store) == []


def test_a_found_file_of_an_unknown_study_moves_to_its_new_place(store: Store, kept: Kept, tmp_path: Path) -> None:
    stray_study_folder(store, kept, tmp_path)
    with store.read() as tx:
        assert tx.execute(select(tables.instance.c.calling_ae).distinct()).scalars().all() == ["CT1"]
    mend(store)
    assert not (store.root / "store/2026/11/20/feedfeedfeedfeed/aa/aa.dcm").exists()
    assert len(rows(store)) == 3
    assert kinds(store) == []


def test_a_second_copy_of_kept_bytes_goes_and_the_kept_one_stays(store: Store, kept: Kept, tmp_path: Path) -> None:
    folder = store.root / "store/2026/11/20/feedfeedfeedfeed/aa"
    folder.mkdir(parents=True)
    shutil.copyfile(store.root / kept.instances[0], folder / "aa.dcm")
    ((_, done),) = mend(store)
    assert "duplicate" in done
    assert (store.root / kept.instances[0]).is_file()
    assert kinds(store) == []


def test_unreadable_found_bytes_are_kept_aside(store: Store, kept: Kept, tmp_path: Path) -> None:
    stray_quarantine(store, kept, tmp_path)
    mend(store)
    assert [path.read_bytes() for path in (store.root / "damaged").iterdir()] == [b"no DICOM"]
    assert kinds(store) == []


def test_a_lost_instance_is_marked_and_taken_anew(store: Store, kept: Kept, tmp_path: Path) -> None:
    lose_file(store, kept, tmp_path)
    mend(store)
    assert rows(store)[kept.instances[0]] == "missing"
    assert kinds(store) == []


def test_a_damaged_file_is_set_aside_and_its_instance_marked(store: Store, kept: Kept, tmp_path: Path) -> None:
    flip_bit(store, kept, tmp_path)
    mend(store)
    assert rows(store)[kept.instances[0]] == "missing"
    assert len(list((store.root / "damaged").iterdir())) == 1
    assert kinds(store) == []


def test_leftovers_are_removed_and_everything_is_in_the_audit_chain(store: Store, kept: Kept, tmp_path: Path) -> None:
    leave_temporary(store, kept, tmp_path)
    leave_job(store, kept, tmp_path)
    assert [done for _, done in mend(store)] == ["removed", "removed"]
    assert kinds(store) == []
    with store.read() as tx:
        assert [line.action for line in audit.recent(tx)] == ["store.repaired"] * 2


def test_what_cannot_be_repaired_is_left_as_it_is(store: Store, kept: Kept, tmp_path: Path) -> None:
    alter_result(store, kept, tmp_path)
    assert [done for _, done in mend(store)] == [""]
    assert kinds(store) == [Kind.RESULT_DIFFERS]
