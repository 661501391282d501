"""The second author's tools do what they are named after; forgeries stay in the head and share passes with the twin."""

import cv2
import numpy as np
import pytest

from dicomguard.retrain.tamper import families
from dicomguard.retrain.tamper.families import FAMILIES
from dicomguard.retrain.tamper.forged import Canvas
from dicomguard.retrain.tamper.third_hand import care, carry, flow, ground, midline, seams, smooth, texture, transplant

from .phantom import phantom

HAND = [name for name in FAMILIES if name.startswith("third/")]
REMOVERS = ["third/diffuse", "third/attenuate", "third/quilt", "third/transplant", "third/moved", "third/retouch"]


def alone(canvas: Canvas) -> Canvas:
    return Canvas(
        pixels=canvas.pixels[:1], lesion=canvas.lesion[:1], head=canvas.head[:1], low=canvas.low, high=canvas.high
    )


@pytest.mark.parametrize("name", HAND)
def test_a_loose_slice_is_forged_unless_neighbours_are_needed(name: str) -> None:
    canvas, donor = alone(phantom(high=4095.0)), alone(phantom(high=4095.0, seed=7))
    made = [FAMILIES[name].forge(canvas, donor, np.random.default_rng(seed)) for seed in range(8)]
    assert any(made) == (name != "third/between")


@pytest.mark.parametrize("name", REMOVERS)
def test_a_removal_takes_the_lesion_out(name: str) -> None:
    canvas, donor = phantom(), phantom(seed=7)
    taken = 0
    for seed in range(16):
        forged = FAMILIES[name].forge(canvas, donor, np.random.default_rng(seed))
        if forged is None or forged.kind != "removed":
            continue
        gone = canvas.lesion & ~forged.lesion
        if int(gone.sum()) > 60:
            taken += 1
            # The lesion stood 65 grey levels above its surroundings.
            assert forged.pixels[gone].mean() < canvas.pixels[gone].mean() - 20
    assert taken >= 2


def test_passes_over_the_slice_are_the_hands_own_and_fall_on_both_twins() -> None:
    canvas, donor = phantom(), phantom(seed=7)
    titles = set()
    for seed in range(70):
        forged = families.draw(canvas, donor, np.random.default_rng(seed), names=["third/grown"])
        assert forged is not None
        title = forged.parameters.get("whole slice")
        if title is None:
            assert np.array_equal(forged.twin, canvas.pixels)
            continue
        titles.add(title)
        far = forged.alpha == 0
        assert (forged.pixels[far] == forged.twin[far]).mean() > 0.97
    assert len(titles) >= 3
    assert titles <= {
        "re-noised",
        "requantised",
        "sharpened",
        "JPEG round trip",
        "sub-pixel shift",
        "there and back",
    }


def test_outlines_are_levels_of_about_the_radius_asked_for() -> None:
    names = set()
    for seed in range(60):
        level, name = ground.shape(12.0, np.random.default_rng(seed))
        names.add(name)
        area = int((level > 0).sum())
        assert 0.25 * np.pi * 144 < area < 2.2 * np.pi * 144
        assert not (level[[0, -1]] > 0).any()
        assert not (level[:, [0, -1]] > 0).any()
    assert len(names) == 5


def test_smooth_surfaces_continue_a_slope() -> None:
    rows, cols = np.mgrid[:60, :70].astype(np.float32)
    slope = 100 + 0.8 * rows - 0.5 * cols
    hole = np.hypot(rows - 30, cols - 35) < 11
    for kind, near in (("harmonic", 3.0), ("biharmonic", 3.0), ("tv", 4.0)):
        filled = smooth.surface(np.where(hole, 900, slope).astype(np.float32), hole, ~hole, kind)
        assert np.abs(filled - slope)[hole].max() < near, kind


def test_clones_carry_a_constant_offset_through_the_hole() -> None:
    hole = np.zeros((50, 50), np.bool_)
    hole[14:38, 12:36] = True
    offset = np.where(hole, 0, 30).astype(np.float32)
    assert np.abs(smooth.membrane(offset, hole)[hole] - 30).mean() < 1
    # A screen lets go of the offset in the middle.
    assert smooth.membrane(offset, hole, screen=0.05)[26, 24] < 15
    flat, source = np.full((50, 50), 130, np.float32), np.full((50, 50), 100, np.float32)
    cloned = transplant.mean_value_clone(flat, source, hole)
    assert np.abs(cloned[hole] - 130).max() < 0.5


def test_a_random_phase_texture_has_the_power_of_its_patch() -> None:
    rng = np.random.default_rng(3)
    plane = smooth.blurred(rng.standard_normal((80, 80)).astype(np.float32) * 20, 1.0)
    power = texture.spectrum(plane, np.ones(plane.shape, np.bool_), rng)
    assert power is not None
    made = texture.random_phase(power, (64, 48), rng)
    assert made.std() == pytest.approx(plane.std(), rel=0.25)
    # Coloured like the patch: neighbours agree.
    along = float(np.corrcoef(made[:, 1:].ravel(), made[:, :-1].ravel())[0, 1])
    assert along == pytest.approx(float(np.corrcoef(plane[:, 1:].ravel(), plane[:, :-1].ravel())[0, 1]), abs=0.15)


