"""The peer that the detector has to beat: torchvision's Mask R-CNN at its defaults, trained on the same twins.

`maskrcnn_resnet50_fpn` of torchvision with four classes, the windowed image as three equal channels, its own resizing
to 800 pixels, from chance (no weights are fetched), for given minutes. Judged beside our weights and the classical
peers on the same slices by the same code.

    python -m dicomguard.retrain.trials.stock --data FOLDER --out FOLDER --minutes 60
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from dicomguard.analyze import channels, weights
from dicomguard.analyze.net import ops
from dicomguard.analyze.net.heads import ADDED, REMOVED
from dicomguard.analyze.net.load import load_network
from dicomguard.clock import Clock
from dicomguard.errors import Broken
from dicomguard.retrain import dataset
from dicomguard.retrain.evaluate import metrics
from dicomguard.retrain.evaluate.peers import PEERS
from dicomguard.retrain.net.seeds import seed_torch
from dicomguard.retrain.net.targets import target
from dicomguard.retrain.net.twins import Batches, Recipe, TwinMaker
from dicomguard.retrain.trials import dense, twins
from dicomguard.retrain.trials.effort import ProcessorClock
from dicomguard.retrain.trials.twins import Judge, Outcome, Said, View

ops.prepare()

from torchvision.models.detection import maskrcnn_resnet50_fpn  # noqa: E402

_CLASSES = 4
_IMAGE = channels.NAMES.index("I")
# torchvision's reference rate for sixteen images a step, scaled to the two pairs of a step here.
_RATE, _MOMENTUM, _DECAY = 0.005, 0.9, 1e-4
_CHECKPOINT_S = 110.0
_RESULT, _STATE = "trained.safetensors", "state.json"


def network() -> nn.Module:
    """The stock model as it comes, for four classes."""
    model: nn.Module = maskrcnn_resnet50_fpn(weights=None, weights_backbone=None, num_classes=_CLASSES)
    return model


def train(data: Path, out: Path, *, minutes: float, seed: int, clock: Clock, small: bool = False) -> nn.Module:
    """Train for the minutes, or go on from the last checkpoint; `small` uses two training series of images."""
    out.mkdir(parents=True, exist_ok=True)
    seed_torch(seed)
    model, step, earlier = network(), 0, 0.0
    if (out / _STATE).is_file():
        state = json.loads((out / _STATE).read_text())
        step, earlier = int(state["step"]), float(state["seconds"])
        model.load_state_dict(load_file(out / _RESULT))
    begun = saved = clock.monotonic()

    def spent() -> float:
        return earlier + clock.monotonic() - begun

    series = dataset.by_split(dataset.read_index(data))["train"]
    maker = TwinMaker([dataset.read_pixels(data, one) for one in (series[:2] if small else series)])
    batches = Batches(maker, Recipe(seed=seed, pairs=2, crop=128), 1 << 30)
    optimiser = torch.optim.SGD(model.parameters(), lr=_RATE, momentum=_MOMENTUM, weight_decay=_DECAY)
    model.train()
    while spent() < 60 * minutes:
        batch = batches[step]
        images, targets = _images(batch), _targets(batch)
        losses: dict[str, Tensor] = model(images, targets)
        loss = torch.stack(list(losses.values())).sum()
        if not bool(torch.isfinite(loss)):
            raise Broken(f"Loss of the stock model at step {step} is not finite. Begin again with another seed.")
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        step += 1
        _tell(f"stock: step {step}, {spent():.0f} s, loss {float(loss.detach()):.3f}")
        if clock.monotonic() - saved > _CHECKPOINT_S:
            _keep(out, model, step, spent())
            saved = clock.monotonic()
    _keep(out, model, step, spent())
    return model.eval()


def steps(out: Path) -> int:
    """Of the stock model in this folder."""
    return int(json.loads((out / _STATE).read_text())["step"])


def _keep(out: Path, model: nn.Module, step: int, seconds: float) -> None:
    aside = out / f".{_RESULT}.part"
    save_file({name: value.contiguous().clone() for name, value in model.state_dict().items()}, str(aside))
    aside.replace(out / _RESULT)
    (out / _STATE).write_text(json.dumps({"step": step, "seconds": seconds}))


def _images(batch: dict[str, np.ndarray]) -> list[Tensor]:
    grey = torch.from_numpy(batch["x"][:, _IMAGE].astype(np.float32))
    return [plane.expand(3, -1, -1) for plane in grey]


def _targets(batch: dict[str, np.ndarray]) -> list[dict[str, Tensor]]:
    """As torchvision wants them; it takes an image without an object when its boxes are 0×4."""
    return [
        target(forged > 0.5, lesion > 0.5, torch.device("cpu"))
        for forged, lesion in zip(batch["forged"], batch["lesion"], strict=True)
    ]


def stock_judge(model: nn.Module) -> Judge:
    """Its boxes called added or removed: the best is the slice's score, their masks are the suspicion."""

    @torch.inference_mode()
    def judge(view: View) -> Said:
        prepared = channels.prepare([view.plane], [], heads=[view.head])
        found = model(_images({"x": prepared.stack(0)[None]}))[0]
        suspicion, best = np.zeros(view.plane.shape, np.float32), 0.0
        marked = np.zeros(view.plane.shape, np.bool_)
        for label, score, mask in zip(found["labels"], found["scores"], found["masks"], strict=True):
            if int(label) in (ADDED, REMOVED):
                shape = mask[0].numpy()
                suspicion = np.maximum(suspicion, float(score) * shape)
                marked |= (shape > 0.5) & (float(score) > 0.5)
                best = max(best, float(score))
        return Said(score=best, suspicion=suspicion, marked=marked)

    return judge


