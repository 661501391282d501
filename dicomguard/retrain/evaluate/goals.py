"""The goals of the detector beside what an evaluation reached. Pure; the goals are set before anything is measured.

Bands in order: least (ship with a note), target, moonshot. What an evaluation of one set of weights cannot measure
(weights trained without a family or a source, the stock model) is taken from short runs where there are any, with that
said in the row, and else is said not to be measured.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dicomguard.retrain.tamper.families import ATTACKS

NOT_MEASURED = "not measured in this run"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Goal:
    row: int
    metric: str
    # Least, target, moonshot.
    bands: tuple[float, float, float]
    falling: bool = False
    percent: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class _Figure:
    """What is held against a goal."""

    value: float | None
    # Of what it is; "" for the weights evaluated.
    how: str = ""
    # Whether chance may have given it, so that no band is reached.
    doubtful: bool = False


def goals(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Rows `row`, `metric`, `least`, `target`, `moonshot`, `reached` (text), `value`, `band`, `how`.

    `how` is "" for figures of the weights evaluated.
    """
    values = _reached(document)
    told = _told(document["trials"]) if "trials" in document else {}
    return [
        _row(goal, told.get(goal.metric, _Figure(value=values.get(goal.row, {}).get(goal.metric)))) for goal in _GOALS
    ]


def _row(goal: _Goal, figure: _Figure) -> dict[str, Any]:
    value = figure.value

    def text(number: float) -> str:
        return f"{100 * number:.1f} %" if goal.percent else f"{number:.0f} px" if goal.row == 21 else f"{number:.2f}"

    sign = "≤ " if goal.falling else ""
    least, target, moonshot = (sign + text(band) for band in goal.bands)
    return {
        "row": goal.row,
        "metric": goal.metric,
        "least": least,
        "target": target,
        "moonshot": moonshot,
        "value": None if value is None else round(value, 4),
        "reached": NOT_MEASURED if value is None else text(value),
        "band": _BANDS[0] if figure.doubtful else _band(goal, value),
        "how": figure.how,
    }


def _band(goal: _Goal, value: float | None) -> str:
    if value is None:
        return ""
    met = [value <= band if goal.falling else value >= band for band in goal.bands]
    return _BANDS[sum(met)]


_BANDS = ("below the least", "least", "target", "moonshot")


def _reached(document: Mapping[str, Any]) -> dict[int, dict[str, float | None]]:
    """Row → metric → value, from the tables of the report."""
    lgg = [r for r in document["families"] if r["source"] == "lgg" and r["hand"] == "families"]
    own, second = document["means"]["families"], document["means"]["second_hand"]
    sealed = _over_sources(r for r in document["families"] if r["hand"] == "sealed")
    processed = [row for row in document["processing"] if row["operation"] != "untouched"]
    trained = [row["auc_drop"] for row in processed if not row["held_back"]]
    held = [row["auc_drop"] for row in processed if row["held_back"]]
    ratios = [row["alarm_ratio"] for row in processed]
    everyone = next((r for r in document["alarms_by_kind"] if r["kind"] == "all test patients"), None)
    unseen = next((r for r in document["alarms_by_kind"] if r["kind"] == "DICOM as found"), None)
    froc = {row["title"]: row for row in document["froc"]}
    lesions = froc.get("lesions of lgg")
    limit = next((row["area_px"] for row in document["detection_limit"] if row["source"] == "all"), None)
    calibration = document["calibration"]
    found: dict[int, dict[str, float | None]] = {
        1: {"slice AUC pooled, mean of the families, lgg": _mean(r["slice_auc_pooled"] for r in lgg)},
        2: {"slice AUC pooled, worst family, lgg": _least(r["slice_auc_pooled"] for r in lgg)},
        5: {"slice AUC, sealed diffusion": sealed.get("diffusion")},
        6: {"slice AUC, sealed acquisition domain": sealed.get("acquisition")},
        7: {_GOALS_7[0]: _mean(trained), _GOALS_7[1]: _mean(held)},
        8: {_GOALS_8[0]: _mean(ratios), _GOALS_8[1]: max(ratios, default=None)},
        11: {"authentic studies flagged, sources never trained on": _share(unseen)},
        12: {"study AUC, own families": own["study_auc"], "study AUC, second hand": second["study_auc"]},
        13: {"study sensitivity at the alert": own["study_sensitivity"]},
        14: {
            "authentic test studies flagged": _share(everyone),
            "people flagged, 95 % upper bound": everyone["people_upper"] if everyone and everyone["people"] else None,
        },
        15: {"pixel F1 at 0.5, misses as 0": own["pixel_f1"]},
        16: {"pixel IoU": own["pixel_iou"]},
        17: {"FROC sensitivity at ½ false mark a study": _half(froc.get("own families"))},
        18: {"four-way macro-F1 a study": document["four_way"]["macro_f1"]},
        19: {
            "lesions of lgg: sensitivity at ½ false mark a slice": _half(lesions),
            "lesions of lgg: Dice of hits": lesions["dice_of_hits"] if lesions else None,
        },
        20: {
            "ECE, slice": _ece(calibration["slice at 50%"]),
            "ECE, study": _ece(calibration["study at 50%"]),
        },
        21: {"area with slice sensitivity 0.5 at the alert": limit},
        23: {"controls that hold, share of those measured": _holding(document["controls"])},
    }
    return found


