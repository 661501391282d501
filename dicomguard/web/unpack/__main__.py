"""The child's side: one folder of uploaded files in, one line about each input out.

Message in: `{"folder": …, "limits": {…}}`; the folder holds `index.json`, a list of [file, shown name]. Messages out:
one `Item` an input, then `{"done": true}`. ZIPs are opened in place, pictures decoded, judged and wrapped.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dicomguard import child
from dicomguard.errors import Refused
from dicomguard.web.unpack import archive, capture, picture, scan
from dicomguard.web.unpack.item import Item, Limits

MAGIC_BYTES = 132
ACCEPTED = "DICOM, ZIP, PNG, JPEG and TIFF"


def classify(head: bytes) -> str:
    """dicom, zip, picture, empty, bare (DICOM without its file header), packed or "" by the first 132 bytes."""
    if not head:
        return "empty"
    if head[128:132] == b"DICM":
        return "dicom"
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08")):
        return "zip"
    if head.startswith((b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")):
        return "picture"
    if head.startswith((b"\x1f\x8b", b"7z\xbc\xaf", b"Rar!", b"BZh", b"\xfd7zXZ")):
        return "packed"
    # Group 0002 or 0008 in little endian, as the first element of a dataset.
    if head[:2] in (b"\x02\x00", b"\x08\x00") and len(head) > 8:
        return "bare"
    return ""


def sort(folder: Path, *, limits: Limits, say: Callable[[Item], None]) -> None:
    """Say of each input of the folder what it is, pictures last, as only all of them together name their study."""
    budget = archive.Budget(limits)
    slices: list[tuple[capture.Slice, Path]] = []
    for file, name in json.loads((folder / "index.json").read_text("utf-8")):
        try:
            for item in _open(folder, folder / file, archive.printable(name), depth=0, budget=budget, limits=limits):
                _take(item, folder, slices, say=say, budget=budget, limits=limits)
        except Refused as error:
            say(Item(kind="refused", name=archive.printable(name), sentence=str(error)))
    study = capture.study_uid([item for item, _ in slices])
    waiting = dict(slices)
    for number, page in enumerate(capture.in_order(list(waiting)), start=1):
        path = waiting[page]
        ds = capture.wrap(np.load(path, allow_pickle=False), page, study=study, number=number)
        path.with_suffix(".dataset").write_bytes(capture.dataset_bytes(ds))
        path.unlink()
        say(
            Item(
                kind="picture",
                name=page.name,
                path=path.with_suffix(".dataset").name,
                sop_class_uid=str(ds.SOPClassUID),
                sop_instance_uid=str(ds.SOPInstanceUID),
            )
        )


def _open(folder: Path, path: Path, name: str, *, depth: int, budget: archive.Budget, limits: Limits) -> Iterator[Item]:
    """Files and refusals below one input; ZIPs are followed, and removed when they are empty."""
    with path.open("rb") as file:
        kind = classify(file.read(MAGIC_BYTES))
    if kind != "zip":
        yield Item(kind="unpacked", name=name, path=path.name)
        return
    if depth > limits.zip_depth:
        raise Refused(f"{name} lies {depth} ZIPs deep; {limits.zip_depth} inside another is taken. Unpack it first.")
    for item in archive.extract(path, name=name, into=folder, budget=budget, limits=limits):
        if item.kind == "unpacked":
            yield from _open(folder, folder / item.path, item.name, depth=depth + 1, budget=budget, limits=limits)
        else:
            yield item
    path.unlink()


def _take(
    item: Item,
    folder: Path,
    slices: list[tuple[capture.Slice, Path]],
    *,
    say: Callable[[Item], None],
    budget: archive.Budget,
    limits: Limits,
) -> None:
    if item.kind == "refused":
        say(item)
        return
    path = folder / item.path
    with path.open("rb") as file:
        kind = classify(file.read(MAGIC_BYTES))
    if kind == "dicom":
        say(Item(kind="dicom", name=item.name, path=item.path))
    elif kind == "picture":
        try:
            slices.extend(_slices(path, item.name, budget, limits))
        except Refused as error:
            say(Item(kind="refused", name=item.name, sentence=str(error)))
        path.unlink()
    else:
        path.unlink()
        say(Item(kind="refused", name=item.name, sentence=f"{item.name} {_NOT_TAKEN[kind]}"))


_NOT_TAKEN = {
    "empty": "is empty. Copy or export it again.",
    "bare": "looks like DICOM without its file header. Save it as a DICOM file (Part 10) and send it again.",
    "packed": "is packed by another program than ZIP. Unpack it, or make a ZIP.",
    "": f"is none of {ACCEPTED}. Export the images as one of these.",
}


def _slices(path: Path, name: str, budget: archive.Budget, limits: Limits) -> list[tuple[capture.Slice, Path]]:
    """Decode and judge each page; pixels wait in a file, since all of them may be more than memory."""
    found: list[tuple[capture.Slice, Path]] = []
    for page in picture.pages(path, name=name, limits=limits):
        shown = name if page.number == 1 else f"{name}, page {page.number}"
        answer = scan.decide(page.pixels)
        if isinstance(answer, scan.NoScan):
            raise Refused(
                f"{shown} does not look like a slice of a head scan: {answer.sign}. "
                "Send slices as the scanner made them."
            )
        grey = _grey(page.pixels)
        # Pages are unpacked bytes too: those of a TIFF may share theirs.
        budget.take_bytes(grey.nbytes)
        waiting = path.with_name(f"{path.name}-p{page.number}.npy")
        np.save(waiting, grey, allow_pickle=False)
        item = capture.Slice(name=name, page=page.number, sha256=capture.fingerprint(grey), lossy=page.lossy)
        found.append((item, waiting))
    return found


def _grey(pixels: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
    if pixels.ndim == 2:
        return pixels
    return np.rint(scan.to_grey(pixels)).astype(np.uint8)


def main() -> None:
    """Serve one upload and end."""
    pipe = child.parent()
    asked: dict[str, Any] = pipe.receive(None)
    sort(
        Path(asked["folder"]),
        limits=Limits.from_json(asked["limits"]),
        say=lambda item: pipe.send(item.to_json()),
    )
    pipe.send({"done": True})


if __name__ == "__main__":
    main()
