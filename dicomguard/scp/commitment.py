"""Storage commitment at our port (PS3.4 annex J): requests of peers, and reports on what we asked for.

Both are kept and answered at once; a worker looks, reports and draws the consequences.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass

from dicomguard import log
from dicomguard.core.commitment import Patience, State
from dicomguard.dimse import commitment, contexts, status
from dicomguard.errors import Refused, Unavailable
from dicomguard.scp import command
from dicomguard.scp.association import Association
from dicomguard.scp.command import Command
from dicomguard.scp.messages import MAX_COLLECTED_BYTES, Answer, Collected, Dropped, Message
from dicomguard.scp.negotiation import Context
from dicomguard.store import commitments
from dicomguard.store.db import Budget, Store

_LOG = log.get("scp")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the configuration says about it."""

    # AE titles that a report can be sent to: those of the destinations.
    reachable: frozenset[str]
    patience: Patience


NOBODY = Settings(reachable=frozenset(), patience=Patience())


class Commitment:
    """N-ACTION and N-EVENT-REPORT of the Storage Commitment Push Model."""

    def __init__(self, store: Store, settings: Settings) -> None:
        self._store = store
        self._settings = settings
        self._budget = Budget(MAX_COLLECTED_BYTES)
        # A dataset of so many bytes becomes some times as many of lists and texts: one after the other.
        self._turn = threading.Lock()

    def asked(self, association: Association, context: Context, request: Command) -> Message:
        """N-ACTION: a peer wants us to vouch for what it sent."""
        wrong = _wrong(
            context, request, command.REQUESTED_CLASS, command.REQUESTED_INSTANCE, command.ACTION_TYPE,
            kinds=(commitment.REQUEST,), no_such_kind=status.NO_SUCH_ACTION,
        )  # fmt: skip
        if wrong is not None:
            return Dropped(wrong)
        return self._collected(association, lambda content: self._ask(association, context, content))

    def reported(self, association: Association, context: Context, request: Command) -> Message:
        """N-EVENT-REPORT: a destination says what became of what we asked for."""
        wrong = _wrong(
            context, request, command.AFFECTED_CLASS, command.AFFECTED_INSTANCE, command.EVENT_TYPE,
            kinds=(commitment.ALL_COMMITTED, commitment.SOME_FAILED), no_such_kind=status.NO_SUCH_EVENT,
        )  # fmt: skip
        if wrong is not None:
            return Dropped(wrong)
        return self._collected(association, lambda content: self._report(context, content))

    def _collected(self, association: Association, act: Callable[[memoryview], Answer]) -> Message:
        def handle(content: memoryview) -> Answer:
            with self._turn:
                return self._guarded(association, lambda: act(content))

        def refuse(why: str) -> Answer:
            return self._limited(association, why)

        return Collected(handle, refuse, self._budget)

    def _ask(self, association: Association, context: Context, content: memoryview) -> Answer:
        transaction_uid, references = commitment.read_request(content, context.transfer_syntax)
        sender = association.sender
        if sender.calling_ae not in self._settings.reachable:
            raise Refused("no destination has your AE title, so that nothing could be reported")
        with self._store.begin() as tx:
            kept = commitments.ask(
                tx,
                transaction_uid=transaction_uid,
                calling_ae=sender.calling_ae,
                references=references,
                now=self._store.clock.now(),
            )
        if not kept:
            raise Refused("this transaction UID was used for other instances")
        _LOG.event("commitment.requested", peer=sender.peer, count=len(references))
        return Answer(status=status.SUCCESS)

    def _report(self, context: Context, content: memoryview) -> Answer:
        report = commitment.read_report(content, context.transfer_syntax)
        with self._store.begin() as tx:
            after = commitments.answered(tx, report, self._settings.patience, now=self._store.clock.now())
        if after is None:
            raise Refused("nothing was asked under this transaction UID, or it was answered before")
        say = _LOG.event if after.state is State.COMMITTED else _LOG.warning
        say(
            "commitment.reported",
            study=after.study_key,
            revision=after.revision,
            destination=after.destination,
            state=after.state.value,
            reason=after.comment,
        )
        return Answer(status=status.SUCCESS)

    def _guarded(self, association: Association, handle: Callable[[], Answer]) -> Answer:
        """The top of a DIMSE handler."""
        peer = association.sender.peer
        try:
            return handle()
        except (commitment.TooMany, Unavailable) as error:
            return self._limited(association, str(error))
        except Refused as error:
            _LOG.warning("commitment.refused", peer=peer, reason=str(error))
            return Answer(status=status.PROCESSING_FAILURE, comment=str(error))
        except Exception:  # noqa: BLE001 -- a fault of ours ends one message, not the receiver
            _LOG.crashed("commitment.failed", peer=peer)
            return Answer(status=status.PROCESSING_FAILURE, comment="internal error of the receiver")

    def _limited(self, association: Association, why: str) -> Answer:
        """Not so much, or not now."""
        _LOG.warning("commitment.refused", peer=association.sender.peer, reason=why)
        return Answer(status=status.RESOURCE_LIMITATION, comment=why)


def _wrong(
    context: Context,
    request: Command,
    sop_class: int,
    sop_instance: int,
    kind: int,
    *,
    kinds: tuple[int, ...],
    no_such_kind: int,
) -> Answer | None:
    """Why the command set alone cannot be served (PS3.7 10.1.1 and 10.1.4), None when it can."""
    if context.abstract_syntax != contexts.STORAGE_COMMITMENT or request.uid(sop_class) != contexts.STORAGE_COMMITMENT:
        return Answer(status=status.NO_SUCH_CLASS, comment="only the Storage Commitment Push Model is served")
    if request.uid(sop_instance) != commitment.SOP_INSTANCE:
        return Answer(status=status.NO_SUCH_INSTANCE, comment="not the well-known instance")
    if request.number(kind) not in kinds:
        return Answer(status=no_such_kind, comment="no such type")
    if not request.has_dataset:
        return Answer(status=status.INVALID_ARGUMENT, comment="it has no dataset")
    return None
