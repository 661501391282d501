"""The controls of an evaluation as a table: what must hold if the figures mean anything, and whether it does. Pure."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from dicomguard.retrain.evaluate import alarms, format_only, metrics
from dicomguard.retrain.evaluate.metrics import Drawn
from dicomguard.retrain.evaluate.records import (
    AUTHENTIC,
    IDENTITY,
    DoseRecord,
    FormatRecord,
    OutsideRecord,
    SliceRecord,
)
from dicomguard.retrain.evaluate.report import cell

# A control at chance lies here.
_CHANCE = (0.45, 0.55)
_SAME_SCORE = 1e-6
_BENIGN_RATIO = 2.0


def controls(
    *,
    slices: Sequence[SliceRecord],
    formats: Sequence[FormatRecord],
    doses: Sequence[DoseRecord],
    outside: Sequence[OutsideRecord],
    processing: Sequence[dict[str, Any]],
) -> list[dict[str, Any]]:
    """Rows `control`, `must`, `reached`, `holds` (None where nothing was measured) with the figures behind them."""
    rows = [_identity(doses), *_format(formats), *_presence(slices), _outside(outside), _dose(doses)]
    return [*rows, *_benign(processing)]


def shuffled(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Short runs whose truth was shuffled: a row each, as the trial judged itself."""
    return [
        {
            "control": "shuffled labels",
            "must": f"slice and pixel AUC {_CHANCE[0]} to {_CHANCE[1]}, F1 below 0.05 (short run)",
            "reached": f"slice AUC {cell(row['slice_auc'])}, pixel AUC {cell(row['pixel_auc'])}, F1 {cell(row['f1'])} "
            f"after {row['minutes']:g} CPU minutes from chance; not the weights evaluated here",
            "holds": row["holds"],
        }
        for row in rows
    ]


def _identity(doses: Sequence[DoseRecord]) -> dict[str, Any]:
    own = [record for record in doses if record.strength == IDENTITY]
    gaps = [abs(a - b) for record in own for a, b in zip(record.scores, record.twins, strict=True)]
    equal = sum(record.equal_pixels for record in own)
    return {
        "control": "identity forgery",
        "must": "equal pixels, equal score",
        "reached": f"{equal} of {len(own)} equal, scores differ by at most {max(gaps, default=0.0):.1e}; "
        f"{sum(record.flagged for record in own)} of {len(own)} flagged",
        "holds": None if not own else equal == len(own) and max(gaps, default=0.0) <= _SAME_SCORE,
        **alarms.of_studies((record.patient, record.flagged) for record in own),
    }


def format_auc(records: Sequence[FormatRecord]) -> dict[str, Drawn]:
    """Source → AUC of the format-only classifier against twins, trained on other patients of all sources."""
    if not records:
        return {}
    logits, fold = format_only.cross_validated(
        [record.features for record in records],
        [record.forged for record in records],
        [record.patient for record in records],
    )
    # Logits of two folds come from two classifiers: each is compared within its own.
    level = {held: float(np.median(logits[fold == held])) for held in set(fold.tolist())}
    found = {}
    for source in sorted({record.source for record in records}):
        sides: dict[bool, list[tuple[float, str]]] = {False: [], True: []}
        for record, logit, held in zip(records, logits, fold, strict=True):
            if record.source == source and not np.isnan(logit):
                sides[record.forged].append((float(logit) - level[int(held)], record.patient))
        drawn = metrics.draw_auc(
            [value for value, _ in sides[True]],
            [patient for _, patient in sides[True]],
            [value for value, _ in sides[False]],
            [patient for _, patient in sides[False]],
        )
        if drawn is not None:
            found[source] = drawn
    return found


def _format(records: Sequence[FormatRecord]) -> list[dict[str, Any]]:
    found = format_auc(records)
    mean = metrics.mean_of(list(found.values()))
    return [_at_chance("format-only classifier", mean, "mean over sources, twins, cross-validated by patient")]


def presence_auc(slices: Sequence[SliceRecord]) -> dict[str, Drawn]:
    """Source → AUC of "a lesion in this slice" of forged slices against their twins, adds and removals together."""
    found = {}
    for source in sorted({record.source for record in slices}):
        own = [r for r in slices if r.source == source and r.family != AUTHENTIC and r.kind in ("added", "removed")]
        people = [record.patient for record in own]
        drawn = metrics.draw_auc(
            [float(record.lesion > 0) for record in own],
            people,
            [float(record.lesion_before > 0) for record in own],
            people,
        )
        if drawn is not None:
            found[source] = drawn
    return found


def _presence(slices: Sequence[SliceRecord]) -> list[dict[str, Any]]:
    return [
        _at_chance(f"lesion presence only, {source}", drawn, "truth of the slice, adds and removals together")
        for source, drawn in presence_auc(slices).items()
    ]


def _at_chance(name: str, drawn: Drawn | None, how: str) -> dict[str, Any]:
    interval = drawn.interval() if drawn is not None else None
    return {
        "control": name,
        "must": f"AUC {_CHANCE[0]} to {_CHANCE[1]} ({how})",
        "reached": "nothing to compare"
        if interval is None
        else f"AUC {interval.value:.3f} [{interval.low:.3f}, {interval.high:.3f}]",
        "holds": None if interval is None else _CHANCE[0] <= round(interval.value, 3) <= _CHANCE[1],
        "auc": metrics.digits(interval.value if interval else None),
        "auc_low": metrics.digits(interval.low if interval else None),
        "auc_high": metrics.digits(interval.high if interval else None),
    }


def _outside(records: Sequence[OutsideRecord]) -> dict[str, Any]:
    new = sum(record.after > record.before for record in records)
    return {
        "control": "edit outside the head",
        "must": "no new finding inside the head",
        "reached": f"{new} of {len(records)} studies with a new one",
        "holds": None if not records else new == 0,
        "studies": len(records),
        "new": new,
    }


def _dose(doses: Sequence[DoseRecord]) -> dict[str, Any]:
    means = []
    for strength in sorted({record.strength for record in doses}):
        scores = [score for record in doses if record.strength == strength for score in record.scores]
        if scores:
            means.append(float(np.mean(scores)))
    return {
        "control": "strength of the forgery",
        "must": "the mean score rises",
        "reached": " < ".join(f"{mean:.3f}" for mean in means)
        if _rises(means)
        else ", ".join(f"{m:.3f}" for m in means),
        "holds": _rises(means) if len(means) > 1 else None,
    }


def _rises(means: Sequence[float]) -> bool:
    return all(later > earlier for earlier, later in pairwise(means))


def _benign(processing: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Operations whose false alarms are more than twice those of untouched slices are named."""
    worse = [row for row in processing if row["alarm_ratio"] > _BENIGN_RATIO]
    if not processing:
        return []
    named = ", ".join(f"{row['operation']} {row['slices_flagged']} of {row['slices']}" for row in worse)
    return [
        {
            "control": "benign processing",
            "must": f"false alarms at most {_BENIGN_RATIO:.0f} times those of untouched slices",
            "reached": f"more: {named}" if worse else "none exceeds it",
            "holds": not worse,
        }
    ]
