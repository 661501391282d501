"""What was seen: findings linked over slices, DICOM-level evidence, and coverage.

Attribute names equal the keys of `verdict.json`. Lengths mm, areas mm², volumes mm³, scores 0…1.
"""

from dataclasses import dataclass
from typing import Any, Literal

FindingCategory = Literal["real", "added", "removed"]
Strength = Literal["info", "notable", "strong"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sentence:
    """A sentence of core.wording: its key and what is put in; rendered only when read."""

    sentence_key: str
    parameters: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceRef:
    """One frame of one instance."""

    sop_instance_uid: str
    # 1-based; None for a single-frame instance.
    frame: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class FindingSlice:
    """A finding on one slice."""

    sop_instance_uid: str
    frame: int | None
    area_mm2: float
    # Half-open [row0, column0, row1, column1).
    box_px: tuple[int, int, int, int]
    # Closed polygon of (column, row); (0.0, 0.0) is the outer corner of the first pixel (PS3.3 C.18.6.1.2).
    outline_px: tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One region, linked over neighbouring slices."""

    # F1, F2 … unique within the revision.
    id: str
    category: FindingCategory
    # Series Instance UID.
    series: str
    slices: tuple[FindingSlice, ...]
    # Index into `slices`.
    key_slice: int
    volume_mm3: float
    # Largest diameter in a plane.
    extent_mm: float
    centroid_lps_mm: tuple[float, float, float] | None
    p_forged: float
    p_tumor: float
    authentic_rank: "Rank | None"
    evidence: tuple[Sentence, ...]
    touches_skipped_slice: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Rank:
    """How many of the authentic studies of the calibration scored as high."""

    as_high: int
    of: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FalseAlarms:
    """k of n authentic studies showed the same evidence."""

    k: int
    n: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """Something the files themselves say; it never changes a score."""

    id: str
    kind: str
    strength: Strength
    sentence_key: str
    parameters: dict[str, Any]
    slices: tuple[SliceRef, ...]
    authentic_false_alarms: FalseAlarms


@dataclass(frozen=True, slots=True, kw_only=True)
class Coverage:
    """What was looked at."""

    slices_total: int
    slices_analysed: int
    # Share of the head's area that lies in analysed slices; 0 when nothing was analysed.
    head_area_share: float
    complete: bool
    outside_scope: bool
