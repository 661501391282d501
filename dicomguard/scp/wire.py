"""The bytes of one connection: whole PDUs out of one reused buffer, each wait under an absolute deadline.

A deadline first closes the reading half, so that the connection's own thread wakes up and can still say A-ABORT; two
seconds later it closes all. Only the peer's time counts: what we spend on our disk is no fault of its.
"""

import contextlib
import mmap
import socket
import ssl
import threading
from collections.abc import Callable
from typing import Final

from dicomguard.clock import Clock
from dicomguard.scp import pdu, tls
from dicomguard.scp.deadlines import Deadlines

# Two PDUs of the advertised size, and any A-ASSOCIATE-RQ.
_BUFFER_BYTES = 256 << 10
# PDU complete after its first byte.
_PDU_S = 10.0
# Our answer taken from us.
_ANSWER_S = 30.0
# A message that brings less than this on average is cut, but not before its first seconds are over.
_SLOWEST_BYTES_S = 16 << 10
_SLOW_AFTER_S = 30.0
# For A-ABORT to get out, and for the peer to close after our last PDU (state 13 of PS3.8 Table 9-10).
_LAST_WORD_S = 2.0
_MOST_DRAINED_BYTES = 4 << 20
_LINGER: Final = "linger"


class Closed(Exception):
    """The peer has hung up."""


class Plaintext(Exception):
    """The first byte on the TLS port is not TLS."""


class NotSecured(Exception):
    """The TLS handshake failed; the text says why and what to do."""


