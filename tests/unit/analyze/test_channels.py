"""Channels: where the head is, what a local edit does to them, and what must not move them."""

import gc
import weakref
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from dicomguard.analyze import channels
from dicomguard.analyze.judging import SMOOTHED


def scan(seed: int = 0, size: int = 160, noise: float = 4.0) -> NDArray[np.float32]:
    """A round head of smooth tissue with white noise, air outside."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:size, 0:size]
    inside = np.hypot(y - size / 2, x - size / 2) < 0.4 * size
    tissue = 100 + 30 * np.sin(x / 17) + 20 * np.cos(y / 23)
    return np.asarray(np.where(inside, tissue + rng.normal(0, noise, (size, size)), 0), dtype=np.float32)


def test_head_is_the_disc_and_air_is_none() -> None:
    head = channels.head_mask(scan())
    assert head.mean() == pytest.approx(np.pi * 0.16, abs=0.04)
    assert not channels.head_mask(np.zeros((128, 128), dtype=np.float32)).any()


def test_head_of_ct_is_found_in_hounsfield_units() -> None:
    ct = np.where(scan() > 0, 40, -1000).astype(np.float32)
    assert channels.head_mask(ct).mean() == pytest.approx(np.pi * 0.16, abs=0.04)


@pytest.mark.parametrize("padding", [0, -2000])
def test_head_of_ct_is_what_it_was_whatever_lies_around_it(padding: int) -> None:
    """A ring of padding that no header declares, and air with its noise."""
    rng = np.random.default_rng(1)
    inside = scan() > 0
    ct = np.where(inside, 40, -1000 + rng.normal(0, 20, inside.shape)).astype(np.float32)
    y, x = np.mgrid[0:160, 0:160]
    if padding:
        ct[np.hypot(y - 80, x - 80) > 80] = padding
    assert channels.head_mask(ct).mean() == pytest.approx(np.pi * 0.16, abs=0.02)


@pytest.mark.parametrize("intercept", [0, -4096])
@pytest.mark.parametrize("air", [0, 150])
def test_head_of_real_inversion_recovery_is_no_ct(air: int, intercept: int) -> None:
    """White matter lies above the air, fluid far below, also where a header moves all of it."""
    rng = np.random.default_rng(2)
    y, x = np.mgrid[0:160, 0:160]
    radius = np.hypot(y - 80, x - 80)
    tissue = np.where(radius < 20, -1600, np.where(radius < 50, 900, -700))
    real = np.where(radius < 64, tissue + air, air) + rng.normal(0, 30, radius.shape) + intercept
    head = channels.head_mask(real.astype(np.float32))
    assert head.mean() == pytest.approx(np.pi * 0.16, abs=0.04)
    assert head[80, 80] and not head[:10].any()


@pytest.mark.parametrize("rows", [np.s_[:6], np.s_[-6:], np.s_[[*range(4), *range(-4, 0)]]])
def test_rows_of_undeclared_padding_do_not_make_a_head_of_the_air(rows: slice | list[int]) -> None:
    plain = scan()
    padded = plain.copy()
    padded[rows] = -2000
    assert np.array_equal(channels.head_mask(padded), channels.head_mask(plain))


def test_padding_all_around_is_no_head() -> None:
    plain = scan()
    padded = np.full_like(plain, -2000)
    padded[8:-8, 8:-8] = plain[8:-8, 8:-8]
    assert np.array_equal(channels.head_mask(padded), channels.head_mask(plain))
    assert not channels.head_mask(np.full_like(plain, -2000)).any()


def test_noise_curve_finds_the_noise() -> None:
    plane = scan(noise=4.0)
    measured = channels.prepare([plane], []).scale
    assert float(np.median(measured.sigmas)) == pytest.approx(4.0, rel=0.25)


def test_colour_tells_white_noise_from_filtered_noise() -> None:
    """The noise of most scanners is low-passed by reconstruction; rounding of an enlarged picture is white."""
    plane = scan()
    filtered = np.where(plane > 0, cv2.GaussianBlur(plane, (0, 0), 1.0), 0).astype(np.float32)
    assert channels.prepare([filtered], []).scale.colour < 0.95 < channels.prepare([plane], []).scale.colour


def test_empty_outer_k_space_raises_the_ratio_of_the_scales_and_noise_does_not() -> None:
    plane = scan()
    spectrum = np.fft.fftshift(np.fft.fft2(plane))
    rows, columns = plane.shape
    kept = np.zeros_like(spectrum)
    inner = np.s_[rows // 4 : rows - rows // 4, columns // 4 : columns - columns // 4]
    kept[inner] = spectrum[inner]
    filled = np.abs(np.fft.ifft2(np.fft.ifftshift(kept))).astype(np.float32)
    as_it_is, smooth = (channels.prepare([p], []) for p in (plane, filled))
    assert channels.smoothing(as_it_is, channels.halved(as_it_is)) < SMOOTHED
    assert channels.smoothing(smooth, channels.halved(smooth)) > SMOOTHED


def test_a_smoothed_patch_lowers_the_local_noise_channel_there_only() -> None:
    plane = scan()
    edited = plane.copy()
    edited[70:100, 70:100] = cv2.GaussianBlur(plane, (0, 0), 2.0)[70:100, 70:100]
    scale = channels.prepare([plane], []).scale
    head = channels.head_mask(plane)
    before, after = (
        channels.Prepared(slices=[p], heads=[head], contiguous=[], scale=scale).stack(0) for p in (plane, edited)
    )
    v = channels.NAMES.index("V2")
    assert after[v, 78:92, 78:92].mean() < before[v, 78:92, 78:92].mean() - 0.5
    assert np.array_equal(after[v, :40], before[v, :40])


def test_units_do_not_matter() -> None:
    """Rescale slope and intercept are a scanner's habit, not evidence."""
    plane = np.rint(scan())
    a = channels.prepare([plane], []).stack(0)
    b = channels.prepare([plane * np.float32(4)], [], heads=[channels.head_mask(plane)]).stack(0)
    assert np.abs(a - b).mean() < 0.01


