"""What the lines of the manifest add up to: the cases with their reviews, and the frozen golden set."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dicomguard.core import canon
from dicomguard.errors import Broken
from dicomguard.retrain.archive import manifest
from dicomguard.retrain.archive.case import Case, Entry

ADDED, REVIEWED, GOLDEN = "case.added", "case.reviewed", "golden.frozen"
CASES = "cases"


@dataclass(frozen=True, slots=True, kw_only=True)
class Golden:
    """The cases that every candidate and incumbent is measured on, named once and never changed."""

    frozen_at: str
    frozen_by: str
    # Case id and the hash over its files, in order of the ids.
    members: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """The whole archive at one moment."""

    entries: tuple[Entry, ...]
    golden: Golden | None
    # Hash of the last line: names this moment.
    head: str

    def accepted(self) -> tuple[Entry, ...]:
        """Cases that a second person has accepted."""
        return tuple(entry for entry in self.entries if entry.state == "accepted")


def read(root: Path) -> Contents:
    """Fold the manifest; raise `Broken` where it cannot be."""
    return fold(manifest.read(root))


def fold(lines: Iterable[manifest.Line]) -> Contents:
    """Entries in the order in which they were added; a later review replaces an earlier one."""
    entries: dict[str, Entry] = {}
    golden: Golden | None = None
    head = manifest.FIRST
    for line in lines:
        head = line.sha256
        # The chain shows a change of the last line to nobody but the head; what it says may then be anything.
        try:
            body = dict(line.body)
            if line.kind == ADDED:
                case = Case.from_json(body)
                entries[case.case_id] = Entry(case=case)
            elif line.kind == REVIEWED:
                entries[body["case_id"]] = _reviewed(entries, line, body)
            elif line.kind == GOLDEN:
                members = tuple((str(case_id), str(sha256)) for case_id, sha256 in body["members"])
                golden = Golden(frozen_at=line.at, frozen_by=line.by, members=members)
            else:
                raise Broken(f'Line {line.number} is of the unknown kind "{line.kind}". Use the version that wrote it.')
        except (KeyError, TypeError, ValueError) as error:
            raise Broken(
                f"Line {line.number} does not say what a line of its kind says. Restore the manifest from a backup."
            ) from error
    return Contents(entries=tuple(entries.values()), golden=golden, head=head)


def _reviewed(entries: dict[str, Entry], line: manifest.Line, body: dict[str, Any]) -> Entry:
    if body["case_id"] not in entries:
        raise Broken(f"Line {line.number} reviews the unknown case {body['case_id']}. Restore the manifest.")
    return replace(
        entries[body["case_id"]],
        state="accepted" if body["accepted"] else "declined",
        reviewer=line.by,
        reviewed_at=line.at,
        remark=body["remark"],
    )


def first_sources(entries: Iterable[Entry]) -> dict[str, str]:
    """Keyed hash of each person of DICOM cases, and the source under which that person first came in."""
    first: dict[str, str] = {}
    for entry in entries:
        if entry.case.deidentified:
            first.setdefault(entry.case.patient, entry.case.source)
    return first


def person_key(source: str, patient: str, first: Mapping[str, str]) -> str:
    """The one key of a person, by which splits go; `first` is of `first_sources`.

    A keyed hash names the same person under every source, and goes by the source of the first case; any other name
    holds within its source.
    """
    return f"{first.get(patient, source)}/{patient}"


def sha256_of(case: Case) -> str:
    """One hash over all files of a case, by path and content."""
    return canon.sha256([[file.path, file.sha256] for file in sorted(case.files, key=lambda f: f.path)])
