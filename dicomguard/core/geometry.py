"""Planes in the patient: order along the normal, stacks, gaps, repeats, tilt (PS3.3 C.7.6.2.1.1).

Positions and directions are those of the patient axes LPS in mm. Nothing here reads a file: it is given
one `Plane` per frame and says which planes make a stack, and in what order. The order is the same for
any shuffling of the input and for any rigid motion of the patient.
"""

import itertools
import math
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from dicomguard.core.instance import Orientation, Vector3
from dicomguard.core.study import GeometryKind

# Scanners write directions with five or six digits; below this the difference is noise of printing.
SAME_ORIENTATION = 1e-4
# Directions told apart among the planes of one matrix and label; radial scans have fewer.
MOST_ORIENTATIONS = 128
# Two planes nearer than this, along the normal, lie at one place (mm).
SAME_POSITION_MM = 1e-3
# Images of two volumes, as of two echoes, may be printed this far apart and show one place (mm).
NEAR_MM = 0.1
# Images with one mark are a volume of their own when at least this share of their places show another mark too.
BESIDE_SHARE = 0.75
# A distance that exceeds the usual one by this factor is a gap: a slice is missing.
GAP_FACTOR = 1.5
# Spacings that differ by less than this share of the usual one are equal.
REGULAR_SHARE = 0.02
# Below this the line of the slices and the normal are one direction; printed positions are not exact.
TILT_FROM_DEG = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Plane:
    """One frame, as far as order and stacks are concerned."""

    # What the caller knows the frame by; unique, and the last word where position and number tie.
    key: str
    position_mm: Vector3 | None
    orientation: Orientation | None
    # Rows, then columns.
    size: tuple[int, int]
    # Between rows, then between columns.
    pixel_spacing_mm: tuple[float, float] | None = None
    # Instance Number, then frame; orders planes without position.
    number: tuple[int, int] = (0, 0)
    # Frames of one object that belong to different volumes differ here.
    stack: str = ""
    # What may tell the volumes of one series apart, the surest first, as many for each plane; "" where nothing is said.
    marks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """A plane in its stack."""

    key: str
    # Signed distance of the image position along the normal; None when the object does not say.
    position_mm: float | None
    # A slice seems to be missing between this plane and the one before.
    after_gap: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """Planes of one orientation and one matrix, one at each place, in order along the normal."""

    planes: tuple[Placed, ...]
    kind: GeometryKind
    # Smallest and largest distance of neighbours; None when unknown.
    spacing_mm: tuple[float, float] | None
    # Between the line of the slices and the normal, as of a tilted gantry.
    tilt_deg: float
    pixel_spacing_mm: tuple[float, float] | None


def normal(orientation: Orientation) -> Vector3:
    """Unit normal: direction of a row × direction of a column; raises no error for parallel ones but gives zeros."""
    row, column = orientation[:3], orientation[3:]
    cross = (
        row[1] * column[2] - row[2] * column[1],
        row[2] * column[0] - row[0] * column[2],
        row[0] * column[1] - row[1] * column[0],
    )
    length = math.hypot(*cross)
    if length < 1e-6:
        return (0.0, 0.0, 0.0)
    return (cross[0] / length, cross[1] / length, cross[2] / length)


def along(direction: Vector3, position: Vector3) -> float:
    """Signed distance of a position from the origin along a unit direction (mm)."""
    return sum(a * b for a, b in zip(direction, position, strict=True))


def centroid(
    position: Vector3, orientation: Orientation, spacing_mm: tuple[float, float], *, row: float, column: float
) -> Vector3:
    """Patient coordinates of a place in the image; row 0 and column 0 are the centre of the first pixel."""
    across, down = column * spacing_mm[1], row * spacing_mm[0]
    return (
        position[0] + orientation[0] * across + orientation[3] * down,
        position[1] + orientation[1] * across + orientation[4] * down,
        position[2] + orientation[2] * across + orientation[5] * down,
    )


