"""Stored values → modality units, frame by frame."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import FileDataset
from pydicom.uid import RLELossless

from dicomguard.analyze import decoding
from dicomguard.errors import Refused
from tests import studies

GRID = np.arange(64, dtype=np.uint16).reshape(8, 8)
SIGNED = GRID.astype(np.int16) - 32


def decoded(tmp_path: Path, ds: FileDataset, frame: int | None = None) -> decoding.Frame:
    (path,) = studies.save(tmp_path, [ds])
    return decoding.Decoder().frame(str(path), frame)


def with_pixels(pixels: np.ndarray[Any, Any], **attributes: Any) -> FileDataset:
    ds = studies.instance(pixels)
    for keyword, value in attributes.items():
        setattr(ds, keyword, value)
    return ds


def test_plain_values_and_their_hash_are_those_of_the_file(tmp_path: Path) -> None:
    frame = decoded(tmp_path, with_pixels(GRID))
    assert frame.pixels.dtype == np.float32
    assert np.array_equal(frame.pixels, GRID)
    assert frame.sha256 == hashlib.sha256(GRID.astype("<u2").tobytes()).hexdigest()
    assert frame.stored_range == (0, 63)


@pytest.mark.parametrize(
    ("pixels", "attributes", "expected"),
    [
        (GRID, {"RescaleSlope": 2.5, "RescaleIntercept": -10}, GRID * 2.5 - 10),
        # A slope of zero would erase the image.
        (GRID, {"RescaleSlope": 0, "RescaleIntercept": 7}, GRID),
        (GRID, {"RescaleIntercept": -1024}, GRID - 1024.0),
        (GRID, {"PhotometricInterpretation": "MONOCHROME1"}, 4095.0 - GRID),
        (GRID.astype(np.uint8), {}, GRID),
        (GRID.astype(np.uint16) * 1000, {"BitsStored": 16, "HighBit": 15}, GRID * 1000.0),
        (SIGNED, {"BitsStored": 16, "HighBit": 15}, GRID - 32.0),
        # 12 bits signed in 16: the sign stands in bit 11.
        (
            (GRID.astype(np.int16) - 32) & 0x0FFF,
            {"BitsStored": 12, "HighBit": 11, "PixelRepresentation": 1},
            GRID - 32.0,
        ),
        # Overlays of old scanners above the stored bits.
        (GRID | np.uint16(0xA000), {}, GRID),
        (
            (GRID.astype(np.int16) - 32),
            {"PhotometricInterpretation": "MONOCHROME1", "BitsStored": 16, "HighBit": 15},
            31.0 - GRID,
        ),
    ],
)
def test_modality_units(tmp_path: Path, pixels: Any, attributes: dict[str, Any], expected: Any) -> None:
    frame = decoded(tmp_path, with_pixels(pixels, **attributes))
    assert np.allclose(frame.pixels, expected)
    assert not frame.colour


def test_padding_becomes_the_darkest_real_value(tmp_path: Path) -> None:
    pixels = GRID.copy() + 100
    pixels[0] = 2000
    ds = with_pixels(pixels)
    ds.add_new("PixelPaddingValue", "US", 2000)
    frame = decoded(tmp_path, ds)
    assert np.all(frame.pixels[0] == pixels[1:].min())
    assert np.array_equal(frame.pixels[1:], pixels[1:])


def test_padding_range_and_inverted_grey(tmp_path: Path) -> None:
    pixels = GRID.copy() + 100
    pixels[0], pixels[1] = 3000, 3005
    ds = with_pixels(pixels, PhotometricInterpretation="MONOCHROME1")
    ds.add_new("PixelPaddingValue", "US", 3005)
    ds.add_new("PixelPaddingRangeLimit", "US", 3000)
    frame = decoded(tmp_path, ds)
    assert frame.pixels[:2].max() == frame.pixels[2:].min()


def test_nothing_but_padding_stays(tmp_path: Path) -> None:
    ds = with_pixels(np.full((8, 8), 5, np.uint16))
    ds.add_new("PixelPaddingValue", "US", 5)
    assert np.all(decoded(tmp_path, ds).pixels == 5)


def test_grey_saved_in_colour_keeps_its_values_and_colour_becomes_luma(tmp_path: Path) -> None:
    grey = np.repeat(GRID.astype(np.uint8)[..., None], 3, axis=2)
    frame = decoded(tmp_path / "grey", with_pixels(grey))
    assert frame.colour
    assert np.array_equal(frame.pixels, GRID)
    red = grey.copy()
    red[..., 1:] = 0
    assert np.allclose(decoded(tmp_path / "red", with_pixels(red)).pixels, GRID * 0.299, atol=1e-3)


def test_palette_is_looked_up(tmp_path: Path) -> None:
    ds = with_pixels(GRID.astype(np.uint8) % 4, PhotometricInterpretation="PALETTE COLOR")
    table = np.array([0, 1000, 30000, 65535], np.uint16)
    for colour in ("Red", "Green", "Blue"):
        ds.add_new(f"{colour}PaletteColorLookupTableDescriptor", "US", [4, 0, 16])
        ds.add_new(f"{colour}PaletteColorLookupTableData", "OW", table.tobytes())
    frame = decoded(tmp_path, ds)
    assert frame.colour
    assert np.array_equal(frame.pixels, table[GRID % 4])


@pytest.mark.parametrize("syntax", ["native", RLELossless])
def test_frames_one_at_a_time_with_their_own_rescale(tmp_path: Path, syntax: str) -> None:
    slices = studies.series(3, size=(96, 100))
    ds = studies.enhanced(slices, slopes=[1.0, 2.0, 3.0])
    if syntax != "native":
        ds = studies.compressed(ds, syntax)
    (path,) = studies.save(tmp_path, [ds])
    decoder = decoding.Decoder()
    for number in (3, 1, 2):
        frame = decoder.frame(str(path), number)
        assert np.allclose(frame.pixels, slices[number - 1].pixel_array * float(number))
    with pytest.raises(Refused, match="Frame 4 of 3"):
        decoder.frame(str(path), 4)


def test_limits_are_asked_before_decoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (path,) = studies.save(tmp_path, [with_pixels(GRID)])
    monkeypatch.setattr(decoding, "MAX_PIXELS", 63)
    with pytest.raises(Refused, match="8 × 8 pixels are over the limit"):
        decoding.Decoder().frame(str(path), None)


@pytest.mark.parametrize(
    ("slope", "intercept"), [("1e33", "0"), ("-1e33", "0"), ("1e38", "0"), ("1e307", "0"), ("1", "1e30"), ("1", "-5e9")]
)
def test_a_rescale_that_leads_out_of_all_units_is_refused(tmp_path: Path, slope: str, intercept: str) -> None:
    with pytest.raises(Refused, match="Send the instance with the rescale of its scanner"):
        decoded(tmp_path, with_pixels(GRID, RescaleSlope=slope, RescaleIntercept=intercept))


def test_all_that_32_bits_hold_is_a_unit(tmp_path: Path) -> None:
    pixels = GRID.astype(np.uint32)
    pixels[0, 0] = 2**32 - 1
    assert decoded(tmp_path, with_pixels(pixels)).pixels.max() == 2.0**32


def test_truncated_pixels_are_no_frame(tmp_path: Path) -> None:
    ds = with_pixels(GRID)
    ds.PixelData = ds.PixelData[:40]
    with pytest.raises(ValueError, match="pixel data"):
        decoded(tmp_path, ds)


def test_facts_hold_no_person(tmp_path: Path) -> None:
    ds = with_pixels(GRID, DeviceSerialNumber="77", LossyImageCompression="01", SoftwareVersions=["a", "b"])
    facts = decoding.facts(ds)
    assert (facts["software_versions"], facts["device_serial"], facts["lossy"]) == ("a\\b", "77", "01")
    assert "Fixture" not in str(facts)
    assert facts["smallest"] is None


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"WindowCenter": 30, "WindowWidth": 20}, (20.0, 40.0)),
        ({"WindowCenter": [30, 99], "WindowWidth": [20, 99]}, (20.0, 40.0)),
        # A window beside the pixels, or one of no width, is a slip.
        ({"WindowCenter": 5000, "WindowWidth": 20}, None),
        ({"WindowCenter": 30, "WindowWidth": 1}, None),
        ({"WindowCenter": 30, "WindowWidth": 20, "PhotometricInterpretation": "MONOCHROME1"}, None),
        ({}, None),
    ],
)
def test_window_of_previews(attributes: dict[str, Any], expected: tuple[float, float] | None) -> None:
    pixels = GRID.astype(np.float32)
    low, high = decoding.window(with_pixels(GRID, **attributes), pixels)
    assert (low, high) == (expected or pytest.approx((np.percentile(pixels, 0.5), np.percentile(pixels, 99.5))))
    grey = decoding.preview(with_pixels(GRID, **attributes), pixels)
    assert grey.dtype == np.uint8
    assert grey.max() == 255
