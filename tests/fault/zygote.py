"""Workers by the hundred: everything is imported once, and each run is a fork of that.

`python -m tests.fault.zygote` reads one JSON order a line and answers with the exit status of the run (minus the signal
that ended it). An order names the `Plan` of a worker, where its log and trace go, and the effect to stop at.
"""

import json
import os
import sys
import threading
import traceback
from pathlib import Path
from typing import Any

from dicomguard import log
from dicomguard.errors import DicomguardError
from tests import sr_cases
from tests.fault import effects, world


def run(order: dict[str, Any]) -> int:
    """In the fork: one worker to its end."""
    target = os.open(order["log"], os.O_CREAT | os.O_APPEND | os.O_WRONLY)
    os.dup2(target, 2)
    plan = world.Plan(**order["plan"])
    counter = effects.Effects(Path(order["trace"]), stop_at=order["stop_at"], moment=order["moment"])
    effects.watch(counter, Path(plan.state))
    log.configure("INFO")
    try:
        world.work(plan)
    except DicomguardError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_status
    return 0


def main() -> None:
    """Serve orders until standard input ends."""
    # What a library loads when it is first used.
    sr_cases.case(
        "real", [sr_cases.frames(sr_cases.single_frame(3))], [sr_cases.Spot(category="real", places=[1])]
    ).build()
    assert threading.active_count() == 1, "a fork would copy locks that nobody releases"
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            status = 70
            try:
                status = run(json.loads(line))
            except Exception:  # noqa: BLE001 -- the top of a child
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(status)
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    main()
