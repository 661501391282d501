"""What the analysis child answers when a job does not end with a verdict: the family says what its caller does next."""

import errno
import os
from typing import Any, cast

import pytest

from dicomguard import child
from dicomguard.analyze import __main__ as entry
from dicomguard.analyze import client
from dicomguard.errors import Broken, DicomguardError, Refused, Shortage, Unavailable


class Failing:
    """In the worker's place."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def do(self, *_: object) -> None:
        raise self._error


def reply(error: Exception, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setattr(entry, "_job", lambda message: None)
    heart = entry._Heart(cast(child.Channel, None))
    return entry._reply(cast(entry._Worker, Failing(error)), {}, heart)


def caused(error: DicomguardError, number: int) -> DicomguardError:
    error.__cause__ = OSError(number, os.strerror(number))
    return error


@pytest.mark.parametrize(
    ("error", "family"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "/state/jobs/masks.npz.part"), Shortage),
        (caused(Broken("A file of the study cannot be read. Look."), errno.EIO), Shortage),
        (caused(Refused("The weights cannot be read. Give others."), errno.EMFILE), Shortage),
        (Broken("A hash differs. Look."), Broken),
        (Refused("No weights. Give some."), Refused),
        (Unavailable("One slice does not fit the device. Use another."), Unavailable),
        (MemoryError(), Unavailable),
    ],
)
def test_the_family_of_a_failed_job(
    error: Exception, family: type[DicomguardError], monkeypatch: pytest.MonkeyPatch
) -> None:
    said = reply(error, monkeypatch)
    assert client._FAMILIES[said["error"]] is family
    assert "masks.npz" not in said["message"]


def test_an_error_that_stays_is_a_fault_of_the_top(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(PermissionError):
        reply(PermissionError(errno.EACCES, "Permission denied"), monkeypatch)
