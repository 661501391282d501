"""What rules and geometry read of an instance: a parsed dataset as `core.instance.Header`, and its values as text.

Nothing here decodes a pixel or loads NumPy; values come from strangers, so what is odd is left out or ends as
`Refused`.
"""

from pathlib import Path
from typing import Any

import pydicom
from pydicom.charset import decode_bytes
from pydicom.valuerep import TEXT_VR_DELIMS

from dicomguard import part10
from dicomguard.core.instance import FrameGeometry, Header
from dicomguard.errors import Refused

MAX_FRAMES = 20_000
_ISO_IR_58 = "\x1b$)A"
# Each of them resets the code extension.
_NAME_DELIMITERS = {ord("\\"), ord("^"), ord("=")}


def read_header(path: Path) -> Header:
    """The attributes that rules and geometry read; never decodes. Raises `Refused`."""
    with path.open("rb") as file:
        dataset = part10.read_dataset_head_of(file)
        return header_of(dataset, has_pixels=part10.value_field(file, dataset) is not None)


def header_of(dataset: pydicom.Dataset, *, has_pixels: bool) -> Header:
    """`Header` of a parsed dataset with file meta information."""
    try:
        return _header(dataset, has_pixels)
    except part10.PARSE_ERRORS as error:
        raise part10.unreadable(error) from error


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
    except part10.PARSE_ERRORS:
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
