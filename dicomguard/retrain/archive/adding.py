"""A case comes into the archive: files first, flushed and renamed into place, then the line that names them.

A stop between the two leaves a folder that no line names; the next attempt to add that case takes it away. A picture
that is there already is refused, and a person stays in the split in which the first case of that person was put, under
whatever source the next one comes.
"""

import hashlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from dicomguard.clock import Clock
from dicomguard.core import canon
from dicomguard.errors import Refused
from dicomguard.retrain import dataset
from dicomguard.retrain.archive import contents, manifest
from dicomguard.retrain.archive.case import Case, CaseFile, Entry, Label, Role, Split

INCOMING = "incoming"
_BLOCK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class NewFile:
    """A file on its way in: bytes to copy as they are, or already made (a de-identified dataset)."""

    # Where it will lie below the case's folder; made by an importer from numbers, never from a received attribute.
    path: str
    source: Path | bytes
    role: Role
    pixel_sha256: str = ""
    sequence: str = ""
    number: int = 0
    rows: int = 0
    columns: int = 0
    bits: int = 0
    mask: str = ""
    marked_px: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class NewCase:
    """A study on its way in."""

    source: str
    patient: str
    group: str
    label: Label
    licence: str
    files: tuple[NewFile, ...]
    deidentified: str = ""
    label_provenance: str = ""


def add(
    root: Path,
    new: NewCase,
    *,
    curator: str,
    clock: Clock,
    disk: manifest.Disk,
    split_of: Callable[[str], Split] | None = None,
) -> Case:
    """Put one case into the archive; durable when this returns. Raise `Refused` with what is wrong with it.

    `split_of` gives a person's split; None: the frozen lists of the package, else the hash of the key.
    """
    _refuse_garbage(new, curator)
    with manifest.locked(root):
        known = contents.read(root).entries if (root / manifest.MANIFEST).is_file() else ()
        _refuse_copies(new, known)
        split = _split(new, known, split_of)
        aside = root / INCOMING / "case"
        shutil.rmtree(aside, ignore_errors=True)
        files = tuple(_lay(aside, file, disk) for file in new.files)
        case = Case(
            case_id=canon.sha256([[file.path, file.sha256] for file in files])[:16],
            source=new.source,
            patient=new.patient,
            group=new.group,
            label=new.label,
            licence=new.licence,
            split=split,
            curator=curator.strip(),
            added_at=clock.now().isoformat(timespec="seconds"),
            files=files,
            deidentified=new.deidentified,
            label_provenance=new.label_provenance.strip(),
        )
        _move_in(root, aside, case, disk)
        manifest.append(root, kind=contents.ADDED, by=curator, body=case.to_json(), clock=clock, disk=disk)
        return case


def _refuse_garbage(new: NewCase, curator: str) -> None:
    for name in ("source", "patient", "group", "licence", "label_provenance"):
        manifest.check_text(name.replace("_", " "), str(getattr(new, name)))
    manifest.check_text("name of the curator", curator.strip())


def _refuse_copies(new: NewCase, known: Sequence[Entry]) -> None:
    if not new.files:
        raise Refused("The case has no files. Give at least one plane or DICOM instance.")
    owner = {pixels: entry.case for entry in known for pixels in entry.case.pixel_hashes}
    seen: set[str] = set()
    for file in new.files:
        if not file.pixel_sha256:
            continue
        if file.pixel_sha256 in owner:
            case = owner[file.pixel_sha256]
            raise Refused(
                f"The pixels of {_shown(file)} are already in the archive, in case {case.case_id} of "
                f"{case.patient_key}. Leave this file out; a copy would stand in two places of training and test."
            )
        if file.pixel_sha256 in seen:
            raise Refused(f"The pixels of {_shown(file)} come twice in this case. Leave one of the two files out.")
        seen.add(file.pixel_sha256)


def _shown(file: NewFile) -> str:
    return file.source.name if isinstance(file.source, Path) else file.path


def _split(new: NewCase, known: Sequence[Entry], split_of: Callable[[str], Split] | None) -> Split:
    key = contents.person_key(new.source, new.patient, contents.first_sources(known))
    split = split_of(key) if split_of else dataset.split_of(key, dataset.frozen_splits())
    theirs = {entry.case.split for entry in known if entry.case.patient_key == key}
    if theirs - {split}:
        raise Refused(
            f'{key} already has cases in "{next(iter(theirs - {split}))}"; one person cannot also be in "{split}". '
            "The frozen lists have changed since: use the version of dicomguard that the archive was begun with."
        )
    return split


def _lay(aside: Path, file: NewFile, disk: manifest.Disk) -> CaseFile:
    """Copy one file in, hashing what is written."""
    relative = PurePosixPath(file.path)
    if relative.is_absolute() or ".." in relative.parts:
        raise Refused(f'"{file.path}" leads out of the case. Use a path below it.')
    target = aside / relative
    target.parent.mkdir(parents=True, exist_ok=True)
    digest, size = hashlib.sha256(), 0
    with disk.create(target) as out:
        for piece in _pieces(file.source):
            disk.write(out, piece)
            digest.update(piece)
            size += len(piece)
        disk.sync(out)
    return CaseFile(
        path=file.path,
        role=file.role,
        sha256=digest.hexdigest(),
        size_bytes=size,
        pixel_sha256=file.pixel_sha256,
        sequence=file.sequence,
        number=file.number,
        rows=file.rows,
        columns=file.columns,
        bits=file.bits,
        mask=file.mask,
        marked_px=file.marked_px,
    )


def _pieces(source: Path | bytes) -> Iterator[bytes]:
    if isinstance(source, bytes):
        yield source
        return
    with source.open("rb") as file:
        while piece := file.read(_BLOCK_BYTES):
            yield piece


def _move_in(root: Path, aside: Path, case: Case, disk: manifest.Disk) -> None:
    for folder in sorted(path for path in (aside, *aside.rglob("*")) if path.is_dir()):
        disk.sync_folder(folder)
    home = root / contents.CASES / case.case_id
    home.parent.mkdir(parents=True, exist_ok=True)
    if home.exists():
        # Its line is missing (a copy would have been refused above), so an earlier attempt stopped just here.
        shutil.rmtree(home)
    disk.rename(aside, home)
    disk.sync_folder(home.parent)
