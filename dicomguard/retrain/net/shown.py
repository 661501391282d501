"""What a network shows of authentic series and of forgeries put into them: the data of calibration and of validation.

A forged run replaces its slices in the authentic series, so that every score is taken as in a real study: beside the
other slices of the same series. No post-processing; families with equal shares; one generator an item.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from dicomguard.analyze import channels
from dicomguard.analyze.net.detector import Detector, Seen
from dicomguard.analyze.scores import FEWEST_FOR_SERIES
from dicomguard.retrain.dataset import Pixels
from dicomguard.retrain.net.seeds import validation_generator
from dicomguard.retrain.net.twins import Twin, TwinMaker
from dicomguard.retrain.tamper import families

# A forged plane counts when the forgery covers at least this many pixels.
SMALLEST_FORGERY = 64
# Slices of a stack that are also looked at alone.
_PICTURES_OF_STACK = 4
# Slices of a short stack: thick slices of a brain are about as few.
_SHORT_STACK = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A series as the network saw it; forged planes when `family` is set."""

    pixels: Pixels
    seen: tuple[Seen, ...]
    # Indices into the planes of `pixels`, one for each of `seen`; a short stack has pixels of its own.
    planes: tuple[int, ...]
    # "" for the authentic series.
    family: str
    kind: str
    # Planes that show the forgery, with their masks H×W of the forgery and of lesions after it.
    forged: tuple[int, ...]
    masks: dict[int, NDArray[np.bool_]]
    lesions: dict[int, NDArray[np.bool_]]
    # A part of a stack looked at by itself, beside the whole: a slice as a loose picture, or a short stack.
    excerpt: bool = False


def authentic(detector: Detector, one: Pixels) -> tuple[Run, channels.Prepared, channels.Prepared] | None:
    """The authentic series; None when no slice shows a head."""
    planes = [plane.astype(np.float32) for plane in one.stored]
    heads = [channels.head_mask(plane) for plane in planes]
    kept = [i for i, head in enumerate(heads) if head.mean() >= channels.SMALLEST_HEAD_SHARE]
    if not kept:
        return None
    touching = [b - a == 1 and one.touching[a] for a, b in pairwise(kept)]
    prepared = channels.prepare([planes[i] for i in kept], touching, heads=[heads[i] for i in kept])
    small = channels.halved(prepared)
    seen = detector.look_at(prepared, small, range(len(kept)))
    lesions = {i: one.lesion[i] for i in kept}
    run = Run(
        pixels=one, seen=tuple(seen), planes=tuple(kept), family="", kind="", forged=(), masks={}, lesions=lesions
    )
    return run, prepared, small


def forgeries(
    detector: Detector,
    series: Sequence[Pixels],
    *,
    seed: int,
    per_family: int,
    processed: bool = False,
    names: Sequence[str] | None = None,
) -> Iterator[Run]:
    """For every series its authentic run, parts of it as loose pictures and short stacks, then forged runs.

    `per_family` items of each source and family: of `names`, else of all attacks that training draws.
    """
    maker = TwinMaker(series)
    by_source: dict[str, list[Pixels]] = {}
    for one in series:
        by_source.setdefault(one.series.source, []).append(one)
    if names is None:
        names = list(families.ATTACKS)
    for source, members in sorted(by_source.items()):
        wanted = [(name, k) for name in names for k in range(per_family)]
        # Items are dealt over the series so that every patient has some of every family.
        dealt: list[list[tuple[str, int]]] = [[] for _ in members]
        for k, item in enumerate(wanted):
            dealt[(k * 7919) % len(members)].append(item)
        for index, one in enumerate(members):
            base = authentic(detector, one)
            if base is None:
                continue
            yield base[0]
            yield from _pictures(detector, base[0])
            yield from _short_stacks(detector, one)
            for name, k in dealt[index]:
                rng = validation_generator(seed, hash_of(source, index, name, k))
                twin = maker.draw_in(one, rng, names=(name,), processed=processed, flip=False)
                if twin is not None:
                    yield _forged(detector, base, twin, name)


