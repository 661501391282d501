from hypothesis import example, given
from hypothesis import strategies as st
from pydicom.uid import UID

from dicomguard.core.delivery import Event, classify
from dicomguard.dimse.contexts import IMAGE_CLASSES, STORAGE_CLASSES, TRANSFER_SYNTAXES
from dicomguard.dimse.status import sentence

# The classes that a node of this kind has to take.
WANTED = {
    "CT Image Storage", "MR Image Storage", "Enhanced CT Image Storage", "Enhanced MR Image Storage",
    "Computed Radiography Image Storage", "Digital X-Ray Image Storage - For Presentation",
    "Ultrasound Image Storage", "Ultrasound Multi-frame Image Storage",
    "Digital Mammography X-Ray Image Storage - For Presentation", "Secondary Capture Image Storage",
    "Segmentation Storage", "Comprehensive 3D SR Storage", "Encapsulated PDF Storage",
}  # fmt: skip


def test_the_classes_are_of_the_standard_and_all_wanted_are_there() -> None:
    names = {UID(uid).name for uid in STORAGE_CLASSES}
    assert names >= WANTED
    # Label Map Segmentation is younger than the dictionary of pydicom 3.0.2.
    assert [uid for uid in STORAGE_CLASSES if UID(uid).type != "SOP Class"] == ["1.2.840.10008.5.1.4.1.1.66.7"]
    assert set(STORAGE_CLASSES) >= IMAGE_CLASSES


def test_the_syntaxes_are_of_the_standard_and_plain_ones_come_first() -> None:
    assert all(UID(uid).is_transfer_syntax for uid in TRANSFER_SYNTAXES)
    assert [UID(uid).is_compressed for uid in TRANSFER_SYNTAXES] == [False, False, *[True] * 9]
    assert not any(UID(uid).is_deflated for uid in TRANSFER_SYNTAXES)


@given(st.integers(0, 0xFFFF))
@example(0x0213)
def test_every_word_has_a_sentence_and_agrees_with_the_delivery(code: int) -> None:
    said = sentence(code)
    assert said.endswith(".")
    # The page shows the sentence beside what followed from the word.
    delivered = classify(code) in (Event.STORED, Event.STORED_WITH_WARNING)
    assert delivered == said.startswith("The peer stored the instance")
    assert (classify(code) is Event.BUSY) == (said == "The peer is out of resources.")
