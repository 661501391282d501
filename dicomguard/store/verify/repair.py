"""What `verify --repair` does about a finding; it never deletes an instance."""

import shutil
from datetime import timedelta
from pathlib import Path

from sqlalchemy import select

from dicomguard import part10
from dicomguard.errors import DicomguardError
from dicomguard.store import audit, intake, set_aside
from dicomguard.store.db import Store
from dicomguard.store.files import make_folders, unavailable
from dicomguard.store.intake import Sender
from dicomguard.store.tables import instance
from dicomguard.store.verify import compare, look
from dicomguard.store.verify.findings import Finding, Kind

# Files whose content is not what was received; kept for whoever looks for the cause.
ASIDE = "damaged"


def repair(store: Store, finding: Finding, *, by: str) -> str:
    """Mend one finding and write it into the audit chain; returns what was done, "" when nothing can be."""
    acts = {
        Kind.FILE_WITHOUT_ROW: _file,
        Kind.SET_ASIDE: _retry,
        Kind.STALE_TEMPORARY: _remove_temporary,
        Kind.STALE_JOB: _remove_job,
        Kind.ROW_WITHOUT_FILE: _mark_missing,
        Kind.FILE_DIFFERS: _set_aside,
    }
    act = acts.get(finding.kind)
    if act is None:
        return ""
    try:
        done = act(store, finding)
    except OSError as error:
        raise unavailable(error) from error
    except DicomguardError as error:
        return f"not repaired: {error}"
    with store.begin() as tx:
        change = {"kind": finding.kind.value, "done": done}
        audit.append(tx, by, "store.repaired", finding.place, change, now=store.clock.now())
    return done


def _file(store: Store, finding: Finding) -> str:
    """Through the door for bytes once more; the found copy goes only when another with the same hash is kept."""
    found = store.root / finding.place
    try:
        sha256 = look.dataset_sha256(found)
    except DicomguardError:
        return _aside(store, found)
    sender = Sender(peer="", calling_ae=part10.read_meta(found).source_ae, called_ae="", address="")
    outcome = intake.receive_file(store, sender, found, channel="cli")
    kept = store.root / outcome.instance.path
    if kept != found and look.dataset_sha256(kept) == sha256:
        found.unlink()
    return f"filed as {outcome.instance.path} ({type(outcome).__name__.lower()})"


def _retry(store: Store, finding: Finding) -> str:
    """Once more through the filer's hands."""
    for item in set_aside.listing(store.root):
        if item.path == finding.place:
            return f"filed as {set_aside.retry(store, item)}"
    return "gone by itself"


def _remove_temporary(store: Store, finding: Finding) -> str:
    path = store.root / finding.place
    # Looked at once more: the finding may be an hour old itself.
    limit = store.clock.now() - timedelta(seconds=compare.STALE_S)
    if not path.is_file() or path.stat().st_mtime > limit.timestamp():
        return "gone by itself"
    path.unlink(missing_ok=True)
    return "removed"


def _remove_job(store: Store, finding: Finding) -> str:
    shutil.rmtree(store.root / finding.place, ignore_errors=True)
    return "removed"


def _mark_missing(store: Store, finding: Finding) -> str:
    with store.begin() as tx:
        row = tx.execute(select(instance).where(instance.c.path == finding.place).with_for_update()).first()
        if row is None or (store.root / finding.place).is_file():
            return "gone by itself"
        reason = f"its file was missing on {store.clock.now():%Y-%m-%d}; it was {row.state}"
        tx.execute(instance.update().where(instance.c.id == row.id).values(state="missing", reason=reason))
    return "marked missing"


def _set_aside(store: Store, finding: Finding) -> str:
    moved = _aside(store, store.root / finding.place)
    return f"{moved}, {_mark_missing(store, finding)}"


def _aside(store: Store, path: Path) -> str:
    """Move a file into the folder for damaged ones, under a name that was not there."""
    folder = store.root / ASIDE
    make_folders(store.disk, store.root, folder)
    number = 0
    while (target := folder / f"{path.stem}-{number}.dcm").exists():
        number += 1
    store.disk.rename(path, target)
    store.disk.sync_folder(folder)
    return f"set aside as {ASIDE}/{target.name}"