def margin(ours: Sequence[Outcome], theirs: Sequence[Outcome]) -> list[float] | None:
    """Slice AUC of ours minus theirs, with its interval over patients (paired)."""
    one, other = twins.slice_auc(ours), twins.slice_auc(theirs)
    if one is None or other is None:
        return None
    gap = metrics.Drawn(value=one.value - other.value, draws=one.draws - other.draws).interval()
    return [round(gap.value, 4), round(gap.low, 4), round(gap.high, 4)]


def main(arguments: list[str]) -> int:
    """Train the stock model, judge it beside ours and the classical peers, print and write `stock.json`."""
    parser = argparse.ArgumentParser(description="The stock Mask R-CNN on the same twins, beside our weights.")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, required=True, help="CPU minutes")
    parser.add_argument(
        "--beside", type=Path, help="folder of a finished short run of ours; default the shipped weights"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--per-family", type=int, default=3, help="forged slices of each family and source")
    parser.add_argument("--split", choices=("validation", "test"), default="validation")
    given = parser.parse_args(arguments)
    # Before the stock model has cost its minutes.
    ours = dense.read_run(given.beside) if given.beside else load_network(weights.shipped(), torch.device("cpu"))
    model = train(given.data, given.out, minutes=given.minutes, seed=given.seed, clock=ProcessorClock())
    judges: dict[str, Judge] = {"ours, dense maps": dense.dense_judge(ours), "stock Mask R-CNN": stock_judge(model)}
    judges |= {name: twins.peer_judge(peer) for name, peer in PEERS.items()}
    chosen = twins.items(given.data, split=given.split, per_family=given.per_family, seed=given.seed)
    found = {name: twins.outcomes(chosen, judge) for name, judge in judges.items()}
    rows = {name: twins.figures(each) for name, each in found.items()}
    gap = margin(found["ours, dense maps"], found["stock Mask R-CNN"])
    made = {"split": given.split, "seed": given.seed, "minutes": given.minutes, "steps": steps(given.out)}
    made |= {"beside": given.beside.name if given.beside else "the shipped weights"}
    (given.out / "stock.json").write_text(json.dumps({**made, "rows": rows, "margin": gap}, indent=1) + "\n")
    for name, row in rows.items():
        _tell(twins.line(name, row))
    if gap is not None:
        _tell(f"ours over stock: {gap[0]:+.3f} [{gap[1]:+.3f}, {gap[2]:+.3f}]")
    return 0


def _tell(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
