"""Evidence of the files: twenty plants of each kind are found, and authentic scans are counted by kind.

Plants are laid into an authentic series of the demonstration (18 slices, 320×320, noise as the scanner made it), whose
headers and background first get what scanners write. All goes through real files, the frozen list and the decoder.
"""

import shutil
import subprocess
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import TypeAlias

import cv2
import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from dicomguard.analyze import counting, evidence
from dicomguard.analyze.evidence.alarms import FALSE_ALARMS
from dicomguard.analyze.pixels import Reader, Slice, Undecoded
from dicomguard.core import english
from dicomguard.retrain import dataset as archive
from tests.conftest import ROOT

PLANTS = 20
Pixels: TypeAlias = NDArray[np.int64]
# Slices changed by a plant; None takes one away. A key of -1 adds one.
Changes: TypeAlias = dict[int, Dataset | None]
Plant: TypeAlias = Callable[[list[Dataset], np.random.Generator], Changes]
Need: TypeAlias = Callable[[str, str], str]
_UID = "1.3.12.2.1107.5.2.19.45152"


def pixels_of(ds: Dataset) -> Pixels:
    return np.asarray(ds.pixel_array, np.int64)


def with_pixels(ds: Dataset, pixels: NDArray[np.generic]) -> Dataset:
    changed = deepcopy(ds)
    values = np.clip(np.rint(pixels), 0, 2**changed.BitsStored - 1).astype("<u2")
    changed.PixelData = values.tobytes()
    changed["PixelData"].VR = "OW"
    changed.add_new("SmallestImagePixelValue", "US", int(values.min()))
    changed.add_new("LargestImagePixelValue", "US", int(values.max()))
    return changed


def with_values(ds: Dataset, **values: object) -> Dataset:
    changed = deepcopy(ds)
    for keyword, value in values.items():
        setattr(changed, keyword, value)
    return changed


def plain() -> list[Dataset]:
    """The series with a scanner's headers and with noise in the air, slices in order."""
    rng = np.random.default_rng(11)
    made = []
    files = sorted((ROOT / "demo" / "scans" / "2-no-tumor").glob("*.dcm"))
    for ds in sorted((pydicom.dcmread(path) for path in files), key=lambda ds: float(ds.ImagePositionPatient[2])):
        pixels = pixels_of(ds)
        ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        ds.BitsStored, ds.HighBit = 12, 11
        number = len(made)
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = f"{_UID}.{1000 + number}"
        ds.Manufacturer, ds.ManufacturerModelName, ds.DeviceSerialNumber = "Maker", "Model", "45152"
        ds.SoftwareVersions, ds.InstanceCreatorUID = "VE11", _UID
        ds.AcquisitionTime = f"1203{number:02d}.500000"
        ds.InstanceCreationDate, ds.InstanceCreationTime = "20200101", "121500"
        ds.LossyImageCompression = "00"
        ds.add_new((0x0019, 0x0010), "LO", "MAKER MR HEADER")
        air = rng.rayleigh(4.0, pixels.shape)
        made.append(with_pixels(ds, np.where(pixels == 0, air, pixels)))
    return made


def _one(base: list[Dataset], rng: np.random.Generator) -> int:
    return int(rng.integers(3, len(base) - 3))


def _some(base: list[Dataset], rng: np.random.Generator) -> list[int]:
    return [int(i) for i in rng.choice(len(base), int(rng.integers(1, 4)), replace=False)]


def _head(pixels: Pixels) -> NDArray[np.intp]:
    return np.argwhere(cv2.erode((pixels > 100).astype(np.uint8), np.ones((41, 41), np.uint8)) > 0)


def identical(base: list[Dataset], rng: np.random.Generator) -> Changes:
    one, other = (int(i) for i in rng.choice(len(base), 2, replace=False))
    return {one: with_pixels(base[one], pixels_of(base[other]))}


