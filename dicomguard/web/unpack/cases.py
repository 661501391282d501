"""The child that adds uploaded cases to the training archive: it decodes their pictures, so it runs behind the wall.

Message in: folder, archive, curator, source, licence, label, label_provenance, patient, sequence; the folder holds
`index.json`, a list of [form field, file, shown name]. Messages out: `{"case": id, "patient": key, "files": n}` or
`{"refused": sentence}`, then `{"done": true}`. A mask belongs to the image of the same name.
"""

import csv
import json
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from dicomguard import child, part10
from dicomguard.clock import SystemClock
from dicomguard.errors import Refused, Unavailable
from dicomguard.retrain.archive import adding
from dicomguard.retrain.archive.case import LABELS, Label
from dicomguard.retrain.archive.importers import dicom, slices
from dicomguard.retrain.dataset import COLUMNS
from dicomguard.store.files import SystemDisk
from dicomguard.web.unpack import archive, capture

IMAGES, MASKS = "images", "masks"
# The endings that the archive's readers know by content; ours is only a name.
_PICTURE = ".png"
# What lies beside the images on a disc (PS3.10 8.6).
_DIRECTORY = "DICOMDIR"


def add(asked: dict[str, Any], *, say: Callable[[dict[str, Any]], None]) -> None:
    """Lay the files out as the importers want them, and add each case that they find."""
    folder, root = Path(asked["folder"]), Path(asked["archive"])
    files = [(field, folder / file, name) for field, file, name in json.loads((folder / "index.json").read_text())]
    try:
        for new in _cases(folder / "case", files, root=root, asked=asked):
            try:
                case = adding.add(root, new, curator=str(asked["curator"]), clock=SystemClock(), disk=SystemDisk())
            except Refused as error:
                say({"refused": str(error)})
            else:
                say({"case": case.case_id, "patient": case.patient_key, "files": len(case.files)})
    except (Refused, Unavailable) as error:
        say({"refused": str(error)})


def _cases(
    home: Path, files: list[tuple[str, Path, str]], *, root: Path, asked: dict[str, Any]
) -> Iterator[adding.NewCase]:
    label = _label(str(asked["label"]))
    files = [one for one in files if not archive.is_litter(one[2]) and _stem(one[2]).upper() != _DIRECTORY]
    images = [(_stem(name), path) for field, path, name in files if field == IMAGES]
    masks = {_stem(name): path for field, path, name in files if field == MASKS}
    if not images:
        raise Refused("The case has no images. Choose DICOM files, or slices as pictures.")
    images.sort(key=lambda one: capture.natural(one[0]))
    stems = {stem for stem, _ in images}
    if len(stems) < len(images):
        raise Refused("Two images have one name. Give each its own; their order says which are neighbours.")
    if left := sorted(set(masks) - stems):
        raise Refused(f"The mask {left[0]} has no image of the same name. Name each mask as its image.")
    for part in ("images", "masks"):
        (home / part).mkdir(parents=True)
    is_dicom = [part10.is_instance(path) for _, path in images]
    if any(is_dicom) and not all(is_dicom):
        raise Refused("The case mixes DICOM files and pictures. Send them as two cases.")
    rows = []
    for number, (stem, path) in enumerate(images, 1):
        image = home / "images" / f"{number:05d}{'.dcm' if is_dicom[0] else _PICTURE}"
        path.rename(image)
        mask = home / "masks" / f"{number:05d}{_PICTURE}"
        if stem in masks:
            masks[stem].rename(mask)
        rows.append((number, image, mask if stem in masks else None))
    if is_dicom[0]:
        found = dicom.read(
            home / "images",
            archive=root,
            source=asked["source"],
            licence=asked["licence"],
            label=label,
            label_provenance=asked["label_provenance"],
            masks=home / "masks",
        )
    else:
        _write_index(home, rows, asked)
        found = slices.read(home, licence=asked["licence"], label_provenance=asked["label_provenance"])
    for new in found:
        # A folder of planes goes by its masks alone; what the person said must agree with them.
        if new.label != label:
            has = "has masks" if new.label == "tumor" else "nothing is marked"
            raise Refused(f'The case is labelled "{label}" and {has}. Correct the label, or the masks.')
        yield new


def _label(text: str) -> Label:
    for label in LABELS:
        if label == text:
            return label
    raise Refused(f'The label "{text[:40]}" is unknown. Use {" or ".join(LABELS)}.')


def _stem(name: str) -> str:
    return PurePosixPath(name.replace("\\", "/")).stem


def _write_index(home: Path, rows: list[tuple[int, Path, Path | None]], asked: dict[str, Any]) -> None:
    if not asked["patient"]:
        raise Refused("Pictures do not say whose they are. Give a patient key: one word for one person.")
    with (home / "index.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, restval="")
        writer.writeheader()
        for number, image, mask in rows:
            writer.writerow(
                {
                    "source": asked["source"],
                    "patient": asked["patient"],
                    "slice": number,
                    "sequence": asked["sequence"],
                    "file": str(image.relative_to(home)),
                    "mask": str(mask.relative_to(home)) if mask is not None else "",
                }
            )


def main() -> None:
    """Serve one upload and end."""
    pipe = child.parent()
    add(pipe.receive(None), say=pipe.send)
    pipe.send({"done": True})


if __name__ == "__main__":
    main()
