"""A slice of a stack is shown in training by the scale of a whole series, as the product shows it."""

import numpy as np
import pytest

from dicomguard.analyze import channels
from dicomguard.analyze.channels import Mask, Plane
from dicomguard.retrain.net import whole_series


def stack(count: int = 6) -> tuple[list[Plane], list[Mask]]:
    """Heads whose tissue becomes brighter and noisier from slice to slice."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[0:128, 0:128]
    distance = np.hypot(y - 64, x - 64)
    slices, heads = [], []
    for z in range(count):
        tissue = (100 + 20 * z) * (1 + 0.3 * np.cos(distance / 9)) + rng.normal(0, 4 + z, distance.shape)
        slices.append(np.rint(np.where(distance < 50, np.maximum(tissue, 1), 0)).astype(np.float32))
        heads.append(distance < 50)
    return slices, heads


def test_a_slice_at_its_place_gets_the_scale_of_its_series() -> None:
    slices, heads = stack()
    whole = channels.measure(slices, heads)
    for i in (0, 5):
        own = channels.measure([slices[i]], [heads[i]])
        seen = whole_series.place(own, whole).of(own)
        assert (seen.low, seen.high) == pytest.approx((whole.low, whole.high))
        assert seen.gains == pytest.approx(whole.gains)
        assert seen.sigmas == pytest.approx(np.interp(own.levels, whole.levels, whole.sigmas), rel=1e-6)


def test_the_ends_of_a_stack_stand_elsewhere_than_its_middle() -> None:
    first, *_, last = whole_series.places(*stack())
    for scale in (0, 1):
        assert first[scale].sigmas.mean() > 1.05 > 0.95 > last[scale].sigmas.mean()
        assert first[scale].width > 1.3 * last[scale].width
        assert first[scale].low > -0.1 > last[scale].low


def test_another_scan_at_that_place_keeps_a_curve_that_does_not_fall() -> None:
    slices, heads = stack()
    other = channels.measure([np.rint(slices[2] * 7)], [heads[2]])
    for places in whole_series.places(slices, heads):
        for place in places:
            seen = place.of(other)
            assert np.all(np.diff(seen.sigmas) >= 0) and seen.sigmas[0] > 0
            assert seen.high > seen.low and min(seen.gains) > 0


def test_loose_pictures_have_no_place() -> None:
    slices, heads = stack(4)
    assert whole_series.places(slices, heads) == ()
