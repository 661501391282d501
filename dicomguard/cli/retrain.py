"""`dicomguard retrain`: ask the node for a training run, and follow it."""

import json
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from dicomguard import config
from dicomguard.cli.verify import open_existing
from dicomguard.clock import SystemClock
from dicomguard.errors import Refused
from dicomguard.flow.client import Client
from dicomguard.store import runs
from dicomguard.store.db import Store

_LOOK_S = 1.0

Settings = Annotated[Path | None, typer.Option("--config", help="Configuration of the node; else DICOMGUARD_CONFIG.")]
By = Annotated[str, typer.Option("--by", help="Name of the person who starts the run; somebody else approves.")]
Follow = Annotated[bool, typer.Option("--follow", help="Show progress until the run has ended.")]
Listing = Annotated[bool, typer.Option("--list", help="Show the runs there were, and start none.")]
AsJson = Annotated[bool, typer.Option("--json", help="JSON lines on standard output.")]


def command(
    by: By = "", follow: Follow = False, listing: Listing = False, as_json: AsJson = False, settings: Settings = None
) -> None:
    """Train a candidate from the archive now.

    The node's worker does the work (`dicomguard serve` must run): it freezes the accepted cases, trains from the
    current model in a child of low priority, measures both on the golden set, and proposes the candidate or refuses it
    with reasons. Nothing judges before a second person approved it with `dicomguard models approve`.

    Example: dicomguard retrain --by ada --follow
    """
    loaded = config.load(settings)
    if not listing and not by.strip():
        raise Refused("The person who starts the run is not named. Give --by NAME.")
    if not listing and loaded.retrain.archive is None:
        raise Refused("No archive is configured, so there is nothing to train on. Set archive in [retrain].")
    store = open_existing(loaded)
    if listing:
        _list(store, as_json=as_json)
        return
    key = Client(store, SystemClock()).start_retraining(by)
    row = _row(store, key)
    if follow:
        row = _follow(store, key, as_json=as_json)
    print(_json(row) if as_json else f"run {row.key}: {row.state}. {row.message}".strip())
    raise typer.Exit(1 if row.state == "failed" else 0)


def _row(store: Store, key: str) -> runs.RunRow:
    with store.read() as tx:
        row = runs.row(tx, key)
    assert row is not None
    return row


def _follow(store: Store, key: str, *, as_json: bool) -> runs.RunRow:
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[loss]}"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), disable=as_json, transient=True) as bars:
        bar = bars.add_task("asked", total=None, loss="")
        while not (row := _row(store, key)).ended:
            done, total, loss = _standing(row.progress)
            stage = str(row.progress.get("stage", ""))
            bars.update(bar, description=f"{row.state} {stage}".strip(), completed=done, total=total, loss=loss)
            time.sleep(_LOOK_S)
    return row


def _standing(progress: Any) -> tuple[float, float | None, str]:
    done, total = progress.get("step", progress.get("done", 0)), progress.get("steps", progress.get("total"))
    losses = progress.get("losses")
    return float(done), None if total is None else float(total), f"loss {sum(losses.values()):.3f}" if losses else ""


def _list(store: Store, *, as_json: bool) -> None:
    with store.read() as tx:
        rows = runs.listing(tx)
    if as_json:
        print("\n".join(_json(row) for row in rows))
        return
    table = Table("run", "period", "state", "by", "started", "message", box=box.SIMPLE)
    for row in rows:
        table.add_row(row.key, row.period, row.state, row.started_by, f"{row.started_at:%Y-%m-%d %H:%M}", row.message)
    Console().print(table)


def _json(row: runs.RunRow) -> str:
    fields = ("key", "period", "state", "started_by", "report_path", "candidate_sha256", "message")
    return json.dumps({name: getattr(row, name) for name in fields})
