"""Order along the normal, whatever the shuffling and the motion of the patient."""

import math
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dicomguard.core.geometry import MOST_ORIENTATIONS, Plane, arrange, centroid, normal, slabs_mm
from dicomguard.core.instance import Orientation, Vector3

AXIAL: Orientation = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
Matrix = tuple[Vector3, Vector3, Vector3]


def plane(key: str, z: float, *, x: float = 0.0, number: int = 0, **other: object) -> Plane:
    values: dict[str, object] = {
        "key": key, "position_mm": (x, 0.0, z), "orientation": AXIAL, "size": (128, 128), "number": (number, 0),
    }  # fmt: skip
    return Plane(**(values | other))  # type: ignore[arg-type]


def keys(planes: list[Plane]) -> list[list[str]]:
    return [[placed.key for placed in stack.planes] for stack in arrange(planes)]


def rotation(a: float, b: float, c: float) -> Matrix:
    """Of Euler angles z, y, x."""
    ca, sa, cb, sb, cc, sc = math.cos(a), math.sin(a), math.cos(b), math.sin(b), math.cos(c), math.sin(c)
    return (
        (ca * cb, ca * sb * sc - sa * cc, ca * sb * cc + sa * sc),
        (sa * cb, sa * sb * sc + ca * cc, sa * sb * cc - ca * sc),
        (-sb, cb * sc, cb * cc),
    )


def turned(matrix: Matrix, vector: Vector3) -> Vector3:
    x, y, z = (sum(m * v for m, v in zip(row, vector, strict=True)) for row in matrix)
    return (x, y, z)


def moved(item: Plane, matrix: Matrix, shift: Vector3) -> Plane:
    assert item.position_mm is not None and item.orientation is not None
    position = turned(matrix, item.position_mm)
    row, column = turned(matrix, item.orientation[:3]), turned(matrix, item.orientation[3:])
    x, y, z = (p + s for p, s in zip(position, shift, strict=True))
    return Plane(key=item.key, position_mm=(x, y, z), orientation=(*row, *column), size=item.size, number=item.number)


@settings(max_examples=60, deadline=None)
@given(
    gaps=st.lists(st.floats(0.5, 12.0), min_size=1, max_size=14),
    slant=st.floats(-0.3, 0.3),
    angles=st.tuples(*[st.floats(-3.1, 3.1)] * 3),
    shift=st.tuples(*[st.floats(-500, 500)] * 3),
    seed=st.integers(0, 10_000),
)
def test_order_survives_shuffling_and_rigid_motion(
    gaps: list[float], slant: float, angles: Vector3, shift: Vector3, seed: int
) -> None:
    z, planes = 0.0, []
    for index, gap in enumerate(gaps):
        planes.append(plane(f"p{index:02d}", z, x=slant * z))
        z += gap
    shuffled = planes.copy()
    random.Random(seed).shuffle(shuffled)
    before = arrange(planes)
    after = arrange([moved(item, rotation(*angles), shift) for item in shuffled])
    assert [p.key for p in before[0].planes] == sorted(item.key for item in planes)
    assert [p.key for s in after for p in s.planes] == [p.key for s in before for p in s.planes]
    assert [s.kind for s in after] == [s.kind for s in before]
    for old, new in zip(before, after, strict=True):
        assert new.tilt_deg == pytest.approx(old.tilt_deg, abs=1e-3)
        assert [p.after_gap for p in new.planes] == [p.after_gap for p in old.planes]


@pytest.mark.parametrize(
    ("positions", "kind", "spacing", "gap_before"),
    [
        ([0.0], "single", None, []),
        ([0.0, 5.0, 10.0], "regular", (5.0, 5.0), []),
        ([0.0, 5.0, 10.0, 20.0, 25.0], "unequal", (5.0, 10.0), [3]),
        ([0.0, 5.0, 11.0], "unequal", (5.0, 6.0), []),
    ],
)
def test_kind_spacing_and_gaps(
    positions: list[float], kind: str, spacing: tuple[float, float] | None, gap_before: list[int]
) -> None:
    (stack,) = arrange([plane(str(i), z) for i, z in enumerate(positions)])
    assert (stack.kind, stack.spacing_mm) == (kind, spacing)
    assert [i for i, placed in enumerate(stack.planes) if placed.after_gap] == gap_before


def test_tilted_gantry_is_measured_against_the_normal() -> None:
    (stack,) = arrange([plane(str(i), 5.0 * i, x=5.0 * i * math.tan(math.radians(18.5))) for i in range(8)])
    assert stack.kind == "tilted"
    assert stack.tilt_deg == pytest.approx(18.5, abs=0.01)
    assert stack.spacing_mm == pytest.approx((5.0, 5.0))


