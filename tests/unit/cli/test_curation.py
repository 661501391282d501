"""`archive`, `models`, `retrain` and `tamper` as a person types them."""

import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pydicom
import pytest
from typer.testing import CliRunner, Result

from dicomguard.cli import app
from dicomguard.clock import FakeClock
from dicomguard.errors import Refused
from dicomguard.retrain import dataset
from dicomguard.retrain.tamper.study import Acquisition, write_planes
from dicomguard.store import models, runs
from dicomguard.store.db import open_store
from tests.conftest import ROOT

PLANES = ROOT / "tests" / "data" / "planes"
NOW = datetime(2026, 11, 28, tzinfo=UTC)


def typed(*words: str | Path) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def add(archive: Path, *more: str) -> Result:
    return typed("archive", "add", PLANES, "--by", "ada", "--licence", "CC BY 3.0", "--archive", archive, *more)


def test_an_archive_from_the_first_case_to_verify(tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    added = add(archive)
    assert added.exit_code == 0 and "5 cases added, 0 refused" in added.stdout
    again = add(archive)
    assert again.exit_code == 2 and "0 cases added, 5 refused" in again.stdout
    assert "already in the archive" in again.stderr
    own = typed("archive", "review", "--by", "ada", "--all-of", "btp", "--archive", archive)
    assert isinstance(own.exception, Refused)
    first = json.loads(typed("archive", "list", "--json", "--archive", archive).stdout.splitlines()[0])["case"][
        "case_id"
    ]
    declined = typed("archive", "review", first[:6], "--by", "grace", "--decline", "--archive", archive)
    assert declined.exit_code == 0 and "declined" in declined.stdout
    accepted = typed("archive", "review", "--by", "grace", "--all-of", "btp", "--archive", archive)
    assert accepted.stdout.count("accepted") == 4
    shown = typed("archive", "list", "--archive", archive).stdout
    assert "4 accepted, 1 declined" in shown and "ada, grace" in shown
    assert typed("archive", "verify", "--archive", archive).exit_code == 0
    next((archive / "cases" / first / "planes").iterdir()).write_bytes(b"x")
    wrong = typed("archive", "verify", "--json", "--archive", archive)
    assert wrong.exit_code == 70 and "was changed" in json.loads(wrong.stdout)["faults"][0]["sentence"]


def test_what_labels_rest_on_is_shown_before_and_at_the_review(tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    # Brackets are no markup.
    said = "outlined by [one] reader [/and] checked"
    assert "5 cases added" in add(archive, "--label-provenance", said).stdout
    shown = typed("archive", "list", "--archive", archive).stdout
    assert shown.count("tumor (1)") == 5 and f"(1) label provenance: {said}\n" in shown
    lines = typed("archive", "list", "--json", "--archive", archive).stdout.splitlines()
    assert {json.loads(line)["case"]["label_provenance"] for line in lines} == {said}
    reviewed = typed("archive", "review", "--by", "grace", "--all-of", "btp", "--archive", archive).stdout
    assert reviewed.count(f"tumor, label provenance: {said}") == 5
    refused = add(tmp_path / "other", "--label-provenance", "x" * 401)
    assert refused.exit_code == 2 and "label provenance has 401 letters" in refused.stderr


def test_without_an_archive_the_remedy_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DICOMGUARD_CONFIG", raising=False)
    for words in (("archive", "list"), ("retrain", "--by", "ada")):
        result = typed(*words)
        assert isinstance(result.exception, Refused) and "archive in [retrain]" in str(result.exception)


@pytest.fixture
def node(tmp_path: Path) -> Path:
    file = tmp_path / "node.toml"
    file.write_text(f'[node]\nstate = "{tmp_path / "state"}"\n[retrain]\narchive = "{tmp_path / "archive"}"\n')
    store = open_store(tmp_path / "state", "", FakeClock(NOW))
    source = tmp_path / "w"
    source.write_bytes(b"weights")
    sha256 = hashlib.sha256(b"weights").hexdigest()
    decision = {"reasons": ["It is better."], "people": ["ada"]}
    path = models.keep_weights(store, source, sha256)
    with store.begin() as tx:
        models.propose(tx, id="m1", sha256=sha256, path=path, decision=decision, rejected=False, by="ada", now=NOW)
        run = runs.ask(tx, "retrain-2026-W48", by="ada", now=NOW)
        runs.advance(tx, run.key, "waiting", now=NOW, candidate_sha256=sha256, message="It is better.")
    store.close()
    return file


def test_a_candidate_is_listed_approved_and_rolled_back(node: Path) -> None:
    def states() -> list[str]:
        lines = typed("models", "list", "--json", "--config", node).stdout.splitlines()
        return [json.loads(line)["state"] for line in lines]

    assert states() == ["candidate"]
    assert "It is better." in " ".join(typed("models", "list", "--config", node).stdout.split())
    assert isinstance(typed("models", "approve", "m1", "--by", "ada", "--config", node).exception, Refused)
    approved = typed("models", "approve", "m1", "--by", "grace", "--config", node)
    assert approved.exit_code == 0 and "judges from the next study on" in approved.stdout
    assert states() == ["current"]
    back = typed("models", "rollback", "--by", "grace", "--config", node)
    assert "The shipped model judges" in back.stdout and states() == ["retired"]
    (row,) = [json.loads(line) for line in typed("retrain", "--list", "--json", "--config", node).stdout.splitlines()]
    assert (
        row["state"] == "rolled_back" and "Approved" not in row["message"] and "Rolled back by grace" in row["message"]
    )


def test_a_candidate_is_declined_with_a_reason(node: Path) -> None:
    said = typed("models", "decline", "m1", "--by", "grace", "--reason", "curves look odd", "--config", node)
    assert said.exit_code == 0 and "will not judge" in said.stdout
    assert "rejected" in typed("models", "list", "--config", node).stdout


def test_retrain_asks_the_worker_for_a_run(node: Path) -> None:
    asked = typed("retrain", "--by", "ada", "--json", "--config", node)
    assert asked.exit_code == 0 and json.loads(asked.stdout)["state"] == "asked"
    assert isinstance(typed("retrain", "--config", node).exception, Refused)
    assert "by-hand-" in typed("retrain", "--list", "--config", node).stdout


def test_tamper_marks_what_it_forged(tmp_path: Path) -> None:
    study = tmp_path / "study"
    series = next(one for one in dataset.read_index(PLANES) if one.patient == "btp-05")
    pixels = dataset.read_pixels(PLANES, series).stored.astype(np.float32)
    positions = tuple(6.5 * z for z in range(len(pixels)))
    write_planes(
        pixels, Acquisition(key="a", sequence="t1c", bits=16, spacing_mm=(0.86, 0.86), positions_mm=positions), study
    )
    made = typed("tamper", study, "--output", tmp_path / "forged", "--kind", "added", "--seed", "3", "--json")
    assert made.exit_code == 0, made.output
    record = json.loads(made.stdout)
    files = [pydicom.dcmread(path) for path in sorted((tmp_path / "forged").glob("*.dcm"))]
    assert record["kind"] == "added" and any(ds.get("SyntheticData") == "YES" for ds in files)
    authentic = {pydicom.dcmread(path).SOPInstanceUID for path in study.glob("*.dcm")}
    assert not authentic & {ds.SOPInstanceUID for ds in files}
    onto = typed("tamper", study, "--output", tmp_path / "forged", "--kind", "added")
    assert isinstance(onto.exception, Refused) and "is not empty" in str(onto.exception)
    nothing = typed("tamper", tmp_path / "node.toml", "--output", tmp_path / "f2")
    assert nothing.exit_code != 0
