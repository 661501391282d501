"""TCP ports on loopback for programs that have to be told theirs before they start."""

import contextlib
import secrets
import socket

# Below the range from which Linux and BSD take the local ends of connections: one that is free there stays free.
_LOW, _HIGH = 20_000, 32_000


def free_port() -> int:
    """A TCP port that was free a moment ago."""
    while True:
        port = _LOW + secrets.randbelow(_HIGH - _LOW)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def listens(port: int) -> bool:
    """Whether something accepts connections on the port."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=0.5):
        return True
    return False
