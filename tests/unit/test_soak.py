"""The judge of the soak: a leak shows through the noise of open associations, and peaks alone are none."""

import numpy as np
import pytest

from tests.soak import Sample, quietest, slope_percent_an_hour


def curve(*, leak_percent: float) -> list[Sample]:
    """Three quarters of an hour around 70 MiB; one sample in ten stands beside associations with full buffers."""
    rng = np.random.default_rng(1)
    samples = []
    for number in range(270):
        seconds = 900.0 + 10.0 * number
        busy = int(rng.random() < 0.1)
        kib = 71_680 * (1 + leak_percent / 100 * seconds / 3600) + 3_000 * busy + rng.normal(0, 50)
        samples.append(Sample(seconds, int(kib), 19 + busy, 5 + busy))
    return samples


@pytest.mark.parametrize("leak_percent", [-1.0, 0.0, 0.5, 1.0, 3.0])
def test_slope_is_that_of_the_level(leak_percent: float) -> None:
    assert slope_percent_an_hour(curve(leak_percent=leak_percent)) == pytest.approx(leak_percent, abs=0.1)


def test_each_window_is_judged_by_its_quietest_sample() -> None:
    assert quietest(curve(leak_percent=0.0), lambda one: one.threads) == [5] * 9


def test_a_descriptor_that_stays_open_shows() -> None:
    samples = [Sample(one.seconds, one.kib, one.descriptors + (one.seconds > 2000), 5) for one in curve(leak_percent=0)]
    assert len(set(quietest(samples, lambda one: one.descriptors))) == 2
