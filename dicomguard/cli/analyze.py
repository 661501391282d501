"""`dicomguard analyze`: judge files and folders without a node."""

import contextlib
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Column, Table

from dicomguard import config, log
from dicomguard.analyze import client, folder, weights
from dicomguard.cli import inputs, overlays
from dicomguard.clock import SystemClock
from dicomguard.core import verdict as verdicts
from dicomguard.core import wording
from dicomguard.core.instance import Header, Instance
from dicomguard.core.job import AnalysisJob
from dicomguard.core.verdict import Model, Verdict
from dicomguard.errors import DicomguardError, Refused, Unavailable

Paths = Annotated[list[Path], typer.Argument(help="Files, and folders read recursively: DICOM, PNG, JPEG, TIFF.")]
AsJson = Annotated[bool, typer.Option("--json", help="One verdict.json document a study on standard output.")]
Output = Annotated[Path | None, typer.Option(help="Write verdict.json, masks.npz and overlay PNGs, a folder a study.")]
Settings = Annotated[Path | None, typer.Option("--config", help="File whose [[rules]] and [analysis] apply.")]
Weights = Annotated[Path | None, typer.Option("--weights", help="Weights instead of the shipped ones.")]
Device = Annotated[str, typer.Option(help='"cpu", "cuda", or empty for the best there is.')]
# A child that dies this often on one study will die again.
_ATTEMPTS = 2


def command(
    paths: Paths,
    as_json: AsJson = False,
    output: Output = None,
    settings: Settings = None,
    weights_file: Weights = None,
    device: Device = "",
) -> None:
    """Judge DICOM files and folders without a server.

    All studies of one call share one loaded model. With --json, standard output carries one document a line and
    nothing else. Exit status 0 when every study got its document from the analysis. Pictures count as loose slices of
    one study a folder, outside the validated scope; files of other kinds are named on standard error.
    """
    log.configure("WARNING")
    chosen = config.load(settings) if settings is not None else config.Config()
    path = (weights_file or chosen.analysis.weights or weights.shipped()).resolve()
    model = client.model_of(path)
    table, summaries = Table("#", Column("answer", no_wrap=True), "forgery", "tumor", "looked at", "scope"), []
    failed = 0
    with tempfile.TemporaryDirectory(prefix="dicomguard-") as scratch, client.Analyst() as analyst, _bars() as bars:
        found = _studies(paths, Path(scratch))
        for number, (study, copies) in enumerate(found.items(), start=1):
            manifest = folder.manifest_of(study, copies, rules=chosen.rules, scope=model.scope)
            job = AnalysisJob(
                manifest=manifest,
                files_root=str(folder.ROOT),
                output=str(overlays.place(output, study) if output else Path(scratch) / str(number)),
                weights=str(path),
                device=device or chosen.analysis.device,
                threads=chosen.analysis.threads,
                deadline_s=chosen.analysis.deadline_s,
                decode_memory_bytes=chosen.analysis.decode_memory_bytes,
                decode_s=chosen.analysis.decode_s,
            )
            bar = bars.add_task(f"study {number} of {len(found)}", total=None)
            verdict, error = _judge(analyst, job, model, bars, bar)
            bars.remove_task(bar)
            if error:
                failed += 1
                print(f"study {number}: {error}", file=sys.stderr)
            elif output:
                overlays.write(verdict, manifest, root=folder.ROOT, into=Path(job.output))
            if as_json:
                sys.stdout.buffer.write(verdict.to_bytes() + b"\n")
                sys.stdout.buffer.flush()
            else:
                table.add_row(str(number), *_row(verdict))
                summaries.append(f"{number}  {study}\n{wording.compose(verdict, manifest).summary}\n")
    if not as_json:
        Console(highlight=False).print(table, *summaries, sep="\n", markup=False)
    raise typer.Exit(1 if failed else 0)


def _studies(paths: list[Path], scratch: Path) -> dict[str, list[tuple[Header, Instance]]]:
    """Instances by study, pictures and bare datasets among them; the rest is named on standard error."""
    found = folder.gather(paths)
    wrapped, left = inputs.wrap(found.skipped, scratch)
    studies = found.studies | (folder.gather(wrapped).studies if wrapped else {})
    for item in left:
        print(f"skipped {item.path}: {item.reason}", file=sys.stderr)
    if not studies:
        raise Refused("There is no DICOM instance among the files. Give DICOM files or folders that hold some.")
    return studies


def _bars() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    return Progress(*columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty())


def _judge(
    analyst: client.Analyst, job: AnalysisJob, model: Model, bars: Progress, bar: TaskID
) -> tuple[Verdict, DicomguardError | None]:
    """The verdict; "not analysable" with the error when the child failed twice."""
    last: DicomguardError | None = None
    for _ in range(_ATTEMPTS):
        with contextlib.suppress(OSError):
            Path(job.output, "verdict.json").unlink()
        try:
            report = analyst.run(job, on_progress=lambda done, total: bars.update(bar, completed=done, total=total))
        except Unavailable as error:
            last = error
            continue
        except DicomguardError as error:
            # Asking again would not change what is refused or broken.
            last = error
            break
        return client.read_verdict(report), None
    assert last is not None
    created = SystemClock().now().isoformat(timespec="seconds")
    verdict = verdicts.not_analysable(
        job.manifest, "the analysis failed", model=model, software=client.software(), created=created
    )
    Path(job.output, "verdict.json").write_bytes(verdict.to_bytes())
    return verdict, last


def _row(verdict: Verdict) -> tuple[str, ...]:
    score, coverage = verdict.score, verdict.coverage
    return (
        wording.answer(verdict.category),
        "–" if score.forgery is None else f"{score.forgery:.2f}",
        "–" if score.tumor is None else f"{score.tumor:.2f}",
        f"{coverage.slices_analysed} of {coverage.slices_total}",
        "outside" if coverage.outside_scope else "inside" if coverage.slices_analysed else "–",
    )
