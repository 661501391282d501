"""From the report of an evaluation to the figures that promotion compares."""

from collections.abc import Mapping
from typing import Any

from dicomguard.errors import Refused
from dicomguard.retrain.promotion import Alarms, Auc, Figures


def read(report: Mapping[str, Any], *, model_id: str, sha256: str, golden_sha256: str) -> Figures:
    """One row a source and family; rows in which nothing was forged say nothing and are left out."""
    families = tuple(
        _auc(f"{row['family']} in {row['source']}", row)
        for row in report["families"]
        if row["slice_auc_pooled"] is not None
    )
    if not families:
        raise Refused(
            "No tamper family could be measured on the golden set. Add test cases with larger heads or lesions."
        )
    return Figures(
        model_id=model_id,
        weights_sha256=sha256,
        golden_sha256=golden_sha256,
        overall=_auc("all families", report["overall"]),
        families=families,
        alarms=tuple(_alarms(row["source"], row) for row in report["false_alarms"]),
        alarms_overall=_alarms("all sources", report["overall"]),
    )


def _auc(name: str, row: Mapping[str, Any]) -> Auc:
    value = float(row["slice_auc_pooled"])
    # A percentile interval of few patients may end beside its own estimate.
    low, high = float(row["slice_auc_pooled_low"]), float(row["slice_auc_pooled_high"])
    return Auc(name=name, auc=value, low=min(low, value), high=max(high, value))


def _alarms(source: str, row: Mapping[str, Any]) -> Alarms:
    return Alarms(
        source=source, flagged=int(row["slices_flagged"]), of=int(row["slices"]), upper=float(row["slices_upper"])
    )
