"""Kill a receiver while it receives, and hold it to what it acknowledged."""

import hashlib
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from sqlalchemy import select

from dicomguard import part10
from dicomguard.store import tables
from dicomguard.store.db import Store
from dicomguard.store.log_slots import unfiled
from tests.instances import ROOT, part10_bytes
from tests.receiver import LiveReceiver, associated, receiver, send


@dataclass
class Tally:
    """What was acknowledged so far: SOP Instance UID → SHA-256 of the dataset."""

    acknowledged: dict[str, str] = field(default_factory=dict)
    # Sent and not answered: may be there or not.
    unanswered: int = 0
    # Records that the log held after a kill, and those among them whose file was there and was taken.
    logged: int = 0
    wiped: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __str__(self) -> str:
        kept = f"{len(self.acknowledged)} acknowledged, {self.unanswered} unanswered"
        return f"{kept}, {self.logged} in the log after the kills, {self.wiped} of their files taken"


def dataset_sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()[part10.dataset_offset(path) :]).hexdigest()


def _instance(folder: Path, *, sender: int, number: int, rng: np.random.Generator) -> Path:
    """Of 1 kB to 600 kB; every tenth study begins anew."""
    study = f"{ROOT}.7.{sender}.{number // 10}"
    path = folder / f"{sender}-{number}.dcm"
    size = int(rng.choice([1_000, 20_000, 130_000, 600_000]))
    path.write_bytes(
        part10_bytes(study=study, series=f"{study}.1", sop=f"{study}.1.{number}", pixels=rng.bytes(2 * (size // 2)))
    )
    return path


def _keep_sending(
    live: LiveReceiver, folder: Path, tally: Tally, *, sender: int, first: int, rng: np.random.Generator
) -> None:
    """Until the receiver is gone."""
    number = first
    example = _instance(folder, sender=sender, number=number, rng=rng)
    # The requestor does not always notice that its peer is gone.
    with associated(live, [example], answer_s=2.0) as association:
        while association.is_established:
            path = _instance(folder, sender=sender, number=number, rng=rng)
            status = send(association, path)
            with tally.lock:
                if status == 0:
                    tally.acknowledged[part10.read_meta(path).sop_instance_uid] = dataset_sha256(path)
                else:
                    tally.unanswered += 1
            path.unlink()
            number += 1


def kill_while_receiving(
    folder: Path, *, kills: int, senders: int, seed: int, url: str = "", segments: int = 3
) -> Tally:
    """Start, send from several associations, SIGKILL at a random moment, take what a power cut may take, start, check.

    The log is small, so that its segments go round. What it covers has neither a flushed file nor a flushed row: after
    each kill every such file is removed or cut, and its row goes.
    """
    rng = np.random.default_rng(seed)
    tally = Tally()
    (folder / "in").mkdir(parents=True)
    more = f"[storage]\nlow_bytes = 0\nstop_bytes = 0\nlog_segments = {segments}\n"
    more += f"log_segment_bytes = {4 << 20}\nlog_spill_bytes = 400000\n"
    for round_number in range(kills + 1):
        with receiver(folder, url=url, more=more) as live:
            if round_number:
                check(live.store(), tally)
            if round_number == kills:
                break
            threads = [
                threading.Thread(
                    target=_keep_sending,
                    args=(live, folder / "in", tally),
                    kwargs={
                        "sender": sender,
                        "first": 1000 * round_number,
                        "rng": np.random.default_rng([seed, sender]),
                    },
                )
                for sender in range(senders)
            ]
            for thread in threads:
                thread.start()
            time.sleep(float(rng.uniform(0.15, 0.8)))
            live.kill()
            for thread in threads:
                thread.join(60)
                assert not thread.is_alive()
            take_unflushed(live.store(), tally, rng)
    return tally


def take_unflushed(store: Store, tally: Tally, rng: np.random.Generator) -> None:
    """Every file and row of what the log still covers: a power cut may take them, and must not be noticed."""
    for record in unfiled(store.root):
        tally.logged += 1
        same = (tables.instance.c.sop_uid == record.sop_instance_uid, tables.instance.c.sha256 == record.sha256)
        with store.begin() as tx:
            row = tx.execute(select(tables.instance.c.path).where(*same)).first()
            tx.execute(tables.instance.delete().where(*same))
        if row is None or not (store.root / row.path).is_file():
            continue
        tally.wiped += 1
        if rng.random() < 0.5:
            (store.root / row.path).unlink()
        else:
            with (store.root / row.path).open("r+b") as file:
                file.truncate(int(rng.integers(0, 1000)))


def check(store: Store, tally: Tally) -> None:
    """Everything acknowledged has a row and a whole file; every row has one; what is half is nowhere."""
    with store.read() as tx:
        rows = tx.execute(select(tables.instance)).all()
    kept = {row.sop_uid: row for row in rows}
    missing = set(tally.acknowledged) - set(kept)
    assert not missing, f"{len(missing)} acknowledged instances have no row"
    for row in rows:
        path = store.root / row.path
        assert path.is_file(), "a row without its file"
        assert dataset_sha256(path) == row.sha256, "a torn file"
        if row.sop_uid in tally.acknowledged:
            assert row.sha256 == tally.acknowledged[row.sop_uid]
    with store.read() as tx:
        keys = set(tx.execute(select(tables.study.c.study_key).where(tables.study.c.collecting)).scalars())
    # Each acknowledged instance is work that completion will see.
    assert {row.study_key for row in rows} <= keys
    for path in (store.root / "store").rglob("*.dcm"):
        assert path.stem == dataset_sha256(path), "a torn file without a row"
