"""ZIP files from strangers (APPNOTE.TXT 6.3): what they hold is counted and copied out under limits.

Names of entries are shown and never used as paths. What an archive claims of its sizes is checked first and not
believed: bytes are counted while they are written.
"""

import errno
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from dicomguard.errors import Refused
from dicomguard.web.unpack.item import Item, Limits

CHUNK_BYTES = 1 << 18
# An entry of the central directory is 46 bytes and a name of at most 64 KiB; names this long on average are no names.
DIRECTORY_BYTES_A_FILE = 1024
# Small texts and empty pictures compress well; below this a ratio says nothing.
RATIO_FROM_BYTES = 1 << 20
# What operating systems add by themselves.
_LITTER = frozenset({".ds_store", "thumbs.db", "desktop.ini"})
# What zipfile and zlib raise on damaged input.
_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    NotImplementedError,
    RuntimeError,
    ValueError,
    struct.error,
)
_END = struct.Struct("<4s4H2LH")
_END64_LOCATOR = struct.Struct("<4sLQL")
_END64 = struct.Struct("<4sQ2H2L4Q")


class Budget:
    """What is left of the limits of one upload."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._bytes_left = limits.total_bytes
        self._files_left = limits.files

    def take_file(self) -> None:
        """Count a file; raise `Refused` for the one that is too many."""
        if self._files_left <= 0:
            raise Refused(f"The upload holds more than {self._limits.files} files. Send it in parts.")
        self._files_left -= 1

    def take_bytes(self, count: int) -> None:
        """Count unpacked bytes; raise `Refused` when they are too many."""
        self._bytes_left -= count
        if self._bytes_left < 0:
            raise Refused(f"The upload unpacks to more than {self._limits.total_bytes / 1e9:.1f} GB. Send it in parts.")


def is_litter(name: str) -> bool:
    """Whether the name is one that operating systems add to folders."""
    parts = name.replace("\\", "/").lower().split("/")
    return parts[-1] in _LITTER or parts[-1].startswith("._") or "__macosx" in parts


def extract(path: Path, *, name: str, into: Path, budget: Budget, limits: Limits) -> Iterator[Item]:
    """Copy the entries out; yields a refused `Item`, or one of kind "unpacked" with its path below `into`.

    Raises `Refused` when the archive as a whole is not acceptable; what was yielded before stays valid.
    """
    _check_directory(path, name=name, limits=limits)
    try:
        archive = zipfile.ZipFile(path)
    except (*_DAMAGE, OSError):
        raise Refused(f"{name} is damaged: its list of contents cannot be read. Make the ZIP again.") from None
    with archive:
        for number, info in enumerate(archive.infolist()):
            if info.is_dir() or is_litter(info.filename):
                continue
            budget.take_file()
            shown = f"{name} › {printable(info.filename)}"
            problem = _entry_problem(info, limits)
            if problem:
                yield Item(kind="refused", name=shown, sentence=f"{shown} {problem}")
                continue
            target = into / f"{path.name}-{number}"
            try:
                _copy(archive, info, target, budget=budget, limits=limits, shown=shown)
            except (*_DAMAGE, OSError) as error:
                if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                    raise Refused("The disk has no room for this upload. Tell the administrator.") from error
                target.unlink(missing_ok=True)
                yield Item(
                    kind="refused", name=shown, sentence=f"{shown} is damaged inside the ZIP. Make the ZIP again."
                )
                continue
            yield Item(kind="unpacked", name=shown, path=target.name)


def printable(name: str) -> str:
    """A name that can be shown in a sentence: no control characters, at most 120 characters."""
    clean = "".join(character if character.isprintable() else "�" for character in name)
    return clean if len(clean) <= 120 else f"{clean[:80]}…{clean[-35:]}"


def _check_directory(path: Path, *, name: str, limits: Limits) -> None:
    """Read the end record ourselves: zipfile would build an object for each entry before anybody can count them."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        tail_at = max(0, size - (_END.size + 0xFFFF))
        file.seek(tail_at)
        tail = file.read()
        at = tail.rfind(b"PK\x05\x06")
        if at < 0 or at + _END.size > len(tail):
            raise Refused(f"{name} is cut off: the end of the ZIP is missing. Copy or download it again.")
        entries, directory_bytes = _END.unpack_from(tail, at)[4:6]
        if entries == 0xFFFF or directory_bytes == 0xFFFFFFFF:
            entries, directory_bytes = _end64(file, tail_at + at, name=name, found=(entries, directory_bytes))
    if entries > limits.files or directory_bytes > limits.files * DIRECTORY_BYTES_A_FILE:
        raise Refused(f"{name} lists {entries} files; at most {limits.files} are taken at once. Send it in parts.")


def _end64(file: BinaryIO, end_at: int, *, name: str, found: tuple[int, int]) -> tuple[int, int]:
    locator_at = end_at - _END64_LOCATOR.size
    if locator_at < 0:
        return found
    file.seek(locator_at)
    signature, _, record_at, _ = _END64_LOCATOR.unpack(file.read(_END64_LOCATOR.size))
    if signature != b"PK\x06\x07":
        return found
    file.seek(min(record_at, 1 << 62))
    record = file.read(_END64.size)
    if len(record) < _END64.size or not record.startswith(b"PK\x06\x06"):
        raise Refused(f"{name} is damaged: its list of contents cannot be read. Make the ZIP again.")
    values = _END64.unpack(record)
    return values[7], values[8]


def _entry_problem(info: zipfile.ZipInfo, limits: Limits) -> str:
    """Why this entry is not copied out, as the rest of a sentence and what to do; "" when nothing speaks against it."""
    # zipfile itself has turned backslashes and cut at NUL in `filename`; `orig_filename` is what the archive says.
    raw = info.orig_filename.replace("\\", "/")
    parts = PurePosixPath(raw).parts
    if raw.startswith("/") or ".." in parts or "\x00" in raw or (len(raw) > 1 and raw[1] == ":"):
        return "has a name that points outside the ZIP; it was left out. Pack the files with plain names."
    if info.flag_bits & 0x1:
        return "is encrypted; it was left out. Make a ZIP without a password."
    if (info.external_attr >> 16) & 0o170000 == 0o120000:
        return "is a link, not a file; it was left out. Pack the file itself."
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return f"is packed by a rare method (number {info.compress_type}). Make an ordinary ZIP (store or deflate)."
    ratio = info.file_size / max(1, info.compress_size)
    if info.file_size > RATIO_FROM_BYTES and ratio > limits.zip_ratio:
        return (
            f"would unpack to {ratio:.0f} times its size, as ZIP bombs do; at most {limits.zip_ratio} times is taken. "
            "Send the file itself, not packed."
        )
    return ""


def _copy(
    archive: zipfile.ZipFile, info: zipfile.ZipInfo, target: Path, *, budget: Budget, limits: Limits, shown: str
) -> None:
    allowed = max(RATIO_FROM_BYTES, info.compress_size * limits.zip_ratio)
    written = 0
    with archive.open(info) as source, target.open("xb") as file:
        while chunk := source.read(CHUNK_BYTES):
            written += len(chunk)
            budget.take_bytes(len(chunk))
            if written > allowed:
                raise Refused(
                    f"{shown} unpacks to more than it says, as ZIP bombs do. Send the file itself, not packed."
                )
            file.write(chunk)
