"""Detections of neighbouring slices become one region, and only those."""

import numpy as np
import pytest

from dicomguard.analyze.link import Seen, tracks


def seen(row: int = 30, column: int = 30, radius: int = 6, *, forged: float = 0.5, tumor: float = 0.5) -> Seen:
    y, x = np.mgrid[0:64, 0:64]
    return Seen(mask=np.hypot(y - row, x - column) <= radius, p_forged=forged, p_tumor=tumor)


def places(*slices: list[Seen], positions: list[float | None] | None = None) -> list[list[int]]:
    where = positions or [5.0 * i for i in range(len(slices))]
    return [sorted(track.masks) for track in tracks(list(slices), positions_mm=where)]


def test_overlap_links_and_distance_does_not() -> None:
    assert places([seen()], [seen(32)], [seen(34)]) == [[0, 1, 2]]
    assert places([seen()], [seen(50, 50)]) == [[0], [1]]


def test_shrinking_region_links_by_its_centre() -> None:
    assert places([seen(radius=15)], [seen(radius=3)]) == [[0, 1]]


def test_gap_of_one_slice_is_bridged_and_of_two_is_not() -> None:
    assert places([seen()], [], [seen()]) == [[0, 2]]
    assert places([seen()], [], [], [seen()]) == [[0], [3]]


def test_two_regions_stay_two_and_none_takes_both() -> None:
    left, right = seen(30, 20), seen(30, 44)
    assert sorted(places([left, right], [left, right], [left])) == [[0, 1], [0, 1, 2]]
    assert places([seen()], [seen(29), seen(32, radius=5)]) == [[0, 1], [1]]


def test_slices_without_place_stay_alone() -> None:
    assert places([seen()], [seen()], positions=[None, None]) == [[0], [1]]


def test_one_loud_slice_is_quieter_in_a_long_region() -> None:
    values = [0.1, 0.9, 0.2, 0.3, 0.1]
    (track,) = tracks([[seen(forged=v, tumor=1 - v)] for v in values], positions_mm=[5.0 * i for i in range(5)])
    assert track.p_forged == pytest.approx((0.9 + 0.2 + 0.3) / 3)
    assert track.p_tumor == pytest.approx((0.8 + 0.7 + 0.9) / 3)
    (single,) = tracks([[seen(forged=0.9)]], positions_mm=[0.0])
    assert single.p_forged == 0.9


def test_nothing_seen_nothing_linked() -> None:
    assert tracks([[], []], positions_mm=[0.0, 5.0]) == []
