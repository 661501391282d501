"""An evaluation for people: a page that needs nothing from elsewhere, and lines for a terminal. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

_STYLE = """
body{font:15px/1.45 system-ui,sans-serif;color:#1c2733;background:#fff;margin:2rem auto;max-width:72rem;padding:0 1rem}
h1{font-size:1.4rem}h2{font-size:1.1rem;margin-top:2rem}p{max-width:48rem}
table{border-collapse:collapse;font-variant-numeric:tabular-nums}
th,td{padding:.25rem .7rem;text-align:right;border-bottom:1px solid #d7dee6}
th:first-child,td:first-child,th:nth-child(2),td.text{text-align:left}
thead th{border-bottom:2px solid #5b6b7b}tr.second td{background:#f3f6f9}
@media (prefers-color-scheme:dark){
body{background:#11161b;color:#dfe6ec}th,td{border-color:#33404d}tr.second td{background:#1a222a}}
"""

_FAMILY_COLUMNS = (
    ("source", "source"),
    ("family", "family"),
    ("slices", "slices"),
    ("slice_auc_pooled", "slice AUC"),
    ("interval", "95 % interval"),
    ("slice_auc_paired", "paired"),
    ("slice_sensitivity", "slice sens."),
    ("pixel_f1", "F1 at 0.5"),
    ("pixel_iou", "IoU"),
    ("studies", "studies"),
    ("study_auc", "study AUC"),
    ("study_sensitivity", "study sens."),
)


def _cell(value: object) -> str:
    if value is None:
        return "–"
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def _with_interval(row: Mapping[str, Any]) -> dict[str, Any]:
    low, high = row["slice_auc_pooled_low"], row["slice_auc_pooled_high"]
    return {**row, "interval": None if low is None else f"{low:.2f}–{high:.2f}"}


def _heading(document: Mapping[str, Any]) -> str:
    model = document["model"]
    name = f"model {model['id']}" if model else "a given score"
    return (
        f"{name}, {document['split']} split, seed {document['seed']}, {document['size']} size, "
        f"threshold {document['threshold']:.3f}"
    )


def text(document: Mapping[str, Any]) -> str:
    """Tables for a terminal, worst family first."""
    lines = [f"Evaluation: {_heading(document)}", ""]
    rows = [_with_interval(row) for row in document["families"]]
    titles = [title for _, title in _FAMILY_COLUMNS]
    lines += _columns([titles, *([_cell(row[key]) for key, _ in _FAMILY_COLUMNS] for row in rows)])
    for name, means in document["means"].items():
        figures = ", ".join(f"{key} {_cell(value)}" for key, value in means.items())
        lines.append(f"mean over sources, {name.replace('_', ' ')}: {figures}")
    lines += ["", "Authentic studies and slices flagged at the shipped threshold (95 % upper bound)"]
    alarms = [["source", "studies", "bound", "slices", "bound"]]
    for row in document["false_alarms"]:
        alarms.append(
            [
                row["source"],
                f"{row['studies_flagged']} of {row['studies']}",
                _percent(row["studies_upper"], row["studies"]),
                f"{row['slices_flagged']} of {row['slices']}",
                _percent(row["slices_upper"], row["slices"]),
            ]
        )
    lines += _columns(alarms)
    if document["processing"]:
        lines += ["", "The same processing on both twins, worst first (* kept back from training)"]
        lines += _columns([_PROCESSING_TITLES, *map(_processing_cells, document["processing"])])
    four = document["four_way"]
    lines += ["", f"Four answers, truth in rows (macro-F1 {four['macro_f1']:.2f})"]
    lines += _columns(
        [
            ["", *four["labels"]],
            *([label, *map(str, row)] for label, row in zip(four["labels"], four["counts"], strict=True)),
        ]
    )
    return "\n".join(lines) + "\n"


_PROCESSING_TITLES = ("operation", "slice AUC", "authentic flagged", "95 % bound", "slices flagged", "forged flagged")


def _processing_cells(row: Mapping[str, Any]) -> list[str]:
    return [
        row["operation"] + (" *" if row["held_back"] else ""),
        _cell(row["slice_auc"]),
        f"{row['studies_flagged']} of {row['studies']}",
        _percent(row["studies_upper"], row["studies"]),
        f"{row['slices_flagged']} of {row['slices']}",
        f"{row['forged_flagged']} of {row['forged']}",
    ]


def _percent(share: float, of: int) -> str:
    """A bound on a share of so many; a dash when nothing was counted."""
    return f"{100 * share:.1f} %" if of else "–"


def _columns(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _table(titles: Iterable[str], rows: Iterable[tuple[str, Sequence[str]]]) -> str:
    head = "".join(f'<th scope="col">{escape(title)}</th>' for title in titles)
    body = "".join(
        f'<tr class="{kind}">' + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>" for kind, cells in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def html(document: Mapping[str, Any]) -> str:
    """A self-contained page."""
    families = _table(
        [title for _, title in _FAMILY_COLUMNS],
        [
            ("second" if row["second_hand"] else "", [_cell(_with_interval(row)[key]) for key, _ in _FAMILY_COLUMNS])
            for row in document["families"]
        ],
    )
    means = _table(
        ["mean over sources", *next(iter(document["means"].values()))],
        [("", [name.replace("_", " "), *map(_cell, values.values())]) for name, values in document["means"].items()],
    )
    alarms = _table(
        ["source", "not analysable", "studies flagged", "95 % bound", "slices flagged", "95 % bound"],
        [
            (
                "",
                [
                    row["source"],
                    str(row["not_analysable"]),
                    f"{row['studies_flagged']} of {row['studies']}",
                    _percent(row["studies_upper"], row["studies"]),
                    f"{row['slices_flagged']} of {row['slices']}",
                    _percent(row["slices_upper"], row["slices"]),
                ],
            )
            for row in document["false_alarms"]
        ],
    )
    processed = _table(_PROCESSING_TITLES, [("", _processing_cells(row)) for row in document["processing"]])
    four = document["four_way"]
    answers = _table(
        ["truth", *four["labels"]],
        [("", [label, *map(str, row)]) for label, row in zip(four["labels"], four["counts"], strict=True)],
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>Evaluation</title><style>{_STYLE}</style></head><body><h1>Evaluation</h1>"
        f"<p>{escape(_heading(document))}. Research use. Forged figures come from patients that training never saw; "
        "a shaded row is a family by another hand, which training never saw either.</p>"
        f"<h2>Forgeries, worst first</h2>{families}{means}"
        f"<h2>False alarms on authentic data</h2>{alarms}"
        f"<h2>The same processing on both twins, worst first (* kept back from training)</h2>{processed}"
        f"<h2>Four answers (macro-F1 {four['macro_f1']:.2f})</h2>{answers}"
        "<p>A forgery that makes a lesion larger or smaller has no right answer among the four and is not in this "
        "table. “Paired” compares with the same slices before the forgery; “slice AUC” with all authentic slices of "
        "the source.</p></body></html>\n"
    )
