"""Whether a stack looks like those that the model was trained on, as far as plain measures and the judge can say.

A stack outside is judged all the same; its verdict and every object made of it say so. The ranges are those of the
slices that the shipped weights saw: sides 256 to 512 pixels, 65 to 5,000 grey levels a slice, pixels of 0.49 to 0.94 mm
and planes 3 to 20 mm apart where the source says so. Values in, phrases out; no score is read or changed.
"""

from collections.abc import Sequence

import numpy as np

from dicomguard.analyze.judging import SMOOTHED, JudgedStack, Plane
from dicomguard.core.study import SeriesPlan

SIDES = (256, 512)
FEWEST_LEVELS = 64
# A little wider than what was seen: the next zoom of the same scanner is no other kind of image.
PIXEL_MM = (0.45, 1.0)
PLANES_MM = (2.5, 20.0)
# Slices whose grey levels are counted; the middle ones, since the ends of a stack are nearly empty.
_COUNTED = 5
# Of the pixels above the background; no slice of the training sets has one in a thousand at its largest value.
_SATURATED_SHARE = 0.2
_SATURATED_PIXELS = 100

# Phrases of `scope_reasons` for pixels that give less to judge by; `core.english.NOTES` says what each means.
SMOOTH = "fine noise missing"
COMPRESSED = "traces of lossy compression"
ALIKE = "most slices look edited"


def outside(planes: Sequence[Plane], plan: SeriesPlan, judged: JudgedStack, *, compressed: bool) -> tuple[str, ...]:
    """Short phrases, as selection gives them; () inside. `planes` has at least one slice, all of one shape.

    `compressed`: some slice shows traces of a compression that its header does not mention.
    """
    reasons = []
    rows, columns = planes[0].shape
    if min(rows, columns) < SIDES[0] or max(rows, columns) > SIDES[1]:
        reasons.append(f"matrix {rows} × {columns}")
    if plan.pixel_spacing_mm is not None and not _within(plan.pixel_spacing_mm, PIXEL_MM):
        reasons.append("pixels of " + " × ".join(f"{side:.2g}" for side in plan.pixel_spacing_mm) + " mm")
    # The smallest distance: a gap is told as evidence of the files.
    if plan.spacing_mm is not None and not _within(plan.spacing_mm[:1], PLANES_MM):
        reasons.append(f"slices {plan.spacing_mm[0]:.2g} mm apart")
    first = max(0, (len(planes) - _COUNTED) // 2)
    levels = int(np.median([len(np.unique(plane)) for plane in planes[first : first + _COUNTED]]))
    if levels < FEWEST_LEVELS:
        reasons.append(f"{levels} grey levels")
    if judged.smoothing > SMOOTHED:
        reasons.append(SMOOTH)
    if compressed:
        reasons.append(COMPRESSED)
    if judged.edited_alike:
        reasons.append(ALIKE)
    return tuple(reasons)


def saturated(plane: Plane) -> bool:
    """A large part of what is no background has the largest value: there is no texture left to judge."""
    low, high = float(plane.min()), float(plane.max())
    if low == high:
        return False
    above, full = np.count_nonzero(plane > low), np.count_nonzero(plane == high)
    return bool(full >= _SATURATED_PIXELS and full > _SATURATED_SHARE * above)


def _within(values: Sequence[float], limits: tuple[float, float]) -> bool:
    return limits[0] <= min(values) and max(values) <= limits[1]
