"""A short training of the dense maps, and those maps as a judge. The dense stage alone is what trials of families use.

Slices are scored as the product scores a slice of no series: strongest region against the slice's own level, both
scales mixed, before anything is calibrated.
"""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional

from dicomguard.analyze import channels, scores
from dicomguard.analyze.net.load import autocast
from dicomguard.analyze.net.model import STRIDE, Network
from dicomguard.analyze.scores import UNCALIBRATED, Look
from dicomguard.clock import Clock
from dicomguard.errors import Refused
from dicomguard.retrain.net.train import TrainJob, train
from dicomguard.retrain.tamper.families import ATTACKS
from dicomguard.retrain.trials.twins import Judge, Said, View

_RESULT, _ASKED = "trained.safetensors", "asked.json"
# More than any trial has time for: the minutes end it.
_STEPS = 200_000


def short_run(job: TrainJob, *, clock: Clock, told: Callable[[str], None]) -> Network:
    """Train the dense maps from chance for the minutes of the job; what is finished is read, the rest goes on.

    Raises `Refused` when the folder holds a run that something else was asked of: its figures would get a wrong name.
    """
    _same_as_asked(job)
    if not (job.out / _RESULT).is_file():
        dense = replace(job, dense_steps=_STEPS if job.minutes is not None else job.dense_steps, joint_steps=0)

        def progress(entry: dict[str, object]) -> None:
            told(f"{job.out.name}: step {entry['step']}, {entry['seconds']} s, {entry['losses']}")

        tensors = train(dense, clock=clock, on_progress=progress)
        plain = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
        aside = job.out / f".{_RESULT}.part"
        save_file(plain, str(aside))
        aside.replace(job.out / _RESULT)
    return read_run(job.out)


def read_run(folder: Path) -> Network:
    """The network of a finished short run. Raises `Refused` where there is none."""
    path = folder / _RESULT
    if not path.is_file():
        raise Refused(f"{folder} has no finished short run ({_RESULT}). Name the folder of one, or train it first.")
    network = Network()
    network.load_state_dict(load_file(path))
    return network.to(memory_format=torch.channels_last).eval()  # type: ignore[call-overload,no-any-return]


def _same_as_asked(job: TrainJob) -> None:
    asked = {
        "minutes": job.minutes,
        "steps": None if job.minutes is not None else job.dense_steps,
        "seed": job.seed,
        "shuffled": job.falsify is not None,
        "left_out_sources": sorted(job.left_out_sources),
        "families": [name for name in ATTACKS if name not in job.left_out_families],
    }
    path = job.out / _ASKED
    if path.is_file():
        earlier = json.loads(path.read_text())
        other = [name for name, value in asked.items() if earlier.get(name) != value]
        if other:
            raise Refused(
                f"{job.out} holds a run that was asked for with other {' and '.join(other)}. "
                "Use another output folder, or remove that one."
            )
        return
    if (job.out / _RESULT).is_file():
        raise Refused(f"{job.out} holds a run of which nobody noted what was asked. Use another output folder.")
    path.write_text(json.dumps(asked, indent=1) + "\n")


def effort(job: TrainJob) -> dict[str, Any]:
    """Seed, steps and minutes of a run that has finished, as last noted: the record beside its figures."""
    last = json.loads((job.out / "progress.jsonl").read_text().splitlines()[-1])
    return {"seed": job.seed, "steps": last["step"], "minutes": round(last["seconds"] / 60, 2)}


def dense_judge(network: Network) -> Judge:
    """The dense forgery map of a network as a judge; it marks where the map says more likely forged than not."""
    device = torch.device("cpu")

    @torch.inference_mode()
    def logits(prepared: channels.Prepared, index: int) -> NDArray[np.float32]:
        stack = torch.from_numpy(prepared.stack(index))[None]
        height, width = stack.shape[2:]
        padded = functional.pad(stack, (0, -width % STRIDE, 0, -height % STRIDE))
        with autocast(device):
            _, maps = network.look(padded.contiguous(memory_format=torch.channels_last))
        smooth: Tensor = functional.avg_pool2d(maps.float()[:, :1], 5, stride=1, padding=2, count_include_pad=False)
        return np.asarray(smooth[0, 0, : -(-height // 2), : -(-width // 2)].numpy(), np.float32)

    def judge(view: View) -> Said:
        touching = [view.neighbours] * (len(view.planes) - 1)
        native = channels.prepare(list(view.planes), touching, heads=list(view.heads))
        half = channels.halved(native)
        fine, coarse = logits(native, view.index), logits(half, view.index)
        look = Look(
            native=scores.terms(fine, _to(view.head, fine.shape)),
            half=scores.terms(coarse, _to(view.head, coarse.shape)),
            colour=native.scale.colour,
            smoothing=0.0,
        )
        score = float(scores.strengths([look], UNCALIBRATED, UNCALIBRATED.level_share)[0])
        suspicion = np.asarray(0.5 * (_large(fine, view.head.shape) + _large(coarse, view.head.shape)), np.float32)
        return Said(score=score, suspicion=suspicion, marked=np.asarray(suspicion > 0, np.bool_))

    return judge


def _to(mask: NDArray[np.bool_], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    small = cv2.resize(mask.astype(np.uint8), (shape[1], shape[0]), interpolation=cv2.INTER_NEAREST)
    return np.asarray(small > 0, np.bool_)


def _large(plane: NDArray[np.float32], shape: tuple[int, ...]) -> NDArray[np.float32]:
    return np.asarray(cv2.resize(plane, (shape[1], shape[0]), interpolation=cv2.INTER_LINEAR), np.float32)


def trial(data: Path, out: Path, *, minutes: float, seed: int, fused: bool = False) -> TrainJob:
    """The job that all trials start from."""
    return TrainJob(archive=data, out=out, minutes=minutes, seed=seed, fused=fused, device="cpu")
