import hashlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from dicomguard.clock import FakeClock
from dicomguard.errors import Broken, Refused
from dicomguard.store import accounts, audit, models, runs
from dicomguard.store.db import Store, open_store
from dicomguard.store.files import Died, FakeDisk

NOW = datetime(2026, 11, 28, 2, 0, tzinfo=UTC)
SHIPPED_SHA256 = "5" * 64


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = open_store(tmp_path / "state", "", FakeClock(NOW), disk=FakeDisk())
    yield opened
    opened.close()


def propose(store: Store, folder: Path, name: str, **changes: Any) -> models.ModelRow:
    source = folder / f"{name}.safetensors"
    source.write_bytes(name.encode())
    sha256 = hashlib.sha256(name.encode()).hexdigest()
    path = models.keep_weights(store, source, sha256)
    decision = {"reasons": ["It is better."], "people": ["ada", "grace"]}
    with store.begin() as tx:
        given = {"id": name, "sha256": sha256, "path": path, "decision": decision, "rejected": False, "by": "ada"}
        return models.propose(tx, **{**given, **changes}, now=NOW)


def approve(store: Store, name: str, by: str = "edsger", *, two_people: bool = True) -> models.ModelRow:
    with store.begin() as tx:
        return models.approve(tx, name, by=by, two_people=two_people, now=NOW)


def current(store: Store) -> str | None:
    with store.read() as tx:
        row, path = models.current(tx), models.weights(store, tx)
        assert (row is None) == (path is None)
        if row is None or path is None:
            return None
        assert path.read_bytes() == row.id.encode()
        return row.id


def test_a_proposal_changes_nothing_until_it_is_approved(store: Store, tmp_path: Path) -> None:
    propose(store, tmp_path, "m1")
    assert current(store) is None
    row = approve(store, "m1")
    assert (row.state, row.decided_by, row.predecessor) == ("current", "edsger", "")
    assert row.reasons == ("It is better.",)
    assert current(store) == "m1"


@pytest.mark.parametrize("by", ["ada", " Ada", "GRACE", ""])
def test_who_started_or_curated_cannot_approve(store: Store, tmp_path: Path, by: str) -> None:
    propose(store, tmp_path, "m1")
    with pytest.raises(Refused, match=r"cannot approve|not named"):
        approve(store, "m1", by)
    assert current(store) is None


def test_one_person_may_where_the_configuration_says_so(store: Store, tmp_path: Path) -> None:
    propose(store, tmp_path, "m1")
    approve(store, "m1", "ada", two_people=False)
    assert current(store) == "m1"


def test_rollback_goes_back_model_by_model_to_the_shipped_weights(store: Store, tmp_path: Path) -> None:
    for name in ("m1", "m2"):
        propose(store, tmp_path, name)
        approve(store, name)
    assert current(store) == "m2"
    for expected in ("m1", None):
        with store.begin() as tx:
            back = models.rollback(tx, by="grace", now=NOW)
        assert (back.id if back else None) == expected == current(store)
    with store.begin() as tx, pytest.raises(Refused, match="nothing to roll back"):
        models.rollback(tx, by="grace", now=NOW)


def test_a_rejected_or_retired_model_cannot_be_approved(store: Store, tmp_path: Path) -> None:
    assert propose(store, tmp_path, "bad", rejected=True).decided_by == "promotion"
    propose(store, tmp_path, "no")
    with store.begin() as tx:
        assert models.decline(tx, "no", by="grace", reason="curves look odd", now=NOW).state == "rejected"
    for name in ("bad", "no"):
        with pytest.raises(Refused, match='is "rejected"'):
            approve(store, name)
    with pytest.raises(Refused, match='No model is called "zz"'):
        approve(store, "zz")


def test_the_same_proposal_twice_is_one(store: Store, tmp_path: Path) -> None:
    assert propose(store, tmp_path, "m1") == propose(store, tmp_path, "m1")
    with pytest.raises(Refused, match='is called "m1" already'):
        propose(store, tmp_path, "m2", id="m1")
    with store.read() as tx:
        assert [row.id for row in models.listing(tx)] == ["m1"]


