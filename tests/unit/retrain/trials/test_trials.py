"""Trials without their hours: a false truth that says nothing, what is left out, and judges whose figures are known."""

import json
import multiprocessing
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from dicomguard.analyze.net.heads import ADDED, REAL, REMOVED
from dicomguard.analyze.net.model import Network
from dicomguard.analyze.scores import UNCALIBRATED
from dicomguard.errors import Refused
from dicomguard.retrain import dataset
from dicomguard.retrain.net import shown
from dicomguard.retrain.net.shown import Run
from dicomguard.retrain.net.train import TrainJob
from dicomguard.retrain.net.twins import Batches, Recipe, TwinMaker
from dicomguard.retrain.tamper.families import ATTACKS
from dicomguard.retrain.trials import dense, hands, left_out, points, shuffled, stock, throughout, twins, unseen
from dicomguard.retrain.trials.effort import ProcessorClock
from dicomguard.retrain.trials.twins import Outcome, Said, View
from tests.unit.retrain.net import archive, looks


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return archive.write(tmp_path_factory.mktemp("archive"), people=5)


def batch(pairs: int = 40, side: int = 32) -> dict[str, np.ndarray]:
    """Pairs whose forged twin has a square in one place, with a band around it that does not count."""
    forged = np.zeros((2 * pairs, side, side), np.float16)
    forged[1::2, 4:10, 4:10] = 1
    valid = np.ones_like(forged)
    valid[1::2, 10:12, 4:10] = 0
    return {"x": np.zeros((2 * pairs, 1, side, side), np.float16), "forged": forged, "valid": valid}


def test_a_shuffled_truth_says_neither_which_twin_nor_where() -> None:
    right = batch()
    false = shuffled.Shuffle(1)(7, right)
    marked = false["forged"].reshape(40, 2, -1).sum(axis=2)
    # One twin of each pair is marked, as large as before; about half of them are the authentic one.
    assert np.array_equal(np.sort(marked, axis=1), np.tile([0, 36], (40, 1)))
    assert 10 <= int((marked[:, 0] > 0).sum()) <= 30
    places = {tuple(np.argwhere(plane)[0]) for plane in false["forged"] if plane.any()}
    assert len(places) > 25
    assert false["valid"].all()
    assert np.array_equal(right["forged"], batch()["forged"])
    again = shuffled.Shuffle(1)(7, right)["forged"]
    assert np.array_equal(again, false["forged"])
    assert not np.array_equal(shuffled.Shuffle(1)(8, right)["forged"], again)


@pytest.mark.parametrize(
    ("row", "holds"),
    [
        ({"slice_auc": 0.52, "pixel_auc": 0.49, "f1": 0.01}, True),
        ({"slice_auc": 0.74, "pixel_auc": 0.5, "f1": 0.0}, False),
        ({"slice_auc": 0.5, "pixel_auc": 0.79, "f1": 0.0}, False),
        ({"slice_auc": 0.5, "pixel_auc": 0.5, "f1": 0.27}, False),
        ({"slice_auc": None, "pixel_auc": None, "f1": None}, False),
    ],
)
def test_when_the_control_holds(row: dict[str, float | None], holds: bool) -> None:
    assert shuffled.holds(row) is holds


def test_groups_cover_each_family_once() -> None:
    known = left_out.absences([series_of("lgg", "DU")])
    groups = [one for name, one in known.items() if name.startswith("group:")]
    together = [family for one in groups for family in one.families]
    assert len(together) == len(set(together))
    assert {f"family:{name}" for name in together} == {name for name in known if name.startswith("family:")}
    here = series_of("lgg", "DU").origins
    assert known["group:gradient"].concerns(here, "gradient")
    assert not known["group:gradient"].concerns(here, "splice")
    assert known["source:lgg"].concerns(here, "splice")


def series_of(source: str, group: str) -> dataset.Series:
    return dataset.Series(source=source, patient="p", group=group, sequence="flair", planes=())


def test_a_hospital_is_a_part_of_its_source() -> None:
    series = [series_of("lgg", "DU"), series_of("lgg", "HT"), series_of("cheng", "glioma")]
    known = left_out.absences(series)
    assert [name for name in known if name.startswith("hospital:")] == ["hospital:lgg/DU", "hospital:lgg/HT"]
    one, other = known["hospital:lgg/DU"], known["hospital:lgg/HT"]
    assert one.concerns(series[0].origins, "splice") and not one.concerns(series[1].origins, "splice")
    assert not one.meets(other)
    assert one.meets(known["source:lgg"]) and known["source:lgg"].meets(one)
    assert not one.meets(known["source:cheng"])


