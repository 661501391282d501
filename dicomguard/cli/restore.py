"""`dicomguard restore`: a backup into an empty state folder."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from dicomguard import config, log
from dicomguard.cli.verify import inspect, open_existing, say
from dicomguard.flow.states import BEFORE_DELIVERY
from dicomguard.store import restore
from dicomguard.store.files import SystemDisk, lock_folder

Folder = Annotated[Path, typer.Argument(help="Folder that `dicomguard backup` made.")]
Settings = Annotated[Path | None, typer.Option("--config", help="TOML file of the node; its state folder is filled.")]


def command(folder: Folder, settings: Settings = None) -> None:
    """Put a backup into the empty state folder of a configuration, and verify it.

    What was received after the backup is not in it. Exit status 0 when all is well, 1 with findings.

    Example: dicomguard restore /backup/2026-11-24 --config config/dicomguard.toml
    """
    log.configure("WARNING")
    loaded = config.load(settings)
    state = loaded.node.state
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with lock_folder(state), Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        bar = bars.add_task("restored", total=None)
        document = restore.restore(
            folder, state, loaded.database_url, disk=SystemDisk(),
            on_progress=lambda done, total: bars.update(bar, completed=done, total=total),
        )  # fmt: skip
    store = open_existing(loaded)
    try:
        restore.note(store, document)
        found = inspect(store, full=True, quiet=False)
        again = restore.resumed(store, BEFORE_DELIVERY)
    finally:
        store.close()
    print(f"restored to {state}: the node as it was on {document.started_at}")
    say(found, as_json=False)
    print("Once the node is started:")
    print(f"  {again.deliveries} deliveries that were not over then go out again, with the same bytes and UIDs")
    print(
        f"  {again.revisions} revisions that were not built then are judged again; their reports get UIDs of their own"
    )
    print("  what was received since then is not here: have it sent again; what is here already is not taken twice")
    if not found.clean:
        raise typer.Exit(1)
