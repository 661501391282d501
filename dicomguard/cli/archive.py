"""`dicomguard archive`: the curated cases that training uses."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import track

from dicomguard.cli.archived import Archive, Settings, list_, root_of, verify_
from dicomguard.clock import SystemClock
from dicomguard.errors import Refused
from dicomguard.retrain.archive import adding, contents, review
from dicomguard.retrain.archive.case import Label
from dicomguard.retrain.archive.importers import dicom, slices
from dicomguard.store.files import SystemDisk

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    help="Add, review, list and verify the cases that training uses.",
)
By = Annotated[str, typer.Option("--by", help="Name of the person who does this; it stands in the manifest.")]
Sources = Annotated[list[str] | None, typer.Option("--source", help="DICOM: where from. Planes: take only it; repeat.")]
Provenance = Annotated[
    str, typer.Option(help="Who drew or confirmed the masks and labels, and how; the second person reads it.")
]
Masks = Annotated[Path | None, typer.Option(help="DICOM: folder of PNGs named as the files, white on lesions.")]


@app.command()
def add(
    path: Annotated[Path, typer.Argument(help="Folder of DICOM files, or of planes listed in index.csv.")],
    by: By,
    licence: Annotated[str, typer.Option(help="By what right the pictures may be trained on, for example CC BY 4.0.")],
    source: Sources = None,
    label: Annotated[Label, typer.Option(help="DICOM: whether the studies show a tumor.")] = "no_tumor",
    label_provenance: Provenance = "",
    masks: Masks = None,
    archive: Archive = None,
    settings: Settings = None,
) -> None:
    """Put cases into the archive, one a study.

    A second person then reviews them; until then they are not trained on.

    DICOM is de-identified on the way: only numbers and coded words of a list stay, patient and UIDs become keys.
    Pixels are not changed: a face can be rebuilt from a whole head, so keep the archive as you keep scans.

    Example: dicomguard archive add scans/ --by ada --source clinic --licence own --label tumor --masks drawn/
    """
    root, taken, refused = root_of(archive, settings), 0, 0
    if (path / "index.csv").is_file():
        found: Iterator[adding.NewCase] = slices.read(
            path, licence=licence, label_provenance=label_provenance, sources=frozenset(source or ())
        )
    else:
        if len(source or ()) != 1:
            raise Refused(
                "DICOM needs one --source, your name for where the studies are from. Give for example clinic."
            )
        found = dicom.read(
            path,
            archive=root,
            source=(source or [""])[0],
            licence=licence,
            label=label,
            label_provenance=label_provenance,
            masks=masks,
        )
    for new in track(found, description="cases", console=Console(stderr=True), transient=True):
        try:
            case = adding.add(root, new, curator=by, clock=SystemClock(), disk=SystemDisk())
        except Refused as error:
            refused += 1
            print(f"refused {new.source}/{new.patient}: {error}", file=sys.stderr)
        else:
            taken += 1
            print(f"{case.case_id}  {case.patient_key}  {case.label}  {case.split}  {len(case.files)} files")
    print(f"{taken} cases added, {refused} refused. Next, somebody else: dicomguard archive review --by NAME CASE")
    raise typer.Exit(Refused.exit_status if refused else 0)


@app.command("review")
def review_(
    by: By,
    cases: Annotated[list[str] | None, typer.Argument(help="Ids of cases, or their first letters.")] = None,
    all_of: Annotated[str, typer.Option("--all-of", help="Every case of this source that waits for review.")] = "",
    decline: Annotated[bool, typer.Option("--decline", help="Say no: the case is not trained on.")] = False,
    remark: Annotated[str, typer.Option(help="Why.")] = "",
    archive: Archive = None,
    settings: Settings = None,
) -> None:
    """Accept or decline cases that another person has added. Only accepted cases are trained on.

    Example: dicomguard archive review 3f2a91 --by grace
    """
    root = root_of(archive, settings)
    waiting = [
        e.case.case_id for e in contents.read(root).entries if e.state == "to review" and e.case.source == all_of
    ]
    if not (chosen := [*(cases or []), *waiting]):
        raise Refused("No case is named. Give ids, or --all-of SOURCE; `dicomguard archive list` shows them.")
    for case_id in chosen:
        entry = review.review(
            root, case_id, by=by, accepted=not decline, remark=remark, clock=SystemClock(), disk=SystemDisk()
        )
        print(f"{entry.case.case_id}  {entry.case.patient_key}  {entry.state}")
        print(f"  {entry.case.label}, label provenance: {entry.case.label_rests_on}")


app.command("list")(list_)
app.command("verify")(verify_)