def test_printing_noise_of_directions_is_one_stack_and_a_turn_is_two() -> None:
    noisy = (1.0, 1e-6, 0.0, -1e-6, 1.0, 2e-5)
    turned_by_a_degree = (0.99985, 0.01745, 0.0, -0.01745, 0.99985, 0.0)
    assert len(arrange([plane("a", 0), plane("b", 5, orientation=noisy)])) == 1
    assert len(arrange([plane("a", 0), plane("b", 5, orientation=turned_by_a_degree)])) == 2


def test_mixed_matrices_become_stacks_largest_first() -> None:
    planes = [plane("scout", 0, size=(512, 512)), *(plane(f"s{i}", 5.0 * i) for i in range(3))]
    assert keys(planes) == [["s0", "s1", "s2"], ["scout"]]


def test_echoes_at_one_place_become_stacks_by_number() -> None:
    planes = [plane(f"e{e}s{i}", 5.0 * i, number=2 * i + e) for i in range(3) for e in (0, 1)]
    assert keys(planes) == [["e0s0", "e0s1", "e0s2"], ["e1s0", "e1s1", "e1s2"]]


def echoes(places: int = 20, *, off_mm: float = 0.0) -> list[Plane]:
    """Two echoes at each place, the second `off_mm` away; numbered place by place."""
    return [
        plane(f"e{e}s{i:02d}", 5.0 * i + off_mm * (e - 1), number=2 * i + e, marks=(str(e),))
        for i in range(places)
        for e in (1, 2)
    ]


def volumes(planes: list[Plane]) -> set[tuple[str, int]]:
    """What each stack begins its keys with, and its length; fails for a stack of several echoes."""
    found = []
    for stack in keys(planes):
        (echo,) = {key.partition("s")[0] for key in stack}
        assert stack == sorted(stack)
        found.append((echo, len(stack)))
    assert len(found) == len(set(found))
    return set(found)


def test_a_lost_file_does_not_mix_the_echoes() -> None:
    planes = [item for item in echoes() if item.key != "e1s02"]
    assert volumes(planes) == {("e1", 19), ("e2", 20)}
    (gap,) = [p.key for stack in arrange(planes) for p in stack.planes if p.after_gap]
    assert gap == "e1s03"


def test_echoes_without_numbers_are_not_shuffled_by_their_keys() -> None:
    planes = [replace(item, key=f"{97 * n % 41:02d}{item.key}", number=(0, 0)) for n, item in enumerate(echoes())]
    assert sorted([key[2:] for key in stack] for stack in keys(planes)) == [
        [f"e{e}s{i:02d}" for i in range(20)] for e in (1, 2)
    ]


@pytest.mark.parametrize("off_mm", [0.002, -0.002, 0.05])
def test_echoes_that_lie_almost_at_one_place_do_not_alternate(off_mm: float) -> None:
    planes = echoes(off_mm=off_mm)
    assert volumes(planes) == {("e1", 20), ("e2", 20)}
    assert {stack.kind for stack in arrange(planes)} == {"regular"}


def test_an_echo_of_which_little_has_come_stands_alone() -> None:
    planes = [item for item in echoes() if item.marks == ("1",) or item.key in ("e2s07", "e2s08", "e2s11")]
    assert volumes([replace(item, number=(0, 0)) for item in planes]) == {("e1", 20), ("e2", 3)}


def test_echoes_of_several_time_points_are_told_apart_by_both() -> None:
    planes = [
        replace(item, key=f"t{t}{item.key}", number=(0, 0), marks=(*item.marks, str(t)))
        for t in (1, 2, 3)
        for item in echoes(6)
        if (t, item.key) != (2, "e1s03")
    ]
    assert volumes(planes) == {(f"t{t}e{e}", 5 if (t, e) == (2, 1) else 6) for t in (1, 2, 3) for e in (1, 2)}


def test_repeats_of_one_echo_are_stacks_by_number_as_ever() -> None:
    planes = [
        replace(item, key=f"e{e}r{r}{item.key[2:]}", number=(r, 0))
        for item in echoes(4)
        for r in (0, 1)
        for e in item.marks
    ]
    assert volumes(planes) == {(f"e{e}r{r}", 4) for e in (1, 2) for r in (0, 1)}


