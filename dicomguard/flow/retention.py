"""Runs retention once a day in a thread of the worker; the lease in the database decides which worker does."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from dicomguard import log
from dicomguard.config import Config
from dicomguard.core.retention import Policy
from dicomguard.errors import DicomguardError
from dicomguard.store import retention
from dicomguard.store.db import Store

# How often it is asked whether a day is over; a start in the meantime costs nothing.
_ASKED_S = 600.0
_ENDS_WITHIN_S = 10.0

_log = log.get("flow")


def policy(config: Config) -> Policy:
    """As [storage] says; 0 is for ever."""
    storage = config.storage
    return Policy(
        images=timedelta(days=storage.keep_days) if storage.keep_days else None,
        images_bytes=storage.keep_bytes or None,
        results=timedelta(days=storage.keep_results_days) if storage.keep_results_days else None,
    )


@contextmanager
def running(store: Store, chosen: Policy) -> Iterator[None]:
    """Delete what is due, each day, for as long as the block runs."""
    stop = threading.Event()

    def look_after() -> None:
        while True:
            once(store, chosen, stop)
            if stop.wait(_ASKED_S):
                return

    thread = threading.Thread(target=look_after, name="retention", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(_ENDS_WITHIN_S)


def once(store: Store, chosen: Policy, stop: threading.Event) -> None:
    """One run, if it is due."""
    try:
        done = retention.daily(store, chosen, stop=stop.is_set)
    except DicomguardError as error:
        _log.warning("retention.postponed", reason=str(error))
        return
    if done:
        _log.event("retention.finished", count=done.studies_expired, instances=done.images, bytes=done.bytes,
                   total=done.studies_removed)  # fmt: skip
