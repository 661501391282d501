"""A database that is locked or gone stops no sender while the log has room, and nothing is lost."""

import sqlite3
import threading
from pathlib import Path

from tests.instances import ROOT, part10_file
from tests.killing import Tally, check, dataset_sha256
from tests.peers import Need, postgres, wait_for
from tests.receiver import LiveReceiver, associated, receiver, send


def send_all(live: LiveReceiver, files: list[Path], tally: Tally) -> None:
    with associated(live, files, answer_s=60) as association:
        for file in files:
            if send(association, file) == 0:
                with tally.lock:
                    tally.acknowledged[f"{ROOT}.9.{file.stem}"] = dataset_sha256(file)


def instances(folder: Path, numbers: range) -> list[Path]:
    files = []
    for number in numbers:
        made = part10_file(
            folder / f"of-{number}",
            study=f"{ROOT}.9",
            series=f"{ROOT}.9.1",
            sop=f"{ROOT}.9.{number}",
            pixels=bytes([number % 250]) * 20_000,
        )
        files.append(made.rename(folder / f"{number}"))
    return files


def test_a_locked_database_stops_no_sender_and_loses_nothing(tmp_path: Path) -> None:
    """1. rows follow; 2. another process locks the database, senders go on; 3. the receiver dies; 4. all is there."""
    tally = Tally()
    (tmp_path / "in").mkdir()
    with receiver(tmp_path) as live:
        send_all(live, instances(tmp_path / "in", range(5)), tally)
        live.settle()
        lock = sqlite3.connect(live.state / "node.sqlite", isolation_level=None)
        lock.execute("BEGIN EXCLUSIVE")
        send_all(live, instances(tmp_path / "in", range(5, 40)), tally)
        assert len(tally.acknowledged) == 40
        live.kill()
        lock.execute("ROLLBACK")
        lock.close()
    with receiver(tmp_path) as again:
        check(again.store(), tally)


def test_a_lock_that_ends_is_caught_up_with(tmp_path: Path) -> None:
    tally = Tally()
    (tmp_path / "in").mkdir()
    with receiver(tmp_path) as live:
        send_all(live, instances(tmp_path / "in", range(1)), tally)
        live.settle()
        lock = sqlite3.connect(live.state / "node.sqlite", isolation_level=None)
        lock.execute("BEGIN EXCLUSIVE")
        send_all(live, instances(tmp_path / "in", range(1, 20)), tally)
        wait_for(lambda: bool(live.events("filing.postponed")), seconds=20, what="the filer that waits")
        lock.execute("ROLLBACK")
        lock.close()
        check(live.store(), tally)
        assert len(tally.acknowledged) == 20


def test_postgresql_stopped_hard_in_mid_work_loses_nothing(need: Need, tmp_path: Path) -> None:
    """1. three senders; 2. the server is killed under them; 3. it comes back; 4. the receiver dies; 5. all is there."""
    tally = Tally()
    (tmp_path / "in").mkdir()
    # A cluster of its own: recovery flushes every file of every database that the other tests made.
    with postgres(need) as server:
        url = server.create("hard")
        with receiver(tmp_path, url=url) as live:
            parts = [instances(tmp_path / "in", range(100 * n, 100 * n + 60)) for n in range(3)]
            senders = [threading.Thread(target=send_all, args=(live, part, tally)) for part in parts]
            for sender in senders:
                sender.start()
            wait_for(lambda: len(tally.acknowledged) >= 30, seconds=30, what="the first instances")
            server.kill()
            at = len(tally.acknowledged)
            wait_for(lambda: len(tally.acknowledged) >= min(180, at + 20), seconds=30, what="senders that go on")
            server.start()
            for sender in senders:
                sender.join(60)
            assert len(tally.acknowledged) == 180
            check(live.store(), tally)
            live.kill()
        with receiver(tmp_path, url=url) as again:
            check(again.store(), tally)
