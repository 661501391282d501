"""Make the scans of the demonstration from a folder of real planes, once; they are kept in `demo/scans`.

All four patients belong to the test split: the shipped weights never saw them. The two forgeries are made by the
families of `dicomguard.retrain.tamper`, named below with their seeds; forged instances carry Synthetic Data YES.

    python -m demo.make_scans FOLDER
"""

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom

from dicomguard.analyze.channels import head_mask
from dicomguard.retrain import dataset
from dicomguard.retrain.tamper.families import FAMILIES
from dicomguard.retrain.tamper.forged import Canvas, Forged
from dicomguard.retrain.tamper.study import Acquisition, write_planes

SCANS = Path(__file__).resolve().parent / "scans"
_SYNTHETIC_DATA = 0x0008001C


@dataclass(frozen=True, slots=True, kw_only=True)
class Scan:
    """One study of the demonstration."""

    folder: str
    category: str
    what: str
    # source/patient/group/sequence/first plane, as `dataset.Series.key`.
    series: str
    # Numbers of the planes that are kept.
    planes: tuple[int, ...]
    spacing_mm: tuple[float, float]
    distance_mm: float
    # Of the forgery; "" for an authentic study.
    family: str = ""
    # Plane numbers that the forgery may touch.
    touched: tuple[int, ...] = ()
    donor: str = ""
    seed: int = 0


STUDIES = (
    Scan(
        folder="1-tumor",
        category="real",
        what="1  a brain with a tumor, as scanned",
        series="btp/btp-05/post/t1c/3",
        planes=(3, 6, 10, 11, 12, 13, 14, 16),
        spacing_mm=(0.86, 0.86),
        distance_mm=6.5,
    ),
    Scan(
        folder="2-no-tumor",
        category="absent",
        what="2  a brain without a tumor, as scanned",
        series="openms/openms-12/study2/flair/1",
        planes=tuple(range(14, 32)),
        spacing_mm=(0.72, 0.72),
        distance_mm=3.0,
    ),
    Scan(
        folder="3-tumor-added",
        category="added",
        what="3  a brain without a tumor, one forged in",
        series="openms/openms-01/study1/t1/11",
        planes=tuple(range(13, 30)),
        spacing_mm=(0.72, 0.72),
        distance_mm=3.0,
        family="splice",
        touched=tuple(range(19, 25)),
        donor="btp/btp-05/post/t1c/3",
        seed=370,
    ),
    Scan(
        folder="4-tumor-removed",
        category="removed",
        what="4  a brain with a tumor, forged away",
        series="btp/btp-09/pre/t1c/3",
        planes=(3, 5, 9, 10, 11, 12, 16, 17),
        spacing_mm=(0.86, 0.86),
        distance_mm=6.5,
        family="exemplar",
        touched=(9, 10, 11, 12),
        seed=20,
    ),
)


def canvas_of(pixels: dataset.Pixels, numbers: tuple[int, ...]) -> Canvas:
    """Planes of a series by their numbers."""
    index = {plane.number: i for i, plane in enumerate(pixels.series.planes)}
    chosen = [index[number] for number in numbers]
    stored = pixels.stored[chosen].astype(np.float32)
    heads = np.stack([head_mask(plane) for plane in stored])
    top = float(2 ** pixels.series.planes[0].bits - 1)
    return Canvas(pixels=stored, lesion=pixels.lesion[chosen], head=heads, low=0.0, high=top)


def forge(scan: Scan, every: dict[str, dataset.Series], data: Path, pixels: dataset.Pixels) -> Forged:
    """The forgery of a scan; the first seed at or after its own that fits."""
    kind = "added" if scan.category == "added" else "removed"
    canvas = canvas_of(pixels, scan.touched)
    donor = None
    if scan.donor:
        source = dataset.read_pixels(data, every[scan.donor])
        donor = canvas_of(source, tuple(p.number for p in source.series.planes if p.mask))
    for seed in range(scan.seed, scan.seed + 200):
        forged = FAMILIES[scan.family].forge(canvas, donor, np.random.default_rng(seed))
        if forged is None or forged.kind != kind or int(forged.mask.any(axis=(1, 2)).sum()) < 3:
            continue
        if kind == "added" or not forged.lesion.any():
            return forged
    raise SystemExit(f"{scan.folder}: no forgery of the family {scan.family} fits.")


def write(scan: Scan, every: dict[str, dataset.Series], data: Path) -> None:
    """Write one study; its authentic instances do not say that they are synthetic."""
    pixels = dataset.read_pixels(data, every[scan.series])
    stored = canvas_of(pixels, scan.planes).pixels
    changed: list[int] = []
    if scan.family:
        forged = forge(scan, every, data, pixels)
        for number, plane, mask in zip(scan.touched, forged.pixels, forged.mask, strict=True):
            if mask.any():
                stored[scan.planes.index(number)] = plane
                changed.append(number)
    acquisition = Acquisition(
        key=f"demo/{scan.folder}",
        sequence=pixels.series.sequence,
        bits=pixels.series.planes[0].bits,
        spacing_mm=scan.spacing_mm,
        positions_mm=tuple(number * scan.distance_mm for number in scan.planes),
    )
    folder = SCANS / scan.folder
    for old in folder.glob("*.dcm"):
        old.unlink()
    for (path, _), number in zip(write_planes(stored, acquisition, folder), scan.planes, strict=True):
        instance = pydicom.dcmread(path)
        instance.InstanceNumber = number
        instance.PatientName = f"Demo^{scan.folder[0]}"
        if number not in changed:
            del instance[_SYNTHETIC_DATA]
        instance.compress(pydicom.uid.JPEGLSLossless, generate_instance_uid=False)
        instance.save_as(path)


def main(data: Path) -> None:
    """Write all four studies and what is expected of them."""
    every = {series.key: series for series in dataset.read_index(data)}
    frozen = dataset.frozen_splits()
    for scan in STUDIES:
        assert dataset.split_of(every[scan.series].patient_key, frozen) == "test"
        write(scan, every, data)
    expected = {scan.folder: {"category": scan.category, "what": scan.what} for scan in STUDIES}
    (SCANS / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
