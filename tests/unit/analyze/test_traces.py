"""Sentences on a region: against noise that is made weaker, stronger or left alone."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from dicomguard.analyze.traces import describe

REGION = np.zeros((128, 128), dtype=bool)
REGION[50:75, 40:70] = True


def planes(factor: float, count: int = 3) -> list[np.ndarray[tuple[int, ...], np.dtype[np.float32]]]:
    rng = np.random.default_rng(5)
    noise = rng.normal(0, 10, (count, 128, 128))
    noise[:, REGION] *= factor
    return list((500 + noise).astype(np.float32))


def keys(factor: float, masks: Mapping[int, np.ndarray[Any, np.dtype[np.bool_]]], count: int = 3) -> list[str]:
    return [item.sentence_key for item in describe(planes(factor, count), masks, placed=True)]


@pytest.mark.parametrize(
    ("factor", "key", "percent"), [(0.6, "noise_below", 40), (1.5, "noise_above", 50), (1.0, "noise_fits", None)]
)
def test_noise_inside_against_tissue_of_equal_brightness(factor: float, key: str, percent: int | None) -> None:
    (sentence,) = describe(planes(factor), {1: REGION}, placed=True)
    assert sentence.sentence_key == key
    if percent is not None:
        assert sentence.parameters["percent"] == pytest.approx(percent, abs=8)


def test_too_few_pixels_or_nothing_alike_say_nothing() -> None:
    small = np.zeros_like(REGION)
    small[50:54, 50:54] = True
    assert keys(0.5, {1: small}) == []
    bright = planes(0.5)
    for plane in bright:
        plane[REGION] += 3000
    assert describe(bright, {1: REGION}, placed=True) == ()
    assert describe([np.full((128, 128), 5, np.float32)], {0: REGION}, placed=True) == ()


def test_abrupt_end_where_the_stack_goes_on() -> None:
    tapered = REGION.copy()
    tapered[60:] = False
    steep, soft = {2: REGION, 3: REGION, 4: REGION}, {1: tapered, 2: REGION, 3: tapered}
    assert keys(1.0, steep, 7) == ["noise_fits", "abrupt_end"]
    assert keys(1.0, soft, 7) == ["noise_fits"]
    # At the ends of the stack every region ends.
    assert keys(1.0, {0: REGION, 1: REGION, 2: REGION}, 3) == ["noise_fits"]
    assert [item.sentence_key for item in describe(planes(1.0, 7), steep, placed=False)] == ["noise_fits"]