def authentic_stacks(detector: Detector, series: Iterable[Pixels]) -> Iterator[Run]:
    """The authentic run of every stack, then parts of it as short stacks."""
    for one in series:
        base = authentic(detector, one)
        if base is not None and len(base[0].planes) >= FEWEST_FOR_SERIES:
            yield base[0]
            yield from _short_stacks(detector, one)


def _pictures(detector: Detector, run: Run) -> Iterator[Run]:
    """Slices of a stack as somebody uploads a picture of each: what a loose picture of an unknown source looks like."""
    if len(run.planes) < FEWEST_FOR_SERIES:
        return
    for plane in run.planes[:: max(1, len(run.planes) // _PICTURES_OF_STACK)]:
        pixels = run.pixels.stored[plane].astype(np.float32)
        seen = detector.look([pixels], [channels.head_mask(pixels)], [])
        yield replace(run, seen=tuple(seen), planes=(plane,), excerpt=True)


def _short_stacks(detector: Detector, one: Pixels) -> Iterator[Run]:
    """The lower end, the middle and the upper end of a stack, each with the scale and the middle of its own slices.

    The fewer slices, the more their middle and spread vary, and the further the strongest of them may stand out. A part
    with too few heads would be judged as loose pictures and is passed over.
    """
    spare = len(one.stored) - _SHORT_STACK
    if spare <= 0:
        return
    for first in sorted({0, spare // 2, spare}):
        span = slice(first, first + _SHORT_STACK)
        touching = one.touching[first : first + _SHORT_STACK - 1]
        base = authentic(detector, replace(one, stored=one.stored[span], lesion=one.lesion[span], touching=touching))
        if base is not None and len(base[0].planes) >= FEWEST_FOR_SERIES:
            yield replace(base[0], excerpt=True)


def hash_of(source: str, index: int, name: str, k: int) -> int:
    """A number for an item that does not change between runs."""
    return int.from_bytes(f"{source}|{index}|{name}|{k}".encode()[-7:], "big")


def _forged(detector: Detector, base: tuple[Run, channels.Prepared, channels.Prepared], twin: Twin, family: str) -> Run:
    run, prepared, small = base
    slices, half = list(prepared.slices), list(small.slices)
    positions = {plane: k for k, plane in enumerate(run.planes)}
    masks, lesions, changed = {}, dict(run.lesions), []
    for z, pixels in enumerate(twin.pixels):
        plane = twin.first + z
        if plane not in positions:
            continue
        top, left = twin.corner
        box = np.s_[top : top + pixels.shape[0], left : left + pixels.shape[1]]
        whole = slices[positions[plane]].copy()
        whole[box] = pixels
        slices[positions[plane]] = whole
        changed.append(positions[plane])
        lesion = lesions[plane].copy()
        lesion[box] = twin.forged.lesion[z]
        lesions[plane] = lesion
        if twin.forged.mask[z].sum() >= SMALLEST_FORGERY:
            mask = np.zeros(whole.shape, dtype=bool)
            mask[box] = twin.forged.mask[z]
            masks[plane] = mask
    for k in changed:
        half[k] = channels.halve(slices[k])
    # A long series keeps its curve and window whatever one to five of its slices become; a short one does not.
    if len(slices) >= FEWEST_FOR_SERIES:
        again = replace(prepared, slices=slices)
        half_again = replace(small, slices=half)
    else:
        again = channels.prepare(slices, prepared.contiguous, heads=prepared.heads)
        half_again = channels.halved(again)
    # Neighbours of a changed slice see it through the channels Z.
    near = sorted({k for c in changed for k in (c - 1, c, c + 1) if 0 <= k < len(slices)})
    fresh = dict(zip(near, detector.look_at(again, half_again, near), strict=True))
    seen = tuple(fresh.get(k, old) for k, old in enumerate(run.seen))
    return Run(
        pixels=run.pixels,
        seen=seen,
        planes=run.planes,
        family=family,
        kind=twin.forged.kind,
        forged=tuple(sorted(masks)),
        masks=masks,
        lesions=lesions,
    )
