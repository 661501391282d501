"""Elements of a dataset: the same as pydicom reads, and a refusal of what is nested, long or cut off."""

import struct

import pytest
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset

from dicomguard.dimse import elements
from dicomguard.errors import Refused

REFERENCED = 0x00081199


def encoded(dataset: Dataset, *, explicit: bool) -> memoryview:
    stream = DicomBytesIO()
    stream.is_implicit_VR, stream.is_little_endian = not explicit, True
    write_dataset(stream, dataset)
    return memoryview(stream.getvalue())


def nested() -> Dataset:
    inner, item, whole = Dataset(), Dataset(), Dataset()
    inner.StudyDescription = "deep"
    item.ReferencedSOPInstanceUID = "1.2.3"
    item.PurposeOfReferenceCodeSequence = [inner]
    whole.TransactionUID = "2.25.7"
    whole.ReferencedSOPSequence = [item, Dataset()]
    whole.PatientName = "After"
    return whole


def listed(content: memoryview, *, explicit: bool) -> list[tuple[int, int, bytes | None]]:
    """All, with every sequence of `nested` entered."""
    walked = elements.walk(content, explicit=explicit, sequences=(REFERENCED, 0x0040A170))
    return [(one.depth, one.tag, None if one.value is None else bytes(one.value).strip(b" \0")) for one in walked]


EXPECTED = [
    (0, 0x00081195, b"2.25.7"),
    (0, REFERENCED, None),
    (1, elements.ITEM, None),
    (2, 0x00081155, b"1.2.3"),
    (2, 0x0040A170, None),
    (3, elements.ITEM, None),
    (4, 0x00081030, b"deep"),
    (1, elements.ITEM, None),
    (0, 0x00100010, b"After"),
]


@pytest.mark.parametrize("explicit", [False, True])
@pytest.mark.parametrize("undefined", [False, True])
def test_all_depths_in_both_syntaxes_with_and_without_lengths(explicit: bool, undefined: bool) -> None:
    whole = nested()
    for sequence in ("ReferencedSOPSequence",):
        whole[sequence].is_undefined_length = undefined
        for item in whole[sequence].value:
            item.is_undefined_length_sequence_item = undefined
    assert listed(encoded(whole, explicit=explicit), explicit=explicit) == EXPECTED


def test_a_sequence_of_unknown_kind_is_passed_over_when_it_has_a_length() -> None:
    content = encoded(nested(), explicit=True)
    assert [one.tag for one in elements.walk(content, explicit=True, sequences=())] == [
        0x00081195, REFERENCED, 0x00100010,
    ]  # fmt: skip


def test_an_unknown_vr_without_length_holds_implicit_items() -> None:
    """PS3.5 6.2.2, note 2."""
    inside = b"\xfe\xff\x00\xe0" + struct.pack("<I", 14) + b"\x08\x00\x55\x11" + struct.pack("<I", 6) + b"1.2.34"
    content = b"\x08\x00\x99\x11UN\0\0\xff\xff\xff\xff" + inside + b"\xfe\xff\xdd\xe0\0\0\0\0"
    assert listed(memoryview(content), explicit=True)[-1] == (2, 0x00081155, b"1.2.34")


def test_every_cut_through_an_element_is_refused() -> None:
    content = encoded(nested(), explicit=True)
    whole = {one[1] for one in listed(content, explicit=True)}
    assert len(whole) == 7
    refused = 0
    for length in range(1, len(content)):
        try:
            listed(content[:length], explicit=True)
        except Refused:
            refused += 1
    # Three elements outside of sequences: only behind the first and the second nothing is missing.
    assert refused == len(content) - 3


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ((b"\x08\x00\x99\x11" + b"\xff" * 4 + b"\xfe\xff\x00\xe0" + b"\xff" * 4) * 20, "sequences in sequences"),
        (struct.pack("<HHI", 9, 1, 0) * (elements.MOST_ELEMENTS + 1), "elements"),
        (b"\xfe\xff\x0d\xe0\0\0\0\0", "byte 8"),
        (b"\xfe\xff\x00\xe0\0\0\0\0", "byte 8"),
        (b"\x08\x00\x99\x11\x08\0\0\0" + b"\x08\x00\x55\x11\0\0\0\0", "byte 16"),
    ],
)
def test_what_is_no_dataset_is_refused(content: bytes, why: str) -> None:
    with pytest.raises(Refused, match=why):
        listed(memoryview(content), explicit=False)
