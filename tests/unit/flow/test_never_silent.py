"""A study that cannot be judged is told to its sender: it ends with a report that says "not analysable", and why."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any, cast

import pydicom
import pytest
from pydicom.dataset import FileDataset

from dicomguard.analyze import masks, weights
from dicomguard.clock import SystemClock
from dicomguard.core.job import AnalysisJob, AnalysisReport
from dicomguard.core.peer import Destination
from dicomguard.core.routing import Route
from dicomguard.core.verdict import Masks, Verdict
from dicomguard.errors import Broken, Refused, Unavailable
from dicomguard.flow import reports
from dicomguard.flow.engine import Engine
from dicomguard.flow.study import ATTEMPTS, Settings, StudyWork
from dicomguard.sr import provenance
from dicomguard.store import deliveries, intake, results, studies
from dicomguard.store.db import Limits, Store, open_store
from dicomguard.store.verify.inspection import Inspector
from tests import sr_cases
from tests import studies as drawn
from tests.sr_cases import NODE


class Straight:
    """Runs steps where they stand and forgets what is enqueued."""

    def step(self, name: str, function: Callable[..., Any], *arguments: Any) -> Any:
        return function(*arguments)

    def enqueue(self, *arguments: Any, **options: Any) -> None:
        """Nobody works in this test."""


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = open_store(tmp_path / "state", "", SystemClock(), limits=Limits(low_bytes=1, stop_bytes=1))
    yield opened
    opened.close()


def received(store: Store, folder: Path, made: list[FileDataset]) -> str:
    """Key of a study with a first revision."""
    sender = intake.Sender(peer="mr", calling_ae="MR01", called_ae="DICOMGUARD", address="192.0.2.7")
    (key,) = {intake.receive_file(store, sender, path, channel="dimse").study_key for path in drawn.save(folder, made)}
    assert key is not None
    with store.begin() as tx:
        studies.open_revision(tx, key, closed_because="test", now=store.clock.now())
    return key


def failing(error: Exception) -> Callable[..., AnalysisReport]:
    def analyse(job: AnalysisJob, **_: Any) -> AnalysisReport:
        raise error

    return analyse


def worked(store: Store, key: str, *, analyse: Callable[..., AnalysisReport], model: Path | None = None) -> None:
    """The whole workflow of revision 1."""
    work_on(store, analyse=analyse, model=model).run(cast(Engine, Straight()), key, 1, 0, False)


def work_on(
    store: Store,
    *,
    analyse: Callable[..., AnalysisReport],
    model: Path | None = None,
    stopping: Callable[[], bool] = lambda: False,
) -> StudyWork:
    return StudyWork(
        store=store,
        clock=SystemClock(),
        settings=Settings(
            node=NODE,
            rules=(),
            routes=(Route(name="all", to=("archive",)),),
            destinations=(Destination(name="archive", ae_title="ARCHIVE", host="127.0.0.1", port=104),),
            weights=model or weights.shipped(),
            device="",
            threads=1,
            deadline_s=1,
        ),
        analyse=analyse,
        stopping=stopping,
    )


def report(store: Store, key: str) -> pydicom.Dataset:
    """The kept report, which one delivery waits to send."""
    with store.read() as tx:
        assert studies.state(tx, key, 1) == "delivering"
        assert [item.destination for item in deliveries.of_study(tx, key)] == ["archive"]
        kept = {item.kind: item for item in results.of_revision(tx, key, 1)}
    assert sorted(kept) == ["SR", "SR-2D"]
    return pydicom.dcmread(BytesIO(results.bytes_path(store, kept["SR"]).read_bytes()))


def said(made: pydicom.Dataset) -> str:
    assert made.ConceptNameCodeSequence[0].CodeValue == "DG0005"
    (summary,) = [
        str(item.TextValue)
        for container in made.ContentSequence
        for item in container.get("ContentSequence", [])
        if item.ConceptNameCodeSequence[0].CodeValue == "DG1012"
    ]
    return summary


@pytest.mark.parametrize(
    "error", [Broken("A hash differs. Look."), Refused("The weights are no weights. Look."), ValueError("a fault")]
)
def test_a_fault_of_the_analysis(store: Store, tmp_path: Path, error: Exception) -> None:
    key = received(store, tmp_path / "in", drawn.series(3))
    worked(store, key, analyse=failing(error))
    made = report(store, key)
    assert "could not be analysed: the analysis failed, for a reason that the log of the node names." in said(made)
    # What the error itself says is for the log.
    assert str(error).split()[0] + " " + str(error).split()[1] not in said(made)
    assert made.PatientID == "FIXTURE-1"


def test_weights_that_are_not_there(store: Store, tmp_path: Path) -> None:
    key = received(store, tmp_path / "in", drawn.series(3))
    worked(store, key, analyse=failing(Refused("No weights. None.")), model=tmp_path / "gone.safetensors")
    made = report(store, key)
    assert "could not be analysed: the program cannot read the weights of its model." in said(made)
    assert made.SoftwareVersions[1] == "model none"


def test_a_study_without_images(store: Store, tmp_path: Path) -> None:
    document = drawn.series(1)[0]
    document.Modality = "SR"
    document.SOPClassUID = "1.2.840.10008.5.1.4.1.1.88.11"
    del document.PixelData

    def analyse(job: AnalysisJob, **_: Any) -> AnalysisReport:
        raise Broken("Nothing to do. Nothing.")

    key = received(store, tmp_path / "in", [document])
    worked(store, key, analyse=analyse)
    made = report(store, key)
    assert "could not be analysed: series 1 (it is a structured report, not an image)." in said(made)
    evidence = made.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence
    assert [item.ReferencedSOPInstanceUID for item in evidence] == [document.SOPInstanceUID]
    assert made.StudyInstanceUID == document.StudyInstanceUID


def test_one_unreadable_file_costs_its_own_slice(store: Store, tmp_path: Path) -> None:
    key = received(store, tmp_path / "in", drawn.series(3))
    with store.read() as tx:
        instances = studies.instances(tx, key, 1)
    (store.root / instances[1].path).write_bytes(b"no DICOM file any more")
    seen: list[AnalysisJob] = []

    def analyse(job: AnalysisJob, **_: Any) -> AnalysisReport:
        seen.append(job)
        raise Broken("A fault. Look.")

    worked(store, key, analyse=analyse)
    (job,) = seen
    skipped = {item.sop_instance_uid: item.skipped for plan in job.manifest.series for item in plan.slices}
    assert skipped == {one.sop_instance_uid: "undecodable" if one == instances[1] else "" for one in instances}
    assert "series 1 (could not be decoded)" in said(report(store, key))


def found(job: AnalysisJob, **_: Any) -> AnalysisReport:
    """A child that found a region, and drew it in the size of another image."""
    files = [Path(job.files_root) / item.path for item in job.manifest.series[0].slices]
    made = sr_cases.case(
        "added",
        [sr_cases.frames([pydicom.dcmread(path) for path in files])],
        [sr_cases.Spot(category="added", places=[0, 1])],
    )
    content = masks.pack(
        {masks.key(id, sop, frame): mask for id, drawn in made.masks.items() for sop, frame, mask in drawn}
    )
    study = replace(
        made.verdict.study,
        study_instance_uid=job.manifest.study_instance_uid,
        manifest_sha256=job.manifest.sha256,
    )
    sha256 = hashlib.sha256(content).hexdigest()
    verdict = replace(made.verdict, study=study, masks=Masks(file="masks.npz", sha256=sha256))
    output = Path(job.output)
    (output / "masks.npz").write_bytes(content)
    (output / "verdict.json").write_bytes(verdict.to_bytes())
    return AnalysisReport(
        verdict_path=str(output / "verdict.json"),
        verdict_sha256=verdict.sha256,
        masks_path=str(output / "masks.npz"),
        masks_sha256=sha256,
        seconds=1.0,
    )


UNREPORTED = "could not be analysed: the report on their analysis could not be made, for a reason that the log of the"


def test_results_that_cannot_be_made(store: Store, tmp_path: Path) -> None:
    key = received(store, tmp_path / "in", drawn.series(3))
    worked(store, key, analyse=found)
    made = report(store, key)
    assert UNREPORTED in said(made)
    assert made.PatientID == "FIXTURE-1"
    assert made.Manufacturer == "dicomguard"
    with store.read() as tx:
        told = studies.kept_verdict(tx, key, 1)
    assert told is not None
    assert told.category == "not_analysable"
    # Of the verdict that was replaced nothing is left to be taken for the one that was told.
    assert Inspector(store, full=True).inspect().findings == ()


@pytest.mark.parametrize(("stumbles_over", "patient"), [("Rows", "FIXTURE-1"), ("PatientName", "")])
def test_a_header_that_no_report_can_be_made_of(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stumbles_over: str, patient: str
) -> None:
    """Less of the header is used, until the fault has nothing to stumble over."""
    of = provenance.of

    def faulty(verdict: Verdict, header: pydicom.Dataset, *rest: Any) -> provenance.Provenance:
        if stumbles_over in header:
            raise ValueError("a fault of ours")
        return of(verdict, header, *rest)

    monkeypatch.setattr(provenance, "of", faulty)
    key = received(store, tmp_path / "in", drawn.series(3))
    worked(store, key, analyse=failing(Broken("A fault. Look.")))
    made = report(store, key)
    assert "could not be analysed: the analysis failed" in said(made)
    assert made.PatientID == patient


def test_a_process_that_ends_over_the_results(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Found poisoned at its second start, the study is told about without trying again what ended the process."""
    key = received(store, tmp_path / "in", drawn.series(3))
    work = work_on(store, analyse=found)
    work.freeze(key, 1)
    work.analyse(key, 1, poisoned=False)
    monkeypatch.setattr(reports, "full", lambda *_: pytest.fail("what ended the process was tried again"))
    work.run(cast(Engine, Straight()), key, 1, 1, True)
    assert UNREPORTED in said(report(store, key))


def test_a_disk_that_stays_away_is_told_when_it_is_back(store: Store, tmp_path: Path) -> None:
    """The last attempt does not end without a word."""
    key = received(store, tmp_path / "in", drawn.series(3))
    work = work_on(store, analyse=failing(Broken("unused")))
    freeze = work.freeze
    away = [Unavailable("The disk is away. Wait.")]

    def freezing(study_key: str, number: int) -> dict[str, Any]:
        if away:
            raise away.pop()
        return freeze(study_key, number)

    work.freeze = freezing  # type: ignore[method-assign]
    work.run(cast(Engine, Straight()), key, 1, ATTEMPTS - 1, False)
    assert "could not be analysed" in said(report(store, key))
