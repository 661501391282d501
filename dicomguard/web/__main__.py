"""`python -m dicomguard.web --config FILE`: the web process."""

import argparse
import socket
import sys
from pathlib import Path

import uvicorn

from dicomguard import config as configuration
from dicomguard import log
from dicomguard.clock import SystemClock
from dicomguard.errors import DicomguardError, Unavailable
from dicomguard.flow.client import Client
from dicomguard.store.db import open_configured
from dicomguard.web.app import make_app

# Open connections, live pages among them; more are answered 503.
MAX_CONNECTIONS = 200
# Seconds that an idle connection is kept.
KEEP_ALIVE_S = 15
STOP_WITHIN_S = 5


def main() -> int:
    """Serve until stopped; the exit status is that of the error's family."""
    parser = argparse.ArgumentParser(prog="python -m dicomguard.web", description="Serve the page of the node.")
    parser.add_argument("--config", type=Path, help="the TOML file; without it DICOMGUARD_CONFIG, else defaults")
    arguments = parser.parse_args()
    clock = SystemClock()
    try:
        config = configuration.load(arguments.config)
        log.configure(config.node.log_level, clock)
        store = open_configured(config, clock)
        listening = _listen(config.web.host, config.web.port)
    except DicomguardError as error:
        print(error, file=sys.stderr)  # noqa: T201 -- a sentence for the person at the terminal, like the receiver's
        return error.exit_status
    app = make_app(config, store=store, client=Client(store, clock), clock=clock)
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=MAX_CONNECTIONS,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=STOP_WITHIN_S,
        )
    )
    log.get("web").event("page.opened", url=f"http://{config.web.host}:{config.web.port}/")
    with listening:
        server.run(sockets=[listening])
    store.close()
    return 0 if server.started else 1


def _listen(host: str, port: int) -> socket.socket:
    """The page's socket; raises `Unavailable` while somebody else has the port, so that the supervisor tries again."""
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        # What follows in brackets repeats the address.
        reason = str(error.strerror).partition(" (")[0]
        raise Unavailable(
            f"Port {port} of [web] on {host} cannot be opened: {reason}. Choose another or stop its user."
        ) from error


if __name__ == "__main__":
    sys.exit(main())
