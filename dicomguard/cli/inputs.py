"""Files that are no Part 10 file and still hold slices: pictures, and datasets without preamble.

PNG, JPEG and TIFF are judged and wrapped by the page's own child, one study for the pictures of a folder. A bare
dataset (as old archives and network dumps have it) gets preamble and meta information around its own bytes.
"""

import json
import shutil
import sys
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import pydicom

from dicomguard import part10
from dicomguard.analyze.folder import Skipped
from dicomguard.child import Child
from dicomguard.errors import DicomguardError, Refused
from dicomguard.web.unpack.capture import EXPLICIT_LITTLE_ENDIAN
from dicomguard.web.unpack.item import Item, Limits

_MEMORY_BYTES = 3 << 30
_CPU_S = 900.0
_SILENT_S = 120.0
_LIMITS = Limits(total_bytes=2 << 30, files=5000, zip_ratio=1)
IMPLICIT_LITTLE_ENDIAN = "1.2.840.10008.1.2"
_IDENTIFIERS = ("SOPClassUID", "SOPInstanceUID")
# Group 0008 in little endian, with which a dataset begins.
_IDENTIFYING_GROUP = b"\x08\x00"
_MAGIC = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def wrap(found: Iterable[Skipped], scratch: Path) -> tuple[list[Path], list[Skipped]]:
    """Of files that are no Part 10 file, those with slices as DICOM files below `scratch`; the rest with its reason."""
    folders: dict[Path, list[Path]] = defaultdict(list)
    made: list[Path] = []
    left: list[Skipped] = []
    for item in found:
        with item.path.open("rb") as file:
            head = file.read(132)
        if head.startswith(_MAGIC):
            folders[item.path.parent].append(item.path)
        elif head[128:] != b"DICM" and head.startswith(_IDENTIFYING_GROUP):
            try:
                made.append(_bare(item.path, scratch / f"bare-{len(made)}.dcm", explicit=head[4:6].isalpha()))
            except Refused:
                left.append(item)
        else:
            left.append(item)
    for number, paths in enumerate(folders.values(), start=1):
        into = scratch / f"pictures-{number}"
        into.mkdir()
        try:
            _folder(paths, into, made, left)
        except DicomguardError as error:
            left += [Skipped(path=path, reason=str(error)) for path in paths]
    return made, left


def _bare(path: Path, made: Path, *, explicit: bool) -> Path:
    """The dataset of `path` as a Part 10 file; raises `Refused` when it is none."""
    try:
        dataset = pydicom.dcmread(path, force=True, stop_before_pixels=True, specific_tags=list(_IDENTIFIERS))
        sop_class, sop_instance = str(dataset.SOPClassUID), str(dataset.SOPInstanceUID)
    except part10.PARSE_ERRORS as error:
        raise Refused("The bytes are no dataset. Export the instance again.") from error
    with made.open("wb") as file:
        part10.write(
            file,
            transfer_syntax_uid=EXPLICIT_LITTLE_ENDIAN if explicit else IMPLICIT_LITTLE_ENDIAN,
            sop_class_uid=sop_class,
            sop_instance_uid=sop_instance,
            dataset_bytes=path.read_bytes(),
            source_ae="",
        )
    return made


def _folder(paths: list[Path], into: Path, made: list[Path], left: list[Skipped]) -> None:
    """Let the child judge and wrap the pictures of one folder; a picture that is no slice is left with its sentence."""
    index = [(f"{place:06d}", path.name) for place, path in enumerate(paths)]
    for (copy, _), path in zip(index, paths, strict=True):
        shutil.copyfile(path, into / copy)
    (into / "index.json").write_text(json.dumps(index), "utf-8")
    argv = [sys.executable, "-m", "dicomguard.web.unpack"]
    one_thread = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    with Child.start(argv, memory_bytes=_MEMORY_BYTES, cpu_s=_CPU_S, env_extra=one_thread) as child:
        child.send({"folder": str(into), "limits": _LIMITS.to_json()})
        while not (message := child.receive(_SILENT_S)).get("done"):
            item = Item.from_json(message)
            if item.kind == "picture":
                made.append(_instance(into, item))
            elif item.kind == "refused":
                named = next((path for path in paths if path.name == item.name), paths[0].parent / item.name)
                left.append(Skipped(path=named, reason=item.sentence))


def _instance(folder: Path, item: Item) -> Path:
    # Only the name below our folder counts, whatever the child says.
    dataset = folder / Path(item.path).name
    path = dataset.with_suffix(".dcm")
    with path.open("wb") as file:
        part10.write(
            file,
            transfer_syntax_uid=EXPLICIT_LITTLE_ENDIAN,
            sop_class_uid=item.sop_class_uid,
            sop_instance_uid=item.sop_instance_uid,
            dataset_bytes=dataset.read_bytes(),
            source_ae="",
        )
    dataset.unlink()
    return path
