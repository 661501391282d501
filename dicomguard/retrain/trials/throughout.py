"""A series forged throughout: what the product finds when no slice of it is left to compare with.

A slice is judged beside the others of its series, which are taken to be authentic for the most part. Here one family
forges every slice of a validation stack that it can. The same slices are also judged one by one as loose pictures,
which stand against a scale of their own: whether that would find them is tried, and what it costs on authentic ones.

    python -m dicomguard.retrain.trials.throughout --data FOLDER --out FOLDER
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from dicomguard.analyze import channels, weights
from dicomguard.analyze.net.detector import Detector
from dicomguard.analyze.scores import FEWEST_FOR_SERIES
from dicomguard.errors import Refused
from dicomguard.retrain import dataset
from dicomguard.retrain.dataset import Pixels
from dicomguard.retrain.net import calibrate, shown
from dicomguard.retrain.net.seeds import validation_generator
from dicomguard.retrain.net.shown import SMALLEST_FORGERY, Run
from dicomguard.retrain.net.twins import TwinMaker
from dicomguard.retrain.tamper.families import ATTACKS

# Draws of a place in a slice before it is left as it is.
_TRIES = 4
# A stack of which less could be forged is not forged throughout.
_LEAST_SHARE = 0.7


def forge_all(maker: TwinMaker, one: Pixels, family: str, rng: np.random.Generator) -> tuple[Pixels, frozenset[int]]:
    """The series with every slice forged where the family found a way, and which slices those are."""
    stored, forged = one.stored.copy(), set()
    for plane in range(len(stored)):
        for _ in range(_TRIES):
            twin = maker.forge(one, plane, plane, rng, names=(family,), processed=False, flip=False)
            if twin is not None and int(twin.forged.mask[0].sum()) >= SMALLEST_FORGERY:
                (top, left), (height, width) = twin.corner, twin.pixels.shape[1:]
                stored[plane, top : top + height, left : left + width] = twin.pixels[0]
                forged.add(plane)
                break
    return replace(one, stored=stored), frozenset(forged)


def found(detector: Detector, pixels: Pixels, planes: frozenset[int]) -> dict[str, int] | None:
    """Of the planes, how many the product flags in their series and how many as loose pictures; and the study."""
    base = shown.authentic(detector, pixels)
    if base is None:
        return None
    run, calibration = base[0], detector.calibration
    (values,) = calibrate.slice_values([run], calibration)
    looked = [(plane, value) for plane, value in zip(run.planes, values, strict=True) if plane in planes]
    alone = [_alone(detector, run, plane) for plane, _ in looked]
    return {
        "slices": len(looked),
        "in_series": sum(bool(value >= 0) for _, value in looked),
        "as_pictures": sum(value >= 0 for value in alone),
        "study": int(calibrate.study_scores(run, calibration)[0] >= calibrate.ALERT),
    }


def _alone(detector: Detector, run: Run, plane: int) -> float:
    pixels = run.pixels.stored[plane].astype(np.float32)
    seen = detector.look([pixels], [channels.head_mask(pixels)], [])
    (values,) = calibrate.slice_values([replace(run, seen=tuple(seen), planes=(plane,))], detector.calibration)
    return float(values[0])


def main(arguments: list[str]) -> int:
    """Forge validation stacks throughout, judge them and the authentic ones, print and write `throughout.json`."""
    parser = argparse.ArgumentParser(description="What is found of series that are forged throughout.")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--weights", type=Path, help="default: the shipped ones")
    parser.add_argument("--seed", type=int, default=3)
    parser.add_argument(
        "--families", type=int, default=3, help="families that each stack is forged with, one at a time"
    )
    given = parser.parse_args(arguments)
    given.out.mkdir(parents=True, exist_ok=True)
    series = dataset.by_split(dataset.read_index(given.data))["validation"]
    stacks = [dataset.read_pixels(given.data, one) for one in series if len(one.planes) >= FEWEST_FOR_SERIES]
    if not stacks:
        raise Refused(f"{given.data} has no stack of a validation patient. Add studies, or use another folder.")
    detector = Detector.load(given.weights or weights.shipped(), device="cpu")
    rows = [
        {"forged": name, **row}
        for name, row in (
            ("nothing", _authentic(detector, stacks)),
            ("throughout", _forged(detector, stacks, seed=given.seed, families=given.families)),
        )
    ]
    table = {"model": detector.head.id, "split": "validation", "seed": given.seed, "rows": rows}
    (given.out / "throughout.json").write_text(json.dumps(table, indent=1) + "\n")
    for row in rows:
        sys.stdout.write(line(row) + "\n")
    return 0


def _authentic(detector: Detector, stacks: Sequence[Pixels]) -> dict[str, int]:
    return _together([found(detector, one, frozenset(range(len(one.stored)))) for one in stacks])


def _forged(detector: Detector, stacks: Sequence[Pixels], *, seed: int, families: int) -> dict[str, int]:
    maker, rows = TwinMaker(stacks), []
    for index, one in enumerate(stacks):
        for k in range(families):
            rng = validation_generator(seed, index * families + k)
            pixels, planes = forge_all(maker, one, str(rng.choice(list(ATTACKS))), rng)
            if len(planes) >= _LEAST_SHARE * len(one.stored):
                rows.append(found(detector, pixels, planes))
    return _together(rows)


def _together(rows: Sequence[dict[str, int] | None]) -> dict[str, int]:
    seen = [row for row in rows if row is not None]
    return {
        "stacks": len(seen),
        "stacks_flagged": sum(row["study"] for row in seen),
        **{name: sum(row[name] for row in seen) for name in ("slices", "in_series", "as_pictures")},
    }


def line(row: dict[str, Any]) -> str:
    """A row for a terminal."""
    return (
        f"{row['forged']:<12} stacks flagged {row['stacks_flagged']} of {row['stacks']}; slices flagged in their "
        f"series {row['in_series']} of {row['slices']}, one by one as pictures {row['as_pictures']}"
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
