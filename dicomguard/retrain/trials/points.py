"""What the alert does on a source that had no part in setting it: calibrated on the others, then counted on that one.

The network itself has trained on other patients of each source, so this is the threshold's share of the fall that a
new hospital would see, not all of it. All alerts here rest on validation patients alone, those of studies too.

    python -m dicomguard.retrain.trials.points --data FOLDER --out FOLDER
"""

import json
import sys
from collections.abc import Sequence
from typing import Any

from dicomguard.analyze.scores import FEWEST_FOR_SERIES, Calibration
from dicomguard.retrain.net import calibrate
from dicomguard.retrain.net.shown import Run
from dicomguard.retrain.trials import judged


def main(arguments: list[str]) -> int:
    """Judge validation patients once, calibrate with and without each source, print and write `points.json`."""
    given = judged.parser("The alert on each source, set with it and without it.").parse_args(arguments)
    seen = judged.judge(given)
    rows = compared(seen.runs)
    table = {**seen.made, "rows": rows}
    (given.out / "points.json").write_text(json.dumps(table, indent=1) + "\n")
    for row in rows:
        _tell(line(row))
    return 0


def compared(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """For each source, what is flagged of it with an alert that it helped to set, and with one that it did not."""
    whole = calibrate.fit(runs).calibration
    rows = []
    for source in sorted({run.pixels.series.source for run in runs}):
        own = [run for run in runs if run.pixels.series.source == source]
        others = [run for run in runs if run.pixels.series.source != source]
        rows.append({"source": source, "set": "with it", **counted(own, whole)})
        rows.append({"source": source, "set": "without it", **counted(own, calibrate.fit(others).calibration)})
    return rows


def counted(runs: Sequence[Run], calibration: Calibration) -> dict[str, Any]:
    """Authentic slices, authentic stacks and pictures flagged, forged ones found: each as [count, of, upper bound]."""
    row = {"slices": slices_counted(runs, calibration)["slices_flagged"]}
    for name, chosen in (
        ("stacks", [run for run in runs if len(run.planes) >= FEWEST_FOR_SERIES and not run.excerpt]),
        ("pictures", [run for run in runs if len(run.planes) == 1]),
    ):
        flagged = [(run, calibrate.study_scores(run, calibration)[0] >= calibrate.ALERT) for run in chosen]
        row[f"{name}_flagged"] = _share([flag for run, flag in flagged if not run.family])
        row[f"{name}_found"] = _share([flag for run, flag in flagged if run.forged])
    return row


def slices_counted(runs: Sequence[Run], calibration: Calibration) -> dict[str, list[float]]:
    """Authentic slices flagged and forged ones found, each as [count, of, upper bound]; none is counted twice."""
    authentic, forged = [], []
    for run, values in zip(runs, calibrate.slice_values(runs, calibration), strict=True):
        if run.family:
            forged += [bool(values[run.planes.index(plane)] >= 0) for plane in run.forged]
        elif not run.excerpt:
            authentic += [bool(value >= 0) for value in values]
    return {"slices_flagged": _share(authentic), "slices_found": _share(forged)}


def _share(flags: Sequence[bool]) -> list[float]:
    count, of = sum(map(bool, flags)), len(flags)
    return [count, of, round(calibrate.upper_bound(count, of), 4)]


def line(row: dict[str, Any]) -> str:
    """One source and one alert as a line of a terminal."""

    def words(name: str) -> str:
        count, of, bound = row[name]
        return f"{count} of {of}" + (f" (at most {bound:.1%})" if "found" not in name and of else "")

    return (
        f"{row['source']:<8} {row['set']:<10}  authentic flagged: slices {words('slices')}, "
        f"stacks {words('stacks_flagged')}, pictures {words('pictures_flagged')}; "
        f"forged found: stacks {words('stacks_found')}, pictures {words('pictures_found')}"
    )


def _tell(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
