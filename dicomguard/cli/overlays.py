"""Overlay PNGs beside a verdict: each slice of each finding with its outline."""

import io
import re
from pathlib import Path

import numpy as np
from PIL import Image

from dicomguard import headers
from dicomguard.analyze import masks
from dicomguard.analyze.client import Previews
from dicomguard.core.freeze import hashed
from dicomguard.core.study import Manifest, SliceFile
from dicomguard.core.verdict import Verdict
from dicomguard.errors import Refused
from dicomguard.sr import overlay

_UID = re.compile(r"[0-9]+(\.[0-9]+)*")
# Small slices are shown larger, by whole pixels.
_SHOWN_SIDE = 512


def place(output: Path, study_instance_uid: str) -> Path:
    """Folder of one study: its UID, or a hash where that is no UID and could lead out of `output`."""
    plain = _UID.fullmatch(study_instance_uid) and len(study_instance_uid) <= 64
    return output / (study_instance_uid if plain else f"study-{hashed(study_instance_uid)}")


def write(verdict: Verdict, manifest: Manifest, *, root: Path, into: Path) -> int:
    """Write `F1-001.png` … for every slice with findings, all its outlines in one picture; returns how many."""
    if verdict.masks is None:
        return 0
    files = {
        (item.sop_instance_uid, item.frame): item
        for plan in manifest.series
        for item in plan.slices
        if not item.skipped
    }
    by_sop = {uid: item for (uid, _), item in files.items()}
    sizes: dict[str, tuple[int, int]] = {}

    def size_of(uid: str) -> tuple[int, int]:
        if uid not in sizes:
            header = headers.read_header(root / by_sop[uid].path)
            sizes[uid] = (header.rows, header.columns)
        return sizes[uid]

    kept = masks.unpack((into / verdict.masks.file).read_bytes(), verdict.findings, size_of)
    category = {finding.id: finding.category for finding in verdict.findings}
    count = 0
    with Previews() as previews:
        for finding_id, slices in kept.items():
            for number, (uid, frame, _) in enumerate(slices, start=1):
                shown = [
                    (mask, category[other])
                    for other, items in kept.items()
                    for sop, place_, mask in items
                    if (sop, place_) == (uid, frame)
                ]
                picture = _grey(previews, root, files[(uid, frame)])
                scale = max(1, _SHOWN_SIDE // max(picture.shape))
                rgb = overlay.render(picture, shown, scale=min(scale, 4))
                Image.fromarray(rgb).save(into / f"{finding_id}-{number:03d}.png")
                count += 1
    return count


def _grey(previews: Previews, root: Path, item: SliceFile) -> "np.ndarray[tuple[int, ...], np.dtype[np.uint8]]":
    try:
        png = previews.frame(root / item.path, item.frame).png
    except Refused as error:
        raise Refused(f"An overlay cannot be drawn. {error}") from error
    return np.asarray(Image.open(io.BytesIO(png)).convert("L"), dtype=np.uint8)
