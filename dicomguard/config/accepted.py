"""The configuration that a node has accepted, as its processes are given it.

A process that is started again hours later has to run on what the others run on, not on what the file holds by then.
So the node keeps it in memory behind a descriptor that its processes inherit: there is no copy on a disk that could be
full, stale, or read by others for a password in it.
"""

import fcntl
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from dicomguard.config.sections import SECTIONS, Config
from dicomguard.errors import Refused

_NAME = "accepted:"


class Accepted:
    """The node's side; closed with the object."""

    def __init__(self, config: Config) -> None:
        self._file = os.fdopen(os.memfd_create("dicomguard-configuration", os.MFD_CLOEXEC), "r+b", buffering=0)
        self.put(config)

    @property
    def descriptor(self) -> int:
        """What a process has to inherit."""
        return self._file.fileno()

    @property
    def name(self) -> Path:
        """What it is given in place of the file, for `load`."""
        return Path(f"{_NAME}{self.descriptor}")

    def put(self, config: Config) -> None:
        """From now on this one; a process that reads meanwhile gets the one or the other, whole."""
        kept = {"file": None if config.file is None else str(config.file), "tables": _tables(config)}
        text = json.dumps(kept, default=str).encode()
        with _locked(self.descriptor, fcntl.LOCK_EX):
            os.pwrite(self.descriptor, text, 0)
            os.ftruncate(self.descriptor, len(text))

    def close(self) -> None:
        """Our descriptor; the processes have their own."""
        self._file.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What a process reads of it."""

    # The person's own, for sentences.
    file: Path | None
    # As TOML has them, with every key and whole paths.
    tables: dict[str, Any]


def kept(path: Path) -> Kept | None:
    """What the node keeps under this name; None when it is the name of a file."""
    if not re.fullmatch(rf"{_NAME}\d+", str(path)):
        return None
    descriptor = int(str(path).removeprefix(_NAME))
    try:
        with _locked(descriptor, fcntl.LOCK_SH):
            # The place in the file is shared by all who inherit it, so nobody moves it.
            text = os.pread(descriptor, os.fstat(descriptor).st_size, 0)
        document = json.loads(text)
        file = None if document["file"] is None else Path(document["file"])
        return Kept(file=file, tables=document["tables"])
    except (OSError, ValueError, TypeError, KeyError):
        raise Refused(f"{path} is what a running node hands to its own processes. Name a TOML file.") from None


@contextmanager
def _locked(descriptor: int, kind: int) -> Iterator[None]:
    fcntl.lockf(descriptor, kind)
    try:
        yield
    finally:
        fcntl.lockf(descriptor, fcntl.LOCK_UN)


def _tables(config: Config) -> dict[str, Any]:
    tables: dict[str, Any] = {}
    for kind in SECTIONS:
        name = kind.__name__.lower()
        tables[name] = _table(getattr(config, name))
    for name in ("peers", "destinations"):
        tables[name] = {item.name: _table(item, leave_out="name") for item in getattr(config, name)}
    for name in ("routes", "rules"):
        tables[name] = [_table(item) for item in getattr(config, name)]
    return tables


def _table(item: Any, *, leave_out: str = "") -> dict[str, Any]:
    # TOML has no word for None: a key that is absent has its default, which is None where that may be.
    keys = [key.name for key in fields(item) if key.name != leave_out]
    return {key: value for key in keys if (value := getattr(item, key)) is not None}
