"""`dicomguard serve`: run the node."""

import signal
import threading
from pathlib import Path
from typing import Annotated

import typer

from dicomguard import config as configuration
from dicomguard import log, node
from dicomguard.clock import SystemClock


def command(
    config: Annotated[
        Path | None, typer.Option("--config", "-c", help="TOML file; else the one DICOMGUARD_CONFIG names.")
    ] = None,
) -> None:
    """Run receiver, worker and page until Ctrl-C or SIGTERM; SIGHUP reads the configuration again.

    Example: dicomguard serve --config config/dicomguard.toml
    """
    loaded = configuration.load(config)
    clock = SystemClock()
    log.configure(loaded.node.log_level, clock)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    reload = threading.Event()
    signal.signal(signal.SIGHUP, lambda *_: reload.set())
    node.serve(loaded, stop, reload, clock=clock, say=lambda line: print(line, flush=True))
