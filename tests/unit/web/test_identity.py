"""The name on the page is the one that the PACS shows, in any character set."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag

from dicomguard.clock import SystemClock
from dicomguard.core.instance import Instance
from dicomguard.store.db import open_store
from dicomguard.web.identity import Identities
from tests import studies


@pytest.mark.parametrize(
    ("charset", "value", "name"),
    [
        ("ISO_IR 192", "Probe^Käthe^^Dr ".encode(), "Probe, Käthe"),
        # 本 holds the byte of "\" in this set, 純 that of "=".
        ("\\ISO 2022 IR 87", b"\x1b$B;3K\\\x1b(B^\x1b$BB@O:\x1b(B=Yamamoto^Taro", "山本, 太郎"),
        ("\\ISO 2022 IR 87", b"\x1b$BEDCf\x1b(B^\x1b$B=c\x1b(B", "田中, 純"),
        ("ISO_IR 100", b"", "P1"),
    ],
)
def test_names_are_read_in_their_character_set(tmp_path: Path, charset: str, value: bytes, name: str) -> None:
    ds = studies.series(1)[0]
    ds.SpecificCharacterSet = charset.split("\\")
    ds.PatientID = "P1"
    tag = Tag("PatientName")
    del ds[tag]
    if value:
        ds[tag] = RawDataElement(tag, "PN", len(value), value, 0, False, True)
    root = tmp_path / "state"
    (path,) = studies.save(root / "files", [ds])
    store = open_store(root, f"sqlite:///{root}/db.sqlite", SystemClock())
    kept = Instance(
        sop_instance_uid="1",
        sop_class_uid=studies.MR,
        study_instance_uid="1",
        series_instance_uid="1",
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        sha256="",
        size_bytes=1,
        path=str(path.relative_to(root)),
        calling_ae="",
        called_ae="",
        address="",
        received_at=datetime(2026, 1, 2, tzinfo=UTC),
    )
    assert Identities(store).of(kept).title == name
    assert Identities(store).of(None).title == "No patient name"
    store.close()
