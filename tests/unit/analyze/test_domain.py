"""Plain measures against the range of the training."""

from dataclasses import replace

import numpy as np
import pytest

from dicomguard.analyze import domain
from dicomguard.analyze.judging import SMOOTHED, JudgedStack, Plane
from dicomguard.core import english
from dicomguard.core.study import SeriesPlan
from tests import studies
from tests.sr_cases import case, frames, single_frame

PLAN = replace(
    case("absent", [frames(single_frame(3))]).manifest.series[0], pixel_spacing_mm=(0.7, 0.7), spacing_mm=(3.0, 3.0)
)


def head(side: int = 256) -> Plane:
    return studies.head(side, side).astype(np.float32)


def judged(smoothing: float, *, edited_alike: bool = False) -> JudgedStack:
    return JudgedStack(
        scores=(0.1,), skipped=("",), head_pixels=(1000,), regions=(), smoothing=smoothing, edited_alike=edited_alike,
        forgery=0.1, tumor=0.1,
    )  # fmt: skip


def outside(
    planes: list[Plane], plan: SeriesPlan = PLAN, smoothing: float = 2.0, *, compressed: bool = False
) -> tuple[str, ...]:
    return domain.outside(planes, plan, judged(smoothing), compressed=compressed)


def test_inside() -> None:
    assert outside([head()] * 3) == ()
    # What the objects do not say is no reason.
    assert outside([head(512)], replace(PLAN, pixel_spacing_mm=None, spacing_mm=None)) == ()
    # A gap is evidence of the files, not another kind of scan.
    assert outside([head()], replace(PLAN, spacing_mm=(3.0, 30.0))) == ()


@pytest.mark.parametrize(
    ("planes", "plan", "smoothing", "reason"),
    [
        ([head(192)], PLAN, 2.0, "matrix 192 × 192"),
        ([head(640)], PLAN, 2.0, "matrix 640 × 640"),
        ([head()], replace(PLAN, pixel_spacing_mm=(1.2, 1.2)), 2.0, "pixels of 1.2 × 1.2 mm"),
        ([head()], replace(PLAN, spacing_mm=(1.0, 1.0)), 2.0, "slices 1 mm apart"),
        ([head()], replace(PLAN, spacing_mm=(25.0, 30.0)), 2.0, "slices 25 mm apart"),
        ([np.round(head() / 100)], PLAN, 2.0, "8 grey levels"),
        ([head()], PLAN, SMOOTHED + 0.1, "fine noise missing"),
    ],
)
def test_outside(planes: list[Plane], plan: SeriesPlan, smoothing: float, reason: str) -> None:
    assert outside(planes, plan, smoothing) == (reason,)


def test_unsaid_compression_is_outside() -> None:
    assert outside([head()], compressed=True) == ("traces of lossy compression",)
    assert outside([head()], smoothing=SMOOTHED + 0.1, compressed=True) == (domain.SMOOTH, domain.COMPRESSED)


def test_a_series_that_looks_edited_throughout_is_outside() -> None:
    """It may be a scanner that nobody has tried: the scores have no known error rate there."""
    assert domain.outside([head()] * 5, PLAN, judged(2.0, edited_alike=True), compressed=False) == (domain.ALIKE,)


def test_each_phrase_of_the_pixels_is_explained() -> None:
    assert {domain.SMOOTH, domain.COMPRESSED, domain.ALIKE} <= english.NOTES.keys()


def test_saturated() -> None:
    assert not domain.saturated(head())
    assert domain.saturated(np.minimum(head(), np.float32(300)))
    # Fat that is cut off by a window, and a slice without anything.
    assert not domain.saturated(np.minimum(head(), np.float32(900)))
    assert not domain.saturated(np.zeros((256, 256), np.float32))
    empty = np.zeros((256, 256), np.float32)
    empty[:3, :3] = 1
    assert not domain.saturated(empty)
