"""What the judging loop notes, one value a slice, study or control: all tables are made of these."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from dicomguard.retrain.evaluate.places import Placed

AUTHENTIC = "authentic"
# The operation that leaves a study as it is.
UNTOUCHED = "untouched"
# The strength at which a forgery changes nothing.
IDENTITY = 0.0
# (score, whether it hits what is to be found).
Mark = tuple[float, bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceRecord:
    """One judged slice."""

    source: str
    patient: str
    # AUTHENTIC or the family.
    family: str
    score: float
    # The same plane's score in the authentic study; None for authentic slices.
    twin_score: float | None
    # Hospital, where the source has several.
    group: str = ""
    sequence: str = ""
    # added, removed, altered; "" for authentic slices.
    kind: str = ""
    # Forged pixels.
    area: int = 0
    # The right one of the four answers for this slice and the one that was given; "" where none is right or known.
    truth: str = ""
    answer: str = ""
    f1: float = 0.0
    iou: float = 0.0
    # Pixels of lesion, before and after a forgery.
    lesion_before: int = 0
    lesion: int = 0
    # Peer → its score of the slice.
    peers: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyRecord:
    """One judged study."""

    source: str
    patient: str
    family: str
    # The right one of the four answers; "" where none of them is right (a lesion made larger or smaller).
    truth: str
    answer: str
    # None when not analysable.
    score: float | None
    # Findings by p(forged).
    marks: tuple[Mark, ...] = ()
    group: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LesionRecord:
    """One authentic slice as a search for lesions: findings by p(tumor), and the Dice of the best hit."""

    source: str
    patient: str
    marks: tuple[Mark, ...]
    wanted: bool
    dice: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessedRecord:
    """One study after one operation."""

    operation: str
    source: str
    patient: str
    forged: bool
    # Of all slices when authentic, of the forged ones when forged.
    scores: tuple[float, ...]
    flagged: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class DoseRecord:
    """One forgery laid on at part of its strength."""

    source: str
    patient: str
    family: str
    # 0…1; 0 is the identity forgery.
    strength: float
    # Of the slices that the whole forgery changes, in the order of the planes; `twins`: of the authentic study.
    scores: tuple[float, ...]
    twins: tuple[float, ...]
    flagged: bool
    # Whether every stored value is that of the authentic study.
    equal_pixels: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class OutsideRecord:
    """One study whose air was edited and nothing else."""

    source: str
    patient: str
    # Findings of forgery that touch the head, as found and with the edit in the air.
    before: int
    after: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FormatRecord:
    """A slice seen without its content: what file and grey levels say."""

    source: str
    patient: str
    forged: bool
    features: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaceRecord:
    """A forged slice on a grid over the head: what was forged, and what the model and the peers say of each place."""

    source: str
    patient: str
    family: str
    placed: Placed
