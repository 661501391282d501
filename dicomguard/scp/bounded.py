"""A bound on each PDU that is read (PS3.8 9.3): its length, and the time until it is whole.

pynetdicom takes the 32-bit length of a PDU as it is, before anybody has associated, and waits for its bytes as long as
they drip. Here a longer or slower one ends the connection.
"""

import errno
import os

from pynetdicom import transport
from pynetdicom.transport import AssociationSocket

from dicomguard.clock import Clock

# An A-ASSOCIATE-RQ with 128 contexts and all their syntaxes stays below this.
_LEAST_BOUND_BYTES = 256 << 10
# Headers of the PDVs in a P-DATA-TF.
_SLACK_BYTES = 4096


def bound_reading(clock: Clock, *, max_pdu_bytes: int, seconds: float) -> None:
    """Give this process's associations a socket that keeps both bounds."""
    most = max(max_pdu_bytes, _LEAST_BOUND_BYTES) + _SLACK_BYTES

    class BoundedSocket(AssociationSocket):  # type: ignore[misc]
        def recv(self, nr_bytes: int) -> bytearray:
            if nr_bytes > most:
                raise OSError(errno.EMSGSIZE, os.strerror(errno.EMSGSIZE))
            received = bytearray(nr_bytes)
            rest = memoryview(received)
            deadline = clock.monotonic() + seconds
            while rest:
                count = self.socket.recv_into(rest)
                if count == 0:
                    return received[: nr_bytes - len(rest)]
                if rest[count:] and clock.monotonic() > deadline:
                    raise TimeoutError
                rest = rest[count:]
            return received

    transport.AssociationSocket = BoundedSocket
