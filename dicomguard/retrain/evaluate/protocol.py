"""The protocol of an evaluation, one story: read the test patients, forge, write, judge, count.

Both twins are written by one writer and judged by one child. Thresholds are the model's own; nothing is chosen here.
"""

import json
from collections.abc import Collection, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dicomguard.retrain.evaluate import report
from dicomguard.retrain.evaluate.bench import Bench, Progress
from dicomguard.retrain.evaluate.cases import read
from dicomguard.retrain.evaluate.scoring import Score, Scorer
from dicomguard.retrain.evaluate.summary import processing, summarise

SCHEMA = "dicomguard.evaluation/1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much is forged and judged; limits by source, "" for sources not named."""

    # People of each source; None for all.
    most_people: int | None
    # Forged studies of each family.
    per_family: Mapping[str, int]
    # Studies processed by each operation, once as they are and once forged.
    per_operation: Mapping[str, int]
    # Whether the DICOM archives of the data folder are judged for false alarms.
    archives: bool


# Loose pictures cost least and come from most people.
STANDARD = Size(most_people=None, per_family={"": 14, "cheng": 24}, per_operation={"": 3, "cheng": 6}, archives=True)
FAST = Size(most_people=4, per_family={"": 2}, per_operation={"": 0}, archives=False)


def evaluate(
    data_root: Path,
    weights: Path,
    *,
    out: Path,
    keys: Collection[str] = (),
    seed: int = 2026,
    fast: bool = False,
    progress: Progress | None = None,
    score: Score | None = None,
) -> dict[str, Any]:
    """Evaluate weights on the test patients of `data_root` (or on `keys`, "source/patient") and write the report.

    Writes `report.json` and `report.html` to `out` and gives the same as a value. `score` replaces the production path
    in tests; without it the weights are judged by an analysis child.
    """
    size = FAST if fast else STANDARD
    out.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        model: dict[str, Any] = {}
        if score is None:
            scorer = stack.enter_context(Scorer(weights))
            score, model = scorer, asdict(scorer.model)
        bench = Bench(score, seed=seed, progress=progress or (lambda done, total: None))
        cases = read(data_root, keys, most_people=size.most_people)
        bench.judge(cases, size.per_family)
        bench.judge_processed(cases, size.per_operation)
        if size.archives:
            bench.judge_archives(data_root / "dicom")
    threshold = float(model.get("operating_point", {}).get("forgery", bench.threshold))
    document = {
        "schema": SCHEMA,
        "seed": seed,
        "size": "fast" if fast else "standard",
        "split": "given keys" if keys else "test",
        "model": model,
        "threshold": threshold,
        **summarise(bench.slices, bench.studies, bench.unforged, threshold=threshold),
        "processing": processing(bench.processed, threshold=threshold),
    }
    (out / "report.json").write_text(json.dumps(document, indent=1, sort_keys=True) + "\n")
    (out / "report.html").write_text(report.html(document))
    return document
