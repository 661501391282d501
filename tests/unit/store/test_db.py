import sqlite3
import threading
from pathlib import Path

import pytest
from sqlalchemy import select, text

from dicomguard.clock import SystemClock
from dicomguard.errors import Refused, Unavailable
from dicomguard.store import counters, studies, tables
from dicomguard.store.db import Store, make_wal, open_store, shown_url


def pragma(store: Store, name: str) -> object:
    with store.read() as tx:
        return tx.exec_driver_sql(f"PRAGMA {name}").scalar()


def test_sqlite_flushes_each_commit(tmp_path: Path) -> None:
    store = open_store(tmp_path, "", SystemClock())
    assert pragma(store, "journal_mode") == "wal"
    assert pragma(store, "synchronous") == 2
    assert pragma(store, "foreign_keys") == 1
    assert pragma(store, "busy_timeout") == 30_000


def test_a_newer_schema_is_refused_and_left_alone(tmp_path: Path) -> None:
    open_store(tmp_path, "", SystemClock()).close()
    with sqlite3.connect(tmp_path / "node.sqlite") as connection:
        connection.execute("update meta set value = '99' where name = 'schema_version'")
    with pytest.raises(Refused, match="schema 99"):
        open_store(tmp_path, "", SystemClock())
    with sqlite3.connect(tmp_path / "node.sqlite") as connection:
        assert connection.execute("select value from meta where name = 'schema_version'").fetchone() == ("99",)


def test_an_older_schema_is_brought_forward(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_store(tmp_path, "", SystemClock()).close()
    monkeypatch.setattr(tables, "SCHEMA_VERSION", tables.SCHEMA_VERSION + 1)
    added = "create table added (a integer)"
    steps = {tables.SCHEMA_VERSION - 1: lambda tx: tx.exec_driver_sql(added)}
    monkeypatch.setattr(tables, "MIGRATIONS", steps)
    store = open_store(tmp_path, "", SystemClock())
    with store.read() as tx:
        assert tx.execute(text("select count(*) from added")).scalar() == 0
        version = tx.execute(text("select value from meta where name = 'schema_version'")).scalar()
        assert version == str(tables.SCHEMA_VERSION)


def test_a_store_of_the_first_schema_knows_urgent_studies_afterwards(tmp_path: Path) -> None:
    """The tables as version 1 made them, with a row in each."""
    open_store(tmp_path, "", SystemClock()).close()
    with sqlite3.connect(tmp_path / "node.sqlite") as connection:
        connection.execute(
            "insert into study (study_key, study_uid, calling_ae, first_at, last_at, collecting, opened_because, "
            "forced_by, held_by, current_revision) values ('k', '1.2', 'CT1', '', '', 0, 'first', '', '', 0)"
        )
        for table in ("study", "revision"):
            connection.execute(f"alter table {table} drop column urgent")
        connection.execute("alter table revision drop column retries")
        connection.execute("update meta set value = '1' where name = 'schema_version'")
    store = open_store(tmp_path, "", SystemClock())
    with store.read() as tx:
        assert tx.execute(select(tables.study.c.study_key, tables.study.c.urgent)).all() == [("k", False)]
        assert tx.execute(select(tables.revision.c.urgent)).all() == []


def test_a_store_of_the_second_schema_gets_the_tables_of_commitment(tmp_path: Path) -> None:
    open_store(tmp_path, "", SystemClock()).close()
    with sqlite3.connect(tmp_path / "node.sqlite") as connection:
        for table in ("commitment", "commitment_request"):
            connection.execute(f"drop table {table}")
        connection.execute("alter table revision drop column retries")
        connection.execute("update meta set value = '2' where name = 'schema_version'")
    store = open_store(tmp_path, "", SystemClock())
    with store.read() as tx:
        for table in (tables.commitment, tables.commitment_request):
            assert tx.execute(select(table)).all() == []
    store.close()


def test_a_store_of_the_third_schema_counts_retries_afterwards(tmp_path: Path) -> None:
    """The table of revisions as version 3 made it, with a row."""
    open_store(tmp_path, "", SystemClock()).close()
    with sqlite3.connect(tmp_path / "node.sqlite") as connection:
        connection.execute("alter table revision drop column retries")
        connection.execute(
            "insert into study (study_key, study_uid, calling_ae, first_at, last_at, collecting, opened_because, "
            "forced_by, held_by, current_revision) values ('k', '1.2', 'CT1', '', '', 0, 'first', '', '', 1)"
        )
        connection.execute(
            "insert into revision (study_key, number, opened_because, closed_because, created_at, calling_ae, state, "
            "reason, progress_done, progress_total) values ('k', 1, 'first', '', '', 'CT1', 'failed', '', 0, 0)"
        )
        connection.execute("update meta set value = '3' where name = 'schema_version'")
    store = open_store(tmp_path, "", SystemClock())
    with store.begin() as tx:
        assert studies.retries(tx, "k", 1) == 0
        assert studies.reopen(tx, "k", 1, from_=("failed",), reason="retried by ada")
        assert studies.retries(tx, "k", 1) == 1
        assert not studies.reopen(tx, "k", 1, from_=("failed",), reason="retried by ada")
        assert studies.retries(tx, "k", 1) == 1
    store.close()


def test_a_foreign_database_url_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="no database of ours"):
        open_store(tmp_path, "mysql://host/name", SystemClock())


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("postgresql+psycopg://u@h/n", "postgresql+psycopg://u@h/n"),
        ("postgresql+psycopg://u:hunter2@h:5433/n", "postgresql+psycopg://u:***@h:5433/n"),
        # SQLAlchemy takes all up to the @ as the password.
        ("postgresql+psycopg://u:hunter2/b@h/n", "postgresql+psycopg://u:***@h/n"),
        ("postgresql+psycopg://u:hunter2:b@h/n", "postgresql+psycopg://u:***@h/n"),
        ("postgresql+psycopg://u@h/n?password=hunter2", "postgresql+psycopg://u@h/n"),
        ("sqlite:////srv/node.sqlite", "sqlite:////srv/node.sqlite"),
    ],
)
def test_a_url_is_shown_without_its_password(url: str, said: str) -> None:
    assert shown_url(url) == said


