"""The way of results to a destination: the status table, the two forms, the waiting, and that it always ends."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from dicomguard.core.delivery import (
    TABLE,
    Answer,
    Backoff,
    Delivery,
    Event,
    Item,
    State,
    classify,
    delay,
    record,
    retry,
)

NOW = datetime(2026, 11, 24, 8, 0, tzinfo=UTC)
BACKOFF = Backoff()
SEG = Item(kind="SEG", forms=("2.25.1",))
SR = Item(kind="SR", forms=("2.25.2", "2.25.3"))


def fresh(*items: Item) -> Delivery:
    return Delivery(study_key="k", revision=1, destination="pacs", items=items, planned_at=NOW, next_at=NOW)


def after(delivery: Delivery, **events: Event) -> Delivery:
    """One attempt; the keyword is the kind."""
    answers = {
        item.sop_instance_uid: Answer(event=events[item.kind], comment=events[item.kind].value)
        for item in delivery.items
        if item.kind in events
    }
    return record(delivery, answers, now=NOW, backoff=BACKOFF)


@pytest.mark.parametrize(
    ("status", "event"),
    [
        (0x0000, Event.STORED),
        (0xB000, Event.STORED_WITH_WARNING),
        (0xB006, Event.STORED_WITH_WARNING),
        (0xB007, Event.STORED_WITH_WARNING),
        (0x0107, Event.STORED_WITH_WARNING),
        (0xA700, Event.BUSY),
        (0xA7FF, Event.BUSY),
        (0x0213, Event.BUSY),
        (0xA900, Event.FORM_REFUSED),
        (0xC000, Event.FORM_REFUSED),
        (0xCFFF, Event.FORM_REFUSED),
        (0x0122, Event.FORM_REFUSED),
        (0x0124, Event.NOT_AUTHORISED),
        (0x0111, Event.FAILED),
        (0x0117, Event.FAILED),
        (0x0106, Event.FAILED),
        (0xA800, Event.FAILED),
    ],
)
def test_status_words(status: int, event: Event) -> None:
    assert classify(status) is event


def test_every_event_has_a_place_in_the_table() -> None:
    assert {event for _, event in TABLE} == set(Event)


def test_stored_everywhere_is_over() -> None:
    done = after(fresh(SEG, SR), SEG=Event.STORED, SR=Event.STORED)
    assert (done.state, done.next_at, done.attempt) == (State.SENT, None, 1)


def test_an_archive_without_the_3d_report_gets_the_plain_one_at_once() -> None:
    tried = after(fresh(SEG, SR), SEG=Event.STORED, SR=Event.NO_CONTEXT)
    assert tried.items[1].sop_instance_uid == "2.25.3"
    assert tried.next_at == NOW
    assert after(tried, SR=Event.STORED).state is State.SENT


def test_a_refused_segmentation_does_not_hold_the_report_and_is_said() -> None:
    done = after(fresh(SEG, SR), SEG=Event.NO_CONTEXT, SR=Event.STORED)
    assert (done.state, done.next_at) == (State.SKIPPED, None)
    assert done.comment == "SEG skipped: no_context"


def test_both_forms_refused_is_an_alarm() -> None:
    done = after(after(fresh(SR), SR=Event.FORM_REFUSED), SR=Event.FORM_REFUSED)
    assert done.state is State.REFUSED
    assert done.alarm


@pytest.mark.parametrize("event", [Event.REJECTED, Event.NOT_AUTHORISED])
def test_what_only_a_person_can_lift_is_asked_hourly_with_an_alarm(event: Event) -> None:
    tried = after(fresh(SEG, SR), SEG=event)
    assert tried.next_at == NOW + timedelta(hours=1)
    assert tried.alarm


def test_what_was_not_reached_waits() -> None:
    tried = after(fresh(SEG, SR), SEG=Event.BUSY)
    assert [item.state for item in tried.items] == [State.WAITING, State.WAITING]
    assert tried.next_at is not None
    assert not tried.alarm


def test_after_seven_days_it_gives_up_and_says_so() -> None:
    old = replace(fresh(SEG, SR), planned_at=NOW - timedelta(days=7))
    done = after(old, SEG=Event.STORED, SR=Event.SILENT)
    assert done.state is State.REFUSED
    assert done.next_at is None
    assert done.comment == "SR waiting: silent"
    assert done.items[1].comment == "given up after 7 days: silent"


def test_a_person_may_start_again_what_failed_and_only_that() -> None:
    failed = after(after(fresh(SEG, SR), SEG=Event.STORED, SR=Event.FORM_REFUSED), SR=Event.FAILED)
    again = retry(failed, now=NOW)
    assert [(item.state, item.form) for item in again.items] == [(State.SENT, 0), (State.WAITING, 0)]
    assert (again.next_at, again.attempt) == (NOW, failed.attempt + 1)
    done = after(fresh(SEG), SEG=Event.STORED)
    assert retry(done, now=NOW) == done


@given(attempt=st.integers(0, 10_000), name=st.text(max_size=8))
def test_the_wait_repeats_and_stays_within_its_bounds(attempt: int, name: str) -> None:
    delivery = replace(fresh(SR), attempt=attempt, destination=name)
    assert delay(delivery, BACKOFF) == delay(delivery, BACKOFF)
    assert timedelta(seconds=1) <= delay(delivery, BACKOFF) <= BACKOFF.longest


def test_the_wait_grows() -> None:
    # Full jitter: the mean over names of attempt k is half of 5 s × 2^(k-1), so over 64 names it must grow.
    def mean(attempt: int) -> float:
        waits = [delay(replace(fresh(SR), attempt=attempt, destination=str(n)), BACKOFF) for n in range(64)]
        return sum(wait.total_seconds() for wait in waits) / 64

    assert mean(1) < mean(3) < mean(6) < mean(12)


class Way(RuleBasedStateMachine):
    """Any sequence of answers: nothing final changes, forms only go forward, and silence ends after a week."""

    def __init__(self) -> None:
        super().__init__()
        self.delivery = fresh(SEG, SR)
        self.now = NOW

    @rule(data=st.data(), pause=st.integers(0, 200_000))
    def attempt(self, data: st.DataObject, pause: int) -> None:
        if self.delivery.next_at is None:
            return
        self.now = max(self.now, self.delivery.next_at) + timedelta(seconds=pause)
        waiting = [item.sop_instance_uid for item in self.delivery.items if item.state is State.WAITING]
        events = data.draw(st.lists(st.sampled_from(list(Event)), min_size=1, max_size=len(waiting)))
        answers = {uid: Answer(event=event, comment="x") for uid, event in zip(waiting, events, strict=False)}
        before = self.delivery
        self.delivery = record(before, answers, now=self.now, backoff=BACKOFF)
        assert self.delivery.attempt == before.attempt + 1
        for old, new in zip(before.items, self.delivery.items, strict=True):
            assert new.form >= old.form
            if old.state is not State.WAITING:
                assert new == old

    @rule()
    def person_asks_again(self) -> None:
        sent = [item for item in self.delivery.items if item.state in (State.SENT, State.WARNED)]
        self.delivery = retry(self.delivery, now=self.now)
        assert all(item in self.delivery.items for item in sent)

    @invariant()
    def waiting_has_a_time_and_only_waiting_has_one(self) -> None:
        assert (self.delivery.state is State.WAITING) == (self.delivery.next_at is not None)

    @invariant()
    def the_next_time_is_never_far(self) -> None:
        if self.delivery.next_at is not None:
            assert self.delivery.next_at <= self.now + BACKOFF.refused


TestWay = Way.TestCase
