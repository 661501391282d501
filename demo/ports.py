"""TCP ports on loopback for programs that have to be told theirs before they start."""

import contextlib
import secrets
import socket
from collections import deque

# Below the range from which Linux and BSD take the local ends of connections: one that is free there stays free.
_LOW, _HIGH = 20_000, 32_000
# The last ones given, bound until their programs have long begun: nobody else who looks finds them free, and a server
# that sets SO_REUSEADDR, as all do, listens beside a socket that only has the port.
_given: deque[socket.socket] = deque(maxlen=128)


def free_port() -> int:
    """A TCP port that is free, and that nobody else is given before its program has begun."""
    while True:
        port = _LOW + secrets.randbelow(_HIGH - _LOW)
        held = socket.socket()
        try:
            held.bind(("127.0.0.1", port))
        except OSError:
            held.close()
            continue
        # Only now: before, it would share the port with what has it.
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if len(_given) == _given.maxlen:
            _given.popleft().close()
        _given.append(held)
        return port


def listens(port: int) -> bool:
    """Whether something accepts connections on the port."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=0.5):
        return True
    return False
