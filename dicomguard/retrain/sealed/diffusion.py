"""Training of the denoiser of `sealed.fill`: a small diffusion model that inpaints patches of training patients.

The stand-in for a latent inpainting model fine-tuned on scans. Per patch: authentic pixels, a random hole, the lesion
outline. The network is given noisy pixels, the pixels around the hole, the hole and the outline, and says v (Salimans
and Ho 2022, arXiv 2202.00512) on a cosine schedule (Nichol and Dhariwal 2021). Weights leave as half precision.

    python -m dicomguard.retrain.sealed.diffusion --data FOLDER --out FILE --minutes 20
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from dicomguard.analyze import channels
from dicomguard.retrain import dataset
from dicomguard.retrain.sealed import denoiser
from dicomguard.retrain.sealed.shapes import Plane, blob, patch_around

_BATCH = 16
_RATE = 2e-3
_AVERAGE = 0.998
# Weight of pixels outside the hole: they are known and are put back at each step.
_OUTSIDE = 0.05
_LESION_SHARE = 0.5
_LEAST_HEAD = 0.08
_TELL_EVERY = 100
# Patches of a slice are cut from this many pixels of its side, over the network's matrix.
_WIDEST = 2.5


class _Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(denoiser.GROUPS, width)
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.norm2 = nn.GroupNorm(denoiser.GROUPS, width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        self.level = nn.Linear(denoiser.LEVEL_WIDTH, 2 * width)
        nn.init.zeros_(self.conv2.weight)

    def forward(self, x: Tensor, level: Tensor) -> Tensor:
        """N×C×H×W to the same."""
        scale, shift = self.level(level)[:, :, None, None].chunk(2, dim=1)
        hidden = self.conv1(functional.silu(self.norm1(x)))
        hidden = self.norm2(hidden) * (1 + scale) + shift
        added: Tensor = x + self.conv2(functional.silu(hidden))
        return added


class Denoiser(nn.Module):
    """The network that `sealed.denoiser` runs without torch; names of tensors are the file's."""

    def __init__(self) -> None:
        super().__init__()
        wide, middle, deep = denoiser.WIDTHS
        self.level1 = nn.Linear(denoiser.LEVEL_WIDTH, denoiser.LEVEL_WIDTH)
        self.stem = nn.Conv2d(16, wide, 3, padding=1)
        self.block0 = _Block(wide)
        self.down1 = nn.Conv2d(wide, middle, 3, stride=2, padding=1)
        self.block1 = _Block(middle)
        self.down2 = nn.Conv2d(middle, deep, 3, stride=2, padding=1)
        self.block2 = _Block(deep)
        self.up1 = nn.Conv2d(deep + middle, middle, 3, padding=1)
        self.block3 = _Block(middle)
        self.up0 = nn.Conv2d(middle + wide, wide, 3, padding=1)
        self.block4 = _Block(wide)
        self.norm = nn.GroupNorm(denoiser.GROUPS, wide)
        self.out = nn.Conv2d(wide, 4, 3, padding=1)

    def forward(self, seen: Tensor, angle: Tensor) -> Tensor:
        """N×4×64×64 (noisy, known, hole, lesion) and N angles 0…π/2 of the schedule to v, N×1×64×64."""
        level = functional.silu(self.level1(torch.from_numpy(denoiser.embed(angle.numpy()))))
        x0 = self.block0(self.stem(functional.pixel_unshuffle(seen, 2)), level)
        x1 = self.block1(self.down1(x0), level)
        x2 = self.block2(self.down2(x1), level)
        up = functional.interpolate(x2, scale_factor=2.0)
        x1 = self.block3(self.up1(torch.cat((up, x1), dim=1)), level)
        up = functional.interpolate(x1, scale_factor=2.0)
        x0 = self.block4(self.up0(torch.cat((up, x0), dim=1)), level)
        v: Tensor = functional.pixel_shuffle(self.out(functional.silu(self.norm(x0))), 2)
        return v


