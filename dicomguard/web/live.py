"""Server-sent events (WHATWG HTML 9.2): tell an open page that its study has moved on, so that it asks again.

The event carries no content, only that there is something new. A stream looks once a second, ends by itself after some
minutes (the browser comes back), and there are only so many seats, so that open tabs cannot use up the server.
"""

import asyncio
from collections.abc import AsyncIterator, Callable

from starlette.concurrency import run_in_threadpool
from starlette.responses import Response, StreamingResponse

LOOK_EVERY_S = 1.0
LONGEST_S = 300.0
SEATS = 64
# The browser waits this long before it comes back.
RETRY_MS = 3000


class Seats:
    """How many streams may be open; only the event loop's thread counts them."""

    def __init__(self, free: int = SEATS) -> None:
        self._free = free

    def take(self) -> bool:
        """False when all are taken."""
        self._free -= 1
        if self._free < 0:
            self._free += 1
            return False
        return True

    def give_back(self) -> None:
        """One stream has ended."""
        self._free += 1


def stream(seats: Seats, look: Callable[[], str], *, every_s: float = LOOK_EVERY_S) -> Response:
    """Events whenever `look()`, run in a thread, returns another text than before; "" ends the stream."""
    return StreamingResponse(
        _events(seats, look, every_s), media_type="text/event-stream", headers={"x-accel-buffering": "no"}
    )


async def _events(seats: Seats, look: Callable[[], str], every_s: float) -> AsyncIterator[str]:
    # Here and not before: a stream that nobody begins to read would never give its seat back.
    if not seats.take():
        yield f"retry: {10 * RETRY_MS}\n\n"
        return
    try:
        yield f"retry: {RETRY_MS}\n\n"
        seen: str | None = None
        for _ in range(round(LONGEST_S / every_s)):
            now = await run_in_threadpool(look)
            if now != seen and seen is not None:
                yield "event: moved\ndata: 1\n\n"
            if not now:
                yield "event: finished\ndata: 1\n\n"
                return
            seen = now
            await asyncio.sleep(every_s)
    finally:
        seats.give_back()
