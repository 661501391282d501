"""Test patients as cases, and their forgeries: which slices, which place, which donor, all from one seed.

A case is one study's worth of planes of one person. Forgeries are made by each family in turn on the very same planes,
so the authentic study is the twin of all of them.
"""

import zlib
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dicomguard.analyze.channels import head_mask
from dicomguard.errors import Refused
from dicomguard.retrain import dataset
from dicomguard.retrain.dataset import LOOSE_SOURCES, Series
from dicomguard.retrain.tamper.families import Family
from dicomguard.retrain.tamper.forged import Canvas, Forged, Mask, Pixels
from dicomguard.retrain.tamper.study import Acquisition

# Slices of one case: enough for the series' own median, few enough for a quarter of an hour.
MOST_SLICES = 16
# A forged slice counts from this size on.
SMALLEST_MASK_PX = 64
# Sources with few people give several series of each, which the bootstrap keeps together.
_SERIES_OF_A_PERSON: Mapping[str, int] = {"btp": 2, "openms": 3}
_REACH = 2
_ATTEMPTS = 10
_LEAST_HEAD = 0.08
# Spacing between rows, columns and slices in mm where the planes do not say; it scales lengths, not scores.
_SPACING_MM = (0.9, 0.9, 5.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """Planes of one person that are judged as one study."""

    source: str
    # "source/patient".
    patient: str
    # Names the case within the run; derives its UIDs.
    key: str
    sequence: str
    # Hospital or site, where the source has several.
    group: str
    bits: int
    # Z×H×W stored values.
    pixels: Pixels
    lesion: Mask
    head: Mask
    numbers: tuple[int, ...]
    # touching[i]: plane i+1 is the spatial neighbour of plane i.
    touching: tuple[bool, ...]
    loose: bool

    def acquisition(self, name: str) -> Acquisition:
        """How the writer lays out this case under another name (authentic, or a family)."""
        first = self.numbers[0]
        positions = range(len(self.numbers)) if self.loose else [number - first for number in self.numbers]
        return Acquisition(
            key=f"{self.key}/{name}",
            sequence=self.sequence,
            bits=self.bits,
            spacing_mm=_SPACING_MM[:2],
            positions_mm=tuple(_SPACING_MM[2] * step for step in positions),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Forgery:
    """A family's work on a case."""

    case: Case
    family: Family
    # Index of the first plane that the forger was given.
    first: int
    forged: Forged

    def pixels(self) -> Pixels:
        """The whole case with the forged planes in it."""
        return self.at(1.0)

    def at(self, strength: float) -> Pixels:
        """The same at part of its strength (0…1), rounded to the grid; at 0 the authentic case: an identity forgery."""
        stack = self.case.pixels.copy()
        span = slice(self.first, self.first + self.forged.pixels.shape[0])
        stack[span] = np.rint(stack[span] + np.float32(strength) * (self.forged.pixels - stack[span]))
        return stack

    def twin(self) -> Pixels:
        """The whole case with the forger's authentic planes in it: those of the case, unless he went over them all."""
        stack = self.case.pixels.copy()
        stack[self.first : self.first + self.forged.twin.shape[0]] = self.forged.twin
        return stack

    def mask(self, z: int) -> tuple[Mask, Mask]:
        """H×W forged pixels of a plane of the case, and the band that metrics ignore."""
        at = z - self.first
        if 0 <= at < self.forged.mask.shape[0]:
            alpha = self.forged.alpha[at]
            return self.forged.mask[at], (alpha > 0) & (alpha < 0.1)
        nothing = np.zeros(self.case.pixels.shape[1:], np.bool_)
        return nothing, nothing


def read(root: Path, keys: Collection[str], *, most_people: int | None = None) -> list[Case]:
    """Cases of the test split, or of the given patient keys; ordered by source and person."""
    everything = dataset.read_index(root)
    if keys:
        asked = frozenset(keys)
        wanted = [one for one in everything if one.patient_key in asked]
        if not wanted:
            raise Refused(f"None of the {len(keys)} patients asked for is in {root}. Give keys as source/patient.")
    else:
        wanted = dataset.by_split(everything)["test"]
    by_person: dict[str, dict[str, list[Series]]] = defaultdict(lambda: defaultdict(list))
    for one in wanted:
        by_person[one.source][one.patient_key].append(one)
    cases: list[Case] = []
    for source in sorted(by_person):
        people = sorted(by_person[source])
        for person in people[:most_people]:
            cases += _of_person(root, source, by_person[source][person])
    return cases


def _of_person(root: Path, source: str, series: Sequence[Series]) -> list[Case]:
    if source in LOOSE_SOURCES:
        decoded = [dataset.read_pixels(root, one) for one in series]
        shapes = Counter(one.stored.shape[1:] for one in decoded)
        shape = shapes.most_common(1)[0][0]
        same = [one for one in decoded if one.stored.shape[1:] == shape]
        return [_case(series[0], np.concatenate([o.stored for o in same]), np.concatenate([o.lesion for o in same]))]
    # The sequence on which lesions were drawn first, then the longest.
    order = sorted(series, key=lambda one: (not one.lesion_known, one.sequence != "flair", -len(one.planes), one.key))
    cases = []
    for one in order[: _SERIES_OF_A_PERSON.get(source, 1)]:
        pixels = dataset.read_pixels(root, one)
        cases.append(_case(one, pixels.stored, pixels.lesion, pixels.touching))
    return cases


def _case(series: Series, stored: NDArray[np.generic], lesion: Mask, touching: tuple[bool, ...] | None = None) -> Case:
    count = stored.shape[0]
    centre = int(np.argmax(lesion.sum(axis=(1, 2)))) if lesion.any() else count // 2
    first = max(0, min(centre - MOST_SLICES // 2, count - MOST_SLICES))
    span = slice(first, first + MOST_SLICES)
    pixels = stored[span].astype(np.float32)
    loose = touching is None
    numbers = range(count) if loose else [plane.number for plane in series.planes]
    return Case(
        source=series.source,
        patient=series.patient_key,
        key=series.key,
        sequence=series.sequence,
        group=series.group,
        bits=series.planes[0].bits,
        pixels=pixels,
        lesion=lesion[span],
        head=np.stack([head_mask(plane) for plane in pixels]),
        numbers=tuple(numbers)[span],
        touching=() if touching is None else touching[first : first + pixels.shape[0] - 1],
        loose=loose,
    )


def _rng(seed: int, *names: str) -> np.random.Generator:
    return np.random.default_rng([seed, *(zlib.crc32(name.encode()) for name in names)])


def forge(case: Case, family: Family, donors: Sequence[Case], *, seed: int) -> Forgery | None:
    """One forgery by one family; None when ten places and donors gave nothing of 64 px."""
    rng = _rng(seed, case.key, family.name)
    usable = np.flatnonzero(case.head.mean(axis=(1, 2)) > _LEAST_HEAD)
    marked = np.intersect1d(usable, np.flatnonzero(case.lesion.sum(axis=(1, 2)) >= SMALLEST_MASK_PX))
    others = [other for other in donors if other.patient != case.patient and other.lesion.any()]
    if usable.size == 0:
        return None
    for _ in range(_ATTEMPTS):
        pool = marked if marked.size and rng.random() < 0.7 else usable
        first, last = _run(case, int(pool[rng.integers(pool.size)]))
        donor = _donor(others, rng) if others else None
        canvas = _canvas(case, first, last)
        forged = family.forge(canvas, donor, rng)
        if forged is not None and int(forged.mask.sum(axis=(1, 2)).max()) >= SMALLEST_MASK_PX:
            return Forgery(case=case, family=family, first=first, forged=forged)
    return None


def _run(case: Case, centre: int) -> tuple[int, int]:
    first = last = centre
    while case.touching and first > 0 and case.touching[first - 1] and centre - first < _REACH:
        first -= 1
    while case.touching and last < len(case.touching) and case.touching[last] and last - centre < _REACH:
        last += 1
    return first, last


def _donor(others: Sequence[Case], rng: np.random.Generator) -> Canvas:
    other = others[int(rng.integers(len(others)))]
    marked = np.flatnonzero(other.lesion.any(axis=(1, 2)))
    return _canvas(other, *_run(other, int(marked[rng.integers(marked.size)])))


def _canvas(case: Case, first: int, last: int) -> Canvas:
    span = slice(first, last + 1)
    return Canvas(
        pixels=case.pixels[span],
        lesion=case.lesion[span],
        head=case.head[span],
        low=0.0,
        high=float(2**case.bits - 1),
    )
