"""Every transfer syntax against decoders not written here: DCMTK's, and the raw twin of each file."""

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file

from dicomguard import headers, part10
from dicomguard.analyze import folder
from dicomguard.analyze.pixels import Reader, Slice, Undecoded
from dicomguard.core.verdict import ModelScope
from dicomguard.errors import Refused
from tests import studies

DCMTK = {
    "1.2.840.10008.1.2.4.50": "dcmdjpeg",
    "1.2.840.10008.1.2.4.51": "dcmdjpeg",
    "1.2.840.10008.1.2.4.57": "dcmdjpeg",
    "1.2.840.10008.1.2.4.70": "dcmdjpeg",
    "1.2.840.10008.1.2.4.80": "dcmdjpls",
    "1.2.840.10008.1.2.4.81": "dcmdjpls",
    "1.2.840.10008.1.2.5": "dcmdrle",
}
COSINE = ("1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51")
Need = Callable[[str, str], str]


@pytest.fixture(scope="module")
def reader() -> Iterator[Reader]:
    with Reader() as one:
        yield one


@pytest.fixture(scope="module")
def unpacked(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dicom")
    for name in ("wg04-syntaxes", "syntaxes-and-odd", "siemens-xa30-enhanced"):
        shutil.unpack_archive(shared_data / "dicom" / f"{name}.tar.xz", folder)
    return folder


def pixels(reader: Reader, path: Path, frame: int | None = None) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    got = reader.read(path, frame)
    assert isinstance(got, Slice), f"{path.name}: {got}"
    return got.pixels


def by_dcmtk(path: Path, need: Need, into: Path) -> Path:
    """The same instance in Explicit VR Little Endian, decoded by DCMTK."""
    syntax = part10.read_meta(path).transfer_syntax_uid
    program = need(DCMTK[syntax], "dcmtk")
    raw = into / f"{path.stem}-raw.dcm"
    subprocess.run([program, str(path), str(raw)], check=True, capture_output=True, timeout=60)
    return raw


def test_wg04_files_in_every_syntax_are_the_same_picture(reader: Reader, unpacked: Path) -> None:
    lossless = ("JLSL", "J2KR", "JPLL", "RLE")
    for series in ("CT2", "MR1", "MR4"):
        first = pixels(reader, unpacked / "wg04-syntaxes" / f"{series}_RLE.dcm")
        span = float(first.max() - first.min())
        for path in sorted((unpacked / "wg04-syntaxes").glob(f"{series}_*.dcm")):
            other = pixels(reader, path)
            if path.stem.split("_")[1] in lossless:
                assert np.array_equal(other, first), path.name
            else:
                assert float(np.abs(other - first).mean()) < 0.02 * span, path.name


def test_same_values_as_dcmtk(reader: Reader, unpacked: Path, need: Need, tmp_path: Path) -> None:
    compared = 0
    for path in sorted(unpacked.rglob("*.dcm")):
        try:
            header = headers.read_header(path)
        except Refused:
            continue
        if header.transfer_syntax_uid not in DCMTK or header.samples_per_pixel != 1:
            continue
        ours, theirs = pixels(reader, path), pixels(reader, by_dcmtk(path, need, tmp_path))
        # Inverse cosine transforms may differ by rounding, a stored level or two; everything else is exact.
        step = float(part10.read_dataset_head(path).get("RescaleSlope", 1) or 1)
        allowed = 2.0 * step if header.transfer_syntax_uid in COSINE else 0.0
        assert float(np.abs(ours - theirs).max()) <= allowed, path.name
        compared += 1
    assert compared >= 12


@pytest.mark.parametrize(
    ("name", "frame", "shape"),
    [
        ("CT_small.dcm", None, (128, 128)),
        ("MR_small.dcm", None, (64, 64)),
        ("MR_small_bigendian.dcm", None, (64, 64)),
        ("MR_small_implicit.dcm", None, (64, 64)),
        ("MR_small_jp2klossless.dcm", None, (64, 64)),
        ("MR_small_jpeg_ls_lossless.dcm", None, (64, 64)),
        ("MR_small_RLE.dcm", None, (64, 64)),
        ("MR_small_padded.dcm", None, (64, 64)),
        ("JPEG2000.dcm", None, (1024, 256)),
        ("examples_palette.dcm", None, (350, 800)),
        ("examples_rgb_color.dcm", None, (240, 320)),
        ("examples_ybr_color.dcm", 2, (240, 320)),
        ("rtdose.dcm", 15, (10, 10)),
        ("JPEG-lossy.dcm", None, (1024, 256)),
    ],
)
def test_pydicoms_own_files(reader: Reader, name: str, frame: int | None, shape: tuple[int, int]) -> None:
    assert pixels(reader, Path(str(get_testdata_file(name, download=False))), frame).shape == shape


def test_mr_small_is_the_same_in_all_its_syntaxes(reader: Reader) -> None:
    names = ("MR_small.dcm", "MR_small_RLE.dcm", "MR_small_jp2klossless.dcm", "MR_small_jpeg_ls_lossless.dcm")
    first, *others = [pixels(reader, Path(str(get_testdata_file(name)))) for name in names]
    assert all(np.array_equal(other, first) for other in others)


def test_enhanced_mr_of_a_real_scanner(reader: Reader, unpacked: Path) -> None:
    path = unpacked / "siemens-xa30-enhanced" / "t1w.dcm"
    whole = pydicom.dcmread(path).pixel_array
    found = folder.gather([path])
    ((uid, copies),) = found.studies.items()
    scope = ModelScope(modalities=("MR",), body_parts=("BRAIN",), sequences=("t1",))
    (plan,) = folder.manifest_of(uid, copies, rules=(), scope=scope).series
    assert (plan.analysed, plan.kind, len(plan.slices)) == (True, "regular", 96)
    positions = [item.position_mm or 0.0 for item in plan.slices]
    assert positions == sorted(positions)
    for item in (plan.slices[0], plan.slices[50], plan.slices[95]):
        assert item.frame is not None
        # This scanner states a slope of one for all frames.
        assert np.array_equal(pixels(reader, path, item.frame), whole[item.frame - 1])
    assert isinstance(reader.read(path, 97), Undecoded)


@pytest.mark.parametrize(
    "syntax",
    ["1.2.840.10008.1.2.5", "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.90"],
    ids=["RLE", "JPEG-LS", "JPEG 2000"],
)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16])
def test_round_trip(reader: Reader, tmp_path: Path, syntax: str, dtype: type[np.integer[Any]]) -> None:
    low = -100 if dtype is np.int16 else 0
    values = np.random.default_rng(2).integers(low, low + 200, (96, 101)).astype(dtype)
    ds = studies.compressed(studies.instance(values), syntax)
    (path,) = studies.save(tmp_path, [ds])
    assert np.array_equal(pixels(reader, path), values)
