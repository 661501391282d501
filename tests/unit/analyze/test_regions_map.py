"""Maps and boxes become regions of the slice, each thing once."""

import numpy as np
import pytest
from numpy.typing import NDArray

from dicomguard.analyze import regions_map
from dicomguard.analyze.regions_map import Box

HEAD = np.ones((64, 64), dtype=bool)


def maps(
    forged: tuple[slice, slice] | None = None,
    lesion: tuple[slice, slice] | None = None,
    added: tuple[slice, slice] | None = None,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    fine = np.full((3, 64, 64), -5.0, dtype=np.float32)
    if forged:
        fine[0][forged] = 3.0
    if lesion:
        fine[1][lesion] = 4.0
    if added:
        fine[2][added] = 2.0
    return fine, fine[:, ::2, ::2].copy()


def box(x: float, y: float, side: float, *, lesion: float, forged: float) -> Box:
    return Box(
        box=(x, y, x + side, y + side), p_lesion=lesion, p_forged=forged, mask=np.ones((28, 28), dtype=np.float32)
    )


def test_a_bright_part_of_the_map_is_a_region_in_native_pixels() -> None:
    (one,) = regions_map.candidates(*maps(np.s_[10:20, 30:40]), HEAD, proposals=[])
    assert one.mask.shape == (128, 128)
    assert one.mask[30, 70] and not one.mask[60, 70]
    assert one.weaker == 0.0


def test_a_box_on_the_part_is_the_same_region_and_tells_the_tissue() -> None:
    fine, coarse = maps(np.s_[10:20, 30:40], np.s_[10:20, 30:40])
    plain = regions_map.candidates(fine, coarse, HEAD, proposals=[])
    (one,) = regions_map.candidates(fine, coarse, HEAD, proposals=[box(60, 20, 20, lesion=0.999, forged=0.9)])
    assert one.lesion > plain[0].lesion


def test_a_region_says_whether_it_was_put_in_where_it_is_forged() -> None:
    (inside,) = regions_map.candidates(*maps(np.s_[10:20, 30:40], added=np.s_[8:22, 28:42]), HEAD, proposals=[])
    (outside,) = regions_map.candidates(*maps(np.s_[10:20, 30:40], added=np.s_[40:60, 30:40]), HEAD, proposals=[])
    assert inside.added > 0 > outside.added


def test_a_box_elsewhere_is_a_region_of_its_own_and_weaker() -> None:
    found = regions_map.candidates(
        *maps(np.s_[10:20, 30:40]), HEAD, proposals=[box(10, 90, 24, lesion=0.9, forged=0.1)]
    )
    assert sorted(region.weaker == 0.0 for region in found) == [False, True]


def test_faint_boxes_and_specks_are_nothing() -> None:
    found = regions_map.candidates(
        *maps(np.s_[10:20, 30:40]),
        HEAD,
        proposals=[box(10, 90, 24, lesion=0.1, forged=0.1), box(90, 90, 3, lesion=1, forged=0)],
    )
    assert len(found) == 1


def test_no_head_no_region() -> None:
    assert regions_map.candidates(*maps(), ~HEAD, proposals=[]) == []


def test_placed_moves_box_and_mask_together() -> None:
    (one,) = regions_map.candidates(*maps(np.s_[10:20, 30:40]), HEAD, proposals=[])
    moved = regions_map.placed(one, (8, 16, 136, 144), (200, 180))
    assert moved.mask.shape == (200, 180) and moved.mask.sum() == one.mask.sum()
    assert moved.box[0] == one.box[0] + 16 and moved.box[1] == one.box[1] + 8


@pytest.mark.parametrize("sides", [(52, 48), (51, 49), (52, 49), (51, 48)])
def test_the_coarse_map_lies_on_the_fine_one_when_it_ends_in_half_a_cell(sides: tuple[int, int]) -> None:
    """⌈h/2⌉ cells stand for h rows: the last one reaches beyond, the others stay where they are."""
    cells = (-(-sides[0] // 2), -(-sides[1] // 2))
    # A region that only the coarse map shows, in the corner where a wrong factor moves most.
    coarse = np.full((3, *cells), -5.0, dtype=np.float32)
    coarse[0, cells[0] - 9 : cells[0] - 5, cells[1] - 9 : cells[1] - 5] = 12.0
    fine = np.full((3, *sides), -5.0, dtype=np.float32)
    (one,) = regions_map.candidates(fine, coarse, np.ones(sides, dtype=bool), proposals=[])
    assert tuple(np.argwhere(one.mask).mean(axis=0) + 0.5) == (4.0 * (cells[0] - 7), 4.0 * (cells[1] - 7))
