"""C-STORE: the bytes of one message through the store's door, its answer as a status word (PS3.4 B.2.3)."""

from typing import assert_never

from dicomguard import log
from dicomguard.dimse import status
from dicomguard.errors import Refused, Unavailable
from dicomguard.scp import command
from dicomguard.scp.association import Association
from dicomguard.scp.command import Command
from dicomguard.scp.messages import Answer
from dicomguard.scp.negotiation import Context
from dicomguard.store import intake
from dicomguard.store.db import Store
from dicomguard.store.intake import (
    Conflict,
    Duplicate,
    Incoming,
    Outcome,
    Quarantined,
    QuarantineFull,
    Sender,
    Stored,
    TooLarge,
)

_LOG = log.get("scp")


class Storing:
    """One C-STORE request under way; a failure waits for the end of its dataset, so that it is answered."""

    def __init__(
        self, store: Store, association: Association, context: Context, request: Command, *, warn_of_conflict: bool
    ) -> None:
        self._sender = association.sender
        self._warn_of_conflict = warn_of_conflict
        self._incoming: Incoming | None = None
        self._failure: Unavailable | None = None
        try:
            row_id = association.row_id()
        except Unavailable as error:
            self._failure = error
            return
        self._incoming = intake.open_instance(
            store,
            self._sender,
            sop_class_uid=request.uid(command.AFFECTED_CLASS),
            sop_instance_uid=request.uid(command.AFFECTED_INSTANCE),
            transfer_syntax_uid=context.transfer_syntax,
            association_id=row_id,
            urgent=request.number(command.PRIORITY) == command.HIGH,
        )

    def write(self, piece: memoryview) -> None:
        """Hash and keep."""
        if self._incoming is not None:
            self._incoming.write(piece)

    def finish(self) -> Answer:
        """Success only once it is durable."""
        try:
            return _said(self._commit(), self._sender, warn_of_conflict=self._warn_of_conflict)
        except (Unavailable, TooLarge) as error:
            return _refused(status.OUT_OF_RESOURCES, self._sender, error)
        except (QuarantineFull, Refused) as error:
            return _refused(status.CANNOT_UNDERSTAND, self._sender, error)
        except Exception:  # noqa: BLE001 -- the top of a DIMSE handler
            # A fault of ours ends one message, not the receiver.
            _LOG.crashed("instance.failed", peer=self._sender.peer)
            return Answer(status=status.PROCESSING_FAILURE, comment="internal error of the receiver")

    def discard(self) -> None:
        """Nothing of it stays behind."""
        if self._incoming is not None:
            self._incoming.discard()

    def _commit(self) -> Outcome:
        if self._failure is not None:
            raise self._failure
        assert self._incoming is not None
        return self._incoming.commit()


def _refused(word: int, sender: Sender, error: Refused | Unavailable) -> Answer:
    _LOG.warning("instance.refused", peer=sender.peer, status=f"{word:04X}", reason=str(error))
    return Answer(status=word, comment=str(error))


def _said(outcome: Outcome, sender: Sender, *, warn_of_conflict: bool) -> Answer:
    match outcome:
        case Conflict():
            _LOG.warning("instance.conflicted", study=outcome.study_key, peer=sender.peer, reason=outcome.reason)
            return Answer(status=status.COERCED if warn_of_conflict else status.SUCCESS, comment=outcome.reason)
        case Quarantined():
            _LOG.warning("instance.quarantined", peer=sender.peer, path=outcome.instance.path, reason=outcome.reason)
            return Answer(status=status.SUCCESS)
        case Stored() | Duplicate():
            return Answer(status=status.SUCCESS)
        case _:
            assert_never(outcome)
