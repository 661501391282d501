"""Storage commitment from our side (PS3.4 annex J): asking a destination (SCU), and reporting to who asked us (SCP).

A report may come on the association of the question, or hours later on a new one to our own port.
"""

import queue
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pydicom.dataset import Dataset
from pydicom.uid import UID
from pynetdicom import evt
from pynetdicom.association import Association
from pynetdicom.events import Event as NetworkEvent
from pynetdicom.presentation import build_context, build_role

from dicomguard.core.commitment import Reference, Report
from dicomguard.core.peer import Destination
from dicomguard.deliver.association import NotAssociated, Timeouts, associate, bounded
from dicomguard.dimse import commitment, contexts
from dicomguard.errors import Refused

_CLASS = UID(contexts.STORAGE_COMMITMENT)
_INSTANCE = UID(commitment.SOP_INSTANCE)
# Statuses of the answer to a report (PS3.7 C).
_SUCCESS, _FAILURE = 0x0000, 0x0110


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What became of a question."""

    # Why the destination did not take it, "" when it did.
    refused: str = ""
    # Of the same association; None when it comes later.
    report: Report | None = None


def ask(
    destination: Destination,
    transaction_uid: str,
    references: Sequence[Reference],
    *,
    calling_ae: str,
    timeouts: Timeouts,
    linger_s: float,
) -> Asked:
    """N-ACTION, and the report if it comes within `linger_s` seconds on the same association."""
    # With the thread that serves it.
    reports: queue.Queue[tuple[Report, threading.Thread]] = queue.Queue(1)

    def reported(event: NetworkEvent) -> tuple[int, Dataset | None]:
        try:
            report = commitment.report_of(event.event_information)
        except (Refused, AttributeError):
            return _FAILURE, None
        if report.transaction_uid != transaction_uid:
            return _FAILURE, None
        if reports.empty():
            reports.put((report, threading.current_thread()))
        return _SUCCESS, None

    with associate(
        destination,
        [build_context(_CLASS)],
        calling_ae=calling_ae,
        timeouts=timeouts,
        handlers=[(evt.EVT_N_EVENT_REPORT, reported)],
    ) as peer:
        if isinstance(peer, NotAssociated):
            return Asked(refused=peer.sentence)
        with bounded(peer, timeouts.connect_s + timeouts.answer_s):
            refused = _request(peer, commitment.request(transaction_uid, references))
        if refused:
            return Asked(refused=refused)
        try:
            report, serving = reports.get(timeout=linger_s)
        except queue.Empty:
            return Asked()
        # Its answer goes out before the release.
        serving.join(timeouts.answer_s)
        return Asked(report=report)


def _request(peer: Association, information: Dataset) -> str:
    try:
        status, _ = peer.send_n_action(information, commitment.REQUEST, _CLASS, _INSTANCE)
    except (RuntimeError, ValueError) as error:
        return f"The association ended before the question was sent ({type(error).__name__}). It is tried again."
    return _said(status, "storage commitment")


def report(
    destination: Destination,
    transaction_uid: str,
    committed: Sequence[Reference],
    failed: Mapping[Reference, int],
    *,
    calling_ae: str,
    timeouts: Timeouts,
) -> str:
    """N-EVENT-REPORT on an association of its own, with us as SCP; why it did not arrive, "" when it did."""
    information = commitment.report(transaction_uid, committed, failed)
    kind = commitment.SOME_FAILED if failed else commitment.ALL_COMMITTED
    with associate(
        destination,
        [build_context(_CLASS)],
        calling_ae=calling_ae,
        timeouts=timeouts,
        roles=[build_role(_CLASS, scp_role=True)],
    ) as peer:
        if isinstance(peer, NotAssociated):
            return peer.sentence
        try:
            with bounded(peer, timeouts.connect_s + timeouts.answer_s):
                status, _ = peer.send_n_event_report(information, kind, _CLASS, _INSTANCE)
        except RuntimeError:
            return "The association ended before the report was sent. It is tried again."
        except ValueError:
            return f"{destination.ae_title} does not take us as SCP of storage commitment. Ask its administrator."
        return _said(status, "the report on storage commitment")


def _said(status: Dataset, what: str) -> str:
    if "Status" not in status:
        return f"There was no answer to {what}. It is tried again."
    word = int(status.Status)
    if word == _SUCCESS:
        return ""
    own_words = str(status.get("ErrorComment", "")).strip()
    return f"The peer answered {what} with status {word:04X}{f': {own_words}' if own_words else ''}."
