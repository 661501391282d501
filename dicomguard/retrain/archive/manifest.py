"""The archive's manifest: one JSON line an event, each with the SHA-256 of the line before it; lines are only added.

An event has happened when its line is complete and flushed, not before: files are laid first, the line that names them
last. `head.json` remembers how far the chain had grown, so that lines cut off at the end are noticed too. Knows nothing
of what an event means.
"""

import contextlib
import fcntl
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from dicomguard.clock import Clock
from dicomguard.core import canon
from dicomguard.errors import Broken, Refused, Unavailable

SCHEMA = "dicomguard.archive/1"
MANIFEST, HEAD, LOCK = "manifest.jsonl", "head.json", ".lock"
# The "previous" of the first line.
FIRST = "0" * 64
# A line names each file of a case, about 300 bytes each; a study of 10,000 frames fits.
MAX_LINE_BYTES = 8 << 20
# Of each text that a person brings; a citation fits.
MOST_LETTERS = 400


class Disk(Protocol):
    """The part of durable writing that the archive needs; the caller gives it (a fake of it dies in tests)."""

    def create(self, path: Path) -> BinaryIO:
        """A new file that did not exist, open for writing."""
        ...

    def write(self, file: BinaryIO, piece: bytes) -> None:
        """Append."""
        ...

    def sync(self, file: BinaryIO) -> None:
        """Return when the content would survive a power cut."""
        ...

    def rename(self, source: Path, target: Path) -> None:
        """Give a file or folder its final name, at once."""
        ...

    def sync_folder(self, folder: Path) -> None:
        """Return when the names in the folder would survive a power cut."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One event of the manifest."""

    # 1, 2, 3 …
    number: int
    kind: str
    # RFC 3339, UTC.
    at: str
    # Account or name of the person.
    by: str
    previous: str
    # Of this line's bytes; what the next line carries as `previous`.
    sha256: str
    body: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """Something in the archive that is not as it was written."""

    # "line 12" or the path of a file below the archive.
    place: str
    # What is so, and what to do.
    sentence: str


def read(root: Path) -> tuple[Line, ...]:
    """All events; raise `Broken` at the first line that does not follow the one before it."""
    lines, faults = check(root)
    if faults:
        raise Broken(f"{root / MANIFEST}, {faults[0].place}: {faults[0].sentence}")
    return lines


def check(root: Path) -> tuple[tuple[Line, ...], tuple[Fault, ...]]:
    """The events up to the first that is not sound, and what is wrong.

    A last line without its end was never acknowledged (the machine stopped while it was written): it is no fault.
    """
    path = root / MANIFEST
    if not path.is_file():
        raise Refused(f"{root} is no archive: it has no {MANIFEST}. Add a first case with `dicomguard archive add`.")
    lines: list[Line] = []
    previous = FIRST
    for number, raw in enumerate(_complete_lines(path), start=1):
        try:
            line = _parse(raw, number)
        except Broken as error:
            return tuple(lines), (Fault(place=f"line {number}", sentence=str(error)),)
        if line.previous != previous:
            sentence = (
                f"It does not follow line {number - 1}: that line was changed, or one between them was taken out. "
                "Restore the manifest from a backup; nothing after this line can be trusted."
            )
            return tuple(lines), (Fault(place=f"line {number}", sentence=sentence),)
        lines.append(line)
        previous = line.sha256
    return tuple(lines), _check_head(root, lines)


