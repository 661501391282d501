"""The protocol of an evaluation, one story: read the test patients, forge, write, judge, count.

Both twins are written by one writer and judged by one child. Thresholds are the model's own; nothing is chosen here.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dicomguard.retrain.evaluate import (
    alarms,
    answers,
    checks,
    controls,
    gallery,
    goals,
    page,
    short_runs,
    strata,
    summary,
)
from dicomguard.retrain.evaluate.bench import Bench, Progress
from dicomguard.retrain.evaluate.cases import read
from dicomguard.retrain.evaluate.records import DoseRecord, OutsideRecord
from dicomguard.retrain.evaluate.scoring import Score, Scorers
from dicomguard.retrain.sealed.families import SEALED
from dicomguard.retrain.tamper.families import ATTACKS, one_of_each_group
from dicomguard.retrain.tamper.second_hand import SECOND_HAND

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
    # Forgeries laid on at five strengths, and studies edited in the air.
    per_control: Mapping[str, int]
    # Whether the DICOM archives of the data folder are judged for false alarms.
    archives: bool
    # Whether every family is laid on, or the first of each group.
    all_families: bool


# Loose pictures cost least and come from most people.
STANDARD = Size(
    most_people=None,
    per_family={"": 7, "cheng": 12},
    per_operation={"": 3, "cheng": 6},
    per_control={"": 4, "cheng": 8},
    archives=True,
    all_families=True,
)
FAST = Size(
    most_people=4, per_family={"": 1}, per_operation={"": 0}, per_control={"": 1}, archives=False, all_families=False
)
_FAMILIES = (*ATTACKS.values(), *SECOND_HAND.values())


def evaluate(
    data_root: Path,
    weights: Path,
    *,
    out: Path,
    keys: Collection[str] = (),
    seed: int = 2026,
    fast: bool = False,
    sealed: bool = False,
    at_once: int = 1,
    trials: Path | None = None,
    progress: Progress | None = None,
    score: Score | None = None,
) -> dict[str, Any]:
    """Evaluate weights on the test patients of `data_root` (or on `keys`, "source/patient") and write the report.

    Writes `report.json` and `report.html` to `out` and gives the figures as a value. `sealed` adds the families that
    are looked at once a release. `at_once` studies are judged beside each other. `trials` is a folder below which short
    runs have left their figures, which then stand in the report. `score` replaces the production path in tests; without
    it the weights are judged by analysis children.
    """
    # First, for what follows takes an hour.
    told = None if trials is None else short_runs.read(trials)
    size = FAST if fast else STANDARD
    out.mkdir(parents=True, exist_ok=True)
    families = _FAMILIES if size.all_families else one_of_each_group(_FAMILIES)
    families = (*families, *SEALED.values()) if sealed else families
    with ExitStack() as stack:
        model: dict[str, Any] = {}
        if score is None:
            scorer = stack.enter_context(Scorers(weights, count=at_once))
            score, model = scorer, asdict(scorer.model)
        bench = Bench(
            score, seed=seed, progress=progress or (lambda done, total: None), families=families, at_once=at_once
        )
        cases = read(data_root, keys, most_people=size.most_people)
        bench.judge(cases, size.per_family)
        bench.judge_processed(cases, size.per_operation)
        doses = controls.judge_doses(bench, cases, size.per_control)
        outside = controls.judge_outside(bench, cases, size.per_control)
        if size.archives:
            bench.judge_archives(data_root / "dicom")
    threshold = float(model.get("operating_point", {}).get("forgery", bench.threshold))
    document = {
        "schema": SCHEMA,
        "seed": seed,
        "size": "fast" if fast else "standard",
        "split": "given keys" if keys else "test",
        "sealed": sealed,
        "model": model,
        **_tables(bench, doses, outside, threshold=threshold),
    }
    if told is not None:
        document["trials"] = told
        document["controls"] += checks.shuffled(told["shuffled"])
    document["goals"] = goals.goals(document)
    (out / "report.json").write_text(json.dumps(document, indent=1, sort_keys=True) + "\n")
    (out / "report.html").write_text(page.html(document, gallery.pictures(bench.gallery)))
    return document


def _tables(
    bench: Bench, doses: Sequence[DoseRecord], outside: Sequence[OutsideRecord], *, threshold: float
) -> dict[str, Any]:
    processing = summary.processing(bench.processed, threshold=threshold)
    return {
        "threshold": threshold,
        "false_alarms": alarms.by_source(bench.slices, bench.studies, threshold=threshold),
        "alarms_by_kind": alarms.by_kind(bench.slices, bench.studies, threshold=threshold),
        **summary.families(bench.slices, bench.studies, bench.placed, bench.unforged, threshold=threshold),
        "processing": processing,
        "four_way": answers.four_way(bench.studies),
        "four_way_slices": answers.four_way(bench.slices),
        "calibration": answers.calibration(bench.slices, bench.studies),
        "roc": answers.rocs(bench.slices, bench.studies),
        "froc": answers.frocs(bench.studies, bench.lesions),
        "strata": strata.strata(bench.slices, threshold=threshold),
        "detection_limit": strata.limits(bench.slices, threshold=threshold),
        "doses": strata.doses(doses, threshold=threshold),
        "peers": strata.beside_peers(bench.slices, bench.placed),
        "controls": checks.controls(
            slices=bench.slices, formats=bench.formats, doses=doses, outside=outside, processing=processing
        ),
    }
