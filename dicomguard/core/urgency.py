"""Which studies are analysed before the others.

A sender can say so in each C-STORE request (Priority, PS3.7 9.1.1.1) and in the header of its images; the configuration
names those who abuse it, and those who cannot say it. This module judges; it keeps no queue.
"""

from collections.abc import Iterable
from typing import Literal

# "asked": as the sender asks; the other two do not listen to it.
Policy = Literal["asked", "always", "never"]
# Requested Procedure Priority (0040,1003) and Study Priority ID (0032,000C, retired), as PS3.3 C.4.11 and its
# predecessors define them.
_URGENT = frozenset({"STAT", "HIGH"})


def why_urgent(policy: Policy, *, asked: bool, priorities: Iterable[str]) -> str:
    """A sentence, "" for a study that waits its turn.

    `asked`: a C-STORE request of the study had high priority; `priorities`: what its header says, as it stands there.
    """
    if policy == "never":
        return ""
    if policy == "always":
        return "its sender goes first by configuration"
    if asked:
        return "its sender asked for high priority"
    said = [priority.strip().upper() for priority in priorities]
    marked = next((priority for priority in said if priority in _URGENT), "")
    return f"its request is marked {marked}" if marked else ""
