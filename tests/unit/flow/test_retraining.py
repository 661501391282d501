import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from dicomguard import config
from dicomguard.analyze import weights
from dicomguard.clock import FakeClock
from dicomguard.errors import Refused
from dicomguard.flow import approval, retraining
from dicomguard.flow.retraining import RetrainWork, Settings, guarded
from dicomguard.retrain import client, record
from dicomguard.retrain.archive import adding, frozen, review
from dicomguard.retrain.archive.case import Split
from dicomguard.store import models, runs
from dicomguard.store.db import Store, open_store
from dicomguard.store.files import FakeDisk
from tests.unit.retrain.archive_cases import new_case

NOW = datetime(2026, 11, 28, 2, 0, tzinfo=UTC)


def weights_file(path: Path, id: str) -> Path:
    """A safetensors file without tensors, made by hand."""
    head = weights.WeightsHead(
        id=id,
        version="1",
        architecture="none",
        channels=(),
        scope=weights.Scope(modalities=("MR",), body_parts=("HEAD",), sequences=("flair",)),
        operating_point=weights.OperatingPoint(
            name="alert", forgery=0.5, tumor=0.5, n_authentic=10, flagged=0, false_alarm_upper=0.26
        ),
        calibration={},
        authentic_scores=(),
        training={},
        sha256="",
    )
    body = json.dumps({"__metadata__": weights.to_metadata(head)}).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(len(body).to_bytes(8, "little") + body)
    return path


class Trainer:
    """In the child's place: makes weights at once, of the worth that the test orders."""

    def __init__(self, worth: Mapping[str, float]) -> None:
        self.worth = worth
        self.asked: list[str] = []

    def freeze(self, archive: Path, out: Path, *, nice: int, progress: client.Progress | None = None) -> dict[str, Any]:
        self.asked.append("freeze")
        return frozen.freeze(archive, out).to_json()

    def train(self, data: Path, out: Path, **given: Any) -> dict[str, Any]:
        self.asked.append("train")
        assert (data / "index.csv").is_file() and given["incumbent"].is_file()
        given["progress"]({"step": 2, "steps": 4, "losses": {"a": 1.0}})
        (out / record.PROGRESS).write_text("".join(f'{{"step": {n}, "losses": {{"a": {9 - n}}}}}\n' for n in range(4)))
        path = weights_file(out / "candidate.safetensors", f"dg-{given['version']}")
        head = weights.read_head(path)
        return {"candidate": str(path), "sha256": head.sha256, "id": head.id}

    def evaluate(self, data: Path, out: Path, **given: Any) -> dict[str, Any]:
        id = weights.read_head(given["weights"]).id
        self.asked.append(f"evaluate {id}")
        auc = self.worth[id]
        row = {"slice_auc_pooled": auc, "slice_auc_pooled_low": auc - 0.03, "slice_auc_pooled_high": auc + 0.03}
        return {
            "families": [
                {"source": "clinic", "family": "splice", **row},
                {"source": "clinic", "family": "mirror", **dict.fromkeys(row, None)},
            ],
            "false_alarms": [
                {
                    "source": "clinic",
                    "slices_flagged": 1,
                    "slices": 40,
                    "slices_upper": 0.12,
                    "people_flagged": 1,
                    "people": 2,
                }
            ],
        }


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = open_store(tmp_path / "state", "", FakeClock(NOW))
    yield opened
    opened.close()


def _always(split: Split, _key: str) -> Split:
    return split


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    root = tmp_path / "archive"
    clock = FakeClock(NOW)
    splits: tuple[Split, ...] = ("train", "validation", "test", "test")
    for seed, split in enumerate(splits, start=1):
        new = new_case(tmp_path / "in", seed, patient=f"p{seed}")
        case = adding.add(root, new, curator="ada", clock=clock, disk=FakeDisk(), split_of=partial(_always, split))
        review.review(root, case.case_id, by="grace", accepted=True, clock=clock, disk=FakeDisk())
    incumbent = weights_file(tmp_path / "incumbent.safetensors", "dg-0")
    return Settings(archive=root, minutes=1, nice=0, small=True, device="", weights=incumbent)


def asked(store: Store, period: str = "w48", by: str = "mary") -> str:
    with store.begin() as tx:
        return runs.ask(tx, period, by=by, now=NOW).key


def run(work: RetrainWork, key: str) -> list[str]:
    """All steps, each twice: the second time after a stop between effect and record."""
    outcomes = []
    for name in ("freeze", "train", "evaluate", "decide"):
        for _ in range(2):
            answer = guarded(name, partial(getattr(work, name), key), key)
            outcomes.append(answer["outcome"])
            if answer["outcome"] != "done":
                work.fail(key, answer["reason"])
                return outcomes
    return outcomes


def row(store: Store, key: str) -> runs.RunRow:
    with store.read() as tx:
        found = runs.row(tx, key)
    assert found is not None
    return found


def judging(store: Store) -> str | None:
    with store.read() as tx:
        current = models.current(tx)
    return current.id if current else None


