"""The training run: dense maps on small crops first, then the whole Mask R-CNN on larger ones.

A straight story after nanoGPT's `train.py`: batches come from a data worker that forges them fresh, every step is a
function of (seed, step), a checkpoint is written every two minutes and a run resumes at its step. Progress leaves as
JSON lines in `progress.jsonl`. Stops on a loss that is not finite.
"""

import argparse
import json
import math
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeAlias

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader

from dicomguard.analyze import weights
from dicomguard.analyze.net.load import autocast, best_device, load_tensors
from dicomguard.analyze.net.model import Network
from dicomguard.clock import Clock, SystemClock
from dicomguard.errors import Broken, Refused
from dicomguard.retrain import dataset
from dicomguard.retrain.net import candidate, checkpoint
from dicomguard.retrain.net.losses import dense_losses
from dicomguard.retrain.net.seeds import seed_torch
from dicomguard.retrain.net.targets import target
from dicomguard.retrain.net.twins import Batches, Recipe, TwinMaker

_PEAK_RATE = 2.5e-3
# From given weights: enough to learn new scans, too little to forget the old ones.
_PEAK_RATE_FURTHER = 6e-4
_LAST_RATE = 2e-5
_WARM_STEPS = 150
_AVERAGE = 0.998
_CHECKPOINT_S = 110.0
# Odd, so that lines show steps with and without the RoI losses.
_PROGRESS_STEPS = 21
# Weights of the RPN and RoI losses beside the dense ones, which carry the forensic evidence.
_ROI_WEIGHT = 0.6

Batch: TypeAlias = dict[str, NDArray[np.generic]]
Look: TypeAlias = Callable[[Tensor], tuple["OrderedDict[str, Tensor]", Tensor]]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainJob:
    """What a training child is asked."""

    # Folder with index.csv, planes and masks.
    archive: Path
    # Folder that receives progress.jsonl, checkpoint.safetensors and candidate.safetensors.
    out: Path
    # Weights to begin with; None begins from chance.
    incumbent: Path | None = None
    seed: int = 1
    # Steps on dense maps alone, then on everything.
    dense_steps: int = 6000
    joint_steps: int = 6000
    # Training stops here even when steps are left; None: only the steps count.
    minutes: float | None = None
    # A few steps on a few cases: proves the path, not the weights.
    small: bool = False
    # Highest learning rate; None takes the one for weights from chance or for given ones.
    peak_rate: float | None = None
    # Fuse the maps' kernels (a third faster on a CPU); needs a C++ compiler and half a minute at the start.
    fused: bool = False
    device: str = ""
    threads: int = 1
    # Trials of what training needs: families and sources (or groups of a source, `Series.origins`) that it never sees,
    # and a false truth for the batch of a step.
    left_out_families: frozenset[str] = frozenset()
    left_out_sources: frozenset[str] = frozenset()
    falsify: Callable[[int, Batch], Batch] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """A part of the run with one kind of batch."""

    name: str
    first: int
    last: int
    recipe: Recipe


def stages(job: TrainJob) -> tuple[Stage, Stage]:
    """Dense stage on 96-pixel crops, joint stage on 128-pixel crops; half as many pairs as pixels allow."""
    pairs = (2, 2) if job.small else (12, 8)
    dense, joint = (2, 2) if job.small else (job.dense_steps, job.joint_steps)
    if job.incumbent is not None:
        # The incumbent's maps are there already; maps trained without the heads would drift away from them.
        dense, joint = 0, dense + joint
    return (
        Stage(name="dense", first=0, last=dense, recipe=Recipe(seed=job.seed, pairs=pairs[0], crop=96)),
        Stage(name="joint", first=dense, last=dense + joint, recipe=_joint(job, pairs[1])),
    )


def _joint(job: TrainJob, pairs: int) -> Recipe:
    return Recipe(seed=job.seed, pairs=pairs, crop=128, wide=0 if job.small else 256)


def learning_rate(step: int, done: float, *, peak: float) -> float:
    """Linear warm-up by steps, then a cosine from the peak to the last rate over the share `done` of the run."""
    warm = min(1.0, (step + 1) / _WARM_STEPS)
    return warm * (_LAST_RATE + 0.5 * (peak - _LAST_RATE) * (1 + math.cos(math.pi * min(done, 1.0))))


class _Falsified:
    """Batches with another truth than the right one."""

    def __init__(self, batches: Batches, falsify: Callable[[int, Batch], Batch]) -> None:
        self._batches, self._falsify = batches, falsify

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, step: int) -> Batch:
        return self._falsify(step, self._batches[step])


