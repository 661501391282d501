"""From judged slices and studies to the tables of families and of processing. Pure.

Figures of one source are never mixed with another's before each is complete: a pooled AUC over sources would measure
which scanner a slice came from.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dicomguard.retrain.evaluate import alarms, metrics, places
from dicomguard.retrain.evaluate.metrics import Drawn
from dicomguard.retrain.evaluate.records import (
    AUTHENTIC,
    UNTOUCHED,
    PlaceRecord,
    ProcessedRecord,
    SliceRecord,
    StudyRecord,
)
from dicomguard.retrain.sealed.families import SEALED
from dicomguard.retrain.tamper.families import FAMILIES, Family
from dicomguard.retrain.tamper.postprocess import HELD_BACK
from dicomguard.retrain.tamper.second_hand import SECOND_HAND

# What the mean of a group of families is taken of.
_MEANS = (
    "slice_auc_pooled",
    "slice_auc_paired",
    "slice_auc_alike",
    "slice_sensitivity",
    "pixel_f1",
    "pixel_iou",
    "study_auc",
    "study_sensitivity",
)


def hand(family: str) -> str:
    """Who wrote a family: "families" were trained on, "second_hand" and "sealed" never."""
    if family in SEALED:
        return "sealed"
    return "second_hand" if family in SECOND_HAND else "families"


def _family(name: str) -> Family:
    return ({**SEALED, **SECOND_HAND, **FAMILIES})[name]


@dataclass(frozen=True, slots=True)
class _Row:
    """A row of the table and its figures with their draws."""

    cells: dict[str, Any]
    drawn: dict[str, Drawn]


def families(
    slices: Sequence[SliceRecord],
    studies: Sequence[StudyRecord],
    placed: Sequence[PlaceRecord],
    unforged: Mapping[tuple[str, str], int],
    *,
    threshold: float,
) -> dict[str, Any]:
    """Rows by source and family, worst first, and the means of each hand's families: over families, then sources."""
    prior = places.prior([(record.patient, record.placed) for record in placed])
    rows = []
    for source, family in sorted({(r.source, r.family) for r in studies if r.family != AUTHENTIC}):
        here = [record for record in placed if (record.source, record.family) == (source, family)]
        rows.append(_row(source, family, slices, studies, here, prior, unforged.get((source, family), 0), threshold))
    means = {"families": _mean(rows, "families"), "second_hand": _mean(rows, "second_hand")}
    if any(row.cells["hand"] == "sealed" for row in rows):
        means["sealed"] = _mean(rows, "sealed")
    cells = [row.cells for row in rows]
    cells.sort(key=lambda row: (row["slice_auc_pooled"] is None, row["slice_auc_pooled"] or 0.0, row["family"]))
    return {"families": cells, "means": means}


def _row(
    source: str,
    family: str,
    slices: Sequence[SliceRecord],
    studies: Sequence[StudyRecord],
    placed: Sequence[PlaceRecord],
    prior: Mapping[str, Any],
    unforged: int,
    threshold: float,
) -> _Row:
    own = [record for record in slices if record.source == source and record.family == family]
    quiet = [record for record in slices if record.source == source and record.family == AUTHENTIC]
    forged = [record for record in studies if record.source == source and record.family == family]
    authentic = [record for record in studies if record.source == source and record.family == AUTHENTIC]
    people, scores = [record.patient for record in own], [record.score for record in own]
    twins = [record for record in own if record.twin_score is not None]
    found = {
        "slice_auc_pooled": metrics.draw_auc(scores, people, [r.score for r in quiet], [r.patient for r in quiet]),
        "slice_auc_paired": metrics.draw_auc(
            scores, people, [r.twin_score for r in twins if r.twin_score is not None], [r.patient for r in twins]
        ),
        # A forger who adds where nothing was leaves a lesion on each forged slice: compared like with like.
        "slice_auc_alike": metrics.draw_auc(
            scores,
            people,
            [record.score for record in quiet],
            [record.patient for record in quiet],
            alike=([_shown(record) for record in own], [_shown(record) for record in quiet]),
        ),
        "slice_sensitivity": metrics.draw_mean([float(score >= threshold) for score in scores], people),
        "pixel_f1": metrics.draw_mean([record.f1 for record in own], people),
        "pixel_iou": metrics.draw_mean([record.iou for record in own], people),
        "study_auc": metrics.draw_auc(*_scored(forged), *_scored(authentic)),
        "study_sensitivity": metrics.draw_mean([float(alarms.flagged(r)) for r in forged], [r.patient for r in forged]),
    }
    drawn = {name: one for name, one in found.items() if one is not None}
    cells: dict[str, Any] = {
        "source": source,
        "family": family,
        "hand": hand(family),
        "second_hand": hand(family) == "second_hand",
        "group": _family(family).group,
        "slices": len(own),
        "patients": len(set(people)),
        "unforged": unforged,
        "studies": len(forged),
        "pixel_auc": _pixel_auc(placed, lambda record: record.placed.said["model"]),
        "position_auc": _pixel_auc(placed, lambda record: prior[record.patient]),
    }
    for name in _MEANS:
        cells |= _with_interval(name, drawn.get(name))
    return _Row(cells, drawn)


