"""C-ECHO as SCU (PS3.4 A.4): does an AE answer."""

from dataclasses import dataclass

from pynetdicom.presentation import build_context
from pynetdicom.sop_class import Verification

from dicomguard.clock import Clock
from dicomguard.core.peer import Destination
from dicomguard.deliver.association import NotAssociated, Timeouts, associate


@dataclass(frozen=True, slots=True, kw_only=True)
class EchoResult:
    """Whether the AE answered, and what there is to say."""

    answered: bool
    sentence: str
    # From connecting to the answer.
    seconds: float


def echo(destination: Destination, *, calling_ae: str, clock: Clock, timeouts: Timeouts | None = None) -> EchoResult:
    """One association, one C-ECHO."""
    name = f"{destination.ae_title} at {destination.host}:{destination.port}"
    started = clock.monotonic()
    with associate(
        destination, [build_context(Verification)], calling_ae=calling_ae, timeouts=timeouts or Timeouts()
    ) as peer:
        if isinstance(peer, NotAssociated):
            return EchoResult(answered=False, sentence=peer.sentence, seconds=clock.monotonic() - started)
        status = peer.send_c_echo()
        seconds = clock.monotonic() - started
    if "Status" not in status:
        return EchoResult(answered=False, sentence=f"{name} did not answer. Try again later.", seconds=seconds)
    if status.Status != 0:
        sentence = f"{name} answered with status 0x{status.Status:04X}. Ask its administrator."
        return EchoResult(answered=False, sentence=sentence, seconds=seconds)
    return EchoResult(answered=True, sentence=f"{name} answers.", seconds=seconds)
