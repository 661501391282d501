"""The shuffled-label control: the whole recipe learns from a truth that says nothing, and must then find nothing.

Labels of twins are swapped at random and the mask is shifted at random inside the crop. Swapping alone is no control:
forged pixels then still lie inside masks only, and a network reaches slice AUC 0.74.

    python -m dicomguard.retrain.trials.shuffled --data FOLDER --out FOLDER --minutes 10
"""

import argparse
import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from dicomguard.retrain.net.seeds import batch_generator
from dicomguard.retrain.net.train import Batch
from dicomguard.retrain.trials import dense, twins
from dicomguard.retrain.trials.effort import ProcessorClock

# Away from the streams of batches.
_STREAM = 1 << 20
_CHANCE = (0.45, 0.55)
_LEAST_F1 = 0.05


@dataclass(frozen=True, slots=True)
class Shuffle:
    """Falsifies the batch of a step; the same step is falsified in the same way."""

    seed: int

    def __call__(self, step: int, batch: Batch) -> Batch:
        """2N items, authentic and forged in turn: each pair's mask moves anywhere in the crop, on either twin."""
        rng = batch_generator(self.seed + _STREAM, step)
        forged, valid = np.zeros_like(batch["forged"]), batch["valid"].copy()
        side = forged.shape[-1]
        for first in range(0, len(forged), 2):
            shift = (int(rng.integers(side)), int(rng.integers(side)))
            moved = np.roll(batch["forged"][first + 1], shift, axis=(0, 1))
            forged[first + int(rng.integers(2))] = moved
            # The forged twin's blend band would give its place away.
            valid[first + 1] = valid[first]
        return {**batch, "forged": forged, "valid": valid}


def main(arguments: list[str]) -> int:
    """Train with a false truth, judge validation patients, print whether the control holds."""
    parser = argparse.ArgumentParser(description="Train on shuffled labels; nothing may be found afterwards.")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, required=True, help="CPU minutes")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--per-family", type=int, default=4, help="forged slices of each family and source")
    given = parser.parse_args(arguments)
    given.out.mkdir(parents=True, exist_ok=True)
    job = replace(
        dense.trial(given.data, given.out, minutes=given.minutes, seed=given.seed), falsify=Shuffle(given.seed)
    )
    network = dense.short_run(job, clock=ProcessorClock(), told=_tell)
    chosen = twins.items(given.data, split="validation", per_family=given.per_family, seed=given.seed)
    row = twins.figures(twins.outcomes(chosen, dense.dense_judge(network)))
    row |= {"holds": holds(row), "split": "validation", **dense.effort(job)}
    (given.out / "shuffled.json").write_text(json.dumps(row, indent=1) + "\n")
    _tell(twins.line("shuffled labels", row))
    _tell("the control holds" if row["holds"] else "THE CONTROL DOES NOT HOLD: something but forgery is learnt")
    return 0


def holds(row: dict[str, float | None]) -> bool:
    """Slice and pixel AUC at chance, F1 below 0.05."""
    slice_auc, pixel_auc, f1 = row["slice_auc"], row["pixel_auc"], row["f1"]
    if slice_auc is None or pixel_auc is None or f1 is None:
        return False
    return all(_CHANCE[0] <= value <= _CHANCE[1] for value in (slice_auc, pixel_auc)) and f1 < _LEAST_F1


def _tell(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