def arrange(planes: Iterable[Plane]) -> tuple[Stack, ...]:
    """Split the planes of one series into stacks, each in order; the largest stack first.

    Stacks differ in orientation, matrix or `Plane.stack`; planes at one place (echoes, repetitions) make further
    stacks, first by `Plane.marks`, then by turn. Planes without position, or all at one place as a careless converter
    writes them, are ordered by number.
    """
    groups: list[list[Plane]] = []
    by_kind: dict[tuple[tuple[int, int], str], list[list[Plane]]] = {}
    # Of an object with an orientation of its own for each frame; comparing all with all would take minutes.
    scattered: dict[tuple[int, int], list[Plane]] = {}
    for plane in sorted(planes, key=lambda item: (item.number, item.key)):
        alike = by_kind.setdefault((plane.size, plane.stack), [])
        members = next((members for members in alike if _together(members[0], plane)), None)
        if members is not None:
            members.append(plane)
        elif len(alike) < MOST_ORIENTATIONS:
            alike.append([plane])
            groups.append(alike[-1])
        else:
            scattered.setdefault(plane.size, []).append(plane)
    stacks = [stack for members in groups for stack in _stacks(members)]
    stacks += [_loose(members) for members in scattered.values()]
    # The sort is stable: stacks of one length stay in the order of their numbers.
    return tuple(sorted(stacks, key=lambda item: -len(item.planes)))


def slabs_mm(positions: Sequence[float | None], *, nominal_mm: float | None) -> tuple[float | None, ...]:
    """Thickness that each slice of a stack stands for: half the way to each neighbour along the normal.

    Across a gap, and at the ends, a side counts half the nominal spacing. `nominal_mm` is used where
    the positions do not say; None where nothing does.
    """
    known = [position for position in positions if position is not None]
    if len(known) != len(positions):
        return tuple(nominal_mm for _ in positions)
    distinct = sorted(set(known))
    steps = [b - a for a, b in itertools.pairwise(distinct) if b - a > SAME_POSITION_MM]
    usual = _median(steps) if steps else nominal_mm
    if usual is None:
        return tuple(None for _ in positions)
    # Each distinct place shares its slab among the planes that repeat it.
    result, ordered = [], sorted(known)
    for position in known:
        low, high = position - SAME_POSITION_MM, position + SAME_POSITION_MM
        before, after = bisect_left(distinct, low), bisect_right(distinct, high)
        below = position - distinct[before - 1] if before > 0 else usual
        above = distinct[after] - position if after < len(distinct) else usual
        repeats = bisect_right(ordered, high) - bisect_left(ordered, low)
        result.append((min(below, usual) + min(above, usual)) / 2 / repeats)
    return tuple(result)


def _together(a: Plane, b: Plane) -> bool:
    """Whether planes of one matrix and label lie parallel."""
    if a.orientation is None or b.orientation is None or a.position_mm is None or b.position_mm is None:
        return (a.orientation is None or a.position_mm is None) and (b.orientation is None or b.position_mm is None)
    rows = math.dist(a.orientation[:3], b.orientation[:3])
    columns = math.dist(a.orientation[3:], b.orientation[3:])
    return max(rows, columns) < SAME_ORIENTATION


def _stacks(members: list[Plane]) -> list[Stack]:
    first = members[0]
    direction = normal(first.orientation) if first.orientation is not None else (0.0, 0.0, 0.0)
    if direction == (0.0, 0.0, 0.0):
        return [_loose(members)]
    # The direction of the first plane is that of all: differences below SAME_ORIENTATION are unified here.
    at = {plane.key: along(direction, plane.position_mm) for plane in members if plane.position_mm is not None}
    if len(at) < len(members):
        return [_loose(members)]
    if len(members) > 1 and len(_runs(members, at)) == 1:
        return [_loose(members)]
    volumes = [members]
    for index in range(len(first.marks)):
        volumes = [part for volume in volumes for part in _told_apart(volume, at, index)]
    return [stack for volume in volumes for stack in _turns(volume, at, direction)]