@pytest.mark.parametrize("url", ["u:a@hunter2@h/n", "u:a@b:hunter2@h/n", "u/x:hunter2@h/n", "u:hunter2@h:port/n"])
def test_a_url_that_is_read_otherwise_than_it_was_meant_is_refused_and_not_repeated(tmp_path: Path, url: str) -> None:
    """The driver would look for a host named by the half of the password, and say so in the log."""
    for act in (shown_url, lambda text: open_store(tmp_path, text, SystemClock())):
        with pytest.raises(Refused, match="%40") as caught:
            act(f"postgresql+psycopg://{url}")
        assert "hunter2" not in str(caught.value)
        # Nor in a traceback.
        assert caught.value.__context__ is None


def test_an_error_in_the_block_takes_everything_back(tmp_path: Path) -> None:
    store = open_store(tmp_path, "", SystemClock())
    with pytest.raises(ZeroDivisionError), store.begin() as tx:
        counters.add(tx, "a", "")
        raise ZeroDivisionError
    with store.read() as tx:
        assert counters.listing(tx) == []


def test_writers_wait_for_each_other_and_lose_nothing(tmp_path: Path) -> None:
    store = open_store(tmp_path, "", SystemClock())

    def add() -> None:
        for _ in range(20):
            with store.begin() as tx:
                counters.add(tx, "a", "")

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with store.read() as tx:
        assert counters.listing(tx)[0].value == 80


def test_a_database_that_is_no_database_is_said(tmp_path: Path) -> None:
    (tmp_path / "node.sqlite").mkdir()
    with pytest.raises(Unavailable, match="does not answer"):
        open_store(tmp_path, "", SystemClock())


def test_a_new_file_is_switched_once_another_process_lets_go(tmp_path: Path) -> None:
    path = tmp_path / "node.sqlite"
    holder = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    # As another process that creates the tables: for the switch SQLite waits for no such writer.
    holder.execute("BEGIN IMMEDIATE")
    threading.Timer(0.3, holder.rollback).start()
    open_store(tmp_path, "", SystemClock()).close()
    holder.close()
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_make_wal_stays_with_the_file(tmp_path: Path) -> None:
    make_wal(tmp_path / "work.sqlite")
    with sqlite3.connect(tmp_path / "work.sqlite") as connection:
        assert connection.execute("pragma journal_mode").fetchone() == ("wal",)
