"""PS3.10 files: the header up to Pixel Data, a hash of the pixels as sent, and the file around given bytes.

Nothing here decodes a pixel or loads NumPy; the receiver uses it. pydicom parses what strangers sent, so every error of
its own ends here as `Refused`. Deflated datasets (PS3.5 A.5) are refused before they are inflated: their size is a
stranger's word.
"""

import hashlib
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import pydicom
from pydicom.charset import decode_bytes
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.tag import BaseTag, Tag
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian
from pydicom.valuerep import TEXT_VR_DELIMS

from dicomguard.core.instance import FrameGeometry, Header
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
MAX_FRAMES = 20_000
# Media Storage Directory Storage: a directory of other files, no instance (PS3.10 8.6).
DIRECTORY_CLASS = "1.2.840.10008.1.3.10"
_COPY_BYTES = 1 << 20
_PIXEL_DATA = Tag(0x7FE0, 0x0010)
_ITEM = 0xFFFEE000
_ISO_IR_58 = "\x1b$)A"
# Each of them resets the code extension.
_NAME_DELIMITERS = {ord("\\"), ord("^"), ord("=")}
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
        raise _refused(error) from error


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
        raise _refused(error) from error


def _refused(error: BaseException) -> Refused:
    # The text of a parser's error can hold a value of the dataset; its kind cannot.
    return Refused(f"The bytes are no readable DICOM file ({type(error).__name__}). Export the instance again.")


def read_header(path: Path) -> Header:
    """The attributes that rules and geometry read; never decodes. Raises `Refused`."""
    with path.open("rb") as file:
        dataset = read_dataset_head_of(file)
        return header_of(dataset, has_pixels=_value_field(file, dataset) is not None)


def header_of(dataset: pydicom.Dataset, *, has_pixels: bool) -> Header:
    """`Header` of a parsed dataset with file meta information."""
    try:
        return _header(dataset, has_pixels)
    except PARSE_ERRORS as error:
        raise _refused(error) from error


def _header(dataset: pydicom.Dataset, has_pixels: bool) -> Header:
    meta = getattr(dataset, "file_meta", None)
    return Header(
        sop_instance_uid=_text(dataset, "SOPInstanceUID"),
        sop_class_uid=_text(dataset, "SOPClassUID"),
        study_instance_uid=_text(dataset, "StudyInstanceUID"),
        series_instance_uid=_text(dataset, "SeriesInstanceUID"),
        transfer_syntax_uid=str(meta.TransferSyntaxUID) if meta is not None else "",
        modality=_text(dataset, "Modality"),
        image_type=_image_type(dataset),
        series_description=_text(dataset, "SeriesDescription"),
        protocol_name=_text(dataset, "ProtocolName"),
        sequence_name=_text(dataset, "SequenceName"),
        body_part=_text(dataset, "BodyPartExamined"),
        manufacturer=_text(dataset, "Manufacturer"),
        model_name=_text(dataset, "ManufacturerModelName"),
        series_number=_integer(dataset, "SeriesNumber"),
        instance_number=_integer(dataset, "InstanceNumber"),
        frame_of_reference_uid=_text(dataset, "FrameOfReferenceUID"),
        rows=_integer(dataset, "Rows") or 0,
        columns=_integer(dataset, "Columns") or 0,
        samples_per_pixel=_integer(dataset, "SamplesPerPixel") or 1,
        photometric=_text(dataset, "PhotometricInterpretation"),
        bits_stored=_integer(dataset, "BitsStored") or 0,
        frames=_frames(dataset),
        slice_thickness_mm=_timing(dataset, "SliceThickness", "PixelMeasuresSequence"),
        repetition_time_ms=_timing(dataset, "RepetitionTime", "MRTimingAndRelatedParametersSequence"),
        echo_time_ms=_timing(dataset, "EchoTime", "MREchoSequence", "EffectiveEchoTime"),
        inversion_time_ms=_inversion(dataset),
        echo_number=_hint(dataset, "EchoNumbers"),
        temporal_position=_hint(dataset, "TemporalPositionIdentifier"),
        b_value=_hint(dataset, "DiffusionBValue"),
        contrast_agent=_contrast(dataset),
        lossy=_text(dataset, "LossyImageCompression") == "01",
        synthetic=_text(dataset, "SyntheticData").upper() == "YES",
        has_pixels=has_pixels,
    )