def test_weights_are_kept_whole_or_not_at_all(store: Store, tmp_path: Path) -> None:
    source = tmp_path / "w.safetensors"
    source.write_bytes(b"weights")
    with pytest.raises(Broken, match="have the hash"):
        models.keep_weights(store, source, "0" * 64)
    sha256 = hashlib.sha256(b"weights").hexdigest()
    assert isinstance(store.disk, FakeDisk)
    store.disk.die_before = "rename"
    with pytest.raises(Died):
        models.keep_weights(store, source, sha256)
    assert list((store.root / "models").glob("*")) == []
    store.disk.die_before = ""
    assert (store.root / models.keep_weights(store, source, sha256)).read_bytes() == b"weights"


def test_missing_weights_of_the_current_model_are_said(store: Store, tmp_path: Path) -> None:
    row = propose(store, tmp_path, "m1")
    approve(store, "m1")
    (store.root / row.path).unlink()
    with store.read() as tx, pytest.raises(Broken, match="m1 are missing"):
        models.weights(store, tx)


def test_every_change_stands_in_the_audit_chain(store: Store, tmp_path: Path) -> None:
    propose(store, tmp_path, "m1")
    approve(store, "m1")
    with store.begin() as tx:
        models.rollback(tx, by="grace", now=NOW)
        lines = audit.recent(tx)
        assert audit.first_break(tx) is None
    assert [(line.action, line.actor, line.object) for line in reversed(lines)] == [
        ("model.candidate", "ada", "m1"),
        ("model.approved", "edsger", "m1"),
        ("model.rolled_back", "grace", "m1"),
    ]


def test_a_period_has_one_run(store: Store) -> None:
    with store.begin() as tx:
        first = runs.ask(tx, "retrain-2026-W48", by="schedule", now=NOW)
        assert runs.ask(tx, "retrain-2026-W48", by="ada", now=NOW) == first
        assert runs.asked(tx) == [first]
        runs.advance(tx, first.key, "training", now=NOW, progress={"step": 3})
        assert runs.asked(tx) == []
        runs.advance(tx, first.key, "waiting", now=NOW, message="better", candidate_sha256="a" * 64)
        row = runs.row(tx, first.key)
        assert row is not None and row == runs.of_candidate(tx, "a" * 64) == runs.listing(tx)[0]
        assert (row.state, row.message, dict(row.progress), row.ended) == ("waiting", "better", {"step": 3}, True)
        with pytest.raises(Refused, match="no training run"):
            runs.advance(tx, "zz", "failed", now=NOW)


def account(store: Store, name: str, invited_by: str, added_at: datetime) -> None:
    with store.begin() as tx:
        accounts.put(tx, accounts.Account(name=name, salt="", hash="", invited_by=invited_by, added_at=added_at))


def of_run(store: Store, folder: Path, name: str, *, by: str, incumbent: str = SHIPPED_SHA256) -> None:
    """The candidate of a run that `by` started at NOW; `approve` happens a week later."""
    sha256 = hashlib.sha256(name.encode()).hexdigest()
    with store.begin() as tx:
        run = runs.ask(tx, f"by-hand-{name}", by=by, now=NOW)
        runs.advance(tx, run.key, "waiting", now=NOW, candidate_sha256=sha256)
    decision = {"reasons": ["It is better."], "people": [by], "run": run.key, "incumbent": incumbent}
    propose(store, folder, name, decision=decision, by=by)


def approve_after(store: Store, name: str, by: str, wait: timedelta) -> models.ModelRow:
    with store.begin() as tx:
        return models.approve(tx, name, by=by, two_people=True, now=NOW + wait)


@pytest.mark.parametrize(
    ("joined", "wait"),
    [
        # Made for the purpose, after the run began: no waiting helps.
        (timedelta(hours=1), timedelta(hours=2)),
        (timedelta(hours=1), timedelta(days=30)),
        # Made shortly before the run, and used on the same day.
        (timedelta(hours=-1), timedelta(hours=22)),
    ],
)
def test_an_account_that_was_just_invited_counts_as_its_inviter(
    store: Store, tmp_path: Path, joined: timedelta, wait: timedelta
) -> None:
    account(store, "ada", accounts.SETUP, NOW - timedelta(days=90))
    account(store, "grace", "ada", NOW + joined)
    account(store, "mary", "grace", NOW + joined)
    of_run(store, tmp_path, "m1", by="ada")
    for by in ("grace", "mary"):
        with pytest.raises(Refused, match=f"{by} and ada count as one person, ada"):
            approve_after(store, "m1", by, wait)
    assert current(store) is None


