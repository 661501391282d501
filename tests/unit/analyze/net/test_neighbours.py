"""Which slices of a series are neighbours: those at its usual distance, whatever one odd slice does."""

import numpy as np
import pytest

from dicomguard.analyze.net.detector import Slice, _touching


def touching(*positions: float | None) -> list[bool]:
    pixels = np.zeros((8, 8), np.float32)
    slices = [Slice(pixels=pixels, position_mm=place, spacing_mm=None, key=str(n)) for n, place in enumerate(positions)]
    return _touching(slices, range(len(slices)))


@pytest.mark.parametrize(
    ("positions", "expected"),
    [
        ((0, 5, 10, 15), [True] * 3),
        # Every third slice is missing: those that are left side by side are neighbours still.
        ((0, 5, 15, 20, 30, 35), [True, False, True, False, True]),
        ((0, 5, None, 10), [True, False, False]),
        ((0, 0), [False]),
        ((None,), []),
    ],
)
def test_the_closest_distance_of_the_series_counts(positions: tuple[float | None, ...], expected: list[bool]) -> None:
    assert touching(*positions) == expected


def test_one_odd_slice_does_not_part_the_others() -> None:
    """Scanned once more a millimetre further, or put there for that."""
    places = [5.0 * n for n in range(12)]
    assert touching(*places, 56.0) == [True] * 11 + [False]
    assert touching(*places[:6], 26.0, *places[6:]) == [True] * 5 + [False, True] + [True] * 5
