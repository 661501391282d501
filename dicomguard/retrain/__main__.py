"""The training child: one job in, progress and an answer out, over the private pipe.

torch is loaded by the jobs that need it, after the first sign of life.
"""

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dicomguard import child, log
from dicomguard.clock import SystemClock
from dicomguard.errors import Broken, DicomguardError, Refused, Unavailable
from dicomguard.retrain.archive import frozen

_BEAT_S = 5.0
_CANDIDATE = "candidate.safetensors"
_CALIBRATION_SEED = 9

_logger = log.get("retrain")


def _do(job: Mapping[str, Any], channel: child.Channel) -> dict[str, Any]:
    match job["kind"]:
        case "freeze":
            return _freeze(job, channel)
        case "train":
            return _train(job, channel)
        case "evaluate":
            return _evaluate(job, channel)
        case other:
            raise Broken(f'The job "{other}" is unknown. Use one version of dicomguard on both sides.')


def _freeze(job: Mapping[str, Any], channel: child.Channel) -> dict[str, Any]:
    def told(done: int, total: int) -> None:
        if done % 50 == 0 or done == total:
            channel.send({"progress": {"stage": "freezing", "done": done, "total": total}})

    return frozen.freeze(Path(job["archive"]), Path(job["out"]), progress=told).to_json()


def _train(job: Mapping[str, Any], channel: child.Channel) -> dict[str, Any]:
    from dicomguard.analyze import weights
    from dicomguard.retrain.net import candidate, train

    out = Path(job["out"])
    path = out / _CANDIDATE
    if not path.is_file():
        steps = 0
        incumbent = Path(job["incumbent"])
        parent = weights.read_head(incumbent).id

        def told(line: Mapping[str, object]) -> None:
            nonlocal steps
            steps = int(str(line["step"]))
            channel.send({"progress": line})

        training = train.TrainJob(
            archive=Path(job["data"]),
            out=out,
            incumbent=incumbent,
            seed=job["seed"],
            minutes=job["minutes"],
            small=job["small"],
            device=job["device"],
        )
        tensors = train.train(training, clock=SystemClock(), on_progress=told)
        channel.send({"progress": {"stage": "calibrating", "step": steps}})
        candidate.write(
            path,
            tensors,
            archive=Path(job["data"]),
            # The same forgeries for every candidate, so that two differ by their weights only.
            seed=_CALIBRATION_SEED,
            steps=steps,
            version=job["version"],
            parent=parent,
            small=job["small"],
        )
    head = weights.read_head(path)
    return {"candidate": str(path), "sha256": head.sha256, "id": head.id}


def _evaluate(job: Mapping[str, Any], channel: child.Channel) -> dict[str, Any]:
    from dicomguard.retrain import dataset
    from dicomguard.retrain.evaluate import protocol

    data = Path(job["data"])

    def told(done: int, total: int) -> None:
        channel.send({"progress": {"stage": "evaluating", "done": done, "total": total}})

    report: dict[str, Any] = protocol.evaluate(
        data,
        Path(job["weights"]),
        out=Path(job["out"]),
        keys={series.patient_key for series in dataset.read_index(data)},
        seed=job["seed"],
        fast=job["small"],
        progress=told,
    )
    return report


def _beat(channel: child.Channel, over: threading.Event) -> None:
    while not over.wait(_BEAT_S):
        channel.send({"alive": True})


def main() -> None:
    """Do one job and end."""
    channel = child.parent()
    log.configure()
    job = channel.receive(None)
    over = threading.Event()
    threading.Thread(target=_beat, args=(channel, over), daemon=True).start()
    try:
        reply: dict[str, Any] = {"done": _do(job, channel)}
    except DicomguardError as error:
        family = next(kind.__name__ for kind in (Refused, Unavailable, Broken) if isinstance(error, kind))
        reply = {"error": family, "message": str(error)}
    except MemoryError:
        reply = {
            "error": "Unavailable",
            "message": "Training ran out of memory. Give it more, or let less run beside it.",
        }
    except Exception as error:  # noqa: BLE001 - the top of a child: the parent gets a sentence, the log the place.
        _logger.crashed("training.crashed")
        kind = type(error).__name__
        reply = {"error": "Broken", "message": f"Training failed ({kind}). Look at training.crashed in the log."}
    over.set()
    channel.send(reply)


if __name__ == "__main__":
    main()
