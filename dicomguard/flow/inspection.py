"""Holds files against rows once a day in a thread of low priority; the lease in the database decides which worker does.

It looks and says; `dicomguard verify --repair` is a person's decision.
"""

import os
import secrets
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import time, timedelta
from zoneinfo import ZoneInfo

from dicomguard import log
from dicomguard.config import Config
from dicomguard.core import daily
from dicomguard.errors import DicomguardError
from dicomguard.store import leases
from dicomguard.store.db import Store
from dicomguard.store.verify import record
from dicomguard.store.verify.findings import MEANINGS, Finding
from dicomguard.store.verify.inspection import Inspection, Inspector

# How often it is asked whether it is time; the first time after this, so that a start is not made slower.
_ASKED_S = 600.0
_ENDS_WITHIN_S = 10.0
_LEASE, _LEASE_FOR = "verify", timedelta(minutes=10)
# Of this thread alone, and with it the priority of its reads (ioprio_set(2)).
_NICE = 15

_log = log.get("flow")


class _Stopped(Exception):
    """The worker ends, or another has the lease."""


@contextmanager
def running(store: Store, settings: Config) -> Iterator[None]:
    """Inspect at `storage.verify_at`, for as long as the block runs."""
    stop = threading.Event()

    def look_after() -> None:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
        while not stop.wait(_ASKED_S):
            once(store, settings, stop)

    thread = threading.Thread(target=look_after, name="inspection", daemon=True)
    if settings.storage.verify_at:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        if settings.storage.verify_at:
            thread.join(_ENDS_WITHIN_S)


def once(store: Store, settings: Config, stop: threading.Event) -> None:
    """One inspection, if it is due."""
    at = time.fromisoformat(settings.storage.verify_at)
    owner = f"verify-{secrets.token_hex(8)}"
    try:
        now = store.clock.now()
        with store.read() as tx:
            last = record.last(tx, now)
        if not daily.due(now.astimezone(ZoneInfo(settings.node.timezone)), last.at if last else None, at=at):
            return
        if not _take(store, owner):
            return
        try:
            _inspect(store, owner, stop)
        finally:
            with store.begin() as tx:
                leases.release(tx, _LEASE, owner)
    except _Stopped:
        return
    except DicomguardError as error:
        _log.warning("verify.postponed", reason=str(error))
    except Exception:  # noqa: BLE001 -- the top of a thread
        _log.crashed("verify.postponed")


def _inspect(store: Store, owner: str, stop: threading.Event) -> None:
    began = renewed = store.clock.monotonic()

    def go_on(_done: int, _total: int) -> None:
        nonlocal renewed
        if store.clock.monotonic() - renewed > _LEASE_FOR.total_seconds() / 4:
            renewed = store.clock.monotonic()
            if not _take(store, owner):
                raise _Stopped
        if stop.is_set():
            raise _Stopped

    found = Inspector(store, full=False, on_progress=go_on).inspect()
    with store.begin() as tx:
        record.keep(tx, found, at=store.clock.now())
    _say(found, seconds=round(store.clock.monotonic() - began, 1))


def _take(store: Store, owner: str) -> bool:
    now = store.clock.now()
    with store.begin() as tx:
        return leases.take(tx, _LEASE, owner, now, now + _LEASE_FOR)


def _say(found: Inspection, *, seconds: float) -> None:
    """One line for each kind of fault with an example, and one with the sums."""
    left = [finding for finding in found.findings if not finding.heals]
    counts = Counter(finding.kind for finding in left)
    examples: dict[str, Finding] = {finding.kind: finding for finding in reversed(left)}
    for kind, count in sorted(counts.items()):
        meaning = MEANINGS[kind]
        _log.error(
            "verify.found", kind=kind.value, count=count, study=examples[kind].study_key, path=examples[kind].place,
            reason=f"{meaning.sentence} {meaning.remedy}",
        )  # fmt: skip
    _log.event("verify.finished", instances=found.instances, total=found.hashed, count=len(left), seconds=seconds)