def same_noise(base: list[Dataset], rng: np.random.Generator) -> Changes:
    one, other = (int(i) for i in rng.choice(np.arange(3, len(base) - 3), 2, replace=False))
    source, target = pixels_of(base[other]).astype(float), pixels_of(base[one]).astype(float)
    if rng.random() < 0.5:
        return {one: with_pixels(base[one], source * rng.uniform(0.85, 1.15) + rng.uniform(0, 10))}
    places = _head(pixels_of(base[other]))
    row, column = places[rng.integers(len(places))] - 50
    square = (slice(row, row + 100), slice(column, column + 100))
    target[square] = source[square] * rng.uniform(0.9, 1.1)
    return {one: with_pixels(base[one], target)}


def gap(base: list[Dataset], rng: np.random.Generator) -> Changes:
    first = _one(base, rng)
    return {first + i: None for i in range(int(rng.integers(1, 3)))}


def repeat(base: list[Dataset], rng: np.random.Generator) -> Changes:
    own = _one(base, rng)
    noisy = pixels_of(base[own]) + rng.normal(0, 4, base[own].pixel_array.shape)
    uid = f"{_UID}.{9000 + own}"
    again = with_values(with_pixels(base[own], noisy), SOPInstanceUID=uid, InstanceNumber=90 + own)
    again.file_meta.MediaStorageSOPInstanceUID = uid
    return {-1: again}


def times(base: list[Dataset], rng: np.random.Generator) -> Changes:
    own = _one(base, rng)
    hour = int(rng.integers(13, 20)) if rng.random() < 0.5 else int(rng.integers(2, 11))
    return {own: with_values(base[own], AcquisitionTime=f"{hour:02d}1500.000000")}


