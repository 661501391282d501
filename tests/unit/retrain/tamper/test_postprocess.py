"""Processing is the same for both twins, stays on the grid and in range, and often does nothing."""

import numpy as np
import pytest

from dicomguard.retrain.tamper import postprocess
from dicomguard.retrain.tamper.postprocess import HELD_BACK, OPERATIONS, Postprocess

from .phantom import phantom


@pytest.mark.parametrize("name", [*OPERATIONS, *HELD_BACK])
@pytest.mark.parametrize("high", [255.0, 4095.0])
def test_each_operation_changes_pixels_on_the_grid(name: str, high: float) -> None:
    canvas = phantom(high=high)
    for seed in (0, 1):
        step = Postprocess(steps=(name,), amounts=(0.6,), seed=seed)
        once, twice = (step.apply(canvas.pixels, canvas.low, canvas.high) for _ in range(2))
        assert np.array_equal(once, twice)
        assert once.shape == canvas.pixels.shape
        assert once.dtype == np.float32
        assert np.array_equal(once, np.rint(once))
        assert once.min() >= 0
        assert once.max() <= high
        assert not np.array_equal(once, canvas.pixels)
        # Processing is benign: the picture stays the same picture.
        assert np.corrcoef(once.ravel(), canvas.pixels.ravel())[0, 1] > 0.97


def test_three_of_five_draws_do_something() -> None:
    rng = np.random.default_rng(0)
    touched = [bool(postprocess.draw(rng).steps) for _ in range(400)]
    assert 0.53 < np.mean(touched) < 0.67


def test_training_never_draws_what_is_held_back() -> None:
    rng = np.random.default_rng(1)
    drawn = {step for _ in range(600) for step in postprocess.draw(rng).steps}
    assert drawn == set(OPERATIONS)


def test_nothing_drawn_gives_the_same_array() -> None:
    pixels = phantom().pixels
    assert Postprocess().apply(pixels, 0.0, 255.0) is pixels


def test_a_name_that_is_not_held_back_is_refused() -> None:
    with pytest.raises(KeyError, match="jpeg"):
        postprocess.held_back("jpeg", np.random.default_rng(0))
