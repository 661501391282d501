"""Closing a study when others act at the same moment: what holds is what the rows say when the revision is written."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from dicomguard.clock import FakeClock
from dicomguard.core.completion import Patience
from dicomguard.flow import completion
from dicomguard.flow.client import Client
from dicomguard.store import studies
from dicomguard.store.db import Store
from tests.fault.world import send_study

MINUTE = timedelta(minutes=1)
SETTINGS = completion.Settings(patience=Patience(quiet=MINUTE, longest=30 * MINUTE), association_hold=10 * MINUTE)


@pytest.fixture
def meanwhile(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], None]:
    """What happens between the look at a study and the opening of its revision, once."""

    def between(act: Callable[[], object]) -> None:
        acts = [act]

        def priorities(*_: object) -> list[str]:
            while acts:
                acts.pop()()
            return []

        monkeypatch.setattr(completion, "_priorities", priorities)

    return between


def test_a_leader_that_slept_opens_nothing_that_another_has_opened(
    store: Store, clock: FakeClock, tmp_path: Path, meanwhile: Callable[[Callable[[], object]], None]
) -> None:
    """The other one has even begun to deliver it: a second revision of the same images would be a second report."""
    key = send_study(store, tmp_path / "in", slices=2)
    clock.advance(MINUTE)

    def other() -> None:
        (opened,) = completion.open_complete(store, SETTINGS, now=clock.now())
        with store.begin() as tx:
            studies.advance(tx, key, opened.number, "delivering", from_=("opened",))

    meanwhile(other)
    assert completion.open_complete(store, SETTINGS, now=clock.now()) == []
    with store.read() as tx:
        assert [item.number for item in studies.revisions(tx, key)] == [1]
        assert studies.state(tx, key, 1) == "delivering"


def test_a_study_that_a_person_holds_meanwhile_is_not_closed(
    store: Store, clock: FakeClock, tmp_path: Path, meanwhile: Callable[[Callable[[], object]], None]
) -> None:
    key = send_study(store, tmp_path / "in", slices=2)
    clock.advance(MINUTE)
    meanwhile(lambda: Client(store, clock).hold(key, True, "anna"))
    assert completion.open_complete(store, SETTINGS, now=clock.now()) == []


def test_a_study_that_goes_on_meanwhile_is_waited_for(
    store: Store, clock: FakeClock, tmp_path: Path, meanwhile: Callable[[Callable[[], object]], None]
) -> None:
    key = send_study(store, tmp_path / "in", slices=2)
    clock.advance(MINUTE)
    meanwhile(lambda: send_study(store, tmp_path / "in", slices=1, first=2))
    assert completion.open_complete(store, SETTINGS, now=clock.now()) == []
    clock.advance(MINUTE)
    (opened,) = completion.open_complete(store, SETTINGS, now=clock.now())
    with store.read() as tx:
        assert len(studies.instances(tx, key, opened.number)) == 3


def test_a_study_that_never_rests_is_closed_when_its_longest_wait_is_over(
    store: Store, clock: FakeClock, tmp_path: Path, meanwhile: Callable[[Callable[[], object]], None]
) -> None:
    """What comes at that very moment is covered too."""
    key = send_study(store, tmp_path / "in", slices=2)
    clock.advance(30 * MINUTE)
    meanwhile(lambda: send_study(store, tmp_path / "in", slices=1, first=2))
    (opened,) = completion.open_complete(store, SETTINGS, now=clock.now())
    with store.read() as tx:
        assert len(studies.instances(tx, key, opened.number)) == 3


def test_a_study_that_a_person_forces_meanwhile_says_so(
    store: Store, clock: FakeClock, tmp_path: Path, meanwhile: Callable[[Callable[[], object]], None]
) -> None:
    key = send_study(store, tmp_path / "in", slices=2)
    clock.advance(MINUTE)
    meanwhile(lambda: Client(store, clock).force(key, "anna"))
    (opened,) = completion.open_complete(store, SETTINGS, now=clock.now())
    assert opened.closed_because == "forced by anna"


def test_a_clock_that_was_ahead_holds_nothing_back(store: Store, clock: FakeClock, tmp_path: Path) -> None:
    """The images came "tomorrow"; the clock is set right; they wait the usual minute from then."""
    clock.advance(24 * 60 * MINUTE)
    key = send_study(store, tmp_path / "in", slices=2)
    clock.advance(-24 * 60 * MINUTE)
    assert completion.open_complete(store, SETTINGS, now=clock.now()) == []
    send_study(store, tmp_path / "in", slices=1, first=2)
    clock.advance(MINUTE)
    (opened,) = completion.open_complete(store, SETTINGS, now=clock.now())
    with store.read() as tx:
        assert len(studies.instances(tx, key, opened.number)) == 3


def test_a_receiver_whose_clock_is_seconds_ahead_is_waited_for(store: Store, clock: FakeClock, tmp_path: Path) -> None:
    clock.advance(MINUTE / 2)
    send_study(store, tmp_path / "in", slices=2)
    clock.advance(-MINUTE / 2)
    completion.open_complete(store, SETTINGS, now=clock.now())
    clock.advance(MINUTE)
    assert completion.open_complete(store, SETTINGS, now=clock.now()) == []
    clock.advance(MINUTE / 2)
    assert len(completion.open_complete(store, SETTINGS, now=clock.now())) == 1