def test_a_run_without_twenty_families_has_a_folder() -> None:
    names = [f"family:third/{number}" for number in range(40)]
    whole, less = left_out._folder("+".join(names)), left_out._folder("+".join(names[:-1]))
    assert whole != less and max(len(whole), len(less)) <= 120
    assert left_out._folder("group:paste") == "group-paste"


def test_what_is_left_out_is_never_drawn(folder: Path) -> None:
    pixels = [dataset.read_pixels(folder, one) for one in dataset.read_index(folder)]
    everything_but_one = frozenset(left_out.absences([])) - {"family:pde"}
    left = {name.removeprefix("family:") for name in everything_but_one if name.startswith("family:")}
    maker = TwinMaker(pixels, left_out=left)
    rng = np.random.default_rng(0)
    seen = {twin.forged.family for twin in (maker.draw(rng) for _ in range(12)) if twin is not None}
    assert seen <= {"pde", "self-blend"}
    assert "pde" in seen
    assert len(Batches(maker, Recipe(seed=1, pairs=2, crop=96), 3)) == 3


def outcome(family: str, score: float, twin: float, patient: str) -> Outcome:
    return Outcome(
        source="s",
        origins=frozenset({"s"}),
        patient=patient,
        family=family,
        score=score,
        twin_score=twin,
        pixel_auc=1.0,
        f1=0.5,
    )


def test_the_loss_is_of_what_was_left_out() -> None:
    whole = [outcome("pde", 1, 0, f"p{i}") for i in range(8)] + [outcome("splice", 0, 0, f"p{i}") for i in range(8)]
    without = [outcome("pde", i % 2, 0.5, f"p{i}") for i in range(8)]
    row = left_out.compared(left_out.absences([])["group:pde"], whole, without)
    assert (row["with"]["slice_auc"], row["without"]["slice_auc"]) == (1.0, 0.5)
    assert row["loss"][0] == 0.5
    assert row["loss"][1] < 0.5 < row["loss"][2]


def test_a_run_may_go_without_several_things() -> None:
    known = left_out.absences([series_of("lgg", "DU")])
    both = left_out.together([known["group:gradient"], known["source:lgg"]])
    assert both.name == "group:gradient+source:lgg"
    lgg, btp = (series_of(source, "g").origins for source in ("lgg", "btp"))
    assert both.concerns(lgg, "splice") and both.concerns(btp, "gradient") and not both.concerns(btp, "splice")
    assert both.meets(known["source:lgg"]) and known["family:gradient"].meets(both)
    assert not both.meets(known["group:paste"])


