"""Where a forger works: healthy tissue, the lesion to be edited, a free place for a new one, soft edges.

Lengths are given for a head 150 px wide (a head of a 256² slice) and scaled to the head at hand.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from dicomguard.retrain.tamper.filters import depth_inside, dilate, gaussian, signed_distance
from dicomguard.retrain.tamper.forged import Canvas, Mask, Pixels

_HEAD_WIDTH_PX = 150.0
_SMALLEST_SIDE_PX = 32
_SMALLEST_LESION_PX = 24
# A lesion that fills more of the head leaves too little healthy tissue to learn from.
_LARGEST_LESION_SHARE = 0.18
# Skull and scalp reach to about this share of the depth of a head.
_SHELL_SHARE = 0.18
# Less weight than this would be rounded away.
_LEAST_ALPHA = 0.02
_PLACES_TRIED = 40
# Fluid, vessels and what is left of bone lie outside these quantiles of a slice's inner part.
_TISSUE_QUANTILES = (0.1, 0.97)


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """One lesion that is going to be edited; Z×H×W."""

    core: Mask
    alpha: Pixels
    # Tissue away from every lesion and from the edit.
    healthy: Mask
    # Lesion truth when this one is gone.
    rest: Mask
    # Pixels for one pixel of a head 150 px wide.
    scale: float

    @property
    def strongest(self) -> int:
        return int(np.argmax(self.core.sum(axis=(1, 2))))

    @property
    def hole(self) -> Mask:
        return np.asarray(self.alpha > 0)


def head_scale(canvas: Canvas) -> float:
    """Square root of the area of the head against that of a head 150 px wide; 0 where no head is."""
    area = float(canvas.head.sum(axis=(1, 2)).max())
    return float(np.sqrt(area * 4 / np.pi) / _HEAD_WIDTH_PX)


def workable(canvas: Canvas) -> bool:
    """Whether slices are large and varied enough for any edit."""
    varied = canvas.head.any() and float(np.ptp(canvas.pixels[canvas.head])) >= 8
    return min(canvas.pixels.shape[1:]) >= _SMALLEST_SIDE_PX and bool(varied) and head_scale(canvas) >= 0.2


def inner(canvas: Canvas) -> Mask:
    """Z×H×W, the head without its shell of skull and scalp."""
    depths = np.stack([depth_inside(plane) for plane in canvas.head])
    return depths > _SHELL_SHARE * float(depths.max())


def _free(canvas: Canvas) -> Mask:
    """Inner part away from lesions; empty background inside the head mask is no tissue."""
    away = np.stack([dilate(plane, 3) for plane in canvas.lesion])
    return inner(canvas) & ~away & (canvas.pixels > canvas.low)


def healthy(canvas: Canvas, spared: Mask) -> Mask:
    """Tissue of usual brightness away from lesions and from `spared`."""
    free = _free(canvas)
    for plane, own in zip(canvas.pixels, free, strict=True):
        if own.any():
            smooth = gaussian(plane, 1.0)
            low, high = np.quantile(smooth[own], _TISSUE_QUANTILES)
            own &= (smooth >= low) & (smooth <= high)
    return free & ~spared


def smoothstep(values: NDArray[np.floating]) -> Pixels:
    t = np.clip(values, 0, 1)
    return np.asarray(t * t * (3 - 2 * t), np.float32)


def soft(mask: Mask, head: Mask, *, grow: float, feather: float) -> Pixels:
    """Weight of one slice: 1 to `grow` px outside the mask, 0 from `feather` px further on and outside the head."""
    if not mask.any():
        return np.zeros(mask.shape, np.float32)
    weight = smoothstep((signed_distance(mask) + grow + feather) / feather)
    weight *= np.clip(depth_inside(head) / 2, 0, 1)
    return np.where(weight < _LEAST_ALPHA, 0, weight).astype(np.float32)


def lesion_site(canvas: Canvas, rng: np.random.Generator) -> Site | None:
    """A lesion through all its slices, the larger the likelier."""
    if not workable(canvas) or not canvas.lesion.any():
        return None
    labels, count = ndimage.label(canvas.lesion, np.ones((3, 3, 3)))
    areas = np.stack([np.bincount(plane.ravel(), minlength=count + 1)[1:] for plane in labels]).max(axis=0)
    ceiling = _LARGEST_LESION_SHARE * float(canvas.head.sum(axis=(1, 2)).max())
    sizes = np.where((areas >= _SMALLEST_LESION_PX) & (areas <= ceiling), areas, 0).astype(np.float64)
    if sizes.sum() == 0:
        return None
    core = labels == 1 + int(rng.choice(count, p=sizes / sizes.sum()))
    scale = head_scale(canvas)
    grow, feather = rng.uniform(1.5, 3.5) * scale, max(2.0, rng.uniform(2.5, 5.0) * scale)
    alpha = np.stack(
        [soft(mask, head, grow=grow, feather=feather) for mask, head in zip(core, canvas.head, strict=True)]
    )
    around = healthy(canvas, alpha > 0)
    if around.sum(axis=(1, 2))[core.any(axis=(1, 2))].min() < 200:
        return None
    # Specks marked beside the lesion go with it.
    rest = canvas.lesion & ~core & (alpha <= 0.95)
    return Site(core=core, alpha=alpha, healthy=around, rest=rest, scale=scale)


def free_place(canvas: Canvas, radius: float, rng: np.random.Generator) -> tuple[int, int, float] | None:
    """Row, column and room in px of an even spot of inner tissue that is free in all slices; room may fall short."""
    if not workable(canvas):
        return None
    depth = depth_inside(np.asarray(_free(canvas).all(axis=0)))
    if depth.max() < radius:
        # Small dark holes of the tissue mask (sulci, ventricles) cost little room.
        depth = depth_inside(ndimage.binary_closing(depth > 0, iterations=3) & ~canvas.lesion.any(axis=0))
    wanted = min(radius, 0.9 * float(depth.max()))
    if wanted < 3:
        return None
    rows, cols = np.nonzero(depth >= wanted)
    picks = rng.integers(rows.size, size=_PLACES_TRIED)
    middle = canvas.pixels[len(canvas.pixels) // 2]
    wide = gaussian(middle, max(1.0, wanted / 2))
    uneven = np.sqrt(np.maximum(gaussian(middle**2, max(1.0, wanted / 2)) - wide**2, 0))
    usual = float(np.median(middle[depth > 0]))
    odd = np.abs(wide - usual) + uneven
    # The best of all would lie at the same spot every time: a few places are drawn, the best of them taken.
    few = picks[: int(rng.integers(_PLACES_TRIED // 3, _PLACES_TRIED))]
    best = few[int(np.argmin(odd[rows[few], cols[few]]))]
    return int(rows[best]), int(cols[best]), float(depth[rows[best], cols[best]])


def window(mask: Mask, pad: int) -> tuple[slice, slice]:
    """Box of an H×W mask with a margin, cut at the frame."""
    rows, cols = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return (
        slice(max(0, int(rows[0]) - pad), min(mask.shape[0], int(rows[-1]) + pad + 1)),
        slice(max(0, int(cols[0]) - pad), min(mask.shape[1], int(cols[-1]) + pad + 1)),
    )
