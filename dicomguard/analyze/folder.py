"""Files and folders as frozen studies, for those who analyse without a node.

Headers only; what is no DICOM is named with its reason. Two files of a study with one SOP Instance UID are one instance
when their pixels are equal, and a conflict when they are not, as in the store.
"""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from dicomguard import headers, part10
from dicomguard.core import freeze, uid
from dicomguard.core.instance import Header, Instance
from dicomguard.core.selection import Rule
from dicomguard.core.study import Manifest
from dicomguard.core.verdict import ModelScope
from dicomguard.errors import Refused

# Paths in manifests are relative to this.
ROOT = Path("/")
MOST_FILES = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Skipped:
    """A file that is not part of any study."""

    path: Path
    # A whole sentence.
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """All instances below some paths, by study in the order of their first file."""

    studies: dict[str, list[tuple[Header, Instance]]]
    skipped: tuple[Skipped, ...]


def files_below(paths: Iterable[Path]) -> Iterator[Path]:
    """Files of the paths, folders recursively, each once and in a fixed order; hidden ones are left out."""
    seen: set[Path] = set()
    for path in paths:
        if not path.exists():
            raise Refused(f"{path} does not exist. Give files or folders.")
        below = sorted(path.rglob("*")) if path.is_dir() else [path]
        for file in below:
            real = file.resolve()
            hidden = path.is_dir() and any(part.startswith(".") for part in file.relative_to(path).parts)
            if hidden or not file.is_file() or real in seen:
                continue
            seen.add(real)
            if len(seen) > MOST_FILES:
                raise Refused(f"There are more than {MOST_FILES} files. Give fewer folders at a time.")
            yield real


def gather(paths: Sequence[Path], *, on_file: Callable[[int], None] = lambda count: None) -> Found:
    """Read the headers of all files below `paths`."""
    studies: dict[str, list[tuple[Header, Instance]]] = defaultdict(list)
    copies: dict[tuple[str, str], list[tuple[Instance, Path]]] = defaultdict(list)
    skipped: list[Skipped] = []
    for count, path in enumerate(files_below(paths), start=1):
        on_file(count)
        try:
            header, instance = _read(path)
        except Refused as error:
            skipped.append(Skipped(path=path, reason=str(error)))
            continue
        if header.sop_class_uid == part10.DIRECTORY_CLASS:
            skipped.append(Skipped(path=path, reason="It is a directory of other files (DICOMDIR). It is not needed."))
            continue
        others = copies[header.study_instance_uid, instance.sop_instance_uid]
        if any(_same(path, instance, other, where) for other, where in others):
            skipped.append(Skipped(path=path, reason="It is a second copy of another file. One is enough."))
            continue
        instance = replace(instance, ordinal=len(others))
        others.append((instance, path))
        studies[header.study_instance_uid].append((header, instance))
    return Found(studies=dict(studies), skipped=tuple(skipped))


def manifest_of(
    study_instance_uid: str, copies: Sequence[tuple[Header, Instance]], *, rules: Sequence[Rule], scope: ModelScope
) -> Manifest:
    """The frozen list of one study, as its first revision."""
    return freeze.freeze(
        copies,
        study_instance_uid=study_instance_uid,
        revision=1,
        opened_because="first",
        calling_ae="",
        rules=rules,
        scope=scope,
    )


def _read(path: Path) -> tuple[Header, Instance]:
    meta = part10.read_meta(path)
    header = headers.read_header(path)
    sha256, size = _dataset_sha256(path, meta.dataset_offset)
    # Some converters leave identifiers out; the file is still a scan. Its folder then stands for the study.
    study = header.study_instance_uid or uid.derive("study-of-folder", str(path.parent))
    header = replace(
        header,
        study_instance_uid=study,
        series_instance_uid=header.series_instance_uid or uid.derive("series-of-folder", study),
        sop_instance_uid=header.sop_instance_uid or meta.sop_instance_uid or uid.derive("instance-of-file", sha256),
        sop_class_uid=header.sop_class_uid or meta.sop_class_uid,
    )
    return header, Instance(
        sop_instance_uid=header.sop_instance_uid,
        sop_class_uid=header.sop_class_uid,
        study_instance_uid=header.study_instance_uid,
        series_instance_uid=header.series_instance_uid,
        transfer_syntax_uid=header.transfer_syntax_uid,
        sha256=sha256,
        size_bytes=size,
        path=str(path.relative_to(ROOT)),
        calling_ae="",
        called_ae="",
        address="",
        received_at=datetime.fromtimestamp(path.stat().st_mtime, tz=UTC),
    )


def _dataset_sha256(path: Path, offset: int) -> tuple[str, int]:
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        file.seek(offset)
        while piece := file.read(1 << 20):
            digest.update(piece)
            size += len(piece)
    return digest.hexdigest(), size


def _same(path: Path, instance: Instance, other: Instance, where: Path) -> bool:
    return instance.sha256 == other.sha256 or part10.pixel_sha256(path) == part10.pixel_sha256(where)
