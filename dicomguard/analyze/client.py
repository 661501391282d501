"""The caller's side of the wall: one warm analysis child for many jobs, and a decoding child for previews.

What comes back is taken by hash only. Nothing here loads torch, and a child that dies costs its own job.
"""

import hashlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from dicomguard import __version__
from dicomguard.analyze import weights
from dicomguard.child import Child, ChildSilent
from dicomguard.clock import Clock, SystemClock
from dicomguard.core import canon
from dicomguard.core.job import AnalysisJob, AnalysisReport
from dicomguard.core.verdict import Model, ModelScope, OperatingPoint, Software, Verdict
from dicomguard.errors import Broken, Refused, Shortage, Unavailable

JOB_FILE = "job.json"
# Raised when the same study and model would get another verdict.
ANALYZE_VERSION = "2"
# The child says something every two seconds; silence this long is a hang.
SILENCE_S = 60.0
# A fresh process now and then bounds what libraries leak.
MOST_JOBS = 200
_OOM_SCORE = 800

Progress = Callable[[int, int], None]
Stop = Callable[[], bool]

_FAMILIES = {family.__name__: family for family in (Refused, Shortage, Unavailable, Broken)}


def software() -> Software:
    """Who writes verdicts."""
    return Software(name="dicomguard", version=__version__, analyze_version=ANALYZE_VERSION)


def model_of(path: Path) -> Model:
    """What verdicts and reports say of a weights file; read without torch."""
    head = weights.read_head(path)
    point = head.operating_point
    return Model(
        id=head.id,
        name="dicomguard",
        version=head.version,
        weights_sha256=head.sha256,
        architecture=head.architecture,
        card="docs/model-card.md",
        scope=scope_of(head),
        operating_point=OperatingPoint(
            name=point.name,
            forgery=point.forgery,
            tumor=point.tumor,
            false_alarm_upper=point.false_alarm_upper,
            n_authentic=point.n_authentic,
            flagged=point.flagged,
        ),
    )


def scope_of(head: weights.WeightsHead) -> ModelScope:
    """What the weights were validated on, as selection and verdict read it."""
    scope = head.scope
    return ModelScope(modalities=scope.modalities, body_parts=scope.body_parts, sequences=scope.sequences)


class Analyst:
    """A warm analysis child: the model stays loaded between jobs. Use it in a `with`."""

    def __init__(self, *, clock: Clock | None = None, nice: int = 0, silence_s: float = SILENCE_S) -> None:
        self._clock = clock or SystemClock()
        self._nice = nice
        self._silence_s = silence_s
        self._child: Child | None = None
        self._jobs = 0

    def run(self, job: AnalysisJob, *, on_progress: Progress | None = None, stop: Stop | None = None) -> AnalysisReport:
        """Analyse one study. `Unavailable`: the child died, hung or was stopped; ask again or record it.

        `Shortage`, or an error of the system that `errors.shortage` knows: the study has no part in it; ask later.

        `on_progress(done, total)` counts half steps (decoding, judging); `stop` is asked each second.
        """
        output = Path(job.output)
        output.mkdir(parents=True, exist_ok=True)
        document = canon.encode(job.to_json())
        (output / JOB_FILE).write_bytes(document)
        if self._child is None or not self._child.alive() or self._jobs >= MOST_JOBS:
            self._restart(job)
        assert self._child is not None
        self._jobs += 1
        try:
            self._child.send({"job": str(output / JOB_FILE), "sha256": hashlib.sha256(document).hexdigest()})
            reply = self._answer(self._child, job.deadline_s, on_progress, stop)
        except (Unavailable, Broken):
            self.close()
            raise
        if "error" in reply:
            raise _FAMILIES.get(str(reply["error"]), Broken)(str(reply.get("message", "")))
        report = AnalysisReport.from_json(reply["report"])
        read_verdict(report)
        return report

    def _restart(self, job: AnalysisJob) -> None:
        self.close()
        threads = str(job.threads)
        self._child = Child.start(
            [
                *(sys.executable, "-m", "dicomguard.analyze"),
                *("--decode-memory-bytes", str(job.decode_memory_bytes), "--decode-s", str(job.decode_s)),
            ],
            # CUDA reserves far more address space than it uses; the kernel is told whom to end first instead.
            memory_bytes=None,
            cpu_s=None,
            nice=self._nice,
            oom_score_adj=_OOM_SCORE,
            env_extra={
                "OMP_NUM_THREADS": threads,
                "OPENBLAS_NUM_THREADS": threads,
                "MKL_NUM_THREADS": threads,
                # Threads that wait by spinning take the cores of the receiver, and of each other on a busy machine.
                "OMP_WAIT_POLICY": "PASSIVE",
            },
        )
        self._jobs = 0

    def _answer(
        self, child: Child, deadline_s: float, on_progress: Progress | None, stop: Stop | None
    ) -> dict[str, Any]:
        """Wait for the report; progress on the way. Raises `Unavailable` when it takes too long or is stopped."""
        started = heard = self._clock.monotonic()
        while True:
            now = self._clock.monotonic()
            if now - started > deadline_s:
                child.kill("its deadline passed")
                raise Unavailable(f"The analysis took longer than {deadline_s:.0f} s. Raise analysis.deadline_s.")
            if now - heard > self._silence_s:
                child.kill("it was silent")
                raise Unavailable(f"The analysis said nothing for {self._silence_s:.0f} s. It was ended; try again.")
            if stop is not None and stop():
                child.kill("it was asked to stop")
                raise Unavailable("The analysis was stopped. Start it again when it is wanted.")
            try:
                message = child.receive(1.0)
            except ChildSilent:
                continue
            heard = self._clock.monotonic()
            if "progress" in message:
                if on_progress is not None:
                    done, total = message["progress"]
                    on_progress(int(done), int(total))
                continue
            return message

    def close(self) -> None:
        """End the child."""
        if self._child is not None:
            self._child.kill()
            self._child = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read_verdict(report: AnalysisReport) -> Verdict:
    """The verdict of a report; `Broken` when verdict or masks are not the bytes that the child wrote."""
    pairs = ((report.verdict_path, report.verdict_sha256), (report.masks_path, report.masks_sha256))
    for path, sha256 in pairs:
        if path is not None and hashlib.sha256(Path(path).read_bytes()).hexdigest() != sha256:
            raise Broken(f"{Path(path).name} is not what the analysis wrote. Analyse the study again.")
    return Verdict.from_json(json_of(Path(report.verdict_path)))


def json_of(path: Path) -> dict[str, Any]:
    """A JSON object from a file of ours."""
    import json

    value = json.loads(path.read_bytes())
    if not isinstance(value, dict):
        raise Broken(f"{path.name} holds no JSON object. Analyse the study again.")
    return value


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """One frame for people: 8-bit grey PNG, windowed."""

    png: bytes
    rows: int
    columns: int


class Previews:
    """A long-lived decoding child for the page. Use it in a `with`; one request at a time."""

    def __init__(self, *, memory_bytes: int = 2 << 30, frame_s: float = 10.0) -> None:
        # Imported here: it loads NumPy and codecs' tables, which a caller without previews does not need.
        from dicomguard.analyze.pixels import Reader

        self._reader = Reader(memory_bytes=memory_bytes, frame_s=frame_s)

    def frame(self, path: Path, frame: int | None) -> Picture:
        """One frame, counted from 1; `Refused` when it cannot be decoded within the limits."""
        png, (rows, columns) = self._reader.png(path, frame)
        return Picture(png=png, rows=rows, columns=columns)

    def close(self) -> None:
        """End the child."""
        self._reader.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
