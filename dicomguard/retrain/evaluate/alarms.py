"""False alarms on authentic scans: how many people, studies and slices are flagged. Pure.

Studies and slices of one person are no separate witnesses, so bounds count people; studies and slices stand beside them
as plain counts.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from dicomguard.retrain.evaluate import metrics
from dicomguard.retrain.evaluate.records import AUTHENTIC, SliceRecord, StudyRecord


def flagged(study: StudyRecord) -> bool:
    """Whether the study was called forged."""
    return study.answer in ("added", "removed")


def by_source(
    slices: Sequence[SliceRecord], studies: Sequence[StudyRecord], *, threshold: float
) -> list[dict[str, Any]]:
    """Authentic people, studies and slices flagged at the shipped threshold, a row a source."""
    quiet = [record for record in slices if record.family == AUTHENTIC]
    own = [record for record in studies if record.family == AUTHENTIC]
    return [
        count([r for r in quiet if r.source == source], [r for r in own if r.source == source], threshold)
        | {"source": source}
        for source in sorted({r.source for r in studies})
    ]


def by_kind(slices: Sequence[SliceRecord], studies: Sequence[StudyRecord], *, threshold: float) -> list[dict[str, Any]]:
    """The same by what authentic scans show; DICOM archives say nothing of lesions and stand apart."""
    quiet = [record for record in slices if record.family == AUTHENTIC]
    own = [record for record in studies if record.family == AUTHENTIC]
    kinds = (("slices or studies with a lesion", "real"), ("without a marked lesion", "absent"))
    rows = [
        count([r for r in quiet if r.truth == truth], [r for r in own if r.truth == truth], threshold) | {"kind": kind}
        for kind, truth in kinds
    ]
    unmarked = count([r for r in quiet if not r.truth], [r for r in own if not r.truth], threshold)
    everything = count([r for r in quiet if r.truth], [r for r in own if r.truth], threshold)
    rows = [everything | {"kind": "all test patients"}, *rows]
    return [*rows, unmarked | {"kind": "DICOM as found"}] if unmarked["studies"] else rows


def count(slices: Sequence[SliceRecord], studies: Sequence[StudyRecord], threshold: float) -> dict[str, Any]:
    """People, studies and slices flagged, with the bound on people."""
    judged = [record for record in studies if record.score is not None]
    found = {
        **of_studies((record.patient, flagged(record)) for record in judged),
        "not_analysable": len(studies) - len(judged),
        **of_slices((record.patient, record.score >= threshold) for record in slices),
    }
    # As if slices were independent: for the comparison of two models on the same slices, not to be printed.
    return found | {"slices_upper": metrics.digits(metrics.upper_bound(found["slices_flagged"], found["slices"]))}


def of_studies(flags: Iterable[tuple[str, bool]]) -> dict[str, Any]:
    """From the patient of each study and whether it is flagged; a person is flagged who has a flagged study."""
    pairs = list(flags)
    people, alarmed = _people(pairs)
    return {
        "people": people,
        "people_flagged": alarmed,
        "people_upper": metrics.digits(metrics.upper_bound(alarmed, people)),
        "studies": len(pairs),
        "studies_flagged": sum(flag for _, flag in pairs),
    }


def of_slices(flags: Iterable[tuple[str, bool]]) -> dict[str, Any]:
    """The same of slices, and the people who have a flagged slice."""
    pairs = list(flags)
    people, alarmed = _people(pairs)
    return {
        "slices": len(pairs),
        "slices_flagged": sum(flag for _, flag in pairs),
        "slice_people": people,
        "slice_people_flagged": alarmed,
        "slice_people_upper": metrics.digits(metrics.upper_bound(alarmed, people)),
    }


def _people(pairs: Sequence[tuple[str, bool]]) -> tuple[int, int]:
    return len({patient for patient, _ in pairs}), len({patient for patient, flag in pairs if flag})
