"""The acquisition-domain family: promises of `Forged`, and the same new noise over the whole slice in both twins."""

from dataclasses import replace

import numpy as np
import pytest

from dicomguard.retrain.sealed import kspace
from dicomguard.retrain.sealed.families import SEALED
from dicomguard.retrain.tamper.forged import Canvas, Forged
from tests.unit.retrain.tamper.phantom import phantom


def made(canvas: Canvas, seed: int) -> Forged:
    forged = SEALED["acquisition"].forge(canvas, phantom(seed=9), np.random.default_rng(seed))
    assert forged is not None
    return forged


@pytest.mark.parametrize("seed", range(8))
def test_promises(seed: int) -> None:
    canvas = phantom()
    forged = made(canvas, seed)
    assert np.array_equal(forged.pixels, np.rint(forged.pixels))
    assert forged.pixels.min() >= canvas.low
    assert forged.pixels.max() <= canvas.high
    assert forged.mask.sum(axis=(1, 2)).max() >= 64
    assert not (forged.mask & (forged.alpha == 0)).any()
    # The edit is where the region is; elsewhere the twins share their noise, and only ringing of the edit is left.
    away = forged.alpha == 0
    assert np.abs(forged.pixels - forged.twin)[away].mean() < 0.2
    changed = np.abs(forged.pixels - forged.twin)[forged.mask].mean()
    assert changed > 10 * np.abs(forged.pixels - forged.twin)[away].mean()


def test_both_kinds_are_made_and_lesion_truth_follows() -> None:
    canvas = phantom()
    seen = set()
    for seed in range(12):
        forged = made(canvas, seed)
        seen.add(forged.kind)
        before, after = int(canvas.lesion.sum()), int(forged.lesion.sum())
        assert after > before if forged.kind == "added" else after < 0.2 * before
    assert seen == {"added", "removed"}


def test_noise_is_new_everywhere_and_of_the_same_level() -> None:
    canvas = phantom()
    forged = made(canvas, 3)
    for z, plane in enumerate(canvas.pixels):
        head = canvas.head[z]
        assert (forged.twin[z] != plane)[head].mean() > 0.5
        ratio = kspace.noise_level(forged.twin[z], head) / kspace.noise_level(plane, head)
        assert 0.75 < ratio < 1.35


def test_a_zero_filled_slice_stays_zero_filled() -> None:
    rng = np.random.default_rng(0)
    spectrum = np.fft.fft2(phantom(slices=1, rows=128, cols=128, high=4095.0).pixels[0])
    kept = (np.abs(np.fft.fftfreq(128)) < 0.35)[:, None] & np.ones(128, np.bool_)[None]
    noise = 20 * 128 * (rng.standard_normal((128, 128)) + 1j * rng.standard_normal((128, 128)))
    plane = np.abs(np.fft.ifft2((spectrum + noise) * kept)).astype(np.float32)
    forged = made(replace(phantom(slices=1, rows=128, cols=128, high=4095.0), pixels=plane[None]), 1)
    for stack in (forged.pixels, forged.twin):
        power = np.abs(np.fft.fft2(stack[0])) ** 2
        rows = np.median(power, axis=1)
        order = np.abs(np.fft.fftfreq(128))
        assert rows[order > 0.4].mean() < 0.2 * rows[(order > 0.2) & (order < 0.3)].mean()


def test_no_head_no_forgery() -> None:
    nothing = np.zeros((1, 64, 64), np.float32)
    empty = Canvas(pixels=nothing, lesion=nothing > 0, head=nothing > 0, low=0.0, high=255.0)
    assert SEALED["acquisition"].forge(empty, None, np.random.default_rng(0)) is None
