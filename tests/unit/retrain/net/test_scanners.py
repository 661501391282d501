"""Other scanners: the same head on another grid, never another anatomy, and never what validation sees."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dicomguard.retrain.net import scanners
from dicomguard.retrain.net.scanners import Scanner
from dicomguard.retrain.tamper.forged import Canvas


def canvas(size: tuple[int, int] = (160, 130)) -> Canvas:
    rng = np.random.default_rng(0)
    y, x = np.mgrid[0 : size[0], 0 : size[1]]
    inside = np.hypot((y - size[0] / 2) / size[0], (x - size[1] / 2) / size[1]) < 0.4
    plane = np.where(inside, 120 + rng.normal(0, 6, size), 0)
    lesion = inside & (np.hypot(y - 60, x - 60) < 12)
    stack = np.rint(np.stack([plane, plane + 3 * inside])).astype(np.float32)
    return Canvas(pixels=stack, lesion=np.stack([lesion] * 2), head=np.stack([inside] * 2), low=0.0, high=255.0)


def test_a_neutral_scanner_changes_nothing() -> None:
    shown = Scanner().apply(canvas())
    assert np.array_equal(shown.pixels, canvas().pixels) and np.array_equal(shown.lesion, canvas().lesion)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000))
def test_every_scanner_gives_a_canvas_on_the_stored_grid(seed: int) -> None:
    scanner = scanners.draw(np.random.default_rng(seed))
    if scanner is None:
        return
    shown = scanner.apply(canvas())
    assert np.array_equal(shown.pixels, np.rint(shown.pixels)) and shown.pixels.min() >= 0 and shown.pixels.max() <= 255
    assert shown.pixels.shape[1] % 2 == 0 and shown.pixels.shape[2] % 2 == 0
    assert shown.lesion.any() and (shown.lesion & ~shown.head).mean() < 0.01
    # The share of the slice that is lesion is anatomy: no scanner changes it much.
    assert shown.lesion.mean() == pytest.approx(canvas().lesion.mean(), rel=0.15)
    assert np.array_equal(shown.pixels, scanner.apply(canvas()).pixels), "one draw, one scan"


def test_scale_moves_pixels_and_masks_alike() -> None:
    shown = Scanner(scale=1.4).apply(canvas())
    assert shown.pixels.shape == shown.lesion.shape == shown.head.shape == (2, 224, 182)


def test_a_window_takes_fine_noise_away_and_noise_adds_it() -> None:
    def fine(one: Canvas) -> float:
        return float(np.abs(np.diff(one.pixels, axis=2))[one.head[:, :, 1:]].mean())

    before = fine(canvas())
    assert fine(Scanner(cut=(0.6, 0.6)).apply(canvas())) < 0.8 * before
    assert fine(Scanner(noise=1.5, seed=1).apply(canvas())) > 1.2 * before


def test_background_that_is_zero_stays_zero_under_noise() -> None:
    shown = Scanner(noise=1.5, seed=1).apply(canvas())
    assert not shown.pixels[~shown.head].any()


def test_donors_mostly_come_from_the_same_scanner() -> None:
    scanner = replace(Scanner(), noise=1.0)
    rng = np.random.default_rng(0)
    same = sum(scanners.of_donor(scanner, rng) is scanner for _ in range(400))
    assert 240 < same < 320
    assert scanners.of_donor(None, rng) is None


def test_a_curve_changes_the_contrast_and_keeps_the_order_of_tissues() -> None:
    before = canvas()
    bright = Scanner(contrast=(0.8, 0.95)).apply(before).pixels
    dark = Scanner(contrast=(0.05, 0.2)).apply(before).pixels
    inside = before.head
    assert dark[inside].mean() < before.pixels[inside].mean() < bright[inside].mean()
    order = np.argsort(before.pixels, axis=None, kind="stable")
    assert (np.diff(bright.ravel()[order]) >= 0).all() and bright.max() == before.pixels.max()


def test_one_coil_shades_the_head_smoothly_and_nothing_is_cut_off() -> None:
    flat = replace(canvas(), pixels=np.where(canvas().head, np.float32(200), np.float32(0)))
    shown = Scanner(shading=1.0, coils=1).apply(flat).pixels
    inside = shown[flat.head]
    assert inside.max() > 3 * inside.min() and inside.max() <= flat.high
    steps = np.abs(np.diff(shown, axis=2))[flat.head[:, :, 1:] & flat.head[:, :, :-1]]
    assert steps.max() < 0.06 * inside.max()
    weaker = Scanner(shading=0.3, coils=1).apply(flat).pixels[flat.head]
    assert weaker.max() / weaker.min() < inside.max() / inside.min()
