"""Two receiver processes on one port: one is killed and the other goes on, and nothing acknowledged is lost."""

import hashlib
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import select

from dicomguard.clock import SystemClock
from dicomguard.store import tables
from dicomguard.store.db import open_store
from dicomguard.store.log_slots import states
from tests.fuzz import wire
from tests.instances import MR, ROOT, part10_bytes
from tests.killing import Tally, check, keep_sending, take_unflushed
from tests.peers import Postgres, wait_for
from tests.receiver import LiveReceiver, receiver

SMALL_LOG = "[storage]\nlow_bytes = 0\nstop_bytes = 0\nlog_segments = 3\nlog_segment_bytes = 4194304\n"
REQUEST = wire.associate_rq([(MR, wire.EXPLICIT)], calling="CT1")


def dataset(*, number: int, pixels: bytes) -> tuple[str, bytes]:
    """SOP Instance UID and dataset of one of a study."""
    sop = f"{ROOT}.8.1.{number}"
    whole = part10_bytes(study=f"{ROOT}.8", series=f"{ROOT}.8.1", sop=sop, pixels=pixels)
    return sop, whole[144 + int.from_bytes(whole[140:144], "little") :]


def send_until_told(live: LiveReceiver, tally: Tally, told: threading.Event, *, sender: int) -> None:
    """Whenever its association breaks it comes again, to whichever process is there."""
    rng = np.random.default_rng(sender)
    first = 0
    while not told.is_set():
        keep_sending(live.port, tally, sender=sender, first=first, rng=rng)
        first += 1000


def kill_one_after_the_other(live: LiveReceiver, tally: Tally, *, kills: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    told = threading.Event()
    threads = [
        threading.Thread(target=send_until_told, args=(live, tally, told), kwargs={"sender": sender})
        for sender in range(4)
    ]
    for thread in threads:
        thread.start()
    try:
        for _ in range(kills):
            wanted = len(tally.acknowledged) + int(rng.integers(5, 40))
            wait_for(lambda wanted=wanted: len(tally.acknowledged) >= wanted, seconds=60, what="answers")
            number = int(rng.integers(2))
            live.kill_one(number)
            tally.kills += 1
            # The other one is not concerned.
            wanted = len(tally.acknowledged) + 5
            wait_for(lambda wanted=wanted: len(tally.acknowledged) >= wanted, seconds=60, what="the other process")
            live.restart(number)
            wait_for(lambda: live.opened == 2 + tally.kills, seconds=60, what="the one that starts again")
    finally:
        told.set()
        live.kill()
        for thread in threads:
            thread.join(60)
    assert not any(thread.is_alive() for thread in threads)


@pytest.mark.parametrize("on", ["sqlite", "postgresql"])
def test_killing_either_process_loses_nothing(on: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    url = ""
    if on == "postgresql":
        server: Postgres = request.getfixturevalue("postgres_server")
        url = server.create("two_receivers")
    tally = Tally()
    with receiver(tmp_path, url=url, more=SMALL_LOG, processes=2) as live:
        kill_one_after_the_other(live, tally, kills=3, seed=7)
    store = open_store(tmp_path / "state", url, SystemClock())
    take_unflushed(store, tally, np.random.default_rng(9))
    # The number of processes was lowered: what the other one had logged is filed, too.
    with receiver(tmp_path, url=url, more=SMALL_LOG):
        check(store, tally)
    store.close()
    assert len(tally.acknowledged) >= 30
    print(tally)


def test_the_same_instance_sent_to_both_at_once_is_kept_once(tmp_path: Path) -> None:
    """Both take it before either has its row; who sends it again is told Success, too."""
    rng = np.random.default_rng(3)
    sent = [dataset(number=number, pixels=rng.bytes(20_000)) for number in range(40)]
    together = threading.Barrier(2)
    answers: list[int | None] = []

    def bring(port: int) -> None:
        with wire.associated(port, REQUEST, timeout_s=60) as (connection, longest):
            for sop, content in sent:
                pdus = wire.c_store_rq(content, sop_class=MR, sop_instance=sop, max_pdu_bytes=longest)
                together.wait(60)
                connection.sendall(b"".join(pdus))
                answers.append(wire.status_of(wire.read_pdu(connection)[1]))

    with receiver(tmp_path, processes=2) as live:
        threads = [threading.Thread(target=bring, args=(live.port,)) for _ in range(2)]
        for thread in threads:
            thread.start()
            # One after the other, so that each process takes one.
            time.sleep(0.3)
        for thread in threads:
            thread.join(120)
        assert answers == [0] * 80
        store = live.store()
        used = [state.slot for state in states(store.root) if state.appended > 0]
        with store.read() as tx:
            rows = tx.execute(select(tables.instance)).all()
            studies = tx.execute(select(tables.study)).all()
            open_ones = tx.execute(
                select(tables.association_study.c.study_key, tables.association_study.c.association_id)
            ).all()
    assert used == ["0", "1"], "both processes had work"
    assert sorted((row.sop_uid, row.sha256) for row in rows) == sorted(
        (sop, hashlib.sha256(content).hexdigest()) for sop, content in sent
    )
    assert len(studies) == 1
    assert {row.study_key for row in open_ones} == {studies[0].study_key}


def test_the_caps_hold_over_both(tmp_path: Path) -> None:
    more = SMALL_LOG + "[receive]\nmax_associations = 3\n"
    with receiver(tmp_path, more=more, processes=2) as live:
        held = [wire.associated(live.port, REQUEST, timeout_s=60) for _ in range(3)]
        for one in held:
            one.__enter__()
        with pytest.raises(AssertionError), wire.associated(live.port, REQUEST, timeout_s=60):
            pass
        for one in held:
            one.__exit__(None, None, None)
        wait_for(lambda: again(live), seconds=20, what="a free place")


def again(live: LiveReceiver) -> bool:
    try:
        with wire.associated(live.port, REQUEST, timeout_s=60):
            return True
    except AssertionError:
        return False
