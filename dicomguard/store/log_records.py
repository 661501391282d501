"""The records of the receive log: how they lie in a segment, and what is whole when it is read again.

A record is header, row as JSON, file content. It begins on a page, so that no page of an acknowledged one is ever
written again. A segment that is used anew gets a random generation: what an earlier use left behind cannot be mistaken.
A torn tail was never acknowledged.
"""

import hashlib
import json
import os
import struct
import zlib
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dicomguard.errors import Refused

PAGE_BYTES = 4096
# Magic and version, generation, sequence, lengths of row, head (preamble and file meta) and dataset, SHA-256 of the
# dataset, CRC of row and head; the CRC of all that follows it.
_HEADER = struct.Struct("<4sHHQQIIQ32sI")
_CRC = struct.Struct("<I")
HEADER_BYTES = _HEADER.size + _CRC.size
_MAGIC, _VERSION = b"DGRL", 1
_PIECE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Logged:
    """A whole record: a dataset that was acknowledged, and what its row says."""

    row: Mapping[str, Any]
    # Of the dataset.
    sha256: str
    sequence: int
    segment: Path
    # Where the file content begins, how long it is, and how much of it comes before the dataset.
    offset: int
    size_bytes: int
    head_bytes: int

    @property
    def sop_instance_uid(self) -> str:
        """As the row has it."""
        return str(self.row["sop_uid"])

    @property
    def end(self) -> int:
        """Where the next record may begin."""
        return pages(self.offset + self.size_bytes)

    def pieces(self) -> Iterator[bytes]:
        """The file content, a megabyte at a time."""
        with self.segment.open("rb", buffering=0) as file:
            offset, left = self.offset, self.size_bytes
            while left > 0 and (piece := os.pread(file.fileno(), min(left, _PIECE_BYTES), offset)):
                yield piece
                offset += len(piece)
                left -= len(piece)


def pages(size_bytes: int) -> int:
    return -(-size_bytes // PAGE_BYTES) * PAGE_BYTES


def pack_header(
    row: bytes, content: memoryview, *, head_bytes: int, sha256: str, generation: int, sequence: int
) -> bytes:
    """What stands before row and content."""
    packed = _HEADER.pack(
        _MAGIC,
        _VERSION,
        0,
        generation,
        sequence,
        len(row),
        head_bytes,
        len(content) - head_bytes,
        bytes.fromhex(sha256),
        zlib.crc32(content[:head_bytes], zlib.crc32(row)),
    )
    return packed + _CRC.pack(zlib.crc32(packed))


def read_segment(path: Path) -> Generator[Logged]:
    """The whole records of a segment in their order.

    The first one says the generation. A record that is not whole is passed over page by page: what follows it under the
    same generation was written with or after it, and stands on its own hash.
    """
    with path.open("rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        offset, sequence = 0, 0
        generation: int | None = None
        while offset + HEADER_BYTES <= size:
            found = _read_record(file.fileno(), path, offset, generation)
            if found is not None and found[1].sequence > sequence:
                generation, record = found
                sequence = record.sequence
                yield record
                offset = record.end
            elif generation is None:
                return
            else:
                offset += PAGE_BYTES


def _read_record(descriptor: int, path: Path, offset: int, generation: int | None) -> tuple[int, Logged] | None:
    """Generation and record, None unless it is whole and of the generation asked for."""
    header = os.pread(descriptor, HEADER_BYTES, offset)
    if len(header) < HEADER_BYTES or header[:4] != _MAGIC:
        return None
    if zlib.crc32(header[: _HEADER.size]) != _CRC.unpack(header[_HEADER.size :])[0]:
        return None
    _, version, _, found, sequence, row_bytes, head_bytes, dataset_bytes, sha256, crc = _HEADER.unpack(
        header[: _HEADER.size]
    )
    if version != _VERSION:
        raise Refused(
            f"The receive log {path} has version {version}; this version knows {_VERSION}. "
            "Start the node once with the version that wrote it, and stop it in order."
        )
    if generation not in (None, found):
        return None
    text = os.pread(descriptor, row_bytes + head_bytes, offset + HEADER_BYTES)
    if zlib.crc32(text) != crc:
        return None
    record = Logged(
        row=json.loads(text[:row_bytes]),
        sha256=sha256.hex(),
        sequence=sequence,
        segment=path,
        offset=offset + HEADER_BYTES + row_bytes,
        size_bytes=head_bytes + dataset_bytes,
        head_bytes=head_bytes,
    )
    return (found, record) if dataset_sha256(record) == record.sha256 else None


def dataset_sha256(record: Logged) -> str:
    """Of the dataset bytes as they lie in the log."""
    digest = hashlib.sha256()
    skipped = record.head_bytes
    for piece in record.pieces():
        rest = memoryview(piece)[skipped:]
        skipped = max(0, skipped - len(piece))
        digest.update(rest)
    return digest.hexdigest()
