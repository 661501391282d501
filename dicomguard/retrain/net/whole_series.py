"""The scale of a whole series, laid on the few of its slices that a twin has.

The product measures window, noise curve and gains over all slices of a series (`channels.measure`); a twin has one to
five. What lies between the two is the slice's place in the stack: at its ends the curve is off by a third, the window
by more. That is kept as ratios, from the authentic slices of a series, and laid on twins of the same series, whatever
scanner they were passed through.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from dicomguard.analyze import channels
from dicomguard.analyze.channels import Scale
from dicomguard.analyze.scores import FEWEST_FOR_SERIES

# Slices of a series, evenly spread, whose place in it is measured.
_PLACES = 6
# Points of a curve, from its lowest level to its highest.
_POINTS = np.linspace(0.0, 1.0, 16)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """The scale of a series over that of one of its slices."""

    # Noise level at `_POINTS` of the slice's curve, factors.
    sigmas: NDArray[np.float64]
    # Lower end of the window, in widths of the slice's own from its own lower end; width, a factor.
    low: float
    width: float
    # Factors, as `Scale.gains`.
    gains: tuple[float, ...]

    def of(self, own: Scale) -> Scale:
        """The scale of the series in which a slice of the scale `own` stands at this place."""
        width = own.high - own.low
        low = own.low + self.low * width
        sigmas = own.sigmas * np.interp(np.linspace(0.0, 1.0, len(own.sigmas)), _POINTS, self.sigmas)
        a, b, c, d, e = (gain * factor for gain, factor in zip(own.gains, self.gains, strict=True))
        # Curves do not fall (`channels.measure`).
        curve = np.maximum.accumulate(sigmas)
        return replace(own, low=low, high=low + self.width * width, sigmas=curve, gains=(a, b, c, d, e))


def place(own: Scale, whole: Scale) -> Place:
    """Where a slice of the scale `own` stands in a series of the scale `whole`."""
    width = own.high - own.low
    factors = np.interp(own.levels, whole.levels, whole.sigmas) / own.sigmas
    return Place(
        sigmas=np.interp(_POINTS, np.linspace(0.0, 1.0, len(factors)), factors),
        low=(whole.low - own.low) / width,
        width=(whole.high - whole.low) / width,
        gains=tuple(theirs / mine for theirs, mine in zip(whole.gains, own.gains, strict=True)),
    )


# At the native and at the half scale.
Places: TypeAlias = tuple[Place, Place]


def places(slices: Sequence[channels.Plane], heads: Sequence[channels.Mask]) -> tuple[Places, ...]:
    """Places of some slices of a series of authentic slices, all with a head; none for what is judged as loose."""
    if len(slices) < FEWEST_FOR_SERIES:
        return ()
    whole = channels.prepare(slices, [False] * (len(slices) - 1), heads=heads)
    half = channels.halved(whole)
    chosen = np.unique(np.linspace(0, len(slices) - 1, min(_PLACES, len(slices))).astype(int))
    found = []
    for i in chosen:
        own = channels.prepare([slices[i]], [], heads=[heads[i]])
        found.append((place(own.scale, whole.scale), place(channels.halved(own).scale, half.scale)))
    return tuple(found)
