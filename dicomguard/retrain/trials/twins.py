"""Forged slices and their authentic twins of patients who do not train, and figures of whatever judges them.

Every judge (a dense map, a peer, the stock network) sees the same slices and is counted by the same code: slice AUC
within a source against its authentic slices, pixel AUC and F1 at the judge's own mark.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from dicomguard.errors import Refused
from dicomguard.retrain import dataset
from dicomguard.retrain.dataset import Split
from dicomguard.retrain.evaluate import metrics, peers
from dicomguard.retrain.evaluate.metrics import Drawn
from dicomguard.retrain.net.seeds import validation_generator
from dicomguard.retrain.net.shown import SMALLEST_FORGERY, hash_of
from dicomguard.retrain.net.twins import Twin, TwinMaker
from dicomguard.retrain.tamper.families import ATTACKS

Plane: TypeAlias = NDArray[np.float32]
Mask: TypeAlias = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """Neighbouring slices as a judge sees them; it judges the one at `index`."""

    # Z planes H×W.
    planes: Sequence[Plane]
    heads: Sequence[Mask]
    # Whether the planes are neighbours.
    neighbours: bool
    index: int

    @property
    def plane(self) -> Plane:
        """The slice to judge."""
        return self.planes[self.index]

    @property
    def head(self) -> Mask:
        """Its head."""
        return self.heads[self.index]


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What a judge says of a slice: one number, suspicion H×W, and the pixels it marks (None when it marks none)."""

    score: float
    suspicion: Plane
    marked: Mask | None


Judge: TypeAlias = Callable[[View], Said]


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """A forged slice and its twin."""

    source: str
    # `dataset.Series.origins`
    origins: frozenset[str]
    patient: str
    family: str
    authentic: View
    forged: View
    mask: Mask
    # The blend band, which counts nowhere.
    ignored: Mask


def items(data: Path, *, split: Split, per_family: int, seed: int) -> list[Item]:
    """`per_family` forged slices of each family and source, dealt over the patients of a split; no post-processing."""
    if split == "train":
        raise Refused("Patients who trained say nothing of others. Ask for validation or test.")
    series = dataset.by_split(dataset.read_index(data))[split]
    pixels = [dataset.read_pixels(data, one) for one in series]
    if not pixels:
        raise Refused(f"{data} has no series of a {split} patient. Add studies, or use another folder.")
    maker = TwinMaker(pixels)
    by_source: dict[str, list[dataset.Pixels]] = defaultdict(list)
    for one in pixels:
        by_source[one.series.source].append(one)
    found = []
    for source, members in sorted(by_source.items()):
        for name in ATTACKS:
            for k in range(per_family):
                # A stride that no number of series divides spreads a family over the patients.
                index = (k * 7919 + len(name)) % len(members)
                rng = validation_generator(seed, hash_of(source, index, name, k))
                twin = maker.draw_in(members[index], rng, names=(name,), processed=False, flip=False)
                if twin is not None and int(twin.forged.mask[twin.plane].sum()) >= SMALLEST_FORGERY:
                    found.append(_item(twin, members[index].series, name))
    return found


def _item(twin: Twin, series: dataset.Series, family: str) -> Item:
    kept = range(len(twin.pixels)) if twin.neighbours else range(twin.plane, twin.plane + 1)
    authentic = View(
        planes=[twin.authentic[z] for z in kept],
        heads=[twin.head[z] for z in kept],
        neighbours=twin.neighbours,
        index=twin.plane - kept[0],
    )
    mask, alpha = twin.forged.mask[twin.plane], twin.forged.alpha[twin.plane]
    return Item(
        source=twin.source,
        origins=series.origins,
        patient=series.patient_key,
        family=family,
        authentic=authentic,
        forged=replace(authentic, planes=[twin.pixels[z] for z in kept]),
        mask=mask,
        ignored=(alpha > 0) & (alpha < 0.1) & ~mask,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """A judge on one item."""

    source: str
    origins: frozenset[str]
    patient: str
    family: str
    score: float
    twin_score: float
    pixel_auc: float | None
    f1: float


def outcomes(chosen: Sequence[Item], judge: Judge) -> list[Outcome]:
    """What a judge says of each item."""
    found = []
    for item in chosen:
        said, twin = judge(item.forged), judge(item.authentic)
        inside = item.forged.head & ~item.ignored
        marked = np.zeros_like(item.mask) if said.marked is None else said.marked & item.forged.head
        found.append(
            Outcome(
                source=item.source,
                origins=item.origins,
                patient=item.patient,
                family=item.family,
                score=said.score,
                twin_score=twin.score,
                pixel_auc=metrics.auc(
                    said.suspicion[inside & item.mask].tolist(), said.suspicion[inside & ~item.mask].tolist()
                ),
                f1=metrics.overlap(marked, item.mask, item.ignored).f1,
            )
        )
    return found


def slice_auc(found: Sequence[Outcome]) -> Drawn | None:
    """Slice AUC of forged against all authentic slices within a source, mean over families, then sources."""
    by_source = []
    for source in sorted({one.source for one in found}):
        here = [one for one in found if one.source == source]
        quiet = [one.twin_score for one in here]
        people = [one.patient for one in here]
        each = [
            metrics.draw_auc(
                [one.score for one in here if one.family == family],
                [one.patient for one in here if one.family == family],
                quiet,
                people,
            )
            for family in sorted({one.family for one in here})
        ]
        mean = metrics.mean_of([one for one in each if one is not None])
        if mean is not None:
            by_source.append(mean)
    return metrics.mean_of(by_source)


def figures(found: Sequence[Outcome]) -> dict[str, Any]:
    """Slice AUC with interval, pixel AUC and F1 as means over slices."""
    drawn = slice_auc(found)
    interval = drawn.interval() if drawn is not None else None
    pixel = [one.pixel_auc for one in found if one.pixel_auc is not None]
    return {
        "slices": len(found),
        "slice_auc": None if interval is None else round(interval.value, 4),
        "slice_auc_low": None if interval is None else round(interval.low, 4),
        "slice_auc_high": None if interval is None else round(interval.high, 4),
        "pixel_auc": round(sum(pixel) / len(pixel), 4) if pixel else None,
        "f1": round(sum(one.f1 for one in found) / len(found), 4) if found else None,
    }


def line(title: str, row: dict[str, Any]) -> str:
    """Figures as one line of a terminal."""
    if row["slice_auc"] is None:
        return f"{title:<28} nothing to compare"
    return (
        f"{title:<28} slice AUC {row['slice_auc']:.3f} [{row['slice_auc_low']:.3f}, {row['slice_auc_high']:.3f}]  "
        f"pixel AUC {row['pixel_auc']:.3f}  F1 {row['f1']:.3f}  ({row['slices']} slices)"
    )


def peer_judge(peer: peers.Peer) -> Judge:
    """A classical detector as a judge; it has no mark of its own."""

    def judge(view: View) -> Said:
        suspicion = peer(view.plane, view.head)
        return Said(score=peers.score(suspicion, view.head), suspicion=suspicion, marked=None)

    return judge
