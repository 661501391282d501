"""The command line: one module per command, each imported only when it is asked for.

A command module has `command` (a function) or `app` (a Typer with sub-commands). It parses, calls and prints; what it
calls raises an error of `dicomguard.errors`, which becomes a sentence on standard error and an exit status here.
"""

import importlib
import sys
from typing import Any

import typer
from typer.core import TyperGroup

from dicomguard import __version__
from dicomguard.errors import DicomguardError

# Name: what it does, as `dicomguard --help` shows it.
COMMANDS = {
    "serve": "Run the node: receiver, worker and page.",
    "analyze": "Judge DICOM files and folders without a server.",
    "explain": "Say for a file why it would be analysed or not.",
    "send": "Send DICOM files to an AE by C-STORE.",
    "echo": "Ask an AE whether it answers (C-ECHO).",
    "check-config": "Check a configuration file and show what it means.",
    "conformance": "Print the DICOM conformance statement.",
    "queue": "List what is under way; analyse, hold, cancel and retry studies.",
    "verify": "Hold files against rows: nothing lost, torn, twice or left over.",
    "backup": "Copy the node, running or not, and check the copy.",
    "restore": "Put a backup into an empty state folder.",
    "evaluate": "Measure the detector on patients it has not seen.",
    "tamper": "Forge a study from an authentic one, for drills and tests.",
    "archive": "Add, review, list and verify the cases that training uses.",
    "retrain": "Train a candidate from the archive now.",
    "models": "List, approve and roll back models.",
}


class _LazyGroup(TyperGroup):
    """Imports a command's module when it is used, so that `--help` and small commands stay quick."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in COMMANDS:
            return None
        module: Any = importlib.import_module(f"dicomguard.cli.{cmd_name.replace('-', '_')}")
        app: typer.Typer | None = getattr(module, "app", None)
        if app is None:
            app = typer.Typer(add_completion=False, rich_markup_mode=None)
            app.command(name=cmd_name)(module.command)
        command = typer.main.get_command(app)
        command.name = cmd_name
        return command

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


app = typer.Typer(
    cls=_LazyGroup,
    name="dicomguard",
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(value: bool) -> None:
    if value:
        print(f"dicomguard {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),
) -> None:
    """Looks for forged tumors in brain MR. Research use only, not for diagnosis."""


def main() -> None:
    """Entry of the `dicomguard` command."""
    try:
        app()
    except DicomguardError as error:
        print(f"dicomguard: {error}", file=sys.stderr)
        sys.exit(error.exit_status)
