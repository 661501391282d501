"""Content items of a structured report as highdicom makes them (PS3.3 C.17.3, C.18), one function per value type.

Only what the library does otherwise stands here. Containers are SEPARATE: with CONTINUOUS, its default, renderers drop
the concept names and the reader sees "Present" without the question. Numbers are written as they are meant ("20", not
"20.0").
"""

from collections.abc import Sequence

import numpy as np
from highdicom.sr import (
    CodeContentItem,
    ContainerContentItem,
    ContentItem,
    ImageContentItem,
    NumContentItem,
    RelationshipTypeValues,
    ScoordContentItem,
    SourceImageForRegion,
    TextContentItem,
    UIDRefContentItem,
)

from dicomguard.sr import codes
from dicomguard.sr.codes import Code

CONTAINS = RelationshipTypeValues.CONTAINS
HAS_CONCEPT_MOD = RelationshipTypeValues.HAS_CONCEPT_MOD


def container(
    concept: Code,
    children: Sequence[ContentItem],
    *,
    template: str | None,
    relation: RelationshipTypeValues | None = CONTAINS,
) -> ContainerContentItem:
    """CONTAINER; `template` is a TID of PS3.16, or None inside one; the root has no relation."""
    item = ContainerContentItem(
        concept.concept(), is_content_continuous=False, template_id=template, relationship_type=relation
    )
    item.ContentSequence = list(children)
    return item


def code(concept: Code, value: Code, relation: RelationshipTypeValues = CONTAINS) -> CodeContentItem:
    """CODE."""
    return CodeContentItem(concept.concept(), value.concept(), relation)


def text(concept: Code, value: str) -> TextContentItem:
    """TEXT."""
    return TextContentItem(concept.concept(), value, CONTAINS)


def uidref(concept: Code, value: str) -> UIDRefContentItem:
    """UIDREF."""
    return UIDRefContentItem(concept.concept(), value, CONTAINS)


def num(concept: Code, value: float, unit: Code, *, digits: int) -> NumContentItem:
    """NUM, rounded to `digits` after the point."""
    shown = decimal(value, digits)
    item = NumContentItem(concept.concept(), float(shown), unit.concept(), relationship_type=CONTAINS)
    (measured,) = item.MeasuredValueSequence
    measured.NumericValue = shown
    # Only for values that a decimal string cannot hold.
    del measured.FloatingPointValue
    return item


def image(
    concept: Code, *, sop_class_uid: str, sop_instance_uid: str, frame: int | None = None, segment: int | None = None
) -> ImageContentItem:
    """IMAGE: an instance, a frame of it, or a segment of a segmentation."""
    return ImageContentItem(
        concept.concept(),
        sop_class_uid,
        sop_instance_uid,
        referenced_frame_numbers=frame,
        referenced_segment_numbers=segment,
        relationship_type=CONTAINS,
    )


def region(
    points: Sequence[tuple[float, float]], *, sop_class_uid: str, sop_instance_uid: str, frame: int | None
) -> ScoordContentItem:
    """SCOORD POLYLINE of (column, row); (0.0, 0.0) is the corner of the first pixel (PS3.3 C.18.6.1.2).

    `highdicom.sr.ImageRegion` is the same item, but refuses images of a SOP class that the library does not know.
    """
    item = ScoordContentItem(
        codes.IMAGE_REGION.concept(), "POLYLINE", np.asarray(points, np.float64), relationship_type=CONTAINS
    )
    frames = None if frame is None else [frame]
    item.ContentSequence = [SourceImageForRegion(sop_class_uid, sop_instance_uid, frames)]
    return item


def decimal(value: float, digits: int) -> str:
    """Decimal text without trailing zeros, never "-0", at most 16 characters for any value below 10⁹."""
    shown = f"{value:.{digits}f}"
    if "." in shown:
        shown = shown.rstrip("0").rstrip(".")
    return "0" if shown == "-0" else shown