def printed(value: Any) -> str:
    """The text of one value; raises TypeError for a sequence in the place of a text.

    pydicom prints a damaged sequence with the trace of its error, which doubles at each level: 8 kB become 20 GB.
    """
    if isinstance(value, pydicom.Sequence | pydicom.Dataset):
        raise TypeError("a sequence stands where a text belongs")
    return str(value)


def decoded_name(value: bytes, encodings: list[str]) -> str:
    """The text of a Person Name (PS3.5 6.1.2.5.3), all its values and component groups; padding is taken off.

    pydicom cuts the bytes at "\\" and "=" before it decodes them, but in ISO 2022 IR 87 and GB18030 these are also
    halves of characters: Yamamoto would become two people.
    """
    return _decoded(value, encodings, _NAME_DELIMITERS)


def decoded_text(value: bytes, encodings: list[str]) -> str:
    """The text of any other element that the character set concerns; padding is taken off."""
    return _decoded(value, encodings, TEXT_VR_DELIMS)


def _decoded(value: bytes, encodings: list[str], delimiters: set[int]) -> str:
    # pydicom leaves this escape sequence in the text: Python's codec of that set does not know it.
    return decode_bytes(value, encodings, delimiters).replace(_ISO_IR_58, "").rstrip(" \0")


def _text(dataset: pydicom.Dataset, keyword: str) -> str:
    value = dataset.get(keyword)
    if value is None:
        return ""
    if isinstance(value, pydicom.multival.MultiValue):
        value = value[0] if len(value) else ""
    return printed(value).strip(" \0")


def _numbers(dataset: pydicom.Dataset, keyword: str) -> tuple[float, ...]:
    """All finite values of a DS, FD or FL; () when absent, empty or not numbers."""
    value = dataset.get(keyword)
    if value is None or value == "":
        return ()
    values = list(value) if isinstance(value, pydicom.multival.MultiValue | list | tuple) else [value]
    try:
        numbers = tuple(float(item) for item in values)
    except (TypeError, ValueError):
        return ()
    return numbers if all(number - number == 0 for number in numbers) else ()


def _integer(dataset: pydicom.Dataset, keyword: str) -> int | None:
    numbers = _numbers(dataset, keyword)
    return int(numbers[0]) if numbers else None


def _first(dataset: pydicom.Dataset, keyword: str) -> float | None:
    numbers = _numbers(dataset, keyword)
    return numbers[0] if numbers else None


def _hint(dataset: pydicom.Dataset, keyword: str) -> float | None:
    """The first number of an attribute that a scan can do without: a damaged one says nothing, and refuses nothing."""
    try:
        return _first(dataset, keyword)
    except PARSE_ERRORS:
        return None


def _item(dataset: pydicom.Dataset | None, keyword: str) -> pydicom.Dataset | None:
    """First item of a sequence."""
    sequence = dataset.get(keyword) if dataset is not None else None
    return sequence[0] if isinstance(sequence, pydicom.Sequence) and len(sequence) else None


def _groups(dataset: pydicom.Dataset) -> tuple[pydicom.Dataset | None, list[pydicom.Dataset]]:
    """Shared and per-frame functional groups (PS3.3 C.7.6.16)."""
    frames = dataset.get("PerFrameFunctionalGroupsSequence")
    if not isinstance(frames, pydicom.Sequence):
        return _item(dataset, "SharedFunctionalGroupsSequence"), []
    if len(frames) > MAX_FRAMES:
        raise Refused(f"The instance has {len(frames)} frames, more than {MAX_FRAMES}. Split it.")
    return _item(dataset, "SharedFunctionalGroupsSequence"), list(frames)


def _timing(dataset: pydicom.Dataset, keyword: str, group: str, inner: str | None = None) -> float | None:
    """A value of the classic header, else of the shared or first functional group."""
    value = _first(dataset, keyword)
    if value is not None:
        return value
    shared, frames = _groups(dataset)
    for holder in (shared, frames[0] if frames else None):
        item = _item(holder, group)
        if item is not None:
            return _first(item, inner or keyword)
    return None


def _inversion(dataset: pydicom.Dataset) -> float | None:
    value = _timing(dataset, "InversionTime", "MRModifierSequence", "InversionTimes")
    return value if value else None


