"""Why there is no association, from what pynetdicom knows of it at its end."""

from types import SimpleNamespace
from typing import cast

import pytest
from pynetdicom.association import Association
from pynetdicom.presentation import PresentationContext, build_context

from dicomguard.core.delivery import ENDS_ATTEMPT, Event
from dicomguard.core.peer import Destination
from dicomguard.deliver.association import _refusal

PACS = Destination(name="pacs", ae_title="PACS", host="192.0.2.5", port=104)


def aborted(*, answered: bool, accepted: list[PresentationContext]) -> Association:
    made = SimpleNamespace(
        is_rejected=False,
        is_aborted=True,
        acceptor=SimpleNamespace(primitive=object() if answered else None),
        accepted_contexts=accepted,
    )
    return cast(Association, made)


def test_an_acceptance_without_any_context_takes_none_of_the_classes() -> None:
    assert _refusal(aborted(answered=True, accepted=[]), PACS).event is Event.NO_CONTEXT


@pytest.mark.parametrize("answered", [True, False])
def test_an_abort_says_nothing_about_the_classes(answered: bool) -> None:
    accepted = [build_context("1.2.840.10008.5.1.4.1.1.66.4")] if answered else []
    refusal = _refusal(aborted(answered=answered, accepted=accepted), PACS)
    assert refusal.event is Event.UNREACHED
    # It is tried again; what takes none of the classes is skipped without an alarm.
    assert refusal.event in ENDS_ATTEMPT
    assert ("ended the association" in refusal.sentence) is answered
