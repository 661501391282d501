"""`dicomguard send`: files and folders to an AE by C-STORE."""

import json
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress

from dicomguard import part10
from dicomguard.core.delivery import Event
from dicomguard.core.peer import Destination, check_ae_title
from dicomguard.deliver import storage
from dicomguard.deliver.association import Timeouts
from dicomguard.errors import Refused

_GOOD = (Event.STORED, Event.STORED_WITH_WARNING)


def command(
    paths: Annotated[list[Path], typer.Argument(help="DICOM files and folders.")],
    to: Annotated[str, typer.Option("--to", help="AE_TITLE@HOST:PORT of the receiver.")],
    ae_title: Annotated[str, typer.Option("--as", help="Our AE title.")] = "DICOMGUARD",
    timeout: Annotated[float, typer.Option(help="Seconds for an answer to one instance.")] = 180.0,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON line an instance on standard output.")] = False,
) -> None:
    """Send DICOM files as they are; each is answered by its own status.

    Example: dicomguard send study/ --to DICOMGUARD@127.0.0.1:11112 --as STORESCU
    """
    calling_ae = check_ae_title(ae_title, where="--as")
    destination = parse_target(to)
    files = _files(paths)
    console = Console(stderr=True)
    events: Counter[Event] = Counter()
    with Progress(console=console, disable=as_json) as progress:
        task = progress.add_task(f"to {destination.ae_title}", total=len(files))

        def tell(sent: storage.Sent) -> None:
            events[sent.answer.event] += 1
            progress.advance(task)
            if as_json:
                status = None if sent.answer.status is None else f"{sent.answer.status:04X}"
                line = {"file": str(sent.path), "status": status, "event": sent.answer.event.value}
                print(json.dumps({**line, "comment": sent.answer.comment}), flush=True)
            elif sent.answer.event is not Event.STORED:
                progress.print(f"{sent.path}: {sent.answer.comment or sent.answer.event.value}", markup=False)

        storage.send(
            files, destination, calling_ae=calling_ae, timeouts=Timeouts(connect_s=10.0, answer_s=timeout), on_sent=tell
        )
    stored = sum(events[event] for event in _GOOD)
    if not as_json:
        print(f"{stored} of {len(files)} instances stored by {destination.ae_title}")
    if stored < len(files):
        raise typer.Exit(1)


def parse_target(text: str) -> Destination:
    """`AE_TITLE@HOST:PORT` as a destination."""
    ae_title, at, address = text.partition("@")
    host, colon, port = address.rpartition(":")
    if not (at and colon and host and port.isdigit()):
        raise Refused(f'"{text}" names no AE. Write AE_TITLE@HOST:PORT, for example DICOMGUARD@127.0.0.1:11112.')
    # The destination's own check would name a section of the configuration.
    ae_title = check_ae_title(ae_title, where="AE_TITLE@HOST:PORT")
    return Destination(name="target", ae_title=ae_title, host=host.strip("[]"), port=int(port))


def _files(paths: list[Path]) -> list[Path]:
    """Files that were named, and what is a DICOM file in the folders that were."""
    files: list[Path] = []
    for path in paths:
        if not path.exists():
            raise Refused(f"{path} does not exist. Name files or folders.")
        inside = sorted(item for item in path.rglob("*") if item.is_file() and part10.is_instance(item))
        files += inside if path.is_dir() else [path]
    if not files:
        raise Refused("There is no DICOM file in what was named. Name DICOM files or folders that hold some.")
    return files
