"""What a detector says of one stack of slices, as the study's assembly reads it. Values only."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from dicomguard.core.finding import Sentence

Plane: TypeAlias = NDArray[np.float32]
Mask: TypeAlias = NDArray[np.bool_]

# Half of what was zero-filled lies above it, and one authentic series in a hundred (docs/decisions/0007).
SMOOTHED = 4.0


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedRegion:
    """One region, linked over slices of a stack."""

    # Index of the slice → H×W.
    masks: Mapping[int, Mask]
    # Calibrated, 0…1.
    p_forged: float
    p_tumor: float
    # That there is a lesion now, if the region is forged: put in rather than wiped away.
    p_lesion: float
    evidence: tuple[Sentence, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedStack:
    """One stack; tuples have one entry per slice."""

    # Calibrated forgery score, 0…1; None where there is nothing to judge.
    scores: tuple[float | None, ...]
    # Why there is no score, a key of `english.REASONS`; "" where there is one.
    skipped: tuple[str, ...]
    # Pixels inside the head.
    head_pixels: tuple[int, ...]
    regions: tuple[JudgedRegion, ...]
    # Noise of the half scale over that of the native scale; above `SMOOTHED` no fine detail is left to judge by.
    smoothing: float
    # Most slices look more edited than those of any authentic series known: it was forged throughout, or is of no
    # known kind.
    edited_alike: bool
    # Of the whole stack, calibrated.
    forgery: float
    tumor: float


class Judge(Protocol):
    """A detector with its weights."""

    def stack(
        self,
        slices: Sequence[Plane],
        *,
        positions_mm: Sequence[float | None],
        spacing_mm: tuple[float, float] | None,
        elsewhere: int,
    ) -> JudgedStack:
        """Judge slices of one shape in order along the normal; spacing between rows, then between columns.

        `elsewhere`: slices of the study's other stacks, in which a forgery is searched for as well.
        """
        ...
