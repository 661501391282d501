"""SIGKILL during C-STORE: nothing that was acknowledged is missing or torn. Two thousand stand in tests/long."""

from datetime import timedelta
from pathlib import Path

from dicomguard.store import associations, studies
from tests.instances import part10_file
from tests.killing import kill_while_receiving
from tests.peers import Postgres, wait_for
from tests.receiver import associated, receiver, send


def test_six_kills_on_sqlite(tmp_path: Path) -> None:
    tally = kill_while_receiving(tmp_path, kills=6, senders=3, seed=1)
    assert len(tally.acknowledged) >= 15
    print(tally)


def test_four_kills_of_two_processes(tmp_path: Path) -> None:
    tally = kill_while_receiving(tmp_path, kills=4, senders=3, seed=6, processes=2)
    assert len(tally.acknowledged) >= 10


def test_two_kills_without_a_log(tmp_path: Path) -> None:
    tally = kill_while_receiving(tmp_path, kills=2, senders=2, seed=5, segments=0)
    assert len(tally.acknowledged) >= 2
    assert tally.logged == 0


def test_two_kills_on_postgresql(tmp_path: Path, postgres_server: Postgres) -> None:
    tally = kill_while_receiving(tmp_path, kills=2, senders=2, seed=2, url=postgres_server.create("kills"))
    assert len(tally.acknowledged) >= 2


def test_associations_of_a_dead_receiver_stop_holding_their_study(tmp_path: Path) -> None:
    """1. an association stores; 2. the receiver dies; 3. a new one closes it when the lease of the dead one is over."""
    file = part10_file(tmp_path / "in")
    with receiver(tmp_path) as live, associated(live, [file]) as association:
        assert send(association, file) == 0
        live.kill()

    with receiver(tmp_path) as again:
        store = again.store()

        def holding() -> int:
            with store.read() as tx:
                (waiting,) = studies.collecting(tx, now=store.clock.now(), association_hold=timedelta(hours=1))
            return waiting.activity.associations_open

        assert holding() == 1
        wait_for(lambda: holding() == 0, seconds=20, what="the end of the lease")
        with store.read() as tx:
            assert [row.how for row in associations.recent(tx)] == ["lost"]
