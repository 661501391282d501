"""The protocol with scores whose right figures are known beforehand: an oracle, and a constant."""

import json
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest

from dicomguard.errors import Refused
from dicomguard.retrain.evaluate import alarms, report, summary
from dicomguard.retrain.evaluate.bench import Bench
from dicomguard.retrain.evaluate.cases import Forgery, read
from dicomguard.retrain.evaluate.protocol import evaluate
from dicomguard.retrain.evaluate.records import UNTOUCHED
from dicomguard.retrain.evaluate.scoring import Scored
from dicomguard.retrain.tamper import postprocess
from dicomguard.retrain.tamper.families import FAMILIES
from dicomguard.retrain.tamper.forged import Forged
from dicomguard.retrain.tamper.second_hand import SECOND_HAND
from tests import studies
from tests.unit.retrain.evaluate.planes import KEYS, PEOPLE, SLICES, write_archive
from tests.unit.retrain.tamper.phantom import phantom


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return write_archive(tmp_path / "archive")


def judge(score_of: Callable[[np.ndarray[Any, Any]], float], seen: list[str]) -> Callable[[Sequence[Path]], Scored]:
    """A verdict whose slice scores are a function of the pixels, and whose study score is the largest."""

    def score(files: Sequence[Path]) -> Scored:
        slices, forged = [], {}
        for path in files:
            dataset = pydicom.dcmread(path)
            seen.append(str(dataset.SOPInstanceUID))
            value = score_of(dataset.pixel_array)
            slices.append({"sop_instance_uid": str(dataset.SOPInstanceUID), "forgery": value})
            if value > 0.5:
                forged[str(dataset.SOPInstanceUID)] = np.ones(dataset.pixel_array.shape, np.bool_)
        highest = max(float(str(one["forgery"])) for one in slices)
        document = {
            "model": {"operating_point": {"forgery": 0.5}},
            "slices": slices,
            "score": {"forgery": highest},
            "category": "added" if highest > 0.5 else "real",
        }
        return Scored(document=document, forged=forged)

    return score


def test_an_oracle_gets_full_marks(archive: Path, tmp_path: Path) -> None:
    authentic = {phantom(slices=SLICES, seed=p).pixels[z].tobytes() for p in range(PEOPLE) for z in range(SLICES)}
    seen: list[str] = []
    oracle = judge(lambda plane: 0.1 if plane.astype(np.float32).tobytes() in authentic else 0.9, seen)
    steps: list[tuple[int, int]] = []
    document = evaluate(
        archive,
        tmp_path / "none",
        out=tmp_path / "out",
        keys=KEYS,
        fast=True,
        at_once=3,
        progress=lambda done, total: steps.append((done, total)),
        score=oracle,
    )
    assert json.loads((tmp_path / "out" / "report.json").read_text()) == json.loads(json.dumps(document))
    rows = document["families"]
    assert len(rows) >= 6
    for row in rows:
        assert row["slice_auc_pooled"] == row["slice_auc_paired"] == row["study_auc"] == 1.0
        assert row["slice_sensitivity"] == row["study_sensitivity"] == 1.0
        # The oracle calls the whole plane forged: found, but badly delineated.
        assert 0 < row["pixel_f1"] < 0.6
    quiet = document["false_alarms"]
    assert [(row["source"], row["studies_flagged"], row["studies"]) for row in quiet] == [("own", 0, PEOPLE)]
    assert quiet[0]["slices"] == PEOPLE * SLICES
    assert (quiet[0]["people"], quiet[0]["people_flagged"]) == (PEOPLE, 0)
    assert 0.6 < quiet[0]["people_upper"] < 0.7
    assert steps[-1][0] == steps[-1][1]
    assert steps == sorted(steps)
    # No slice of one study is taken for a slice of another.
    assert len(set(seen)) == len(seen)


def test_a_constant_is_at_chance(archive: Path, tmp_path: Path) -> None:
    document = evaluate(
        archive, tmp_path / "none", out=tmp_path / "out", keys=KEYS, fast=True, score=judge(lambda plane: 0.3, [])
    )
    for row in document["families"]:
        assert row["slice_auc_pooled"] == row["study_auc"] == 0.5
        assert row["study_sensitivity"] == row["pixel_f1"] == 0
    counts = dict(zip(document["four_way"]["labels"], document["four_way"]["counts"], strict=True))
    assert counts["real"][0] == PEOPLE
    assert counts["added"][0] > 0
    assert counts["removed"][0] > 0


