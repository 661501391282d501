"""What is known of one slice, and what was found in some."""

from dataclasses import dataclass
from typing import Any

from dicomguard.core.finding import SliceRef, Strength


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is known of one slice."""

    series: str
    sop_instance_uid: str
    frame: int | None
    position_mm: float | None
    # Of the stored values.
    sha256: str
    # All pixels have one value: such slices are alike in every scan.
    blank: bool
    # As `analyze.decoding.facts` gives it, and `stored_range` and `rescale`.
    header: dict[str, Any]

    @property
    def ref(self) -> SliceRef:
        """The slice as evidence names it."""
        return SliceRef(sop_instance_uid=self.sop_instance_uid, frame=self.frame)


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """One thing found, without its number and its false alarms."""

    kind: str
    strength: Strength
    slices: tuple[SliceRef, ...]
    parameters: dict[str, Any]
