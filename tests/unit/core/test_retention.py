"""What may be deleted, as a table and as properties."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicomguard.core.retention import Candidate, Expiry, Policy, Removal, kept_because, plan

NOW = datetime(2026, 11, 24, 10, 0, tzinfo=UTC)
DAY = timedelta(days=1)
POLICY = Policy(images=30 * DAY, images_bytes=None, results=365 * DAY)
OLD = Candidate(
    study_key="k",
    last_received_at=NOW - 31 * DAY,
    last_judged_at=NOW - 31 * DAY,
    images=3,
    images_bytes=300,
    collecting=False,
    on_hold=False,
    in_work=False,
    waiting=False,
    uncommitted=False,
)


@pytest.mark.parametrize(
    ("change", "because"),
    [
        ({"collecting": True}, "it is collecting"),
        ({"on_hold": True}, "it is on hold"),
        ({"in_work": True}, "a revision is not finished"),
        ({"waiting": True}, "a delivery is not over"),
        ({"uncommitted": True}, "a destination has not committed itself to keep the results"),
        ({}, ""),
    ],
)
def test_what_may_never_go(change: dict[str, bool], because: str) -> None:
    study = replace(OLD, **change)  # type: ignore[arg-type]
    assert kept_because(study) == because
    gone = replace(study, images=0, images_bytes=0, last_judged_at=NOW - 400 * DAY)
    assert bool(plan([study], POLICY, now=NOW)) == bool(plan([gone], POLICY, now=NOW)) == (not because)


def test_images_first_and_the_study_a_year_later() -> None:
    assert plan([OLD], POLICY, now=NOW) == [Expiry(study_key="k", reason="older than 30 days", images_bytes=300)]
    assert plan([OLD], POLICY, now=NOW - 2 * DAY) == []
    bare = replace(OLD, images=0, images_bytes=0)
    assert plan([bare], POLICY, now=NOW) == []
    assert plan([bare], POLICY, now=NOW + 340 * DAY) == [Removal(study_key="k", reason="older than 365 days")]
    # Never both at once.
    assert len(plan([OLD], POLICY, now=NOW + 3650 * DAY)) == 1


def test_nothing_goes_without_a_policy() -> None:
    forever = Policy(images=None, images_bytes=None, results=None)
    assert plan([OLD, replace(OLD, images=0)], forever, now=NOW + 3650 * DAY) == []


def test_bytes_beyond_the_most_go_oldest_first() -> None:
    studies = [replace(OLD, study_key=f"k{day}", last_received_at=NOW - day * DAY) for day in (1, 2, 3)]
    policy = replace(POLICY, images=None, images_bytes=600)
    assert [step.study_key for step in plan(studies, policy, now=NOW)] == ["k3"]
    # What may not go counts, and others go in its place.
    studies[2] = replace(studies[2], on_hold=True)
    assert [step.study_key for step in plan(studies, policy, now=NOW)] == ["k2"]


CANDIDATES = st.builds(
    Candidate,
    study_key=st.text("0123456789abcdef", min_size=4, max_size=4),
    last_received_at=st.integers(0, 800).map(lambda days: NOW - days * DAY),
    last_judged_at=st.integers(0, 800).map(lambda days: NOW - days * DAY),
    images=st.integers(0, 5),
    images_bytes=st.integers(1, 100),
    collecting=st.booleans(),
    on_hold=st.booleans(),
    in_work=st.booleans(),
    waiting=st.booleans(),
    uncommitted=st.booleans(),
).map(lambda study: study if study.images else replace(study, images_bytes=0))
POLICIES = st.builds(
    Policy,
    images=st.none() | st.integers(1, 400).map(lambda days: days * DAY),
    images_bytes=st.none() | st.integers(0, 300),
    results=st.none() | st.integers(1, 400).map(lambda days: days * DAY),
)


@given(st.lists(CANDIDATES, max_size=8, unique_by=lambda study: study.study_key), POLICIES)
def test_the_plan_keeps_its_promises(studies: list[Candidate], policy: Policy) -> None:
    planned = plan(studies, policy, now=NOW)
    by_key = {study.study_key: study for study in studies}
    # Each study once, and none that must stay.
    assert len({step.study_key for step in planned}) == len(planned)
    assert all(not kept_because(by_key[step.study_key]) for step in planned)
    expired = [by_key[step.study_key] for step in planned if isinstance(step, Expiry)]
    # Oldest first.
    assert [study.last_received_at for study in expired] == sorted(study.last_received_at for study in expired)
    left = sum(study.images_bytes for study in studies) - sum(study.images_bytes for study in expired)
    may_go = [study for study in studies if study not in expired and study.images and not kept_because(study)]
    if policy.images is not None:
        assert all(study.last_received_at + policy.images > NOW for study in may_go)
    if policy.images_bytes is not None and left > policy.images_bytes:
        # Only because nothing more may go.
        assert not may_go
    # Old ones come first and go anyway; the last of the others still had to make room.
    young = [study for study in expired if policy.images is None or study.last_received_at + policy.images > NOW]
    assert expired[len(expired) - len(young) :] == young
    if young:
        assert policy.images_bytes is not None
        assert left + young[-1].images_bytes > policy.images_bytes
