"""PS3.10 files: the dataset up to Pixel Data, a hash of the pixels as sent, and the file around given bytes.

Nothing here decodes a pixel or loads NumPy; the receiver uses it. pydicom parses what strangers sent, so every error of
its own ends here as `Refused`. Deflated datasets (PS3.5 A.5) are refused before they are inflated: their size is a
stranger's word.
"""

import hashlib
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import pydicom
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.tag import BaseTag, Tag
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian

from dicomguard.core.uid import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from dicomguard.errors import Refused

# What pydicom raises on damaged input, from its readers and its value converters.
PARSE_ERRORS = (
    InvalidDicomError,
    BytesLengthException,
    AttributeError,
    EOFError,
    IndexError,
    KeyError,
    LookupError,
    # A length that lies is reserved before it is read.
    MemoryError,
    NotImplementedError,
    OSError,
    OverflowError,
    RecursionError,
    TypeError,
    UnicodeError,
    ValueError,
    struct.error,
)
# Media Storage Directory Storage: a directory of other files, no instance (PS3.10 8.6).
DIRECTORY_CLASS = "1.2.840.10008.1.3.10"
_COPY_BYTES = 1 << 20
_PIXEL_DATA = Tag(0x7FE0, 0x0010)
_ITEM = 0xFFFEE000
_SEQUENCE_DELIMITER = 0xFFFEE0DD
_UNDEFINED = 0xFFFFFFFF
# PS3.5 7.1.2: explicit VRs with a 32-bit length.
_LONG_VRS = frozenset({b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"})


@dataclass(frozen=True, slots=True, kw_only=True)
class FileMeta:
    """The file meta information (PS3.10 7.1) and where the dataset begins."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    dataset_offset: int
    # AE that sent it, "" when the file does not say.
    source_ae: str = ""


def read_meta(path: Path) -> FileMeta:
    """Raise `Refused` for what is no Part 10 file."""
    with path.open("rb") as file:
        return read_meta_of(file)


def read_meta_of(file: BinaryIO) -> FileMeta:
    """The same of an open file at its beginning; leaves it at the dataset."""
    try:
        pydicom.filereader.read_preamble(file, force=False)
        meta = pydicom.filereader._read_file_meta_info(file)
        return FileMeta(
            sop_class_uid=str(meta.get("MediaStorageSOPClassUID", "")),
            sop_instance_uid=str(meta.get("MediaStorageSOPInstanceUID", "")),
            transfer_syntax_uid=str(meta.TransferSyntaxUID),
            dataset_offset=file.tell(),
            source_ae=str(meta.get("SourceApplicationEntityTitle", "")),
        )
    except PARSE_ERRORS as error:
        raise unreadable(error) from error


def is_instance(path: Path) -> bool:
    """Whether a file begins as PS3.10 7.1 says and is not a directory of others (DICOMDIR); damaged ones count."""
    with path.open("rb") as file:
        if file.read(132)[128:] != b"DICM":
            return False
        file.seek(0)
        try:
            return read_meta_of(file).sop_class_uid != DIRECTORY_CLASS
        except Refused:
            return True


def dataset_offset(path: Path) -> int:
    """Byte at which the dataset begins, after preamble and file meta information."""
    return read_meta(path).dataset_offset


def read_dataset_head(path: Path, *, tags: tuple[str, ...] | None = None) -> pydicom.Dataset:
    """The dataset without Pixel Data and what follows it; `tags` (keywords) keeps only these."""
    with path.open("rb") as file:
        return read_dataset_head_of(file, tags=tags)


def read_dataset_head_of(file: BinaryIO, *, tags: tuple[str, ...] | None = None) -> pydicom.Dataset:
    """The same of an open file; leaves it at the element that stopped the parser."""
    file.seek(0)
    meta = read_meta_of(file)
    file.seek(0)
    if meta.transfer_syntax_uid == DeflatedExplicitVRLittleEndian:
        raise Refused("The dataset is deflated. Send it uncompressed or with compressed Pixel Data.")
    # Its warnings about odd values quote them; what is wrong with a value shows where it is used.
    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
    try:
        return pydicom.dcmread(file, stop_before_pixels=True, specific_tags=list(tags) if tags else None)
    except PARSE_ERRORS as error:
        raise unreadable(error) from error


def unreadable(error: BaseException) -> Refused:
    """What an error of the parser is for a caller."""
    # The text of a parser's error can hold a value of the dataset; its kind cannot.
    return Refused(f"The bytes are no readable DICOM file ({type(error).__name__}). Export the instance again.")


def file_head(*, transfer_syntax_uid: str, sop_class_uid: str, sop_instance_uid: str, source_ae: str) -> bytes:
    """Preamble and file meta information (PS3.10 7.1) for dataset bytes that follow unchanged."""
    elements = b"".join(
        (
            _element(0x0001, b"OB", b"\x00\x01"),
            _element(0x0002, b"UI", _uid(sop_class_uid)),
            _element(0x0003, b"UI", _uid(sop_instance_uid)),
            _element(0x0010, b"UI", _uid(transfer_syntax_uid)),
            _element(0x0012, b"UI", _uid(IMPLEMENTATION_CLASS_UID)),
            _element(0x0013, b"SH", _padded(IMPLEMENTATION_VERSION_NAME)),
            _element(0x0016, b"AE", _padded(source_ae[:16])) if source_ae else b"",
        )
    )
    return b"\0" * 128 + b"DICM" + _element(0x0000, b"UL", struct.pack("<I", len(elements))) + elements


def _element(number: int, vr: bytes, value: bytes) -> bytes:
    if vr in _LONG_VRS:
        return struct.pack("<HH2s2xI", 0x0002, number, vr, len(value)) + value
    return struct.pack("<HH2sH", 0x0002, number, vr, len(value)) + value


def _uid(uid: str) -> bytes:
    value = uid.encode("ascii", "replace")[:64]
    return value + b"\0" * (len(value) % 2)


def _padded(text: str) -> bytes:
    value = text.encode("ascii", "replace")
    return value + b" " * (len(value) % 2)


def write(
    file: BinaryIO,
    *,
    transfer_syntax_uid: str,
    sop_class_uid: str,
    sop_instance_uid: str,
    dataset_bytes: bytes,
    source_ae: str,
) -> None:
    """Write a whole Part 10 file around the given dataset bytes."""
    head = file_head(
        transfer_syntax_uid=transfer_syntax_uid,
        sop_class_uid=sop_class_uid,
        sop_instance_uid=sop_instance_uid,
        source_ae=source_ae,
    )
    file.write(head)
    file.write(dataset_bytes)


@dataclass(frozen=True, slots=True)
class ValueField:
    """A value field: its length, and the byte order of the lengths around it."""

    length: int
    order: str


def _at_pixels(file: BinaryIO) -> ValueField | None:
    """Leave the file at the value field of Pixel Data."""
    return value_field(file, read_dataset_head_of(file, tags=("SOPInstanceUID",)))


def value_field(file: BinaryIO, dataset: pydicom.Dataset) -> ValueField | None:
    """Read the element header at which the parser stopped; None unless it is that of Pixel Data."""
    syntax = dataset.file_meta.TransferSyntaxUID
    order = ">" if syntax == ExplicitVRBigEndian else "<"
    tag = file.read(4)
    if len(tag) < 4 or Tag(*struct.unpack(f"{order}HH", tag)) != _PIXEL_DATA:
        return None
    if syntax == ImplicitVRLittleEndian:
        field = file.read(4)
    elif file.read(2) in _LONG_VRS:
        field = file.read(6)[2:]
    else:
        # PS3.5 A.2 allows only OB and OW here.
        return None
    return ValueField(struct.unpack(f"{order}I", field)[0], order) if len(field) == 4 else None


def pixel_sha256(path: Path) -> str | None:
    """SHA-256 of the Pixel Data value as sent; of the fragments when encapsulated (PS3.5 A.4); None without pixels.

    The basic offset table does not count: it says where frames begin, not what they show.
    """
    with path.open("rb") as file:
        value = _at_pixels(file)
        if value is None:
            return None
        digest = hashlib.sha256()
        if value.length != _UNDEFINED:
            for piece in _exactly(file, value.length):
                digest.update(piece)
            return digest.hexdigest()
        for number, length in enumerate(_fragments(file)):
            if number == 0:
                file.seek(length, 1)
                continue
            digest.update(struct.pack("<Q", length))
            for piece in _exactly(file, length):
                digest.update(piece)
        return digest.hexdigest()


def _fragments(file: BinaryIO) -> Iterator[int]:
    """Lengths of the items; the caller moves the file past each before it asks for the next."""
    while True:
        field = file.read(8)
        if len(field) < 8:
            return
        group, element, length = struct.unpack("<HHI", field)
        if BaseTag((group << 16) | element) == _SEQUENCE_DELIMITER:
            return
        if BaseTag((group << 16) | element) != _ITEM or length == _UNDEFINED:
            raise Refused("The fragments of Pixel Data are damaged. Send the instance again.")
        yield length


def _exactly(file: BinaryIO, length: int) -> Iterator[bytes]:
    """`length` bytes, or fewer at the end of the file."""
    while length > 0 and (piece := file.read(min(_COPY_BYTES, length))):
        length -= len(piece)
        yield piece
