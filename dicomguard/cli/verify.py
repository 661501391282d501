"""`dicomguard verify`: is everything that was acknowledged here, once and whole."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from dicomguard import config, log
from dicomguard.clock import SystemClock
from dicomguard.errors import Refused
from dicomguard.store.db import Store, open_configured
from dicomguard.store.verify.findings import Finding, Kind
from dicomguard.store.verify.inspection import Inspection, Inspector
from dicomguard.store.verify.repair import repair

Full = Annotated[bool, typer.Option("--full", help="Read every file, not a share of them; takes its time.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON line a finding, and one with the sums.")]
Repair = Annotated[bool, typer.Option("--repair", help="Mend what can be mended; no instance is ever deleted.")]
Settings = Annotated[Path | None, typer.Option("--config", help="TOML file of the node.")]


def command(full: Full = False, as_json: AsJson = False, mend: Repair = False, settings: Settings = None) -> None:
    """Hold the files against the rows: nothing lost, nothing torn, nothing twice, nothing left over.

    Works on a stopped node and beside a running one. Exit status 0 when all is well, 1 with findings.

    Example: dicomguard verify --full --config config/dicomguard.toml
    """
    log.configure("WARNING")
    store = open_existing(config.load(settings))
    try:
        found = inspect(store, full=full, quiet=as_json)
        left = 0
        # What was set aside comes last: filing it may end this process as it ended the receiver.
        for finding in sorted(found.findings, key=lambda one: one.kind is Kind.SET_ASIDE):
            done = repair(store, finding, by="verify --repair") if mend else ""
            left += not (finding.heals or (done and not done.startswith("not repaired")))
            show(finding, done, as_json=as_json)
    finally:
        store.close()
    sums(found, as_json=as_json)
    if left:
        raise typer.Exit(1)


def open_existing(loaded: config.Config) -> Store:
    """The store of a configuration; refused where there is none, since opening would make one."""
    state = loaded.node.state
    if not loaded.database_url.startswith("postgresql") and not (state / "node.sqlite").is_file():
        raise Refused(f"The state folder {state} holds no node. Name the configuration of the node with --config.")
    return open_configured(loaded, SystemClock())


def inspect(store: Store, *, full: bool, quiet: bool) -> Inspection:
    """Go through the store with a progress bar on standard error."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=quiet) as bars:
        bar = bars.add_task("instances looked at", total=None)
        inspector = Inspector(
            store, full=full, on_progress=lambda done, total: bars.update(bar, completed=done, total=total)
        )
        return inspector.inspect()


def say(found: Inspection, *, as_json: bool) -> None:
    """Every finding, and the sums."""
    for finding in found.findings:
        show(finding, "", as_json=as_json)
    sums(found, as_json=as_json)


def show(finding: Finding, done: str, *, as_json: bool) -> None:
    """One finding with its remedy, or with what was done about it."""
    if as_json:
        print(json.dumps({**finding.to_json(), "done": done}))
        return
    print(" ".join(filter(None, (finding.kind.value, finding.study_key, finding.place))))
    print(f"    {finding.meaning.sentence[:-1]}{f': {finding.detail}' if finding.detail else ''}.")
    print(f"    {done or finding.meaning.remedy}")


def sums(found: Inspection, *, as_json: bool) -> None:
    """The sums."""
    if as_json:
        counts = {"studies": found.studies, "instances": found.instances, "hashed": found.hashed}
        print(json.dumps({**counts, "unfiled": found.unfiled, "findings": len(found.findings)}))
        return
    what = f"{found.studies} studies, {found.instances} instances, {found.hashed} of their files read"
    log_says = f", {found.unfiled} in the receive log" if found.unfiled else ""
    ends = "all is well" if not found.findings else f"{len(found.findings)} finding(s)"
    heals = sum(finding.heals for finding in found.findings)
    print(f"{what}{log_says}: {ends}{f', {heals} of which heal by themselves' if heals else ''}")
