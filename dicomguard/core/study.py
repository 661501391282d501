"""A study as it is judged: the revision that was closed and the frozen list that one analysis covers.

A later instance makes a new revision with a new manifest; neither is ever changed.
"""

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Literal

from dicomguard.core import canon
from dicomguard.errors import Broken

OpenedBecause = Literal["first", "late_instance", "pixel_conflict", "forced", "model_rerun"]
Scope = Literal["inside", "outside"]
GeometryKind = Literal["regular", "unequal", "tilted", "single", "mixed"]

MANIFEST_SCHEMA = "dicomguard.manifest/1"
# Why a slice is skipped that lies under the SOP Instance UID of one that is analysed.
CONFLICT_COPY = "conflict copy"


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyRevision:
    """One closing of a study."""

    # Random key of ours; UIDs of senders stay out of workflow ids, paths and logs.
    study_key: str
    study_instance_uid: str
    # 1, 2, 3 …
    number: int
    opened_because: OpenedBecause
    # Why the study was held complete, a sentence of core.completion.
    closed_because: str
    created_at: datetime
    # AE title that sent the first instance; "" for uploads.
    calling_ae: str
    # Whether it goes before others.
    urgent: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceFile:
    """One frame of one kept file, in the order of its series."""

    sop_instance_uid: str
    sop_class_uid: str
    # 1-based; None for a single-frame instance.
    frame: int | None
    # Relative to the folder that the job names.
    path: str
    # Of the dataset bytes; verified before decoding.
    sha256: str
    # Signed distance along the normal, mm; None when the object does not say.
    position_mm: float | None
    instance_number: int | None
    # "" when it is to be analysed, else one of the keys of `english.REASONS`.
    skipped: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesPlan:
    """One stack of one series: what is analysed of it, and why or why not."""

    series_instance_uid: str
    series_number: int | None
    modality: str
    # SHA-256 prefix; the text itself can name a patient.
    description_hash: str
    frame_of_reference_uid: str
    analysed: bool
    # The rule's sentence.
    reason: str
    scope: Scope
    scope_reasons: tuple[str, ...]
    kind: GeometryKind
    # Smallest and largest distance of neighbours along the normal, mm; None when unknown.
    spacing_mm: tuple[float, float] | None
    tilt_deg: float
    pixel_spacing_mm: tuple[float, float] | None
    stacks: int
    slices: tuple[SliceFile, ...]
    # Sequence group for the calibration: flair, t1, t1c, t2, ct or "".
    sequence: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConflictCopy:
    """One of several copies with different pixels under one SOP Instance UID."""

    sop_instance_uid: str
    sha256: str
    received_at: str
    calling_ae_hash: str
    analysed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """All that one analysis may look at."""

    study_instance_uid: str
    revision: int
    opened_because: OpenedBecause
    series: tuple[SeriesPlan, ...]
    conflicts: tuple[ConflictCopy, ...] = ()
    # Two Patient IDs under one Study Instance UID: said in the report, never split.
    patient_ids: int = 1

    def to_json(self) -> dict[str, Any]:
        """JSON value; `from_json` gives an equal manifest back."""
        return {"schema": MANIFEST_SCHEMA, **asdict(self)}

    @property
    def sha256(self) -> str:
        """Identity of the frozen list."""
        return canon.sha256(self.to_json())

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Manifest":
        """Raise `Broken` for another schema than ours."""
        fields = dict(value)
        schema = fields.pop("schema", None)
        if schema != MANIFEST_SCHEMA:
            raise Broken(f'The manifest has schema "{schema}", not "{MANIFEST_SCHEMA}". Use the version that wrote it.')
        fields["series"] = tuple(_series(item) for item in fields["series"])
        fields["conflicts"] = tuple(ConflictCopy(**item) for item in fields["conflicts"])
        return cls(**fields)


def _series(value: dict[str, Any]) -> SeriesPlan:
    fields = dict(value)
    fields["slices"] = tuple(SliceFile(**item) for item in fields["slices"])
    for name in ("scope_reasons", "spacing_mm", "pixel_spacing_mm"):
        if fields[name] is not None:
            fields[name] = tuple(fields[name])
    return SeriesPlan(**fields)