class _Steps:
    """Sampler that gives the steps of a stage in order, from where the run stands."""

    def __init__(self, first: int, last: int) -> None:
        self._range = range(first, last)

    def __iter__(self) -> Iterator[int]:
        return iter(self._range)

    def __len__(self) -> int:
        return len(self._range)


def _as_tensors(parts: dict[str, NDArray[np.generic]]) -> dict[str, Tensor]:
    return {name: torch.from_numpy(array) for name, array in parts.items()}


def step_losses(
    model: Network, batch: dict[str, Tensor], device: torch.device, *, joint: bool, look: Look | None = None
) -> dict[str, Tensor]:
    """All losses of a batch of crops, weighted; `joint` adds those of RPN, RoI and mask heads.

    `look` is the model's way from channels to pyramid and maps when it was fused.
    """
    # pairs×2×C×S×S → 2·pairs×C×S×S
    x = batch["x"].to(device).float().contiguous(memory_format=torch.channels_last)
    truth = {name: batch[name].to(device).float() for name in ("forged", "lesion", "valid", "lesion_known", "added")}
    with autocast(device):
        features, maps = (look or model.look)(x)
    losses = dense_losses(maps.float(), **truth)
    if not joint:
        return losses
    # Where a lesion may be invisible the boxes of the lesion would teach the wrong thing.
    known = torch.nonzero(truth["lesion_known"] > 0)[:, 0]
    if len(known):
        targets = [
            target(batch["forged"][i].numpy() > 0.5, batch["lesion"][i].numpy() > 0.5, device) for i in known.tolist()
        ]
        kept = type(features)((name, level[known]) for name, level in features.items())
        roi = model.losses(kept, targets, (x.shape[2], x.shape[3]))
        losses |= {name: _ROI_WEIGHT * value for name, value in roi.items()}
    return losses


def _average_into(average: dict[str, Tensor], model: nn.Module, step: int) -> None:
    # The first steps are far from anything worth averaging: the share grows to its final value.
    keep = min(_AVERAGE, (1 + step) / (10 + step))
    with torch.no_grad():
        for name, value in model.state_dict().items():
            average[name].mul_(keep).add_(value, alpha=1 - keep)


class _Log:
    """Progress as JSON lines, appended."""

    def __init__(self, path: Path, told: Callable[[dict[str, object]], None]) -> None:
        self._path, self._told = path, told

    def write(self, line: dict[str, object]) -> None:
        with self._path.open("a") as file:
            file.write(json.dumps(line) + "\n")
        self._told(line)


def train(
    job: TrainJob, *, clock: Clock, on_progress: Callable[[dict[str, object]], None] = lambda line: None
) -> dict[str, Tensor]:
    """Run (or resume) the training; returns the averaged weights."""
    job.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(job.threads)
    # Before the first filter: a forked data worker would wait for ever on threads that stayed in the parent.
    cv2.setNumThreads(1)
    device = best_device(job.device)
    seed_torch(job.seed)
    parts = dataset.by_split(dataset.read_index(job.archive))
    if not parts["train"]:
        raise Refused(f"{job.archive} has no series of a training patient. Add studies, or use another folder.")
    chosen = _few(parts["train"]) if job.small else parts["train"]
    chosen = [series for series in chosen if not series.origins & job.left_out_sources]
    pixels = [dataset.read_pixels(job.archive, series) for series in chosen]
    maker = TwinMaker(pixels, left_out=job.left_out_families)
    model = Network().to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    if job.incumbent is not None:
        model.load_state_dict(load_tensors(job.incumbent))
    average = {name: value.detach().clone() for name, value in model.state_dict().items()}
    optimiser = torch.optim.AdamW(model.parameters(), lr=_PEAK_RATE, weight_decay=1e-4)
    found = checkpoint.load(job.out, model, average, optimiser)
    if found is None:
        _assert_no_near_copies(job.archive, pixels, parts)
    step, earlier = (found.step, found.seconds) if found else (0, 0.0)
    log = _Log(job.out / "progress.jsonl", on_progress)
    begun = saved = clock.monotonic()
    peak = job.peak_rate or (_PEAK_RATE if job.incumbent is None else _PEAK_RATE_FURTHER)
    look: Look = torch.compile(model.look) if job.fused else model.look
    plan = stages(job)
    total = plan[-1].last

    def keep(at: int) -> None:
        progress = checkpoint.Progress(step=at, seconds=earlier + clock.monotonic() - begun, seed=job.seed)
        checkpoint.save(job.out, progress, model, average, optimiser)

    model.train()
    for stage in plan:
        if step >= stage.last:
            continue
        batches = Batches(maker, stage.recipe, total)
        # A map-style dataset is whatever has a length and items; the stubs ask for a subclass.
        loader: DataLoader[dict[str, Tensor]] = DataLoader(
            batches if job.falsify is None else _Falsified(batches, job.falsify),  # type: ignore[arg-type]
            batch_size=None,
            sampler=_Steps(step, stage.last),
            num_workers=0 if job.small else 1,
            prefetch_factor=None if job.small else 8,
            collate_fn=_as_tensors,  # type: ignore[arg-type]
        )
        for batch in loader:
            torch.manual_seed(job.seed * 1_000_003 + step)
            spent = earlier + clock.monotonic() - begun
            # A run that time will end cools down by time; such a run is not repeatable to the bit.
            done = step / total if job.minutes is None else max(step / total, spent / (60 * job.minutes))
            rate = learning_rate(step, done, peak=peak)
            for group in optimiser.param_groups:
                group["lr"] = rate
            # Every other step: the heads cost as much as all maps, and the maps carry the forensic evidence.
            losses = step_losses(model, batch, device, joint=stage.name == "joint" and step % 2 == 0, look=look)
            loss = torch.stack(list(losses.values())).sum()
            if not bool(torch.isfinite(loss)):
                raise Broken(f"Loss at step {step} is not finite. Resume from the checkpoint with another seed.")
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            _average_into(average, model, step)
            step += 1
            now = clock.monotonic()
            if step % _PROGRESS_STEPS == 0 or step == total:
                log.write(
                    {
                        "step": step,
                        "steps": total,
                        "stage": stage.name,
                        "seconds": round(earlier + now - begun, 1),
                        "rate": round(rate, 6),
                        "losses": {name: round(float(value.detach()), 4) for name, value in losses.items()},
                    }
                )
            if now - saved > _CHECKPOINT_S:
                keep(step)
                saved = clock.monotonic()
            if job.minutes is not None and earlier + now - begun > 60 * job.minutes:
                keep(step)
                return average
    keep(step)
    return average