def _told(trials: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, _Figure]:
    """Metric → figure of short runs; metrics that no run says anything of are missing."""
    found: dict[str, _Figure] = {}
    for kind in _KINDS:
        rows = [row for row in trials["left_out"] if row["kind"] == kind]
        if not rows:
            continue
        runs = _runs(rows)
        aucs = _by_name(rows, "slice_auc")
        found |= {
            f"slice AUC, {kind} left out, mean": _Figure(value=_mean(aucs), how=runs),
            f"slice AUC, {kind} left out, worst": _Figure(value=_least(aucs), how=runs),
            f"study AUC, {kind} left out, mean": _Figure(value=_mean(_by_name(rows, "study_auc")), how=runs),
            f"study sensitivity at the alert, {kind} left out": _counted(rows, "forged_found", "forged"),
            f"authentic studies flagged, {kind} left out": _counted(rows, "studies_flagged", "studies"),
            f"authentic loose pictures flagged, {kind} left out": _counted(rows, "pictures_flagged", "pictures"),
        }
    both = [row for row in trials["left_out"] if row["left_out"] in ("source:lgg", "source:cheng")]
    if len({row["left_out"] for row in both}) == 2:
        found["slice AUC, lgg and cheng left out, mean"] = _Figure(
            value=_mean(_by_name(both, "slice_auc")), how=_runs(both)
        )
    if trials["stock"]:
        found["margin over the stock Mask R-CNN"] = _margin(trials["stock"][0])
    return {metric: figure for metric, figure in found.items() if figure.value is not None}


def _by_name(rows: Sequence[Mapping[str, Any]], key: str) -> list[float]:
    """One figure for each thing left out: the mean where several runs went without it."""
    names = sorted({row["left_out"] for row in rows})
    return _known(_mean(row[key] for row in rows if row["left_out"] == name) for name in names)


def _counted(rows: Sequence[Mapping[str, Any]], count: str, of: str) -> _Figure:
    seen = [(row[count], row[of]) for row in rows if row[of]]
    flagged, all_of_them = sum(k for k, _ in seen), sum(n for _, n in seen)
    share = flagged / all_of_them if all_of_them else None
    return _Figure(value=share, how=f"{flagged} of {all_of_them}, {_runs(rows)}")


def _runs(rows: Sequence[Mapping[str, Any]]) -> str:
    """Which figures these are, in words; how many of all were left out, for a mean over some may flatter."""
    kind, names = rows[0]["kind"], len({row["left_out"] for row in rows})
    shortest, longest = min(row["minutes"] for row in rows), max(row["minutes"] for row in rows)
    minutes = f"{shortest:g}" if shortest == longest else f"{shortest:g} to {longest:g}"
    split = " and ".join(sorted({row["split"] for row in rows}))
    return (
        f"{names} {_KINDS[kind]}, short runs of {minutes} CPU minutes of dense maps, {split} patients, not the shipped "
        "weights"
    )


def _margin(row: Mapping[str, Any]) -> _Figure:
    if row["margin"] is None:
        return _Figure(value=None)
    how = (
        f"95 % interval {row['margin_low']:.2f} to {row['margin_high']:.2f}, dense maps ({row['beside']}) beside a "
        f"stock model of {row['minutes']:g} CPU minutes that knows the families, {row['split']} patients"
    )
    return _Figure(value=row["margin"], how=how, doubtful=row["margin_low"] <= 0)


