"""A machine that is short of something for a while, and a worker that is stopped: neither is the study's fault.

Nothing is reported of it; the study is judged when the trouble is over.
"""

import errno
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest

from dicomguard.analyze.client import Analyst
from dicomguard.child import ChildEnded
from dicomguard.clock import SystemClock
from dicomguard.core.job import AnalysisJob, AnalysisReport
from dicomguard.errors import Broken, Refused, Shortage, Unavailable, shortage
from dicomguard.flow import study
from dicomguard.flow.engine import Engine
from dicomguard.flow.study import ATTEMPTS
from dicomguard.store import deliveries, studies
from dicomguard.store.db import Limits, Store, open_store
from tests import studies as drawn
from tests.unit.flow.test_never_silent import received, work_on

PASSING = [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE, errno.EMFILE, errno.ENFILE, errno.ENOMEM]


@dataclass
class Recording:
    """Runs steps where they stand and notes what is enqueued."""

    enqueued: list[str] = field(default_factory=list)

    def step(self, name: str, function: Callable[..., Any], *arguments: Any) -> Any:
        return function(*arguments)

    def enqueue(self, *arguments: Any, workflow_id: str, **options: Any) -> None:
        self.enqueued.append(workflow_id)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """An empty store."""
    opened = open_store(tmp_path / "state", "", SystemClock(), limits=Limits(low_bytes=1, stop_bytes=1))
    yield opened
    opened.close()


@pytest.fixture
def key(store: Store, tmp_path: Path) -> str:
    """A study with a first revision."""
    return received(store, tmp_path / "in", drawn.series(2))


def raised(number: int) -> OSError:
    return OSError(number, os.strerror(number), "/state/jobs/k/r1/0/job.json")


def untold(store: Store, key: str) -> bool:
    """Whether nothing was decided on the study."""
    with store.read() as tx:
        judged, planned = studies.kept_verdict(tx, key, 1), deliveries.of_study(tx, key)
        return studies.state(tx, key, 1) == "analysing" and judged is None and planned == []


def run(work: study.StudyWork, key: str, attempt: int = 0) -> list[str]:
    """The workflow of one attempt; ids of what it enqueued."""
    engine = Recording()
    work.run(cast(Engine, engine), key, 1, attempt, False)
    return engine.enqueued


@pytest.mark.parametrize("number", PASSING)
def test_an_error_of_the_machine_that_passes_is_waited_for(number: int) -> None:
    def step() -> dict[str, Any]:
        raise raised(number)

    answer = study.guarded("analyse", step, "k", 1)
    assert answer["outcome"] == "unavailable"
    assert os.strerror(number) in answer["reason"] and "job.json" not in answer["reason"]


@pytest.mark.parametrize("family", [Broken, Refused, Unavailable])
def test_so_is_a_sentence_that_such_an_error_led_to(family: type[Exception]) -> None:
    def step() -> dict[str, Any]:
        try:
            raise raised(errno.EMFILE)
        except OSError as error:
            raise family("A file cannot be read. Look.") from error

    assert study.guarded("analyse", step, "k", 1)["outcome"] == "unavailable"


@pytest.mark.parametrize("error", [PermissionError(errno.EACCES, "Permission denied"), FileNotFoundError(2, "gone")])
def test_other_errors_stay_faults(error: OSError) -> None:
    def step() -> dict[str, Any]:
        raise error

    assert study.guarded("analyse", step, "k", 1)["outcome"] == "broken"
    assert shortage(error) is None


def test_a_shortage_is_known_as_itself() -> None:
    error = Shortage("No room. Wait.")
    assert shortage(error) is error