def _shown(record: SliceRecord) -> str:
    return "lesion" if record.lesion else "no lesion"


def _with_interval(name: str, drawn: Drawn | None) -> dict[str, float | None]:
    interval = drawn.interval() if drawn is not None else None
    return {
        name: metrics.digits(interval.value if interval else None),
        f"{name}_low": metrics.digits(interval.low if interval else None),
        f"{name}_high": metrics.digits(interval.high if interval else None),
    }


def _pixel_auc(placed: Sequence[PlaceRecord], said: Any) -> float | None:
    values = [places.pixel_auc(record.placed, said(record)) for record in placed]
    known = [value for value in values if value is not None]
    return metrics.digits(sum(known) / len(known)) if known else None


def _mean(rows: Sequence[_Row], group: str) -> dict[str, float | None]:
    """Mean over the families of a source, then over sources: each source counts once."""
    result: dict[str, float | None] = {}
    sources = sorted({row.cells["source"] for row in rows})
    for name in _MEANS:
        by_source = [
            metrics.mean_of(
                [r.drawn[name] for r in rows if r.cells["source"] == s and r.cells["hand"] == group and name in r.drawn]
            )
            for s in sources
        ]
        result |= _with_interval(name, metrics.mean_of([one for one in by_source if one is not None]))
    return result


def processing(records: Sequence[ProcessedRecord], *, threshold: float) -> list[dict[str, Any]]:
    """How each operation changes what is seen and what is falsely seen; slice AUC within source, then mean.

    `auc_drop` and `alarm_ratio` compare with the same studies left as they are; the ratio counts slices, half a slice
    added to both so that none against none is 1.
    """
    rows = []
    untouched: dict[str, Any] = {}
    for operation in sorted({record.operation for record in records}, key=lambda name: (name != UNTOUCHED, name)):
        own = [record for record in records if record.operation == operation]
        quiet, forged = [r for r in own if not r.forged], [r for r in own if r.forged]
        by_source = [
            metrics.auc(_all(r for r in forged if r.source == source), _all(r for r in quiet if r.source == source))
            for source in sorted({r.source for r in own})
        ]
        known = [value for value in by_source if value is not None]
        row: dict[str, Any] = {
            "operation": operation,
            "held_back": operation in HELD_BACK,
            "slice_auc": metrics.digits(sum(known) / len(known) if known else None),
            **alarms.of_studies((r.patient, r.flagged) for r in quiet),
            **alarms.of_slices((r.patient, score >= threshold) for r in quiet for score in r.scores),
            "forged_flagged": sum(r.flagged for r in forged),
            "forged": len(forged),
        }
        untouched = untouched or row
        before, after = untouched["slice_auc"], row["slice_auc"]
        row["auc_drop"] = metrics.digits(before - after) if before is not None and after is not None else None
        row["alarm_ratio"] = metrics.digits((row["slices_flagged"] + 0.5) / (untouched["slices_flagged"] + 0.5))
        rows.append(row)
    return sorted(rows, key=lambda row: (row["slice_auc"] is None, row["slice_auc"] or 0.0))


def _all(records: Iterable[ProcessedRecord]) -> list[float]:
    return [score for record in records for score in record.scores]


def _scored(studies: Sequence[StudyRecord]) -> tuple[list[float], list[str]]:
    pairs = [(record.score, record.patient) for record in studies if record.score is not None]
    return [score for score, _ in pairs], [patient for _, patient in pairs]
