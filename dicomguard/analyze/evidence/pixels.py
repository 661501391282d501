"""What the pixels of a stack say when its slices are compared: noise, sharpness, compression, levels, background.

Measured on whole slices against the slices beside them; what one region of a slice betrays is the network's business,
except grey levels that the series does not have.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from dicomguard.analyze.evidence import copies
from dicomguard.analyze.evidence.facts import Facts, Found
from dicomguard.analyze.evidence.levels import Levels
from dicomguard.analyze.evidence.plane import Mask, Plane, head_of, stored_of, usual, widened

# Slices with less head than this are not compared.
_LEAST_HEAD = 0.08
# Slices on each side that a slice is compared with; series change slowly along their axis.
_REACH = 2
# Of authentic series the next ones differ by at most 0.8 … 1.3 (noise) and 0.89 … 1.3 (sharpness).
_NOISE_BELOW, _NOISE_ABOVE = 0.6, 1.6
_SHARP_BELOW, _SHARP_ABOVE = 0.75, 1.5
# Differences across block borders over those inside blocks; authentic slices stay below 1.1.
_GRID = 1.15
_GRID_HALFWAY = 1.08
_BLANK, _NOT_BLANK = 0.97, 0.6
_FEWEST_BACKGROUND = 1000
# Larger planes are no slices of a head.
_LARGEST = 1 << 22


@dataclass(frozen=True, slots=True, kw_only=True)
class _Traits:
    """One slice."""

    head: float
    # Mean absolute diagonal detail inside the head, and its ratio to that of the next coarser scale.
    noise: float
    sharpness: float
    # Blockiness at borders that are multiples of 8, against the median and against the border halfway.
    grid: float
    halfway: float
    # Share of background pixels that have the most frequent value; None without background.
    blank: float | None


def inspect(stack: Sequence[Facts], planes: Sequence[Plane]) -> tuple[Found, ...]:
    """What the pixels of a stack (H×W each, modality units, one shape, in order) say; `stack` names them.

    Slices are gone through one by one, three times at most: nothing of the size of the stack is held.
    """
    if not planes or planes[0].size > _LARGEST:
        return ()
    traits, signs, strips = [], [], []
    levels = Levels()
    for item, plane in zip(stack, planes, strict=True):
        stored = stored_of(plane, item.header.get("rescale"))
        head = head_of(stored)
        traits.append(_measure(stored, head))
        signs.append(copies.signs(stored, head))
        strips.append(copies.strips(stored, head))
        levels.span(stored, head)
    return (
        *_steps(stack, traits),
        *_compressed(stack, traits),
        *_blank(stack, traits),
        *copies.same_noise(stack, signs),
        *copies.background(stack, strips),
        *_foreign_levels(stack, planes, levels),
    )


def _foreign_levels(stack: Sequence[Facts], planes: Sequence[Plane], levels: Levels) -> Iterable[Found]:
    def stored() -> Iterable[Plane]:
        return (stored_of(plane, item.header.get("rescale")) for item, plane in zip(stack, planes, strict=True))

    if not levels.countable:
        return
    for plane in stored():
        levels.count(plane)
    if not levels.comb:
        return
    refs = tuple(item.ref for item, plane in zip(stack, stored(), strict=True) if levels.foreign(plane, head_of(plane)))
    if refs:
        yield Found(kind="grey_values_local", strength="strong", parameters={}, slices=refs)


def _measure(plane: Plane, head: Mask) -> _Traits:
    share = float(head.mean())
    if share < _LEAST_HEAD:
        return _Traits(head=share, noise=0, sharpness=0, grid=1, halfway=1, blank=None)
    coarse, fine = _details(plane)
    _, middle = _details(coarse)
    noise = float(np.abs(fine[head[: 2 * fine.shape[0] : 2, : 2 * fine.shape[1] : 2]]).mean())
    rough = float(np.abs(middle[head[: 4 * middle.shape[0] : 4, : 4 * middle.shape[1] : 4]]).mean())
    grids = [_grid(plane, head), _grid(np.ascontiguousarray(plane.T), head.T)]
    return _Traits(
        head=share,
        noise=noise,
        sharpness=noise / max(rough, 1e-6),
        grid=float(np.mean([grid for grid, _ in grids])),
        halfway=float(np.mean([halfway for _, halfway in grids])),
        blank=_most_frequent(plane, head),
    )


def _details(plane: Plane) -> tuple[Plane, Plane]:
    """Haar: mean of each 2×2 block, and its diagonal detail with the noise level kept."""
    even = plane[: plane.shape[0] // 2 * 2, : plane.shape[1] // 2 * 2]
    a, b, c, d = even[::2, ::2], even[::2, 1::2], even[1::2, ::2], even[1::2, 1::2]
    return np.asarray((a + b + c + d) / 4, np.float32), np.asarray((a - b - c + d) / 2, np.float32)


def _grid(plane: Plane, head: Mask) -> tuple[float, float]:
    """Third differences along rows: those across columns 8n over the median column, and over columns 8n + 4."""
    across = np.abs(plane[:, :-3] - 3 * plane[:, 1:-2] + 3 * plane[:, 2:-1] - plane[:, 3:])
    inside = head[:, 2:-1]
    if not inside.any():
        return 1.0, 1.0
    # Edges of the anatomy would drown the grid.
    across = np.minimum(across, np.percentile(across[inside], 90)) * inside
    sums, counts = across.sum(axis=0), inside.sum(axis=0)
    phase = (np.arange(len(sums)) + 2) % 8
    means = np.array([sums[phase == p].sum() / max(1, counts[phase == p].sum()) for p in range(8)])
    return float(means[0] / max(float(np.median(means)), 1e-6)), float(means[0] / max(float(means[4]), 1e-6))


def _most_frequent(plane: Plane, head: Mask) -> float | None:
    background = plane[~widened(head)]
    if background.size < _FEWEST_BACKGROUND:
        return None
    return float((background == usual(background)).mean())


def _beside(traits: Sequence[_Traits], index: int) -> list[_Traits]:
    """Slices with a head, up to two on each side; empty at the ends, where series fade."""
    before = [t for t in traits[max(0, index - _REACH) : index] if t.head >= _LEAST_HEAD]
    after = [t for t in traits[index + 1 : index + 1 + _REACH] if t.head >= _LEAST_HEAD]
    return [*before, *after] if before and after and len(before) + len(after) > _REACH else []


def _outside(value: float, others: Sequence[float], below: float, above: float) -> float | None:
    """The ratio to the nearest of the others when it is out of bounds on the same side of all of them."""
    low, high = min(others), max(others)
    if low > 0 and value < below * low:
        return value / low
    if high > 0 and value > above * high:
        return value / high
    return None


def _steps(stack: Sequence[Facts], traits: Sequence[_Traits]) -> Iterable[Found]:
    blurred = []
    for index, own in enumerate(traits):
        others = _beside(traits, index) if own.head >= _LEAST_HEAD else []
        if not others:
            continue
        ratio = _outside(own.noise, [t.noise for t in others], _NOISE_BELOW, _NOISE_ABOVE)
        if ratio is not None:
            yield Found(
                kind="noise_step",
                strength="notable",
                parameters={"percent": float(round(100 * abs(ratio - 1)))},
                slices=(stack[index].ref,),
            )
        if _outside(own.sharpness, [t.sharpness for t in others], _SHARP_BELOW, _SHARP_ABOVE) is not None:
            blurred.append(stack[index].ref)
    if blurred:
        yield Found(kind="sharpness_differs", strength="notable", parameters={}, slices=tuple(blurred))


def _compressed(stack: Sequence[Facts], traits: Sequence[_Traits]) -> Iterable[Found]:
    refs = tuple(
        item.ref
        for item, own in zip(stack, traits, strict=True)
        if own.grid > _GRID
        and own.halfway > _GRID_HALFWAY
        and item.header.get("lossy") != "01"
        and not item.header.get("lossy_syntax")
    )
    if refs:
        yield Found(kind="compression_traces", strength="strong", parameters={}, slices=refs)


def _blank(stack: Sequence[Facts], traits: Sequence[_Traits]) -> Iterable[Found]:
    shares = [own.blank for own in traits if own.blank is not None]
    if len(shares) < 3 or float(np.median(shares)) > _NOT_BLANK:
        return
    refs = tuple(
        item.ref
        for item, own in zip(stack, traits, strict=True)
        if own.blank is not None and own.blank > _BLANK and not item.blank
    )
    if refs:
        yield Found(kind="background_blank", strength="notable", parameters={}, slices=refs)
