"""`dicomguard echo`: does an AE answer (C-ECHO)."""

import json
from typing import Annotated

import typer

from dicomguard.cli.send import parse_target
from dicomguard.clock import SystemClock
from dicomguard.core.peer import check_ae_title
from dicomguard.deliver import echo


def command(
    to: Annotated[str, typer.Argument(help="AE_TITLE@HOST:PORT.")],
    ae_title: Annotated[str, typer.Option("--as", help="Our AE title.")] = "DICOMGUARD",
    as_json: Annotated[bool, typer.Option("--json", help="A JSON line instead of a sentence.")] = False,
) -> None:
    """Ask an AE whether it answers.

    Example: dicomguard echo ORTHANC@127.0.0.1:4242
    """
    calling_ae = check_ae_title(ae_title, where="--as")
    result = echo.echo(parse_target(to), calling_ae=calling_ae, clock=SystemClock())
    if as_json:
        print(json.dumps({"answered": result.answered, "seconds": round(result.seconds, 3), "reason": result.sentence}))
    else:
        print(f"{result.sentence} ({result.seconds * 1000:.0f} ms)")
    if not result.answered:
        raise typer.Exit(1)
