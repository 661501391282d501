"""Orders to a zygote: receivers and workers that start in the time of a fork."""

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Sequence

from tests.conftest import ROOT


class Zygote:
    """`tests.fault.zygote` in a process of its own; one fork at a time."""

    def __init__(self, kind: str, *, pass_fds: Sequence[int] = ()) -> None:
        """`kind`: receiver or worker; its forks inherit the descriptors."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.fault.zygote", kind],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
            start_new_session=True,
            pass_fds=pass_fds,
        )

    def start(self, order: dict[str, object]) -> int:
        """Process id of a new fork."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order).encode() + b"\n")
        return self._answer(60)

    def ended(self) -> bool:
        """Whether `wait` would answer at once."""
        return bool(select.select([self._process.stdout], [], [], 0)[0])

    def wait(self, seconds: float = 90) -> int:
        """Exit status of the fork."""
        return self._answer(seconds)

    def _answer(self, seconds: float) -> int:
        assert self._process.stdout is not None
        assert select.select([self._process.stdout], [], [], seconds)[0], f"no answer after {seconds} s"
        return int(self._process.stdout.readline())

    def close(self) -> None:
        """End it, and a fork that hangs."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