class Cut(Exception):
    """The connection was ended from our side; the reason is a word for counters."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Pace:
    """How fast a message comes, over the time that we waited for it."""

    def __init__(self) -> None:
        self.received_bytes = 0
        self.waited_s = 0.0

    def left_s(self) -> float:
        """Seconds that we go on waiting for the next byte."""
        return max(_SLOW_AFTER_S, self.received_bytes / _SLOWEST_BYTES_S) - self.waited_s


class Wire:
    """Reads and writes PDUs; one thread uses it, others may only `cut`."""

    def __init__(self, connected: socket.socket, *, clock: Clock, deadlines: Deadlines, max_pdu_bytes: int) -> None:
        self._socket = connected
        self._clock = clock
        self._timer = deadlines.timer(self._expire)
        size = max(_BUFFER_BYTES, max_pdu_bytes + pdu.HEADER_BYTES)
        # Pages that were never written take no memory: a silent connection costs nothing.
        self._memory = mmap.mmap(-1, size)
        self._view = memoryview(self._memory)
        self._start = self._end = 0
        self._lock = threading.Lock()
        self.cut_because = ""

    # --- for other threads -----------------------------------------------------------------------------------------

    def cut(self, reason: str, *, hard: bool = False) -> None:
        """End it: the reading half at once, and all of it when `hard` or when that does not help within two seconds."""
        with self._lock:
            first = not self.cut_because
            self.cut_because = self.cut_because or reason
        self._shut(socket.SHUT_RDWR if hard or not first else socket.SHUT_RD)
        if first and not hard:
            self._timer.arm(self._clock.monotonic() + _LAST_WORD_S, reason)

    def _expire(self, reason: str) -> None:
        # A send that blocks is not woken by the reading half.
        self.cut(reason, hard=reason in ("unread", _LINGER))

    def _shut(self, how: int) -> None:
        with contextlib.suppress(OSError):
            # Not the method of SSLSocket, which would take its TLS state away under the reading thread.
            socket.socket.shutdown(self._socket, how)

    # --- for the connection's thread -------------------------------------------------------------------------------

    def wait(self, until: float, reason: str) -> None:
        """Everything up to the next `read` has this one deadline."""
        self._timer.arm(until, reason)
        if self.cut_because:
            raise Cut(self.cut_because)

    def secure(self, context: ssl.SSLContext) -> bytes:
        """TLS handshake as server; returns the peer's certificate (DER). Raises `Plaintext`, `NotSecured`."""
        try:
            if not (speaks_tls := tls.speaks_tls(self._socket)):
                raise Cut(self.cut_because) if self.cut_because else Closed if speaks_tls is None else Plaintext
            secured = context.wrap_socket(self._socket, server_side=True, do_handshake_on_connect=False)
            self._socket = secured
            # A cut before this line has shut the other object.
            if self.cut_because:
                raise Cut(self.cut_because)
            secured.do_handshake()
            return secured.getpeercert(binary_form=True) or b""
        except OSError as error:
            raise Cut(self.cut_because) if self.cut_because else NotSecured(tls.reason_of(error)) from error

    def read_first(self) -> tuple[int, memoryview]:
        """Type and body of the first PDU, under the deadline that `wait` has set."""
        return self._read(pdu.check_first, None)

    def read(self, check: Callable[[int, int], None], *, idle_s: float, pace: Pace | None) -> tuple[int, memoryview]:
        """Type and body of the next PDU; the body is valid until the next call."""
        return self._read(check, lambda begun_at: self._arm(begun_at, idle_s, pace), pace)

    def _arm(self, begun_at: float | None, idle_s: float, pace: Pace | None) -> None:
        now = self._clock.monotonic()
        until, reason = (now + idle_s, "idle") if begun_at is None else (begun_at + _PDU_S, "stalled")
        if pace is not None and now + pace.left_s() < until:
            until, reason = now + pace.left_s(), "slow"
        self._timer.arm(until, reason)

    def _read(
        self,
        check: Callable[[int, int], None],
        arm: Callable[[float | None], None] | None,
        pace: Pace | None = None,
    ) -> tuple[int, memoryview]:
        begun_at: float | None = None
        while True:
            have = self._end - self._start
            whole = pdu.HEADER_BYTES
            if have >= whole:
                kind, length = pdu.header(self._view[self._start : self._end])
                check(kind, length)
                whole += length
                if have >= whole:
                    body = self._view[self._start + pdu.HEADER_BYTES : self._start + whole]
                    self._start += whole
                    return kind, body
            self._make_room(have, whole)
            began = self._clock.monotonic()
            if have and begun_at is None:
                begun_at = began
            if arm is not None:
                arm(begun_at)
            self._end += self._receive()
            if arm is not None:
                self._timer.disarm()
            if pace is not None:
                pace.waited_s += self._clock.monotonic() - began

    def _make_room(self, have: int, whole: int) -> None:
        if have == 0:
            self._start = self._end = 0
        elif self._start + whole > len(self._view) or self._end == len(self._view):
            self._memory.move(0, self._start, have)
            self._start, self._end = 0, have

    def _receive(self) -> int:
        if self.cut_because:
            raise Cut(self.cut_because)
        try:
            count = self._socket.recv_into(self._view[self._end :])
        except ssl.SSLError as error:
            raise Cut(self.cut_because) if self.cut_because else Closed from error
        if self.cut_because:
            raise Cut(self.cut_because)
        if count == 0:
            raise Closed
        return count

    def send(self, content: bytes) -> None:
        """All of it, in one call."""
        self._timer.arm(self._clock.monotonic() + _ANSWER_S, "unread")
        try:
            self._socket.sendall(content)
        except OSError as error:
            raise Cut(self.cut_because) if self.cut_because else Closed from error
        self._timer.disarm()

    def last_word(self, content: bytes) -> None:
        """Send our last PDU, or none, and say that nothing follows."""
        self._timer.arm(self._clock.monotonic() + _LAST_WORD_S, _LINGER)
        if content:
            with contextlib.suppress(OSError):
                self._socket.sendall(content)
        self._shut(socket.SHUT_WR)

    def drain(self) -> None:
        """After the last word: let the peer close, so that a reset does not tear away what it has not read yet."""
        drained = 0
        with contextlib.suppress(OSError):
            while drained < _MOST_DRAINED_BYTES:
                # Below TLS: nothing of it is looked at.
                count = socket.socket.recv_into(self._socket, self._view)
                if count == 0:
                    break
                drained += count

    def close(self) -> None:
        """Give the descriptor and the buffer back."""
        self._timer.drop()
        with contextlib.suppress(OSError):
            self._socket.close()
