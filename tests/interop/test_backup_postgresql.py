"""Backup and restore of a node whose rows lie in PostgreSQL, through pg_dump and pg_restore."""

from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from dicomguard.clock import FakeClock, SystemClock
from dicomguard.core.retention import Policy
from dicomguard.errors import Refused
from dicomguard.store import backup, dump, retention
from dicomguard.store.db import open_store
from dicomguard.store.files import SystemDisk
from dicomguard.store.restore import restore
from dicomguard.store.verify.inspection import Inspector
from tests.keeping import finished
from tests.peers import Need, Postgres
from tests.unit.store.conftest import NOW


def silent(done: int, total: int) -> None:
    assert done <= total


def test_a_node_on_postgresql_comes_back(need: Need, postgres_server: Postgres, tmp_path: Path) -> None:
    need("pg_dump", "postgresql-client")
    url = postgres_server.create("backed_up")
    store = open_store(tmp_path / "state", url, SystemClock())
    kept = finished(store, tmp_path)
    # The work tables of the engine go with the node's.
    engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    with engine.begin() as connection:
        connection.execute(text("CREATE SCHEMA dbos"))
        connection.execute(text("CREATE TABLE dbos.workflow_status (workflow_uuid TEXT PRIMARY KEY, status TEXT)"))
    engine.dispose()
    document = backup.make(store, url, tmp_path / "copy", on_progress=silent)
    found = backup.check(store.clock, url, tmp_path / "copy", document, full=True, on_progress=silent)
    assert found is not None
    assert (found.findings, found.instances) == ((), 2)
    backup.finish(store, tmp_path / "copy", document)
    store.close()
    # The database in which the dump was opened is gone again.
    engine = create_engine(postgres_server.url.replace("postgresql://", "postgresql+psycopg://"))
    with engine.connect() as connection:
        names = set(connection.execute(text("SELECT datname FROM pg_database")).scalars())
    engine.dispose()
    assert not [name for name in names if name.startswith("dicomguard_check")]

    (tmp_path / "again").mkdir()
    with pytest.raises(Refused, match="holds a node already"):
        restore(tmp_path / "copy", tmp_path / "again", url, disk=SystemDisk(), on_progress=silent)
    assert list((tmp_path / "again").iterdir()) == []
    fresh = postgres_server.create("brought_back")
    restore(tmp_path / "copy", tmp_path / "again", fresh, disk=SystemDisk(), on_progress=silent)
    back = open_store(tmp_path / "again", fresh, SystemClock())
    try:
        assert Inspector(back, full=True).inspect().findings == ()
        assert (back.root / kept.instances[0]).is_file()
    finally:
        back.close()


def test_a_dump_that_cannot_be_opened_is_read_to_its_end(need: Need, postgres_server: Postgres, tmp_path: Path) -> None:
    need("pg_restore", "postgresql-client")
    url = postgres_server.create("read_through")
    store = open_store(tmp_path / "state", url, SystemClock())
    store.close()
    dump.write(url, tmp_path / "node.dump")
    dump.read_through(tmp_path / "node.dump")


def test_retention_on_postgresql(postgres_server: Postgres, tmp_path: Path) -> None:
    url = postgres_server.create("retention")
    clock = FakeClock(NOW)
    store = open_store(tmp_path / "state", url, clock)
    try:
        finished(store, tmp_path)
        policy = Policy(images=timedelta(days=30), images_bytes=None, results=timedelta(days=365))
        clock.advance(timedelta(days=31))
        done = retention.daily(store, policy)
        assert done is not None
        assert done.images == 2
        assert Inspector(store, full=True).inspect().findings == ()
        clock.advance(timedelta(days=335))
        done = retention.daily(store, policy)
        assert done is not None
        assert done.studies_removed == 1
        assert Inspector(store, full=True).inspect().findings == ()
        assert list(store.root.rglob("*.dcm")) == []
    finally:
        store.close()
