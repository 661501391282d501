"""Kill a receiver while it receives, and hold it to what it acknowledged."""

import contextlib
import hashlib
import os
import selectors
import signal
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from sqlalchemy import select

from demo.ports import free_port
from dicomguard import part10
from dicomguard.clock import SystemClock
from dicomguard.config import load
from dicomguard.scp.shared import Shared
from dicomguard.store import tables
from dicomguard.store.db import Store, open_store
from dicomguard.store.log_slots import settle, unfiled
from tests.fault.forks import Zygote
from tests.fuzz import wire
from tests.instances import MR, ROOT, part10_bytes
from tests.receiver import configuration

# Share of the starts that are killed too, while what the last receiver left is replayed.
_KILLED_STARTS = 0.1
# The kill comes a moment after fewer answers than this, counted from the start of the senders.
_MOST_ANSWERS = 20
# Longer than any answer; shorter than a sender of the campaign should ever wait for one that is gone.
_PATIENCE_S = 30.0


@dataclass
class Tally:
    """What was acknowledged so far: SOP Instance UID → SHA-256 of the dataset."""

    acknowledged: dict[str, str] = field(default_factory=dict)
    # Sent and not answered: may be there or not.
    unanswered: int = 0
    # While senders sent, and while a successor replayed.
    kills: int = 0
    killed_starts: int = 0
    # Records that the log held after a kill, and those among them whose file was there and was taken.
    logged: int = 0
    wiped: int = 0
    # Acknowledged and without its row or file; files that are not what their name or row says.
    missing: int = 0
    torn: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)
    # Files that were found whole, by path: size, time and number.
    _whole: dict[Path, tuple[int, int, int]] = field(default_factory=dict)

    def __str__(self) -> str:
        return (
            f"{self.kills} kills and {self.killed_starts} of starts: {len(self.acknowledged)} acknowledged, "
            f"missing {self.missing}, torn {self.torn}; {self.unanswered} unanswered, "
            f"{self.logged} in the log after the kills, {self.wiped} of their files taken"
        )

    def whole(self, path: Path, sha256: str) -> bool:
        """Whether a file's dataset has that hash; one that has not changed since is not read again."""
        found = path.stat()
        state = (found.st_size, found.st_mtime_ns, found.st_ino)
        if self._whole.get(path) != state:
            if dataset_sha256(path) != sha256:
                return False
            self._whole[path] = state
        return True


def dataset_sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()[part10.dataset_offset(path) :]).hexdigest()


