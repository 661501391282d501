"""Whether an instance is kept here whole, and what is said when the machine cannot tell."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest
from sqlalchemy import select

from dicomguard.core.commitment import NO_SUCH_INSTANCE, Reference
from dicomguard.errors import Shortage
from dicomguard.store import backlog, commitments
from dicomguard.store.db import Store
from dicomguard.store.tables import instance
from tests.instances import MR
from tests.keeping import receive


@pytest.fixture
def asked(store: Store, tmp_path: Path) -> Reference:
    """An instance that is kept."""
    receive(store, tmp_path / "in", slices=1)
    with store.read() as tx:
        return Reference(sop_class_uid=MR, sop_instance_uid=tx.execute(select(instance.c.sop_uid)).scalar_one())


def kept(store: Store) -> Path:
    with store.read() as tx:
        return store.root / str(tx.execute(select(instance.c.path)).scalar_one())


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENOMEM, errno.ESTALE, errno.EIO])
@pytest.mark.parametrize("where", ["header", "dataset"])
def test_a_shortage_of_ours_is_no_answer(
    store: Store, asked: Reference, monkeypatch: pytest.MonkeyPatch, number: int, where: str
) -> None:
    def short(*_: object, **__: object) -> Iterator[bytes]:
        raise OSError(number, os.strerror(number), "/state/store/x.dcm")

    if where == "header":
        monkeypatch.setattr(pydicom.filereader, "read_preamble", short)
    else:
        monkeypatch.setattr(backlog, "read_pieces", short)
    with pytest.raises(Shortage, match=os.strerror(number)) as raised:
        commitments.look(store, [asked])
    assert "x.dcm" not in str(raised.value)


@pytest.mark.parametrize("damage", ["gone", "torn", "no DICOM", "not ours to read"])
def test_what_is_not_kept_whole_is_told(
    store: Store, asked: Reference, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    path = kept(store)
    assert commitments.look(store, [asked]) == ([asked], {})
    if damage == "gone":
        path.unlink()
    elif damage == "torn":
        path.write_bytes(path.read_bytes()[:-2])
    elif damage == "no DICOM":
        path.write_bytes(b"x" * 10)
    else:

        def denied(*_: object, **__: object) -> Iterator[bytes]:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

        monkeypatch.setattr(backlog, "read_pieces", denied)
    assert commitments.look(store, [asked]) == ([], {asked: NO_SUCH_INSTANCE})
