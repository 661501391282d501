"""The receive log when a process begins and ends: what dead ones left is filed first, what is logged is filed last."""

from collections import defaultdict
from collections.abc import Sequence
from contextlib import closing
from itertools import islice

from dicomguard import log
from dicomguard.errors import Unavailable
from dicomguard.store import backlog, set_aside, trial
from dicomguard.store.db import Store
from dicomguard.store.filer import PATIENCE_S, Filer
from dicomguard.store.files import unavailable
from dicomguard.store.log_records import Logged
from dicomguard.store.log_slots import Slot, claiming, empty_slot, flush_slot, new_slot, read_slot, remove_segments
from dicomguard.store.receive_log import ReceiveLog, open_segments
from dicomguard.store.trial import Trial

_LOG = log.get("store")
# Records in one transaction.
_BATCH = 256
_AGAIN = "The receiver died while it filed what it had acknowledged. Each instance is now filed by itself."


def open_log(store: Store, *, segments: int, segment_bytes: int, processes: int = 1) -> int:
    """Replay what dead receivers left, then attach a log to the store; returns how many records were replayed.

    What a fault of ours keeps from being filed is set aside, and tried again by the next version; so is what ends the
    process again and again.

    `processes` is how many receivers have a log here: what more of them had is given back to the disk. Without
    segments, or without room for them, the store keeps the literal order. Raises `Unavailable` when the
    database does not take what was left: nothing may be received before.
    """
    _watch(store)
    with claiming(store.disk, store.root) as held:
        replayed = sum(_replay(store, slot) for slot in held)
        set_aside.retry_of_other_versions(store)
        if segments == 0:
            mine = None
        else:
            mine = held[0] if held else new_slot(store.disk, store.root)
        for slot in held:
            if slot is not mine:
                if slot.number >= processes:
                    remove_segments(slot)
                slot.give_back()
    if mine is None:
        return replayed
    try:
        files = open_segments(store.disk, mine, count=segments, size_bytes=segment_bytes)
    except Unavailable as error:
        mine.give_back()
        _LOG.warning("log.missing", reason=str(error))
        return replayed
    filer = Filer(store)
    opened = ReceiveLog(
        store.disk,
        store.clock,
        mine,
        segments=files,
        segment_bytes=segment_bytes,
        patience_s=PATIENCE_S,
        appended=filer.appended,
    )
    filer.start(opened)
    store.log = filer
    return replayed


def _watch(store: Store) -> None:
    """Before anything is filed: a flush that comes to know of a lost file too late empties the log over it."""
    folder = store.root / backlog.FOLDER
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        store.disk.watch(folder)
    except OSError as error:
        raise unavailable(error) from error


def close_log(store: Store, *, patience_s: float) -> None:
    """File what is logged and empty the log; what does not get done in time is replayed at the next start."""
    if isinstance(store.log, Filer):
        store.log.close(patience_s=patience_s)
        store.log = None


def _replay(store: Store, slot: Slot) -> int:
    """Make files and rows of a dead process's records, durably, and empty its log."""
    # A record of which only the page cache knows would leave file and row without itself after a power cut.
    flush_slot(store.disk, slot)
    with closing(read_slot(slot)) as records:
        if next(records, None) is None:
            # One that died between the last record and this.
            (slot.folder / trial.NAME).unlink(missing_ok=True)
            return 0
    count = 0
    killers = set_aside.killers(store.root)
    keys: dict[str, set[str]] = defaultdict(set)
    with Trial(store.disk, slot.folder) as earlier, closing(read_slot(slot)) as records:
        if earlier.deaths:
            _LOG.error("log.replay_died", count=earlier.deaths, reason=_AGAIN)
        while batch := list(islice(records, 1 if earlier.deaths else _BATCH)):
            if earlier.deaths and earlier.condemns(batch[0]):
                killers |= {batch[0].sha256}
            elif earlier.deaths:
                earlier.note(batch[0])
            _replay_batch(store, batch, killers, keys)
            count += len(batch)
        if earlier.deaths:
            earlier.note(None)
        backlog.make_durable(store, lambda: read_slot(slot), trust=True)
        empty_slot(store.disk, slot)
    _LOG.event("log.replayed", count=count)
    return count


def _replay_batch(store: Store, records: Sequence[Logged], killers: frozenset[str], keys: dict[str, set[str]]) -> None:
    """Whatever cannot be filed is set aside: it must not keep the receiver from starting.

    `keys` collects those of all records so far, by study.
    """
    items = []
    for record in records:
        if record.sha256 in killers:
            set_aside.put_killer(store, record)
            continue
        try:
            items.append(backlog.read(record))
        except Exception as error:  # noqa: BLE001 -- written by a version that says it otherwise, or a fault of ours
            set_aside.put(store, record, error)
    try:
        left = backlog.file_batch(store, items, anew=True)
    except Unavailable:
        raise
    except Exception:  # noqa: BLE001 -- the top of filing: one record must not stop the others
        _LOG.crashed("filing.failed", count=len(items))
        left = items
    for item in left:
        set_aside.file_singly(store, item)
    for item in items:
        keys[item.identity.study_uid].add(item.study_key)
    backlog.drop_strays(store, items, keys)