def _assert_no_near_copies(
    archive: Path, trained: Sequence[dataset.Pixels], parts: Mapping[dataset.Split, Sequence[dataset.Series]]
) -> None:
    """Raise Broken when a plane is nearly that of another split; all planes of the other splits are decoded for it."""
    dataset.assert_no_near_copies(
        {
            "train": dataset.hashes_of_decoded(trained),
            "validation": dataset.near_copy_hashes(archive, parts["validation"]),
            "test": dataset.near_copy_hashes(archive, parts["test"]),
        }
    )


def _few(series: list[dataset.Series]) -> list[dataset.Series]:
    """Two series of every source, for the small run."""
    taken: dict[str, list[dataset.Series]] = {}
    for one in series:
        if len(taken.setdefault(one.source, [])) < 2:
            taken[one.source].append(one)
    return [one for members in taken.values() for one in members]


def main(arguments: list[str]) -> int:
    """Command of this module: train, calibrate, write `candidate.safetensors`.

    The calibration rests on the validation patients, the study score on authentic stacks of training ones too.
    """
    parser = argparse.ArgumentParser(
        description="Train the detector. Interrupted runs go on from their last checkpoint when called again."
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--from", dest="incumbent", type=Path)
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--dense-steps", type=int, default=6000)
    parser.add_argument("--joint-steps", type=int, default=6000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--peak-rate", type=float)
    parser.add_argument("--fused", action="store_true")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--version", default="0", help="version in the head of the weights file")
    given = parser.parse_args(arguments)
    job = TrainJob(
        archive=given.data,
        out=given.out,
        incumbent=given.incumbent,
        minutes=given.minutes,
        seed=given.seed,
        dense_steps=given.dense_steps,
        joint_steps=given.joint_steps,
        threads=given.threads,
        peak_rate=given.peak_rate,
        fused=given.fused,
        small=given.small,
    )

    # Before the run: whoever replaces the file meanwhile does not change what training began with.
    parent = "" if job.incumbent is None else weights.read_head(job.incumbent).id
    steps = 0

    def told(line: dict[str, object]) -> None:
        nonlocal steps
        steps = int(str(line.get("step", steps)))
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()

    tensors = train(job, clock=SystemClock(), on_progress=told)
    head = candidate.write(
        job.out / "candidate.safetensors",
        tensors,
        archive=job.archive,
        seed=job.seed,
        steps=steps,
        version=given.version,
        parent=parent,
        small=job.small,
    )
    told({"model": head.id, "alert": asdict(head.operating_point)})
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
