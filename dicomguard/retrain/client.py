"""The caller's side of the wall: start the training child, hear its progress, take its answer.

The child freezes, trains or evaluates, one job a life. It runs niced, so that analyses go first, and says every few
seconds that it lives; one that falls silent is killed with its group. A killed training resumes from its checkpoint
when the same job is given again.
"""

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from dicomguard.child import Child, ChildEnded, ChildSilent
from dicomguard.errors import Broken, Refused, Unavailable

Progress = Callable[[Mapping[str, Any]], None]
Stop = Callable[[], bool]

# The child beats every few seconds; loading torch on a busy machine takes its time.
SILENCE_S = 120.0
_LOOK_S = 1.0
_FAMILIES = {"Refused": Refused, "Unavailable": Unavailable, "Broken": Broken}
# Beyond the minutes of training: loading, calibration, a last checkpoint.
_GRACE_S = 3600.0
_THREADS_AT_MOST = 16


def freeze(archive: Path, out: Path, *, nice: int, progress: Progress | None = None) -> dict[str, Any]:
    """Write the run's lists; answers `retrain.archive.frozen.Frozen` as JSON."""
    job = {"kind": "freeze", "archive": str(archive), "out": str(out)}
    return _ask(job, nice=nice, cpu_s=_GRACE_S, progress=progress, stop=None)


def train(
    data: Path,
    out: Path,
    *,
    incumbent: Path,
    seed: int,
    minutes: float,
    small: bool,
    device: str,
    version: str,
    nice: int,
    progress: Progress | None = None,
    stop: Stop | None = None,
) -> dict[str, Any]:
    """Train from the incumbent and calibrate; answers {"candidate": path, "sha256": …, "id": …}."""
    job = {
        "kind": "train",
        "data": str(data),
        "out": str(out),
        "incumbent": str(incumbent),
        "seed": seed,
        "minutes": minutes,
        "small": small,
        "device": device,
        # What the head of the weights calls itself.
        "version": version,
    }
    cpu_s = (60 * minutes + _GRACE_S) * _THREADS_AT_MOST
    return _ask(job, nice=nice, cpu_s=cpu_s, progress=progress, stop=stop)


def evaluate(
    data: Path,
    out: Path,
    *,
    weights: Path,
    seed: int,
    small: bool,
    device: str,
    nice: int,
    progress: Progress | None = None,
    stop: Stop | None = None,
) -> dict[str, Any]:
    """Measure weights on a folder of planes through the production path; answers the report that is kept in `out`."""
    job = {
        "kind": "evaluate",
        "data": str(data),
        "out": str(out),
        "weights": str(weights),
        "seed": seed,
        "small": small,
        "device": device,
    }
    return _ask(job, nice=nice, cpu_s=24 * 3600.0, progress=progress, stop=stop)


def _ask(
    job: dict[str, Any],
    *,
    nice: int,
    cpu_s: float,
    progress: Progress | None,
    stop: Stop | None,
    module: str = "dicomguard.retrain",
    silence_s: float = SILENCE_S,
) -> dict[str, Any]:
    # No limit on address space: CUDA reserves far more than it uses.
    argv = [sys.executable, "-m", module]
    with Child.start(argv, memory_bytes=None, cpu_s=cpu_s, nice=nice, oom_score_adj=900) as child:
        child.send(job)
        silent_s = 0.0
        while True:
            if stop is not None and stop():
                child.kill("the run was stopped")
                raise Unavailable("The run was stopped. Start it again to go on from its last checkpoint.")
            try:
                message = child.receive(_LOOK_S)
            except ChildSilent:
                silent_s += _LOOK_S
                if silent_s < silence_s:
                    continue
                child.kill(f"it said nothing for {silence_s:.0f} s")
                raise Unavailable(
                    f"The training child said nothing for {silence_s:.0f} s and was stopped. Start it again to resume."
                ) from None
            except ChildEnded as error:
                raise Unavailable(f"{error} The run resumes from its last checkpoint.") from error
            silent_s = 0.0
            if "progress" in message and progress is not None:
                progress(message["progress"])
            if "done" in message:
                answer: dict[str, Any] = message["done"]
                return answer
            if "error" in message:
                raise _FAMILIES.get(message["error"], Broken)(message["message"])
