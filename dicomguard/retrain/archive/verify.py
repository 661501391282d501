"""Is the archive as it was written: every line, the chain between them, and every file's hash."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dicomguard.errors import Broken
from dicomguard.retrain.archive import contents, manifest
from dicomguard.retrain.archive.case import CaseFile


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """What was looked at and what is wrong."""

    lines: int
    cases: int
    files: int
    faults: tuple[manifest.Fault, ...]
    # Folders that no line names: a copy that was interrupted. Harmless, taken away by the next `add` of that case.
    unnamed: tuple[str, ...]


def verify(root: Path, *, progress: Callable[[int, int], None] | None = None) -> Verification:
    """Check everything; `progress` is told (files done, files in all)."""
    lines, faults = manifest.check(root)
    found = list(faults)
    try:
        entries = contents.fold(lines).entries
    except Broken as error:
        return Verification(
            lines=len(lines),
            cases=0,
            files=0,
            faults=(*found, manifest.Fault(place=f"line {len(lines)}", sentence=str(error))),
            unnamed=(),
        )
    total = sum(len(entry.case.files) for entry in entries)
    done = 0
    for entry in entries:
        for file in entry.case.files:
            path = root / contents.CASES / entry.case.case_id / file.path
            fault = file_fault(path, file)
            if fault:
                found.append(manifest.Fault(place=str(path.relative_to(root)), sentence=fault))
            done += 1
            if progress:
                progress(done, total)
    folders = root / contents.CASES
    named = {entry.case.case_id for entry in entries}
    unnamed = sorted(path.name for path in folders.iterdir() if path.name not in named) if folders.is_dir() else []
    return Verification(lines=len(lines), cases=len(entries), files=total, faults=tuple(found), unnamed=tuple(unnamed))


def file_fault(path: Path, file: CaseFile) -> str:
    """What is wrong with one file; "" when it is as its line says."""
    if not path.is_file():
        return "The file is missing. Restore it from a backup, or decline the case so that it is not trained on."
    with path.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    if digest != file.sha256:
        return (
            f"The file's hash is {digest[:12]}, its line says {file.sha256[:12]}: it was changed after it was added. "
            "Restore it from a backup, or decline the case so that it is not trained on."
        )
    return ""
