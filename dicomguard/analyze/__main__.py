"""The analysis child: jobs in, verdicts out, the model loaded once. `python -m dicomguard.analyze`.

The only entry to torch on the study's path. Standard output is standard error here (see `child.parent`), so nothing a
library prints can end up between two messages.
"""

import argparse
import hashlib
import json
import threading
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dicomguard import child, log
from dicomguard.analyze import client, study, weights
from dicomguard.analyze.judging import Judge
from dicomguard.analyze.pixels import Reader
from dicomguard.clock import Clock, SystemClock
from dicomguard.core.job import DECODE_MEMORY_BYTES, DECODE_S, AnalysisJob, AnalysisReport
from dicomguard.errors import Broken, DicomguardError, Refused, Shortage, Unavailable, shortage

HEARTBEAT_S = 2.0

_logger = log.get("analyze")


@dataclass(slots=True)
class _Heart:
    """Says every two seconds how far the work is, while the main thread is inside torch or a codec."""

    channel: child.Channel
    done: int = 0
    total: int = 0

    def step(self, done: int, total: int) -> None:
        """The work went on."""
        self.done, self.total = done, total

    def beat(self, over: threading.Event) -> None:
        """Until `over`, or until nobody listens."""
        while not over.wait(HEARTBEAT_S):
            try:
                self.channel.send({"progress": [self.done, self.total]})
            except child.ChildEnded:
                return


class _Worker:
    """Does jobs one after another with one model and one decoding child."""

    def __init__(self, reader: Reader, clock: Clock) -> None:
        self._reader = reader
        self._clock = clock
        self._loaded: tuple[str, str, int] | None = None
        self._judge: Judge | None = None

    def do(self, job: AnalysisJob, heart: _Heart) -> AnalysisReport:
        """Analyse, write the documents, return their hashes."""
        started = self._clock.monotonic()
        path = Path(job.weights)
        judge = self._judge_of(job)
        answer = study.examine(
            job,
            judge=judge,
            source=self._reader,
            model=client.model_of(path),
            software=client.software(),
            created=lambda: self._clock.now().isoformat(timespec="seconds"),
            authentic_scores=weights.read_head(path).authentic_scores,
            progress=heart.step,
        )
        output = Path(job.output)
        document = answer.verdict.to_bytes()
        masks_path = output / study.MASKS_FILE if answer.masks is not None else None
        if masks_path is not None and answer.masks is not None:
            _write(masks_path, answer.masks)
        _write(output / "verdict.json", document)
        return AnalysisReport(
            verdict_path=str(output / "verdict.json"),
            verdict_sha256=hashlib.sha256(document).hexdigest(),
            masks_path=None if masks_path is None else str(masks_path),
            masks_sha256=None if answer.masks is None else hashlib.sha256(answer.masks).hexdigest(),
            seconds=round(self._clock.monotonic() - started, 3),
        )

    def _judge_of(self, job: AnalysisJob) -> Judge:
        wanted = (job.weights, job.device, job.threads)
        if self._judge is None or self._loaded != wanted:
            # torch loads here, after the first heartbeat.
            from dicomguard.analyze.judge import NetworkJudge

            self._judge = NetworkJudge.load(Path(job.weights), device=job.device, threads=job.threads)
            self._loaded = wanted
        return self._judge


def _write(path: Path, data: bytes) -> None:
    """Whole or not at all: the parent reads by hash, a half file of a killed child must not carry the name."""
    temporary = path.with_suffix(path.suffix + ".part")
    temporary.write_bytes(data)
    temporary.replace(path)


def _job(message: dict[str, Any]) -> AnalysisJob:
    data = Path(message["job"]).read_bytes()
    if hashlib.sha256(data).hexdigest() != message["sha256"]:
        raise Broken("The job is not the one that was written. Start the analysis again.")
    return AnalysisJob.from_json(json.loads(data))


def _reply(worker: _Worker, message: dict[str, Any], heart: _Heart) -> dict[str, Any]:
    try:
        return {"report": worker.do(_job(message), heart).to_json()}
    except OSError as error:
        passing = shortage(error)
        if passing is None:
            raise
        return _failed(passing)
    except DicomguardError as error:
        return _failed(shortage(error) or error)
    except MemoryError:
        # Of this process, and most likely for this study: no shortage, which is waited for as long as it takes.
        return _failed(Unavailable("The analysis ran out of memory. Give it more."))


def _failed(error: DicomguardError) -> dict[str, Any]:
    family = next(kind for kind in (Refused, Shortage, Unavailable, Broken) if isinstance(error, kind))
    return {"error": family.__name__, "message": str(error)}


def main() -> None:
    """Answer jobs until the pipe ends."""
    parser = argparse.ArgumentParser(prog="python -m dicomguard.analyze", description=__doc__)
    parser.add_argument(
        "--decode-memory-bytes", type=int, default=DECODE_MEMORY_BYTES, help="limit of the decoding child"
    )
    parser.add_argument("--decode-s", type=float, default=DECODE_S, help="seconds that decoding one file may take")
    limits = parser.parse_args()
    channel = child.parent()
    log.configure()
    # Those of the parser quote values of headers.
    warnings.simplefilter("ignore")
    with Reader(memory_bytes=limits.decode_memory_bytes, frame_s=limits.decode_s) as reader:
        worker = _Worker(reader, SystemClock())
        while True:
            try:
                message = channel.receive(None)
            except child.ChildEnded:
                return
            heart, over = _Heart(channel), threading.Event()
            beating = threading.Thread(target=heart.beat, args=(over,), daemon=True)
            beating.start()
            try:
                reply = _reply(worker, message, heart)
            except Exception as error:  # noqa: BLE001 - the top of a child: the parent gets a sentence, the log the place.
                _logger.crashed("analysis.crashed")
                kind = type(error).__name__
                reply = {
                    "error": "Broken",
                    "message": f"The analysis failed ({kind}). Look at analysis.crashed in the log.",
                }
            over.set()
            beating.join()
            channel.send(reply)


if __name__ == "__main__":
    main()
