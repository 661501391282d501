"""From the report of an evaluation to the figures that promotion compares."""

from collections.abc import Mapping, Sequence
from typing import Any

from dicomguard.errors import Refused
from dicomguard.retrain.evaluate import metrics
from dicomguard.retrain.promotion import Alarms, Auc, Figures


def read(report: Mapping[str, Any], *, model_id: str, sha256: str, golden_sha256: str) -> Figures:
    """One row a source and family; rows in which nothing was forged say nothing and are left out.

    Over all rows: the mean of the areas and of the ends of their intervals, wider than an interval of the mean.
    """
    families = tuple(
        _auc(f"{row['family']} in {row['source']}", row)
        for row in report["families"]
        if row["slice_auc_pooled"] is not None
    )
    quiet = [row for row in report["false_alarms"] if row["slices"]]
    alarms = tuple(map(_alarms, quiet))
    if not families or not alarms:
        raise Refused("Nothing could be measured on the golden set. Add test cases with larger heads or lesions.")
    return Figures(
        model_id=model_id,
        weights_sha256=sha256,
        golden_sha256=golden_sha256,
        overall=Auc(
            name="all families",
            auc=_mean([one.auc for one in families]),
            low=_mean([one.low for one in families]),
            high=_mean([one.high for one in families]),
        ),
        families=families,
        alarms=alarms,
        alarms_overall=_everywhere(quiet, "slices_flagged", "slices"),
        people=_everywhere(quiet, "people_flagged", "people"),
    )


def _auc(name: str, row: Mapping[str, Any]) -> Auc:
    value = float(row["slice_auc_pooled"])
    # A percentile interval of few patients may end beside its own estimate.
    low, high = float(row["slice_auc_pooled_low"]), float(row["slice_auc_pooled_high"])
    return Auc(name=name, auc=value, low=min(low, value), high=max(high, value))


def _alarms(row: Mapping[str, Any]) -> Alarms:
    counts = {"flagged": int(row["slices_flagged"]), "of": int(row["slices"])}
    return Alarms(source=str(row["source"]), **counts, upper=float(row["slices_upper"]))


def _everywhere(rows: Sequence[Mapping[str, Any]], count: str, of: str) -> Alarms:
    """Summed over the sources, of which nobody is in two."""
    flagged, all_of_them = (sum(int(row[key]) for row in rows) for key in (count, of))
    return Alarms(
        source="all sources", flagged=flagged, of=all_of_them, upper=metrics.upper_bound(flagged, all_of_them)
    )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