def test_a_new_account_that_starts_the_run_counts_as_its_inviter_too(store: Store, tmp_path: Path) -> None:
    account(store, "ada", accounts.SETUP, NOW - timedelta(days=90))
    account(store, "grace", "ada", NOW - timedelta(hours=1))
    account(store, "mary", "ada", NOW - timedelta(hours=1))
    of_run(store, tmp_path, "m1", by="grace")
    for by in ("ada", "mary"):
        with pytest.raises(Refused, match=f"{by} and grace count as one person, ada"):
            approve_after(store, "m1", by, timedelta(hours=2))


def test_a_third_person_vouches_for_a_new_account(store: Store, tmp_path: Path) -> None:
    account(store, "ada", accounts.SETUP, NOW - timedelta(days=90))
    account(store, "grace", "ada", NOW - timedelta(days=60))
    account(store, "mary", "grace", NOW + timedelta(hours=1))
    of_run(store, tmp_path, "m1", by="ada")
    assert approve_after(store, "m1", "mary", timedelta(hours=2)).approval == (
        "Approved by mary, who was invited by grace and joined on 2026-11-28. "
        "The run was started by ada, who set up this node on 2026-08-30."
    )


def test_a_first_administrator_who_invited_everybody_can_have_a_second(store: Store, tmp_path: Path) -> None:
    account(store, "ada", accounts.SETUP, NOW - timedelta(days=90))
    account(store, "grace", "ada", NOW - timedelta(days=2))
    of_run(store, tmp_path, "m1", by="ada")
    row = approve_after(store, "m1", "grace", timedelta(hours=2))
    assert row.approval.startswith("Approved by grace, who was invited by ada and joined on 2026-11-26.")
    with store.read() as tx:
        assert row.approval in audit.recent(tx)[0].change


def test_who_approves_without_an_account_is_named_as_such(store: Store, tmp_path: Path) -> None:
    of_run(store, tmp_path, "m1", by="schedule")
    assert approve_after(store, "m1", "edsger", timedelta(0)).approval == (
        "Approved by edsger, who has no account on the page."
    )


def test_a_candidate_is_approved_only_against_the_model_it_was_measured_with(store: Store, tmp_path: Path) -> None:
    """1. Two runs measure against the shipped model. 2. One is approved. 3. The other was never compared with it."""
    for name in ("m1", "m2"):
        of_run(store, tmp_path, name, by="ada")
    approve(store, "m2")
    with pytest.raises(Refused, match=r"m1 was measured against the weights .*, and m2 judges now\. Start a new run"):
        approve(store, "m1")
    assert current(store) == "m2"
    with store.begin() as tx:
        models.rollback(tx, by="grace", now=NOW)
    approve(store, "m1")
    assert current(store) == "m1"


def test_after_a_rollback_what_was_measured_against_the_bad_model_is_not_approved(store: Store, tmp_path: Path) -> None:
    of_run(store, tmp_path, "m1", by="ada")
    approve(store, "m1")
    of_run(store, tmp_path, "m2", by="ada", incumbent=hashlib.sha256(b"m1").hexdigest())
    with store.read() as tx:
        assert models.outdated(tx, models.row(tx, "m2")) == ""
    with store.begin() as tx:
        models.rollback(tx, by="grace", now=NOW)
    with pytest.raises(Refused, match="m2 was measured against m1, and the shipped model judges now"):
        approve(store, "m2")
    assert current(store) is None


def test_a_candidate_whose_run_does_not_say_what_it_was_measured_against_is_not_approved(
    store: Store, tmp_path: Path
) -> None:
    of_run(store, tmp_path, "m1", by="ada", incumbent="")
    with pytest.raises(Refused, match="does not say what it was measured against"):
        approve(store, "m1")
