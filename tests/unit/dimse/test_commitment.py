"""Datasets of storage commitment: what is made is read back, and what a stranger sends is refused and never a fault."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from dicomguard.core.commitment import Reference
from dicomguard.dimse import commitment
from dicomguard.errors import Refused

REFERENCES = [Reference(sop_class_uid="1.2.4", sop_instance_uid=f"2.25.{number}") for number in range(4)]
SYNTAXES = (ImplicitVRLittleEndian, ExplicitVRLittleEndian)


def encoded(dataset: Dataset, syntax: str) -> bytes:
    stream = DicomBytesIO()
    stream.is_implicit_VR, stream.is_little_endian = syntax == ImplicitVRLittleEndian, True
    write_dataset(stream, dataset)
    return stream.getvalue()


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_what_is_made_is_read_back(syntax: str) -> None:
    asked = encoded(commitment.request("2.25.7", REFERENCES), syntax)
    assert commitment.read_request(memoryview(asked), syntax) == ("2.25.7", tuple(REFERENCES))
    failed = dict.fromkeys(REFERENCES[1:], 0x0112)
    report = commitment.read_report(
        memoryview(encoded(commitment.report("2.25.7", REFERENCES[:1], failed), syntax)), syntax
    )
    assert (report.transaction_uid, report.committed, report.failed) == ("2.25.7", tuple(REFERENCES[:1]), failed)


def test_a_reason_that_is_no_number_is_a_processing_failure() -> None:
    report = commitment.report("2.25.7", [], {REFERENCES[0]: 0x0112})
    del report.FailedSOPSequence[0].FailureReason
    assert commitment.report_of(report).failed == {REFERENCES[0]: 0x0110}


def test_a_request_without_a_transaction_or_an_instance_is_refused() -> None:
    for dataset, why in (
        (commitment.request("2.25.7", []), "names no instance"),
        (commitment.request("", REFERENCES), "no Transaction UID"),
    ):
        with pytest.raises(Refused, match=why):
            commitment.read_request(memoryview(encoded(dataset, ImplicitVRLittleEndian)), ImplicitVRLittleEndian)


@pytest.mark.filterwarnings("ignore::UserWarning")
@given(st.sampled_from(SYNTAXES), st.integers(0, 500), st.binary(max_size=12), st.integers(0, 12))
def test_whatever_is_sent_is_read_or_refused(syntax: str, at: int, put: bytes, cut: int) -> None:
    failed = dict.fromkeys(REFERENCES[2:], 0x0112)
    content = encoded(commitment.report("2.25.7", REFERENCES[:2], failed), syntax)
    content = content[:at] + put + content[at + cut :]
    for read in (commitment.read_request, commitment.read_report):
        try:
            read(memoryview(content), syntax)
        except Refused as error:
            assert str(error)
