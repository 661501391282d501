"""The training path on a drawn archive: twins, losses, checkpoints, and a whole small run to weights that load."""

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from dicomguard.analyze import weights
from dicomguard.analyze.channels import NAMES
from dicomguard.analyze.net.detector import Detector
from dicomguard.analyze.net.load import load_tensors
from dicomguard.analyze.net.model import Network
from dicomguard.clock import SystemClock
from dicomguard.errors import Broken, Refused
from dicomguard.retrain import dataset
from dicomguard.retrain.net import candidate, card, checkpoint, train
from dicomguard.retrain.net.losses import dense_losses
from dicomguard.retrain.net.targets import instances
from dicomguard.retrain.net.twins import Batches, Recipe, TwinMaker, crops
from dicomguard.retrain.tamper import families
from tests.unit.retrain.net import archive


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return archive.write(tmp_path_factory.mktemp("archive"))


@pytest.fixture(scope="module")
def maker(folder: Path) -> TwinMaker:
    return TwinMaker([dataset.read_pixels(folder, one) for one in dataset.read_index(folder)])


def job(folder: Path, out: Path, **changes: object) -> train.TrainJob:
    return train.TrainJob(**{"archive": folder, "out": out, "small": True, "device": "cpu", **changes})  # type: ignore[arg-type]


def test_twins_differ_inside_the_mask_only(maker: TwinMaker) -> None:
    rng = np.random.default_rng(0)
    seen = 0
    for _ in range(12):
        twin = maker.draw(rng, names=("splice",), processed=False)
        # A pass over the whole slice changes what is far from the edit, in both twins.
        if twin is None or "whole slice" in twin.forged.parameters:
            continue
        changed = twin.pixels != twin.authentic
        assert changed.any()
        assert not changed[twin.forged.alpha == 0].any()
        seen += 1
    assert seen > 4


def test_a_batch_is_a_function_of_seed_and_step(maker: TwinMaker) -> None:
    recipe = Recipe(seed=4, pairs=2, crop=96)
    one, same, other = (Batches(maker, recipe, 10)[step] for step in (3, 3, 4))
    assert all(np.array_equal(one[name], same[name]) for name in one)
    assert not np.array_equal(one["x"], other["x"])
    assert one["x"].shape == (4, len(NAMES), 96, 96)
    # Authentic and forged alternate; an authentic crop has no forged pixel.
    assert not one["forged"][0::2].any()


def test_slices_of_a_stack_are_seen_with_the_scale_of_a_series_in_training_alone(maker: TwinMaker) -> None:
    rng = np.random.default_rng(2)
    drawn = [twin for _ in range(40) if (twin := maker.draw(rng, names=("splice",))) is not None]
    placed = [twin for twin in drawn if twin.places is not None]
    assert 0 < len(placed) < len(drawn)
    here, alone = ([*crops(one, 96, np.random.default_rng(0))] for one in (placed[0], replace(placed[0], places=None)))
    for one, other in zip(here, alone, strict=True):
        assert not np.array_equal(one["x"], other["x"])
        assert all(np.array_equal(one[name], other[name]) for name in one if name != "x")
    asked = [maker.draw(rng, names=("splice",), processed=False) for _ in range(20)]
    assert all(twin.places is None for twin in asked if twin is not None), "validation sees scans as they are"


def test_every_family_is_drawn(maker: TwinMaker) -> None:
    rng = np.random.default_rng(1)
    drawn = {twin.forged.family for _ in range(240) if (twin := maker.draw(rng)) is not None}
    assert len(drawn) >= len(families.FAMILIES) - 2


def test_instances_tell_real_added_removed() -> None:
    empty = np.zeros((64, 64), dtype=bool)
    a, b = empty.copy(), empty.copy()
    a[5:20, 5:20] = True
    b[40:55, 40:55] = True
    assert [label for _, label in instances(empty, a)] == [1]
    assert [label for _, label in instances(a, a)] == [2]
    assert [label for _, label in instances(a, empty)] == [3]
    assert sorted(label for _, label in instances(b, a)) == [1, 3]
    assert instances(empty, empty) == []