def _contrast(dataset: pydicom.Dataset) -> str:
    agent = _text(dataset, "ContrastBolusAgent")
    if agent:
        return agent
    item = _item(dataset, "ContrastBolusAgentSequence")
    return _text(item, "CodeMeaning") if item is not None else ""


def _image_type(dataset: pydicom.Dataset) -> tuple[str, ...]:
    value = dataset.get("ImageType")
    if value is None or value == "":
        return ()
    values = list(value) if isinstance(value, pydicom.multival.MultiValue) else [value]
    return tuple(printed(item).strip().upper() for item in values)


def _frames(dataset: pydicom.Dataset) -> tuple[FrameGeometry, ...]:
    shared, frames = _groups(dataset)
    if frames or shared is not None:
        # Frames without an item have pixels that a viewer shows.
        count = max(1, len(frames), _integer(dataset, "NumberOfFrames") or 1)
        if count > MAX_FRAMES:
            raise Refused(f"The instance has {count} frames, more than {MAX_FRAMES}. Split it.")
        padded = [*frames, *([None] * (count - len(frames)))]
        return tuple(_enhanced_frame(dataset, shared, frame) for frame in padded)
    count = max(1, _integer(dataset, "NumberOfFrames") or 1)
    if count > MAX_FRAMES:
        raise Refused(f"The instance has {count} frames, more than {MAX_FRAMES}. Split it.")
    classic = _geometry(dataset, dataset, dataset, stack="")
    # A classic multi-frame object (multi-frame SC, US) has one position at most, which is that of no single frame.
    if count > 1:
        classic = FrameGeometry(position_mm=None, orientation=None, spacing_mm=classic.spacing_mm)
    return (classic,) * count


def _enhanced_frame(
    dataset: pydicom.Dataset, shared: pydicom.Dataset | None, frame: pydicom.Dataset | None
) -> FrameGeometry:
    def group(keyword: str) -> pydicom.Dataset | None:
        return _item(frame, keyword) or _item(shared, keyword)

    return _geometry(
        group("PlanePositionSequence"),
        group("PlaneOrientationSequence"),
        group("PixelMeasuresSequence"),
        stack=_stack(group),
    )


def _stack(group: Any) -> str:
    """What tells volumes in one object apart: stack id, echo time, b-value, temporal position, frame type."""
    content = group("FrameContentSequence")
    parts = [
        _text(content, "StackID") if content is not None else "",
        _text(content, "TemporalPositionIndex") if content is not None else "",
    ]
    for keyword, inner in (("MREchoSequence", "EffectiveEchoTime"), ("MRDiffusionSequence", "DiffusionBValue")):
        item = group(keyword)
        parts.append(_text(item, inner) if item is not None else "")
    for keyword in ("MRImageFrameTypeSequence", "CTImageFrameTypeSequence"):
        item = group(keyword)
        if item is not None:
            parts.append("\\".join(printed(value) for value in item.get("FrameType", [])))
    return "|".join(parts).strip("|")


def _geometry(
    position: pydicom.Dataset | None,
    orientation: pydicom.Dataset | None,
    measures: pydicom.Dataset | None,
    *,
    stack: str,
) -> FrameGeometry:
    where = _numbers(position, "ImagePositionPatient") if position is not None else ()
    axes = _numbers(orientation, "ImageOrientationPatient") if orientation is not None else ()
    spacing = _numbers(measures, "PixelSpacing") if measures is not None else ()
    return FrameGeometry(
        position_mm=(where[0], where[1], where[2]) if len(where) == 3 else None,
        orientation=(axes[0], axes[1], axes[2], axes[3], axes[4], axes[5]) if len(axes) == 6 else None,
        spacing_mm=(spacing[0], spacing[1]) if len(spacing) == 2 and min(spacing) > 0 else None,
        stack=stack,
    )


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
class _Value:
    """A value field: its length, and the byte order of the lengths around it."""

    length: int
    order: str


def _at_pixels(file: BinaryIO) -> _Value | None:
    """Leave the file at the value field of Pixel Data."""
    return _value_field(file, read_dataset_head_of(file, tags=("SOPInstanceUID",)))


def _value_field(file: BinaryIO, dataset: pydicom.Dataset) -> _Value | None:
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
    return _Value(struct.unpack(f"{order}I", field)[0], order) if len(field) == 4 else None


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
