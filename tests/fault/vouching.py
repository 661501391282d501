"""An archive that vouches for what it keeps and for nothing else (PS3.4 annex J), and is told what the node keeps."""

import contextlib
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from pydicom.dataset import Dataset
from pynetdicom import evt
from pynetdicom.association import Association
from pynetdicom.events import Event
from pynetdicom.sop_class import SegmentationStorage

from dicomguard.core.commitment import NO_SUCH_INSTANCE, Reference, Report
from dicomguard.core.peer import Destination
from dicomguard.deliver import commitment as network
from dicomguard.deliver.association import Timeouts
from dicomguard.dimse import commitment, contexts
from tests.peer import Peer, peer

_TIMEOUTS = Timeouts(connect_s=2, answer_s=5)
# The report on the association of the question goes behind the answer to it.
_BEHIND_S = 0.1


@dataclass
class Vouching:
    """What an archive has vouched for, and what the node has vouched for to it."""

    title: str
    # Where reports go on an association of their own; 0: they go on that of the question.
    node_port: int = 0
    # Whether it loses the SEG at the next question, so that it has to be sent again.
    forgetful: bool = False
    peer: Peer = field(default_factory=lambda: Peer(port=0))
    # Of all that arrived, what was there before this number does not count, and what it has lost.
    since: int = 0
    lost: dict[str, int] = field(default_factory=dict)
    asked: int = 0
    # SOP Instance UIDs that it has said it keeps, whether the node heard it or not.
    vouched: set[str] = field(default_factory=set)
    # What the node reported to it.
    told: list[Report] = field(default_factory=list)
    _threads: list[threading.Thread] = field(default_factory=list)

    def begin(self, *, since: int, forgetful: bool) -> None:
        """For a new run: of what came before `since` nothing is kept."""
        self.settle()
        self.since, self.forgetful = since, forgetful
        self.lost.clear()
        self.vouched.clear()
        self.told.clear()
        self.asked = 0

    def keeps(self, uid: str) -> bool:
        """Whether it has the object now."""
        return any(place >= self.lost.get(uid, self.since) for place, got in enumerate(self.peer.uids()) if got == uid)

    def settle(self) -> None:
        """Until all its reports are sent or have failed."""
        while self._threads:
            self._threads.pop().join(20)

    def report_to_node(self, transaction_uid: str, references: Sequence[Reference]) -> str:
        """On an association of its own, once, as Orthanc does; why the node has not taken it, "" when it has."""
        committed, failed = self._look(references)
        node = Destination(name="node", ae_title="DICOMGUARD", host="127.0.0.1", port=self.node_port)
        return network.report(
            node, transaction_uid, committed, failed, calling_ae=self.title, timeouts=_TIMEOUTS
        )  # fmt: skip

    def _look(self, references: Sequence[Reference]) -> tuple[list[Reference], dict[Reference, int]]:
        committed = [item for item in references if self.keeps(item.sop_instance_uid)]
        self.vouched.update(item.sop_instance_uid for item in committed)
        return committed, {item: NO_SUCH_INSTANCE for item in references if item not in committed}

    def question(self, event: Event) -> tuple[int, None]:
        """N-ACTION of the node."""
        self.asked += 1
        information = event.action_information
        references = [
            Reference(
                sop_class_uid=str(item.ReferencedSOPClassUID), sop_instance_uid=str(item.ReferencedSOPInstanceUID)
            )
            for item in information.ReferencedSOPSequence
        ]
        if self.forgetful:
            self.forgetful = False
            here = len(self.peer.received)
            self.lost.update(
                (item.sop_instance_uid, here) for item in references if item.sop_class_uid == SegmentationStorage
            )
        arguments = (event.assoc, str(information.TransactionUID), references)
        telling = threading.Thread(target=self._tell, args=arguments)
        telling.start()
        self._threads.append(telling)
        return 0x0000, None

    def _tell(self, association: Association, transaction_uid: str, references: Sequence[Reference]) -> None:
        if self.node_port:
            self.report_to_node(transaction_uid, references)
            return
        threading.Event().wait(_BEHIND_S)
        committed, failed = self._look(references)
        kind = commitment.SOME_FAILED if failed else commitment.ALL_COMMITTED
        # The node may be gone.
        with contextlib.suppress(RuntimeError, ValueError):
            association.send_n_event_report(
                commitment.report(transaction_uid, committed, failed),
                kind, contexts.STORAGE_COMMITMENT, commitment.SOP_INSTANCE,
            )  # fmt: skip

    def report(self, event: Event) -> tuple[int, Dataset | None]:
        """N-EVENT-REPORT of the node, on what this archive asked it for."""
        self.told.append(commitment.report_of(event.event_information))
        return 0x0000, None


@contextlib.contextmanager
def vouching(ae_title: str) -> Iterator[Vouching]:
    """A running one."""
    made = Vouching(ae_title)
    handlers = [(evt.EVT_N_ACTION, made.question), (evt.EVT_N_EVENT_REPORT, made.report)]
    with peer(ae_title=ae_title, both_roles=(contexts.STORAGE_COMMITMENT,), handlers=handlers) as running:
        made.peer = running
        yield made
        made.settle()
