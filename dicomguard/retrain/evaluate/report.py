"""An evaluation as lines for a terminal, and how its figures are put into words. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

# Of the page; a figure's interval is its name with `_interval`.
FAMILY_COLUMNS = (
    ("source", "source"),
    ("family", "family"),
    ("slices", "slices"),
    ("slice_auc_pooled", "slice AUC"),
    ("slice_auc_pooled_interval", "95 % interval"),
    ("slice_auc_paired", "paired"),
    ("slice_auc_alike", "like lesion"),
    ("slice_sensitivity", "slice sens."),
    ("slice_sensitivity_interval", "95 % interval"),
    ("pixel_f1", "F1 at 0.5"),
    ("pixel_f1_interval", "95 % interval"),
    ("pixel_iou", "IoU"),
    ("pixel_auc", "pixel AUC"),
    ("position_auc", "position AUC"),
    ("studies", "studies"),
    ("study_auc", "study AUC"),
    ("study_auc_interval", "95 % interval"),
    ("study_sensitivity", "study sens."),
    ("study_sensitivity_interval", "95 % interval"),
)
GOAL_TITLES = ("", "goal", "reached", "band", "least", "target", "moonshot")
ALARM_TITLES = ("people flagged", "95 % bound", "studies flagged", "slices flagged", "people with such a slice")
# Of a terminal, which is narrow.
_NARROW = frozenset(
    {
        "slice_sensitivity_interval",
        "pixel_f1_interval",
        "study_auc_interval",
        "study_sensitivity_interval",
        "pixel_auc",
        "position_auc",
    }
)
PROCESSING_TITLES = (
    "operation",
    "slice AUC",
    "drop",
    "people flagged",
    "95 % bound",
    "slices flagged",
    "times untouched",
    "forged flagged",
)


def cell(value: object) -> str:
    """A figure with two digits, a dash for none."""
    if value is None:
        return "–"
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def with_interval(row: Mapping[str, Any]) -> dict[str, Any]:
    """The row with each pair of ends as one text."""
    ends = [name.removesuffix("_low") for name in row if name.endswith("_low")]
    texts = {
        f"{name}_interval": None
        if row[f"{name}_low"] is None
        else f"{row[f'{name}_low']:.2f}–{row[f'{name}_high']:.2f}"
        for name in ends
    }
    return {**row, **texts}


def heading(document: Mapping[str, Any]) -> str:
    """Which weights, which people, which seed, which size."""
    model = document["model"]
    name = f"model {model['id']}" if model else "a given score"
    return (
        f"{name}, {document['split']} split, seed {document['seed']}, {document['size']} size, "
        f"threshold {document['threshold']:.3f}"
    )


def processing_cells(row: Mapping[str, Any]) -> list[str]:
    """In the order of PROCESSING_TITLES."""
    return [
        row["operation"] + (" *" if row["held_back"] else ""),
        cell(row["slice_auc"]),
        cell(row["auc_drop"]),
        *people_cells(row),
        f"{row['slices_flagged']} of {row['slices']}",
        f"{row['alarm_ratio']:.1f}",
        f"{row['forged_flagged']} of {row['forged']}",
    ]


def people_cells(row: Mapping[str, Any]) -> list[str]:
    """Authentic people flagged, and the bound on their share."""
    return [f"{row['people_flagged']} of {row['people']}", percent(row["people_upper"], row["people"])]


def percent(share: float, of: int) -> str:
    """A bound on a share of so many; a dash when nothing was counted."""
    return f"{100 * share:.1f} %" if of else "–"


def text(document: Mapping[str, Any]) -> str:
    """Tables for a terminal: false alarms first, then families, worst first."""
    lines = [f"Evaluation: {heading(document)}", ""]
    lines += [
        "Authentic people, studies and slices flagged at the shipped threshold; the 95 % upper bound counts people"
    ]
    lines += _columns(
        [
            ["source", *ALARM_TITLES],
            *(alarm_cells(row["source"], row) for row in document["false_alarms"]),
            *(alarm_cells(row["kind"], row) for row in document["alarms_by_kind"]),
        ]
    )
    columns = [(key, title) for key, title in FAMILY_COLUMNS if key not in _NARROW]
    rows = [with_interval(row) for row in document["families"]]
    lines += ["", "Forgeries, worst first"]
    lines += _columns([[title for _, title in columns], *([cell(row[key]) for key, _ in columns] for row in rows)])
    for name, means in document["means"].items():
        figures = ", ".join(
            f"{key} {cell(value)}" for key, value in means.items() if not key.endswith(("_low", "_high"))
        )
        lines.append(f"mean over sources, {name.replace('_', ' ')}: {figures}")
    if document["processing"]:
        lines += ["", "The same processing on both twins, worst first (* kept back from training)"]
        lines += _columns([PROCESSING_TITLES, *map(processing_cells, document["processing"])])
    for level, four in (("study", document["four_way"]), ("slice", document["four_way_slices"])):
        figures = f"macro-F1 {four['macro_f1']:.2f}, with every truth weighing alike {four['even_f1']:.2f}"
        lines += ["", f"Four answers a {level}, truth in rows ({figures})"]
        pairs = zip(four["labels"], four["counts"], strict=True)
        lines += _columns([["", *four["labels"]], *([label, *map(str, row)] for label, row in pairs)])
    said = {True: "holds", False: "DOES NOT HOLD", None: "not measured"}
    lines += ["", "Controls"]
    lines += _columns([[row["control"], said[row["holds"]], row["reached"]] for row in document["controls"]])
    lines += ["", "Goals"]
    lines += _columns([[*GOAL_TITLES, ""], *([*goal_cells(row), row["how"]] for row in document["goals"])])
    return "\n".join(lines) + "\n"


def goal_cells(row: Mapping[str, Any]) -> list[str]:
    """In the order of GOAL_TITLES."""
    names = ("metric", "reached", "band", "least", "target", "moonshot")
    return [str(row["row"]), *(row[name] or "–" for name in names)]


def alarm_cells(name: str, row: Mapping[str, Any]) -> list[str]:
    """The name, then in the order of ALARM_TITLES."""
    return [
        name,
        *people_cells(row),
        f"{row['studies_flagged']} of {row['studies']}",
        f"{row['slices_flagged']} of {row['slices']}",
        f"{row['slice_people_flagged']} of {row['slice_people']}",
    ]


def _columns(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
