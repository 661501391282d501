"""How often may an address connect: a token bucket that is kept as one number.

It is the virtual scheduling of the generic cell rate algorithm (ITU-T I.371, annex A): the number is the time at which
the bucket is full again. Who is a little too early waits for its token, who is far too early is turned away. This
module judges; it keeps no time and no table.
"""

from dataclasses import dataclass

# A whole study in associations of one image each goes through at once, in many cases.
BURST_S = 5.0
# A sender that does one thing after the other is slowed and not refused; a flood is refused.
LONGEST_WAIT_S = 1.0


@dataclass(frozen=True, slots=True)
class Turn:
    """It may connect, after a wait."""

    # 0.0: at once.
    wait_s: float
    # What to bring the next time.
    full_at: float


def arrive(full_at: float, *, per_s: float, now: float, longest_wait_s: float = LONGEST_WAIT_S) -> Turn | None:
    """One more connection of an address, or None: it is refused and costs no token.

    `full_at` and `now` are seconds of one clock, `full_at` that of the last `Turn` or anything before `now`; `per_s`,
    above 0, is what the address may have in the long run, and it may have `BURST_S` of it at once.
    """
    full_at = max(full_at, now) + 1.0 / per_s
    wait_s = max(0.0, full_at - now - max(BURST_S, 1.0 / per_s))
    return None if wait_s > longest_wait_s else Turn(wait_s, full_at)
