"""Content items of a structured report, one function per value type (PS3.3 C.17.3, C.18).

Containers are SEPARATE: with CONTINUOUS, renderers drop the concept names and the reader sees "Present" without the
question. Numbers are written as they are meant ("20", not "20.0").
"""

from collections.abc import Sequence

from pydicom.dataset import Dataset

from dicomguard.sr.codes import Code

CONTAINS = "CONTAINS"
HAS_CONCEPT_MOD = "HAS CONCEPT MOD"
HAS_OBS_CONTEXT = "HAS OBS CONTEXT"
SELECTED_FROM = "SELECTED FROM"


def container(concept: Code, children: Sequence[Dataset], *, template: str, relation: str | None = CONTAINS) -> Dataset:
    """CONTAINER; `template` is a TID of PS3.16, or "" inside one; the root has no relation."""
    item = _item("CONTAINER", concept, relation)
    item.ContinuityOfContent = "SEPARATE"
    if template:
        identification = Dataset()
        identification.MappingResource = "DCMR"
        identification.TemplateIdentifier = template
        item.ContentTemplateSequence = [identification]
    item.ContentSequence = list(children)
    return item


def code(concept: Code, value: Code, relation: str = CONTAINS) -> Dataset:
    """CODE."""
    return code_item(concept, value.item(), relation)


def code_item(concept: Code, value: Dataset, relation: str) -> Dataset:
    """CODE whose value is an item of a source's code sequence."""
    item = _item("CODE", concept, relation)
    item.ConceptCodeSequence = [value]
    return item


def text(concept: Code, value: str, relation: str = CONTAINS) -> Dataset:
    """TEXT."""
    item = _item("TEXT", concept, relation)
    item.TextValue = value
    return item


def uidref(concept: Code, value: str, relation: str = CONTAINS) -> Dataset:
    """UIDREF."""
    item = _item("UIDREF", concept, relation)
    item.UID = value
    return item


def num(concept: Code, value: float, unit: Code, *, digits: int) -> Dataset:
    """NUM, rounded to `digits` after the point."""
    item = _item("NUM", concept, CONTAINS)
    measured = Dataset()
    measured.NumericValue = decimal(value, digits)
    measured.MeasurementUnitsCodeSequence = [unit.item()]
    item.MeasuredValueSequence = [measured]
    return item


def image(
    *,
    sop_class_uid: str,
    sop_instance_uid: str,
    concept: Code | None = None,
    relation: str = CONTAINS,
    frame: int | None = None,
    segment: int | None = None,
) -> Dataset:
    """IMAGE: an instance, a frame of it, or a segment of a segmentation."""
    item = _item("IMAGE", concept, relation)
    reference = Dataset()
    reference.ReferencedSOPClassUID = sop_class_uid
    reference.ReferencedSOPInstanceUID = sop_instance_uid
    if frame is not None:
        reference.ReferencedFrameNumber = frame
    if segment is not None:
        reference.ReferencedSegmentNumber = segment
    item.ReferencedSOPSequence = [reference]
    return item


def polyline(concept: Code, points: Sequence[tuple[float, float]], selected_from: Dataset) -> Dataset:
    """SCOORD POLYLINE of (column, row); (0.0, 0.0) is the corner of the first pixel (PS3.3 C.18.6.1.2)."""
    item = _item("SCOORD", concept, CONTAINS)
    item.GraphicType = "POLYLINE"
    item.GraphicData = [float(value) for point in points for value in point]
    item.ContentSequence = [selected_from]
    return item


def decimal(value: float, digits: int) -> str:
    """Decimal text without trailing zeros, never "-0", at most 16 characters for any value below 10⁹."""
    shown = f"{value:.{digits}f}"
    if "." in shown:
        shown = shown.rstrip("0").rstrip(".")
    return "0" if shown == "-0" else shown


def _item(value_type: str, concept: Code | None, relation: str | None) -> Dataset:
    item = Dataset()
    if relation is not None:
        item.RelationshipType = relation
    item.ValueType = value_type
    if concept is not None:
        item.ConceptNameCodeSequence = [concept.item()]
    return item
