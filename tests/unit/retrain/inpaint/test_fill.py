"""The networks fill the hole and nothing else, at every size of crop and hole."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from dicomguard.retrain.inpaint import fill
from dicomguard.retrain.inpaint.nets import NETS, smooth_fill
from dicomguard.retrain.tamper import learned
from dicomguard.retrain.tamper.forged import Canvas, Forged

_SCALE = (10.0, 100.0)


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Half-precision weights of chance for every network."""
    torch.manual_seed(0)
    for name, build in NETS.items():
        save_file({key: value.half() for key, value in build().state_dict().items()}, tmp_path / f"{name}.safetensors")
    monkeypatch.setattr(fill, "FOLDER", tmp_path)
    return tmp_path


def _head(rows: int, cols: int) -> Canvas:
    rng = np.random.default_rng(1)
    pixels = np.rint(rng.uniform(80, 160, (2, rows, cols))).astype(np.float32)
    lesion = np.zeros(pixels.shape, np.bool_)
    lesion[:, 40:60, 40:60] = True
    return Canvas(pixels=pixels, lesion=lesion, head=np.ones(pixels.shape, np.bool_), low=0.0, high=255.0)


def _forged(canvas: Canvas) -> list[Forged | None]:
    return [learned.forge(canvas, None, np.random.default_rng(seed)) for seed in range(6)]


@pytest.mark.usefixtures("weights")
@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize(("rows", "cols", "side"), [(64, 64, 20), (61, 83, 31), (150, 131, 100), (9, 9, 3)])
def test_only_the_hole_changes(name: str, rows: int, cols: int, side: int) -> None:
    planes = np.random.default_rng(0).uniform(0, 200, (3, rows, cols)).astype(np.float32)
    hole = np.zeros(planes.shape, np.bool_)
    hole[1:, 2 : 2 + side, 3 : 3 + side] = True
    filled = fill.fill(name, planes, hole, np.zeros_like(hole), _SCALE, np.random.default_rng(2))
    assert np.array_equal(filled[~hole], planes[~hole])
    assert np.isfinite(filled).all()
    assert (filled[hole] != planes[hole]).mean() > 0.99


@pytest.mark.usefixtures("weights")
@pytest.mark.parametrize("name", NETS)
def test_what_the_hole_held_is_not_seen(name: str) -> None:
    planes = np.random.default_rng(0).uniform(0, 200, (1, 72, 72)).astype(np.float32)
    hole = np.zeros(planes.shape, np.bool_)
    hole[:, 20:40, 20:44] = True
    other = np.where(hole, 7, planes).astype(np.float32)
    first, second = (fill.fill(name, given, hole, hole, _SCALE, np.random.default_rng(2)) for given in (planes, other))
    assert np.allclose(first, second, atol=1e-3)


def test_a_smooth_fill_continues_a_plane_of_one_value() -> None:
    image = torch.full((1, 1, 40, 56), 0.3)
    hole = torch.zeros_like(image)
    hole[:, :, 8:30, 8:40] = 1
    assert torch.allclose(smooth_fill(image * (1 - hole) + 9 * hole, hole), image, atol=1e-5)


def test_levels_of_an_empty_head_are_usable() -> None:
    plane = np.zeros((1, 4, 4), np.float32)
    assert fill.levels(plane, plane > 0) == (0.0, 1.0)


@pytest.mark.usefixtures("weights")
def test_all_networks_with_weights_are_drawn() -> None:
    canvas = _head(120, 120)
    drawn = {one.variant for seed in range(24) if (one := learned.forge(canvas, None, np.random.default_rng(seed)))}
    assert drawn == set(NETS)


def test_a_package_without_weights_forges_nothing(weights: Path) -> None:
    canvas = _head(120, 120)
    assert any(_forged(canvas))
    for path in weights.iterdir():
        path.unlink()
    assert _forged(canvas) == [None] * 6
