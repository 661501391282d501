"""What one run trains and measures on: the accepted cases of one moment, as two folders of planes with an index.

`train/` holds the cases of the splits train and validation, `golden/` those of the frozen golden set; no person is in
both. Every file is verified against its line before it is used. Planes stay in the archive and are named by path; DICOM
is decoded, by the child that analysis uses, to planes of stored values.
"""

import csv
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dicomguard import part10
from dicomguard.analyze.pixels import Reader, Slice, Undecoded
from dicomguard.core import canon
from dicomguard.errors import Broken, Refused
from dicomguard.retrain import dataset
from dicomguard.retrain.archive import contents, golden, pixels
from dicomguard.retrain.archive.case import Case, CaseFile, Split
from dicomguard.retrain.archive.verify import file_fault
from dicomguard.retrain.dataset import COLUMNS

TRAIN, GOLDEN, RECORD = "train", "golden", "frozen.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Frozen:
    """The list that a run works from; kept beside its results."""

    # Hash of the archive's last line at that moment.
    head: str
    # Case ids with the hash over their files.
    train: tuple[tuple[str, str], ...]
    golden: tuple[tuple[str, str], ...]
    # Who added the cases that are trained on.
    curators: tuple[str, ...]
    licences: tuple[str, ...]
    # What the labels rest on, by source; empty in the list of a run from before it was asked.
    label_provenances: tuple[str, ...] = ()

    @property
    def golden_sha256(self) -> str:
        """Identity of the golden set."""
        return canon.sha256([list(member) for member in self.golden])

    def to_json(self) -> dict[str, Any]:
        """JSON value."""
        return asdict(self)

    @classmethod
    def read(cls, folder: Path) -> "Frozen":
        """The list that `freeze` left in a folder."""
        value = json.loads((folder / RECORD).read_bytes())
        pairs = {name: tuple((str(a), str(b)) for a, b in value[name]) for name in ("train", "golden")}
        return cls(
            head=value["head"],
            **pairs,
            curators=tuple(value["curators"]),
            licences=tuple(value["licences"]),
            label_provenances=tuple(value.get("label_provenances", ())),
        )


def freeze(root: Path, out: Path, *, progress: Callable[[int, int], None] | None = None) -> Frozen:
    """Write the two folders and the list; `progress` is told (files done, in all). Can be run twice."""
    now = contents.read(root)
    held_out = golden.cases(now)
    first = contents.first_sources(now.entries)

    def whose(case: Case) -> str:
        return contents.person_key(case.source, case.patient, first)

    kept_back = {whose(case) for case in held_out}
    cases = [entry.case for entry in now.accepted() if entry.case.split != "test"]
    for case in cases:
        if whose(case) in kept_back:
            raise Broken(
                f"A person of the golden set also has the training case {case.case_id} ({case.patient_key}). "
                f"Decline it: `dicomguard archive review --decline {case.case_id} --by NAME`."
            )
    if not any(case.split == "train" for case in cases) or not any(case.split == "validation" for case in cases):
        raise Refused(
            "The archive lacks accepted cases of the split train or validation. Add and review more cases; "
            "`dicomguard archive list` shows the split of each."
        )
    total = sum(len(case.files) for case in (*cases, *held_out))
    done = 0

    def step() -> None:
        nonlocal done
        done += 1
        if progress:
            progress(done, total)

    with Reader() as reader:
        for name, members in ((TRAIN, cases), (GOLDEN, held_out)):
            _write_index(root, out / name, members, first, reader, step)
    _refuse_near_copies(out, {whose(case): case.split for case in (*cases, *held_out)})
    frozen = Frozen(
        head=now.head,
        train=tuple((case.case_id, contents.sha256_of(case)) for case in cases),
        golden=tuple((case.case_id, contents.sha256_of(case)) for case in held_out),
        curators=tuple(sorted({case.curator for case in cases})),
        licences=tuple(sorted({f"{case.source}: {case.licence}" for case in (*cases, *held_out)})),
        label_provenances=tuple(sorted({f"{case.source}: {case.label_rests_on}" for case in (*cases, *held_out)})),
    )
    (out / RECORD).write_bytes(canon.encode(frozen.to_json()))
    return frozen


def _refuse_near_copies(out: Path, split_of: Mapping[str, Split]) -> None:
    """Pictures that are not the same but nearly so would still let a run be measured on what it has learnt."""
    hashes: dict[Split, list[tuple[str, int]]] = {}
    for folder in (out / TRAIN, out / GOLDEN):
        for series in dataset.read_index(folder):
            hashes.setdefault(split_of[series.patient_key], []).extend(dataset.near_copy_hashes(folder, [series]))
    dataset.assert_no_near_copies(hashes)


def _write_index(
    root: Path,
    folder: Path,
    cases: Sequence[Case],
    first: Mapping[str, str],
    reader: Reader,
    step: Callable[[], None],
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "index.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        for case in cases:
            home = (root / contents.CASES / case.case_id).resolve()
            whose = _whose(case, first)
            for one in case.files:
                fault = file_fault(home / one.path, one)
                if fault:
                    raise Broken(f"{one.path} of case {case.case_id}: {fault}")
                writer.writerows({**whose, **row} for row in _row(case, one, home, folder, reader))
                step()


def _whose(case: Case, first: Mapping[str, str]) -> dict[str, str]:
    """Columns of the person. Training splits by them once more, so that nobody may have two keys.

    A source other than that of the person's first case is told as the group, which also keeps their series apart.
    """
    source = first.get(case.patient, case.source)
    group = case.group if source == case.source else case.source
    return {"source": source, "patient": case.patient, "group": group}


def _row(case: Case, file: CaseFile, home: Path, folder: Path, reader: Reader) -> Iterator[dict[str, Any]]:
    if file.role == "mask":
        return
    path, bits, sha256 = home / file.path, file.bits, file.pixel_sha256
    if file.role == "dicom":
        plane, bits = _stored(path, reader)
        path = folder / "planes" / f"{case.case_id}_{path.stem}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(plane).save(path)
        path, sha256 = path.resolve(), pixels.sha256_of(plane)
    yield {
        "slice": file.number,
        "sequence": file.sequence or "other",
        "file": str(path),
        "mask": str(home / file.mask) if file.mask else "",
        "tumor_px": file.marked_px,
        "rows": file.rows,
        "cols": file.columns,
        "bits": bits,
        "sha256": sha256,
    }


def _stored(path: Path, reader: Reader) -> tuple[NDArray[np.uint8] | NDArray[np.uint16], int]:
    """Stored values of a single-frame instance, moved up to begin at 0 where they are signed, and their bits."""
    decoded = reader.read(path, None)
    if isinstance(decoded, Undecoded):
        raise Refused(
            f"{path.name} cannot be decoded ({decoded.reason}). Decline the case and add it again without it."
        )
    return _unscaled(decoded, path)


def _unscaled(decoded: Slice, path: Path) -> tuple[NDArray[np.uint8] | NDArray[np.uint16], int]:
    tags = ("RescaleSlope", "RescaleIntercept", "PixelRepresentation", "BitsStored")
    header = part10.read_dataset_head(path, tags=tags)
    slope, intercept = float(header.get("RescaleSlope") or 1), float(header.get("RescaleIntercept") or 0)
    bits = int(header.BitsStored)
    values = np.rint((decoded.pixels.astype(np.float64) - intercept) / slope)
    if header.get("PixelRepresentation") == 1:
        values += 1 << (bits - 1)
    stored = np.clip(values, 0, (1 << bits) - 1)
    return (stored.astype(np.uint8) if bits <= 8 else stored.astype(np.uint16)), bits
