"""Cases from a folder of planes listed in `index.csv`, in the columns of `retrain.dataset`.

One case is what one patient has in one group (a study, a visit). Each plane is decoded once, so that the hash of its
pixels is known to be right, and copied as it is.
"""

import csv
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import numpy as np

from dicomguard.errors import Refused
from dicomguard.retrain.archive import pixels
from dicomguard.retrain.archive.adding import NewCase, NewFile
from dicomguard.retrain.archive.case import Label
from dicomguard.retrain.dataset import COLUMNS

# The label's provenance where nobody gives one.
FROM_MASKS = "derived from the masks: a case with a mask is a tumor, one without is not; who drew them is not stated"


def read(
    folder: Path, *, licence: str, label_provenance: str = "", sources: frozenset[str] = frozenset()
) -> Iterator[NewCase]:
    """The cases of a folder, one after the other; `sources` empty takes all."""
    grouped: dict[tuple[str, str, str], list[dict[str, str]]] = defaultdict(list)
    for row in _rows(folder / "index.csv"):
        if not sources or row["source"] in sources:
            grouped[(row["source"], row["patient"], row["group"])].append(row)
    if not grouped:
        raise Refused(
            f"{folder / 'index.csv'} lists no plane of {', '.join(sorted(sources)) or 'any source'}. Name another."
        )
    for (source, patient, group), rows in sorted(grouped.items()):
        files = tuple(file for place, row in enumerate(rows) for file in _files(folder, row, place))
        label: Label = "tumor" if any(file.role == "mask" for file in files) else "no_tumor"
        yield NewCase(
            source=source,
            patient=patient,
            group=group,
            label=label,
            licence=licence,
            files=files,
            label_provenance=label_provenance.strip() or FROM_MASKS,
        )


def _rows(path: Path) -> Iterator[dict[str, str]]:
    if not path.is_file():
        raise Refused(f"{path.parent} has no index.csv. Give a folder with one line a plane in index.csv.")
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
        if missing:
            raise Refused(f'{path} lacks the column "{missing[0]}". Write the columns {", ".join(COLUMNS)}.')
        yield from reader


def _files(folder: Path, row: dict[str, str], place: int) -> Iterator[NewFile]:
    path = _inside(folder, row["file"])
    plane = pixels.read_plane(path)
    sha256 = pixels.sha256_of(plane)
    if row["sha256"] and row["sha256"] != sha256:
        raise Refused(
            f"{row['file']} is not the picture that index.csv lists: its hash differs. Copy the folder again."
        )
    name = f"{place:04d}_{_token(row['sequence'])}_{int(row['slice']):04d}"
    mask = ""
    if row["mask"]:
        mask_path = _inside(folder, row["mask"])
        marked = pixels.read_plane(mask_path)
        if marked.shape != plane.shape:
            raise Refused(f"{row['mask']} is {marked.shape}, its plane {plane.shape}. Give a mask of the plane's size.")
        mask = f"masks/{name}.png"
        yield NewFile(path=mask, source=mask_path, role="mask", marked_px=int(np.count_nonzero(marked > 127)))
    yield NewFile(
        path=f"planes/{name}{path.suffix.lower()}",
        source=path,
        role="plane",
        pixel_sha256=sha256,
        sequence=row["sequence"],
        number=int(row["slice"]),
        rows=plane.shape[0],
        columns=plane.shape[1],
        bits=plane.dtype.itemsize * 8,
        mask=mask,
        marked_px=int(np.count_nonzero(marked > 127)) if mask else 0,
    )


def _inside(folder: Path, relative: str) -> Path:
    if PurePosixPath(relative).is_absolute() or ".." in PurePosixPath(relative).parts:
        raise Refused(f'index.csv names "{relative}", which leads out of the folder. Use paths below it.')
    return folder / relative


def _token(sequence: str) -> str:
    return "".join(letter for letter in sequence.lower() if letter.isalnum())[:12] or "x"
