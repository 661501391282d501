"""Results on headers as scanners wrote them: Philips, Siemens Enhanced, sagittal MPRAGE, CT; each through dciodvfy."""

import re
import subprocess
import tarfile
from collections.abc import Callable
from functools import cache
from io import BytesIO
from pathlib import Path

import highdicom
import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from dicomguard.sr import planes
from dicomguard.sr.build import Built
from tests.interop.test_results_gate import ALLOWED
from tests.sr_cases import Case, Mask, Spot, case

Need = Callable[[str, str], str]
ARCHIVES = ["brainix", "sag-anon", "siemens-xa30-enhanced", "philips-ct-phantom"]


@cache
def _headers(folder: Path, name: str) -> tuple[Dataset, ...]:
    """Headers of the largest series of images in an archive."""
    series: dict[str, list[Dataset]] = {}
    with tarfile.open(folder / "dicom" / f"{name}.tar.xz") as archive:
        for member in archive:
            stream = archive.extractfile(member) if member.isfile() else None
            if stream is None:
                continue
            ds = dcmread(BytesIO(stream.read()), stop_before_pixels=True, force=True)
            if "Rows" in ds:
                series.setdefault(str(ds.SeriesInstanceUID), []).append(ds)
    largest = max(series, key=lambda uid: len(series[uid]))
    return tuple(series[largest])


def _case(headers: tuple[Dataset, ...]) -> Case:
    stack: list[tuple[Dataset, int | None]]
    if len(headers) == 1:
        (header,) = headers
        stack = [(header, frame) for frame in range(1, min(6, int(header.NumberOfFrames)) + 1)]
    else:
        stack = [(header, None) for header in headers[:6]]
    made = case("added", [stack], [Spot(category="added", places=[1, 2])], kind="unequal")
    rows, columns = int(headers[0].Rows), int(headers[0].Columns)
    masks = {}
    for key, drawn in made.masks.items():
        masks[key] = [(sop, frame, _wide(mask, rows, columns)) for sop, frame, mask in drawn]
    return Case(verdict=made.verdict, manifest=made.manifest, headers=made.headers, masks=masks)


def _wide(mask: Mask, rows: int, columns: int) -> Mask:
    made = np.zeros((rows, columns), bool)
    made[: mask.shape[0], : mask.shape[1]] = mask
    return made


@pytest.mark.parametrize("name", ARCHIVES)
def test_real_source(name: str, shared_data: Path, need: Need, tmp_path: Path) -> None:
    headers = _headers(shared_data, name)
    made = _case(headers)
    built = made.build()
    assert [item.result.kind for item in built] == ["SEG", "SR"]
    for item in built:
        _validated(item, headers[0], need, tmp_path)
        for keyword in ("PatientName", "PatientID", "StudyID", "AccessionNumber", "StudyDate", "StudyTime"):
            assert str(item.dataset.get(keyword, "")) == str(headers[0].get(keyword, "")), keyword
    seg = highdicom.seg.segread(BytesIO(built[0].data))
    for number, (sop, frame, mask) in enumerate(made.masks["F1"]):
        plane = planes.of(made.headers[sop], frame)
        assert plane is not None and mask.shape == (seg.Rows, seg.Columns)
        if frame is None:
            pixels = seg.get_pixels_by_source_instance([sop], [1], ignore_spatial_locations=True)
        else:
            pixels = seg.get_pixels_by_source_frame(sop, [frame], [1], ignore_spatial_locations=True)
        assert (pixels[0, ..., 0].astype(bool) == mask).all(), number


def _validated(item: Built, header: Dataset, need: Need, folder: Path) -> None:
    """No complaint but the allowed ones, and those that the source itself draws: it is copied as it is."""
    path = folder / f"{item.result.kind}.dcm"
    path.write_bytes(item.data)
    source = folder / "source.dcm"
    header.save_as(source)
    inherited = {_core(line) for line in _complaints(source, need)}
    other = [
        line
        for line in _complaints(path, need)
        if not any(re.fullmatch(pattern, line) for pattern in ALLOWED) and _core(line) not in inherited
    ]
    assert not other, "\n".join(other)


def _complaints(path: Path, need: Need) -> list[str]:
    said = subprocess.run(
        [need("dciodvfy", "dicom3tools"), "-new", str(path)], capture_output=True, text=True, timeout=60, check=False
    )
    return [line for line in (said.stdout + said.stderr).splitlines() if line.startswith(("Error", "Warning"))]


def _core(line: str) -> str:
    """The last attribute of the path and what is said of it."""
    return line.partition("- <")[2].rpartition("/")[2]
