"""Every fault that verify knows is planted once and found by its name, and a sound store has none."""

import os
import sqlite3
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import update

from dicomguard.core.delivery import State
from dicomguard.flow import states
from dicomguard.store import executors, tables
from dicomguard.store.db import Store
from dicomguard.store.verify import listings, look
from dicomguard.store.verify.findings import MEANINGS, Kind
from dicomguard.store.verify.inspection import Inspector
from tests.keeping import Kept, finished, receive
from tests.unit.store.plants import (
    PLANTS,
    Plant,
    change,
    deliver_one_object_twice,
    flip_bit,
    inspect,
    kinds,
    lose_count,
    lose_row,
    open_without_workflow,
    tear_file,
)


@pytest.fixture
def store(finished_store: Store) -> Store:
    return finished_store


def test_a_sound_store_has_no_findings(store: Store, tmp_path: Path) -> None:
    finished(store, tmp_path, study=2)
    receive(store, tmp_path / "more", study=3)
    found = inspect(store)
    assert found.findings == ()
    assert (found.studies, found.instances, found.hashed, found.clean) == (3, 6, 6, True)


def test_states_are_those_of_the_workflow() -> None:
    assert listings.BEFORE_DELIVERY == states.BEFORE_DELIVERY
    assert states.IN_ORDER[states.IN_ORDER.index(states.BUILT) :] == listings.BUILT
    assert states.IN_ORDER[states.IN_ORDER.index(states.JUDGED) :] == listings.JUDGED
    assert (listings.DELIVERING, listings.DONE, listings.WAITING) == (states.DELIVERING, states.DONE, State.WAITING)


@pytest.mark.parametrize(("plant", "kind"), PLANTS, ids=[plant.__name__ for plant, _ in PLANTS])
def test_a_planted_fault_is_found_by_its_name_and_alone(
    store: Store, kept: Kept, tmp_path: Path, plant: Plant, kind: Kind
) -> None:
    plant(store, kept, tmp_path)
    assert kinds(store) == [kind]


def test_an_object_given_twice_to_one_destination(store: Store, kept: Kept, tmp_path: Path) -> None:
    deliver_one_object_twice(store, kept, tmp_path)
    assert Kind.DELIVERED_TWICE in kinds(store)


def test_every_kind_has_a_sentence_a_remedy_and_a_plant() -> None:
    assert set(MEANINGS) == set(Kind)
    for meaning in MEANINGS.values():
        assert meaning.sentence.endswith(".")
        assert meaning.remedy.endswith(".")
    assert {kind for _, kind in PLANTS} == set(Kind)


# --- beside a running node ---


def beat(store: Store) -> None:
    now = store.clock.now()
    with store.begin() as tx:
        executors.beat(tx, "receiver-1", "node", now, now + timedelta(seconds=10), role="receiver")


def test_what_is_on_its_way_is_no_fault_on_a_running_node(store: Store, kept: Kept, tmp_path: Path) -> None:
    lose_row(store, kept, tmp_path)
    open_without_workflow(store, kept, tmp_path)
    change(store, update(tables.counter).values(value=tables.counter.c.value + 2))
    lose_count(store, kept, tmp_path)
    beat(store)
    written = store.clock.now().timestamp()
    os.utime(store.root / kept.instances[0], (written, written))
    assert kinds(store) == []
    store.clock.advance(timedelta(days=1))  # type: ignore[attr-defined]
    beat(store)
    assert sorted(kinds(store)) == [Kind.FILE_WITHOUT_ROW, Kind.REVISION_WITHOUT_WORKFLOW]


def test_a_day_that_retention_empties_meanwhile_has_no_strangers(
    store: Store, kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Path.glob

    def listed(path: Path, pattern: str) -> Iterator[Path]:
        yield from whole(path, pattern)
        yield path / "store" / "2020" / "01" / "01"

    monkeypatch.setattr(Path, "glob", listed)
    assert list(look.strangers(store)) == []


def test_a_fault_that_goes_away_is_not_told(store: Store, kept: Kept, tmp_path: Path) -> None:
    """1. a file is missing; 2. the node runs, so verify looks again; 3. by then it is there."""
    path = store.root / kept.instances[0]
    away = path.rename(tmp_path / "away")
    beat(store)

    def bring_back(done: int, total: int) -> None:
        if away.exists():
            away.rename(path)

    assert Inspector(store, full=True, on_progress=bring_back, second_look_s=0.0).inspect().findings == ()


def test_a_live_workflow_is_known_from_the_table_of_the_engine(store: Store, kept: Kept, tmp_path: Path) -> None:
    open_without_workflow(store, kept, tmp_path)
    (finding,) = inspect(store).findings
    assert finding.heals
    with sqlite3.connect(store.root / "work.sqlite") as work:
        work.execute("CREATE TABLE workflow_status (workflow_uuid TEXT PRIMARY KEY, status TEXT)")
        work.execute("INSERT INTO workflow_status VALUES (?, 'SUCCESS')", (f"study/{finding.study_key}/r1",))
    work.close()
    assert kinds(store) == [Kind.REVISION_WITHOUT_WORKFLOW]
    with sqlite3.connect(store.root / "work.sqlite") as work:
        work.execute("INSERT INTO workflow_status VALUES (?, 'ENQUEUED')", (f"study/{finding.study_key}/r1/a1",))
    work.close()
    assert kinds(store) == []


# --- the share that is read ---


def test_of_a_large_store_a_share_is_read(
    store: Store, kept: Kept, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    receive(store, tmp_path / "many", study=9, slices=20)
    monkeypatch.setattr("dicomguard.store.verify.inspection.SMALL", 10)
    flip_bit(store, kept, tmp_path)
    seen = set()
    for _ in range(6):
        found = inspect(store, full=False)
        assert found.hashed < 10
        seen.add(found.hashed)
        store.clock.advance(timedelta(days=1))  # type: ignore[attr-defined]
    assert len(seen) > 1
    assert [finding.kind for finding in inspect(store, full=True).findings] == [Kind.FILE_DIFFERS]
    # A torn file shows by its size, unread.
    tear_file(store, kept, tmp_path)
    assert [finding.kind for finding in inspect(store, full=False).findings] == [Kind.FILE_DIFFERS]
