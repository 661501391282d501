"""Trains the small inpainting networks of the learned forgeries on training patients.

Healthy holes teach removal, holes over a marked lesion teach insertion; one network does both, told by the label map.
Each network has its own loss: absolute error; hinge discriminator of patches; discriminator's features matched. A step
is a function of (seed, step); a run that was stopped goes on at its last checkpoint, and the shipped weights are
those of step 400 of the default run. Sources: patch discriminator (Isola 2017), hinge loss and spectral norm
(Miyato 2018), feature matching (Wang 2018, pix2pixHD).
"""

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from dicomguard.analyze import channels
from dicomguard.clock import SystemClock
from dicomguard.retrain import dataset
from dicomguard.retrain.inpaint import fill
from dicomguard.retrain.inpaint.nets import NETS, build, complete
from dicomguard.retrain.net.seeds import batch_generator, seed_torch
from dicomguard.retrain.tamper.filters import dilate, gaussian, smooth_noise
from dicomguard.retrain.tamper.forged import Mask
from dicomguard.retrain.tamper.region import SMALLEST_AREA_PX, stamp

_BATCH_PX = 64 * 64 * 12
_SIDES = (64, 96)
_RATE, _CRITIC_RATE = 1.5e-3, 4e-4
_AVERAGE = 0.995
_CHECKPOINT_STEPS = 50
# Weights of the losses by network: absolute error in the hole, of its blur, adversarial, features.
_LOSSES = {"plain": (1.0, 0.5, 0.0, 0.0), "gated": (0.4, 0.8, 0.08, 0.0), "shuffled": (0.3, 0.8, 0.03, 0.5)}
# The error alone comes first: a critic against noise teaches nothing.
_CRITIC_FROM_STEP = 150


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """One normalised training slice."""

    # H×W, about -1…1 inside the head.
    pixels: NDArray[np.float32]
    head: NDArray[np.bool_]
    lesion: NDArray[np.bool_]
    # Whether a marked lesion is visible here.
    lesion_known: bool


def slices(root: Path, series: Sequence[dataset.Series], per_source: int, seed: int) -> dict[str, list[Slice]]:
    """Source → up to `per_source` slices, drawn over the patients, each normalised by its head."""
    by_source: dict[str, list[dataset.Series]] = defaultdict(list)
    for one in series:
        by_source[one.source].append(one)
    rng = np.random.default_rng(seed)
    drawn: dict[str, list[Slice]] = {}
    for source, members in sorted(by_source.items()):
        planes = [(one, plane) for one in members for plane in one.planes]
        kept: list[Slice] = []
        for pick in rng.permutation(len(planes)):
            one, plane = planes[int(pick)]
            single = dataset.Series(
                source=one.source, patient=one.patient, group=one.group, sequence=one.sequence, planes=(plane,)
            )
            read = dataset.read_pixels(root, single)
            pixels = read.stored[0].astype(np.float32)
            head = channels.head_mask(pixels)
            if head.mean() < channels.SMALLEST_HEAD_SHARE:
                continue
            low, half = fill.levels(pixels, head)
            kept.append(
                Slice(
                    pixels=(pixels - np.float32(low)) / np.float32(half) - 1,
                    head=head,
                    lesion=read.lesion[0],
                    lesion_known=one.lesion_known,
                )
            )
            if len(kept) == per_source:
                break
        drawn[source] = kept
    return drawn


