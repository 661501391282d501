"""A report on the association of the question is served by a thread of its own, while we release."""

import threading
import time
from typing import Any

import pytest
from pynetdicom.association import Association

from dicomguard.core.commitment import Reference
from dicomguard.core.peer import Destination
from dicomguard.deliver import commitment
from dicomguard.deliver.association import Timeouts
from tests.fault.vouching import Vouching, vouching

REFERENCE = Reference(sop_class_uid="1.2.840.10008.5.1.4.1.1.88.34", sop_instance_uid="2.25.1")


def ask(archive: Vouching, *, connect_s: float) -> commitment.Asked:
    destination = Destination(name="archive", ae_title=archive.title, host="127.0.0.1", port=archive.peer.port)
    return commitment.ask(
        destination, "2.25.700", (REFERENCE,),
        calling_ae="NODE", timeouts=Timeouts(connect_s=connect_s, answer_s=5), linger_s=5,
    )  # fmt: skip


def serving(monkeypatch: pytest.MonkeyPatch, after: Any) -> None:
    """`after` is what the thread does that has served a report to us."""
    serve = Association._serve_request

    def served(self: Association, *arguments: Any) -> None:
        serve(self, *arguments)
        if self.is_requestor:
            after(self)

    monkeypatch.setattr(Association, "_serve_request", served)


def test_the_answer_to_a_report_goes_out_before_the_release(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    release = Association.release

    def later(association: Association) -> None:
        time.sleep(0.5)
        order.append("served")

    def released(self: Association) -> None:
        if self.is_requestor:
            order.append("released")
        release(self)

    serving(monkeypatch, later)
    monkeypatch.setattr(Association, "release", released)
    with vouching("ARCHIVE") as archive:
        assert ask(archive, connect_s=5).report is not None
    assert order == ["served", "released"]


def test_a_reactor_that_seems_to_run_and_is_paused_holds_the_release_for_a_while_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What a late report leaves behind when its thread ends between the pause and the look at it."""

    def confuse(association: Association) -> None:
        association._reactor_checkpoint.clear()
        while not association._is_paused:
            time.sleep(0.001)
        association._is_paused = False

    serving(monkeypatch, confuse)
    answers: list[commitment.Asked] = []
    with vouching("ARCHIVE") as archive:
        asking = threading.Thread(target=lambda: answers.append(ask(archive, connect_s=1)), daemon=True)
        asking.start()
        asking.join(30)
        assert not asking.is_alive(), "the release waits for ever"
    assert answers[0].report is not None
