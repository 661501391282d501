"""What follows from each answer to a request for storage commitment."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from dicomguard.core import commitment as core
from dicomguard.core.commitment import (
    CLASS_CONFLICT,
    NO_SUCH_INSTANCE,
    RESOURCE_LIMITATION,
    Commitment,
    Part,
    Patience,
    Reference,
    Report,
    State,
)

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
PATIENCE = Patience()
SEG, SR = (Reference(sop_class_uid="1.2.66", sop_instance_uid=f"2.25.{number}") for number in (1, 2))
PLANNED = Commitment(
    study_key="ab12", revision=1, destination="pacs", parts=(Part(reference=SEG), Part(reference=SR)),
    planned_at=NOW, next_at=NOW,
)  # fmt: skip


def asked(value: Commitment = PLANNED) -> Commitment:
    return core.taken(core.ask(value, now=NOW, within=timedelta(minutes=10)), PATIENCE, now=NOW)


def answered(*committed: Reference, **failed: int) -> Commitment:
    value = asked()
    reasons = {{"seg": SEG, "sr": SR}[name]: reason for name, reason in failed.items()}
    report = Report(transaction_uid=value.transaction_uid, committed=committed, failed=reasons)
    return core.answer(value, report, PATIENCE, now=NOW)


def test_each_question_has_a_transaction_uid_of_its_own() -> None:
    first = asked()
    second = core.ask(first, now=NOW, within=timedelta(minutes=10))
    assert first.transaction_uid.startswith("2.25.")
    assert first.transaction_uid != second.transaction_uid
    assert (first.state, first.next_at) == (State.ASKED, NOW + timedelta(hours=24))
    assert second.next_at == NOW + timedelta(minutes=10)


def test_all_committed_is_the_end() -> None:
    value = answered(SEG, SR)
    assert (value.state, value.next_at, value.open, value.comment) == (State.COMMITTED, None, (), "")


def test_what_is_committed_is_not_asked_about_again() -> None:
    value = answered(SEG, sr=RESOURCE_LIMITATION)
    assert value.state is State.ANSWERED
    assert [part.reference for part in value.open] == [SR]
    later = core.ask(value, now=NOW, within=timedelta(minutes=10))
    done = core.answer(later, Report(transaction_uid=later.transaction_uid, committed=(SR,)), PATIENCE, now=NOW)
    assert done.state is State.COMMITTED


@pytest.mark.parametrize(
    ("failed", "resent", "step", "wait"),
    [
        ({"sr": RESOURCE_LIMITATION}, False, "ask", PATIENCE.again),
        # The report does not name it.
        ({}, False, "ask", PATIENCE.again),
        ({"sr": NO_SUCH_INSTANCE}, False, "resend", timedelta(0)),
        ({"sr": NO_SUCH_INSTANCE}, True, "fail", timedelta(0)),
        ({"sr": CLASS_CONFLICT}, False, "fail", timedelta(0)),
        ({"seg": NO_SUCH_INSTANCE, "sr": CLASS_CONFLICT}, False, "fail", timedelta(0)),
        ({"seg": NO_SUCH_INSTANCE, "sr": RESOURCE_LIMITATION}, False, "resend", timedelta(0)),
    ],
)
def test_the_reason_decides(failed: dict[str, int], resent: bool, step: str, wait: timedelta) -> None:
    value = replace(answered(**failed), resent=resent)
    assert value.next_at == NOW + wait
    assert core.next_step(value, PATIENCE, now=NOW) == step


def test_a_question_without_an_answer_is_asked_again_and_given_up_at_last() -> None:
    value = asked()
    assert core.next_step(value, PATIENCE, now=NOW + timedelta(hours=24)) == "ask"
    assert core.next_step(value, PATIENCE, now=NOW + timedelta(days=7)) == "fail"
    over = core.fail(value)
    assert (over.state, over.next_at, over.comment) == (State.FAILED, None, "no answer")


def test_a_question_that_did_not_arrive_is_asked_again_soon() -> None:
    value = core.not_taken(asked(), "it cannot be reached", PATIENCE, now=NOW)
    assert (value.state, value.next_at, value.comment) == (State.DUE, NOW + PATIENCE.again, "it cannot be reached")


def test_what_is_sent_again_waits_for_its_delivery() -> None:
    value = core.resend(answered(sr=NO_SUCH_INSTANCE))
    assert (value.state, value.next_at, value.resent) == (State.DUE, None, True)
    again = core.renew(value, now=NOW + timedelta(hours=1))
    assert (again.state, again.next_at, again.resent) == (State.DUE, NOW + timedelta(hours=1), True)


def test_what_is_committed_altogether_is_not_asked_about() -> None:
    value = answered(SEG, sr=NO_SUCH_INSTANCE)
    arrived = replace(core.resend(value), parts=tuple(part for part in value.parts if part.committed))
    after = core.renew(arrived, now=NOW)
    assert (after.state, after.next_at, after.comment) == (State.COMMITTED, None, "")
    assert after.attempt == arrived.attempt + 1


def test_each_change_names_the_next_attempt() -> None:
    value = answered(sr=NO_SUCH_INSTANCE)
    chain = [PLANNED, asked(), value, core.resend(value), core.renew(core.resend(value), now=NOW)]
    assert [item.attempt for item in chain] == [0, 1, 2, 3, 4]


def test_what_is_said_counts_the_reasons() -> None:
    assert answered(SEG, sr=NO_SUCH_INSTANCE).comment == "not committed: 1 × no such object instance"
    assert answered(seg=0x9999).comment == "not committed: 1 × 9999, 1 × not answered"