def _instance(*, sender: int, number: int, rng: np.random.Generator) -> tuple[str, bytes]:
    """SOP Instance UID and dataset of 1 kB to 600 kB; every tenth study begins anew."""
    study = f"{ROOT}.7.{sender}.{number // 10}"
    sop = f"{study}.1.{number}"
    size = int(rng.choice([1_000, 20_000, 130_000, 600_000]))
    whole = part10_bytes(study=study, series=f"{study}.1", sop=sop, pixels=rng.bytes(2 * (size // 2)))
    return sop, whole[144 + int.from_bytes(whole[140:144], "little") :]


def keep_sending(port: int, tally: Tally, *, sender: int, first: int, rng: np.random.Generator) -> None:
    """Until the receiver is gone."""
    request = wire.associate_rq([(MR, wire.EXPLICIT)], calling="CT1")
    number = first
    # A release that finds nobody is the end of this, too.
    with (
        contextlib.suppress(OSError, AssertionError),
        wire.associated(port, request, timeout_s=_PATIENCE_S) as (connection, longest),
    ):
        while True:
            sop, dataset = _instance(sender=sender, number=number, rng=rng)
            pdus = wire.c_store_rq(dataset, sop_class=MR, sop_instance=sop, max_pdu_bytes=longest)
            status = None
            with contextlib.suppress(OSError):
                connection.sendall(b"".join(pdus))
                status = wire.status_of(wire.read_pdu(connection)[1])
            with tally.lock:
                if status == 0:
                    tally.acknowledged[sop] = hashlib.sha256(dataset).hexdigest()
                else:
                    tally.unanswered += 1
            if status is None:
                return
            number += 1


class _Node:
    """Receiver processes on one state folder, generation after generation; each is a fork of a zygote of its own."""

    def __init__(self, folder: Path, *, processes: int, url: str, more: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self.processes = processes
        self._folder, self._state, self._url = folder, folder / "state", url
        self._config = folder / "dicomguard.toml"
        more += f"[receive]\nprocesses = {processes}\n"
        self._config.write_text(configuration(self.port, more=more, url=url))
        # As the supervisor of a node.
        self._shared = Shared(load(self._config))
        self._zygotes = [Zygote("receiver", pass_fds=self._shared.descriptors) for _ in range(processes)]
        self._pids = [0] * processes

    def close(self) -> None:
        """End the zygotes, and what they started."""
        for zygote in self._zygotes:
            zygote.close()
        self._shared.close()

    def start(self, number: int) -> None:
        """A fork; it may not listen yet."""
        self._shared.forget(number)
        self._log(number).unlink(missing_ok=True)
        self._pids[number] = self._zygotes[number].start(
            {
                "config": str(self._config),
                "log": str(self._log(number)),
                "inherited": self._shared.argument(number),
            }
        )

    def wait_until_open(self, number: int) -> None:
        """It has replayed what the dead left, and listens."""
        deadline = time.monotonic() + _PATIENCE_S
        while "receiver.opened" not in self._said(number):
            assert not self._zygotes[number].ended(), self._said(number)[-2000:]
            assert time.monotonic() < deadline, self._said(number)[-2000:]
            time.sleep(0.004)

    def kill(self, numbers: Iterable[int]) -> None:
        """As a power cut for these processes; all get their signal before the first is waited for."""
        for number in numbers:
            os.kill(self._pids[number], signal.SIGKILL)
        for number in numbers:
            assert self._zygotes[number].wait() == -signal.SIGKILL, self._said(number)[-2000:]
            assert '.failed"' not in self._said(number), self._said(number)[-2000:]

    def kill_all(self) -> None:
        """The whole generation; who still waited at the port is turned away, as by a machine that has no power."""
        self.kill(range(self.processes))
        bound = self._shared._sockets["node"]
        with selectors.DefaultSelector() as waiting:
            waiting.register(bound, selectors.EVENT_READ)
            while waiting.select(0):
                bound.accept()[0].close()

    @contextlib.contextmanager
    def store(self) -> Iterator[Store]:
        """Its store, opened beside it or after it."""
        store = open_store(self._state, self._url, SystemClock())
        yield store
        store.close()

    def _log(self, number: int) -> Path:
        return self._folder / f"log{number}.jsonl"

    def _said(self, number: int) -> str:
        return self._log(number).read_text() if self._log(number).exists() else ""


def kill_while_receiving(
    folder: Path, *, kills: int, senders: int, seed: int, url: str = "", segments: int = 3, processes: int = 1
) -> Tally:
    """Start, send from several associations, SIGKILL at a random moment, take what a power cut may take, start, check.

    The log is small, so that its segments go round. What it covers has neither a flushed file nor a flushed row: after
    each kill every such file is removed or cut, and its row goes. Some successors are killed while they replay. Of
    several processes now one is killed, which replays while the others receive, now all.
    """
    rng = np.random.default_rng(seed)
    tally = Tally()
    more = f"[storage]\nlow_bytes = 0\nstop_bytes = 0\nlog_segments = {segments}\n"
    more += f"log_segment_bytes = {4 << 20}\nlog_spill_bytes = 400000\n"
    with contextlib.closing(_Node(folder, processes=processes, url=url, more=more)) as node:
        for number in range(processes):
            node.start(number)
            node.wait_until_open(number)
        first = 0
        while tally.kills < kills:
            # The UIDs of two campaigns differ, so that their tallies add up.
            names = range(100 * seed, 100 * seed + senders)
            one = int(rng.integers(processes)) if processes > 1 and rng.random() < 0.5 else None
            _send_until_killed(node, tally, senders=names, first=first, one=one, rng=rng)
            first += 1000
            with node.store() as store:
                take_unflushed(store, tally, rng)
            for number in range(processes):
                node.start(number)
                if rng.random() < _KILLED_STARTS:
                    # While it opens the store or replays, and sometimes a little after.
                    time.sleep(float(rng.uniform(0, 0.15)))
                    node.kill([number])
                    tally.killed_starts += 1
                    node.start(number)
                node.wait_until_open(number)
            with node.store() as store:
                check(store, tally)
        node.kill_all()
    return tally


def _send_until_killed(
    node: _Node, tally: Tally, *, senders: range, first: int, one: int | None, rng: np.random.Generator
) -> None:
    """`one`: a process that dies, and is back, before all die."""
    threads = [
        threading.Thread(
            target=keep_sending,
            args=(node.port, tally),
            kwargs={"sender": sender, "first": first, "rng": np.random.default_rng(int(rng.integers(1 << 62)))},
        )
        for sender in senders
    ]
    for thread in threads:
        thread.start()
    if one is not None:
        _let_pass(tally, threads, rng)
        node.kill([one])
        tally.kills += 1
        node.start(one)
        node.wait_until_open(one)
    _let_pass(tally, threads, rng)
    node.kill_all()
    tally.kills += 1
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()


def _let_pass(tally: Tally, threads: Sequence[threading.Thread], rng: np.random.Generator) -> None:
    """A random number of answers, and a moment; by the clock alone a slow machine would strike before the first."""
    wanted = len(tally.acknowledged) + int(rng.integers(_MOST_ANSWERS))
    deadline = time.monotonic() + _PATIENCE_S
    while len(tally.acknowledged) < wanted and any(thread.is_alive() for thread in threads):
        assert time.monotonic() < deadline, "the senders get no answers"
        time.sleep(0.001)
    time.sleep(float(rng.uniform(0, 0.05)))


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
    assert settle(store.root, patience_s=_PATIENCE_S), "what was acknowledged is not filed in time"
    with store.read() as tx:
        rows = tx.execute(select(tables.instance)).all()
        collecting = set(tx.execute(select(tables.study.c.study_key).where(tables.study.c.collecting)).scalars())
    there = {row.sop_uid: row.sha256 for row in rows if (store.root / row.path).is_file()}
    tally.missing = sum(there.get(sop) != sha256 for sop, sha256 in tally.acknowledged.items())
    tally.torn = sum(row.sop_uid in there and not tally.whole(store.root / row.path, row.sha256) for row in rows)
    # With or without a row, a file is named by its hash.
    tally.torn += sum(not tally.whole(path, path.stem) for path in (store.root / "store").rglob("*.dcm"))
    assert (tally.missing, tally.torn) == (0, 0), str(tally)
    assert len(there) == len(rows), f"{len(rows) - len(there)} rows without their file"
    # Each acknowledged instance is work that completion will see.
    assert {row.study_key for row in rows} <= collecting
