"""`dicomguard models`: which weights judge, and who decided so."""

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
from dicomguard.analyze import weights
from dicomguard.cli.verify import open_existing
from dicomguard.errors import Refused
from dicomguard.flow import approval
from dicomguard.store import models
from dicomguard.store.db import Store

app = typer.Typer(
    no_args_is_help=True, add_completion=False, rich_markup_mode=None, help="List, approve and roll back models."
)

Settings = Annotated[Path | None, typer.Option("--config", help="Configuration of the node; else DICOMGUARD_CONFIG.")]
By = Annotated[str, typer.Option("--by", help="Name of the person who decides; it stands in the audit chain.")]
Model = Annotated[str, typer.Argument(help="Id of the model, or the first six letters of its hash.")]


@contextmanager
def _opened(settings: config.Config) -> Iterator[Store]:
    store = open_existing(settings)
    try:
        yield store
    finally:
        store.close()


@app.command("list")
def list_(
    settings: Settings = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON lines on standard output.")] = False,
) -> None:
    """Show all models with their state and the reasons of promotion.

    The shipped weights judge while no model is current. Every SR names the model that judged.
    """
    with _opened(config.load(settings)) as store, store.read() as tx:
        rows = models.listing(tx)
    if as_json:
        for row in rows:
            print(json.dumps(asdict(row), default=str))
        return
    shipped = weights.read_head(weights.shipped())
    table = Table("model", "weights", "state", "by", "reasons", box=box.SIMPLE)
    for row in rows:
        people = " / ".join(name for name in (row.proposed_by, row.decided_by) if name)
        table.add_row(row.id, row.sha256[:12], row.state, people, " ".join(row.reasons))
    judging = any(row.state == "current" for row in rows)
    table.add_row(shipped.id, shipped.sha256[:12], "shipped" if judging else "shipped, current", "", "")
    Console().print(table)


@app.command()
def card(
    file: Annotated[Path | None, typer.Argument(help="Weights; else those that ship with the package.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The card as it stands in the file.")] = False,
) -> None:
    """Print the model card in a weights file: false alarms, intended use, known failures, data with licences."""
    head = weights.read_head(file or weights.shipped())
    if head.card is None:
        raise Refused(f"{head.id} carries no card. Look in docs/model-card.md for that of the shipped weights.")
    if as_json:
        print(json.dumps(head.card.to_json(), indent=1))
        return
    print(f"{head.id}, version {head.version}\n")
    data = "; ".join(f"{source}: {licence}" for source, licence in head.training["data"].items())
    for heading, text in (*head.card.lines(), ("Data", data)):
        print(f"{heading}: {text}\n")


@app.command()
def approve(model: Model, by: By, settings: Settings = None) -> None:
    """Let a candidate judge from the next study on.

    Whoever started the run, or alone added its cases, cannot approve it, unless [retrain] two_people = false.

    Example: dicomguard models approve dg-2026.11-1f3a9c02 --by grace
    """
    loaded = config.load(settings)
    with _opened(loaded) as store:
        two_people = loaded.retrain.two_people
        row = approval.approve(store, model, by=by, two_people=two_people, now=store.clock.now())
    print(f"{row.id} judges from the next study on. Back again: dicomguard models rollback --by NAME")


@app.command()
def decline(model: Model, by: By, reason: Annotated[str, typer.Option(help="Why.")], settings: Settings = None) -> None:
    """Say no to a candidate."""
    with _opened(config.load(settings)) as store:
        row = approval.decline(store, model, by=by, reason=reason, now=store.clock.now())
    print(f"{row.id} is declined and will not judge.")


@app.command()
def rollback(by: By, settings: Settings = None) -> None:
    """Let the model before the current one judge again; at last the shipped weights."""
    with _opened(config.load(settings)) as store:
        row = approval.rollback(store, by=by, now=store.clock.now())
    print(f"{row.id if row else 'The shipped model'} judges from the next study on.")
