"""Where a frame of a source lies, whether the object is single-frame or Enhanced (PS3.3 C.7.6.2, C.7.6.16).

Functional groups are read from the frame's own item or from the shared one, wherever the vendor put them.
"""

import math
from dataclasses import dataclass
from typing import Any

from pydicom.dataset import Dataset

from dicomguard.core import geometry
from dicomguard.core.instance import Orientation, Vector3
from dicomguard.errors import Broken


@dataclass(frozen=True, slots=True, kw_only=True)
class Plane:
    """One frame in the patient; mm, LPS."""

    rows: int
    columns: int
    position_mm: Vector3
    orientation: Orientation
    # Between rows, then between columns.
    spacing_mm: tuple[float, float]
    # None when the source does not say.
    thickness_mm: float | None


def of(header: Dataset, frame: int | None) -> Plane | None:
    """Plane of a frame (1-based; None for single-frame); None when the object does not place it in the patient."""
    position = _numbers(header, frame, "PlanePositionSequence", "ImagePositionPatient", 3)
    orientation = _numbers(header, frame, "PlaneOrientationSequence", "ImageOrientationPatient", 6)
    spacing = _numbers(header, frame, "PixelMeasuresSequence", "PixelSpacing", 2)
    if position is None or orientation is None or spacing is None or not header.get("FrameOfReferenceUID"):
        return None
    turned = (orientation[0], orientation[1], orientation[2], orientation[3], orientation[4], orientation[5])
    # As for the order of slices: numbers that span no plane place nothing.
    if min(spacing) <= 0 or not any(geometry.normal(turned)):
        return None
    thickness = _numbers(header, frame, "PixelMeasuresSequence", "SliceThickness", 1)
    return Plane(
        rows=int(header.Rows),
        columns=int(header.Columns),
        position_mm=(position[0], position[1], position[2]),
        orientation=turned,
        spacing_mm=(spacing[0], spacing[1]),
        thickness_mm=thickness[0] if thickness and thickness[0] > 0 else None,
    )


def _numbers(header: Dataset, frame: int | None, group: str, keyword: str, count: int) -> tuple[float, ...] | None:
    """`count` numbers of an attribute; None when absent, empty, of another count, or no numbers."""
    value = _value(header, frame, group, keyword)
    if value is None or value == "":
        return None
    try:
        numbers = tuple(float(item) for item in (value if count > 1 else [value]))
    except (TypeError, ValueError):
        # Text that is no number says nothing, as for the rules and the order of slices.
        return None
    return numbers if len(numbers) == count and all(map(math.isfinite, numbers)) else None


def _value(header: Dataset, frame: int | None, group: str, keyword: str) -> Any:
    per_frame = header.get("PerFrameFunctionalGroupsSequence")
    if not per_frame:
        return header.get(keyword)
    index = (frame or 1) - 1
    # An object may have more frames than items; those have what is shared.
    count = max(len(per_frame), int(header.get("NumberOfFrames") or 0))
    if not 0 <= index < count:
        raise Broken(f"Frame {frame} is not among the {count} of {header.SOPInstanceUID}. Analyse it again.")
    own = per_frame[index : index + 1]
    shared = header.get("SharedFunctionalGroupsSequence") or [Dataset()]
    for groups in (*own, shared[0]):
        items = groups.get(group)
        if items and items[0].get(keyword) is not None:
            return items[0].get(keyword)
    return None
