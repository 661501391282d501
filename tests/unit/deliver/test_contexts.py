"""Which presentation contexts are proposed, and how files are spread over associations."""

from pathlib import Path

import pytest
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEG2000Lossless

from dicomguard.cli.send import parse_target
from dicomguard.deliver import storage
from dicomguard.errors import Refused


def file(sop_class: str, syntax: UID) -> storage._File:
    return storage._File(
        path=Path("x"), sop_class_uid=UID(sop_class), sop_instance_uid="1.2.3", transfer_syntax_uid=syntax
    )


def test_uncompressed_files_offer_both_plain_syntaxes_and_compressed_ones_only_their_own() -> None:
    wanted = storage._wanted([file("1.2", ExplicitVRLittleEndian), file("1.3", JPEG2000Lossless)])
    assert list(wanted) == [
        ("1.2", ExplicitVRLittleEndian),
        ("1.2", ImplicitVRLittleEndian),
        ("1.3", JPEG2000Lossless),
    ]


def test_no_association_has_more_contexts_than_the_standard_allows() -> None:
    files = [file(f"1.2.{number}", ExplicitVRLittleEndian) for number in range(150)]
    batches = list(storage._batches(files))
    assert [len(batch) for batch in batches] == [64, 64, 22]
    assert [item for batch in batches for item in batch] == files
    assert list(storage._batches([])) == []


@pytest.mark.parametrize(
    ("text", "host", "port"), [("PACS@10.0.0.1:104", "10.0.0.1", 104), ("PACS@[::1]:11112", "::1", 11112)]
)
def test_targets(text: str, host: str, port: int) -> None:
    target = parse_target(text)
    assert (target.ae_title, target.host, target.port) == ("PACS", host, port)


@pytest.mark.parametrize("text", ["", "PACS", "PACS@host", "PACS@:104", "PACS@host:x", "@host:1", "PACS@host:0"])
def test_targets_that_name_nobody(text: str) -> None:
    with pytest.raises(Refused):
        parse_target(text)
