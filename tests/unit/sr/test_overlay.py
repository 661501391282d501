"""The outline says where without hiding what."""

from typing import Any

import numpy as np
import pytest

from dicomguard.errors import Broken
from dicomguard.sr import overlay


def _disc(size: int, radius: int) -> Any:
    rows, columns = np.mgrid[:size, :size]
    return (rows - size // 2) ** 2 + (columns - size // 2) ** 2 <= radius**2


@pytest.mark.parametrize("category", ["real", "added", "removed"])
@pytest.mark.parametrize("scale", [1, 2, 3])
def test_region_stays_visible_and_line_runs_outside(category: str, scale: int) -> None:
    pixels = np.random.default_rng(7).integers(0, 256, (64, 48), dtype=np.uint8)
    mask = np.zeros((64, 48), bool)
    mask[20:40, 15:30] = True
    rgb = overlay.render(pixels, [(mask, category)], scale=scale)
    assert rgb.shape == (64 * scale, 48 * scale, 3) and rgb.dtype == np.uint8
    plain = np.repeat(np.repeat(np.repeat(pixels[:, :, None], 3, 2), scale, 0), scale, 1)
    big = np.repeat(np.repeat(mask, scale, 0), scale, 1)
    assert (rgb[big] == plain[big]).all()
    changed = (rgb != plain).any(axis=2)
    rows, columns = np.nonzero(changed)
    assert rows.min() >= (20 - 4) * scale and rows.max() < (40 + 4) * scale
    assert columns.min() >= (15 - 4) * scale and columns.max() < (30 + 4) * scale
    assert (rgb == overlay.COLOURS[category]).all(axis=2).sum() > 20
    assert (rgb[changed] == 0).all(axis=1).any(), "no halo"


def test_strokes_differ_without_colour() -> None:
    pixels = np.full((64, 64), 128, np.uint8)
    shares = []
    for category in ("real", "added", "removed"):
        rgb = overlay.render(pixels, [(_disc(64, 12), category)])
        coloured = (rgb == overlay.COLOURS[category]).all(axis=2)
        halo = (rgb == 0).all(axis=2)
        shares.append(coloured.sum() / (coloured | halo).sum())
    assert shares[0] > shares[1] * 1.3 > shares[2] * 1.3


def test_neighbours_do_not_cover_each_other() -> None:
    pixels = np.full((40, 40), 200, np.uint8)
    left, right = np.zeros((40, 40), bool), np.zeros((40, 40), bool)
    left[10:30, 8:19], right[10:30, 20:31] = True, True
    rgb = overlay.render(pixels, [(left, "real"), (right, "added")])
    assert (rgb[left | right] == 200).all()


def test_region_at_the_edge_and_empty_mask() -> None:
    pixels = np.zeros((20, 20), np.uint8)
    mask = np.zeros((20, 20), bool)
    assert (overlay.render(pixels, [(mask, "real")]) == 0).all()
    mask[:] = True
    assert (overlay.render(pixels, [(mask, "real")]) == 0).all()
    mask[:, 10:] = False
    assert (overlay.render(pixels, [(mask, "real")]) == overlay.COLOURS["real"]).all(axis=2).any()


def test_impossible_arguments_are_refused() -> None:
    pixels = np.zeros((8, 8), np.uint8)
    with pytest.raises(Broken, match="does not fit"):
        overlay.render(pixels, [(np.zeros((8, 9), bool), "real")])
    with pytest.raises(Broken, match="no colour"):
        overlay.render(pixels, [(np.zeros((8, 8), bool), "absent")])
    with pytest.raises(Broken, match="scale 0"):
        overlay.render(pixels, [], scale=0)
