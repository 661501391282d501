"""`dicomguard tamper`: a forged study from an authentic one, for drills and tests."""

from pathlib import Path
from typing import Annotated, Literal, cast

import typer
from rich.console import Console

from dicomguard import log, part10
from dicomguard.errors import Refused
from dicomguard.retrain.tamper import families, second_hand, study
from dicomguard.retrain.tamper.forged import Kind

_NAMES = ", ".join(sorted({**families.FAMILIES, **second_hand.SECOND_HAND}))

Paths = Annotated[list[Path], typer.Argument(help="DICOM files or folder of one authentic study.")]
Out = Annotated[Path, typer.Option("--output", help="Folder for the forged study; must be new or empty.")]
Family = Annotated[str | None, typer.Option(help=f"Method of attack: {_NAMES}. Left out: one is drawn.")]
What = Annotated[Literal["added", "removed"] | None, typer.Option("--kind", help="Add a tumor or remove one.")]
Mask = Annotated[Path | None, typer.Option(help="Where the tumor is: DICOM SEG, or .npy of slices×rows×columns.")]
Donor = Annotated[list[Path] | None, typer.Option(help="DICOM of another patient, for families that need tissue.")]
Seed = Annotated[int, typer.Option(help="The same seed makes the same forgery.")]
AsJson = Annotated[bool, typer.Option("--json", help="What was done as JSON on standard output.")]


def command(
    paths: Paths,
    output: Out,
    family: Family = None,
    kind: What = None,
    mask: Mask = None,
    donor: Donor = None,
    seed: Seed = 1,
    as_json: AsJson = False,
) -> None:
    """Forge a study from an authentic one, for drills and tests.

    UIDs are new, in references too, digital signatures are taken off and every instance says Synthetic Data YES;
    forgery.json beside them tells what was changed and where. Patient and private attributes are copied: use studies
    that may be shown.

    Example: dicomguard tamper study/ --output forged/ --kind added --seed 7
    """
    log.configure("WARNING")
    if output.exists() and any(output.iterdir()):
        raise Refused(f"{output} is not empty. Name a new folder, so that forged and authentic files never mix.")
    with Console(stderr=True).status("forging"):
        made = study.forge_study(
            _files(paths),
            output,
            family=family,
            kind=cast(Kind | None, kind),
            mask=mask,
            donor=_files(donor) if donor else None,
            seed=seed,
        )
    if as_json:
        print(made.record.read_text(encoding="utf-8").strip())
        return
    print(f"{made.kind} by {made.family} ({made.variant}), seed {made.seed}: {len(made.forged_slices)} of "
          f"{len(made.files)} slices forged")  # fmt: skip
    print(f"study {made.study_instance_uid} in {made.folder}, marked Synthetic Data; details in {made.record}")


def _files(paths: list[Path]) -> list[Path]:
    found = [
        file
        for path in paths
        for file in (sorted(item for item in path.rglob("*") if item.is_file()) if path.is_dir() else [path])
    ]
    dicom = [file for file in found if part10.is_instance(file)]
    if not dicom:
        raise Refused("There is no DICOM file among the paths. Give the files or the folder of one study.")
    return dicom
