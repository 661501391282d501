"""Training of the inpainting networks: what they are shown, and that a stopped run goes on as if it had not stopped."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from dicomguard.retrain import dataset
from dicomguard.retrain.inpaint.nets import NETS, STRIDE
from dicomguard.retrain.net import inpainter

from . import archive


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[inpainter.Slice]]:
    root = archive.write(tmp_path_factory.mktemp("archive"))
    return inpainter.slices(root, dataset.by_split(dataset.read_index(root))["train"], 9, 1)


def test_slices_are_normalised_and_as_many_as_asked(pool: dict[str, list[inpainter.Slice]]) -> None:
    assert [len(members) for members in pool.values()] == [9]
    for one in pool["own"]:
        assert -1.3 < np.percentile(one.pixels[one.head], 2) < np.percentile(one.pixels[one.head], 98) < 1.3


def test_an_example_asks_for_healthy_tissue_or_for_the_lesion_in_its_hole(
    pool: dict[str, list[inpainter.Slice]],
) -> None:
    wanted = healthy = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        drawn = pool["own"][seed % 9]
        # A lesion that no other tissue resembles.
        one = replace(drawn, pixels=np.where(drawn.lesion, np.float32(5), np.float32(0)))
        made = inpainter.example(one, 64, rng)
        if made is None:
            continue
        _, hole, label = made
        assert made.shape == (3, 64, 64)
        assert set(np.unique(made[1:])) <= {0.0, 1.0}
        assert hole.any()
        if label.any():
            wanted += 1
            assert (hole[label > 0] == 1).all()
            assert hole.sum() > label.sum()
            assert made[0][label > 0].mean() > 2.5
        else:
            healthy += 1
            assert made[0][hole > 0].max() == 0
    assert wanted >= 8
    assert healthy >= 8


@pytest.mark.parametrize("name", NETS)
def test_a_stopped_run_goes_on_as_if_it_had_not_stopped(
    name: str, pool: dict[str, list[inpainter.Slice]], tmp_path: Path
) -> None:
    batches = [inpainter.batch(pool, np.random.default_rng(step), step)[:2] for step in range(3)]
    assert batches[0].shape == (2, 4, 64, 64)
    assert batches[0].shape[-1] % STRIDE == 0
    through = inpainter.Trainer(name, 5)
    # Late enough that the critic has a say.
    through.step = 200
    for given in batches[:2]:
        through.learn(given, 600)
    through.save(tmp_path)
    again = inpainter.Trainer(name, 6)
    again.resume(tmp_path)
    assert again.step == 202
    assert through.learn(batches[2], 600) == again.learn(batches[2], 600)
    for first, second in zip(through.net.parameters(), again.net.parameters(), strict=True):
        assert torch.equal(first, second)


def test_a_run_to_a_step_writes_weights_of_every_network(
    pool: dict[str, list[inpainter.Slice]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    inpainter.train(pool, tmp_path, steps=1, seed=1, stop=lambda: False)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(line["net"], line["step"]) for line in lines] == [(name, 1) for name in NETS]
    for name in NETS:
        assert (tmp_path / f"{name}.safetensors").stat().st_size < 400_000