def test_losses_ignore_what_is_not_known() -> None:
    maps = torch.zeros(2, 3, 8, 8, requires_grad=True)
    truth = torch.zeros(2, 16, 16)
    lesion = truth.clone()
    lesion[1, :8] = 1
    valid = torch.ones(2, 16, 16)
    valid[:, :, 8:] = 0
    known, added = torch.tensor([1.0, 0.0]), torch.tensor([1.0, -1.0])
    losses = dense_losses(maps, forged=lesion, lesion=lesion, valid=valid, lesion_known=known, added=added)
    sum(losses.values()).backward()
    gradient = maps.grad
    assert gradient is not None
    assert not gradient[:, :, :, 4:].any(), "air and blend bands teach nothing"
    assert not gradient[1, 1].any(), "an unmarked sequence teaches nothing about lesions"
    assert gradient[1, 0, :4, :4].any()


def test_the_kind_is_learnt_inside_the_forgery_alone() -> None:
    maps = torch.zeros(3, 3, 8, 8, requires_grad=True)
    forged = torch.zeros(3, 16, 16)
    forged[:, :8] = 1
    truth = {"lesion": forged, "valid": torch.ones(3, 16, 16), "lesion_known": torch.zeros(3)}
    dense_losses(maps, forged=forged, **truth, added=torch.tensor([1.0, 0.0, -1.0]))["addition_map"].backward()
    gradient = maps.grad
    assert gradient is not None
    assert (gradient[0, 2, :4] < 0).all() and (gradient[1, 2, :4] > 0).all()
    assert not gradient[:2, 2, 4:].any(), "what is authentic was neither put in nor wiped away"
    assert not gradient[2].any(), "what was altered is of neither kind"


def test_learning_rate_warms_up_and_cools_down() -> None:
    rates = [train.learning_rate(step, step / 1000, peak=2.5e-3) for step in range(1001)]
    assert rates[0] < rates[149] > rates[500] > rates[1000] > 0
    assert max(rates) == pytest.approx(2.5e-3, rel=0.1)


def test_a_small_run_gives_weights_that_load_and_repeats_to_the_bit(folder: Path, tmp_path: Path) -> None:
    lines: list[dict[str, object]] = []
    tensors = train.train(job(folder, tmp_path / "one"), clock=SystemClock(), on_progress=lines.append)
    again = train.train(job(folder, tmp_path / "two"), clock=SystemClock())
    assert all(torch.equal(tensors[name], again[name]) for name in tensors)
    assert lines and json.loads((tmp_path / "one" / "progress.jsonl").read_text().splitlines()[-1]) == lines[-1]
    path = tmp_path / "candidate.safetensors"
    head = candidate.write(path, tensors, archive=folder, seed=1, steps=4, version="t", parent="w", small=True)
    assert head == weights.read_head(path)
    assert head.operating_point.n_authentic > 0
    validation = dataset.by_split(dataset.read_index(folder))["validation"]
    assert len(head.authentic_scores) == len(validation) + 1, "a stack of a training patient has part in the alert"
    assert head.card is not None and head.card.parent == "w"
    (alarms,) = head.card.false_alarms
    assert (alarms.flagged, alarms.of) == (sum(score >= 0.5 for score in head.authentic_scores), len(validation) + 1)
    assert head.training["data"] == {"own": "own archive"}
    assert Detector.load(path, device="cpu", threads=1).head.id == head.id
    further = tmp_path / "three" / "candidate.safetensors"
    assert train.main(["--data", str(folder), "--out", str(further.parent), "--from", str(path), "--small"]) == 0
    made = weights.read_head(further)
    assert made.card is not None and made.card.parent == head.id
    moved = max(float((value - tensors[name]).abs().max()) for name, value in load_tensors(further).items())
    assert 0 < moved < 0.1


def test_training_stacks_of_a_large_archive_are_few_and_from_all_over(folder: Path) -> None:
    (one, *_) = dataset.read_index(folder)
    for count, chosen in ((0, 0), (1, 1), (100, 100), (101, 51), (199, 100), (201, 67), (1000, 100)):
        assert len(candidate.spread([one] * count, most=100)) == chosen