def _told_apart(members: list[Plane], at: dict[str, float], index: int) -> list[list[Plane]]:
    """Volumes by one mark; what the mark does not tell apart stays together.

    A mark may count packages, slabs or images instead of volumes. Volumes lie at the same places, so a mark is
    believed for those planes that have others beside them at nearly all of their places, which are several.
    """
    places: dict[str, set[int]] = {}
    for place, run in enumerate(_runs(members, at, within_mm=NEAR_MM)):
        for plane in run:
            places.setdefault(plane.marks[index], set()).add(place)
    shown = Counter(place for marked in places.values() for place in marked)
    own = {
        mark
        for mark, marked in places.items()
        if mark and len(marked) > 1 and sum(shown[place] > 1 for place in marked) >= BESIDE_SHARE * len(marked)
    }
    parts: dict[str, list[Plane]] = {}
    for plane in members:
        mark = plane.marks[index]
        parts.setdefault(mark if mark in own else "", []).append(plane)
    return list(parts.values())


def _turns(members: list[Plane], at: dict[str, float], direction: Vector3) -> list[Stack]:
    runs = _runs(members, at)
    deepest = max(len(run) for run in runs)
    return [_stack([run[turn] for run in runs if turn < len(run)], at, direction) for turn in range(deepest)]


def _loose(members: list[Plane]) -> Stack:
    return Stack(
        planes=tuple(Placed(key=plane.key, position_mm=None) for plane in members),
        kind="single" if len(members) == 1 else "mixed",
        spacing_mm=None,
        tilt_deg=0.0,
        pixel_spacing_mm=members[0].pixel_spacing_mm,
    )


def _stack(order: list[Plane], at: dict[str, float], direction: Vector3) -> Stack:
    steps = [at[b.key] - at[a.key] for a, b in itertools.pairwise(order)]
    usual = _median(steps) if steps else 0.0
    placed = [Placed(key=order[0].key, position_mm=at[order[0].key])]
    for plane, step in zip(order[1:], steps, strict=True):
        placed.append(Placed(key=plane.key, position_mm=at[plane.key], after_gap=step > GAP_FACTOR * usual))
    tilt = _tilt_deg(direction, order[0].position_mm, order[-1].position_mm)
    return Stack(
        planes=tuple(placed),
        kind=_kind(steps, tilt),
        spacing_mm=(min(steps), max(steps)) if steps else None,
        tilt_deg=tilt,
        pixel_spacing_mm=order[0].pixel_spacing_mm,
    )


def _runs(members: list[Plane], at: dict[str, float], *, within_mm: float = SAME_POSITION_MM) -> list[list[Plane]]:
    """Planes by place; those at one place by number and key, whatever the last digits of their positions say."""
    runs: list[list[Plane]] = []
    for plane in sorted(members, key=lambda item: at[item.key]):
        if runs and at[plane.key] - at[runs[-1][0].key] <= within_mm:
            runs[-1].append(plane)
        else:
            runs.append([plane])
    return [sorted(run, key=lambda item: (item.number, item.key)) for run in runs]


def _kind(steps: list[float], tilt_deg: float) -> GeometryKind:
    if not steps:
        return "single"
    if max(steps) - min(steps) > REGULAR_SHARE * _median(steps) + SAME_POSITION_MM:
        return "unequal"
    return "tilted" if tilt_deg else "regular"


def _tilt_deg(direction: Vector3, first: Vector3 | None, last: Vector3 | None) -> float:
    if first is None or last is None:
        return 0.0
    way = tuple(b - a for a, b in zip(first, last, strict=True))
    length = math.hypot(*way)
    if length <= SAME_POSITION_MM:
        return 0.0
    cosine = abs(sum(a * b for a, b in zip(direction, way, strict=True))) / length
    angle = math.degrees(math.acos(min(1.0, cosine)))
    return angle if angle >= TILT_FROM_DEG else 0.0


def _median(values: Sequence[float]) -> float:
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2
