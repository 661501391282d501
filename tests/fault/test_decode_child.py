"""A file that kills, hangs or fools its decoder costs its own slices, never the study."""

import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from dicomguard.analyze.client import Previews
from dicomguard.analyze.pixels import Reader, Slice, Undecoded
from dicomguard.errors import Broken, Refused
from tests import studies


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    return studies.save(tmp_path / "in", studies.series(3))


def test_frames_arrive_bit_by_bit_and_only_one_child_starts(paths: list[Path]) -> None:
    with Reader() as reader:
        for index, path in enumerate(paths):
            got = reader.read(path, None)
            assert isinstance(got, Slice)
            assert np.array_equal(got.pixels, studies.head(seed=1000 + index))
            assert got.facts["manufacturer"] == "Synthetic"
        first = reader._child
        reader.read(paths[0], None)
        assert reader._child is first


def test_killed_decoder_is_replaced_and_the_file_read_again(paths: list[Path]) -> None:
    with Reader() as reader:
        reader.read(paths[0], None)
        assert reader._child is not None
        os.kill(reader._child.pid, signal.SIGKILL)
        assert isinstance(reader.read(paths[1], None), Slice)


@pytest.mark.parametrize(
    "damage",
    [b"", b"no dicom at all", b"\0" * 128 + b"DICM", b"\0" * 128 + b"DICM" + np.random.default_rng(1).bytes(3000)],
    ids=["empty", "text", "preamble", "noise"],
)
def test_garbage_is_undecodable_and_the_next_file_is_read(paths: list[Path], tmp_path: Path, damage: bytes) -> None:
    bad = tmp_path / "bad.dcm"
    bad.write_bytes(damage)
    with Reader() as reader:
        got = reader.read(bad, None)
        # Noise can claim a length that the memory limit stops.
        assert isinstance(got, Undecoded)
        assert got.reason in ("undecodable", "memory limit")
        assert isinstance(reader.read(paths[0], None), Slice)


def test_torn_fragments_are_undecodable(paths: list[Path], tmp_path: Path) -> None:
    ds = studies.compressed(studies.series(1)[0], "1.2.840.10008.1.2.5")
    (path,) = studies.save(tmp_path / "rle", [ds])
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with Reader() as reader:
        assert reader.read(path, None) == Undecoded(reason="undecodable")
        assert isinstance(reader.read(paths[0], None), Slice)


def test_panic_of_a_codec_in_rust_costs_no_child(paths: list[Path], tmp_path: Path) -> None:
    """It is no Exception of Python; a child that died of it would be started twice for such a file."""
    ds = studies.compressed(studies.series(1)[0], "1.2.840.10008.1.2.5")
    (path,) = studies.save(tmp_path / "rle", [ds])
    data = path.read_bytes()
    at = data.index(b"\x02\x00\x00\x00\x40\x00\x00\x00") + 13_587
    # A literal run that became a repeated one: more bytes than the segment has pixels (PS3.5 G.3).
    path.write_bytes(data[:at] + bytes((243,)) + data[at + 1 :])
    with Reader() as reader:
        reader.read(paths[0], None)
        first = reader._child
        assert reader.read(path, None) == Undecoded(reason="undecodable")
        assert reader._child is first


def test_image_larger_than_the_memory_limit_is_named_so(tmp_path: Path) -> None:
    ds = studies.instance(np.zeros((6000, 6000), np.uint16))
    (path,) = studies.save(tmp_path, [ds])
    with Reader(memory_bytes=900 << 20) as reader:
        assert reader.read(path, None) == Undecoded(reason="memory limit")


def test_declared_size_beyond_the_limit_is_not_allocated(tmp_path: Path) -> None:
    ds = studies.series(1)[0]
    ds.Rows = ds.Columns = 65535
    (path,) = studies.save(tmp_path, [ds])
    started = time.monotonic()
    with Reader() as reader:
        assert reader.read(path, None) == Undecoded(reason="undecodable")
    assert time.monotonic() - started < 20


@pytest.mark.parametrize(
    ("module", "reason"),
    [("tests.fault.decoders.hangs", "time limit"), ("tests.fault.decoders.crashes", "undecodable")],
)
def test_decoder_that_misbehaves(paths: list[Path], module: str, reason: str) -> None:
    started = time.monotonic()
    with Reader(module=module, frame_s=1.0) as reader:
        assert reader.read(paths[0], None) == Undecoded(reason=reason)
        assert reader._child is None
    assert time.monotonic() - started < 20


def test_decoder_that_lies_about_its_bytes_is_not_believed(paths: list[Path]) -> None:
    with Reader(module="tests.fault.decoders.lies") as reader, pytest.raises(Broken):
        reader.read(paths[0], None)


def test_previews_are_windowed_pictures_and_garbage_is_a_sentence(paths: list[Path], tmp_path: Path) -> None:
    bad = tmp_path / "bad.dcm"
    bad.write_bytes(b"nothing")
    with Previews() as previews:
        picture = previews.frame(paths[0], None)
        assert (picture.rows, picture.columns) == (128, 128)
        assert picture.png.startswith(b"\x89PNG")
        with pytest.raises(Refused, match="cannot be shown"):
            previews.frame(bad, None)
        assert previews.frame(paths[1], None).png != picture.png
