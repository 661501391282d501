"""What `dicomguard archive` shows: the cases, and whether all is as it was written."""

import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from dicomguard import config
from dicomguard.errors import Broken, Refused
from dicomguard.retrain.archive import contents, verify
from dicomguard.retrain.archive.case import Entry

Archive = Annotated[Path | None, typer.Option("--archive", help="Folder of the archive; else [retrain] archive.")]
Settings = Annotated[Path | None, typer.Option("--config", help="Configuration whose [retrain] archive is used.")]
AsJson = Annotated[bool, typer.Option("--json", help="JSON lines on standard output.")]
_COLUMNS = ("case", "person", "label", "split", "files", "curator, reader", "state")


def root_of(archive: Path | None, settings: Path | None) -> Path:
    """The archive that is meant."""
    root = archive or config.load(settings).retrain.archive
    if root is None:
        raise Refused("No archive is named. Give --archive FOLDER, or set archive in [retrain].")
    return root


def list_(archive: Archive = None, settings: Settings = None, as_json: AsJson = False) -> None:
    """Show the cases.

    Whose they are, in which split, who added and who reviewed them; a person is in one split only. The number at a
    label leads to what it rests on.
    """
    now = contents.read(root_of(archive, settings))
    frozen = {case_id for case_id, _ in now.golden.members} if now.golden else set()
    if as_json:
        for entry in now.entries:
            print(json.dumps({**asdict(entry), "golden": entry.case.case_id in frozen}))
        return
    table = Table(box=box.SIMPLE, collapse_padding=True, pad_edge=False)
    for name in _COLUMNS:
        table.add_column(name, no_wrap=name in ("case", "person", "state"))
    notes: dict[str, int] = {}
    for entry in now.entries:
        note = notes.setdefault(entry.case.label_rests_on, len(notes) + 1)
        # As Text: what stands in brackets is no markup.
        table.add_row(*map(Text, _cells(entry, note=note, golden=entry.case.case_id in frozen)))
    Console().print(table)
    for provenance, note in notes.items():
        print(f"({note}) label provenance: {provenance}")
    states = Counter(entry.state for entry in now.entries)
    print(f"{len(now.entries)} cases: " + ", ".join(f"{count} {state}" for state, count in sorted(states.items())))


def _cells(entry: Entry, *, note: int, golden: bool) -> tuple[str, ...]:
    case, split = entry.case, "golden" if golden else entry.case.split
    # Eight letters are enough to name a case.
    whose = (case.case_id[:8], case.patient_key, f"{case.label} ({note})", split, str(len(case.files)))
    readers = ", ".join(name for name in (case.curator, entry.reviewer) if name)
    return (*whose, readers, entry.state)


def verify_(archive: Archive = None, settings: Settings = None, as_json: AsJson = False) -> None:
    """Check that all is as it was written.

    Every line of the manifest, the chain between them, and every file. Exit status 70 when one is wrong.
    """
    root = root_of(archive, settings)
    with Console(stderr=True).status("checking files"):
        found = verify.verify(root)
    if as_json:
        print(json.dumps(asdict(found)))
    else:
        for fault in found.faults:
            print(f"{fault.place}: {fault.sentence}")
        print(f"{found.lines} lines, {found.cases} cases, {found.files} files: {len(found.faults) or 'no'} faults")
    raise typer.Exit(Broken.exit_status if found.faults else 0)
