"""Masks as measures: against squares and discs whose area, outline and volume are known."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dicomguard.analyze import masks, regions
from dicomguard.core.finding import Finding, FindingSlice
from dicomguard.errors import Broken


def square(rows: slice, columns: slice, size: tuple[int, int] = (40, 50)) -> regions.Mask:
    mask = np.zeros(size, dtype=bool)
    mask[rows, columns] = True
    return mask


def shoelace(outline: tuple[tuple[float, float], ...]) -> float:
    x, y = np.asarray(outline).T
    return abs(float(np.dot(x[:-1], y[1:]) - np.dot(x[1:], y[:-1]))) / 2


def test_square() -> None:
    found = regions.measure(square(slice(10, 20), slice(5, 25)), (2.0, 0.5))
    assert found.pixels == 200
    assert found.area_mm2 == 200.0
    assert found.box_px == (10, 5, 20, 25)
    assert found.centre_px == (14.5, 14.5)
    x, y = np.asarray(found.outline_px).T
    # The border runs between the pixels' centres and outside; (0, 0) is the corner of the first pixel.
    assert (x.min(), x.max(), y.min(), y.max()) == (5.0, 25.0, 10.0, 20.0)
    assert shoelace(found.outline_px) == pytest.approx(200, rel=0.02)
    assert found.outline_px[0] == found.outline_px[-1]
    assert found.extent_mm == pytest.approx(np.hypot(20.0, 10.0), rel=0.06)


def test_without_spacing_nothing_is_claimed_in_millimetres() -> None:
    found = regions.measure(square(slice(10, 20), slice(5, 25)), None)
    assert (found.area_mm2, found.extent_mm) == (0.0, 0.0)


def test_outline_is_that_of_the_largest_part_and_area_of_all() -> None:
    mask = square(slice(0, 3), slice(0, 3)) | square(slice(10, 20), slice(30, 40))
    found = regions.measure(mask, (1.0, 1.0))
    assert found.pixels == 109
    assert min(x for x, _ in found.outline_px) >= 30


def test_one_pixel_has_an_outline() -> None:
    outline = regions.measure(square(slice(3, 4), slice(7, 8)), (1.0, 1.0)).outline_px
    assert len(outline) >= 4
    assert all(7.0 <= x <= 8.0 and 3.0 <= y <= 4.0 for x, y in outline)


def test_ragged_outline_keeps_to_four_hundred_points() -> None:
    y, x = np.mgrid[0:400, 0:400]
    angle = np.arctan2(y - 200, x - 200)
    found = regions.measure(np.hypot(y - 200, x - 200) < 150 + 25 * np.sin(90 * angle), (1.0, 1.0))
    assert 100 < len(found.outline_px) <= regions.MOST_POINTS + 1


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), strengths=st.lists(st.floats(0, 1), min_size=2, max_size=4))
def test_regions_never_share_a_pixel_and_the_stronger_loses_none(seed: int, strengths: list[float]) -> None:
    rng = np.random.default_rng(seed)
    given_masks = [{i: rng.random((12, 12)) < 0.4 for i in range(3)} for _ in strengths]
    own = regions.disjoint(given_masks, strengths)
    for index in range(3):
        layers = [region[index] for region in own if index in region]
        assert np.sum(layers, axis=0).max() <= 1
        union = np.any([region[index] for region in given_masks], axis=0)
        assert np.array_equal(np.any(layers, axis=0), union)
    strongest = max(range(len(strengths)), key=lambda r: (strengths[r], -r))
    assert all(np.array_equal(own[strongest][i], given_masks[strongest][i]) for i in own[strongest])


def test_region_that_lies_inside_a_stronger_one_is_gone() -> None:
    inner, outer = square(slice(12, 14), slice(12, 14)), square(slice(10, 20), slice(10, 20))
    assert regions.disjoint([{0: inner}, {0: outer}], [0.3, 0.9])[0] == {}
    tie = regions.disjoint([{0: inner}, {0: outer}], [0.5, 0.5])
    assert np.array_equal(tie[0][0], inner)
    assert np.count_nonzero(tie[1][0]) == 96


def test_volume() -> None:
    assert regions.volume_mm3([10.0, 20.0], [5.0, 2.5]) == 100.0
    assert regions.volume_mm3([10.0, 20.0], [5.0, None]) == 0.0


def finding(*slices: tuple[str, int | None]) -> Finding:
    return Finding(
        id="F1",
        category="real",
        series="1",
        slices=tuple(
            FindingSlice(sop_instance_uid=sop, frame=frame, area_mm2=1, box_px=(0, 0, 1, 1), outline_px=())
            for sop, frame in slices
        ),
        key_slice=0,
        volume_mm3=0,
        extent_mm=0,
        centroid_lps_mm=None,
        p_forged=0,
        p_tumor=0,
        authentic_rank=None,
        evidence=(),
        touches_skipped_slice=False,
    )


def test_masks_come_back_bit_by_bit_and_are_named_by_the_contract() -> None:
    first, second = square(slice(1, 7), slice(2, 9), (11, 13)), square(slice(3, 4), slice(0, 13), (11, 13))
    names = {masks.key("F1", "1.2", None): first, masks.key("F1", "1.3", 7): second}
    assert set(names) == {"F1/1.2/1", "F1/1.3/7"}
    data = masks.pack(names)
    assert data == masks.pack(dict(reversed(names.items())))
    back = masks.unpack(data, (finding(("1.2", None), ("1.3", 7)),), lambda sop: (11, 13))
    assert [(sop, frame) for sop, frame, _ in back["F1"]] == [("1.2", None), ("1.3", 7)]
    assert np.array_equal(back["F1"][0][2], first)
    assert np.array_equal(back["F1"][1][2], second)


@pytest.mark.parametrize(("slices", "size"), [([("1.9", None)], (11, 13)), ([("1.2", None)], (11, 99))])
def test_mask_that_does_not_fit_is_refused(slices: list[tuple[str, int | None]], size: tuple[int, int]) -> None:
    data = masks.pack({masks.key("F1", "1.2", None): square(slice(1, 7), slice(2, 9), (11, 13))})
    with pytest.raises(Broken):
        masks.unpack(data, (finding(*slices),), lambda sop: size)