_KINDS = {
    "family": f"of {len(ATTACKS)} families",
    "group": f"of {len({family.group for family in ATTACKS.values()})} groups",
    "source": "sources",
    "hospital": "hospitals",
}
_QUIET = ("authentic studies flagged, source left out", "authentic loose pictures flagged, source left out")
_GOALS_7 = ("AUC drop, operations of training", "AUC drop, operations kept back")
_GOALS_8 = ("false alarms under benign processing, ratio, mean", "the same, worst")
_GOALS = (
    _Goal(row=1, metric="slice AUC pooled, mean of the families, lgg", bands=(0.87, 0.93, 0.98)),
    _Goal(row=2, metric="slice AUC pooled, worst family, lgg", bands=(0.72, 0.85, 0.94)),
    _Goal(row=3, metric="slice AUC, family left out, mean", bands=(0.80, 0.87, 0.94)),
    _Goal(row=3, metric="slice AUC, family left out, worst", bands=(0.62, 0.75, 0.87)),
    _Goal(row=4, metric="slice AUC, group left out, mean", bands=(0.75, 0.84, 0.92)),
    _Goal(row=4, metric="slice AUC, group left out, worst", bands=(0.60, 0.70, 0.85)),
    _Goal(row=5, metric="slice AUC, sealed diffusion", bands=(0.72, 0.83, 0.93)),
    _Goal(row=6, metric="slice AUC, sealed acquisition domain", bands=(0.55, 0.68, 0.85)),
    _Goal(row=7, metric=_GOALS_7[0], bands=(0.12, 0.06, 0.02), falling=True),
    _Goal(row=7, metric=_GOALS_7[1], bands=(0.18, 0.10, 0.05), falling=True),
    _Goal(row=8, metric=_GOALS_8[0], bands=(2.5, 1.5, 1.1), falling=True),
    _Goal(row=8, metric=_GOALS_8[1], bands=(6.0, 3.0, 1.5), falling=True),
    _Goal(row=9, metric="slice AUC, hospital left out, mean", bands=(0.80, 0.88, 0.95)),
    _Goal(row=10, metric="slice AUC, lgg and cheng left out, mean", bands=(0.65, 0.78, 0.90)),
    _Goal(
        row=11,
        metric="authentic studies flagged, sources never trained on",
        bands=(0.15, 0.05, 0.02),
        falling=True,
        percent=True,
    ),
    _Goal(row=11, metric=_QUIET[0], bands=(0.15, 0.05, 0.02), falling=True, percent=True),
    _Goal(row=11, metric=_QUIET[1], bands=(0.15, 0.05, 0.02), falling=True, percent=True),
    _Goal(row=12, metric="study AUC, own families", bands=(0.90, 0.96, 0.99)),
    _Goal(row=12, metric="study AUC, second hand", bands=(0.80, 0.90, 0.96)),
    _Goal(row=12, metric="study AUC, group left out, mean", bands=(0.80, 0.90, 0.96)),
    _Goal(row=12, metric="study AUC, source left out, mean", bands=(0.78, 0.88, 0.95)),
    _Goal(row=13, metric="study sensitivity at the alert", bands=(0.55, 0.80, 0.95)),
    _Goal(row=13, metric="study sensitivity at the alert, group left out", bands=(0.30, 0.55, 0.80)),
    _Goal(row=14, metric="authentic test studies flagged", bands=(0.05, 0.02, 0.0), falling=True, percent=True),
    _Goal(row=14, metric="people flagged, 95 % upper bound", bands=(0.12, 0.07, 0.045), falling=True, percent=True),
    _Goal(row=15, metric="pixel F1 at 0.5, misses as 0", bands=(0.58, 0.70, 0.82)),
    _Goal(row=16, metric="pixel IoU", bands=(0.45, 0.58, 0.72)),
    _Goal(row=17, metric="FROC sensitivity at ½ false mark a study", bands=(0.50, 0.72, 0.90)),
    _Goal(row=18, metric="four-way macro-F1 a study", bands=(0.60, 0.75, 0.88)),
    _Goal(row=19, metric="lesions of lgg: sensitivity at ½ false mark a slice", bands=(0.70, 0.82, 0.90)),
    _Goal(row=19, metric="lesions of lgg: Dice of hits", bands=(0.65, 0.78, 0.86)),
    _Goal(row=20, metric="ECE, slice", bands=(0.10, 0.05, 0.02), falling=True),
    _Goal(row=20, metric="ECE, study", bands=(0.12, 0.07, 0.04), falling=True),
    _Goal(row=21, metric="area with slice sensitivity 0.5 at the alert", bands=(400, 200, 80), falling=True),
    _Goal(row=22, metric="margin over the stock Mask R-CNN", bands=(0.05, 0.12, 0.20)),
    _Goal(row=23, metric="controls that hold, share of those measured", bands=(1.0, 1.0, 1.0), percent=True),
    _Goal(row=24, metric="slices a second against the stock model", bands=(10, 20, 40)),
)


def _known(values: Any) -> list[float]:
    return [value for value in values if value is not None]


def _mean(values: Any) -> float | None:
    known = _known(values)
    return sum(known) / len(known) if known else None


def _least(values: Any) -> float | None:
    return min(_known(values), default=None)


def _over_sources(rows: Any) -> dict[str, float]:
    """Sealed family → mean over the sources."""
    by_family: dict[str, list[float]] = {}
    for row in rows:
        if row["slice_auc_pooled"] is not None:
            by_family.setdefault(row["family"], []).append(row["slice_auc_pooled"])
    return {family: sum(values) / len(values) for family, values in by_family.items()}


def _share(row: Mapping[str, Any] | None) -> float | None:
    return row["studies_flagged"] / row["studies"] if row and row["studies"] else None


def _half(row: Mapping[str, Any] | None) -> float | None:
    return None if row is None else float(row["at_half"]["value"])


def _ece(measured: Mapping[str, Any] | None) -> float | None:
    return None if measured is None else float(measured["ece"])


def _holding(controls: Sequence[Mapping[str, Any]]) -> float | None:
    judged = [row["holds"] for row in controls if row["holds"] is not None]
    return sum(judged) / len(judged) if judged else None
