"""The small decisions of the work: names of workflows, pauses, forms that are sent, what a failed step answers."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicomguard.core.completion import Patience
from dicomguard.core.result import ResultKind, ResultObject
from dicomguard.core.study import StudyRevision
from dicomguard.errors import Broken, Refused, Unavailable
from dicomguard.flow import completion, states, study, sweep

NOW = datetime(2026, 11, 24, 8, 0, tzinfo=UTC)


def result(kind: ResultKind, order: int) -> ResultObject:
    return ResultObject(
        kind=kind,
        sop_class_uid="1.2",
        sop_instance_uid=f"2.25.{order}",
        series_instance_uid="2.25.9",
        sha256="",
        order=order,
    )


def test_the_plain_report_stands_behind_the_other_not_beside_it() -> None:
    items = study.items_of([result("SR-2D", 3), result("SR", 2), result("SEG", 0), result("SEG", 1)])
    assert [(item.kind, item.forms) for item in items] == [
        ("SEG", ("2.25.0",)),
        ("SEG", ("2.25.1",)),
        ("SR", ("2.25.2", "2.25.3")),
    ]


def test_names_tell_study_revision_and_attempt() -> None:
    assert study.workflow_id("k", 1, 0) == "study/k/r1"
    assert study.workflow_id("k", 1, 2) == "study/k/r1/a2"
    assert study.delivery_id("k", 1, "pacs", 0) == "deliver/k/r1/pacs/0"


def test_revision_one_is_not_taken_for_revision_ten() -> None:
    assert sweep._without_attempt("study/k/r10/a1") == "study/k/r10"
    assert [sweep._attempt(id) for id in ("study/a1/r10", "study/a1/r10/a1", "study/a1/r10/a12")] == [0, 1, 12]
    assert sweep._is_attempt("deliver/k/r1/pacs/1/again2", "deliver/k/r1/pacs/1")
    assert not sweep._is_attempt("deliver/k/r1/pacs/10", "deliver/k/r1/pacs/1")


@given(attempt=st.integers(0, study.ATTEMPTS - 2))
def test_pauses_grow_up_to_a_quarter_of_an_hour(attempt: int) -> None:
    assert study.pause_s(attempt) <= study.pause_s(attempt + 1) <= 900
    # A person who retries has seen to what was away.
    assert study.pause_s(0) == study.pause_s(study.ATTEMPTS) == 5


@pytest.mark.parametrize(
    ("error", "outcome", "reason"),
    [
        (Refused("No. Change it."), "refused", "No. Change it."),
        (Unavailable("Not now. Wait."), "unavailable", "Not now. Wait."),
        (Broken("It differs. Look."), "broken", "It differs. Look."),
        (study.Withdrawn(), "withdrawn", None),
        (
            ValueError("Smith^John"),
            "broken",
            "A fault of ours in the step build (ValueError). Send the log to the makers.",
        ),
    ],
)
def test_what_goes_wrong_in_a_step_is_its_answer(error: Exception, outcome: str, reason: str | None) -> None:
    def step() -> dict[str, str]:
        raise error

    answer = study.guarded("build", step, "k", 1)
    assert (answer["outcome"], answer.get("reason")) == (outcome, reason)


def revisions(count: int, minutes_ago: float) -> list[StudyRevision]:
    return [
        StudyRevision(
            study_key="k",
            study_instance_uid="1.2",
            number=number,
            opened_because="late_instance",
            closed_because="",
            created_at=NOW - timedelta(minutes=minutes_ago),
            calling_ae="CT1",
        )
        for number in range(1, count + 1)
    ]


@pytest.mark.parametrize(
    ("count", "minutes_ago", "quiet_s"),
    [(0, 1, 60), (4, 1, 60), (5, 1, 120), (6, 1, 240), (30, 1, 3600), (30, 61, 60)],
)
def test_a_study_that_keeps_coming_back_waits_longer(count: int, minutes_ago: float, quiet_s: int) -> None:
    patience = Patience(quiet=timedelta(seconds=60), longest=timedelta(minutes=30))
    slowed = completion.slowed(patience, revisions(count, minutes_ago), now=NOW)
    assert slowed.quiet == timedelta(seconds=quiet_s)
    assert slowed.quiet_released == (slowed.quiet if quiet_s > 60 else timedelta(seconds=20))
    assert slowed.longest == patience.longest


def test_states_are_in_order() -> None:
    assert states.IN_ORDER.index(states.JUDGED) < states.IN_ORDER.index(states.BUILT)
    assert not set(states.BEFORE_DELIVERY) & set(states.BEGAN_DELIVERY)
