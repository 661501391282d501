"""`dicomguard queue`: what is under way or waits for a person, and what an administrator can do about a study."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from dicomguard import config
from dicomguard.cli.verify import open_existing
from dicomguard.flow.client import Client

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    help="List what is under way; analyse, hold, cancel and retry studies.",
)

Settings = Annotated[Path | None, typer.Option("--config", help="Configuration of the node; else DICOMGUARD_CONFIG.")]
By = Annotated[str, typer.Option("--by", help="Name of the person who decides; it stands in the audit chain.")]
Study = Annotated[str, typer.Argument(help="Key of the study, as the list and the page's address have it.")]


@contextmanager
def _client(settings: Path | None) -> Iterator[Client]:
    store = open_existing(config.load(settings))
    try:
        yield Client(store, store.clock)
    finally:
        store.close()


@app.command("list")
def list_(
    settings: Settings = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON lines on standard output.")] = False,
) -> None:
    """Show revisions in work or failed, deliveries that wait or were refused, commitments not given."""
    with _client(settings) as client:
        rows = client.queue()
    if as_json:
        for row in rows:
            print(json.dumps(asdict(row), default=str))
        return
    table = Table("study", "what", "state", "attempts", "next", "why", box=box.SIMPLE)
    for row in rows:
        role = "kept by" if row.kind == "commitment" else "to"
        what = f"report {row.revision}" + (f" {role} {row.destination}" if row.destination else "")
        following = f"{row.next_at:%Y-%m-%d %H:%M:%S} UTC" if row.next_at else ""
        table.add_row(row.study_key, what, row.state, str(row.attempts), following, row.message)
    Console().print(table if rows else "Nothing waits.")


@app.command()
def analyse(study: Study, by: By, settings: Settings = None) -> None:
    """Close a study now; one that was judged is judged again."""
    with _client(settings) as client:
        client.force(study, by)
    print("The study is closed with what it has and judged by the next free worker.")


@app.command()
def cancel(study: Study, by: By, settings: Settings = None) -> None:
    """Stop the work on a study: nothing of its current revision is reported.

    The analysis ends within two seconds. What is being sent cannot be taken back. A later image of the study opens a
    new revision, which is judged.

    Example: dicomguard queue cancel 3f1c0a92b7d4e856 --by ada
    """
    with _client(settings) as client:
        client.cancel(study, by)
    print("Cancelled. Nothing is reported unless somebody retries it: dicomguard queue retry STUDY --by NAME")


@app.command()
def retry(study: Study, by: By, settings: Settings = None) -> None:
    """Start again what failed or was cancelled, and deliveries that were refused or wait."""
    with _client(settings) as client:
        client.retry(study, by)
    print("What had failed or was cancelled is tried again now.")


@app.command()
def hold(study: Study, by: By, settings: Settings = None) -> None:
    """Keep a study from being closed. A report that is under way goes on; `cancel` stops it."""
    with _client(settings) as client:
        under_way = client.hold(study, True, by)
    print("On hold: what it collects is not judged. Go on: dicomguard queue release STUDY --by NAME")
    if under_way:
        print("The report under way goes on; cancel it to stop it: dicomguard queue cancel STUDY --by NAME")


@app.command()
def release(study: Study, by: By, settings: Settings = None) -> None:
    """Let a study that is on hold be closed again."""
    with _client(settings) as client:
        client.hold(study, False, by)
    print("Released: it is closed when nothing more arrives.")