def test_a_better_candidate_waits_for_a_second_person(store: Store, settings: Settings) -> None:
    trainer = Trainer({"dg-0": 0.80, "dg-w48": 0.84})
    work = RetrainWork(store=store, clock=FakeClock(NOW), settings=settings, wall=trainer)
    key = asked(store)
    assert run(work, key) == ["done"] * 8
    ended = row(store, key)
    assert (ended.state, dict(ended.progress)["step"]) == ("waiting", 2)
    assert judging(store) is None
    # The child keeps its own result, so training is asked twice; lists and figures were there already.
    assert trainer.asked == ["freeze", "train", "train", "evaluate dg-0", "evaluate dg-w48"]
    report = json.loads((store.root / ended.report_path).read_bytes())
    assert report["decision"] == "promote" and report["frozen"]["curators"] == ["ada"]
    page = (store.root / ended.report_path).with_suffix(".html").read_text()
    assert "proposed for approval" in page and "0.840 (0.810 to 0.870)" in page and "<polyline" in page
    for by in ("mary", "ada"):
        with pytest.raises(Refused, match="cannot approve"):
            approval.approve(store, "dg-w48", by=by, two_people=True, now=NOW)
    approval.approve(store, "dg-w48", by="grace", two_people=True, now=NOW)
    assert judging(store) == "dg-w48" and row(store, key).state == "approved"
    approval.rollback(store, by="mary", now=NOW)
    assert judging(store) is None and row(store, key).state == "rolled_back"


def test_the_next_run_trains_from_what_was_approved(store: Store, settings: Settings) -> None:
    trainer = Trainer({"dg-0": 0.80, "dg-w48": 0.84, "dg-w49": 0.85})
    without_override = replace(settings, weights=None)
    first = RetrainWork(store=store, clock=FakeClock(NOW), settings=settings, wall=trainer)
    run(first, asked(store))
    approval.approve(store, "dg-w48", by="grace", two_people=True, now=NOW)
    second = RetrainWork(store=store, clock=FakeClock(NOW), settings=without_override, wall=trainer)
    key = asked(store, "w49")
    assert run(second, key)[-1] == "done"
    # What was measured as a candidate needs not be measured again as the incumbent.
    assert trainer.asked[-1] == "evaluate dg-w49" and trainer.asked.count("evaluate dg-w48") == 1


def test_a_worse_candidate_is_refused_with_its_reason(store: Store, settings: Settings) -> None:
    work = RetrainWork(
        store=store, clock=FakeClock(NOW), settings=settings, wall=Trainer({"dg-0": 0.80, "dg-w48": 0.60})
    )
    key = asked(store, by=retraining.SCHEDULE)
    assert run(work, key)[-1] == "done"
    ended = row(store, key)
    assert ended.state == "refused"
    assert "splice in clinic, has slice AUC 0.600; the incumbent's worst, splice in clinic, has 0.800" in ended.message
    with pytest.raises(Refused, match='is "rejected"'):
        approval.approve(store, "dg-w48", by="grace", two_people=True, now=NOW)
    assert judging(store) is None


def test_a_run_without_an_archive_fails_with_what_to_do(store: Store, settings: Settings) -> None:
    bare = replace(settings, archive=None)
    work = RetrainWork(store=store, clock=FakeClock(NOW), settings=bare, wall=Trainer({}))
    key = asked(store)
    assert run(work, key) == ["refused"]
    assert row(store, key).state == "failed" and "Set archive in [retrain]" in row(store, key).message


def test_an_incumbent_that_changes_under_the_run_stops_it(store: Store, settings: Settings) -> None:
    work = RetrainWork(store=store, clock=FakeClock(NOW), settings=settings, wall=Trainer({}))
    key = asked(store)
    work.freeze(key)
    assert settings.weights is not None
    weights_file(settings.weights, "dg-other")
    assert guarded("train", lambda: work.train(key), key)["outcome"] == "broken"


def test_of_two_candidates_of_one_incumbent_one_is_approved(store: Store, settings: Settings) -> None:
    """1. Both runs measure against dg-0. 2. The second candidate is approved. 3. The first has to be made again."""
    trainer = Trainer({"dg-0": 0.80, "dg-w48": 0.82, "dg-w49": 0.90})
    work = RetrainWork(store=store, clock=FakeClock(NOW), settings=settings, wall=trainer)
    for period in ("w48", "w49"):
        assert run(work, asked(store, period))[-1] == "done"
    approval.approve(store, "dg-w49", by="grace", two_people=True, now=NOW)
    with pytest.raises(Refused, match="and dg-w49 judges now"):
        approval.approve(store, "dg-w48", by="grace", two_people=True, now=NOW)
    assert judging(store) == "dg-w49"


def test_a_curator_who_added_all_cases_must_not_approve_and_one_of_two_may(store: Store) -> None:
    listed = frozen.Frozen(head="", train=(), golden=(), curators=("ada",), licences=())
    scheduled = row(store, asked(store, "a", retraining.SCHEDULE))
    by_hand = row(store, asked(store, "b", "mary"))
    assert retraining.people(scheduled, listed, counts_as=str) == ("ada",)
    assert retraining.people(by_hand, listed, counts_as=str) == ("mary", "ada")
    two = replace(listed, curators=("ada", "bob"))
    assert retraining.people(by_hand, two, counts_as=str) == ("mary",)
    # A second account of the same person, for one case, makes no second curator.
    assert retraining.people(by_hand, two, counts_as=lambda _name: "ada") == ("mary", "ada", "bob")


def test_the_schedule_asks_once_a_period_and_owes_nothing_for_the_time_before(store: Store, tmp_path: Path) -> None:
    clock = FakeClock(NOW)
    text = f'[retrain]\narchive = "{tmp_path}"\ncron = "0 2 * * 6"\n'
    settings = config.parse(text, base=tmp_path, path=None)
    for days in (0, 1, 7, 8):
        clock.advance(NOW + timedelta(days=days) - clock.now() + timedelta(hours=1))
        with retraining.schedule(store, settings, clock), store.read() as tx:
            periods = [run.period for run in runs.listing(tx)]
        assert periods == ([] if days < 7 else ["retrain-2026-W49"])


def test_the_seed_is_of_the_run() -> None:
    assert retraining.seed_of("a") == retraining.seed_of("a") != retraining.seed_of("b")
    assert 0 <= retraining.seed_of(hashlib.sha256().hexdigest()) < 2**31
