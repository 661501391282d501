"""The two values of this room: what a forger is given and what he leaves behind.

Arrays are Z×H×W: slices in order along the normal, rows, columns. Pixels are stored values (before rescale).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

Pixels: TypeAlias = NDArray[np.float32]
Mask: TypeAlias = NDArray[np.bool_]
Kind: TypeAlias = Literal["added", "removed", "altered", "blend"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Canvas:
    """One patient's run of neighbouring slices on its native grid, authentic."""

    # Z×H×W stored values, integer-valued, Z >= 1.
    pixels: Pixels
    # Z×H×W, true inside a lesion.
    lesion: Mask
    # Z×H×W, true inside the head.
    head: Mask
    # The range that the bit depth allows; the grid step is 1.
    low: float
    high: float

    def __post_init__(self) -> None:
        if self.pixels.ndim != 3 or self.lesion.shape != self.pixels.shape or self.head.shape != self.pixels.shape:
            raise ValueError(
                f"Canvas of shapes {self.pixels.shape}, {self.lesion.shape}, {self.head.shape} cannot be forged. "
                "Give pixels, lesion and head as Z×H×W arrays of one shape."
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Forged:
    """A forged run of slices beside its authentic twin."""

    # Z×H×W stored values on the grid; where alpha is 0 bit-identical to the twin unless a global clean-up was drawn.
    pixels: Pixels
    # The authentic slices, with the same global clean-up when there was one.
    twin: Pixels
    # Where forged and twin differ by more than half a grey level (5×5 majority, closed by 2 px).
    mask: Mask
    # Blend weight 0…1; 0 < alpha < 0.1 is the band that losses and metrics ignore.
    alpha: Pixels
    # Lesion truth after the forgery.
    lesion: Mask
    kind: Kind
    family: str
    # The implementation drawn inside the family.
    variant: str
    parameters: Mapping[str, float | str]