class _Slices:
    """Slices of the training patients on which lesions are known, scaled to the denoiser's units."""

    def __init__(self, root: Path, series: Sequence[dataset.Series]) -> None:
        self._by_source: dict[str, list[tuple[Plane, NDArray[np.bool_], NDArray[np.bool_]]]] = {}
        for one in series:
            if not one.lesion_known:
                continue
            pixels = dataset.read_pixels(root, one)
            for plane, lesion in zip(pixels.stored.astype(np.float32), pixels.lesion, strict=True):
                head = channels.head_mask(plane)
                if head.mean() >= _LEAST_HEAD:
                    unit = denoiser.Unit.of(plane, head)
                    self._by_source.setdefault(one.source, []).append((unit.into(plane), lesion, head))

    def draw(self, rng: np.random.Generator) -> NDArray[np.float32]:
        """3×64×64: pixels, hole, lesion; at a random place of a random slice, turned and flipped."""
        sources = sorted(self._by_source)
        slices = self._by_source[sources[rng.integers(len(sources))]]
        plane, lesion, head = slices[rng.integers(len(slices))]
        ground = lesion if lesion.any() and rng.random() < _LESION_SHARE else head
        places = np.argwhere(ground)
        centre = places[rng.integers(len(places))] + rng.normal(0, 6, 2)
        matrix = denoiser.MATRIX
        widest = max(1.0, min(_WIDEST, min(plane.shape) / 200))
        side = matrix if rng.random() < 0.5 else round(matrix * rng.uniform(1, widest))
        patch = patch_around((float(centre[0]), float(centre[1])), side)
        cut = np.stack(
            [
                patch.cut(plane, matrix) * np.float32(rng.uniform(0.9, 1.1)),
                blob(
                    (matrix, matrix),
                    (rng.uniform(16, 48), rng.uniform(16, 48)),
                    float(np.exp(rng.uniform(np.log(5), np.log(27)))),
                    rng,
                ),
                patch.cut(lesion.astype(np.float32), matrix) >= 0.5,
            ]
        ).astype(np.float32)
        turned = np.rot90(cut, int(rng.integers(4)), axes=(1, 2))
        return np.ascontiguousarray(turned[:, :, ::-1] if rng.random() < 0.5 else turned)


def _loss(model: Denoiser, batch: Tensor, rng: np.random.Generator) -> Tensor:
    pixels, hole, lesion = batch[:, :1], batch[:, 1:2], batch[:, 2:]
    angle = torch.from_numpy(np.arccos(np.sqrt(1 - rng.uniform(0, 1, len(batch)))).astype(np.float32))
    signal, spread = angle.cos()[:, None, None, None], angle.sin()[:, None, None, None]
    noise = torch.from_numpy(rng.standard_normal(pixels.shape, dtype=np.float32))
    noisy = signal * pixels + spread * noise
    v = model(torch.cat((noisy, pixels * (1 - hole), hole, lesion), dim=1), angle)
    weight = hole + _OUTSIDE
    error: Tensor = (weight * (v - (signal * noise - spread * pixels)) ** 2).sum() / weight.sum()
    return error


def train(data: Path, *, minutes: float, seed: int) -> dict[str, Tensor]:
    """Averaged weights after `minutes` of processor time on one thread; prints the loss as JSON lines."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    slices = _Slices(data, dataset.by_split(dataset.read_index(data))["train"])
    model = Denoiser()
    average = {name: value.detach().clone() for name, value in model.state_dict().items()}
    optimiser = torch.optim.AdamW(model.parameters(), lr=_RATE, weight_decay=1e-4)
    begun, spent, step, losses = time.process_time(), 0.0, 0, 0.0
    while spent < 1.0:
        rng = np.random.default_rng([seed, step])
        batch = torch.from_numpy(np.stack([slices.draw(rng) for _ in range(_BATCH)]))
        for group in optimiser.param_groups:
            group["lr"] = _RATE * min(1.0, (step + 1) / 100) * (0.02 + 0.98 * np.cos(np.pi / 2 * spent) ** 2)
        loss = _loss(model, batch, rng)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        with torch.no_grad():
            for name, value in model.state_dict().items():
                average[name].lerp_(value, 1 - min(_AVERAGE, step / (step + 10)))
        step, losses = step + 1, losses + float(loss.detach())
        spent = (time.process_time() - begun) / (60 * minutes)
        if step % _TELL_EVERY == 0:
            sys.stdout.write(json.dumps({"step": step, "share": round(spent, 3), "loss": losses / _TELL_EVERY}) + "\n")
            sys.stdout.flush()
            losses = 0.0
    return average


def main(arguments: list[str]) -> int:
    """Command of this module: train and write the weights in half precision."""
    parser = argparse.ArgumentParser(description="Train the small diffusion model of the sealed family 11.")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--seed", type=int, default=11)
    given = parser.parse_args(arguments)
    average = train(given.data, minutes=given.minutes, seed=given.seed)
    halves = {name: value.half().contiguous() for name, value in average.items()}
    save_file(halves, str(given.out), metadata={"licence": "as the training pixels: see docs/model-card.md"})
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