def test_a_disk_without_room_for_the_job_costs_an_attempt_and_no_verdict(
    store: Store, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = Path.write_bytes

    def full(self: Path, data: bytes) -> int:
        if self.name == "job.json":
            raise raised(errno.ENOSPC)
        return write(self, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    with Analyst() as analyst:
        assert run(work_on(store, analyse=analyst.run), key) == [f"study/{key}/r1/a1"]
    assert untold(store, key)


def test_a_child_that_says_that_the_machine_is_short_has_not_died(store: Store, key: str) -> None:
    asked: list[AnalysisJob] = []

    def analyse(job: AnalysisJob, **_: Any) -> AnalysisReport:
        asked.append(job)
        raise Shortage("No room. Wait.")

    assert run(work_on(store, analyse=analyse), key) == [f"study/{key}/r1/a1"]
    assert (len(asked), untold(store, key)) == (1, True)


def test_a_child_that_cannot_be_started_for_want_of_descriptors_has_not_died(store: Store, key: str) -> None:
    def analyse(job: AnalysisJob, **_: Any) -> AnalysisReport:
        raise Unavailable("It could not be started. Wait.") from raised(errno.EMFILE)

    run(work_on(store, analyse=analyse), key)
    assert untold(store, key)


def test_weights_that_cannot_be_opened_now_are_not_unreadable(
    store: Store, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the study would be frozen without a model, and reported so."""

    def model_of(path: Path) -> None:
        raise Refused("The weights cannot be read. Give others.") from raised(errno.EMFILE)

    monkeypatch.setattr(study.analyze_client, "model_of", model_of)
    assert run(work_on(store, analyse=lambda *_, **__: pytest.fail("no model")), key) == [f"study/{key}/r1/a1"]
    with store.read() as tx:
        assert studies.manifest(tx, key, 1) is None


def test_a_database_that_does_not_answer_for_a_moment_ends_no_analysis(
    store: Store, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the line of progress nor the question whether it is still wanted is worth the work of the child."""

    def away(*_: object) -> None:
        raise Unavailable("The database does not answer. Wait.")

    asked: list[bool] = []

    def analyse(job: AnalysisJob, *, on_progress: Callable[[int, int], None], stop: Callable[[], bool]) -> Any:
        with monkeypatch.context() as patched:
            patched.setattr(studies, "set_progress", away)
            patched.setattr(studies, "state", away)
            on_progress(1, 2)
            asked.append(stop())
        raise Broken("A fault. Look.")

    run(work_on(store, analyse=analyse), key)
    assert asked == [False]


@pytest.mark.parametrize("attempt", [0, ATTEMPTS - 1])
def test_a_worker_that_is_stopped_leaves_the_study_to_the_next(store: Store, key: str, attempt: int) -> None:
    """The child ends with it, whoever ends it; this is no death, not even at the last attempt."""
    stopping: list[bool] = []

    def analyse(job: AnalysisJob, **_: Any) -> AnalysisReport:
        assert not stopping, "another child was started"
        stopping.append(True)
        raise ChildEnded("The child was stopped. Look.")

    work = work_on(store, analyse=analyse, stopping=lambda: bool(stopping))
    assert run(work, key, attempt) == [f"study/{key}/r1/a{attempt + 1}"]
    assert untold(store, key)


def test_a_stop_ends_the_child_at_once(store: Store, key: str) -> None:
    """So that what it leads to is written down while the worker still may."""
    asked: list[bool] = []
    stopping: list[bool] = []

    def analyse(job: AnalysisJob, *, stop: Callable[[], bool], **_: Any) -> AnalysisReport:
        asked.append(stop())
        stopping.append(True)
        asked.append(stop())
        raise Unavailable("The analysis was stopped. Wait.")

    run(work_on(store, analyse=analyse, stopping=lambda: bool(stopping)), key)
    assert asked == [False, True]
    assert untold(store, key)


def test_a_study_that_ends_its_child_twice_is_still_told_about(store: Store, key: str) -> None:
    def analyse(job: AnalysisJob, **_: Any) -> AnalysisReport:
        raise ChildEnded("The child was killed. Look.")

    run(work_on(store, analyse=analyse), key)
    with store.read() as tx:
        kept = studies.kept_verdict(tx, key, 1)
    assert kept is not None
    assert kept.category == "not_analysable"
