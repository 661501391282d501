"""A DICOM object that dicomguard made, as the store and the delivery know it."""

from dataclasses import dataclass
from typing import Literal

ResultKind = Literal["SEG", "SR", "SR-2D"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultObject:
    """Identity of one result; its bytes are kept before it is first sent."""

    # "SR-2D" is the Comprehensive SR that goes to archives which refuse the Comprehensive 3D SR.
    kind: ResultKind
    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    # Of the Part 10 file.
    sha256: str
    # Relative to the root of the store; "" before it is kept.
    path: str = ""
    # Place in the sending order.
    order: int = 0
