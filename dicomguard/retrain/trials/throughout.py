"""A series forged throughout: what the product finds when no slice of it is left to compare with.

A slice is judged beside the others of its series, unless their middle is one that no authentic series has. Here one
family forges every slice of a stack that it can. The same slices are also judged in their series without that limit,
and one by one as loose pictures, which stand against a scale of their own. Authentic stacks are counted as they are and
after one benign operation on all slices, for that is what else moves the middle of a series.

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

from dicomguard.analyze import channels, scores, weights
from dicomguard.analyze.net.detector import Detector
from dicomguard.analyze.scores import FEWEST_FOR_SERIES, Calibration
from dicomguard.errors import Refused
from dicomguard.retrain import dataset
from dicomguard.retrain.dataset import Pixels
from dicomguard.retrain.net import calibrate, shown
from dicomguard.retrain.net.seeds import validation_generator
from dicomguard.retrain.net.shown import SMALLEST_FORGERY, Run
from dicomguard.retrain.net.twins import TwinMaker
from dicomguard.retrain.tamper.families import ATTACKS
from dicomguard.retrain.tamper.postprocess import HELD_BACK, MOVES, OPERATIONS, Postprocess

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


def process_all(one: Pixels, rng: np.random.Generator) -> Pixels:
    """The authentic series after one operation that leaves every pixel in its place."""
    name = str(rng.choice([name for name in (*OPERATIONS, *HELD_BACK) if name not in MOVES]))
    done = Postprocess(steps=(name,), amounts=(float(rng.uniform(0.3, 0.8)),), seed=int(rng.integers(2**32)))
    high = float(2 ** one.series.planes[0].bits - 1)
    stored = one.stored.copy()
    stored[:] = done.apply(one.stored.astype(np.float32), 0.0, high)
    return replace(one, stored=stored)


def found(detector: Detector, pixels: Pixels, planes: frozenset[int]) -> dict[str, int] | None:
    """Of the planes, how many are flagged: in their series, there without the limit, as pictures; and the study."""
    base = shown.authentic(detector, pixels)
    if base is None:
        return None
    run, calibration = base[0], detector.calibration
    unlimited = replace(calibration, middle_most=scores.NO_MOST)

    def flagged(c: Calibration) -> tuple[int, int]:
        (values,) = calibrate.slice_values([run], c)
        found = sum(bool(value >= 0) for plane, value in zip(run.planes, values, strict=True) if plane in planes)
        return found, int(calibrate.study_scores(run, c)[0] >= calibrate.ALERT)

    looked = [plane for plane in run.planes if plane in planes]
    (in_series, study), (without, study_without) = flagged(calibration), flagged(unlimited)
    return {
        "slices": len(looked),
        "in_series": in_series,
        "without_limit": without,
        "as_pictures": sum(_alone(detector, run, plane) >= 0 for plane in looked),
        "edited_alike": int(scores.edited_alike([seen.look for seen in run.seen], calibration)),
        "study": study,
        "study_without_limit": study_without,
    }


def _alone(detector: Detector, run: Run, plane: int) -> float:
    pixels = run.pixels.stored[plane].astype(np.float32)
    seen = detector.look([pixels], [channels.head_mask(pixels)], [])
    (values,) = calibrate.slice_values([replace(run, seen=tuple(seen), planes=(plane,))], detector.calibration)
    return float(values[0])


def main(arguments: list[str]) -> int:
    """Forge the stacks of a split throughout, judge them and the authentic ones, print and write `throughout.json`."""
    parser = argparse.ArgumentParser(description="What is found of series that are forged throughout.")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--weights", type=Path, help="default: the shipped ones")
    parser.add_argument("--seed", type=int, default=3)
    parser.add_argument("--split", choices=("validation", "test"), default="validation")
    parser.add_argument(
        "--families", type=int, default=3, help="families that each stack is forged with, one at a time, and operations"
    )
    given = parser.parse_args(arguments)
    given.out.mkdir(parents=True, exist_ok=True)
    series = dataset.by_split(dataset.read_index(given.data))[given.split]
    stacks = [dataset.read_pixels(given.data, one) for one in series if len(one.planes) >= FEWEST_FOR_SERIES]
    if not stacks:
        raise Refused(f"{given.data} has no stack of a {given.split} patient. Add studies, or use another folder.")
    detector = Detector.load(given.weights or weights.shipped(), device="cpu", threads=1)
    rows = [
        {"forged": name, **row}
        for name, row in (
            ("nothing", _authentic(detector, stacks)),
            ("processed", _processed(detector, stacks, seed=given.seed, count=given.families)),
            ("throughout", _forged(detector, stacks, seed=given.seed, families=given.families)),
        )
    ]
    table = {"model": detector.head.id, "split": given.split, "seed": given.seed, "rows": rows}
    (given.out / "throughout.json").write_text(json.dumps(table, indent=1) + "\n")
    for row in rows:
        sys.stdout.write(line(row) + "\n")
    return 0


def _authentic(detector: Detector, stacks: Sequence[Pixels]) -> dict[str, int]:
    return _together([found(detector, one, _all_of(one)) for one in stacks])


def _processed(detector: Detector, stacks: Sequence[Pixels], *, seed: int, count: int) -> dict[str, int]:
    rows = []
    for index, one in enumerate(stacks):
        for k in range(count):
            # Items apart from those of the forgeries, which count from zero.
            rng = validation_generator(seed, (1 << 20) + index * count + k)
            rows.append(found(detector, process_all(one, rng), _all_of(one)))
    return _together(rows)


def _all_of(one: Pixels) -> frozenset[int]:
    return frozenset(range(len(one.stored)))


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
        "edited_alike": sum(row["edited_alike"] for row in seen),
        "stacks_flagged": sum(row["study"] for row in seen),
        "stacks_flagged_without_limit": sum(row["study_without_limit"] for row in seen),
        **{name: sum(row[name] for row in seen) for name in ("slices", "in_series", "without_limit", "as_pictures")},
    }


def line(row: dict[str, Any]) -> str:
    """A row for a terminal."""
    return (
        f"{row['forged']:<12} stacks edited alike {row['edited_alike']} of {row['stacks']}; flagged "
        f"{row['stacks_flagged']}, without the limit {row['stacks_flagged_without_limit']}; slices flagged in their "
        f"series {row['in_series']} of {row['slices']}, without the limit {row['without_limit']}, one by one as "
        f"pictures {row['as_pictures']}"
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
