"""What short runs say, as a section of the page: worst first, and never as if it were said of the weights. Pure."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from dicomguard.retrain.evaluate import markup
from dicomguard.retrain.evaluate.markup import Row
from dicomguard.retrain.evaluate.report import cell, with_interval

_KINDS = {
    "group": "Groups of families left out",
    "family": "Families left out",
    "source": "Sources left out",
    "hospital": "Hospitals left out",
}
_TITLES = (
    "left out",
    "slice AUC",
    "95 % interval",
    "known to the run beside",
    "lost",
    "95 % interval",
    "in its series",
    "study AUC",
    "95 % interval",
    "authentic studies flagged",
    "loose pictures flagged",
    "forged studies found",
    "forged pictures found",
    "CPU minutes",
    "patients",
    "trained without",
)
_JUDGES = ("judge", "slices", "slice AUC", "95 % interval", "pixel AUC", "F1")


def section(trials: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """The section; `trials` as `short_runs.read` gives them."""
    parts = [_left_out(title, [r for r in trials["left_out"] if r["kind"] == kind]) for kind, title in _KINDS.items()]
    parts += [_stock(row) for row in trials["stock"]]
    if trials["shuffled"]:
        parts.append(_shuffled(trials["shuffled"]))
    return (
        "<h2>What was never seen, by short runs</h2><p><strong>These are short runs, not the weights evaluated above."
        "</strong> Weights that know a family or a source cannot forget it, so dense maps were trained from chance, "
        "without it, for the CPU minutes given. “Slice AUC” is by the maps alone; “in its series” is that of the "
        "product, of few slices. Studies and pictures are judged as in the product, with the alert set without what "
        "was left out.</p>" + "".join(parts)
    )


def _left_out(title: str, rows: Sequence[Mapping[str, Any]]) -> str:
    if not rows:
        return ""
    table = markup.table(_TITLES, [("", _cells(with_interval(row))) for row in rows], long=(len(_TITLES) - 1,))
    return f"<h3>{title}, worst first</h3>{table}"


def _cells(row: Mapping[str, Any]) -> list[str]:
    return [
        row["left_out"].partition(":")[2],
        cell(row["slice_auc"]),
        cell(row["slice_auc_interval"]),
        cell(row["known_slice_auc"]),
        cell(row["loss"]),
        cell(row["loss_interval"]),
        cell(row["series_slice_auc"]),
        cell(row["study_auc"]),
        cell(row["study_auc_interval"]),
        _of(row["studies_flagged"], row["studies"]),
        _of(row["pictures_flagged"], row["pictures"]),
        _of(row["forged_found"], row["forged"]),
        _of(row["forged_pictures_found"], row["forged_pictures"]),
        f"{row['minutes']:g}",
        row["split"],
        row["run"],
    ]


def _of(count: int | None, of: int | None) -> str:
    return f"{count} of {of}" if of else "–"


def _stock(stock: Mapping[str, Any]) -> str:
    rows = [("", _judged(judge["judge"], judge)) for judge in stock["judges"]]
    margin = (
        "Nothing could be compared."
        if stock["margin"] is None
        else f"Margin of ours {stock['margin']:+.3f} [{stock['margin_low']:+.3f}, {stock['margin_high']:+.3f}]; "
        f"ours: {stock['beside']}."
    )
    made = f"Stock Mask R-CNN of {stock['minutes']:g} CPU minutes, {stock['split']} patients, seed {stock['seed']}"
    return f"<h3>{escape(made)}</h3><p>{escape(margin)}</p>{markup.table(_JUDGES, rows)}"


def _judged(name: str, row: Mapping[str, Any]) -> list[str]:
    figures = with_interval(row)
    return [name, *(cell(figures[key]) for key in ("slices", "slice_auc", "slice_auc_interval", "pixel_auc", "f1"))]


def _shuffled(found: Sequence[Mapping[str, Any]]) -> str:
    rows: list[Row] = [
        (
            "",
            [
                *_judged(f"{row['minutes']:g} CPU minutes, seed {row['seed']}", row),
                row["split"],
                "holds" if row["holds"] else "does not hold",
            ],
        )
        for row in found
    ]
    return (
        "<h3>Trained on shuffled labels</h3><p>Nothing may be found. It says something only if a run as long on the "
        f"truth finds something.</p>{markup.table(('run', *_JUDGES[1:], 'patients', ''), rows)}"
    )
