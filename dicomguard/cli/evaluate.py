"""`dicomguard evaluate`: how good is the detector on patients it has not seen."""

import json
import os
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from dicomguard import config, log
from dicomguard.analyze import weights
from dicomguard.errors import Refused
from dicomguard.retrain.evaluate import protocol, report

Folder = Annotated[Path, typer.Argument(help="Folder of planes with index.csv; test patients of the frozen split.")]
Weights = Annotated[Path | None, typer.Option("--weights", help="Weights instead of the shipped ones.")]
Out = Annotated[Path, typer.Option("--output", help="Folder for report.json and report.html.")]
Seed = Annotated[int, typer.Option(help="Of the forgeries; the same seed gives the same forgeries.")]
Fast = Annotated[
    bool, typer.Option("--fast", help="A few people, one family of each group: minutes, with wide intervals.")
]
Sealed = Annotated[bool, typer.Option("--sealed", help="Also the sealed families; look once a release.")]
Keys = Annotated[list[str] | None, typer.Option("--person", help="source/patient instead of the test split; repeat.")]
AtOnce = Annotated[
    int | None,
    typer.Option("--at-once", min=1, help="Studies judged beside each other, one core each; default: up to 4."),
]
Trials = Annotated[
    Path | None,
    typer.Option("--trials", help="Folder of dicomguard.retrain.trials; what its short runs found joins the report."),
]
AsJson = Annotated[bool, typer.Option("--json", help="The report as JSON on standard output.")]
Settings = Annotated[Path | None, typer.Option("--config", help="Configuration whose [analysis] weights are used.")]

# Each takes about a gigabyte.
_MOST_AT_ONCE = 4


def command(
    data: Folder,
    weights_file: Weights = None,
    output: Out = Path("evaluation"),
    seed: Seed = 2026,
    fast: Fast = False,
    sealed: Sealed = False,
    person: Keys = None,
    at_once: AtOnce = None,
    trials: Trials = None,
    as_json: AsJson = False,
    settings: Settings = None,
) -> None:
    """Measure the detector on patients it has not seen.

    Every test patient is forged by every tamper family, written as DICOM and judged as a received study is, beside the
    authentic twin. False alarms come first, with upper bounds, then slice and study AUC by family, worst first, the
    four answers, processing, controls and goals; the page adds curves, calibration, strata, peers and a gallery. The
    threshold is the model's own; nothing is chosen on the test set. With --trials, short runs say what weights trained
    without a family or a source would find, which these cannot.

    Example: dicomguard evaluate scans/ --fast --output report/
    """
    log.configure("WARNING")
    if not (data / "index.csv").is_file():
        raise Refused(f"{data} has no index.csv. Give a folder of planes with index.csv; `archive add` reads the same.")
    chosen = config.load(settings) if settings is not None else config.Config()
    path = weights_file or chosen.analysis.weights or weights.shipped()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        bar = bars.add_task("studies judged", total=None)
        document = protocol.evaluate(
            data,
            path,
            out=output,
            keys=person or (),
            seed=seed,
            fast=fast,
            sealed=sealed,
            at_once=at_once or min(_MOST_AT_ONCE, len(os.sched_getaffinity(0))),
            trials=trials,
            progress=lambda done, total: bars.update(bar, completed=done, total=total),
        )
    print(json.dumps(document, sort_keys=True) if as_json else report.text(document))
    if not as_json:
        print(f"report: {output / 'report.html'}")
