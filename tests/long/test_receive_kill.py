"""Two hundred SIGKILLs on SQLite, fifty on PostgreSQL: nothing that was acknowledged is missing or torn."""

from pathlib import Path

import pytest

from tests.killing import kill_while_receiving
from tests.peers import Postgres


@pytest.mark.timeout(3600)
def test_two_hundred_kills_on_sqlite(tmp_path: Path) -> None:
    tally = kill_while_receiving(tmp_path, kills=200, senders=4, seed=3)
    print(tally)
    assert len(tally.acknowledged) >= 100


@pytest.mark.timeout(1800)
def test_fifty_kills_on_postgresql(tmp_path: Path, postgres_server: Postgres) -> None:
    tally = kill_while_receiving(tmp_path, kills=50, senders=3, seed=4, url=postgres_server.create("fifty"))
    print(tally)
    assert len(tally.acknowledged) >= 100
