"""C-STORE as SCU (PS3.4 B.2): kept files go out unchanged, each gets its own answer.

pynetdicom tells one failure in three shapes: `send_c_store` returns an empty status on a time-out or abort, raises
RuntimeError when the association is already gone, and ValueError without a fitting context. Here it is one result.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from pydicom import dcmread
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_file_meta_info
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)
from pynetdicom import _config
from pynetdicom.association import Association
from pynetdicom.presentation import PresentationContext, build_context

from dicomguard.core.delivery import ENDS_ATTEMPT, Answer, Event, classify
from dicomguard.core.peer import Destination
from dicomguard.deliver.association import NotAssociated, Timeouts, associate
from dicomguard.dimse.status import sentence
from dicomguard.errors import Refused

# PS3.8 7.1.1.13: context ids are the odd numbers of one byte.
MAX_CONTEXTS = 128
# What can be written in another of these without touching a value.
_UNCOMPRESSED = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian)
_PLAIN = (ExplicitVRLittleEndian, ImplicitVRLittleEndian)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """One file and what became of it."""

    path: Path
    sop_instance_uid: str
    answer: Answer


@dataclass(frozen=True, slots=True, kw_only=True)
class _File:
    path: Path
    sop_class_uid: UID
    sop_instance_uid: str
    transfer_syntax_uid: UID


def send(
    files: Sequence[Path],
    destination: Destination,
    *,
    calling_ae: str,
    timeouts: Timeouts | None = None,
    on_sent: Callable[[Sent], None] | None = None,
) -> list[Sent]:
    """Send the files in order over as few associations as their presentation contexts allow, one answer a file.

    After an answer that ends the attempt (busy, silent, rejected) the rest is not tried and has no entry.
    Raises `Refused` for a path that is no DICOM file.
    """
    # The file's own bytes go out; the default reads and encodes the dataset anew.
    _config.STORE_SEND_CHUNKED_DATASET = True
    sent: list[Sent] = []
    for batch in _batches([_read(path) for path in files]):
        contexts = _contexts(batch)
        with associate(destination, contexts, calling_ae=calling_ae, timeouts=timeouts or Timeouts()) as peer:
            for number, file in zip(count(1), batch, strict=False):
                answer = (
                    Answer(event=peer.event, comment=peer.sentence)
                    if isinstance(peer, NotAssociated)
                    else _store(peer, file, message_id=(number - 1) % 65535 + 1)
                )
                sent.append(Sent(path=file.path, sop_instance_uid=file.sop_instance_uid, answer=answer))
                if on_sent is not None:
                    on_sent(sent[-1])
                if answer.event in ENDS_ATTEMPT:
                    return sent
    return sent


def _read(path: Path) -> _File:
    try:
        meta = read_file_meta_info(path)
        return _File(
            path=path,
            sop_class_uid=meta.MediaStorageSOPClassUID,
            sop_instance_uid=str(meta.MediaStorageSOPInstanceUID),
            transfer_syntax_uid=meta.TransferSyntaxUID,
        )
    except (InvalidDicomError, AttributeError, EOFError):
        raise Refused(f"{path.name} is no DICOM file (PS3.10). Leave it out.") from None
    except OSError as error:
        raise Refused(f"{path.name} cannot be read: {error.strerror}. Check the path and its rights.") from None


def _batches(files: Sequence[_File]) -> Iterator[list[_File]]:
    """Runs of files whose presentation contexts fit into one association."""
    batch: list[_File] = []
    for file in files:
        if batch and len(_wanted([*batch, file])) > MAX_CONTEXTS:
            yield batch
            batch = []
        batch.append(file)
    if batch:
        yield batch


def _wanted(files: Sequence[_File]) -> dict[tuple[UID, UID], None]:
    """(SOP class, transfer syntax) in order, each a context of its own so that the peer's choice is known."""
    wanted: dict[tuple[UID, UID], None] = {}
    for file in files:
        wanted[file.sop_class_uid, file.transfer_syntax_uid] = None
        if file.transfer_syntax_uid in _UNCOMPRESSED:
            for syntax in _PLAIN:
                wanted.setdefault((file.sop_class_uid, syntax))
    return wanted


def _contexts(files: Sequence[_File]) -> list[PresentationContext]:
    return [build_context(sop_class, syntax) for sop_class, syntax in _wanted(files)]


def _store(peer: Association, file: _File, *, message_id: int) -> Answer:
    accepted = {
        context.transfer_syntax[0]
        for context in peer.accepted_contexts
        if context.abstract_syntax == file.sop_class_uid and context.transfer_syntax
    }
    if not accepted:
        return Answer(event=Event.NO_CONTEXT, comment=f"not accepted: {file.sop_class_uid.name}")
    try:
        if file.transfer_syntax_uid in accepted:
            status = peer.send_c_store(file.path, msg_id=message_id)
        elif file.transfer_syntax_uid in _UNCOMPRESSED:
            # Same values, another encoding (PS3.5 A): archives that take only Implicit VR Little Endian.
            status = peer.send_c_store(dcmread(file.path), msg_id=message_id)
        else:
            return Answer(event=Event.NO_CONTEXT, comment=f"not accepted: {file.transfer_syntax_uid.name}")
    except RuntimeError:
        return Answer(event=Event.SILENT, comment="the association is gone")
    except ValueError:
        return Answer(event=Event.NO_CONTEXT, comment="no presentation context fits")
    if "Status" not in status:
        return Answer(event=Event.SILENT, comment="no answer, or the peer aborted")
    word = int(status.Status)
    own_words = str(status.get("ErrorComment", "")).strip()
    comment = "" if word == 0 else sentence(word) + (f" It says: {own_words}" if own_words else "")
    return Answer(event=classify(word), status=word, comment=comment)
