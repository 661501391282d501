"""Datasets of the Storage Commitment Push Model (PS3.4 J.3): read from bytes of a stranger, and made."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from io import BytesIO

from pydicom import config as pydicom_config
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset
from pydicom.uid import ImplicitVRLittleEndian

from dicomguard.core.commitment import PROCESSING_FAILURE, Reference, Report
from dicomguard.errors import Refused

# Well-known (PS3.4 J.3.5).
SOP_INSTANCE = "1.2.840.10008.1.20.1.1"
# Action Type ID of the request, Event Type IDs of the report (PS3.4 J.3.2, J.3.3).
REQUEST = 1
ALL_COMMITTED, SOME_FAILED = 1, 2
# Beyond it one request would keep the worker from everything else.
MOST_REFERENCES = 20_000
_UID_CHARACTERS = 64


def read_request(content: bytes, transfer_syntax: str) -> tuple[str, tuple[Reference, ...]]:
    """Transaction UID, and what is to be committed. Raises `Refused`."""
    with _refusing():
        dataset = _dataset(content, transfer_syntax)
        transaction_uid, references = _transaction(dataset), _references(dataset, "ReferencedSOPSequence")
    if not references:
        raise Refused("The request for storage commitment names no instance. Correct it at its sender.")
    return transaction_uid, references


def read_report(content: bytes, transfer_syntax: str) -> Report:
    """What the N-EVENT-REPORT says. Raises `Refused`."""
    with _refusing():
        return report_of(_dataset(content, transfer_syntax))


def report_of(dataset: Dataset) -> Report:
    """The same of a dataset that was decoded. Raises `Refused`."""
    with _refusing():
        failed = _references(dataset, "FailedSOPSequence")
        reasons = [item.get("FailureReason") for item in dataset.get("FailedSOPSequence") or ()]
        return Report(
            transaction_uid=_transaction(dataset),
            committed=_references(dataset, "ReferencedSOPSequence"),
            failed={
                reference: reason if isinstance(reason, int) else PROCESSING_FAILURE
                for reference, reason in zip(failed, reasons, strict=True)
            },
        )


@contextmanager
def _refusing() -> Iterator[None]:
    """A stranger's bytes in a decoder that raises whatever it stumbles over, also when a value is first looked at."""
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


def _dataset(content: bytes, transfer_syntax: str) -> Dataset:
    # What is wrong with a value shows where it is used.
    pydicom_config.settings.reading_validation_mode = pydicom_config.IGNORE
    return read_dataset(BytesIO(content), transfer_syntax == ImplicitVRLittleEndian, True)


def _transaction(dataset: Dataset) -> str:
    value = _uid(dataset, "TransactionUID")
    if not value:
        raise Refused("The storage commitment has no Transaction UID. Correct it at its sender.")
    return value


def _references(dataset: Dataset, keyword: str) -> tuple[Reference, ...]:
    items = list(dataset.get(keyword) or ())
    if len(items) > MOST_REFERENCES:
        raise Refused(f"The storage commitment names {len(items)} instances. Ask for {MOST_REFERENCES} at most.")
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
