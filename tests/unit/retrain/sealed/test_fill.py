"""The diffusion family with a network of random weights: promises of `Forged`, and the same network in torch."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from dicomguard.errors import Broken
from dicomguard.retrain.sealed import denoiser, fill
from dicomguard.retrain.sealed.denoiser import MATRIX, Network
from dicomguard.retrain.sealed.diffusion import Denoiser
from tests.unit.retrain.tamper.phantom import phantom


def model() -> Denoiser:
    torch.manual_seed(0)
    made = Denoiser()
    for values in made.parameters():
        torch.nn.init.normal_(values, 0, 0.05)
    return made


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Network]:
    save_file({name: value.half() for name, value in model().state_dict().items()}, str(tmp_path / "w.safetensors"))
    made = Network.read(tmp_path / "w.safetensors")
    monkeypatch.setattr(denoiser, "shipped", lambda: made)
    yield made


def test_numpy_and_torch_agree(network: Network) -> None:
    torch_model = model().half().float()
    seen, angle = torch.randn(2, 4, MATRIX, MATRIX), torch.tensor([0.7, 0.7])
    with torch.no_grad():
        expected = torch_model(seen, angle).numpy()[:, 0]
    assert np.abs(network(seen.numpy(), 0.7) - expected).max() < 1e-4 * max(1.0, float(np.abs(expected).max()))
    assert sum(values.numel() for values in torch_model.parameters()) <= 300_000


@pytest.mark.parametrize("seed", range(4))
def test_promises(network: Network, seed: int) -> None:
    canvas = phantom()
    forged = fill.forge(canvas, None, np.random.default_rng(seed))
    assert forged is not None
    outside = forged.alpha == 0
    assert np.array_equal(forged.twin, canvas.pixels)
    assert np.array_equal(forged.pixels[outside], canvas.pixels[outside])
    assert np.array_equal(forged.pixels, np.rint(forged.pixels))
    assert forged.mask.sum(axis=(1, 2)).max() >= 64
    assert not (forged.mask & outside).any()


def test_what_is_known_stays(network: Network) -> None:
    rng = np.random.default_rng(1)
    known = rng.uniform(-1, 1, (2, MATRIX, MATRIX)).astype(np.float32)
    hole = np.zeros_like(known)
    hole[:, 20:40, 20:40] = 1
    filled = fill.sample(network, known, hole, hole, 1.0, 15, rng)
    assert np.array_equal(filled[hole == 0], known[hole == 0])
    assert (filled != known)[hole > 0].all()


def test_missing_weights_are_said(tmp_path: Path) -> None:
    with pytest.raises(Broken, match="train it"):
        Network.read(tmp_path / "none.safetensors")
