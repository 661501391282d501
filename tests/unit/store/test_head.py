"""The scan says what pydicom says, or nothing."""

import io

import numpy as np
import pytest

from dicomguard import part10
from dicomguard.errors import Refused
from dicomguard.store import head, identity
from dicomguard.store.identity import Identity, read_identity
from tests.fuzz import datasets
from tests.instances import part10_bytes


def parsed(data: bytes, monkeypatch: pytest.MonkeyPatch) -> Identity | str:
    """By pydicom alone."""
    with monkeypatch.context() as patch:
        patch.setattr(head, "scan", lambda file, wanted: None)
        try:
            return read_identity(io.BytesIO(data))
        except Refused as error:
            return str(error)


def scanned(data: bytes) -> dict[int, bytes] | None:
    found = head.scan(io.BytesIO(data), identity._TAGS)
    return found if found is not None and found.keys() >= identity._NEEDED else None


def test_an_ordinary_image_needs_no_parser(monkeypatch: pytest.MonkeyPatch) -> None:
    for syntax in ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1"):
        data = part10_bytes(syntax=syntax, SeriesNumber="", ImagePositionPatient=[0.0, 1.5, -2], ImageType=["A", "B"])
        assert scanned(data) is not None
        assert read_identity(io.BytesIO(data)) == parsed(data, monkeypatch)


def test_a_file_that_was_just_written_stands_at_its_end() -> None:
    file = io.BytesIO()
    file.write(part10_bytes())
    assert read_identity(file) == read_identity(io.BytesIO(part10_bytes()))


def test_no_parser_is_asked_for_a_plain_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(part10, "read_dataset_head_of", None)
    file = io.BytesIO()
    file.write(part10_bytes())
    assert read_identity(file).modality == "MR"


@pytest.mark.filterwarnings("ignore")
def test_scan_and_parser_agree_on_whatever_the_scan_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    mutator = datasets.Mutator(datasets.seeds(), np.random.default_rng(41))
    mutants = [seed.data for seed in mutator.seeds] + [mutant.data for mutant in mutator.mutants(250)]
    answered = 0
    for data in mutants:
        if scanned(data) is None:
            continue
        answered += 1
        other = parsed(data, monkeypatch)
        # What pydicom refuses lies behind the values that are wanted; it shows when the header is read.
        assert isinstance(other, str) or read_identity(io.BytesIO(data)) == other
    assert answered > 100


def test_names_in_other_alphabets_are_left_to_the_parser() -> None:
    assert scanned(part10_bytes(PatientName="Müller^Ä", SpecificCharacterSet="ISO_IR 100")) is None
    assert scanned(part10_bytes(PatientName="Miller^A", SpecificCharacterSet="ISO_IR 100")) is not None
