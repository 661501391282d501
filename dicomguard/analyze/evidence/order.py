"""Where and when the slices of a series were taken: gaps, repeats, times that leave the order."""

import bisect
import itertools
from collections import defaultdict
from collections.abc import Iterable, Sequence

from dicomguard.analyze.evidence.facts import Facts, Found
from dicomguard.core.finding import SliceRef
from dicomguard.core.geometry import GAP_FACTOR, SAME_POSITION_MM

# Repeats are odd only where most positions are not repeated; echoes and phases repeat them all.
_MOST_REPEATED = 0.2
_FEWEST_POSITIONS = 5
# Slices out of order are odd only where most are in order.
_MOST_UNORDERED = 0.2
_FEWEST_TIMES = 6
# A series takes no half day; times further apart lie on two sides of midnight, or one of them is odd all the same.
_DAY_S = 86400
# Packages of an interleaved acquisition.
_MOST_PACKAGES = 6


def of_stack(stack: Sequence[Facts]) -> Iterable[Found]:
    """Gaps and times along one stack."""
    yield from _gaps(stack)
    yield from _times(stack)


def repeats(slices: Sequence[Facts]) -> Iterable[Found]:
    """A few positions of a series that two instances claim."""
    by_series: dict[tuple[str, str], dict[int, list[Facts]]] = defaultdict(lambda: defaultdict(list))
    for item in slices:
        if item.position_mm is not None:
            place = round(item.position_mm / SAME_POSITION_MM)
            by_series[(item.series, str(item.header.get("orientation", "")))][place].append(item)
    for places in by_series.values():
        claimed = [same for same in places.values() if len({(item.sop_instance_uid, item.frame) for item in same}) > 1]
        if claimed and len(places) >= _FEWEST_POSITIONS and len(claimed) <= _MOST_REPEATED * len(places):
            for same in claimed:
                yield Found(
                    kind="position_repeat",
                    strength="notable",
                    parameters={},
                    slices=tuple(item.ref for item in same),
                )


def _gaps(stack: Sequence[Facts]) -> Iterable[Found]:
    positions = [item.position_mm for item in stack]
    known = [position for position in positions if position is not None]
    if len(known) < 4 or len(known) != len(positions):
        return
    steps = [b - a for a, b in itertools.pairwise(known)]
    usual = sorted(steps)[len(steps) // 2]
    for index, step in enumerate(steps):
        if step > GAP_FACTOR * usual:
            yield Found(
                kind="position_gap",
                strength="notable",
                parameters={"gap_mm": round(step, 2), "usual_mm": round(usual, 2)},
                slices=(stack[index].ref, stack[index + 1].ref),
            )


def _times(stack: Sequence[Facts]) -> Iterable[Found]:
    """Acquisition times run along the normal, or do so within each package of an interleaved series."""
    times = [seconds(str(item.header.get("acquisition_time", ""))) for item in stack]
    known = [time for time in times if time is not None]
    if len(known) < _FEWEST_TIMES or len(known) != len(times) or len(set(known)) < _FEWEST_TIMES:
        return
    half_a_day_before = max(known) - _DAY_S / 2
    known = [time + _DAY_S if time < half_a_day_before else time for time in known]
    # Packages of a few slices would call any time in order.
    packages = range(1, max(1, min(_MOST_PACKAGES, len(known) // _FEWEST_TIMES)) + 1)
    unordered = min((_unordered(known, count, sign) for count in packages for sign in (1, -1)), key=len)
    if 0 < len(unordered) <= _MOST_UNORDERED * len(known):
        odd: tuple[SliceRef, ...] = tuple(stack[index].ref for index in unordered)
        yield Found(kind="time_order", strength="notable", parameters={}, slices=odd)


def _unordered(times: Sequence[float], packages: int, sign: int) -> list[int]:
    """Places whose time must be left out so that the others run one way in each package."""
    left_out = []
    for first in range(packages):
        places = list(range(first, len(times), packages))
        kept = _longest_run([sign * times[place] for place in places])
        left_out += [place for index, place in enumerate(places) if index not in kept]
    return sorted(left_out)


def _longest_run(values: Sequence[float]) -> set[int]:
    """Indices of a longest subsequence that does not fall (patience sorting)."""
    tops: list[float] = []
    ends: list[int] = []
    before: list[int] = []
    for index, value in enumerate(values):
        pile = bisect.bisect_right(tops, value)
        before.append(ends[pile - 1] if pile else -1)
        if pile == len(tops):
            tops.append(value)
            ends.append(index)
        else:
            tops[pile], ends[pile] = value, index
    kept, index = set(), ends[-1] if ends else -1
    while index >= 0:
        kept.add(index)
        index = before[index]
    return kept


def seconds(time: str) -> float | None:
    """Seconds since midnight of a TM value (PS3.5 6.2: HHMMSS.FFFFFF); None when it is none."""
    digits, _, fraction = time.strip().replace(":", "").partition(".")
    if len(digits) < 6 or not digits[:6].isdigit() or (fraction and not fraction.isdigit()):
        return None
    return 3600 * int(digits[:2]) + 60 * int(digits[2:4]) + int(digits[4:6]) + float(f"0.{fraction or 0}")
