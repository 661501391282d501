"""What a report says beyond its scores: on which slices a region lies, how its mask fits, what several stacks cost.

Validation patients; their stacks are forged, scored and linked as in the product, and the choices of `link.tracks` are
undone one by one: where a region ends, how much wider its masks are, and what a study of several stacks pays.

    python -m dicomguard.retrain.trials.reported --data FOLDER --out FOLDER --per-family 3
"""

import json
import math
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from dicomguard.analyze import link, scores
from dicomguard.analyze.scores import FEWEST_FOR_SERIES, Calibration
from dicomguard.retrain.net import calibrate
from dicomguard.retrain.net.calibrate import ALERT
from dicomguard.retrain.net.shown import Run
from dicomguard.retrain.tamper.families import ATTACKS, HELD_BACK
from dicomguard.retrain.trials import judged

_RIMS_PX = (0, 1, 2, 3, 4)
# Stacks of a study, each as long as the one that is judged.
_STACKS = (1, 2, 4, 8)


def main(arguments: list[str]) -> int:
    """Judge, print the tables, write `reported.json`."""
    parser = judged.parser("Slices, masks and studies of several stacks, as they are reported.")
    parser.add_argument("--held-back", action="store_true", help="the families that no training has drawn")
    given = parser.parse_args(arguments)
    seen = judged.judge(given, list(HELD_BACK if given.held_back else ATTACKS))
    c = seen.detector.calibration
    runs = [run for run in seen.runs if not run.excerpt]
    table = {
        **seen.made,
        "ends": ends(runs, c),
        "lesion_ends": lesion_ends(runs, c),
        "rims": [{"rim_px": rim, **fit(runs, c, rim_px=rim)} for rim in _RIMS_PX],
        "stacks": [
            {"stacks": k, **flagged(runs, c, stacks=k), **known(seen.detector.head.authentic_scores, c, stacks=k)}
            for k in _STACKS
        ],
    }
    (given.out / "reported.json").write_text(json.dumps(table, indent=1) + "\n")
    for line in lines(table):
        sys.stdout.write(line + "\n")
    return 0


def ends(runs: Sequence[Run], c: Calibration) -> dict[str, list[int]]:
    """Slices that flagged regions of forged stacks lie on: [showing the forgery, all], kept and cut off."""
    kept, cut = [0, 0], [0, 0]
    for run in runs:
        if not run.forged or len(run.planes) < FEWEST_FOR_SERIES:
            continue
        for members in link.chains(calibrate.detections(run, c), positions_mm=calibrate.positions(run)):
            if _probability(members, c, count=len(run.planes)) < ALERT:
                continue
            within = {index for index, _ in link.without_weak_ends(members, forged=True)}
            for index, _ in members:
                counted = kept if index in within else cut
                counted[0] += run.planes[index] in run.masks
                counted[1] += 1
    return {"kept": kept, "cut": cut}


def lesion_ends(runs: Sequence[Run], c: Calibration) -> dict[str, list[int]]:
    """Slices that regions reported as real lie on, in authentic stacks: [showing a lesion, all], kept and cut off."""
    kept, cut = [0, 0], [0, 0]
    for run in runs:
        if run.family or len(run.planes) < FEWEST_FOR_SERIES or not run.pixels.series.lesion_known:
            continue
        for members in link.chains(calibrate.detections(run, c), positions_mm=calibrate.positions(run)):
            tumor = link.tumor_logit([one.p_tumor for _, one in members], placed=True, count=len(run.planes))
            lesion = scores.probability(tumor, c.study_tumor_slope, c.study_tumor_bias)
            if lesion < ALERT or _probability(members, c, count=len(run.planes)) >= ALERT:
                continue
            within = {index for index, _ in link.without_weak_ends(members, forged=False)}
            for index, _ in members:
                counted = kept if index in within else cut
                counted[0] += bool(run.lesions[run.planes[index]].any())
                counted[1] += 1
    return {"kept": kept, "cut": cut}


def fit(runs: Sequence[Run], c: Calibration, *, rim_px: int) -> dict[str, Any]:
    """Means of F1 and IoU over forged slices that are flagged, of all flagged regions of the slice together."""
    f1, iou = [], []
    for run in runs:
        for index, found in enumerate(calibrate.detections(run, c) if run.forged else ()):
            truth = run.masks.get(run.planes[index])
            masks = [link.wider(one.mask, rim_px) for one in found if one.p_forged >= ALERT]
            if truth is None or not masks:
                continue
            marked = np.any(masks, axis=0)
            both = np.count_nonzero(marked & truth)
            f1.append(2 * both / (np.count_nonzero(marked) + np.count_nonzero(truth)))
            iou.append(both / np.count_nonzero(marked | truth))
    return {"slices": len(f1), "f1": _mean(f1), "iou": _mean(iou)}


def flagged(runs: Sequence[Run], c: Calibration, *, stacks: int) -> dict[str, list[int]]:
    """Stacks flagged as one of several of a study: [flagged, all] of forged and of authentic ones."""
    counts = {"forged": [0, 0], "authentic": [0, 0]}
    for run in runs:
        if len(run.planes) < FEWEST_FOR_SERIES or (run.family and not run.forged):
            continue
        found = link.chains(calibrate.detections(run, c), positions_mm=calibrate.positions(run))
        score = max((_probability(one, c, count=stacks * len(run.planes)) for one in found), default=0.0)
        row = counts["forged" if run.family else "authentic"]
        row[0] += score >= ALERT
        row[1] += 1
    return counts


def known(authentic_scores: Sequence[float], c: Calibration, *, stacks: int) -> dict[str, list[int]]:
    """Of the authentic studies in the head of the weights: [flagged as one of so many stacks, all]."""
    cost = c.study_slope * math.log(stacks)
    above = [scores.logit(score) - cost >= scores.logit(ALERT) for score in authentic_scores]
    return {"known_authentic": [sum(above), len(above)]}


def _probability(members: Sequence[tuple[int, link.Seen]], c: Calibration, *, count: int) -> float:
    forged = link.forged_logit(
        [(index, one.p_forged) for index, one in members], placed=True, count=count, lone_cost=c.lone_cost
    )
    return link.study_probability(forged, c, placed=True)


def _mean(values: Sequence[float]) -> float | None:
    return round(float(np.mean(values)), 4) if values else None


def lines(table: dict[str, Any]) -> list[str]:
    """The tables for a terminal."""
    found = [
        f"slices of flagged regions, {name}: {shown} of {of} show the forgery"
        for name, (shown, of) in table["ends"].items()
    ]
    found += [
        f"slices of real regions, {name}: {shown} of {of} show a lesion"
        for name, (shown, of) in table["lesion_ends"].items()
    ]
    for row in table["rims"]:
        if row["slices"]:
            found.append(
                f"rim {row['rim_px']} px: F1 {row['f1']:.3f}, IoU {row['iou']:.3f} ({row['slices']} flagged slices)"
            )
    for row in table["stacks"]:
        shares = ", ".join(
            f"{name.replace('_', ' ')} {row[name][0]} of {row[name][1]}"
            for name in ("forged", "authentic", "known_authentic")
        )
        found.append(f"one of {row['stacks']} stacks, flagged: {shares}")
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
