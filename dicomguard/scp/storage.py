"""C-STORE: the bytes of one message through the store's door, its answer as a status word (PS3.4 B.2.3)."""

from typing import assert_never

from pydicom import Dataset
from pynetdicom.events import Event

from dicomguard import log
from dicomguard.dimse import status
from dicomguard.errors import Refused, Unavailable
from dicomguard.store.db import Store
from dicomguard.store.intake import (
    Conflict,
    Duplicate,
    Outcome,
    Quarantined,
    QuarantineFull,
    Sender,
    Stored,
    TooLarge,
    receive,
)

_LOG = log.get("scp")
# PS3.7 Table 9.1-1: Error Comment is a LO of at most 64 characters.
_COMMENT_CHARACTERS = 64


def answer(store: Store, event: Event, sender: Sender, *, association_id: str, warn_of_conflict: bool) -> Dataset:
    """Keep the instance of a C-STORE request and return its response's status."""
    try:
        outcome = receive(
            store,
            sender,
            sop_class_uid=str(event.request.AffectedSOPClassUID),
            sop_instance_uid=str(event.request.AffectedSOPInstanceUID),
            transfer_syntax_uid=str(event.context.transfer_syntax),
            chunks=event.request._dataset_file.dataset(),
            association_id=association_id,
            channel="dimse",
        )
    except (Unavailable, TooLarge) as error:
        return _refused(status.OUT_OF_RESOURCES, sender, error)
    except (QuarantineFull, Refused) as error:
        return _refused(status.CANNOT_UNDERSTAND, sender, error)
    except Exception:  # noqa: BLE001 -- the top of a DIMSE handler
        # A fault of ours ends one message, not the receiver.
        _LOG.crashed("instance.failed", peer=sender.peer)
        return _status(status.PROCESSING_FAILURE, "internal error of the receiver")
    return _said(outcome, sender, warn_of_conflict=warn_of_conflict)


def _refused(word: int, sender: Sender, error: Refused | Unavailable) -> Dataset:
    _LOG.warning("instance.refused", peer=sender.peer, status=f"{word:04X}", reason=str(error))
    return _status(word, str(error))


def _said(outcome: Outcome, sender: Sender, *, warn_of_conflict: bool) -> Dataset:
    match outcome:
        case Conflict():
            _LOG.warning("instance.conflicted", study=outcome.study_key, peer=sender.peer, reason=outcome.reason)
            return _status(status.COERCED if warn_of_conflict else status.SUCCESS, outcome.reason)
        case Quarantined():
            _LOG.warning("instance.quarantined", peer=sender.peer, path=outcome.instance.path, reason=outcome.reason)
            return _status(status.SUCCESS)
        case Stored() | Duplicate():
            return _status(status.SUCCESS)
        case _:
            assert_never(outcome)


def _status(word: int, comment: str = "") -> Dataset:
    response = Dataset()
    response.Status = word
    if comment:
        response.ErrorComment = comment[:_COMMENT_CHARACTERS]
    return response