def test_the_noise_level_is_measured_beside_structure() -> None:
    rng = np.random.default_rng(0)
    plane = (np.mgrid[:64, :64][0] * 3 + rng.normal(0, 5, (64, 64))).astype(np.float32)
    assert texture.level(plane, np.ones((64, 64), np.bool_)) == pytest.approx(5, rel=0.1)


def test_rician_noise_fades_in_the_dark() -> None:
    rng = np.random.default_rng(1)
    bright, dark = (texture.rician(np.full((60, 60), v, np.float32), 10, 0, rng) for v in (200, 0))
    assert bright.std() == pytest.approx(10, rel=0.1)
    assert dark.std() < 7.5
    assert dark.min() >= 0


def test_the_cheapest_path_keeps_to_where_both_agree() -> None:
    rows, cols = np.mgrid[:61, :61]
    away = np.hypot(rows - 30, cols - 30)
    core = away < 22
    level = ground.signed_distance(core)
    # Old and new agree on a ring only.
    new = np.where(np.abs(away - 16) < 2, 0, 50).astype(np.float32)
    cut = seams.cheapest_path(np.zeros((61, 61), np.float32), new, level, core)
    assert cut[away < 13.5].all()
    assert not cut[away > 18.5].any()


def test_bands_touch_nothing_outside() -> None:
    rng = np.random.default_rng(2)
    old, new = rng.normal(100, 10, (2, 40, 40)).astype(np.float32)
    alpha = np.zeros((40, 40), np.float32)
    alpha[10:30, 10:30] = 1
    made = seams.multiband(old, new, alpha)
    assert np.array_equal(made[alpha == 0], old[alpha == 0])
    assert np.abs(made - new)[18:22, 18:22].mean() < np.abs(made - old)[18:22, 18:22].mean()


@pytest.mark.parametrize("turn", [0.0, 11.0, 90.0])
def test_the_midline_of_a_turned_head_is_found(turn: float) -> None:
    canvas = phantom(rows=120, cols=100, slices=1, lesion=False)
    matrix = cv2.getRotationMatrix2D((60.0, 60.0), turn, 1.0)
    matrix[:, 2] += 15
    plane = cv2.warpAffine(canvas.pixels[0], matrix, (150, 150))
    head = cv2.warpAffine(canvas.head[0].astype(np.float32), matrix, (150, 150)) > 0.5
    line = midline.find(plane, head)
    assert line is not None
    wanted = -turn % 180
    assert min(abs(np.degrees(line.angle) % 180 - wanted), 180 - abs(np.degrees(line.angle) % 180 - wanted)) < 3
    there = line.matrix() @ np.array([70.0, 40.0, 1.0])
    assert line.matrix() @ np.append(there, 1.0) == pytest.approx([70.0, 40.0], abs=1e-2)


def test_motion_of_a_shift_is_the_shift() -> None:
    rng = np.random.default_rng(4)
    moving = smooth.blurred(rng.standard_normal((90, 90)).astype(np.float32) * 400, 3.0) + 100
    fixed = flow.followed(moving, np.full((90, 90, 2), [2.0, -1.0], np.float32), cv2.INTER_LINEAR)
    for engine in flow.ENGINES:
        found = flow.motion(fixed, moving, engine)[20:70, 20:70]
        assert np.median(found, axis=(0, 1)) == pytest.approx([2.0, -1.0], abs=0.3), engine


def test_a_spectrum_is_zoomed_through_its_samples() -> None:
    rng = np.random.default_rng(5)
    plane = smooth.blurred(rng.standard_normal((41, 38)).astype(np.float32) * 50, 1.5)
    fine = carry.zoomed(plane)
    assert np.abs(fine[::2, ::2] - plane).max() < 0.5


def test_quantiles_bring_a_grey_scale_over() -> None:
    rng = np.random.default_rng(6)
    content, pixels = rng.normal(40, 5, (30, 30)), rng.normal(120, 12, (30, 30))
    whole = np.ones((30, 30), np.bool_)
    made = carry.matched(content.astype(np.float32), whole, pixels.astype(np.float32), whole, "histogram")
    assert made.mean() == pytest.approx(120, abs=2)
    assert made.std() == pytest.approx(12, rel=0.15)


@pytest.mark.parametrize("name", care.LOCAL)
def test_a_local_clean_up_stays_in_the_footprint(name: str) -> None:
    rng = np.random.default_rng(8)
    plane = (100 + smooth.blurred(rng.standard_normal((50, 50)).astype(np.float32), 0.6) * 12).astype(np.float32)
    core = np.zeros((50, 50), np.bool_)
    core[15:35, 15:35] = True
    plane[core] = 100 + 2 * rng.standard_normal(400)
    cleaned = care.LOCAL[name](plane, core, ~core, rng)
    assert np.array_equal(cleaned[~core], plane[~core])
    assert not np.array_equal(cleaned[core], plane[core])
    if name in ("matched spectrum", "topped up"):
        wanted = texture.level(plane, ~core)
        assert abs(texture.level(cleaned, core) - wanted) < abs(texture.level(plane, core) - wanted)
