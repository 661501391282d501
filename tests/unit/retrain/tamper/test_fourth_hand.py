"""The fourth hand's tools do what they are named after; forgeries stay in the head and share passes with the twin."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from dicomguard.retrain.tamper import families
from dicomguard.retrain.tamper.families import FAMILIES
from dicomguard.retrain.tamper.filters import gaussian
from dicomguard.retrain.tamper.finish import differing
from dicomguard.retrain.tamper.forged import Canvas
from dicomguard.retrain.tamper.fourth_hand import (
    atlas,
    curve,
    frequency,
    heal,
    lasso,
    lowrank,
    match,
    outline,
    overall,
    resynth,
    sources,
    surface,
    texture,
    touch,
)
from dicomguard.retrain.tamper.fourth_hand import site as places

from .phantom import phantom

HAND = [name for name in FAMILIES if name.startswith("fourth/")]
REMOVERS = [name for name in HAND if "removed" in FAMILIES[name].kinds]
ADDERS = [name for name in HAND if "added" in FAMILIES[name].kinds]


def alone(canvas: Canvas) -> Canvas:
    return replace(canvas, pixels=canvas.pixels[:1], lesion=canvas.lesion[:1], head=canvas.head[:1])


@pytest.mark.parametrize("name", HAND)
def test_thirty_seeds_keep_the_promises(name: str) -> None:
    canvases = [phantom(slices=2, rows=88, cols=96), phantom(slices=1, rows=96, cols=80, lesion=False, high=4095.0)]
    donor, made = phantom(slices=2, rows=90, cols=84, seed=7), 0
    for seed in range(30):
        canvas = canvases[seed % 3 == 2]
        forged = FAMILIES[name].forge(canvas, donor if seed % 4 else None, np.random.default_rng(seed))
        if forged is None:
            continue
        made += 1
        assert forged.kind in FAMILIES[name].kinds
        assert not (forged.mask & ~canvas.head).any()
        assert not forged.alpha[~canvas.head].any()
        assert np.array_equal(forged.pixels[forged.alpha == 0], canvas.pixels[forged.alpha == 0])
        assert np.array_equal(forged.mask, differing(forged.pixels, forged.twin) & (forged.alpha > 0))
        assert int(forged.mask.sum(axis=(1, 2)).max()) >= 24
    assert made >= 12


@pytest.mark.parametrize("name", HAND)
def test_a_loose_slice_is_forged(name: str) -> None:
    canvas, donor = alone(phantom(high=4095.0)), alone(phantom(high=4095.0, seed=7))
    assert any(FAMILIES[name].forge(canvas, donor, np.random.default_rng(seed)) for seed in range(8))


@pytest.mark.parametrize("name", REMOVERS)
def test_a_removal_takes_the_lesion_out(name: str) -> None:
    canvas, donor = phantom(slices=1), phantom(slices=1, seed=7)
    taken = 0
    for seed in range(24):
        forged = FAMILIES[name].forge(canvas, donor, np.random.default_rng(seed))
        if forged is None or forged.kind != "removed":
            continue
        gone = canvas.lesion & ~forged.lesion
        assert gone.any()
        taken += 1
        # The lesion stood 65 grey levels above its surroundings.
        assert forged.pixels[gone].mean() < canvas.pixels[gone].mean() - 35
    assert taken >= 3


@pytest.mark.parametrize("name", ADDERS)
def test_an_addition_adds(name: str) -> None:
    canvas, donor = phantom(slices=2, lesion=False), phantom(slices=2, seed=7)
    added = 0
    for seed in range(10):
        forged = FAMILIES[name].forge(canvas, donor, np.random.default_rng(seed))
        if forged is None:
            continue
        assert forged.kind == "added"
        new = forged.lesion
        added += 1
        assert int(new.sum()) >= 20
        assert (forged.alpha[new] > 0.5).all()
        assert np.abs(forged.pixels[new] - canvas.pixels[new]).mean() > 5
    assert added >= 3


@pytest.mark.parametrize("name", [name for name in HAND if "altered" in FAMILIES[name].kinds])
def test_without_a_lesion_a_normal_spot_is_changed(name: str) -> None:
    canvas = phantom(slices=1, lesion=False)
    made = [FAMILIES[name].forge(canvas, None, np.random.default_rng(seed)) for seed in range(6)]
    assert {forged.kind for forged in made if forged is not None} == {"altered"}
    assert not any(forged.lesion.any() for forged in made if forged is not None)


@pytest.mark.parametrize("name", HAND)
def test_lesions_at_the_border_and_tiny_heads_raise_nothing(name: str) -> None:
    base = phantom(slices=2, rows=64, cols=60)
    border = base.head & (np.arange(60) < 12)
    canvases = [
        replace(base, lesion=border),
        replace(base, lesion=base.head),
        replace(base, head=np.zeros_like(base.head)),
        replace(base, pixels=np.full_like(base.pixels, 9)),
        phantom(slices=1, rows=26, cols=25),
    ]
    for canvas in canvases:
        for seed in range(4):
            forged = FAMILIES[name].forge(canvas, canvases[seed], np.random.default_rng(seed))
            assert forged is None or not (forged.mask & ~canvas.head).any()


def test_passes_over_the_slice_are_the_hands_own_and_fall_on_both_twins() -> None:
    canvas, donor = phantom(slices=1), phantom(slices=1, seed=7)
    titles = set()
    for seed in range(90):
        forged = families.draw(canvas, donor, np.random.default_rng(seed), names=["fourth/tissue"])
        assert forged is not None
        title = forged.parameters.get("whole slice")
        if title is None:
            assert np.array_equal(forged.twin, canvas.pixels)
            continue
        titles.add(title)
        far = forged.alpha == 0
        assert (forged.pixels[far] == forged.twin[far]).mean() > 0.97
    assert len(titles) >= 4
    assert titles <= set(overall.PASSES)


@pytest.mark.parametrize("title", overall.PASSES)
def test_a_pass_is_mild_and_the_same_each_time(title: str) -> None:
    canvas = phantom(slices=2)
    operate = overall.PASSES[title](canvas, np.random.default_rng(1))
    once, again = operate(canvas.pixels), operate(canvas.pixels)
    assert np.array_equal(once, again)
    assert once.dtype == np.float32
    assert once.shape == canvas.pixels.shape
    change = np.abs(once - canvas.pixels)[canvas.head]
    assert 0.05 < change.mean() < 12


@pytest.mark.parametrize("name", touch.TOUCHES)
def test_a_clean_up_stays_in_the_edit(name: str) -> None:
    rng = np.random.default_rng(8)
    base = (100 + gaussian(rng.standard_normal((50, 50)).astype(np.float32), 0.6) * 12).round().astype(np.float32)
    hole = np.zeros((1, 50, 50), np.bool_)
    hole[0, 15:35, 15:35] = True
    alpha = outline.soften(hole, np.ones_like(hole), 3.0, "smoothstep")
    edited = base + alpha * (103.3 - base)
    cleaned = touch.TOUCHES[name](edited[0], base, alpha[0], ~hole[0], rng)
    assert np.allclose(cleaned[alpha[0] == 0], base[alpha[0] == 0])
    assert not np.array_equal(cleaned, edited[0])
    if name == "scanner's step":
        assert set(np.unique(cleaned[alpha[0] > 0])) <= set(np.unique(base))
    if name == "re-grained":
        assert texture.level(cleaned, hole[0]) == pytest.approx(texture.level(base, ~hole[0]), rel=0.35)


def test_outlines_cover_the_lesion_in_every_shape() -> None:
    canvas, names = phantom(), set()
    for seed in range(40):
        hole, name = outline.covering(canvas.pixels, canvas.lesion, np.random.default_rng(seed))
        names.add(name)
        assert hole[canvas.lesion].all()
        assert hole.sum() < 3 * canvas.lesion.sum()
    assert names == set(outline.COVERING)


def test_new_shapes_have_about_the_size_asked_for_and_taper_through_slices() -> None:
    names = set()
    for seed in range(60):
        level, name = outline.free((5, 80, 80), (2, 40, 40), 12.0, np.random.default_rng(seed), span=1.8)
        names.add(name)
        areas = (level > 0).sum(axis=(1, 2))
        assert 0.25 * np.pi * 144 < areas[2] < 2.2 * np.pi * 144
        assert areas[2] > areas[1] >= areas[0] == 0
    assert names == set(outline.FREE)


def test_an_edge_ends_at_the_field() -> None:
    hole, field = np.zeros((2, 40, 40), np.bool_), np.zeros((2, 40, 40), np.bool_)
    hole[0, 10:30, 10:30], field[0, :, :33] = True, True
    for profile in outline.PROFILES:
        alpha = outline.soften(hole, field, 6.0, profile)
        assert not alpha[~field].any()
        assert not alpha[1].any()
        assert (alpha[0, 12:28, 12:28] == 1).all()
        assert 0 < alpha[0, 20, 7] < 1


def test_a_membrane_continues_a_slope() -> None:
    rows, cols = np.mgrid[:60, :70].astype(np.float32)
    slope = 100 + 0.8 * rows - 0.5 * cols
    hole = np.hypot(rows - 30, cols - 35) < 11
    filled = surface.membrane(np.where(hole, 900, slope).astype(np.float32), hole, ~hole)
    assert np.abs(filled - slope)[hole].max() < 3
    assert np.array_equal(filled[~hole], slope[~hole])


def test_the_poisson_solver_gives_back_a_picture() -> None:
    rng = np.random.default_rng(3)
    plane = gaussian(rng.standard_normal((37, 52)).astype(np.float32) * 50, 1.5)
    along_rows, along_cols = np.diff(plane, axis=0, append=0), np.diff(plane, axis=1, append=0)
    solved = surface.poisson(along_rows, along_cols)
    assert np.abs(solved - (plane - plane.mean())).max() < 0.05


def test_grain_has_the_strength_and_the_colour_of_the_slice() -> None:
    rng = np.random.default_rng(4)
    noise = gaussian(rng.standard_normal((90, 90)).astype(np.float32), 0.9)
    plane = 100 + noise / noise.std() * 6
    made = texture.grain(plane, np.ones(plane.shape, np.bool_), rng)
    assert made.std() == pytest.approx(texture.rest(plane).std(), rel=0.2)
    rest = texture.rest(plane)
    along, wanted = (float(np.corrcoef(one[:, 1:].ravel(), one[:, :-1].ravel())[0, 1]) for one in (made, rest))
    assert along == pytest.approx(wanted, abs=0.2)


def test_harmonic_weights_carry_a_constant_and_a_slope() -> None:
    inside, rim, weights = heal._disc(5)
    assert weights.sum(axis=1) == pytest.approx(np.ones(len(inside)), abs=1e-4)
    slope = np.array([2.0, -1.0])
    assert weights @ (rim @ slope) == pytest.approx(inside @ slope, abs=1e-3)


def test_a_shift_and_a_turn_are_found_again() -> None:
    plane = gaussian(phantom(slices=1, lesion=False).pixels[0], 1.0)
    head = phantom(slices=1).head[0]
    turned = cv2.getRotationMatrix2D((60.0, 64.0), 2.0, 1.0)
    turned[:, 2] += (2.0, -1.5)
    moved = cv2.warpAffine(plane, turned, (120, 128))
    found = atlas.registered(moved, plane, head, affine=True)
    wanted = cv2.invertAffineTransform(turned)
    for point in ((40, 40, 1), (80, 50, 1), (60, 100, 1)):
        assert found @ np.array(point) == pytest.approx(wanted @ np.array(point), abs=1.2)
    flat = np.full((40, 40), 5, np.float32)
    assert np.array_equal(atlas.registered(flat, flat, flat > 0, affine=True), np.eye(2, 3, dtype=np.float32))


@pytest.mark.parametrize("variant", curve.VARIANTS)
def test_a_curve_brings_the_lesion_to_its_surroundings(variant: str) -> None:
    canvas = phantom(slices=1)
    plane, ill = canvas.pixels[0], canvas.lesion[0]
    well = places.brain(canvas.head[0]) & ~ill
    made = curve.mapped(plane, ill, well, variant)
    before, after = (abs(float(np.median(one[ill])) - float(np.median(plane[well]))) for one in (plane, made))
    assert after < 0.4 * before


@pytest.mark.parametrize("transform", ["Fourier", "cosines"])
def test_a_low_pass_keeps_the_mean_and_takes_the_detail(transform: str) -> None:
    plane = phantom(slices=1).pixels[0]
    low = frequency._low(plane, 4.0, transform)
    assert low.mean() == pytest.approx(plane.mean(), rel=0.02)
    assert np.abs(low - gaussian(plane, 4.0)).mean() < 1.5


@pytest.mark.parametrize("variant", lowrank.VARIANTS)
def test_projections_continue_a_wave(variant: str) -> None:
    rng = np.random.default_rng(5)
    rows, cols = np.mgrid[:72, :72]
    wave = (100 + 20 * np.sin(2 * np.pi * cols / 9) + rng.normal(0, 1, rows.shape)).astype(np.float32)
    hole = np.hypot(rows - 36, cols - 36) < 6
    level = np.full_like(wave, 100)
    start = np.where(hole, level, wave)
    if variant == "sparse cosines":
        filled = lowrank.sparse_cosines(wave, hole, ~hole, level, 1.0, rng)
    else:
        found = lowrank.projected(wave, hole, ~hole, start, variant, 1.0, rng)
        assert found is not None
        filled = found
    assert np.array_equal(filled[~hole], wave[~hole])
    assert np.abs(filled - wave)[hole].mean() < 0.8 * np.abs(level - wave)[hole].mean()


@pytest.mark.parametrize("variant", resynth.VARIANTS)
def test_resynthesis_copies_the_texture_of_healthy_tissue(variant: str) -> None:
    rng = np.random.default_rng(6)
    flat = gaussian(rng.standard_normal((80, 80)).astype(np.float32) * 40, 1.2)
    hole = np.hypot(*(np.mgrid[:80, :80] - 40)) < 10
    made = resynth.resynthesised(np.where(hole, 0, flat).astype(np.float32), hole, ~hole, 2, variant, rng)
    assert made is not None
    assert np.array_equal(made[~hole], flat[~hole])
    assert 0.25 * flat.std() < made[hole].std() < 1.4 * flat.std()


def test_quantiles_and_moments_bring_a_grey_scale_over() -> None:
    rng = np.random.default_rng(7)
    theirs, ours = rng.normal(40, 5, (40, 40)), rng.normal(120, 12, (40, 40))
    whole = np.ones((40, 40), np.bool_)
    for way in (match.linear, match.quantiles):
        made = way(theirs.astype(np.float32), whole, ours.astype(np.float32), whole)
        assert made.mean() == pytest.approx(120, abs=3)
        assert made.std() == pytest.approx(13, rel=0.3)


@pytest.mark.parametrize("title", lasso.METHODS)
def test_a_piece_is_laid_where_it_was_to_be(title: str) -> None:
    canvas, donor, rng = phantom(lesion=False), phantom(seed=7), np.random.default_rng(9)
    piece = sources.lesion_of(donor, rng)
    assert piece is not None
    laid = sources.lay(canvas, piece, (1, 60, 70), rng, scale=0.7, turn=0.4, flipped=True, methods=lasso.METHODS[title])
    middle = np.argwhere(laid.lesion[1]).mean(axis=0)
    assert middle == pytest.approx([60, 70], abs=1.0)
    assert laid.lesion[1].sum() == pytest.approx(0.49 * donor.lesion[piece.peak].sum(), rel=0.12)
    # It stands out there as it did at home.
    assert laid.pixels[1][laid.lesion[1]].mean() > laid.pixels[1][laid.around[1]].mean() + 40
