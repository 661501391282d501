"""The worker's start, with an engine that runs nothing."""

import contextlib
import threading
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from dicomguard import config
from dicomguard.clock import SystemClock
from dicomguard.core.commitment import Commitment, State
from dicomguard.flow import __main__ as worker
from dicomguard.store import commitments
from dicomguard.store.db import Limits, Store, open_store
from tests.keeping import Kept, finished

NODE = """
[node]
state = "state"
[storage]
low_bytes = 1
stop_bytes = 1
[destinations.archive]
ae_title = "ARCHIVE"
host = "127.0.0.1"
port = 104
commitment = {asked}
"""


class Idle:
    """In the engine's place."""

    executor_id = "worker:1"

    def __init__(self, **_: Any) -> None: ...

    def register(self, *_: Any, **__: Any) -> None: ...

    def launch(self) -> None: ...

    def close(self, _: int) -> None: ...


def refused(store: Store, kept: Kept) -> Commitment:
    return Commitment(
        study_key=kept.key, revision=1, destination="archive", parts=(), state=State.FAILED,
        planned_at=store.clock.now() - timedelta(days=7), next_at=None,
    )  # fmt: skip


@pytest.mark.parametrize(("asked", "left"), [("true", 1), ("false", 0)])
def test_a_start_without_commitment_lets_go_of_what_was_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: str, left: int
) -> None:
    store = open_store(tmp_path / "state", "", SystemClock(), limits=Limits(low_bytes=1, stop_bytes=1))
    kept = finished(store, tmp_path / "in")
    with store.begin() as tx:
        commitments.save(tx, refused(store, kept))
    monkeypatch.setattr(worker, "Engine", Idle)
    monkeypatch.setattr(worker, "Analysts", lambda _: contextlib.nullcontext(enter_result=_Nobody()))
    stop = threading.Event()
    stop.set()
    settings = config.parse(NODE.format(asked=asked), base=tmp_path, path=None)
    worker.run(settings, stop, threading.Event())
    with store.read() as tx:
        assert len(commitments.of_study(tx, kept.key)) == left
    store.close()


class _Nobody:
    analyse = None
