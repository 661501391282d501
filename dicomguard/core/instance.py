"""What was received, and the attributes of it that rules and geometry read (PS3.3 C.7.6, C.12.1)."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

Vector3 = tuple[float, float, float]
Orientation = tuple[float, float, float, float, float, float]
# "expired" was deleted by retention; "missing" was lost by other hands.
InstanceState = Literal["stored", "quarantined", "own", "expired", "missing"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameGeometry:
    """Where one frame lies in the patient (LPS, mm); None where the object does not say."""

    # Centre of the first transmitted pixel (Image Position (Patient)).
    position_mm: Vector3 | None
    # Direction of a row, then of a column (Image Orientation (Patient)).
    orientation: Orientation | None
    # Between rows, then between columns (Pixel Spacing).
    spacing_mm: tuple[float, float] | None
    # Frames of one multi-frame object that do not belong to one volume (echo, phase, b-value) differ here.
    stack: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """The attributes of an instance that decide whether and how it is analysed; texts are "" when absent."""

    sop_instance_uid: str
    sop_class_uid: str
    study_instance_uid: str
    series_instance_uid: str
    transfer_syntax_uid: str
    modality: str = ""
    image_type: tuple[str, ...] = ()
    series_description: str = ""
    protocol_name: str = ""
    sequence_name: str = ""
    body_part: str = ""
    manufacturer: str = ""
    model_name: str = ""
    series_number: int | None = None
    instance_number: int | None = None
    frame_of_reference_uid: str = ""
    rows: int = 0
    columns: int = 0
    samples_per_pixel: int = 1
    photometric: str = ""
    bits_stored: int = 0
    frames: tuple[FrameGeometry, ...] = ()
    slice_thickness_mm: float | None = None
    repetition_time_ms: float | None = None
    echo_time_ms: float | None = None
    inversion_time_ms: float | None = None
    # Of classic objects; those of an enhanced object are in `FrameGeometry.stack`.
    echo_number: float | None = None
    temporal_position: float | None = None
    b_value: float | None = None
    contrast_agent: str = ""
    lossy: bool = False
    synthetic: bool = False
    has_pixels: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """One kept copy of a SOP instance."""

    sop_instance_uid: str
    sop_class_uid: str
    study_instance_uid: str
    series_instance_uid: str
    transfer_syntax_uid: str
    # SHA-256 of the dataset bytes as they came.
    sha256: str
    size_bytes: int
    # Relative to the root of the store.
    path: str
    calling_ae: str
    called_ae: str
    address: str
    received_at: datetime
    # 0 for the first copy under this SOP Instance UID, 1 and up for copies with other pixels.
    ordinal: int = 0
    state: InstanceState = "stored"
    reason: str = ""