def _complete_lines(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while raw := file.readline(MAX_LINE_BYTES):
            if raw.endswith(b"\n"):
                yield raw[:-1]
            elif len(raw) == MAX_LINE_BYTES:
                raise Broken(f"{path} has a line of over {MAX_LINE_BYTES} bytes. Restore it from a backup.")


def _parse(raw: bytes, number: int) -> Line:
    try:
        value = json.loads(raw)
        known = {key: value[key] for key in ("schema", "number", "kind", "at", "by", "previous", "body")}
    except (ValueError, KeyError, TypeError) as error:
        raise Broken("It is not readable as a line of a manifest. Restore the manifest from a backup.") from error
    if known.pop("schema") != SCHEMA:
        raise Broken(f'Its schema is "{value["schema"]}", not "{SCHEMA}". Use the version that wrote it.')
    if known["number"] != number:
        raise Broken(f"It calls itself number {known['number']}. Restore the manifest from a backup.")
    return Line(**known, sha256=hashlib.sha256(raw).hexdigest())


def _check_head(root: Path, lines: list[Line]) -> tuple[Fault, ...]:
    path = root / HEAD
    if not path.is_file():
        return ()
    try:
        head = json.loads(path.read_bytes())
        number, sha256 = int(head["number"]), str(head["sha256"])
    except (ValueError, KeyError, TypeError):
        sentence = (
            "It is not readable, so that lines cut off at the end would not be noticed. Restore it from a backup."
        )
        return (Fault(place=HEAD, sentence=sentence),)
    # The head is written after its line, so it may lag behind but never lead.
    if not 0 <= number <= len(lines) or (number and lines[number - 1].sha256 != sha256):
        sentence = (
            f"{HEAD} knows {number} lines that end in {sha256[:12]}, the manifest has {len(lines)} and "
            "other ones. Lines were cut off or rewritten; restore both files from a backup."
        )
        return (Fault(place=f"line {len(lines)}", sentence=sentence),)
    return ()


@contextlib.contextmanager
def locked(root: Path) -> Iterator[None]:
    """Hold the archive for writing; raise `Unavailable` when another process does."""
    root.mkdir(parents=True, exist_ok=True)
    with (root / LOCK).open("ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Unavailable(f"The archive {root} is being changed by someone else. Try again in a moment.") from None
        yield


def check_text(what: str, text: str) -> None:
    """Raise `Refused` for a text too long or not to be shown on a line; asked only of what is to be added."""
    if len(text) > MOST_LETTERS:
        raise Refused(f"The {what} has {len(text)} letters; {MOST_LETTERS} are allowed. Shorten it.")
    if hidden := next((letter for letter in text if not letter.isprintable()), ""):
        raise Refused(f"The {what} has the character U+{ord(hidden):04X}, which cannot be shown. Take it out.")


def append(root: Path, *, kind: str, by: str, body: Mapping[str, Any], clock: Clock, disk: Disk) -> Line:
    """Add one event, durable when this returns. Call it inside `locked`."""
    if not by.strip():
        raise Refused("The person who does this is not named. Give a name with --by.")
    check_text("name of the person who does this", by.strip())
    lines = read(root) if (root / MANIFEST).is_file() else ()
    previous = lines[-1].sha256 if lines else FIRST
    value: dict[str, Any] = {
        "schema": SCHEMA,
        "number": len(lines) + 1,
        "kind": kind,
        "at": clock.now().isoformat(timespec="seconds"),
        "by": by.strip(),
        "previous": previous,
        "body": body,
    }
    raw = canon.encode(value)
    path = root / MANIFEST
    _drop_torn_end(path)
    with path.open("ab") as file:
        disk.write(file, raw + b"\n")
        disk.sync(file)
    disk.sync_folder(root)
    line = _parse(raw, len(lines) + 1)
    _write_head(root, line, disk)
    return line


def _drop_torn_end(path: Path) -> None:
    if not path.is_file():
        return
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        with path.open("r+b") as file:
            file.truncate(whole)


def _write_head(root: Path, line: Line, disk: Disk) -> None:
    aside = root / f"{HEAD}.new"
    aside.unlink(missing_ok=True)
    with disk.create(aside) as file:
        disk.write(file, canon.encode({"number": line.number, "sha256": line.sha256}))
        disk.sync(file)
    disk.rename(aside, root / HEAD)
    disk.sync_folder(root)