def jpeg(base: list[Dataset], rng: np.random.Generator) -> Changes:
    changes: Changes = {}
    quality = int(rng.integers(40, 86))
    for own in _some(base, rng):
        pixels = pixels_of(base[own])
        white = float(np.percentile(pixels, 99.9))
        grey = np.clip(pixels / white * 255, 0, 255).astype(np.uint8)
        coded = cv2.imencode(".jpg", grey, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
        changes[own] = with_pixels(base[own], cv2.imdecode(coded, cv2.IMREAD_GRAYSCALE) * (white / 255))
    return changes


def lossy_flag(base: list[Dataset], rng: np.random.Generator) -> Changes:
    return {own: with_values(base[own], LossyImageCompression="01") for own in _some(base, rng)}


def foreign_levels(base: list[Dataset], rng: np.random.Generator) -> Changes:
    own = _one(base, rng)
    pixels = pixels_of(base[own]).astype(np.float32)
    places = _head(pixels_of(base[own]) // 3)
    row, column = places[rng.integers(len(places))]
    radius = rng.uniform(9, 22)
    rows, columns = np.ogrid[: pixels.shape[0], : pixels.shape[1]]
    blob = np.hypot(rows - row, columns - column) < radius
    painted = cv2.GaussianBlur(pixels, (0, 0), 3.0) * rng.uniform(0.8, 1.3) + rng.normal(0, 8, pixels.shape)
    return {own: with_pixels(base[own], np.where(blob, painted, pixels))}


def noise(base: list[Dataset], rng: np.random.Generator) -> Changes:
    own = _one(base, rng)
    pixels = pixels_of(base[own]).astype(np.float32)
    if rng.random() < 0.5:
        return {own: with_pixels(base[own], cv2.GaussianBlur(pixels, (0, 0), rng.uniform(0.8, 1.5)))}
    return {own: with_pixels(base[own], np.abs(pixels + rng.normal(0, rng.uniform(25, 60), pixels.shape)))}


def blurred(base: list[Dataset], rng: np.random.Generator) -> Changes:
    own = _one(base, rng)
    pixels = pixels_of(base[own]).astype(np.float32)
    if rng.random() < 0.5:
        return {own: with_pixels(base[own], cv2.GaussianBlur(pixels, (0, 0), rng.uniform(0.8, 1.5)))}
    scale = float(rng.uniform(0.45, 0.75))
    small = cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return {own: with_pixels(base[own], cv2.resize(small, pixels.shape[::-1], interpolation=cv2.INTER_CUBIC))}


def no_air(base: list[Dataset], rng: np.random.Generator) -> Changes:
    changes: Changes = {}
    for own in _some(base, rng):
        pixels = pixels_of(base[own])
        changes[own] = with_pixels(base[own], np.where(pixels < rng.integers(25, 40), int(rng.integers(0, 3)), pixels))
    return changes


def copied_air(base: list[Dataset], rng: np.random.Generator) -> Changes:
    own = int(rng.integers(len(base)))
    source = own if rng.random() < 0.5 else int(rng.integers(len(base)))
    pixels, other = pixels_of(base[own]), pixels_of(base[source])
    height, width = int(rng.integers(12, 20)), int(rng.integers(90, 140))
    column, there = (int(v) for v in rng.integers(0, pixels.shape[1] - width, 2))
    pixels[1 : 1 + height, there : there + width] = other[-1 - height : -1, column : column + width]
    return {own: with_pixels(base[own], pixels)}


def header(base: list[Dataset], rng: np.random.Generator) -> Changes:
    keyword = str(rng.choice(("Manufacturer", "ManufacturerModelName", "DeviceSerialNumber", "SoftwareVersions")))
    value = str(rng.choice(("", "Editor 3.1", "99")))
    return {own: with_values(base[own], **{keyword: value}) for own in _some(base, rng)}


def writer(base: list[Dataset], rng: np.random.Generator) -> Changes:
    changes: Changes = {}
    meta = rng.random() < 0.5
    for own in _some(base, rng):
        changed = deepcopy(base[own])
        if meta:
            changed.file_meta.ImplementationClassUID = f"1.2.826.0.1.3680043.8.498.{int(rng.integers(1, 99))}"
            changed.file_meta.ImplementationVersionName = "PYDICOM"
        else:
            changed.InstanceCreatorUID = f"1.2.826.0.1.3680043.9.{int(rng.integers(1, 99))}"
        changes[own] = changed
    return changes


def private(base: list[Dataset], rng: np.random.Generator) -> Changes:
    changes: Changes = {}
    for own in _some(base, rng):
        changed = deepcopy(base[own])
        if rng.random() < 0.5:
            del changed[0x0019, 0x0010]
        else:
            changed.add_new((0x0029, 0x0010), "LO", f"EDITOR {int(rng.integers(100))}")
        changes[own] = changed
    return changes


def uid_root(base: list[Dataset], rng: np.random.Generator) -> Changes:
    changes: Changes = {}
    for own in _some(base, rng):
        changed = deepcopy(base[own])
        root = str(rng.choice(("2.25", "1.2.826.0.1.3680043.8.498", "1.2.276.0.7230010.3.1.4")))
        changed.SOPInstanceUID = changed.file_meta.MediaStorageSOPInstanceUID = f"{root}.{int(rng.integers(1 << 60))}"
        changes[own] = changed
    return changes


def created(base: list[Dataset], rng: np.random.Generator) -> Changes:
    day = f"2020{int(rng.integers(2, 13)):02d}{int(rng.integers(1, 29)):02d}"
    return {own: with_values(base[own], InstanceCreationDate=day) for own in _some(base, rng)}


def value_range(base: list[Dataset], rng: np.random.Generator) -> Changes:
    changes: Changes = {}
    for own in _some(base, rng):
        largest = int(pixels_of(base[own]).max() * rng.uniform(0.5, 0.95))
        changed = deepcopy(base[own])
        changed.add_new("LargestImagePixelValue", "US", largest)
        changes[own] = changed
    return changes


def padding(base: list[Dataset], rng: np.random.Generator) -> Changes:
    changes: Changes = {}
    for own in _some(base, rng):
        pixels = pixels_of(base[own])
        changes[own] = with_pixels(base[own], np.where(pixels == 0, rng.integers(1, 9, pixels.shape), pixels))
    return changes


def eight_bits(base: list[Dataset], rng: np.random.Generator) -> Changes:
    white = float(rng.uniform(500, 700))
    return {i: with_pixels(ds, np.clip(pixels_of(ds) / white * 255, 0, 255)) for i, ds in enumerate(base)}


def derived(base: list[Dataset], rng: np.random.Generator) -> Changes:
    if rng.random() < 0.5:
        return {own: with_values(base[own], DerivationDescription="edited") for own in _some(base, rng)}
    return {own: with_values(base[own], ImageType=["DERIVED", "PRIMARY", "M", "SE"]) for own in _some(base, rng)}


def equipment(base: list[Dataset], rng: np.random.Generator) -> Changes:
    item = Dataset()
    item.Manufacturer = f"Editor {int(rng.integers(100))}"
    return {own: with_values(base[own], ContributingEquipmentSequence=[item]) for own in _some(base, rng)}


def synthetic(base: list[Dataset], rng: np.random.Generator) -> Changes:
    return {own: with_values(base[own], SyntheticData="YES") for own in _some(base, rng)}


def signed_and_changed(base: list[Dataset], rng: np.random.Generator) -> Changes:
    changes: Changes = {}
    for own in _some(base, rng):
        changed = deepcopy(base[own])
        if rng.random() < 0.5:
            pixels = pixels_of(changed)
            row, column = rng.integers(40, 280, 2)
            pixels[row : row + 4, column : column + 4] += 1
            changed.PixelData = pixels.astype("<u2").tobytes()
        else:
            changed.PatientID = f"X{int(rng.integers(1000))}"
        changes[own] = changed
    return changes


def unsigned(base: list[Dataset], rng: np.random.Generator) -> Changes:
    changes: Changes = {}
    for own in _some(base, rng):
        changed = deepcopy(base[own])
        del changed.DigitalSignaturesSequence
        changes[own] = changed
    return changes


# Kind → the series it is laid into, and how.
KINDS: dict[str, tuple[str, Plant]] = {
    "identical_pixels": ("plain", identical),
    "same_noise": ("plain", same_noise),
    "position_gap": ("plain", gap),
    "position_repeat": ("plain", repeat),
    "time_order": ("plain", times),
    "compression_traces": ("plain", jpeg),
    "lossy_flag_differs": ("plain", lossy_flag),
    "grey_values_local": ("comb", foreign_levels),
    "noise_step": ("plain", noise),
    "sharpness_differs": ("plain", blurred),
    "background_blank": ("plain", no_air),
    "background_repeats": ("plain", copied_air),
    "header_changes": ("plain", header),
    "writer_differs": ("plain", writer),
    "private_differs": ("plain", private),
    "uid_root_differs": ("plain", uid_root),
    "creation_time": ("plain", created),
    "pixel_range": ("plain", value_range),
    "padding_unused": ("padded", padding),
    "bits_unused": ("plain", eight_bits),
    "derived": ("plain", derived),
    "contributing_equipment": ("plain", equipment),
    "synthetic": ("plain", synthetic),
    "signature_broken": ("signed", signed_and_changed),
    "signature_missing": ("signed", unsigned),
}


class Bench:
    """Series on disk, each plain file decoded once."""

    def __init__(self, folder: Path, reader: Reader) -> None:
        self._folder, self._reader = folder, reader
        self._known: dict[Path, Slice | Undecoded] = {}
        self.series: dict[str, list[Dataset]] = {}
        self._plants = 0

    def keep(self, name: str, series: list[Dataset]) -> None:
        self.series[name] = series
        for index, ds in enumerate(series):
            self._write(ds, self._folder / name / f"{index:03d}.dcm")

    @staticmethod
    def _write(ds: Dataset, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ds.save_as(path, enforce_file_format=True)

    def read(self, path: Path, frame: int | None) -> Slice | Undecoded:
        """`Source` of the counting command."""
        original = path.resolve()
        if original not in self._known or "plant" in original.parts:
            self._known[original] = self._reader.read(path, frame)
        return self._known[original]

    def kinds(self, name: str, changes: Changes) -> Counter[str]:
        # Never the same name twice: the reader holds on to the file that it has decoded last.
        self._plants += 1
        plant = self._folder / "plant" / str(self._plants)
        plant.mkdir(parents=True)
        for index, _ in enumerate(self.series[name]):
            if index not in changes:
                (plant / f"{index:03d}.dcm").symlink_to(self._folder / name / f"{index:03d}.dcm")
        for index, ds in changes.items():
            if ds is not None:
                self._write(ds, plant / f"{index % 1000:03d}.dcm")
        (manifest,) = counting.studies(plant)
        found = counting.of_study(manifest, self)[0]
        shutil.rmtree(plant)
        return Counter(item.kind for item in found)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory, need: Need) -> Iterator[Bench]:
    folder = tmp_path_factory.mktemp("evidence")
    base = plain()
    with Reader() as reader:
        made = Bench(folder, reader)
        made.keep("plain", base)
        made.keep("comb", [with_pixels(ds, 3 * pixels_of(ds)) for ds in base])
        made.keep("padded", [_padded(ds) for ds in base])
        made.keep("signed", [_signed(ds, folder, need) for ds in base])
        yield made


def _padded(ds: Dataset) -> Dataset:
    pixels = np.maximum(pixels_of(ds), 1)
    pixels[:12] = 0
    padded = with_pixels(ds, pixels)
    padded.add_new("PixelPaddingValue", "US", 0)
    return padded


def _signed(ds: Dataset, folder: Path, need: Need) -> Dataset:
    key, certificate = folder / "key.pem", folder / "cert.pem"
    if not key.is_file():
        subject = ["-subj", "/CN=Modality", "-days", "30", "-nodes", "-newkey", "rsa:2048"]
        openssl = [need("openssl", "openssl"), "req", "-x509", *subject, "-keyout", str(key), "-out", str(certificate)]
        subprocess.run(openssl, check=True, capture_output=True, timeout=60)
    ds.save_as(folder / "in.dcm", enforce_file_format=True)
    dcmsign = [need("dcmsign", "dcmtk"), "+s", str(key), str(certificate), "+m2"]
    subprocess.run([*dcmsign, str(folder / "in.dcm"), str(folder / "out.dcm")], check=True, timeout=60)
    return pydicom.dcmread(folder / "out.dcm")


def test_every_kind_has_plants_a_sentence_and_a_count() -> None:
    assert set(KINDS) == set(FALSE_ALARMS) == set(english.FILES) == set(english.FILES_NEXT)
    assert len(KINDS) >= 12


@pytest.mark.parametrize("name", ["plain", "comb", "padded", "signed"])
def test_the_series_without_a_plant_is_silent(bench: Bench, name: str) -> None:
    assert bench.kinds(name, {}) == Counter()


@pytest.mark.parametrize("kind", KINDS)
def test_twenty_plants_are_found(bench: Bench, kind: str) -> None:
    name, plant = KINDS[kind]
    found = [bench.kinds(name, plant(bench.series[name], np.random.default_rng([7, n]))) for n in range(PLANTS)]
    missed = [n for n, kinds in enumerate(found) if kind not in kinds]
    print(f"{kind}: {PLANTS - len(missed)} of {PLANTS} found; beside it {sum(map(Counter, found), Counter())}")
    assert not missed


def test_authentic_series_by_kind(shared_data: Path) -> None:
    """The pixels of authentic planes of all patients; the kinds of headers are counted on DICOM by the command."""
    shown: Counter[str] = Counter()
    series = [one for one in archive.read_index(shared_data) if len(one.planes) >= 5 and one.source != "cheng"]
    for one in series:
        stored = archive.read_pixels(shared_data, one).stored
        stack = [
            evidence.Facts(
                series=one.key,
                sop_instance_uid=str(place),
                frame=None,
                position_mm=None,
                sha256=one.planes[place].sha256,
                blank=bool(plane.min() == plane.max()),
                header={},
            )
            for place, plane in enumerate(stored)
        ]
        kinds = {found.kind for found in evidence.inspect(stack, [plane.astype(np.float32) for plane in stored])}
        shown.update(kinds)
        if kinds:
            print(f"{one.key}: {', '.join(sorted(kinds))}")
    print(f"{len(series)} series: {dict(shown)}")
    assert all(count <= 0.05 * len(series) for count in shown.values())
