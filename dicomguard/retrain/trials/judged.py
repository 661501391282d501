"""What the trials of given weights begin with: validation patients and their forgeries, looked at once."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dicomguard.analyze import weights
from dicomguard.analyze.net.detector import Detector
from dicomguard.errors import Refused
from dicomguard.retrain import dataset
from dicomguard.retrain.net import shown
from dicomguard.retrain.net.shown import Run


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """Runs of validation patients, authentic and forged, and what made them."""

    detector: Detector
    runs: Sequence[Run]
    # Head of the written table.
    made: dict[str, str | int]


def parser(description: str) -> argparse.ArgumentParser:
    """Arguments of every such trial."""
    found = argparse.ArgumentParser(description=description)
    found.add_argument("--data", type=Path, required=True)
    found.add_argument("--out", type=Path, required=True)
    found.add_argument("--weights", type=Path, help="default: the shipped ones")
    found.add_argument("--seed", type=int, default=3)
    found.add_argument("--per-family", type=int, default=6, help="forgeries of each family and source")
    return found


def judge(given: argparse.Namespace, names: Sequence[str] | None = None) -> Judged:
    """Forge with the families `names` (default: those trained on) and look. Raises `Refused` without such patients."""
    given.out.mkdir(parents=True, exist_ok=True)
    series = dataset.by_split(dataset.read_index(given.data))["validation"]
    if not series:
        raise Refused(f"{given.data} has no series of a validation patient. Add studies, or use another folder.")
    detector = Detector.load(given.weights or weights.shipped(), device="cpu", threads=1)
    pixels = [dataset.read_pixels(given.data, one) for one in series]
    runs = shown.forgeries(detector, pixels, seed=given.seed, per_family=given.per_family, names=names)
    made = {"model": detector.head.id, "split": "validation", "seed": given.seed, "per_family": given.per_family}
    return Judged(detector=detector, runs=list(runs), made=made)
