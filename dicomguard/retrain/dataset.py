"""Series with lesion masks for training, split by patient before anything is forged.

Reads a folder of planes listed in `index.csv` (one line a plane; columns in `COLUMNS`). The split of the patients that
the shipped weights know is frozen in `splits/*.json`; a patient who is in no list falls by the hash of the key, so an
archive can grow without moving anybody. Knows no network and no forgery.

Copies among sequences and patients: the same pixels on both sides of a split are refused (`assert_disjoint`), and so
are near copies where an archive is frozen or a training begins (`assert_no_near_copies`).
"""

import csv
import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from itertools import combinations, pairwise
from pathlib import Path
from typing import Literal, TypeAlias, get_args

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dicomguard.errors import Broken, Refused

Split: TypeAlias = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)
COLUMNS = (
    "source",
    "patient",
    "group",
    "slice",
    "sequence",
    "file",
    "mask",
    "tumor_px",
    "rows",
    "cols",
    "bits",
    "sha256",
)
# Shares of the patients, within source and group.
SHARES: Mapping[Split, float] = {"train": 0.55, "validation": 0.15, "test": 0.30}
# Sources whose planes are pictures without neighbours, each its own series.
LOOSE_SOURCES = frozenset({"cheng"})
# Sources whose groups are hospitals; the groups of others are kinds of tumor or times of one scanner.
HOSPITALS_IN = frozenset({"lgg"})
# Where lesions were drawn on another sequence, a marked lesion may be invisible: its loss is ignored.
_LESION_DRAWN_ON = {"lgg": frozenset({"flair"})}
_SEED = 9
# Planes of two people whose difference hashes differ in no more of the 256 bits are near copies. Of 3,473 authentic
# planes the nearest of another person differ in 15, half of them in 50 or more; copies that were scaled, brightened or
# reduced to 8 bits in 0 to 12, after JPEG 75 in 8 (median; 26 at most).
NEAR_COPY_BITS = 12
_EMPTY_BITS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Plane:
    """One line of the index."""

    number: int
    file: str
    # Empty when nothing is marked.
    mask: str
    bits: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """Planes of one patient, sequence and shape in order; a loose picture is a series of one."""

    source: str
    patient: str
    group: str
    sequence: str
    planes: tuple[Plane, ...]

    @property
    def patient_key(self) -> str:
        """Key of the person within all sources."""
        return f"{self.source}/{self.patient}"

    @property
    def key(self) -> str:
        """Key of the series: person, group, sequence, first plane."""
        return f"{self.patient_key}/{self.group}/{self.sequence}/{self.planes[0].number}"

    @property
    def origins(self) -> frozenset[str]:
        """Names of where it comes from: the source, and its group within the source (of lgg, the hospital)."""
        return frozenset((self.source, f"{self.source}/{self.group}"))

    @property
    def lesion_known(self) -> bool:
        """Whether the masks say where a lesion is visible in this sequence."""
        drawn_on = _LESION_DRAWN_ON.get(self.source)
        return drawn_on is None or self.sequence in drawn_on or not any(plane.mask for plane in self.planes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pixels:
    """A series in memory: stored values Z×H×W as read (uint8 or uint16), lesions Z×H×W, and which planes touch."""

    series: Series
    stored: NDArray[np.uint8] | NDArray[np.uint16]
    lesion: NDArray[np.bool_]
    # touching[i]: plane i+1 is the spatial neighbour of plane i; Z-1 long.
    touching: tuple[bool, ...]


def read_index(root: Path) -> tuple[Series, ...]:
    """All series of a data folder, ordered by key; planes ordered by number."""
    path = root / "index.csv"
    if not path.is_file():
        raise Refused(f"The data folder {root} has no index.csv. Give a folder with one line a plane in index.csv.")
    with path.open(newline="") as file:
        reader = csv.DictReader(file)
        missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
        if missing:
            raise Refused(f"{path} lacks the column {missing[0]!r}. Write the columns {', '.join(COLUMNS)}.")
        grouped: dict[tuple[str, ...], list[Plane]] = defaultdict(list)
        for row in reader:
            plane = Plane(
                number=int(row["slice"]),
                file=row["file"],
                mask=row["mask"],
                bits=int(row["bits"]),
                sha256=row["sha256"],
            )
            shape = (row["rows"], row["cols"])
            loose = str(plane.number) + plane.file if row["source"] in LOOSE_SOURCES else ""
            grouped[(row["source"], row["patient"], row["group"], row["sequence"], *shape, loose)].append(plane)
    series = [
        Series(
            source=key[0],
            patient=key[1],
            group=key[2],
            sequence=key[3],
            planes=tuple(sorted(planes, key=lambda p: p.number)),
        )
        for key, planes in grouped.items()
    ]
    return tuple(sorted(series, key=lambda s: (s.key, s.planes[0].file)))


def read_pixels(root: Path, series: Series) -> Pixels:
    """Decode every plane of a series and its mask."""
    stored = np.stack([np.asarray(Image.open(root / plane.file)) for plane in series.planes])
    lesion = np.zeros(stored.shape, dtype=bool)
    for i, plane in enumerate(series.planes):
        if plane.mask:
            lesion[i] = np.asarray(Image.open(root / plane.mask)) > 127
    numbers = [plane.number for plane in series.planes]
    touching = tuple(b - a == 1 for a, b in pairwise(numbers))
    return Pixels(series=series, stored=stored, lesion=lesion, touching=touching)


def frozen_splits() -> dict[str, Split]:
    """Patient key → split, from the lists in the package."""
    frozen: dict[str, Split] = {}
    for entry in sorted(resources.files("dicomguard.retrain.splits").iterdir(), key=lambda e: e.name):
        if entry.name.endswith(".json"):
            lists = json.loads(entry.read_text())
            for split in SPLITS:
                for key in lists[split]:
                    if frozen.setdefault(key, split) != split:
                        raise Broken(
                            f"Patient {key} is in two splits of {entry.name}. Restore the list from the repository."
                        )
    return frozen


def split_of(patient_key: str, frozen: Mapping[str, Split]) -> Split:
    """The frozen split, or for an unknown patient the one that the hash of the key gives."""
    if patient_key in frozen:
        return frozen[patient_key]
    draw = int.from_bytes(hashlib.sha256(patient_key.encode()).digest()[:8], "big") / 2**64
    if draw < SHARES["train"]:
        return "train"
    return "validation" if draw < SHARES["train"] + SHARES["validation"] else "test"


def propose_splits(series: Iterable[Series]) -> dict[str, dict[Split, list[str]]]:
    """Source → split → patient keys: 55/15/30 within source and group, every part at least one patient of a source.

    Used once to freeze the lists; a patient with several groups counts in the first.
    """
    strata: dict[tuple[str, str], set[str]] = defaultdict(set)
    first_group: dict[str, str] = {}
    for one in series:
        # Sources with few people are not divided further: each group would have nobody to test.
        group = first_group.setdefault(one.patient_key, one.group if one.source in {"lgg", "cheng"} else "")
        strata[(one.source, group)].add(one.patient_key)
    rng = np.random.default_rng(_SEED)
    lists: dict[str, dict[Split, list[str]]] = {}
    for (source, _), keys in sorted(strata.items()):
        order = [sorted(keys)[i] for i in rng.permutation(len(keys))]
        tests = max(1, round(SHARES["test"] * len(order)))
        validations = max(1, round(SHARES["validation"] * len(order)))
        parts = lists.setdefault(source, {split: [] for split in SPLITS})
        parts["test"] += order[:tests]
        parts["validation"] += order[tests : tests + validations]
        parts["train"] += order[tests + validations :]
    return {source: {split: sorted(keys) for split, keys in parts.items()} for source, parts in lists.items()}


def by_split(series: Sequence[Series]) -> dict[Split, list[Series]]:
    """Series of each split, asserted disjoint by patient and by pixel hash."""
    frozen = frozen_splits()
    parts: dict[Split, list[Series]] = {split: [] for split in SPLITS}
    for one in series:
        parts[split_of(one.patient_key, frozen)].append(one)
    assert_disjoint(parts)
    return parts


def assert_disjoint(parts: Mapping[Split, Sequence[Series]]) -> None:
    """Raise Broken when a person, or a plane's pixels, appear in two splits."""
    seen: dict[str, Split] = {}
    for split, members in parts.items():
        for one in members:
            for what in (one.patient_key, *(plane.sha256 for plane in one.planes)):
                if seen.setdefault(what, split) != split:
                    raise Broken(
                        f"{what} of {one.key} is in {seen[what]} and in {split}. "
                        "Give one person one key, or drop the copied plane."
                    )


def assert_no_near_copies(hashes: Mapping[Split, Sequence[tuple[str, int]]]) -> None:
    """Raise Broken when planes of two splits are near copies; `hashes` has (name, difference hash) by split.

    Scaled, recompressed, brightened and slightly noisy copies are met; cropped or rotated ones are not. A plane with
    hardly any difference (an empty one) tells nothing and is passed over.
    """
    words = {split: _words([own for _, own in members]) for split, members in hashes.items()}
    for one, other in combinations(hashes, 2):
        for (name, own), row in zip(hashes[one], words[one], strict=True):
            if not len(words[other]) or not _EMPTY_BITS < own.bit_count() < 256 - _EMPTY_BITS:
                continue
            distances = np.bitwise_count(words[other] ^ row).sum(axis=1)
            nearest = int(distances.argmin())
            if distances[nearest] <= NEAR_COPY_BITS:
                raise Broken(
                    f"{name} in {one} and {hashes[other][nearest][0]} in {other} are near copies "
                    f"({distances[nearest]} of 256 bits differ). Give one person one key, or drop the copied plane."
                )


def _words(hashes: Sequence[int]) -> NDArray[np.uint64]:
    """N×4 words of 64 bits."""
    mask = (1 << 64) - 1
    return np.array([[(own >> shift) & mask for shift in (0, 64, 128, 192)] for own in hashes], np.uint64).reshape(
        -1, 4
    )


def near_copy_hashes(root: Path, series: Iterable[Series]) -> list[tuple[str, int]]:
    """Every plane of the series with its difference hash; decodes them all."""
    return [
        (plane.file, difference_hash(np.asarray(Image.open(root / plane.file))))
        for one in series
        for plane in one.planes
    ]


def hashes_of_decoded(pixels: Iterable[Pixels]) -> list[tuple[str, int]]:
    """As `near_copy_hashes`, of series that are in memory."""
    return [
        (plane.file, difference_hash(stored))
        for one in pixels
        for plane, stored in zip(one.series.planes, one.stored, strict=True)
    ]


def difference_hash(plane: NDArray[np.generic]) -> int:
    """256-bit perceptual hash: signs of horizontal differences of a 16×17 reduction; near copies differ in few bits."""
    small = cv2.resize(np.asarray(plane, dtype=np.float32), (17, 16), interpolation=cv2.INTER_AREA)
    bits = (small[:, 1:] > small[:, :-1]).ravel()
    return int("".join("1" if bit else "0" for bit in bits), 2)
