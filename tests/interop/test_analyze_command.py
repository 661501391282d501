"""The analyze and explain commands as a script uses them: real children, real files, an untrained network."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dicomguard import part10
from dicomguard.analyze import client, folder, masks
from dicomguard.core import canon
from dicomguard.core.job import AnalysisJob
from dicomguard.core.verdict import Verdict
from dicomguard.errors import Broken, Refused, Unavailable
from tests import studies

ROOT = Path(__file__).parents[2]


def made(tmp_path_factory: pytest.TempPathFactory, *options: str) -> Path:
    path = tmp_path_factory.mktemp("weights") / "untrained.safetensors"
    subprocess.run(
        [sys.executable, "-m", "tests.random_weights", str(path), *options], check=True, cwd=ROOT, timeout=120
    )
    return path


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Never raises an alarm and sees no tumor."""
    return made(tmp_path_factory)


@pytest.fixture(scope="module")
def alarming(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Calls whatever region it has forged."""
    return made(tmp_path_factory, "--forgery", "0.0001", "--tumor", "0.0001")


def run(*arguments: str | Path, status: int | None = 0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "dicomguard", *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, env=environment, cwd=ROOT)
    assert status is None or done.returncode == status, done.stderr[-2000:]
    return done


def lines(done: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_many_studies_one_line_each_and_nothing_else_on_standard_output(tmp_path: Path, weights: Path) -> None:
    studies.save(tmp_path / "in" / "a", studies.series(6, study="one"))
    studies.save(tmp_path / "in" / "b", studies.series(2, study="two", description="localizer"))
    loose = [studies.instance(studies.head(seed=i), study="three", index=i, modality="OT") for i in range(2)]
    studies.save(tmp_path / "in" / "c", loose)
    (tmp_path / "in" / "readme.txt").write_text("hello")
    (tmp_path / "in" / "d").mkdir()
    for index in range(2):
        grey = (studies.head(seed=index) // 5).clip(0, 255).astype(np.uint8)
        Image.fromarray(grey).save(tmp_path / "in" / "d" / f"{index}.png")
    # A dataset without preamble, as some archives hand it out.
    bare = studies.save(tmp_path / "e", studies.series(1, study="five", size=(256, 256)))[0]
    (tmp_path / "in" / "e.img").write_bytes(bare.read_bytes()[part10.dataset_offset(bare) :])
    done = run("analyze", tmp_path / "in", "--json", "--weights", weights, "--device", "cpu")
    one, two, three, five, four = lines(done)
    assert "readme.txt" in done.stderr
    for line in done.stdout.splitlines():
        document = json.loads(line)
        assert Verdict.from_json(document).to_bytes() == canon.encode(document) == line.encode()
    assert one["category"] == "absent"
    assert (one["coverage"]["slices_analysed"], one["coverage"]["complete"]) == (6, True)
    assert (two["category"], {item["reason"] for item in two["slices"]}) == ("not_analysable", {"localiser"})
    assert (five["coverage"]["slices_analysed"], five["coverage"]["outside_scope"]) == (1, False)
    for loose_slices in (three, four):
        assert loose_slices["coverage"]["slices_analysed"] == 2
        assert loose_slices["coverage"]["outside_scope"] is True


def test_table_for_people(tmp_path: Path, weights: Path) -> None:
    studies.save(tmp_path, studies.series(5))
    done = run("analyze", tmp_path, "--weights", weights, "--device", "cpu")
    assert "No Tumor Detected" in done.stdout
    assert "5 of 5" in done.stdout
    assert "does not exclude a tumor" in " ".join(done.stdout.split())


def test_output_holds_verdict_masks_and_pictures(tmp_path: Path, alarming: Path) -> None:
    datasets = studies.series(6, tumor=(60, 60, 10), tumor_on=(2, 3))
    studies.save(tmp_path / "in", datasets)
    done = run(
        "analyze", tmp_path / "in", "--json", "--weights", alarming, "--output", tmp_path / "out", "--device", "cpu"
    )
    (document,) = lines(done)
    into = tmp_path / "out" / datasets[0].StudyInstanceUID
    assert (into / "verdict.json").read_bytes() == canon.encode(document)
    verdict = Verdict.from_json(document)
    assert verdict.category in ("added", "removed")
    assert verdict.masks is not None
    data = (into / verdict.masks.file).read_bytes()
    assert hashlib.sha256(data).hexdigest() == verdict.masks.sha256
    kept = masks.unpack(data, verdict.findings, lambda sop: (128, 128))
    for finding in verdict.findings:
        for item, (_, _, mask) in zip(finding.slices, kept[finding.id], strict=True):
            assert item.area_mm2 == np.count_nonzero(mask)
            rows, columns = np.nonzero(mask)
            assert item.box_px == (rows.min(), columns.min(), rows.max() + 1, columns.max() + 1)
    pictures = sorted(into.glob("F*.png"))
    assert len(pictures) == sum(len(finding.slices) for finding in verdict.findings)
    with Image.open(pictures[0]) as picture:
        assert picture.mode == "RGB"
        assert len(np.unique(np.asarray(picture).reshape(-1, 3), axis=0)) > 10


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["analyze", "/nowhere-at-all"], "does not exist"),
        (["analyze", __file__], "no DICOM instance"),
        (["analyze", __file__, "--weights", __file__], "safetensors"),
    ],
)
def test_refusals_are_sentences_with_status_two(arguments: list[str], says: str, weights: Path) -> None:
    given = arguments if "--weights" in arguments else [*arguments, "--weights", str(weights)]
    done = run(*given, status=2)
    assert done.stdout == ""
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def job_of(paths: list[Path], output: Path, weights: Path) -> AnalysisJob:
    found = folder.gather(paths)
    ((uid, copies),) = found.studies.items()
    manifest = folder.manifest_of(uid, copies, rules=(), scope=client.model_of(weights).scope)
    return AnalysisJob(
        manifest=manifest, files_root="/", output=str(output), weights=str(weights), device="cpu", threads=1
    )


def test_one_warm_child_for_many_jobs_survives_bad_ones(tmp_path: Path, alarming: Path) -> None:
    """Also: the same files give the same bytes, and a report whose files were changed is not believed."""
    paths = studies.save(tmp_path / "in", [studies.compressed(ds, "1.2.840.10008.1.2.5") for ds in studies.series(5)])
    with client.Analyst() as analyst:
        first = analyst.run(job_of(paths, tmp_path / "1", alarming))
        child = analyst._child
        again = analyst.run(job_of(paths, tmp_path / "2", alarming))
        assert again.masks_sha256 == first.masks_sha256 is not None
        broken = job_of(paths, tmp_path / "3", alarming)
        with pytest.raises(Refused):
            analyst.run(replace(broken, weights="/nowhere.safetensors"))
        paths[2].write_bytes(paths[2].read_bytes()[:-3000])
        with pytest.raises(Broken, match="not the one that was received"):
            analyst.run(broken)
        torn = client.read_verdict(analyst.run(job_of(paths, tmp_path / "4", alarming)))
        assert analyst._child is child
    whole, same = client.read_verdict(first), client.read_verdict(again)
    assert replace(same, created=whole.created) == whole
    assert [item.reason for item in torn.slices] == ["", "", "undecodable", "", ""]
    assert (whole.coverage.complete, torn.coverage.complete) == (True, False)
    Path(first.verdict_path).write_bytes(b"{}")
    with pytest.raises(Broken, match=r"verdict\.json"):
        client.read_verdict(first)


def test_killed_child_is_unavailable_and_the_next_job_gets_another(tmp_path: Path, weights: Path) -> None:
    """1. The child is warm. 2. It is killed while a job is on the way. 3. That job fails. 4. The next one succeeds."""
    paths = studies.save(tmp_path / "in", studies.series(40))
    with client.Analyst() as analyst:
        small = studies.save(tmp_path / "small", studies.series(2))
        analyst.run(job_of(small, tmp_path / "0", weights))
        assert analyst._child is not None
        pid = analyst._child.pid
        killer = threading.Timer(0.3, os.kill, (pid, signal.SIGKILL))
        killer.start()
        with pytest.raises(Unavailable, match="SIGKILL"):
            analyst.run(job_of(paths, tmp_path / "1", weights))
        killer.join()
        assert analyst.run(job_of(small, tmp_path / "2", weights)).verdict_sha256


def test_the_time_for_decoding_is_that_of_the_job(tmp_path: Path, weights: Path) -> None:
    paths = studies.save(tmp_path / "in", [studies.compressed(ds, "1.2.840.10008.1.2.5") for ds in studies.series(2)])
    job = job_of(paths, tmp_path / "1", weights)
    with client.Analyst() as analyst:
        verdict = client.read_verdict(analyst.run(replace(job, decode_s=1e-6)))
    assert [item.reason for item in verdict.slices] == ["time limit", "time limit"]


def test_stop_and_deadline_end_the_child(tmp_path: Path, weights: Path) -> None:
    job = job_of(studies.save(tmp_path / "in", studies.series(3)), tmp_path / "1", weights)
    started = time.monotonic()
    with client.Analyst() as analyst:
        with pytest.raises(Unavailable, match="was stopped"):
            analyst.run(job, stop=lambda: True)
        assert analyst._child is None
        with pytest.raises(Unavailable, match="longer than 0 s"):
            analyst.run(replace(job, deadline_s=0.01))
    assert time.monotonic() - started < 20


def test_explain_says_why(tmp_path: Path, weights: Path) -> None:
    studies.save(tmp_path / "a", studies.series(2))
    studies.save(tmp_path / "b", studies.series(2, name="ct", number=2, modality="CT", description="HEAD"))
    (tmp_path / "c.txt").write_text("x")
    settings = tmp_path / "dicomguard.toml"
    settings.write_text(f'[analysis]\nweights = "{weights}"\n')
    found = lines(run("explain", tmp_path, "--json", "--config", settings))
    by_name = {Path(item["file"]).parent.name + "/" + Path(item["file"]).name: item for item in found}
    assert by_name["a/0001.dcm"]["analysed"] is True
    assert by_name["b/0001.dcm"]["analysed"] is False
    assert "CT" in by_name["b/0001.dcm"]["reason"]
    settings.write_text(settings.read_text() + '[[rules]]\nname = "ct head"\naction = "analyse"\nmodality = ["CT"]\n')
    text = run("explain", tmp_path / "b", "--config", settings).stdout
    assert 'Rule "ct head" includes it. Outside the validated scope: modality CT.' in text