def _window(one: Slice, row: int, col: int, reach: int) -> tuple[slice, slice]:
    """A window of `reach` pixels around a place, inside the slice."""
    height, width = one.pixels.shape
    top = int(np.clip(row - reach // 2, 0, max(0, height - reach)))
    left = int(np.clip(col - reach // 2, 0, max(0, width - reach)))
    return slice(top, top + reach), slice(left, left + reach)


def _around_lesion(one: Slice, row: int, col: int, rng: np.random.Generator) -> tuple[Mask, Mask]:
    """The marked lesion at a place, and a hole around it of another outline."""
    _, labels = cv2.connectedComponents(one.lesion.astype(np.uint8), connectivity=8)
    label = np.asarray(labels == labels[row, col])
    rows, cols = np.nonzero(label)
    near = np.s_[max(0, rows.min() - 12) : rows.max() + 13, max(0, cols.min() - 12) : cols.max() + 13]
    hole, close = label.copy(), label[near]
    if rng.random() < 0.6:
        hole[near] = dilate(close, int(rng.integers(2, 7)))
    else:
        wobble = 0.15 * smooth_noise((close.shape[0], close.shape[1]), 3.0, rng)
        hole[near] |= gaussian(dilate(close, 4).astype(np.float32), 3.0) + wobble > 0.35
    return label, hole


def example(one: Slice, side: int, rng: np.random.Generator) -> NDArray[np.float32] | None:
    """3×side×side (image, hole, label) of one slice; None when the drawn place does not serve."""
    wants = one.lesion_known and bool(one.lesion.sum() >= SMALLEST_AREA_PX) and bool(rng.random() < 0.6)
    places = np.flatnonzero(one.lesion if wants else one.head)
    row, col = (int(v) for v in np.unravel_index(int(places[rng.integers(len(places))]), one.head.shape))
    if wants:
        label, hole = _around_lesion(one, row, col, rng)
        rows, cols = np.nonzero(hole)
        row, col = int(rows.min() + rows.max()) // 2, int(cols.min() + cols.max()) // 2
        extent = 1 + max(int(np.ptp(rows)), int(np.ptp(cols)))
    else:
        label, hole = np.zeros_like(one.head), np.zeros_like(one.head)
        shape, _ = stamp(float(np.exp(rng.uniform(np.log(6), np.log(30)))), rng)
        top, left = row - shape.shape[0] // 2, col - shape.shape[1] // 2
        if top < 0 or left < 0 or top + shape.shape[0] > hole.shape[0] or left + shape.shape[1] > hole.shape[1]:
            return None
        hole[top : top + shape.shape[0], left : left + shape.shape[1]] = shape
        extent = max(shape.shape)
        # Healthy tissue begins a little off the lesion.
        near = np.s_[max(0, top - 3) : top + shape.shape[0] + 3, max(0, left - 3) : left + shape.shape[1] + 3]
        if (dilate(hole[near], 3) & one.lesion[near]).any() or (hole & one.head).sum() < 0.7 * hole.sum():
            return None
    # As `fill` does: larger holes are brought down to what the networks know.
    shrink = min(1.0, fill.LARGEST_HOLE_PX / extent)
    reach = round(side / shrink)
    if min(one.pixels.shape) < reach:
        return None
    shift = rng.integers(-6, 7, size=2)
    window = _window(one, row + int(shift[0]), col + int(shift[1]), reach)
    planes = [np.ascontiguousarray(a[window], dtype=np.float32) for a in (one.pixels, hole, label)]
    if reach != side:
        planes = [cv2.resize(plane, (side, side), interpolation=cv2.INTER_AREA) for plane in planes]
    stacked = np.stack([planes[0], planes[1] > 0, planes[2] >= 0.5]).astype(np.float32)
    if stacked[1].sum() < SMALLEST_AREA_PX or stacked[1].mean() > 0.7:
        return None
    turned = np.rot90(stacked, int(rng.integers(4)), axes=(1, 2))
    return np.ascontiguousarray(turned[:, :, ::-1] if rng.random() < 0.5 else turned)


def batch(pool: dict[str, list[Slice]], rng: np.random.Generator, step: int) -> NDArray[np.float32]:
    """B×4×side×side: image, hole, label, noise; sources with equal weight."""
    side = _SIDES[1] if step % 4 == 3 else _SIDES[0]
    names = [name for name, members in pool.items() if members]
    made: list[NDArray[np.float32]] = []
    while len(made) < _BATCH_PX // side**2:
        members = pool[names[int(rng.integers(len(names)))]]
        found = example(members[int(rng.integers(len(members)))], side, rng)
        if found is not None:
            made.append(found)
    stacked = np.stack(made)
    return np.concatenate([stacked, rng.standard_normal(stacked[:, :1].shape, dtype=np.float32)], axis=1)


class Critic(nn.Module):
    """Patch discriminator of B×3×H×W (image, hole, label): one verdict for about 30 pixels, and its features."""

    def __init__(self) -> None:
        super().__init__()
        widths = (3, 20, 40, 64)
        self.layers = nn.ModuleList(
            nn.utils.parametrizations.spectral_norm(nn.Conv2d(a, b, 4, stride=2, padding=1))
            for a, b in pairwise(widths)
        )
        self.out = nn.utils.parametrizations.spectral_norm(nn.Conv2d(widths[-1], 1, 3, padding=1))

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        features = []
        for layer in self.layers:
            x = functional.leaky_relu(layer(x), 0.2)
            features.append(x)
        return self.out(x), features


def _over_hole(map_: Tensor, hole: Tensor) -> Tensor:
    """Mean of a verdict map over patches that the hole touches."""
    weight = functional.adaptive_max_pool2d(hole, map_.shape[-2:])
    return (map_ * weight).sum() / weight.sum().clamp(min=1)


class Trainer:
    """One network with its critic, their optimisers and the moving average that is shipped."""

    def __init__(self, name: str, seed: int) -> None:
        seed_torch(seed)
        self.name, self.step = name, 0
        self.net, self.critic = build(name), Critic()
        self.average = NETS[name]()
        self.average.load_state_dict(self.net.state_dict())
        self._optimiser = torch.optim.Adam(self.net.parameters(), _RATE, betas=(0.8, 0.99))
        self._critic_optimiser = torch.optim.Adam(self.critic.parameters(), _CRITIC_RATE, betas=(0.5, 0.99))

    def learn(self, given: NDArray[np.float32], steps: int) -> float:
        """One step of a run of `steps`, which set the rate. Returns the absolute error in the hole."""
        tensor = torch.from_numpy(given)
        image, hole, label, noise = (tensor[:, index : index + 1] for index in range(4))
        error, blurred, adversarial, matching = _LOSSES[self.name]
        fallen = 0.5 * (1 + float(np.cos(np.pi * self.step / steps)))
        rate = _RATE * min(1.0, (self.step + 1) / 40) * (0.05 + 0.95 * fallen)
        for group in self._optimiser.param_groups:
            group["lr"] = rate
        made = complete(self.net, image, hole, label, noise)
        apart = made - image
        absolute = (apart.abs() * hole).sum() / hole.sum()
        soft = functional.avg_pool2d(apart, 5, 1, 2).abs()
        loss = error * absolute + blurred * (soft * hole).sum() / hole.sum()
        if adversarial and self.step >= _CRITIC_FROM_STEP:
            real, fake = torch.cat([image, hole, label], 1), torch.cat([made, hole, label], 1)
            verdict_real, features_real = self.critic(real)
            verdict_fake, _ = self.critic(fake.detach())
            critical = _over_hole(functional.relu(1 - verdict_real), hole)
            critical = critical + _over_hole(functional.relu(1 + verdict_fake), hole)
            self._critic_optimiser.zero_grad()
            torch.autograd.backward(critical)
            self._critic_optimiser.step()
            verdict, features = self.critic(fake)
            loss = loss - adversarial * _over_hole(verdict, hole)
            if matching:
                pairs = zip(features, features_real, strict=True)
                loss = loss + matching * torch.stack([(a - b.detach()).abs().mean() for a, b in pairs]).mean()
        self._optimiser.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
        self._optimiser.step()
        with torch.no_grad():
            for kept, value in zip(self.average.parameters(), self.net.parameters(), strict=True):
                kept.lerp_(value.detach(), 1 - min(_AVERAGE, (1 + self.step) / (10 + self.step)))
        self.step += 1
        return float(absolute.detach())

    def save(self, folder: Path) -> None:
        """Checkpoint to go on from, and the half-precision weights as they would be shipped."""
        tensors = {f"net.{k}": v for k, v in self.net.state_dict().items()}
        tensors |= {f"critic.{k}": v for k, v in self.critic.state_dict().items()}
        tensors |= {f"average.{k}": v for k, v in self.average.state_dict().items()}
        for title, optimiser in (("optimiser", self._optimiser), ("critic_optimiser", self._critic_optimiser)):
            for index, state in optimiser.state_dict()["state"].items():
                tensors |= {f"{title}.{index}.{k}": v for k, v in state.items()}
        tensors["step"] = torch.tensor(self.step)
        _write({k: v.detach().clone() for k, v in tensors.items()}, folder / f"{self.name}.checkpoint")
        shipped = {k: v.detach().half().contiguous() for k, v in self.average.state_dict().items()}
        _write(shipped, folder / f"{self.name}.safetensors")

    def resume(self, folder: Path) -> None:
        """Go on from the folder's checkpoint where there is one."""
        path = folder / f"{self.name}.checkpoint"
        if not path.is_file():
            return
        tensors = load_file(path)
        for title, module in (("net", self.net), ("critic", self.critic), ("average", self.average)):
            module.load_state_dict({k[len(title) + 1 :]: v for k, v in tensors.items() if k.startswith(f"{title}.")})
        for title, optimiser in (("optimiser", self._optimiser), ("critic_optimiser", self._critic_optimiser)):
            moments: dict[int, dict[str, Tensor]] = {}
            for key, value in tensors.items():
                if key.startswith(f"{title}."):
                    _, index, moment = key.split(".", 2)
                    moments.setdefault(int(index), {})[moment] = value
            optimiser.load_state_dict({"state": moments, "param_groups": optimiser.state_dict()["param_groups"]})
        self.step = int(tensors["step"])


def _write(tensors: dict[str, Tensor], path: Path) -> None:
    aside = path.with_suffix(path.suffix + ".part")
    save_file(tensors, aside)
    aside.replace(path)


def train(pool: dict[str, list[Slice]], out: Path, *, steps: int, seed: int, stop: Callable[[], bool]) -> None:
    """Train every network to `steps`, in turns so that all are equally far when `stop` says so.

    Goes on where a run in `out` ended.     Prints a line of JSON and keeps a checkpoint every 50 steps.
    """
    trainers = [Trainer(name, seed) for name in NETS]
    for one in trainers:
        one.resume(out)
    while any(one.step < steps for one in trainers):
        for one in trainers:
            errors = []
            for _ in range(min(_CHECKPOINT_STEPS, steps - one.step)):
                errors.append(one.learn(batch(pool, batch_generator(seed, one.step), one.step), steps))
            if errors:
                one.save(out)
                line = {"net": one.name, "step": one.step, "error": round(float(np.mean(errors)), 4)}
                sys.stdout.write(json.dumps(line) + "\n")
                sys.stdout.flush()
        if stop():
            return


def main(arguments: list[str]) -> int:
    """Command of this module: write `NAME.safetensors` for every network."""
    parser = argparse.ArgumentParser(
        description="Train the inpainting networks of the learned forgeries. A stopped run goes on when called again."
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, help="stop after this time, all networks equally far")
    parser.add_argument("--steps", type=int, default=600, help="steps of each network; they set the course of the rate")
    parser.add_argument("--slices", type=int, default=150, help="training slices of each source, at most")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    given.out.mkdir(parents=True, exist_ok=True)
    pool = slices(given.data, dataset.by_split(dataset.read_index(given.data))["train"], given.slices, given.seed)
    clock = SystemClock()
    begun = clock.monotonic()

    def stop() -> bool:
        return given.minutes is not None and clock.monotonic() - begun > 60 * given.minutes

    train(pool, given.out, steps=given.steps, seed=given.seed, stop=stop)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