def test_a_region_equals_the_whole_there() -> None:
    prepared = channels.prepare([scan(0), scan(1), scan(2)], [True, True])
    whole, part = prepared.stack(1), prepared.stack(1, (40, 52, 104, 116))
    assert np.allclose(whole[:, 40:104, 52:116], part, atol=2e-3)


def test_neighbours_count_only_where_slices_touch() -> None:
    planes = [scan(0), scan(0), scan(1)]
    z1, a = channels.NAMES.index("Z1"), channels.NAMES.index("A")
    apart = channels.prepare(planes, [False, False]).stack(1)
    touching = channels.prepare(planes, [True, False]).stack(1)
    head = channels.head_mask(planes[0])
    assert not apart[a].any() and not apart[z1].any()
    assert touching[z1][head].mean() > 0.9, "the same noise in two slices"


@pytest.fixture
def series() -> channels.Prepared:
    """Eight slices, a gap after the fifth."""
    planes = [scan(seed, 128) + np.float32(10 * seed) for seed in range(8)]
    return channels.prepare(planes, [i != 4 for i in range(7)])


REGION = (24, 32, 104, 96)


@pytest.mark.parametrize("order", [range(8), range(7, -1, -1), [3, 3, 7, 0, 4, 5, 4, 1, 6, 2, 0]])
def test_what_was_asked_before_changes_no_bit(series: channels.Prepared, order: list[int]) -> None:
    for index in order:
        for region in (REGION, None, (0, 0, 64, 64)):
            alone = replace(series).stack(index, region)
            assert series.stack(index, region).tobytes() == alone.tobytes()


def test_threads_get_the_same_bits(series: channels.Prepared) -> None:
    expected = [replace(series).stack(i, REGION).tobytes() for i in range(8)]
    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(lambda i: series.stack(i % 8, REGION).tobytes(), range(64))) == expected * 8


def test_in_order_the_noise_is_reduced_once_a_slice(series: channels.Prepared, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bytes] = []
    bilateral = cv2.bilateralFilter

    def counted(pixels: NDArray[np.float32], *rest: Any) -> Any:
        seen.append(pixels.tobytes())
        return bilateral(pixels, *rest)

    monkeypatch.setattr(cv2, "bilateralFilter", counted)
    for index in range(8):
        series.stack(index, REGION)
    assert len(seen) == len(set(seen)) == 8


def test_other_slices_or_another_scale_are_seen_afresh(series: channels.Prepared) -> None:
    for index in range(8):
        series.stack(index, REGION)
    slices = list(series.slices)
    slices[6] = slices[6] + np.float32(5) * scan(9, 128)
    wider = replace(series.scale, sigmas=2 * series.scale.sigmas)
    for changed in (replace(series, slices=slices), replace(series, scale=wider)):
        again = channels.Prepared(
            slices=changed.slices, heads=changed.heads, contiguous=changed.contiguous, scale=changed.scale
        )
        for index in (7, 6, 5):
            assert changed.stack(index, REGION).tobytes() == again.stack(index, REGION).tobytes()
            assert changed.stack(index, REGION).tobytes() != series.stack(index, REGION).tobytes()


def test_a_series_is_gone_when_nobody_has_it() -> None:
    prepared = channels.prepare([scan(0), scan(1)], [True])
    prepared.stack(0)
    gone = weakref.ref(prepared)
    gc.disable()
    try:
        del prepared
        assert gone() is None
    finally:
        gc.enable()


def test_half_scale_is_the_mean_of_blocks() -> None:
    plane = np.arange(24, dtype=np.float32).reshape(4, 6)
    assert np.array_equal(channels.halve(plane), plane.reshape(2, 2, 3, 2).mean(axis=(1, 3)))


def test_outside_the_head_is_silent() -> None:
    plane = scan()
    plane[5:9, 5:9] = 255
    assert not channels.prepare([plane], []).stack(0)[:, :12, :12].any()
