"""Fresh twin crops for every training step: an authentic and a forged crop of the same place, treated alike.

A fixed set of forgeries is learnt by heart within minutes, so nothing is kept: each batch is forged anew by the data
worker from the slices of the training patients. Both twins get the same post-processing, flips and crop; sources and
families are drawn by fixed weights, a third of the forgeries are self-blends. Knows no torch; arrays leave as one
dictionary.
"""

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from dicomguard.analyze import channels
from dicomguard.retrain.dataset import Pixels
from dicomguard.retrain.net import scanners, whole_series
from dicomguard.retrain.net.seeds import batch_generator
from dicomguard.retrain.tamper import families, postprocess
from dicomguard.retrain.tamper.forged import Canvas, Forged

# Shares of the batch by source; sources that are absent leave theirs to the others.
SOURCE_WEIGHTS: Mapping[str, float] = {"lgg": 0.33, "cheng": 0.29, "btp": 0.18, "openms": 0.20}
# These families copy from the next slice and find nothing in a single one.
_NEED_NEIGHBOURS = frozenset({"neighbour", "third/between"})
_SELF_BLEND_SHARE = 0.33
# What validation finds least often is drawn more often, and so is a family that is a group by itself.
_FAMILY_WEIGHTS: Mapping[str, float] = {"painted": 1.6, "mirror": 1.6, "neighbour": 1.3, "learned": 2.0}
# How often the crop is placed on the forgery's seam; else anywhere in the head, which trains the quiet.
_SEAM_SHARE = 0.75
_NO_NEIGHBOURS_SHARE = 0.3
# How often a slice of a stack is seen with the scale of a whole series, as the product sees all of them.
_WHOLE_SERIES_SHARE = 0.75
_HEAD_MARGIN = 12
_WIDE_EVERY = 5
# What a forged crop teaches of its kind (`losses.dense_losses`); what was altered or blended is neither.
_ADDED: Mapping[str, float] = {"added": 1.0, "removed": 0.0}
_NEITHER = -1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What a batch looks like."""

    seed: int
    # Twin pairs a batch; each pair gives an authentic and a forged crop.
    pairs: int
    # Side of the square crops, pixels of their scale; a multiple of 32.
    crop: int
    # Side of the crops of every fifth step, of one twin alone: about a whole slice, as the network meets it in a study.
    wide: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Twin:
    """One forged run of slices ready to be looked at, with the plane that shows the forgery best."""

    source: str
    forged: Forged
    # Z×H×W after post-processing.
    pixels: NDArray[np.float32]
    authentic: NDArray[np.float32]
    head: NDArray[np.bool_]
    lesion_before: NDArray[np.bool_]
    lesion_known: bool
    plane: int
    neighbours: bool
    # Row and column of the cut's first pixel in the slice, when it was not turned.
    corner: tuple[int, int]
    # Plane of the series at Z = 0.
    first: int
    # Where the slices stand in a series; None where they are seen by their own scale.
    places: whole_series.Places | None


class TwinMaker:
    """Draws forged twins from the patients of one split; families in `left_out` are never drawn."""

    def __init__(self, pixels: Sequence[Pixels], *, left_out: Collection[str] = ()) -> None:
        self._left_out = frozenset(left_out)
        self._by_source: dict[str, dict[str, list[Pixels]]] = defaultdict(lambda: defaultdict(list))
        self._heads: dict[int, NDArray[np.bool_]] = {}
        self._donors: dict[str, list[tuple[Pixels, int]]] = defaultdict(list)
        # Measured when a series is first drawn.
        self._places: dict[int, tuple[whole_series.Places, ...]] = {}
        for one in pixels:
            self._by_source[one.series.source][one.series.patient].append(one)
            self._heads[id(one)] = np.stack([channels.head_mask(plane.astype(np.float32)) for plane in one.stored])
            if one.series.lesion_known:
                marked = np.flatnonzero(one.lesion.sum(axis=(1, 2)) >= 64)
                self._donors[one.series.sequence] += [(one, int(i)) for i in marked]
        present = {name: weight for name, weight in SOURCE_WEIGHTS.items() if name in self._by_source}
        others = [name for name in self._by_source if name not in SOURCE_WEIGHTS]
        present |= dict.fromkeys(others, 0.25)
        total = sum(present.values())
        self._sources = tuple(present)
        self._weights = np.array([present[name] / total for name in self._sources])

    def draw(
        self,
        rng: np.random.Generator,
        *,
        names: Sequence[str] | None = None,
        processed: bool = True,
        source: str | None = None,
    ) -> Twin | None:
        """A twin of a random patient; None when the drawn family found no place there."""
        chosen = source or str(rng.choice(self._sources, p=self._weights))
        patients = self._by_source[chosen]
        patient = patients[sorted(patients)[rng.integers(len(patients))]]
        return self.draw_in(
            patient[rng.integers(len(patient))],
            rng,
            names=names or _draw_names(rng, self._left_out),
            processed=processed,
        )

    def draw_in(
        self, one: Pixels, rng: np.random.Generator, *, names: Sequence[str], processed: bool, flip: bool = True
    ) -> Twin | None:
        """A twin somewhere in this series."""
        heads = self._heads[id(one)]
        usable = np.flatnonzero(heads.mean(axis=(1, 2)) > channels.SMALLEST_HEAD_SHARE)
        if not len(usable):
            return None
        marked = np.flatnonzero(one.lesion.sum(axis=(1, 2)) >= 40)
        with_lesion = np.intersect1d(usable, marked)
        pool = with_lesion if len(with_lesion) and rng.random() < 0.55 else usable
        first, last = _run(
            one.touching, int(pool[rng.integers(len(pool))]), rng, needed=not _NEED_NEIGHBOURS.isdisjoint(names)
        )
        return self.forge(one, first, last, rng, names=names, processed=processed, flip=flip)

    def forge(
        self,
        one: Pixels,
        first: int,
        last: int,
        rng: np.random.Generator,
        *,
        names: Sequence[str],
        processed: bool = True,
        flip: bool = True,
    ) -> Twin | None:
        """Forge planes first…last (inclusive) of a series."""
        heads = self._heads[id(one)]
        turn = (int(rng.integers(4)), bool(rng.integers(2))) if flip else (0, False)
        cut = _canvas(one, heads, first, last, turn)
        if cut is None:
            return None
        canvas, corner = cut
        donor = self._donor(one, rng)
        # Validation and test see scans as they are.
        scanner = scanners.draw(rng) if processed else None
        if scanner is not None:
            canvas = scanner.apply(canvas)
            same = scanners.of_donor(scanner, rng)
            donor = same.apply(donor) if same is not None and donor is not None else donor
        forged = families.draw(canvas, donor, rng, names=names)
        if forged is None:
            return None
        pixels, authentic = forged.pixels, forged.twin
        if processed:
            operation = postprocess.draw(rng, strength=float(rng.uniform(0.4, 1.0)))
            pixels = operation.apply(pixels, canvas.low, canvas.high)
            authentic = operation.apply(authentic, canvas.low, canvas.high)
        areas = forged.mask.sum(axis=(1, 2))
        if areas.max() < 24:
            return None
        shown = np.flatnonzero(areas >= 0.5 * areas.max())
        return Twin(
            source=one.series.source,
            forged=forged,
            pixels=pixels,
            authentic=authentic,
            head=canvas.head,
            lesion_before=canvas.lesion,
            lesion_known=one.series.lesion_known,
            corner=corner,
            first=first,
            plane=int(shown[rng.integers(len(shown))]),
            neighbours=last > first and rng.random() >= _NO_NEIGHBOURS_SHARE,
            places=self._place(one, rng) if processed else None,
        )

    def _place(self, one: Pixels, rng: np.random.Generator) -> whole_series.Places | None:
        """Any place of this series in three of four draws; None for a loose picture."""
        if id(one) not in self._places:
            heads = self._heads[id(one)]
            usable = np.flatnonzero(heads.mean(axis=(1, 2)) >= channels.SMALLEST_HEAD_SHARE)
            slices = [one.stored[i].astype(np.float32) for i in usable]
            self._places[id(one)] = whole_series.places(slices, [heads[i] for i in usable])
        found = self._places[id(one)]
        if not found or rng.random() >= _WHOLE_SERIES_SHARE:
            return None
        return found[int(rng.integers(len(found)))]

    def _donor(self, one: Pixels, rng: np.random.Generator) -> Canvas | None:
        pool = self._donors.get(one.series.sequence) or [d for donors in self._donors.values() for d in donors]
        for _ in range(6 if pool else 0):
            other, index = pool[rng.integers(len(pool))]
            if other.series.patient_key != one.series.patient_key:
                first, last = _run(other.touching, index, rng)
                found = _canvas(other, self._heads[id(other)], first, last, (0, False))
                return found[0] if found else None
        return None


def _draw_names(rng: np.random.Generator, left_out: Collection[str] = ()) -> tuple[str, ...]:
    """One family: self-blend for a third of the draws, the others by their weights."""
    if rng.random() < _SELF_BLEND_SHARE:
        return ("self-blend",)
    others = [name for name in families.ATTACKS if name not in left_out]
    weights = np.array([_FAMILY_WEIGHTS.get(name, 1.0) for name in others])
    return (str(rng.choice(others, p=weights / weights.sum())),)


def _run(touching: Sequence[bool], centre: int, rng: np.random.Generator, *, needed: bool = False) -> tuple[int, int]:
    """Up to two neighbours around a plane, as far as slices touch; `needed` asks for all of them."""
    reach = 2 if needed else int(rng.integers(0, 3)) if rng.random() < 0.6 else 0
    first = last = centre
    while first > 0 and touching[first - 1] and centre - first < reach:
        first -= 1
    while last < len(touching) and touching[last] and last - centre < reach:
        last += 1
    return first, last


def _canvas(
    one: Pixels, heads: NDArray[np.bool_], first: int, last: int, turn: tuple[int, bool]
) -> tuple[Canvas, tuple[int, int]] | None:
    """Planes cut to the head with a margin, turned and flipped, and the corner of the cut.

    The corner is even: the half scale keeps its grid.
    """
    span = np.s_[first : last + 1]
    rows = np.flatnonzero(heads[span].any(axis=(0, 2)))
    columns = np.flatnonzero(heads[span].any(axis=(0, 1)))
    if len(rows) < 32 or len(columns) < 32:
        return None
    top, left = (max(int(v[0]) - _HEAD_MARGIN, 0) // 2 * 2 for v in (rows, columns))
    box = np.s_[span.start : span.stop, top : int(rows[-1]) + _HEAD_MARGIN, left : int(columns[-1]) + _HEAD_MARGIN]

    def cut(array: NDArray[np.generic]) -> NDArray[np.generic]:
        turned = np.rot90(array[box], turn[0], axes=(1, 2))
        return np.ascontiguousarray(turned[:, :, ::-1] if turn[1] else turned)

    bits = one.series.planes[0].bits
    canvas = Canvas(
        pixels=cut(one.stored).astype(np.float32),
        lesion=cut(one.lesion).astype(bool),
        head=cut(heads).astype(bool),
        low=0.0,
        high=float(2**bits - 1),
    )
    return canvas, (top, left)


def crops(twin: Twin, size: int, rng: np.random.Generator) -> Iterator[dict[str, NDArray[np.generic]]]:
    """Crop pairs of a twin, one at each scale: `x` 2×C×S×S float16 (authentic, forged) and truths."""
    planes = len(twin.pixels)
    touching = [twin.neighbours] * (planes - 1)
    kept = range(planes) if twin.neighbours else range(twin.plane, twin.plane + 1)
    index = twin.plane if twin.neighbours else 0
    touching = touching if twin.neighbours else []
    pairs = []
    for pixels in (twin.authentic, twin.pixels):
        pairs.append(channels.prepare([pixels[i] for i in kept], touching, heads=[twin.head[i] for i in kept]))
    seam = rng.random() < _SEAM_SHARE
    for halved in (False, True):
        prepared = [channels.halved(p) for p in pairs] if halved else pairs
        scales = [one.scale for one in prepared]
        # Half the forged slices are seen with the curve of their authentic twin: as one forged slice of a long series.
        if rng.random() < 0.5:
            scales[1] = scales[0]
        if twin.places is not None:
            scales = [twin.places[halved].of(scale) for scale in scales]
        prepared = [replace(one, scale=scale) for one, scale in zip(prepared, scales, strict=True)]
        yield _cut(twin, prepared, index, halved, seam, size, rng)


def _cut(
    twin: Twin,
    prepared: Sequence[channels.Prepared],
    index: int,
    halved: bool,
    seam: bool,
    size: int,
    rng: np.random.Generator,
) -> dict[str, NDArray[np.generic]]:
    height, width = prepared[0].slices[index].shape
    step = 2 if halved else 1

    def small(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        if not halved:
            return mask
        return channels.halve(mask.astype(np.float32)) >= 0.5

    forged, alpha = twin.forged.mask[twin.plane], twin.forged.alpha[twin.plane]
    place = forged if seam else twin.head[twin.plane]
    rows, columns = np.nonzero(place)
    pick = int(rng.integers(len(rows)))
    reach = size // 3 if seam else size // 2
    centre = [int(v[pick]) // step + int(rng.integers(-reach, reach + 1)) for v in (rows, columns)]
    top = int(np.clip(centre[0] - size // 2, 0, max(height - size, 0)))
    left = int(np.clip(centre[1] - size // 2, 0, max(width - size, 0)))
    region = (top, left, min(top + size, height), min(left + size, width))
    window = np.s_[region[0] : region[2], region[1] : region[3]]
    h, w = region[2] - top, region[3] - left
    x = np.zeros((2, len(channels.NAMES), size, size), dtype=np.float16)
    truth = {name: np.zeros((2, size, size), dtype=np.float16) for name in ("forged", "lesion", "valid")}
    for side, one in enumerate(prepared):
        x[side, :, :h, :w] = one.stack(index, region)
    head = small(twin.head[twin.plane])[window]
    truth["valid"][:, :h, :w] = head
    band = small((alpha > 0) & (alpha < 0.1) & ~forged)[window]
    truth["forged"][1, :h, :w] = small(forged)[window]
    truth["valid"][1, :h, :w] = head & ~band
    truth["lesion"][0, :h, :w] = small(twin.lesion_before[twin.plane])[window]
    truth["lesion"][1, :h, :w] = small(twin.forged.lesion[twin.plane])[window]
    return {
        "x": x,
        **truth,
        "lesion_known": np.full(2, twin.lesion_known, dtype=np.float32),
        "added": np.array([_NEITHER, _ADDED.get(twin.forged.kind, _NEITHER)], dtype=np.float32),
    }


class Batches:
    """Map from step to batch, for a data loader: the batch of a step depends on the seed and the step alone."""

    def __init__(self, maker: TwinMaker, recipe: Recipe, steps: int) -> None:
        self._maker, self._recipe, self._steps = maker, recipe, steps

    def __len__(self) -> int:
        return self._steps

    def __getitem__(self, step: int) -> dict[str, NDArray[np.generic]]:
        rng = batch_generator(self._recipe.seed, step)
        wide = self._recipe.wide > 0 and step % _WIDE_EVERY == _WIDE_EVERY - 1
        # A twin gives a pair at each scale.
        pairs, size = (2, self._recipe.wide) if wide else (self._recipe.pairs, self._recipe.crop)
        parts: list[dict[str, NDArray[np.generic]]] = []
        while len(parts) < pairs:
            twin = self._maker.draw(rng)
            if twin is not None:
                parts += crops(twin, size, rng)
        parts = parts[:pairs]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
