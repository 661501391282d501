"""A clock that runs with the work: CPU seconds. Trials are compared at equal effort, however busy the machine is."""

import multiprocessing
import os
import resource
from pathlib import Path

from dicomguard.clock import SystemClock

_TICKS = os.sysconf("SC_CLK_TCK")


class ProcessorClock(SystemClock):
    """Its seconds are CPU seconds of this process and of its children, ended ones and data workers that still run."""

    def monotonic(self) -> float:
        """CPU seconds, user and system."""
        # First the living: asking for them also collects those that ended, whose time the system then counts.
        living = sum(_spent(child.pid) for child in multiprocessing.active_children() if child.pid is not None)
        used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        return living + sum(one.ru_utime + one.ru_stime for one in used)


def _spent(pid: int) -> float:
    """CPU seconds of a running process (proc(5), fields 14 and 15 of stat); 0 when it has just gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / _TICKS
