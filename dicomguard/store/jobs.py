"""Working folders of analyses, jobs/<study>/r<n>/<run>: those that a killed process left are removed here."""

import contextlib
import shutil
from datetime import timedelta
from pathlib import Path

from dicomguard.store import studies
from dicomguard.store.db import Store
from dicomguard.store.verify.listings import BEFORE_DELIVERY

FOLDER = "jobs"
# Whoever works on a revision that was withdrawn meanwhile has noticed by then.
_SETTLED = timedelta(hours=1)


def remove_run(store: Store, folder: Path) -> None:
    """The folder of one run, and those above it that are empty then."""
    shutil.rmtree(folder, ignore_errors=True)
    for parent in (folder.parent, folder.parent.parent):
        # Another run may have its folder there.
        with contextlib.suppress(OSError):
            if parent != store.root / FOLDER:
                parent.rmdir()


def remove_stale(store: Store) -> int:
    """Folders of revisions that nobody works on any more, and for an hour nobody has; returns how many."""
    before = (store.clock.now() - _SETTLED).timestamp()
    removed = 0
    for folder in sorted((store.root / FOLDER).glob("*/r*")):
        with store.read() as tx:
            state = studies.state(tx, folder.parent.name, int(folder.name[1:])) if folder.name[1:].isdecimal() else ""
        with contextlib.suppress(FileNotFoundError):
            if state not in BEFORE_DELIVERY and folder.stat().st_mtime < before:
                remove_run(store, folder)
                removed += 1
    return removed