def test_runs_without_a_half_each_are_judged_beside_each_other(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[frozenset[str]] = []

    def network(job: TrainJob, **_: object) -> Network:
        trained.append(job.left_out_families)
        (job.out / "progress.jsonl").write_text('{"step": 30, "seconds": 60.0}\n')
        return Network()

    judged: list[set[str]] = []

    def outcomes(chosen: list[twins.Item], _: object) -> list[Outcome]:
        judged.append({item.family for item in chosen})
        return [outcome(item.family, 1, 0, item.patient) for item in chosen]

    monkeypatch.setattr(dense, "short_run", network)
    monkeypatch.setattr(twins, "outcomes", outcomes)
    monkeypatch.setattr(unseen, "look", lambda *_, **__: unseen.Unseen(runs=looks.runs(), calibration=UNCALIBRATED))
    given = ["--data", str(folder), "--out", str(tmp_path), "--minutes", "1", "--split", "test"]
    halves = ["--without", "family:splice+family:pde", "--without", "family:mirror"]
    assert left_out.main([*given, "--per-family", "1", *halves]) == 0
    rows = {row["left_out"]: row for row in json.loads((tmp_path / "left_out.json").read_text())["rows"]}
    assert set(rows) == {"family:splice", "family:pde", "family:mirror"}
    assert rows["family:pde"]["run"] == rows["family:mirror"]["beside"] == "family:splice+family:pde"
    assert rows["family:pde"]["beside"] == "family:mirror"
    assert (rows["family:pde"]["steps"], rows["family:pde"]["minutes"]) == (30, 1.0)
    # Nobody needed a run with everything, and each judged only what it was trained without or measures.
    assert set(trained) == {frozenset({"splice", "pde"}), frozenset({"mirror"})}
    assert all(len(families) == 1 for families in judged)
    with pytest.raises(Refused, match="Nothing is called 'group:unheard'"):
        left_out.main([*given, "--without", "group:paste+group:unheard"])


def test_what_was_left_out_has_no_part_in_the_alert_that_counts_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = archive.write(tmp_path, people=30, planes=2, size=64) / "index.csv"
    lines = index.read_text().splitlines()
    loud = [line.replace("own,", "loud,", 1) if k % 4 < 2 else line for k, line in enumerate(lines[1:])]
    index.write_text("\n".join([lines[0], *(line.replace("own,", "quiet,", 1) for line in loud)]) + "\n")
    asked: list[tuple[set[str], set[str]]] = []
    alone: list[tuple[str, str]] = []
    trained: set[tuple[str, str]] = set()

    def place(one: dataset.Pixels) -> tuple[str, str]:
        return one.series.source, dataset.split_of(one.series.patient_key, {})

    def forgeries(_: object, series: list[dataset.Pixels], *, names: list[str], **__: int) -> list[Run]:
        asked.append(({" ".join(place(one)) for one in series}, set(names)))
        return [one for one in looks.runs() if one.pixels.series.source == series[0].series.source]

    def authentic(_: object, one: dataset.Pixels) -> tuple[Run, None, None]:
        alone.append(place(one))
        return looks.run(one.series.source, [9.0] * 10, person=one.series.patient), None, None

    monkeypatch.setattr(shown, "forgeries", forgeries)

    def stacks(_: object, series: Iterator[dataset.Pixels]) -> Iterator[Run]:
        trained.update(place(one) for one in series)
        yield from ()

    monkeypatch.setattr(shown, "authentic", authentic)
    monkeypatch.setattr(shown, "authentic_stacks", stacks)
    found = unseen.look(Network(), tmp_path, families={"splice"}, sources={"loud"}, split="test", seed=1)
    known = set(ATTACKS) - {"splice"}
    assert asked == [
        ({"quiet validation"}, known),
        ({"quiet test"}, {"splice"}),
        ({"loud test"}, known),
    ]
    # Those who trained set the alert of studies; nobody trained on people of the other source, so they count.
    assert trained == {("quiet", "train")}
    assert set(alone) == {("loud", "train")}
    table = found.table(families=(), sources={"loud"})
    flagged, of, bound = table["authentic_slices_flagged"]
    assert of == 120 + 10 * len(alone)
    # One in twenty is what the quiet ones allow; the loud one would have allowed itself no more.
    assert flagged / of > 0.15 and bound > flagged / of
    own = found.table(families={"splice"}, sources=())
    assert own["forged_slices_found"][1] == 48


def test_an_oracle_and_a_constant_judge(folder: Path) -> None:
    chosen = twins.items(folder, split="test", per_family=1, seed=2)
    assert chosen
    forged = {item.forged.plane.tobytes(): item.mask for item in chosen}

    def oracle(view: View) -> Said:
        mask = forged.get(view.plane.tobytes(), np.zeros(view.plane.shape, np.bool_))
        return Said(score=float(mask.any()), suspicion=mask.astype(np.float32), marked=mask)

    best = twins.figures(twins.outcomes(chosen, oracle))
    assert (best["slice_auc"], best["pixel_auc"]) == (1.0, 1.0)
    # Pixels marked outside the head do not count.
    assert best["f1"] > 0.8
    still = twins.figures(
        twins.outcomes(chosen, lambda v: Said(score=0.0, suspicion=np.zeros(v.plane.shape, np.float32), marked=None))
    )
    assert (still["slice_auc"], still["pixel_auc"], still["f1"]) == (0.5, 0.5, 0.0)


def test_training_patients_are_not_judged(folder: Path) -> None:
    with pytest.raises(Refused, match="Patients who trained"):
        twins.items(folder, split="train", per_family=1, seed=1)


def _work(seconds: float) -> None:
    until = time.process_time() + seconds
    while time.process_time() < until:
        pass


def test_the_clock_of_trials_stands_while_nobody_works_and_counts_children() -> None:
    clock = ProcessorClock()
    began = clock.monotonic()
    time.sleep(0.5)
    assert clock.monotonic() - began < 0.4
    child = multiprocessing.get_context("spawn").Process(target=_work, args=(0.5,))
    child.start()
    child.join()
    _work(0.2)
    assert clock.monotonic() - began >= 0.65


def test_the_effort_of_a_run_is_what_it_noted_last(tmp_path: Path) -> None:
    (tmp_path / "progress.jsonl").write_text('{"step": 10, "seconds": 30.0}\n{"step": 20, "seconds": 90.0}\n')
    job = dense.trial(tmp_path, tmp_path, minutes=2, seed=7)
    assert dense.effort(job) == {"seed": 7, "steps": 20, "minutes": 1.5}


def test_a_run_is_not_read_as_one_that_was_asked_for_differently(tmp_path: Path) -> None:
    job = dense.trial(tmp_path, tmp_path, minutes=2, seed=7)
    save_file(Network().state_dict(), str(tmp_path / "trained.safetensors"))
    with pytest.raises(Refused, match="nobody noted"):
        dense.short_run(job, clock=ProcessorClock(), told=print)
    (tmp_path / "trained.safetensors").unlink()
    # An archive that is none: what was asked is noted before anything can fail.
    with pytest.raises(Refused, match="index"):
        dense.short_run(job, clock=ProcessorClock(), told=print)
    save_file(Network().state_dict(), str(tmp_path / "trained.safetensors"))
    assert dense.short_run(job, clock=ProcessorClock(), told=print)
    for other in (
        replace(job, minutes=4),
        replace(job, seed=8),
        replace(job, left_out_sources=frozenset({"lgg"})),
        replace(job, left_out_families=frozenset({"pde"})),
        replace(job, falsify=shuffled.Shuffle(1)),
    ):
        with pytest.raises(Refused, match="asked for with other"):
            dense.short_run(other, clock=ProcessorClock(), told=print)
    with pytest.raises(Refused, match="no finished short run"):
        dense.read_run(tmp_path / "nowhere")


class Boxes(nn.Module):
    """As torchvision's detection models answer: a sure real tumor, a likely added one, a faint removed one."""

    def forward(self, images: list[Tensor]) -> list[dict[str, Tensor]]:
        masks = torch.zeros(3, 1, *images[0].shape[1:])
        for k in range(3):
            masks[k, 0, 10 * k : 10 * k + 8, :8] = 0.9
        labels, scores = torch.tensor([REAL, ADDED, REMOVED]), torch.tensor([0.99, 0.8, 0.3])
        return [{"labels": labels, "scores": scores, "masks": masks}]


def test_the_stock_model_is_judged_by_what_it_calls_forged() -> None:
    plane = np.random.default_rng(0).normal(100, 10, (96, 96)).astype(np.float32)
    view = View(planes=[plane], heads=[plane > 0], neighbours=False, index=0)
    said = stock.stock_judge(Boxes())(view)
    assert said.score == pytest.approx(0.8)
    assert said.marked is not None and np.argwhere(said.marked)[0].tolist() == [10, 0] and said.marked.sum() == 64
    assert said.suspicion[:8].max() == 0 < said.suspicion[22, 3] < said.suspicion[12, 3]


@pytest.mark.long
def test_the_stock_model_trains_a_step_and_goes_on(folder: Path, tmp_path: Path) -> None:
    first = stock.train(folder, tmp_path, minutes=0.01, seed=1, clock=ProcessorClock(), small=True)
    assert stock.steps(tmp_path) == 1
    again = stock.train(folder, tmp_path, minutes=0.0, seed=1, clock=ProcessorClock(), small=True)
    for one, other in zip(first.state_dict().values(), again.state_dict().values(), strict=True):
        assert torch.equal(one, other)


def test_a_stack_forged_throughout_has_hardly_a_slice_left(folder: Path) -> None:
    series = [one for one in dataset.read_index(folder) if len(one.planes) >= 5]
    pixels = dataset.read_pixels(folder, series[0])
    forged, planes = throughout.forge_all(TwinMaker([pixels]), pixels, "painted", np.random.default_rng(0))
    assert len(planes) >= 0.7 * len(pixels.stored)
    changed = {z for z in range(len(pixels.stored)) if not np.array_equal(forged.stored[z], pixels.stored[z])}
    assert changed == set(planes)
    assert forged.stored.dtype == pixels.stored.dtype


def test_series_forged_throughout_need_stacks_of_validation_patients(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(Refused, match="no stack of a validation patient"):
        throughout.main(["--data", str(folder), "--out", str(tmp_path)])


@pytest.mark.long
def test_what_is_found_of_a_stack_forged_throughout_is_counted(tmp_path: Path) -> None:
    more = archive.write(tmp_path, people=12, planes=5)
    assert throughout.main(["--data", str(more), "--out", str(tmp_path), "--families", "1"]) == 0
    nothing, processed, everything = json.loads((tmp_path / "throughout.json").read_text())["rows"]
    people = {one.patient for one in dataset.by_split(dataset.read_index(more))["validation"]}
    assert nothing["without_limit"] == nothing["in_series"]
    assert (nothing["forged"], nothing["stacks"], nothing["slices"]) == ("nothing", len(people), 5 * len(people))
    assert (processed["forged"], processed["stacks"], processed["slices"]) == (
        "processed",
        len(people),
        5 * len(people),
    )
    assert everything["stacks"] <= len(people) and everything["slices"] >= 0.7 * 5 * everything["stacks"]
    for row in (nothing, processed, everything):
        assert row["edited_alike"] <= row["stacks"]
        assert row["without_limit"] <= row["in_series"] <= row["slices"] and row["as_pictures"] <= row["slices"]
        assert f"of {row['slices']}" in throughout.line(row)


def test_an_alert_that_a_loud_source_had_no_part_in_flags_more_of_it() -> None:
    rows = {(row["source"], row["set"]): row for row in points.compared(looks.runs())}
    assert set(rows) == {(source, part) for source in ("loud", "quiet") for part in ("with it", "without it")}
    quiet, loud = rows["quiet", "without it"], rows["loud", "without it"]
    assert loud["slices"][0] > rows["loud", "with it"]["slices"][0]
    # Without the loud one the quiet one sets the alert for itself, which flags hardly more of it.
    assert quiet["slices"][0] <= rows["quiet", "with it"]["slices"][0] + 5
    assert quiet["slices"][1] == loud["slices"][1] == 120
    assert quiet["stacks_flagged"][1] == quiet["stacks_found"][1] == 12
    assert "of 120 (at most" in points.line(loud)


def test_authors_are_counted_apart_and_the_worst_family_comes_first() -> None:
    known = looks.runs()
    # What this author forges looks like what is authentic.
    strange = [replace(run, family="fourth/heal", forged=(0, 1)) for run in known if run.family]
    found = hands.table([*known, *strange], UNCALIBRATED)
    assert [row["family"] for row in found["families"]] == ["fourth/heal", "splice"]
    assert found["hands"]["first"][0] > 0.95
    assert abs(found["hands"]["fourth"][0] - 0.5) < 0.15
    assert found["hands"]["first"][1] <= found["hands"]["first"][0] <= found["hands"]["first"][2]
    assert found["mean"][0] == pytest.approx((found["hands"]["first"][0] + found["hands"]["fourth"][0]) / 2, abs=1e-3)
    assert found["authentic_slices_flagged"][1] == 240
    assert found["forged_slices_found"][1] == 96
    # Of each source twelve people whose authentic series are known, and one who is forged: names recur, people do not.
    assert len({one.patient for one in hands._slices(known, UNCALIBRATED)}) == 26
    assert sum("fourth/heal" in line for line in hands.lines(found)) == 1


@pytest.mark.long
def test_the_families_of_one_author_are_drawn_alone(tmp_path: Path) -> None:
    folder = archive.write(tmp_path)
    given = ["--data", str(folder), "--out", str(tmp_path / "out"), "--hand", "fourth", "--per-family", "3"]
    assert hands.main(given) == 0
    found = json.loads((tmp_path / "out" / "hands.json").read_text())
    assert found["authentic_slices_flagged"][1] > 0
    assert set(found["hands"]) == {"fourth"}
    assert all(row["family"].startswith("fourth/") for row in found["families"])


def test_an_archive_without_validation_patients_has_no_figures(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(Refused, match="no series of a validation patient"):
        hands.main(["--data", str(folder), "--out", str(tmp_path)])
