"""From judged slices and studies to the tables of a report. Pure.

Figures of one source are never mixed with another's before each is complete: a pooled AUC over sources would measure
which scanner a slice came from.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dicomguard.retrain.evaluate import metrics
from dicomguard.retrain.tamper.families import FAMILIES, Family
from dicomguard.retrain.tamper.postprocess import HELD_BACK
from dicomguard.retrain.tamper.second_hand import SECOND_HAND

AUTHENTIC = "authentic"
_LABELS = ("real", "absent", "added", "removed", "not_analysable")


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceRecord:
    """One judged slice."""

    source: str
    patient: str
    # AUTHENTIC or the family.
    family: str
    score: float
    # The same plane's score in the authentic study; None for authentic slices.
    twin_score: float | None
    f1: float = 0.0
    iou: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyRecord:
    """One judged study."""

    source: str
    patient: str
    family: str
    # The right one of the four answers; "" where none of them is right (a lesion made larger or smaller).
    truth: str
    answer: str
    # None when not analysable.
    score: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessedRecord:
    """One study after one operation."""

    operation: str
    source: str
    patient: str
    forged: bool
    # Of all slices when authentic, of the forged ones when forged.
    scores: tuple[float, ...]
    flagged: bool


def summarise(
    slices: Sequence[SliceRecord],
    studies: Sequence[StudyRecord],
    unforged: Mapping[tuple[str, str], int],
    *,
    threshold: float,
) -> dict[str, Any]:
    """All tables of the report from the records; pure."""
    rows = []
    for source, family in sorted({(r.source, r.family) for r in studies if r.family != AUTHENTIC}):
        rows.append(_row(source, family, slices, studies, unforged.get((source, family), 0), threshold))
    rows.sort(key=lambda row: (row["slice_auc_pooled"] is None, row["slice_auc_pooled"] or 0.0, row["family"]))
    answered = [record for record in studies if record.truth]
    table = metrics.confusion([r.truth for r in answered], [r.answer for r in answered], _LABELS)
    return {
        "families": rows,
        "means": {
            "families": _mean(row for row in rows if not row["second_hand"]),
            "second_hand": _mean(row for row in rows if row["second_hand"]),
        },
        "false_alarms": [_alarms(source, slices, studies, threshold) for source in sorted({r.source for r in studies})],
        "four_way": {"labels": table.labels, "counts": table.counts, "macro_f1": round(table.macro_f1, 4)},
    }


def _row(
    source: str,
    family: str,
    slices: Sequence[SliceRecord],
    studies: Sequence[StudyRecord],
    unforged: int,
    threshold: float,
) -> dict[str, Any]:
    own = [record for record in slices if record.source == source and record.family == family]
    quiet = [record for record in slices if record.source == source and record.family == AUTHENTIC]
    pooled = metrics.auc_by_patient(
        [r.score for r in own], [r.patient for r in own], [r.score for r in quiet], [r.patient for r in quiet]
    )
    forged = [r for r in studies if r.source == source and r.family == family]
    authentic = [r for r in studies if r.source == source and r.family == AUTHENTIC]
    study = metrics.auc_by_patient(*_scored(forged), *_scored(authentic))
    count = max(1, len(own))
    return {
        "source": source,
        "family": family,
        "second_hand": family in SECOND_HAND,
        "group": _family(family).group,
        "slices": len(own),
        "patients": len({r.patient for r in own}),
        "unforged": unforged,
        "slice_auc_pooled": _digits(pooled.value if pooled else None),
        "slice_auc_pooled_low": _digits(pooled.low if pooled else None),
        "slice_auc_pooled_high": _digits(pooled.high if pooled else None),
        "slice_auc_paired": _digits(
            metrics.auc([r.score for r in own], [r.twin_score for r in own if r.twin_score is not None])
        ),
        "slice_sensitivity": _digits(sum(r.score >= threshold for r in own) / count if own else None),
        "pixel_f1": _digits(sum(r.f1 for r in own) / count if own else None),
        "pixel_iou": _digits(sum(r.iou for r in own) / count if own else None),
        "studies": len(forged),
        "study_auc": _digits(study.value if study else None),
        "study_auc_low": _digits(study.low if study else None),
        "study_auc_high": _digits(study.high if study else None),
        "study_sensitivity": _digits(sum(map(_flagged, forged)) / len(forged) if forged else None),
    }


def processing(records: Sequence[ProcessedRecord], *, threshold: float) -> list[dict[str, Any]]:
    """How each operation changes what is seen and what is falsely seen; slice AUC within source, then mean."""
    rows = []
    for operation in sorted({record.operation for record in records}):
        own = [record for record in records if record.operation == operation]
        quiet, forged = [r for r in own if not r.forged], [r for r in own if r.forged]
        by_source = [
            metrics.auc(_all(r for r in forged if r.source == source), _all(r for r in quiet if r.source == source))
            for source in sorted({r.source for r in own})
        ]
        known = [value for value in by_source if value is not None]
        above = sum(score >= threshold for score in _all(quiet))
        rows.append(
            {
                "operation": operation,
                "held_back": operation in HELD_BACK,
                "slice_auc": _digits(sum(known) / len(known) if known else None),
                "studies_flagged": sum(r.flagged for r in quiet),
                "studies": len(quiet),
                "studies_upper": _digits(metrics.upper_bound(sum(r.flagged for r in quiet), len(quiet))),
                "slices_flagged": above,
                "slices": len(_all(quiet)),
                "forged_flagged": sum(r.flagged for r in forged),
                "forged": len(forged),
            }
        )
    return sorted(rows, key=lambda row: (row["slice_auc"] is None, row["slice_auc"] or 0.0))


def _all(records: Iterable[ProcessedRecord]) -> list[float]:
    return [score for record in records for score in record.scores]


def _family(name: str) -> Family:
    return FAMILIES[name] if name in FAMILIES else SECOND_HAND[name]


def _scored(studies: Sequence[StudyRecord]) -> tuple[list[float], list[str]]:
    pairs = [(record.score, record.patient) for record in studies if record.score is not None]
    return [score for score, _ in pairs], [patient for _, patient in pairs]


def _flagged(study: StudyRecord) -> bool:
    return study.answer in ("added", "removed")


def _digits(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def _alarms(
    source: str, slices: Sequence[SliceRecord], studies: Sequence[StudyRecord], threshold: float
) -> dict[str, Any]:
    """Authentic studies and slices flagged at the shipped threshold. The bound on studies is the honest one."""
    own = [record for record in studies if record.source == source and record.family == AUTHENTIC]
    quiet = [record for record in slices if record.source == source and record.family == AUTHENTIC]
    judged = [record for record in own if record.score is not None]
    flagged = sum(map(_flagged, judged))
    above = sum(record.score >= threshold for record in quiet)
    return {
        "source": source,
        "studies": len(judged),
        "studies_flagged": flagged,
        "studies_upper": _digits(metrics.upper_bound(flagged, len(judged))),
        "not_analysable": len(own) - len(judged),
        "slices": len(quiet),
        "slices_flagged": above,
        "slices_upper": _digits(metrics.upper_bound(above, len(quiet))),
    }


def _mean(rows: Iterable[dict[str, Any]]) -> dict[str, float | None]:
    """Mean over the families of a source, then over sources: each source counts once."""
    by_source: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        by_source[row["source"]].append(row)
    result: dict[str, float | None] = {}
    names = ("slice_auc_pooled", "slice_auc_paired", "pixel_f1", "pixel_iou", "study_auc", "study_sensitivity")
    for name in names:
        means = []
        for own in by_source.values():
            values = [row[name] for row in own if row[name] is not None]
            if values:
                means.append(sum(values) / len(values))
        result[name] = _digits(sum(means) / len(means) if means else None)
    return result