@pytest.mark.long
def test_the_same_seed_forges_the_same(archive: Path, tmp_path: Path) -> None:
    documents = [
        evaluate(
            archive,
            tmp_path / "none",
            out=tmp_path / str(run),
            keys=KEYS,
            fast=True,
            seed=seed,
            at_once=at_once,
            score=judge(lambda plane: float(plane.mean()) / 255, []),
        )
        for run, (seed, at_once) in enumerate(((5, 1), (5, 3), (6, 1)))
    ]
    assert documents[0] == documents[1]
    assert documents[0]["families"] != documents[2]["families"]


def test_reports_are_for_people(archive: Path, tmp_path: Path) -> None:
    document = evaluate(
        archive, tmp_path / "none", out=tmp_path / "out", keys=KEYS, fast=True, score=judge(lambda plane: 0.3, [])
    )
    page = (tmp_path / "out" / "report.html").read_text()
    lines = report.text(document)
    for row in document["families"]:
        assert row["family"] in page
        assert row["family"] in lines
    assert "http" not in page
    assert "0 of 3" in lines
    assert "seed 2026" in lines


def test_unknown_patients_are_refused(archive: Path, tmp_path: Path) -> None:
    with pytest.raises(Refused, match="None of the 1 patients"):
        evaluate(archive, tmp_path / "none", out=tmp_path / "out", keys=["own/nobody"], score=judge(lambda p: 0, []))


def test_processing_is_laid_on_both_twins(archive: Path) -> None:
    cases = read(archive, KEYS)
    bench = Bench(
        judge(lambda plane: float(plane.mean()) / 255, []),
        seed=1,
        progress=lambda done, total: None,
        families=tuple(SECOND_HAND.values()),
    )
    bench.judge_processed(cases, {"": 1})
    table = summary.processing(bench.processed, threshold=0.9)
    assert {row["operation"] for row in table} == {UNTOUCHED, *postprocess.OPERATIONS, *postprocess.HELD_BACK}
    assert {row["operation"] for row in table if row["held_back"]} == set(postprocess.HELD_BACK)
    for row in table:
        assert row["studies"] == row["forged"] == 1
        assert row["slices"] == SLICES
        assert row["studies_flagged"] == row["forged_flagged"] == 0
        assert row["slice_auc"] is not None


def test_what_an_operation_cuts_off_is_no_forged_slice(archive: Path) -> None:
    """A forgery in the outermost column: cropping takes it away, a quarter turn takes it elsewhere."""
    case = read(archive, KEYS)[0]
    mask = np.zeros((1, *case.pixels.shape[1:]), np.bool_)
    mask[:, :, 0] = True
    pixels = case.pixels[:1]
    forged = Forged(
        pixels=pixels,
        twin=pixels,
        mask=mask,
        alpha=mask.astype(np.float32),
        lesion=case.lesion[:1],
        kind="altered",
        family="splice",
        variant="",
        parameters={},
    )
    forgery = Forgery(case=case, family=FAMILIES["splice"], first=0, forged=forged)
    bench = Bench(judge(lambda plane: 0.3, []), seed=1, progress=lambda done, total: None, families=())
    left = {
        name: bench._processed(case, forgery, name)[1].scores
        for name in ("jpeg", "quarter turn and flip", "crop and pad")
    }
    assert [name for name, scores in left.items() if scores] == ["jpeg", "quarter turn and flip"]


def test_studies_of_one_patient_id_are_one_person(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "scans.tar.xz", "w:xz") as packed:
        for study in ("one", "two"):
            for path in studies.save(tmp_path / study, studies.series(2, study=study)):
                packed.add(path, f"{study}/{path.name}")
    bench = Bench(judge(lambda plane: 0.9, []), seed=1, progress=lambda done, total: None, families=())
    bench.judge_archives(tmp_path)
    row = alarms.by_source(bench.slices, bench.studies, threshold=0.5)[0]
    assert (row["studies_flagged"], row["studies"]) == (2, 2)
    assert (row["people_flagged"], row["people"], row["slice_people"]) == (1, 1, 1)
