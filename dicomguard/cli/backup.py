"""`dicomguard backup`: a copy of the node, consistent between files and rows."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from dicomguard import config, log
from dicomguard.cli.verify import open_existing, say
from dicomguard.store import backup

Folder = Annotated[Path, typer.Argument(help="A new folder for the copy.")]
Quick = Annotated[bool, typer.Option("--quick", help="Read a share of the copied files when checking, not all.")]
Since = Annotated[
    Path | None,
    typer.Option("--since", help="An earlier backup on the same disk; what it has is hard-linked, not copied."),
]
Settings = Annotated[Path | None, typer.Option("--config", help="TOML file of the node.")]


def command(folder: Folder, since: Since = None, quick: Quick = False, settings: Settings = None) -> None:
    """Copy databases and files of a running or stopped node, and check the copy by opening it.

    What was acknowledged before the start is in it. A backup that was cut off is recognised and never restored.
    Exit status 0 when the copy is whole, 1 when something in it is amiss (as it is in the node).

    Example: dicomguard backup /backup/2026-11-24 --config config/dicomguard.toml
    """
    log.configure("WARNING")
    loaded = config.load(settings)
    store = open_existing(loaded)
    try:
        columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
        with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
            copying = bars.add_task("copied", total=None)
            document = backup.make(
                store, loaded.database_url, folder, since=since,
                on_progress=lambda done, total: bars.update(copying, completed=done, total=total),
            )  # fmt: skip
            checking = bars.add_task("checked", total=None)
            found = backup.check(
                store.clock, loaded.database_url, folder, document, full=not quick,
                on_progress=lambda done, total: bars.update(checking, completed=done, total=total),
            )  # fmt: skip
        document = backup.finish(store, folder, document)
    finally:
        store.close()
    shared = f", {document.shared} of them shared with {since}" if since is not None else ""
    print(f"{document.files} files{shared}, {document.bytes} bytes copied, and the database are in {folder}")
    if found is None:
        print(
            "the dump was read to its end; the role may not create a database, so its rows were not held against files"
        )
        return
    say(found, as_json=False)
    if not found.clean:
        raise typer.Exit(1)
