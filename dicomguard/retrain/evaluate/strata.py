"""The same figures cut by kind of forgery, area, sequence, source and hospital, and beside peers. Pure.

AUCs are taken within a source and averaged over sources, as everywhere here.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

from dicomguard.retrain.evaluate import alarms, curves, metrics, places
from dicomguard.retrain.evaluate.peers import PEERS
from dicomguard.retrain.evaluate.records import AUTHENTIC, DoseRecord, PlaceRecord, SliceRecord
from dicomguard.retrain.evaluate.summary import hand

AREAS_PX = (64, 200, 400, 800, 1600, 3200, 10**9)


def _area(record: SliceRecord) -> str:
    for low, high in pairwise(AREAS_PX):
        if low <= record.area < high:
            return f"{low} px and more" if high == AREAS_PX[-1] else f"{low} to {high - 1} px"
    return ""


_CUTS: tuple[tuple[str, Callable[[SliceRecord], str]], ...] = (
    ("kind", lambda record: record.kind),
    ("area", _area),
    ("sequence", lambda record: record.sequence),
    ("source", lambda record: record.source),
    ("hospital", lambda record: f"{record.source} {record.group}"),
)
# What authentic slices are also cut by; kind and area are of forgeries only.
_OF_BOTH = frozenset({"sequence", "source", "hospital"})


def strata(slices: Sequence[SliceRecord], *, threshold: float) -> list[dict[str, Any]]:
    """One row a stratum: slice AUC with interval, sensitivity, F1, and the authentic slices flagged in it."""
    forged = [r for r in slices if r.family != AUTHENTIC and hand(r.family) != "sealed"]
    quiet = [r for r in slices if r.family == AUTHENTIC and r.truth]
    rows = []
    for cut, name in _CUTS:
        for value in sorted({name(r) for r in forged} - {""}, key=_natural):
            own = [r for r in forged if name(r) == value]
            against = [r for r in quiet if name(r) == value] if cut in _OF_BOTH else quiet
            auc = auc_over_sources(own, against)
            interval = auc.interval() if auc else None
            rows.append(
                {
                    "cut": cut,
                    "stratum": value,
                    "slices": len(own),
                    "patients": len({r.patient for r in own}),
                    "slice_auc": metrics.digits(interval.value if interval else None),
                    "slice_auc_low": metrics.digits(interval.low if interval else None),
                    "slice_auc_high": metrics.digits(interval.high if interval else None),
                    "slice_sensitivity": metrics.digits(sum(r.score >= threshold for r in own) / len(own)),
                    "pixel_f1": metrics.digits(sum(r.f1 for r in own) / len(own)),
                    "authentic": alarms.of_slices((r.patient, r.score >= threshold) for r in against)
                    if cut in _OF_BOTH
                    else None,
                }
            )
    return rows


def _natural(value: str) -> tuple[int, str]:
    first = value.split(" ")[0]
    return (int(first) if first.isdigit() else 0, value)


def auc_over_sources(
    forged: Sequence[SliceRecord],
    authentic: Sequence[SliceRecord],
    score: Callable[[SliceRecord], float] = lambda record: record.score,
) -> metrics.Drawn | None:
    """Slice AUC within each source that has both, averaged."""
    found = []
    for source in sorted({r.source for r in forged}):
        own = [r for r in forged if r.source == source]
        against = [r for r in authentic if r.source == source]
        drawn = metrics.draw_auc(
            [score(r) for r in own],
            [r.patient for r in own],
            [score(r) for r in against],
            [r.patient for r in against],
        )
        if drawn is not None:
            found.append(drawn)
    return metrics.mean_of(found)


def limits(slices: Sequence[SliceRecord], *, threshold: float) -> list[dict[str, Any]]:
    """The area from which on half of the forged slices are found at the shipped alert, by source and over all."""
    forged = [r for r in slices if r.family != AUTHENTIC and hand(r.family) != "sealed"]
    rows = []
    for source in ("all", *sorted({r.source for r in forged})):
        own = [r for r in forged if source in ("all", r.source)]
        limit = curves.detection_limit([r.area for r in own], [r.score >= threshold for r in own])
        rows.append(
            {
                "source": source,
                "slices": len(own),
                "area_px": None if limit is None or limit.area_px is None else round(limit.area_px),
                "slope": metrics.digits(limit.slope if limit else None),
            }
        )
    return rows


def doses(records: Sequence[DoseRecord], *, threshold: float) -> list[dict[str, Any]]:
    """What part of a forgery's strength is seen: mean score, AUC against the authentic twins, shares flagged."""
    rows = []
    for strength in sorted({record.strength for record in records}):
        own = [record for record in records if record.strength == strength]
        scores = [score for record in own for score in record.scores]
        twins = [score for record in own for score in record.twins]
        rows.append(
            {
                "strength": strength,
                "studies": len(own),
                "studies_flagged": sum(record.flagged for record in own),
                "slices": len(scores),
                "mean_score": metrics.digits(sum(scores) / len(scores)) if scores else None,
                "slice_sensitivity": metrics.digits(sum(s >= threshold for s in scores) / len(scores))
                if scores
                else None,
                "paired_auc": metrics.digits(metrics.auc(scores, twins)),
            }
        )
    return rows


def beside_peers(slices: Sequence[SliceRecord], placed: Sequence[PlaceRecord]) -> list[dict[str, Any]]:
    """Slice AUC and pixel AUC of the model and of each peer by family, over sources; and their means by hand."""
    quiet = [r for r in slices if r.family == AUTHENTIC and r.truth]
    rows: list[dict[str, Any]] = []
    for family in sorted({r.family for r in slices} - {AUTHENTIC}):
        own = [r for r in slices if r.family == family]
        here = [r.placed for r in placed if r.family == family]
        row: dict[str, Any] = {"family": family, "hand": hand(family), "slices": len(own)}
        for judge in ("model", *PEERS):
            drawn = auc_over_sources(own, quiet, _said_by(judge))
            row[f"{judge} slice"] = metrics.digits(drawn.value if drawn else None)
            known = [v for v in (places.pixel_auc(one, one.said[judge]) for one in here) if v is not None]
            row[f"{judge} pixel"] = metrics.digits(sum(known) / len(known)) if known else None
        rows.append(row)
    rows.sort(key=lambda row: (row["model slice"] is None, row["model slice"] or 0.0))
    return rows + [_mean(rows, group) for group in ("families", "second_hand", "sealed") if _of(rows, group)]


def _said_by(judge: str) -> Callable[[SliceRecord], float]:
    return lambda record: record.score if judge == "model" else record.peers.get(judge, 0.0)


def _of(rows: Sequence[dict[str, Any]], group: str) -> list[dict[str, Any]]:
    return [row for row in rows if row["hand"] == group]


def _mean(rows: Sequence[dict[str, Any]], group: str) -> dict[str, Any]:
    own = _of(rows, group)
    mean: dict[str, Any] = {"family": f"mean of {group.replace('_', ' ')}", "hand": group, "slices": None}
    for name in own[0]:
        if name not in mean:
            known = [row[name] for row in own if row[name] is not None]
            mean[name] = metrics.digits(sum(known) / len(known)) if known else None
    return mean
