"""Are the answers right, and are the probabilities true: confusion, calibration, ROC and FROC. Pure."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from dicomguard.retrain.evaluate import curves, metrics
from dicomguard.retrain.evaluate.records import AUTHENTIC, LesionRecord, SliceRecord, StudyRecord
from dicomguard.retrain.evaluate.summary import hand

_LABELS = ("real", "absent", "added", "removed", "not_analysable")
_TITLES = {"families": "own families", "second_hand": "second hand", "sealed": "sealed"}


def four_way(records: Sequence[SliceRecord] | Sequence[StudyRecord]) -> dict[str, Any]:
    """Truth against answer where one of the four is right."""
    known = [record for record in records if record.truth]
    table = metrics.confusion([record.truth for record in known], [record.answer for record in known], _LABELS)
    return {
        "labels": table.labels,
        "counts": table.counts,
        "macro_f1": round(table.macro_f1, 4),
        "even_f1": round(table.even_f1, 4),
    }


def calibration(slices: Sequence[SliceRecord], studies: Sequence[StudyRecord]) -> dict[str, Any]:
    """Reliability of p(forged), slices and studies of test patients, at 50 % prevalence and re-weighted to 1 %."""
    found: dict[str, Any] = {}
    judged = [(record.score, record.family) for record in studies if record.score is not None and _of_patients(record)]
    each = {
        "slice": [(record.score, record.family) for record in slices if _of_patients(record)],
        "study": judged,
    }
    for level, pairs in each.items():
        said, truth = [score for score, _ in pairs], [family != AUTHENTIC for _, family in pairs]
        for prevalence in (0.5, 0.01):
            measured = curves.reliability(said, truth, prevalence=prevalence)
            found[f"{level} at {prevalence:.0%}"] = None if measured is None else _rounded(asdict(measured))
    return found


def _of_patients(record: SliceRecord | StudyRecord) -> bool:
    """Test patients and families that are no secret; DICOM archives have no forged side."""
    return not record.source.startswith("dicom ") and (record.family == AUTHENTIC or hand(record.family) != "sealed")


def rocs(slices: Sequence[SliceRecord], studies: Sequence[StudyRecord]) -> list[dict[str, Any]]:
    """ROC of slices and of studies, by source and by whose families they are."""
    scored = [record for record in studies if record.score is not None]
    rows = []
    for level, records in (("slice", slices), ("study", scored)):
        for source in sorted({r.source for r in records if r.family != AUTHENTIC}):
            here = [(r.family, r.score) for r in records if r.source == source and r.score is not None]
            quiet = [score for family, score in here if family == AUTHENTIC]
            for group, title in _TITLES.items():
                own = [score for family, score in here if family != AUTHENTIC and hand(family) == group]
                points = curves.roc(own, quiet)
                if points:
                    rows.append(
                        {
                            "level": level,
                            "source": source,
                            "hand": group,
                            "title": f"{source}, {title}",
                            "auc": metrics.digits(metrics.auc(own, quiet)),
                            "points": points,
                        }
                    )
    return rows


def frocs(studies: Sequence[StudyRecord], lesions: Sequence[LesionRecord]) -> list[dict[str, Any]]:
    """FROC of forgeries a study by whose families they are, and of real lesions a slice by source."""
    rows = []
    patients = [record for record in studies if not record.source.startswith("dicom ")]
    for group, title in _TITLES.items():
        units = [
            curves.Marked(patient=record.patient, marks=record.marks, wanted=record.family != AUTHENTIC)
            for record in patients
            if record.family == AUTHENTIC or hand(record.family) == group
        ]
        found = curves.froc(units)
        if found is not None:
            rows.append({"search": "forgery", "title": title, "unit": "study", **_rounded(asdict(found))})
    for source in sorted({record.source for record in lesions}):
        here = [record for record in lesions if record.source == source]
        found = curves.froc([curves.Marked(patient=r.patient, marks=r.marks, wanted=r.wanted) for r in here])
        if found is not None:
            dice = [record.dice for record in here if record.dice is not None]
            mean = metrics.digits(sum(dice) / len(dice)) if dice else None
            rows.append(
                {
                    "search": "lesion",
                    "title": f"lesions of {source}",
                    "unit": "slice",
                    "dice_of_hits": mean,
                    **_rounded(asdict(found)),
                }
            )
    return rows


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_rounded(one) for one in value]
    return round(value, 4) if isinstance(value, float) else value