@pytest.mark.parametrize(
    "marked",
    [
        pytest.param(lambda i, e: (str(i % 2),), id="packages"),
        pytest.param(lambda i, e: (str(i // 10),), id="slabs"),
        pytest.param(lambda i, e: (str(i),), id="one for each place"),
        pytest.param(lambda i, e: (str(2 * i + e),), id="one for each image"),
        pytest.param(lambda i, e: ("1" if e == 1 else "",), id="a copy that says nothing"),
        pytest.param(lambda i, e: (str(e),), id="a copy with a mark of its own"),
        pytest.param(lambda i, e: (str(i % 2 if e == 1 else 1 - i % 2),), id="packages, the copy of the other"),
    ],
)
@pytest.mark.parametrize("copies", [(), (4,), (4, 9)])
def test_marks_that_are_no_volumes_tear_nothing_apart(
    marked: Callable[[int, int], tuple[str, ...]], copies: tuple[int, ...]
) -> None:
    """No place, or only here and there one, has a second image."""
    planes = [
        plane(f"e{e}s{i:02d}", 5.0 * i, number=20 * e + i, marks=marked(i, e))
        for i in range(20)
        for e in (1, 2)
        if e == 1 or i in copies
    ]
    (whole, *_) = keys(planes)
    assert whole == [f"e1s{i:02d}" for i in range(20)]
    assert arrange(planes) == arrange([replace(item, marks=("",)) for item in planes])


@pytest.mark.parametrize(
    "counted",
    [
        pytest.param(lambda i, e: 2 * i + e, id="images"),
        pytest.param(lambda i, e: i, id="places"),
        pytest.param(lambda i, e: 2 * e + i % 2, id="packages, from one echo to the next"),
    ],
)
def test_a_mark_that_counts_something_else_does_not_tear_echoes_apart(counted: Callable[[int, int], int]) -> None:
    planes = [
        replace(item, number=(0, 0), marks=(*item.marks, str(counted(n // 2, n % 2))))
        for n, item in enumerate(echoes(8))
        if item.key != "e1s03"
    ]
    assert volumes(planes) == {("e1", 7), ("e2", 8)}


def test_marks_at_one_single_place_leave_the_slices_loose() -> None:
    (stack,) = arrange([plane(f"n{n}", 7.0, number=n, marks=(str(n % 2),)) for n in range(6)])
    assert (stack.kind, len(stack.planes)) == ("mixed", 6)


def test_stated_stacks_of_one_object_stay_apart() -> None:
    planes = [plane(f"{b}{i}", 5.0 * i, stack=b) for b in ("b0", "b1000") for i in range(2)]
    assert keys(planes) == [["b00", "b01"], ["b10000", "b10001"]]


@pytest.mark.parametrize("lost", ["position_mm", "orientation"])
def test_without_geometry_numbers_order_and_nothing_is_claimed(lost: str) -> None:
    without: dict[str, Any] = {lost: None}
    planes = [plane(f"n{n}", float(n), number=n, **without) for n in (3, 1, 2)]
    (stack,) = arrange(planes)
    assert [placed.key for placed in stack.planes] == ["n1", "n2", "n3"]
    assert all(placed.position_mm is None for placed in stack.planes)
    assert (stack.kind, stack.spacing_mm) == ("mixed", None)


def test_all_slices_at_one_place_are_loose() -> None:
    (stack,) = arrange([plane(f"n{n}", 7.0, number=n) for n in (2, 1, 3)])
    assert [placed.key for placed in stack.planes] == ["n1", "n2", "n3"]
    assert stack.planes[0].position_mm is None


def test_parallel_directions_have_no_normal() -> None:
    flat = (1.0, 0.0, 0.0, 1.0, 0.0, 0.0)
    assert normal(flat) == (0.0, 0.0, 0.0)
    assert arrange([plane("a", 0, orientation=flat)])[0].planes[0].position_mm is None


def test_no_planes_no_stacks() -> None:
    assert arrange([]) == ()


@pytest.mark.parametrize(
    ("positions", "nominal", "slabs"),
    [
        ([0.0, 5.0, 10.0], None, (5.0, 5.0, 5.0)),
        # A missing slice does not make its neighbours thicker.
        ([0.0, 5.0, 15.0, 20.0], None, (5.0, 5.0, 5.0, 5.0)),
        ([0.0, 4.0, 10.0], None, (4.5, 4.5, 5.0)),
        ([3.0], 6.0, (6.0,)),
        ([3.0], None, (None,)),
        ([None, None], 4.0, (4.0, 4.0)),
    ],
)
def test_slab_is_half_the_way_to_each_neighbour(
    positions: list[float | None], nominal: float | None, slabs: tuple[float | None, ...]
) -> None:
    assert slabs_mm(positions, nominal_mm=nominal) == pytest.approx(slabs)


def test_centroid_counts_from_the_centre_of_the_first_pixel() -> None:
    place = centroid((-10.0, 20.0, 30.0), AXIAL, (2.0, 0.5), row=3, column=4)
    assert place == (-8.0, 26.0, 30.0)


def test_an_object_with_a_direction_for_each_frame_is_arranged_in_time() -> None:
    """Frames that nothing makes a stack of: the first directions are told apart, the rest lies loose."""
    frames = []
    for number in range(4_000):
        angle = number * 1e-3
        rows: Orientation = (math.cos(angle), math.sin(angle), 0.0, -math.sin(angle), math.cos(angle), 0.0)
        frames.append(plane(f"{number:05d}", float(number), number=number, orientation=rows))
    stacks = arrange(frames)
    assert sum(len(stack.planes) for stack in stacks) == 4_000
    assert len(stacks) == MOST_ORIENTATIONS + 1
    assert stacks[0].kind == "mixed"
    slabs = slabs_mm([float(n) for n in range(4_000)], nominal_mm=None)
    assert set(slabs) == {1.0}
