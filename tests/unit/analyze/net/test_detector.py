"""Slices in, detections out: order, reasons, repeatability, and what happens when memory is short."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from dicomguard.analyze import scores, weights
from dicomguard.analyze.channels import head_mask
from dicomguard.analyze.net.detector import Detector, Seen, Slice, _seen, _Shown
from dicomguard.analyze.net.model import Proposed
from dicomguard.errors import Refused, Unavailable


def scan(seed: int, size: int = 128) -> NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:size, 0:size]
    inside = np.hypot(y - size / 2, x - size / 2) < 0.4 * size
    return np.asarray(np.where(inside, 100 + 20 * np.sin(x / 9) + rng.normal(0, 4, (size, size)), 0), dtype=np.float32)


def plane(pixels: NDArray[np.float32], key: str, position: float | None = None) -> Slice:
    return Slice(pixels=pixels, position_mm=position, spacing_mm=(1.0, 1.0), key=key)


@pytest.fixture(scope="module")
def detector() -> Detector:
    return Detector.load(weights.shipped(), device="cpu", threads=1)


def test_order_reasons_and_ranges(detector: Detector) -> None:
    asked = [
        plane(scan(0), "a", 0.0),
        plane(np.zeros((128, 128), dtype=np.float32), "air", 5.0),
        plane(scan(1, 64), "small", 10.0),
        plane(scan(2), "b", 15.0),
    ]
    found = detector.series(asked).slices
    assert [one.key for one in found] == ["a", "air", "small", "b"]
    assert [one.reason for one in found] == ["", "no head", "too small", ""]
    for one in (found[0], found[3]):
        assert 0 <= one.forgery <= 1 and one.head_share == pytest.approx(0.5, abs=0.05)
        for detection in one.detections:
            assert detection.mask.shape == (128, 128) and detection.mask.any()
            assert 0 <= detection.p_forged <= one.forgery + 1e-6 and 0 <= detection.p_tumor <= 1


def test_the_same_slices_give_the_same_answer(detector: Detector) -> None:
    asked = [plane(scan(i), str(i), 5.0 * i) for i in range(3)]
    once, twice = detector.series(asked), detector.series(asked)
    assert [s.forgery for s in once.slices] == [s.forgery for s in twice.slices]


def test_no_slice_is_no_answer(detector: Detector) -> None:
    assert detector.series([]).slices == ()


def test_short_memory_halves_the_batch_and_changes_nothing(detector: Detector, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = [plane(scan(i), str(i), 5.0 * i) for i in range(4)]
    whole = detector.series(asked)
    forward = detector._forward
    sizes: list[int] = []

    def short(stacks: NDArray[np.float32]) -> object:
        sizes.append(len(stacks))
        if len(stacks) > 1:
            raise torch.OutOfMemoryError("no room")
        return forward(stacks)

    monkeypatch.setattr(detector, "_forward", short)
    again = detector.series(asked)
    assert sizes[:3] == [4, 2, 1]
    assert [s.forgery for s in again.slices] == pytest.approx([s.forgery for s in whole.slices], abs=0.02)

    def never(stacks: NDArray[np.float32]) -> object:
        raise torch.OutOfMemoryError("no room")

    monkeypatch.setattr(detector, "_forward", never)
    with pytest.raises(Unavailable):
        detector.series(asked[:1])


def test_a_device_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(Refused):
        Detector.load(weights.shipped(), device="cuda")


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    head = replace(weights.read_head(weights.shipped()), architecture="another")
    path = tmp_path / "w.safetensors"
    save_file({"x": torch.zeros(1)}, str(path), metadata=weights.to_metadata(head))
    with pytest.raises(Refused):
        Detector.load(path, device="cpu")
    assert asdict(head)["architecture"] == "another"


def test_loose_pictures_do_not_change_each_other(detector: Detector) -> None:
    alone = detector.series([plane(scan(3), "a")]).slices[0]
    among = detector.series([plane(scan(3), "a"), plane(scan(4) * 7, "b"), plane(scan(5), "c")]).slices[0]
    assert alone.forgery == among.forgery


def test_a_slice_without_a_number_is_skipped_and_changes_no_other(
    detector: Detector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The middle of a series is that of its other slices: a single NaN would be in all of them."""
    asked = [plane(scan(i), str(i), 5.0 * i) for i in range(7)]
    look = detector.look

    def broken(planes: Sequence[NDArray[np.float32]], heads: Any, touching: Any) -> list[Seen]:
        seen = look(planes, heads, touching)
        native = replace(seen[3].look.native, raw=float("nan"))
        return [*seen[:3], replace(seen[3], look=replace(seen[3].look, native=native)), *seen[4:]]

    whole = [
        one.look for one in look([one.pixels for one in asked], [head_mask(one.pixels) for one in asked], [True] * 6)
    ]
    monkeypatch.setattr(detector, "look", broken)
    found = detector.series(asked).slices
    assert [one.reason for one in found] == ["", "", "", "undecodable", "", "", ""]
    assert (found[3].state, found[3].forgery, found[3].smoothing, found[3].detections) == ("skipped", 0.0, 0.0, ())
    c = detector.calibration
    expected = [scores.probability(float(v), c.slope, c.bias) for v in scores.values(whole[:3] + whole[4:], c)]
    assert [one.forgery for k, one in enumerate(found) if k != 3] == pytest.approx(expected)


def test_a_scan_out_of_all_units_gives_no_score_that_is_no_number(detector: Detector) -> None:
    """The decoder refuses such a frame; who calls the detector without it gets slices that say so."""
    asked = [plane(scan(i) * np.float32(1e33 if i == 2 else 1), str(i), 5.0 * i) for i in range(6)]
    found = detector.series(asked).slices
    assert found[2].reason == "undecodable"
    assert all(np.isfinite((one.forgery, one.tumor, one.smoothing)).all() for one in found)


@pytest.mark.parametrize("sides", [(104, 100), (102, 98), (104, 98)])
def test_the_head_lies_on_the_maps_of_both_scales_cell_by_cell(sides: tuple[int, int]) -> None:
    """A map of ⌈side/4⌉ cells has cells of four pixels, not of side/⌈side/4⌉."""
    cells = tuple(-(-side // 4) for side in sides)
    head = np.random.default_rng(0).random(cells) > 0.5
    inside = head.repeat(4, axis=0).repeat(4, axis=1)[: sides[0], : sides[1]]
    nothing = Proposed(boxes=torch.zeros(0, 4), joint=torch.zeros(0, 4), masks=torch.zeros(0, 28, 28))
    fine, coarse = (
        _Shown(np.where(inside[::step, ::step], -5.0, 5.0)[None].repeat(3, axis=0).astype(np.float32), nothing)
        for step in (2, 4)
    )
    look = _seen(fine, coarse, inside, (0, 0, *sides), sides, (0.7, 2.0)).look
    assert look.native == look.half == scores.Terms(raw=-5.0, level=-5.0), "no cell of the air is in the head"