def test_a_card_is_put_into_weights_that_stay_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, asked = tmp_path / "w.safetensors", tmp_path / "card.json"
    path.write_bytes(weights.shipped().read_bytes())
    path.chmod(0o644)
    before, tensors = weights.read_head(path), load_file(path)
    assert before.card is not None
    new = replace(before.card, known_failures="It was tried on one scan.")
    asked.write_text(json.dumps(new.to_json()))
    assert card.main([str(path), str(asked)]) == 0
    after, kept = weights.read_head(path), load_file(path)
    assert replace(after, sha256=before.sha256, card=before.card) == before
    assert after.card == new
    assert after.sha256 in capsys.readouterr().out
    assert tensors.keys() == kept.keys() and all(torch.equal(tensors[name], kept[name]) for name in tensors)
    assert path.stat().st_mode & 0o777 == 0o644
    asked.write_text("{}")
    with pytest.raises(SystemExit):
        card.main([str(path), str(asked)])
    assert "lacks or misnames a member" in capsys.readouterr().err
    assert weights.read_head(path) == after


def test_a_run_resumes_at_its_step(folder: Path, tmp_path: Path) -> None:
    """1. Two of four steps, then the process is gone. 2. The same job again ends where an unbroken run ends."""
    whole = train.train(job(folder, tmp_path / "whole"), clock=SystemClock())

    class Gone(Exception):
        pass

    class Dying(SystemClock):
        calls = 0

        def monotonic(self) -> float:
            self.calls += 1
            # Every look at the clock is two minutes later: a checkpoint after each step.
            if self.calls > 8:
                raise Gone
            return 120.0 * self.calls

    with pytest.raises(Gone):
        train.train(job(folder, tmp_path / "broken"), clock=Dying())
    assert (tmp_path / "broken" / "checkpoint.safetensors").is_file()
    resumed = train.train(job(folder, tmp_path / "broken"), clock=SystemClock())
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_a_near_copy_on_the_other_side_is_refused_where_a_training_begins(tmp_path: Path) -> None:
    folder = archive.write(tmp_path)
    train.train(job(folder, tmp_path / "begun"), clock=SystemClock())
    parts = dataset.by_split(dataset.read_index(folder))
    known, held = (parts[split][0].planes[2].file for split in ("train", "validation"))
    plane = cv2.resize(np.asarray(Image.open(folder / known)), None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    copy = cv2.convertScaleAbs(cv2.resize(plane, (144, 144)), alpha=1.1)
    Image.fromarray(copy).save(folder / held)
    with pytest.raises(Broken, match=rf"in train and {held} in validation are near copies .* or drop the copied plane"):
        train.train(job(folder, tmp_path / "fresh"), clock=SystemClock())
    # A run that resumes has been asked already.
    train.train(job(folder, tmp_path / "begun"), clock=SystemClock())


def test_checkpoint_keeps_everything(tmp_path: Path) -> None:
    def fresh() -> tuple[Network, torch.optim.AdamW, dict[str, torch.Tensor]]:
        model = Network()
        return model, torch.optim.AdamW(model.parameters(), lr=1e-3), dict(model.state_dict())

    model, optimiser, average = fresh()
    model.look(torch.randn(1, len(NAMES), 96, 96))[1].mean().backward()
    optimiser.step()
    checkpoint.save(tmp_path, checkpoint.Progress(step=7, seconds=3.5, seed=2), model, average, optimiser)
    other, theirs, found = fresh()
    assert checkpoint.load(tmp_path, other, found, theirs) == checkpoint.Progress(step=7, seconds=3.5, seed=2)
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), other.state_dict().values(), strict=True))
    for index, moments in optimiser.state_dict()["state"].items():
        assert all(torch.equal(theirs.state_dict()["state"][index][name], value) for name, value in moments.items())
    assert checkpoint.load(tmp_path / "none", other, found, theirs) is None


def test_an_archive_without_training_patients_is_refused(tmp_path: Path) -> None:
    (tmp_path / "index.csv").write_text(",".join(dataset.COLUMNS) + "\n")
    with pytest.raises(Refused):
        train.train(job(tmp_path, tmp_path / "out"), clock=SystemClock())
