"""Every family keeps the promises of `Forged`; none fails on a canvas that it cannot use."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dicomguard.retrain.tamper import families
from dicomguard.retrain.tamper.families import FAMILIES, HELD_BACK, Family
from dicomguard.retrain.tamper.finish import differing
from dicomguard.retrain.tamper.forged import Canvas, Forged
from dicomguard.retrain.tamper.second_hand import SECOND_HAND

from .phantom import phantom

ALL = {**FAMILIES, **HELD_BACK, **SECOND_HAND}


def forge_some(family: Family, canvas: Canvas, donor: Canvas | None, *, count: int = 3) -> list[Forged]:
    forged = [family.forge(canvas, donor, np.random.default_rng(seed)) for seed in range(6 * count)]
    return [one for one in forged if one is not None][:count]


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("high", [255.0, 4095.0])
def test_promises(name: str, high: float) -> None:
    canvas, donor = phantom(high=high), phantom(high=high, seed=7)
    made = forge_some(ALL[name], canvas, donor)
    assert made, "a head with a lesion and a donor allow every family"
    for forged in made:
        outside = forged.alpha == 0
        assert np.array_equal(forged.pixels[outside], canvas.pixels[outside])
        assert forged.twin is canvas.pixels
        assert np.array_equal(forged.pixels, np.rint(forged.pixels))
        assert forged.pixels.dtype == forged.alpha.dtype == np.float32
        assert forged.mask.dtype == forged.lesion.dtype == np.bool_
        assert forged.mask.shape == forged.lesion.shape == canvas.pixels.shape
        # Painted mass effect pushes the whole neighbourhood, skull included.
        assert name == "painted" or not forged.alpha[~canvas.head].any()
        assert (forged.pixels != forged.twin)[forged.mask].mean() > 0.5
        assert forged.pixels.min() >= canvas.low
        assert forged.pixels.max() <= canvas.high
        assert forged.alpha.min() >= 0
        assert forged.alpha.max() <= 1
        assert forged.mask.sum(axis=(1, 2)).max() >= 24
        assert not (forged.mask & outside).any()
        assert forged.mask[forged.alpha > 0.5].any()
        assert forged.kind in ALL[name].kinds
        assert forged.family == name


@pytest.mark.parametrize("name", ALL)
def test_same_seed_same_forgery(name: str) -> None:
    canvas, donor = phantom(), phantom(seed=7)
    before = [array.tobytes() for one in (canvas, donor) for array in (one.pixels, one.lesion, one.head)]
    for seed in range(8):
        first, second = (ALL[name].forge(canvas, donor, np.random.default_rng(seed)) for _ in range(2))
        after = [array.tobytes() for one in (canvas, donor) for array in (one.pixels, one.lesion, one.head)]
        assert before == after
        if first is not None and second is not None:
            assert np.array_equal(first.pixels, second.pixels)
            assert np.array_equal(first.alpha, second.alpha)
            assert (first.variant, first.parameters) == (second.variant, second.parameters)
            return
        assert first is second
    pytest.fail("no seed forged")


@pytest.mark.parametrize("name", ALL)
def test_lesion_truth_follows_the_kind(name: str) -> None:
    canvas, donor = phantom(), phantom(seed=7)
    for forged in forge_some(ALL[name], canvas, donor, count=5):
        before, after = int(canvas.lesion.sum()), int(forged.lesion.sum())
        if forged.kind == "added":
            assert after > before
            assert (forged.lesion & ~canvas.lesion & (forged.alpha > 0)).any()
        elif forged.kind == "removed":
            assert after <= before + 40
        elif forged.kind == "blend":
            assert np.array_equal(forged.lesion, canvas.lesion)


def test_a_removal_takes_the_lesion_out() -> None:
    canvas = phantom()
    taken = 0
    for seed in range(20):
        forged = FAMILIES["pde"].forge(canvas, None, np.random.default_rng(seed))
        assert forged is not None
        gone = canvas.lesion & ~forged.lesion
        if gone.any():
            taken += 1
            # The lesion stood 65 grey levels above its surroundings.
            assert forged.pixels[gone].mean() < canvas.pixels[gone].mean() - 20
    assert 5 <= taken < 20, "removals take lesions, and healthy places too"


def test_the_whole_slice_pass_is_laid_on_both_twins() -> None:
    canvas, donor = phantom(), phantom(seed=7)
    passes = 0
    for seed in range(60):
        forged = families.draw(canvas, donor, np.random.default_rng(seed))
        assert forged is not None
        if "whole slice" in forged.parameters:
            passes += 1
            assert not np.array_equal(forged.twin, canvas.pixels)
            assert np.array_equal(forged.mask, differing(forged.pixels, forged.twin) & (forged.alpha > 0))
            far = forged.alpha == 0
            # Away from the edit both went through the same pass: they differ near the seam, and by a grey level where
            # a shift by the Fourier phase lets the edit ring over its rows and columns.
            assert (np.abs(forged.pixels[far] - forged.twin[far]) > 1).mean() < 0.03
    assert 2 <= passes <= 18


def test_names_limit_the_draw() -> None:
    canvas = phantom()
    drawn = [families.draw(canvas, None, np.random.default_rng(s), names=["pde", "liquify"]) for s in range(10)]
    assert {forged.family for forged in drawn if forged is not None} == {"pde", "liquify"}


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_varies_its_implementation(name: str) -> None:
    canvas, donor = phantom(rows=96, cols=90), phantom(rows=96, cols=90, seed=7)
    variants: set[str] = set()
    for seed in range(144):
        forged = FAMILIES[name].forge(canvas, donor, np.random.default_rng(seed))
        variants |= {forged.variant} if forged is not None else set()
        if len(variants) >= 3:
            return
    pytest.fail(f"{name} has but {variants}")


@pytest.mark.parametrize("name", ALL)
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    slices=st.integers(1, 4),
    rows=st.integers(1, 70),
    cols=st.integers(1, 70),
    lesion=st.booleans(),
    constant=st.booleans(),
    donor=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_odd_canvases_give_none_or_a_forgery(
    name: str, slices: int, rows: int, cols: int, lesion: bool, constant: bool, donor: bool, seed: int
) -> None:
    canvas = phantom(slices=slices, rows=rows, cols=cols, lesion=lesion, seed=seed % 5)
    if constant:
        canvas = Canvas(
            pixels=np.full_like(canvas.pixels, 7), lesion=canvas.lesion, head=canvas.head, low=0.0, high=255.0
        )
    other = phantom(slices=1 + seed % 3, rows=64, cols=50, seed=3) if donor else None
    forged = ALL[name].forge(canvas, other, np.random.default_rng(seed))
    if forged is not None:
        outside = forged.alpha == 0
        assert np.array_equal(forged.pixels[outside], canvas.pixels[outside])
        assert np.isfinite(forged.pixels).all()
        assert forged.mask.any()


def test_shapes_that_differ_are_refused() -> None:
    plane = np.zeros((1, 8, 8), np.float32)
    with pytest.raises(ValueError, match="cannot be forged"):
        Canvas(pixels=plane, lesion=np.zeros((1, 8, 9), np.bool_), head=plane > 0, low=0.0, high=1.0)


@pytest.mark.parametrize("name", ["splice", "gradient", "pyramid"])
def test_healthy_tissue_of_a_donor_holds_no_lesion(name: str) -> None:
    """A donor whose lesion lies in the like position would bring a lesion where one is said to be removed."""
    canvas, donor = phantom(), phantom(seed=7)
    for source in (donor, None):
        for seed in range(25):
            forged = FAMILIES[name].forge(canvas, source, np.random.default_rng(seed))
            if forged is None or forged.kind != "removed":
                continue
            gone = canvas.lesion & ~forged.lesion
            if gone.any():
                assert forged.pixels[gone].mean() < canvas.pixels[gone].mean() - 20
