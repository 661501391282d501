from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from dicomguard.web.unpack import scan
from tests import studies

Picture = NDArray[Any]


def photograph() -> Picture:
    """Colour all over, as daylight gives it."""
    rng = np.random.default_rng(5)
    smooth = ndimage.gaussian_filter(rng.normal(size=(200, 260, 3)), (12, 12, 0))
    made: Picture = np.clip(120 + 900 * smooth, 0, 255).astype(np.uint8)
    return made


def grey_landscape() -> Picture:
    made: Picture = photograph().mean(axis=2).astype(np.uint8)
    return made


def page_of_text() -> Picture:
    rng = np.random.default_rng(6)
    page = np.full((300, 220), 245.0)
    page[20:280:12, 20:200] = np.where(rng.random((22, 180)) < 0.5, 20, 245)
    made: Picture = (page + rng.normal(0, 3, page.shape)).clip(0, 255).astype(np.uint8)
    return made


def two_knees() -> Picture:
    y, x = np.mgrid[0:200, 0:300]
    rng = np.random.default_rng(7)
    inside = (np.hypot(y - 100, x - 70) < 45) | (np.hypot(y - 100, x - 230) < 45)
    made: Picture = (np.where(inside, 150, 4) + rng.normal(0, 5, inside.shape)).clip(0, 255).astype(np.uint8)
    return made


def stars() -> Picture:
    sky = np.random.default_rng(8).normal(20, 6, (256, 256))
    sky[20:42, 30:52] = 250
    made: Picture = sky.clip(0, 255).astype(np.uint8)
    return made


def lamp_on_grey_wall() -> Picture:
    y, x = np.mgrid[0:200, 0:200]
    rng = np.random.default_rng(9)
    wall = np.where(np.hypot(y - 100, x - 100) < 60, 230, 110)
    made: Picture = (wall + rng.normal(0, 6, y.shape)).clip(0, 255).astype(np.uint8)
    return made


def chessboard() -> Picture:
    made: Picture = ((np.indices((200, 200)) // 25).sum(axis=0) % 2 * 255).astype(np.uint8)
    return made


@pytest.mark.parametrize(
    ("picture", "sign"),
    [
        (photograph, "coloured"),
        (grey_landscape, "no dark surround"),
        (page_of_text, "surround"),
        (two_knees, "several separate objects"),
        (stars, "size of a head"),
        (lamp_on_grey_wall, "surround is not dark"),
        (chessboard, "shades of grey"),
        (lambda: np.zeros((128, 128), np.uint8), "1 shades of grey"),
        (lambda: studies.head(95, 200), "200 × 95 pixels"),
    ],
)
def test_what_is_no_slice_is_named(picture: Callable[[], Picture], sign: str) -> None:
    answer = scan.decide(picture())
    assert isinstance(answer, scan.NoScan)
    assert sign in answer.sign


@pytest.mark.parametrize("size", [(96, 96), (128, 128), (256, 208), (512, 512), (900, 700)])
def test_a_head_in_air_is_taken(size: tuple[int, int]) -> None:
    assert scan.decide(studies.head(*size, seed=1)) == scan.Scan()


def test_bits_and_grey_rgb_make_no_difference() -> None:
    head = studies.head(200, 200, seed=2, tumor=(90, 110, 14))
    eight = (head / 1200 * 255).clip(0, 255).astype(np.uint8)
    assert (
        scan.decide(eight) == scan.decide(np.dstack([eight] * 3)) == scan.decide(head.astype(np.float32)) == scan.Scan()
    )


def test_a_little_colour_is_an_annotation() -> None:
    head = (studies.head(200, 200, seed=3) / 1200 * 255).clip(0, 255).astype(np.uint8)
    picture = np.dstack([head] * 3)
    picture[2:12, 4:60] = (255, 220, 0)
    assert scan.decide(picture) == scan.Scan()


def test_a_head_that_reaches_two_sides_is_taken() -> None:
    # As a sagittal slice: the neck leaves through the lower border.
    head = studies.head(200, 200, seed=4)
    assert scan.decide(head[:150, :]) == scan.Scan()
