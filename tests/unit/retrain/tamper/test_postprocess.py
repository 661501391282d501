"""Processing is the same for both twins, stays on the grid and in range, and often does nothing."""

import numpy as np
import pytest

from dicomguard.retrain.tamper import postprocess
from dicomguard.retrain.tamper.postprocess import HELD_BACK, MOVES, OPERATIONS, Postprocess

from .phantom import phantom


@pytest.mark.parametrize("name", [*OPERATIONS, *HELD_BACK])
@pytest.mark.parametrize("high", [255.0, 4095.0])
def test_each_operation_changes_pixels_on_the_grid(name: str, high: float) -> None:
    canvas = phantom(high=high)
    for seed in (0, 1):
        step = Postprocess(steps=(name,), amounts=(0.6,), seed=seed)
        once, twice = (step.apply(canvas.pixels, canvas.low, canvas.high) for _ in range(2))
        assert np.array_equal(once, twice)
        height, width = canvas.pixels.shape[1:]
        assert once.shape[1:] == ((width, height) if name == "quarter turn and flip" else (height, width))
        assert once.dtype == np.float32
        assert np.array_equal(once, np.rint(once))
        assert once.min() >= 0
        assert once.max() <= high
        assert not np.array_equal(once, canvas.pixels)
        # Processing is benign: the picture stays the same picture.
        if name not in MOVES:
            assert np.corrcoef(once.ravel(), canvas.pixels.ravel())[0, 1] > 0.97


@pytest.mark.parametrize("name", MOVES)
@pytest.mark.parametrize("seed", range(6))
def test_a_mask_goes_with_the_pixels(name: str, seed: int) -> None:
    """A bright patch is still what the mask marks."""
    canvas = phantom()
    mask = np.zeros(canvas.pixels.shape[1:], np.bool_)
    mask[50:70, 30:60] = True
    marked = np.where(mask, 255.0, np.minimum(canvas.pixels, 120.0)).astype(np.float32)
    step = Postprocess(steps=(name,), amounts=(0.5,), seed=seed)
    after, moved = step.apply(marked, 0.0, 255.0), step.moved(mask)
    assert moved.shape == after.shape[1:]
    # Interpolation blurs the outline only.
    assert abs(int(moved.sum()) - int(mask.sum())) <= 10
    for plane in after:
        bright = plane > 188
        assert (bright & moved).sum() > 0.95 * moved.sum()
        assert (bright & ~moved).sum() < 0.05 * moved.sum()


def test_turning_and_cropping_change_no_value() -> None:
    canvas = phantom()
    turned = Postprocess(steps=("quarter turn and flip",), amounts=(0.5,), seed=1).apply(canvas.pixels, 0.0, 255.0)
    assert np.array_equal(turned, canvas.pixels.transpose(0, 2, 1)[:, ::-1, ::-1])
    cropped = Postprocess(steps=("crop and pad",), amounts=(0.5,), seed=1).apply(canvas.pixels, 0.0, 255.0)
    # The middle of the head is the same, at most a tenth of a side away.
    middle = canvas.pixels[:, 50:80, 45:75]
    places = [(r, c) for r in range(36, 65) for c in range(31, 60)]
    assert any(np.array_equal(cropped[:, r : r + 30, c : c + 30], middle) for r, c in places)


def test_what_only_changes_values_leaves_a_mask_alone() -> None:
    mask = phantom().lesion[0]
    for name in {*OPERATIONS, *HELD_BACK} - set(MOVES):
        assert np.array_equal(Postprocess(steps=(name,), amounts=(0.6,), seed=3).moved(mask), mask)


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
