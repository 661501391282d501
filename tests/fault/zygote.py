"""Receivers and workers by the hundred: everything is imported once, and each run is a fork of that.

`python -m tests.fault.zygote receiver|worker` reads one JSON order a line. It answers with the process id of the fork,
and at its end with the exit status (minus the signal that ended it). An order says where the log goes, and names the
configuration of a receiver, with what it inherits as one of several, or the `Plan` of a worker; with a trace, also the
effect to stop at.
"""

import json
import os
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dicomguard.errors import DicomguardError
from tests.fault import effects

Run = Callable[[dict[str, Any]], int]


def receiver() -> Run:
    """`python -m dicomguard.scp`, from after its imports."""
    from dicomguard.scp import slim

    slim.prepare()
    from dicomguard import config
    from dicomguard.scp import process
    from dicomguard.scp.shared import Inherited

    def run(order: dict[str, Any]) -> int:
        inherited = Inherited.of_text(order["inherited"]) if "inherited" in order else None
        return process.run(config.load(Path(order["config"])), inherited)

    return run


def worker() -> Run:
    """`tests.fault.world`, warm."""
    from dicomguard import log
    from tests import sr_cases
    from tests.fault import world

    # What a library loads when it is first used.
    spot = sr_cases.Spot(category="real", places=[1])
    sr_cases.case("real", [sr_cases.frames(sr_cases.single_frame(3))], [spot]).build()

    def run(order: dict[str, Any]) -> int:
        log.configure("INFO")
        world.work(world.Plan(**order["plan"]))
        return 0

    return run


def fork(run: Run, order: dict[str, Any]) -> int:
    """In the fork: to its end."""
    target = os.open(order["log"], os.O_CREAT | os.O_APPEND | os.O_WRONLY)
    os.dup2(target, 2)
    os.close(target)
    if "trace" in order:
        counter = effects.Effects(Path(order["trace"]), stop_at=order["stop_at"], moment=order["moment"])
        effects.watch(counter, Path(order["state"]))
    try:
        return run(order)
    except DicomguardError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_status


def main() -> None:
    """Serve orders until standard input ends."""
    run = {"receiver": receiver, "worker": worker}[sys.argv[1]]()
    assert threading.active_count() == 1, "a fork would copy locks that nobody releases"
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            status = 70
            try:
                status = fork(run, json.loads(line))
            except Exception:  # noqa: BLE001 -- the top of a child
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(status)
        print(pid, flush=True)
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    main()
