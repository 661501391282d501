"""What results are built from: of several copies under one UID, the header of the one that was analysed."""

import errno
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest

from dicomguard.analyze import folder
from dicomguard.clock import SystemClock
from dicomguard.core.verdict import ModelScope
from dicomguard.errors import Shortage
from dicomguard.flow import kept
from dicomguard.store.db import open_store
from tests import studies

SCOPE = ModelScope(modalities=("MR",), body_parts=("HEAD",), sequences=("flair",))


@pytest.mark.parametrize("at", [None, 900.0])
def test_the_head_is_of_the_copy_that_was_analysed(tmp_path: Path, at: float | None) -> None:
    """The other copy has another name and matrix; it lies at the same place, or at one of its own."""
    datasets, other = studies.series(3), studies.series(3)[0]
    other.PatientName = "Other^Copy"
    other.Rows = other.Columns = 64
    studies.put_pixels(other, np.zeros((64, 64), np.uint16))
    if at is not None:
        other.ImagePositionPatient = [0, 0, at]
    root = tmp_path / "state"
    studies.save(root / "files", [*datasets, other])
    ((uid, copies),) = folder.gather([root / "files"]).studies.items()
    inside = [(header, replace(copy, path=f"files/{Path(copy.path).name}")) for header, copy in copies]
    manifest = folder.manifest_of(uid, inside, rules=(), scope=SCOPE)
    assert len(manifest.conflicts) == 2
    store = open_store(root, f"sqlite:///{root}/db.sqlite", SystemClock())
    heads = kept.dataset_heads(store, manifest)
    store.close()
    assert {int(head.Rows) for head in heads.values()} == {int(datasets[0].Rows)}
    assert not any("Other" in str(head.PatientName) for head in heads.values())


def test_a_disk_that_stumbles_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be read for the moment is not unreadable; a damaged file is."""
    root = tmp_path / "state"
    (path,) = studies.save(root / "files", studies.series(1))
    store = open_store(root, f"sqlite:///{root}/db.sqlite", SystemClock())
    ((_, ((_, copy),)),) = folder.gather([path]).studies.items()
    inside = replace(copy, path=f"files/{path.name}")

    def fails(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as faulty:
        faulty.setattr(pydicom, "dcmread", fails)
        for read in (kept.header, lambda store, item: kept.dataset_head(store, item.path)):
            with pytest.raises(Shortage):
                read(store, inside)
    assert kept.header(store, inside).rows == 128
    path.write_bytes(path.read_bytes()[:200])
    assert kept.header(store, inside).rows == 0
    store.close()
