"""Datasets of the Storage Commitment Push Model (PS3.4 J.3): read from bytes of a stranger, and made."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from pydicom.dataset import Dataset
from pydicom.uid import ImplicitVRLittleEndian

from dicomguard.core.commitment import PROCESSING_FAILURE, Reference, Report
from dicomguard.dimse import elements
from dicomguard.errors import Refused

# Well-known (PS3.4 J.3.5).
SOP_INSTANCE = "1.2.840.10008.1.20.1.1"
# Action Type ID of the request, Event Type IDs of the report (PS3.4 J.3.2, J.3.3).
REQUEST = 1
ALL_COMMITTED, SOME_FAILED = 1, 2
# Beyond it one request would keep the worker from everything else.
MOST_REFERENCES = 20_000
_UID_CHARACTERS = 64
_TRANSACTION, _REFERENCED, _FAILED = 0x00081195, 0x00081199, 0x00081198
_CLASS, _INSTANCE, _REASON = 0x00081150, 0x00081155, 0x00081197


class TooMany(Refused):
    """More instances than one request may name."""


def read_request(content: memoryview, transfer_syntax: str) -> tuple[str, tuple[Reference, ...]]:
    """Transaction UID, and what is to be committed. Raises `Refused`, `TooMany`."""
    said = _read(content, transfer_syntax)
    if not said.referenced:
        raise Refused("The request for storage commitment names no instance. Correct it at its sender.")
    return _checked(said.transaction_uid), tuple(said.referenced)


def read_report(content: memoryview, transfer_syntax: str) -> Report:
    """What the N-EVENT-REPORT says. Raises `Refused`, `TooMany`."""
    said = _read(content, transfer_syntax)
    return Report(transaction_uid=_checked(said.transaction_uid), committed=tuple(said.referenced), failed=said.failed)


@dataclass
class _Said:
    """What is known of a dataset that is being read."""

    transaction_uid: str = ""
    referenced: list[Reference] = field(default_factory=list)
    failed: dict[Reference, int] = field(default_factory=dict)
    # Sequence and item that are being gone through.
    sequence: int = 0
    item: dict[int, bytes] | None = None

    def close_item(self) -> None:
        """It has ended."""
        item, self.item = self.item, None
        if item is None:
            return
        if max(len(self.referenced), len(self.failed)) >= MOST_REFERENCES:
            raise TooMany(f"more than {MOST_REFERENCES} instances; ask for fewer at once")
        reference = Reference(sop_class_uid=_text(item.get(_CLASS)), sop_instance_uid=_text(item.get(_INSTANCE)))
        if self.sequence == _REFERENCED:
            self.referenced.append(reference)
        else:
            reason = item.get(_REASON, b"")
            self.failed[reference] = int.from_bytes(reason, "little") if len(reason) == 2 else PROCESSING_FAILURE


def _read(content: memoryview, transfer_syntax: str) -> _Said:
    """Without a parser: an item of eight bytes would become a kilobyte, and this runs where memory is small."""
    said = _Said()
    explicit = transfer_syntax != ImplicitVRLittleEndian
    for element in elements.walk(content, explicit=explicit, sequences=(_REFERENCED, _FAILED)):
        if element.depth < 2:
            said.close_item()
        if element.depth == 0:
            said.sequence = element.tag
            if element.tag == _TRANSACTION and element.value is not None:
                said.transaction_uid = _text(bytes(element.value))
        elif said.sequence not in (_REFERENCED, _FAILED):
            continue
        elif element.depth == 1:
            said.item = {}
        elif element.depth == 2 and said.item is not None and element.tag in (_CLASS, _INSTANCE, _REASON):
            said.item[element.tag] = bytes((element.value or b"")[:_UID_CHARACTERS])
    said.close_item()
    return said


def _text(value: bytes | None) -> str:
    """A UID as it was sent, in so far as it is text (PS3.5 9.1)."""
    text = (value or b"")[:_UID_CHARACTERS].strip(b" \0")
    if not text.isascii() or not text.decode("ascii").isprintable():
        raise Refused("The storage commitment has a UID that is no text. Correct it at its sender.")
    return text.decode("ascii")


def _checked(transaction_uid: str) -> str:
    if not transaction_uid:
        raise Refused("The storage commitment has no Transaction UID. Correct it at its sender.")
    return transaction_uid


def report_of(dataset: Dataset) -> Report:
    """The same of a dataset that a library has decoded. Raises `Refused`, `TooMany`."""
    with _refusing():
        failed = _references(dataset, "FailedSOPSequence")
        reasons = [item.get("FailureReason") for item in dataset.get("FailedSOPSequence") or ()]
        return Report(
            transaction_uid=_checked(_uid(dataset, "TransactionUID")),
            committed=_references(dataset, "ReferencedSOPSequence"),
            failed={
                reference: reason if isinstance(reason, int) else PROCESSING_FAILURE
                for reference, reason in zip(failed, reasons, strict=True)
            },
        )


@contextmanager
def _refusing() -> Iterator[None]:
    """What a decoder raises about a stranger's bytes when a value is first looked at."""
    try:
        yield
    except Refused:
        raise
    except Exception as error:  # noqa: BLE001 -- as said
        raise Refused(f"The dataset of the storage commitment cannot be read ({type(error).__name__}).") from None


def request(transaction_uid: str, references: Iterable[Reference]) -> Dataset:
    """Action Information of the N-ACTION."""
    dataset = Dataset()
    dataset.TransactionUID = transaction_uid
    dataset.ReferencedSOPSequence = [_item(reference) for reference in references]
    return dataset


def report(transaction_uid: str, committed: Iterable[Reference], failed: Mapping[Reference, int]) -> Dataset:
    """Event Information of the N-EVENT-REPORT; a sequence without items is left out (both are 1C)."""
    dataset = Dataset()
    dataset.TransactionUID = transaction_uid
    if items := [_item(reference) for reference in committed]:
        dataset.ReferencedSOPSequence = items
    if failed:
        dataset.FailedSOPSequence = [_failed(reference, reason) for reference, reason in failed.items()]
    return dataset


def _references(dataset: Dataset, keyword: str) -> tuple[Reference, ...]:
    items = list(dataset.get(keyword) or ())
    if len(items) > MOST_REFERENCES:
        raise TooMany(f"{len(items)} instances; ask for {MOST_REFERENCES} at most")
    return tuple(
        Reference(
            sop_class_uid=_uid(item, "ReferencedSOPClassUID"),
            sop_instance_uid=_uid(item, "ReferencedSOPInstanceUID"),
        )
        for item in items
    )


def _uid(dataset: Dataset, keyword: str) -> str:
    return str(dataset.get(keyword) or "").strip(" \0")[:_UID_CHARACTERS]


def _item(reference: Reference) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = reference.sop_class_uid
    item.ReferencedSOPInstanceUID = reference.sop_instance_uid
    return item


def _failed(reference: Reference, reason: int) -> Dataset:
    item = _item(reference)
    item.FailureReason = reason
    return item
