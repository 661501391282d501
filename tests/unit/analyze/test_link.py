"""Detections of neighbouring slices become one region, and only those."""

from dataclasses import replace

import numpy as np
import pytest

from dicomguard.analyze.link import Seen, Track, chains, joined, tracks
from dicomguard.analyze.scores import UNCALIBRATED


def seen(
    row: int = 30, column: int = 30, radius: int = 6, *, forged: float = 0.5, tumor: float = 0.5, added: float = 0.0
) -> Seen:
    y, x = np.mgrid[0:64, 0:64]
    return Seen(mask=np.hypot(y - row, x - column) <= radius, p_forged=forged, p_tumor=tumor, added=added)


def places(*slices: list[Seen], positions: list[float | None] | None = None) -> list[list[int]]:
    where = positions or [5.0 * i for i in range(len(slices))]
    return [[index for index, _ in members] for members in chains(list(slices), positions_mm=where)]


def linked(
    *slices: list[Seen],
    placed: bool = True,
    lone_cost: float = 0.0,
    looked_at: int | None = None,
    elsewhere: int = 0,
) -> list[Track]:
    where = [5.0 * i if placed else None for i in range(len(slices))]
    calibration = replace(UNCALIBRATED, lone_cost=lone_cost)
    count = len(slices) if looked_at is None else looked_at
    return tracks(list(slices), positions_mm=where, looked_at=count, elsewhere=elsewhere, calibration=calibration)


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


def test_masks_of_a_track_are_those_of_its_slices() -> None:
    (track,) = linked([seen(forged=0.1)], [seen(32, forged=0.1)])
    assert [np.array_equal(track.masks[i], seen(30 + 2 * i).mask) for i in (0, 1)] == [True, True]


def test_the_mask_of_a_forgery_takes_in_its_rim() -> None:
    (track,) = linked([seen(forged=0.9)])
    assert not (seen(radius=7).mask & ~track.masks[0]).any()
    assert not (track.masks[0] & ~seen(radius=9).mask).any()


def test_a_forged_region_ends_where_slices_stop_showing_it() -> None:
    loud, quiet = [seen(forged=0.95, tumor=0.0)], [seen(forged=0.3, tumor=0.0)]
    (track,) = linked(quiet, quiet, loud, quiet, loud, loud, quiet)
    assert track.p_forged >= 0.5 and sorted(track.masks) == [2, 3, 4, 5]


def test_a_lesion_fades_out() -> None:
    clear, faint, none = ([seen(forged=0.1, tumor=p)] for p in (0.9, 0.25, 0.1))
    (track,) = linked(none, faint, clear, clear, faint, none)
    assert sorted(track.masks) == [1, 2, 3, 4]


def test_a_region_that_no_slice_shows_by_itself_is_its_strongest_slice() -> None:
    (track,) = linked([seen(forged=0.1, tumor=0.1)], [seen(forged=0.1, tumor=0.15)], [seen(forged=0.1, tumor=0.1)])
    assert sorted(track.masks) == [1]


def test_air_around_a_head_does_not_quieten_it() -> None:
    loud, air = [[seen(forged=0.9, tumor=0.9)]] * 3, [list[Seen]()] * 200
    (alone,), (wide,) = linked(*loud, looked_at=25), linked(*air, *loud, *air, looked_at=25)
    assert (alone.p_forged, alone.p_tumor) == (wide.p_forged, wide.p_tumor)
    (long,) = linked(*air, *loud, *air)
    assert long.p_forged < wide.p_forged


def test_one_loud_slice_is_quieter_than_three() -> None:
    loud = [seen(forged=0.9)]
    (once,), (thrice,) = linked([], loud, [], lone_cost=1.0), linked(loud, loud, loud, lone_cost=1.0)
    assert once.p_forged < thrice.p_forged


def test_the_strongest_slices_say_whether_it_was_put_in() -> None:
    loud, quiet = seen(forged=0.9, added=2.0), seen(forged=0.1, added=-5.0)
    (one,) = linked([quiet], [loud], [loud], [loud], [quiet])
    (other,) = linked([seen(forged=0.9, added=-2.0)])
    assert one.p_lesion == pytest.approx(0.88, abs=0.01) and other.p_lesion == pytest.approx(0.12, abs=0.01)


def test_loose_pictures_are_judged_one_by_one() -> None:
    pictures = linked([seen(forged=0.9)], [seen(forged=0.1)], placed=False)
    assert [track.p_forged for track in pictures] == pytest.approx([0.9, 0.1])


def test_more_slices_make_an_alarm_harder() -> None:
    few = linked(*[[seen(forged=0.9)]] * 3)
    many = linked(*[[seen(forged=0.9)]] * 3, *[[]] * 97)
    assert many[0].p_forged < few[0].p_forged


def test_more_slices_in_other_stacks_do_so_too_and_leave_lesions_and_pictures_as_they_are() -> None:
    loud = [[seen(forged=0.9, tumor=0.9)]] * 25
    (alone,), (one_of_four,), (long,) = linked(*loud), linked(*loud, elsewhere=75), linked(*loud, *[[]] * 75)
    assert one_of_four.p_forged == long.p_forged < alone.p_forged
    assert one_of_four.p_tumor == alone.p_tumor
    picture = [seen(forged=0.9)]
    assert linked(picture, placed=False, elsewhere=75)[0].p_forged == linked(picture, placed=False)[0].p_forged


def test_nothing_seen_nothing_linked() -> None:
    assert linked([], []) == []


def track(*slices: int, column: int = 30, radius: int = 6, forged: float = 0.1, tumor: float = 0.9) -> Track:
    mask = seen(30, column, radius).mask
    return Track(masks=dict.fromkeys(slices, mask), p_forged=forged, p_tumor=tumor, p_lesion=tumor)


def test_a_fragment_beside_a_tumor_is_part_of_it() -> None:
    whole = joined([track(2, column=41, radius=3, tumor=0.95), track(1, 2, 3)])
    assert len(whole) == 1
    assert sorted(whole[0].masks) == [1, 2, 3] and whole[0].p_tumor == 0.95
    assert (whole[0].masks[2] == seen(30, 41, 3).mask | seen().mask).all()
    assert (whole[0].masks[1] == seen().mask).all()


def test_a_fragment_can_join_two_others() -> None:
    parts = [track(1, column=18), track(1, column=44), track(1, column=31)]
    assert len(joined(parts)) == 1 and len(joined(parts[:2])) == 2


def test_what_lies_apart_or_says_something_else_stays_apart() -> None:
    assert len(joined([track(1), track(1, column=50)])) == 2
    assert len(joined([track(1), track(2)])) == 2, "no slice in common: the chain has decided that"
    assert len(joined([track(1), track(1, forged=0.9)])) == 2, "a forged region beside a real tumor"
    assert len(joined([track(1, tumor=0.2), track(1, tumor=0.3)])) == 2, "nothing that is reported"
