"""Which request is answered by whom (PS3.7 9.1 and 10.1): a table from command field to service.

A service of the N kind is one more entry that returns `messages.Collected`.
"""

from collections.abc import Callable, Mapping

from dicomguard.dimse import contexts, status
from dicomguard.scp import command
from dicomguard.scp.association import Association
from dicomguard.scp.command import Command
from dicomguard.scp.commitment import NOBODY, Commitment, Settings
from dicomguard.scp.messages import Answer, Dropped, Message
from dicomguard.scp.negotiation import Context
from dicomguard.scp.storage import Storing
from dicomguard.store.db import Store

# Begins a message of this association, on the context it came in.
Service = Callable[[Association, Context, Command], Message]


def table(store: Store, *, warn_of_conflict: bool, commitment: Settings = NOBODY) -> Mapping[int, Service]:
    """What this receiver answers."""

    def store_one(association: Association, context: Context, request: Command) -> Message:
        if context.abstract_syntax not in contexts.STORAGE_CLASSES:
            return Dropped(Answer(status=status.CLASS_NOT_SUPPORTED, comment="this context is for no storage"))
        return Storing(store, association, context, request, warn_of_conflict=warn_of_conflict)

    committing = Commitment(store, commitment)
    return {
        command.C_ECHO_RQ: _echo,
        command.C_STORE_RQ: store_one,
        command.N_ACTION_RQ: committing.asked,
        command.N_EVENT_REPORT_RQ: committing.reported,
    }


def _echo(_association: Association, _context: Context, _request: Command) -> Message:
    return Dropped(Answer(status=status.SUCCESS))


def unrecognised(request: Command) -> Message:
    """A request that no entry of the table answers (PS3.7 C.5.19)."""
    return Dropped(Answer(status=status.UNRECOGNISED_OPERATION, comment=f"no service for {request.field:04X}"))
