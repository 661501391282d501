"""What trials of the recipe wrote, as tables: runs without something, on a truth that says nothing, and a stock model.

Weights that know a family or a source cannot say what they would be without it, so short runs from chance say it for
them (`dicomguard.retrain.trials`): minutes of dense maps, never the weights that are evaluated. Reads and checks; knows
no goal and no page.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dicomguard.errors import Refused
from dicomguard.retrain.evaluate.json_values import Value

Row = dict[str, Any]

# A table of trials has some kilobytes.
_LARGEST_BYTES = 8 << 20
_MOST_MINUTES = 1e6
_LEFT_OUT = r"(group|family|source|hospital):[\w./-]{1,80}"
_RUN = r"[\w:./+-]{1,4000}"
_JUDGE = _OURS = r"[\w ,./()+-]{1,80}"
_COUNTS = {
    "authentic_stacks_flagged": ("studies_flagged", "studies"),
    "forged_stacks_found": ("forged_found", "forged"),
    "authentic_pictures_flagged": ("pictures_flagged", "pictures"),
    "forged_pictures_found": ("forged_pictures_found", "forged_pictures"),
}


def read(folder: Path) -> dict[str, list[Row]]:
    """Rows of `left_out`, `shuffled` and `stock`, worst first, from all files of trials anywhere below the folder.

    Raises `Refused` when there is none, or when one of them is not what a trial writes.
    """
    found = {
        "left_out": _all(folder, "left_out*.json", _left_out),
        "shuffled": _all(folder, "shuffled.json", _shuffled),
        "stock": _all(folder, "stock.json", _stock),
    }
    if not any(found.values()):
        raise Refused(
            f"{folder} holds no left_out*.json, shuffled.json or stock.json with a row. "
            "Give the folder that the trials wrote to."
        )
    found["left_out"].sort(key=lambda row: (row["slice_auc"] is None, row["slice_auc"] or 0.0, row["left_out"]))
    found["shuffled"].sort(key=lambda row: row["holds"])
    found["stock"].sort(key=lambda row: (row["margin"] is None, row["margin"] or 0.0))
    return found


def _all(folder: Path, pattern: str, rows: Callable[[Value], list[Row]]) -> list[Row]:
    paths = sorted(path for path in folder.rglob(pattern) if path.is_file())
    return [row for path in paths for row in _of_file(path, rows)]


def _of_file(path: Path, rows: Callable[[Value], list[Row]]) -> list[Row]:
    try:
        if path.stat().st_size > _LARGEST_BYTES:
            raise ValueError(f"it has more than {_LARGEST_BYTES} bytes")
        return rows(Value(json.loads(path.read_bytes())))
    except (OSError, ValueError, RecursionError) as error:
        raise Refused(
            f"{path} is not what a trial writes: {error}. Take it out of the folder, or run its trial again."
        ) from error


def _made(file: Value) -> Row:
    return {
        "split": file["split"].text("validation|test"),
        "seed": file["seed"].whole(),
        "minutes": file["minutes"].number(0, _MOST_MINUTES),
    }


def _figures(value: Value) -> Row:
    auc = value.get("slice_auc")
    return {
        "slices": value["slices"].whole(),
        "slice_auc": _unit(auc),
        "slice_auc_low": None if auc is None else value["slice_auc_low"].number(0, 1),
        "slice_auc_high": None if auc is None else value["slice_auc_high"].number(0, 1),
        "pixel_auc": _unit(value.get("pixel_auc")),
        "f1": _unit(value.get("f1")),
    }


def _unit(value: Value | None) -> float | None:
    return None if value is None else value.number(0, 1)


def _interval(name: str, value: Value | None, *, low: float = 0) -> Row:
    triple = (None, None, None) if value is None else value.triple(low, 1)
    return dict(zip((name, f"{name}_low", f"{name}_high"), triple, strict=True))


def _left_out(file: Value) -> list[Row]:
    """Slice AUC by the maps alone, over all forged slices; as in the product there are too few of them for a mean."""
    made, found = _made(file), []
    for value in file["rows"].each():
        name = value["left_out"].text(_LEFT_OUT)
        row = {
            "kind": name.split(":")[0],
            "left_out": name,
            "run": value["run"].text(_RUN),
            "beside": value["beside"].text(_RUN),
            **made,
            **_figures(value["without"]),
            "known_slice_auc": _unit(value["with"].get("slice_auc")),
            **_interval("loss", value.get("loss"), low=-1),
            **_in_series(value.get("as_in_the_product")),
        }
        found.append(row)
    return found


def _in_series(value: Value | None) -> Row:
    """The run as the product would have it: slices in their series, studies linked, an alert set without that part."""
    row = _interval("series_slice_auc", value and value.get("mean"))
    row |= _interval("study_auc", value and value.get("stack_auc"))
    for name, keys in _COUNTS.items():
        row |= dict(zip(keys, (None, None) if value is None else value[name].share(), strict=True))
    return row


def _shuffled(file: Value) -> list[Row]:
    return [{**_made(file), **_figures(file), "holds": file["holds"].flag()}]


def _stock(file: Value) -> list[Row]:
    judges = [
        {"judge": Value(name, "a judge's name").text(_JUDGE), **_figures(value)} for name, value in file["rows"].named()
    ]
    judges.sort(key=lambda row: (row["slice_auc"] is None, row["slice_auc"] or 0.0))
    made = {**_made(file), "beside": file["beside"].text(_OURS)}
    return [{**made, **_interval("margin", file.get("margin"), low=-1), "judges": judges}]
