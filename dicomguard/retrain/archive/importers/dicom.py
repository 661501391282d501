"""Cases from a folder of DICOM files: single-frame CT and MR, one case a study, de-identified on the way.

Masks are pictures beside them: `--masks FOLDER` with a PNG named as the DICOM file it belongs to (or as its SOP
Instance UID), white where the lesion is. Slices get numbers that differ by one where they are neighbours.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
from pydicom.errors import InvalidDicomError

from dicomguard import headers, part10
from dicomguard.core import freeze, geometry, selection
from dicomguard.core.instance import Header
from dicomguard.errors import Refused
from dicomguard.retrain.archive import deidentify, pixels
from dicomguard.retrain.archive.adding import NewCase, NewFile
from dicomguard.retrain.archive.case import Label


@dataclass(frozen=True, slots=True, kw_only=True)
class _Slice:
    path: Path
    header: Header
    mask: Path | None
    number: int = 0


def read(
    folder: Path,
    *,
    archive: Path,
    source: str,
    licence: str,
    label: Label,
    label_provenance: str = "",
    masks: Path | None = None,
) -> Iterator[NewCase]:
    """One case a study found below the folder. Files that are no DICOM are passed over; other objects are refused."""
    key = deidentify.read_key(archive)
    studies: dict[str, list[_Slice]] = defaultdict(list)
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        if part10.is_instance(path):
            header = headers.read_header(path)
            studies[header.study_instance_uid].append(
                _Slice(path=path, header=header, mask=_mask(masks, path, header) if masks else None)
            )
    if not studies:
        raise Refused(f"{folder} has no DICOM file. Give a folder with single-frame CT or MR images.")
    for _, slices in sorted(studies.items()):
        yield _case(slices, key=key, source=source, licence=licence, label=label, label_provenance=label_provenance)


def _mask(masks: Path, path: Path, header: Header) -> Path | None:
    for name in (path.stem, path.name, header.sop_instance_uid):
        if (masks / f"{name}.png").is_file():
            return masks / f"{name}.png"
    return None


def _case(
    slices: list[_Slice], *, key: bytes, source: str, licence: str, label: Label, label_provenance: str
) -> NewCase:
    files: list[NewFile] = []
    patients: set[str] = set()
    removed = private = 0
    series: dict[str, list[_Slice]] = defaultdict(list)
    for one in slices:
        series[one.header.series_instance_uid].append(one)
    for place, (_, members) in enumerate(sorted(series.items())):
        sequence = selection.sequence_group(members[0].header)
        for number, one in _numbered(members):
            cleaned = _cleaned(one.path, key=key, sequence=sequence)
            patients.add(cleaned.patient)
            removed, private = removed + cleaned.removed, private + cleaned.private
            files += _files(one, cleaned, name=f"{place:02d}_{number:04d}", number=number, sequence=sequence)
    if len(patients) > 1:
        raise Refused(f"The study names {len(patients)} patients. Give one person's study at a time.")
    return NewCase(
        source=source,
        patient=patients.pop(),
        group="",
        label=label,
        licence=licence,
        files=tuple(files),
        deidentified=f"{removed} attributes removed, {private} of them private; Patient ID and UIDs replaced by keys",
        label_provenance=label_provenance,
    )


def _cleaned(path: Path, *, key: bytes, sequence: str) -> deidentify.Cleaned:
    try:
        return deidentify.clean(pydicom.dcmread(path), key=key, sequence=sequence)
    except Refused as error:
        raise Refused(f"{path.name}: {error}") from None
    except (InvalidDicomError, OSError, AttributeError, NotImplementedError, ValueError) as error:
        raise Refused(
            f"{path.name} is damaged DICOM ({type(error).__name__}). Leave it out or copy it again."
        ) from error


def _numbered(members: list[_Slice]) -> Iterator[tuple[int, _Slice]]:
    """Slices along the normal; a gap and the begin of another stack leave numbers out."""
    by_key = {str(one.path): one for one in members}
    planes = freeze.planes([(key, one.header, 0) for key, one in by_key.items()])
    number = 1
    for stack in geometry.arrange(planes):
        for placed in stack.planes:
            number += placed.after_gap
            yield number, by_key[placed.key]
            number += 1
        number += 1


def _files(one: _Slice, cleaned: deidentify.Cleaned, *, name: str, number: int, sequence: str) -> Iterator[NewFile]:
    mask, marked_px = "", 0
    if one.mask is not None:
        marked = pixels.read_plane(one.mask)
        if marked.shape != (one.header.rows, one.header.columns):
            raise Refused(
                f"{one.mask.name} is {marked.shape[0]}×{marked.shape[1]}, its slice {one.header.rows}×"
                f"{one.header.columns}. Give a mask of the slice's size."
            )
        mask, marked_px = f"masks/{name}.png", int(np.count_nonzero(marked > 127))
        yield NewFile(path=mask, source=one.mask, role="mask", marked_px=marked_px)
    yield NewFile(
        path=f"dicom/{name}.dcm",
        source=cleaned.content,
        role="dicom",
        pixel_sha256=part10.pixel_sha256(one.path) or "",
        sequence=sequence,
        number=number,
        rows=one.header.rows,
        columns=one.header.columns,
        bits=one.header.bits_stored,
        mask=mask,
        marked_px=marked_px,
    )
