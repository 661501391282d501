"""A scripted storage SCP: answers each SOP class as it is told, late or not at all; what it got is kept."""

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, evt
from pynetdicom.events import Event
from pynetdicom.sop_class import (
    Comprehensive3DSRStorage,
    ComprehensiveSRStorage,
    CTImageStorage,
    MRImageStorage,
    SegmentationStorage,
    Verification,
)

CLASSES = (
    SegmentationStorage,
    Comprehensive3DSRStorage,
    ComprehensiveSRStorage,
    MRImageStorage,
    CTImageStorage,
    Verification,
)
ABORT = -1


@dataclass
class Peer:
    """A running SCP."""

    port: int
    # SOP Instance UIDs in the order of arrival, with the bytes of the dataset and its transfer syntax.
    received: list[tuple[str, bytes, str]] = field(default_factory=list)
    associations: int = 0

    def uids(self) -> list[str]:
        """SOP Instance UIDs in the order of arrival."""
        return [uid for uid, _, _ in self.received]


@contextlib.contextmanager
def peer(
    *,
    ae_title: str = "ARCHIVE",
    classes: tuple[str, ...] = CLASSES,
    syntaxes: tuple[str, ...] = (ExplicitVRLittleEndian, ImplicitVRLittleEndian),
    status: Mapping[str, int] | Callable[[str, int], int] | None = None,
    delay_s: float = 0.0,
    check_called: bool = False,
    calling: tuple[str, ...] = (),
    port: int = 0,
    both_roles: tuple[str, ...] = (),
    handlers: Sequence[tuple[Any, Callable[[Event], Any]]] = (),
) -> Iterator[Peer]:
    """`status` maps a SOP class (or a function of SOP class and number of the arrival) to a status, or to `ABORT`.

    `handlers` serve what is not C-STORE and C-ECHO, of the classes `both_roles` as SCU or SCP.
    """
    ae = AE(ae_title=ae_title)
    ae.require_called_aet = check_called
    ae.require_calling_aet = list(calling)
    for sop_class in classes:
        ae.add_supported_context(sop_class, list(syntaxes))
    for sop_class in both_roles:
        ae.add_supported_context(sop_class, scu_role=True, scp_role=True)
    running = Peer(port=port)
    stop = threading.Event()

    def store(event: Event) -> int | Dataset:
        sop_class = str(event.request.AffectedSOPClassUID)
        stop.wait(delay_s)
        answer = status(sop_class, len(running.received)) if callable(status) else (status or {}).get(sop_class, 0)
        if answer == ABORT:
            event.assoc.abort()
            return 0x0110
        running.received.append(
            (
                str(event.request.AffectedSOPInstanceUID),
                event.request.DataSet.getvalue(),
                str(event.context.transfer_syntax),
            )
        )
        if answer == 0:
            return 0
        said = Dataset()
        said.Status = answer
        said.ErrorComment = "as scripted"
        return said

    def opened(_event: Event) -> None:
        running.associations += 1

    own = [(evt.EVT_C_STORE, store), (evt.EVT_C_ECHO, lambda _: 0), (evt.EVT_ACCEPTED, opened)]
    server = ae.start_server(("127.0.0.1", port), block=False, evt_handlers=[*own, *handlers])
    running.port = server.server_address[1]
    try:
        yield running
    finally:
        stop.set()
        server.shutdown()


@contextlib.contextmanager
def mute() -> Iterator[int]:
    """A port that accepts connections and never says a word."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(8)
        yield int(listener.getsockname()[1])


def until(ready: Callable[[], bool], seconds: float) -> float:
    """Seconds until it was ready, or fail."""
    began = time.monotonic()
    while not ready():
        assert time.monotonic() - began < seconds, "it took too long"
        time.sleep(0.02)
    return time.monotonic() - began
