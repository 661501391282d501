"""Is this series analysed, by which rule, and inside or outside the model's declared scope.

A series is judged as a whole, by the attributes of its headers (PS3.3 C.7.3.1, C.7.6.1.1.2, C.8.3.1). Rules of the
configuration come first, in their order, and the first that matches decides; then the rules of this module, which
leave out what is no scan of a head and let through whatever may be one. Nothing here looks at a pixel.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

from dicomguard.core import geometry
from dicomguard.core.instance import Header, Orientation
from dicomguard.core.study import Scope
from dicomguard.core.verdict import ModelScope

Action = Literal["analyse", "skip"]
# Keys of `english.REASONS` for the slices of a series that is left out as a whole.
SkipReason = Literal["", "localiser", "derived", "no head"]

# Rule of objects that are no images and have no slices.
NO_IMAGE = "no image"
# Component of a complex image that shows no anatomy.
PHASE = "P"

_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
_MR_CLASSES = ("1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.5.1.4.1.1.4.1")
_CT_CLASSES = ("1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.2.1")
# Transfer syntaxes that always lose something: JPEG baseline and extended, JPEG-LS near-lossless (PS3.5 A.4). JPEG 2000
# may or may not, and says so in the header.
_LOSSY = frozenset({"1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51", "1.2.840.10008.1.2.4.81"})
# Objects that have pixels, or not, and are no images (PS3.3 C.7.3.1.1.1).
_NO_IMAGE = {
    "SEG": "a segmentation",
    "SR": "a structured report",
    "KO": "a key object selection",
    "PR": "a presentation state",
    "REG": "a registration",
    "FID": "a set of fiducials",
    "RTSTRUCT": "a set of contours",
    "RTPLAN": "a treatment plan",
    "RTDOSE": "a dose distribution",
    "RTRECORD": "a treatment record",
    "ECG": "a waveform",
    "EEG": "a waveform",
    "HD": "a waveform",
    "AU": "a recording of sound",
    "DOC": "a document",
    "RWV": "a table of real world values",
    "SMR": "a stereometric relation",
    "PLAN": "a plan",
    "M3D": "a model for manufacture",
}
_LOCALISER = re.compile(r"locali[sz]|\bloc\b|scout|survey|topogram|surview|3[- ]?plane|plan[ _-]?scan|smartbrain", re.I)
# Values of Image Type from the third on, of vendors' maps and reformats.
_MAPS = {
    "ADC": "a map of diffusion (ADC)",
    "FA": "a map of anisotropy (FA)",
    "TRACEW": "a trace-weighted diffusion image",
    "TENSOR": "a diffusion tensor",
    "MIP": "a maximum intensity projection",
    "MNIP": "a minimum intensity projection",
    "MINIP": "a minimum intensity projection",
    "PROJECTION IMAGE": "a projection",
    "MPR": "a reformat (MPR)",
    "REFORMATTED": "a reformat",
    "CSA MPR": "a reformat (MPR)",
    "CSAPARALLEL": "a reformat",
    "SUBTRACT": "a subtraction",
    "SUBTRACTION": "a subtraction",
    "T1 MAP": "a map of T1",
    "T2 MAP": "a map of T2",
    "T2_STAR MAP": "a map of T2*",
    "PHASE": "a phase image",
    "PHASE MAP": "a phase image",
    "P": "a phase image",
    "FIELD_MAP": "a field map",
    "PERFUSION": "a perfusion map",
    "RCBV": "a perfusion map",
    "RCBF": "a perfusion map",
    "CBV": "a perfusion map",
    "CBF": "a perfusion map",
    "MTT": "a perfusion map",
    "TTP": "a perfusion map",
    "SEGMENTATION": "a segmentation",
    "MASK": "a mask",
    "SCREEN SAVE": "a screenshot",
}
# Values of Image Type from the third on that name a component of a complex image: the standard's words (PS3.3
# C.8.3.1.1.1, C.8.13.3.1.1) and the letters of vendors.
_COMPONENTS = {
    "M": "M",
    "MAGNITUDE": "M",
    "P": PHASE,
    "PHASE": PHASE,
    "PHASE MAP": PHASE,
    "R": "R",
    "REAL": "R",
    "I": "I",
    "IMAGINARY": "I",
}
_MAP_TEXT = re.compile(
    r"(?:^|[\s_/(\-])(adc|colfa|fa[ _]map|mip|minip|mpr|reformat\w*|subtract\w*|r?cbv|r?cbf|mtt|ttp"
    r"|phase[ _]?map|field[ _]?map|b0[ _]?map|roi|mask|segmentation|label[ _]?map)(?:$|[\s_/)\-])",
    re.I,
)
_PAPER = re.compile(r"screen|dose|report|summary|protocol page|patient protocol|result", re.I)
_BRAIN_PART = re.compile(r"head|brain|skull|cereb|cran|neuro|encephal|pituit|sella|hypoph|schädel|kopf", re.I)
_BRAIN_TEXT = re.compile(_BRAIN_PART.pattern + r"|flair|mprage|spgr|bravo|tirm|dark[ _-]?fluid", re.I)
_OTHER_TEXT = re.compile(
    r"spine|lumbar|thora[ck]|cervic|\b[ctl]-?spine|\bknee|shoulder|\bhip\b|\bwrist|\bankle|\bfoot|\bhand\b|elbow|abdom"
    r"|pelvi|prostat|breast|mamm|cardiac|heart|liver|kidney|\bchest|\blung|uterus|rectum|femur|\bwhole[ _]?body",
    re.I,
)
_FLAIR = re.compile(r"flair|tirm|dark[ _-]?fluid", re.I)
_T1 = re.compile(r"t1|mprage|mp2rage|spgr|bravo|tfl3d|fspgr|vibe|ultrafast gre", re.I)
_T2 = re.compile(r"t2(?![*_ ]?(?:star|\*))(?!\*)", re.I)
_CONTRAST = re.compile(r"\+ ?c\b|\bc\+|\bce\b|t1c|gad|\bgd\b|[ _+]gd|contrast|post|\bkm\b|\+k", re.I)
# A localiser shows three planes with few slices each.
_LOCALISER_FRAMES = 45


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One `[[rules]]` table of the configuration."""

    name: str
    action: Action
    # Calling AE titles; empty for all, uploads included.
    calling_ae_titles: tuple[str, ...] = ()
    # Shell patterns per attribute, case ignored; every attribute that is given has to match one of its patterns.
    modality: tuple[str, ...] = ()
    body_part: tuple[str, ...] = ()
    # One value of Image Type has to match.
    image_type: tuple[str, ...] = ()
    series_description: tuple[str, ...] = ()
    protocol_name: tuple[str, ...] = ()
    manufacturer: tuple[str, ...] = ()
    model_name: tuple[str, ...] = ()
    sop_class_uid: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What becomes of one series; `explain` prints it."""

    analysed: bool
    # A whole sentence.
    reason: str
    # Name of the rule that decided.
    rule: str
    # Reason of its slices when it is not analysed; "" for objects without slices.
    skipped: SkipReason
    scope: Scope
    # Short phrases, "sequence T2"; empty inside the scope.
    scope_reasons: tuple[str, ...]
    # flair, t1, t1c, t2, ct or "".
    sequence: str


@dataclass(frozen=True, slots=True)
class _Left:
    """A reason for leaving a series out."""

    rule: str
    reason: str
    skipped: SkipReason


def decide(series: Sequence[Header], *, rules: Sequence[Rule], calling_ae: str, scope: ModelScope) -> Choice:
    """Judge one series by its headers, of which there is at least one; by its magnitude if it has phase images too."""
    first = _typical(_judged(series))
    sequence = sequence_group(first)
    reasons = _outside(first, sequence, scope)
    if any(header.lossy or header.transfer_syntax_uid in _LOSSY for header in series):
        reasons = (*reasons, "lossy compression")
    where: Scope = "outside" if reasons else "inside"
    if not _is_image(first):
        kind = _NO_IMAGE.get(first.modality, "an object without pixels")
        return _left(_Left(NO_IMAGE, f"It is {kind}, not an image.", ""), where, reasons, sequence)
    for rule in rules:
        if not _matches(rule, first, calling_ae):
            continue
        if rule.action == "skip":
            return _left(_Left(rule.name, f'Rule "{rule.name}" leaves it out.', "derived"), where, reasons, sequence)
        return Choice(
            analysed=True,
            reason=f'Rule "{rule.name}" includes it.',
            rule=rule.name,
            skipped="",
            scope=where,
            scope_reasons=reasons,
            sequence=sequence,
        )
    for check in (_localiser, _derived, _modality, _body_part):
        left = check(first, series)
        if left is not None:
            return _left(left, where, reasons, sequence)
    return Choice(
        analysed=True,
        reason=f"It was taken for a scan of the head ({_what(first, sequence)}).",
        rule="head scan",
        skipped="",
        scope=where,
        scope_reasons=reasons,
        sequence=sequence,
    )


def sequence_group(header: Header) -> str:
    """flair, t1, t1c, t2, ct or "": from the texts, else from times (ms) of spin and gradient echo practice."""
    if _modality_of(header) == "CT":
        return "ct"
    text = " ".join((header.series_description, header.protocol_name, header.sequence_name))
    if _FLAIR.search(text):
        return "flair"
    if _T2.search(text) and not _T1.search(text):
        return "t2"
    contrast = bool(header.contrast_agent.strip()) and header.contrast_agent.strip().upper() not in ("NO", "NONE")
    if _T1.search(text):
        return "t1c" if contrast or _CONTRAST.search(text) else "t1"
    repetition, echo, inversion = header.repetition_time_ms, header.echo_time_ms, header.inversion_time_ms
    if inversion is not None and echo is not None and inversion >= 1500 and echo >= 60:
        return "flair"
    if repetition is not None and echo is not None:
        if repetition <= 1000 and echo <= 30:
            return "t1c" if contrast else "t1"
        if repetition >= 2000 and echo >= 60:
            return "t2"
    return ""


def component(image_type: tuple[str, ...]) -> str:
    """M, P, R or I as Image Type says (magnitude, phase, real, imaginary); "" where it does not."""
    return next((_COMPONENTS[value] for value in image_type[2:] if value in _COMPONENTS), "")


def _judged(series: Sequence[Header]) -> Sequence[Header]:
    phase = [header for header in series if component(header.image_type) == PHASE]
    magnitude = [header for header in series if _is_image(header) and component(header.image_type) != PHASE]
    return magnitude if phase and magnitude else series


def _typical(series: Sequence[Header]) -> Header:
    # A stray instance must not decide for its series.
    counts = Counter((header.modality, header.image_type, header.series_description) for header in series)
    usual = max(counts, key=lambda key: (counts[key], key))
    return next(h for h in series if (h.modality, h.image_type, h.series_description) == usual)


def _left(left: _Left, scope: Scope, reasons: tuple[str, ...], sequence: str) -> Choice:
    return Choice(
        analysed=False,
        reason=left.reason,
        rule=left.rule,
        skipped=left.skipped,
        scope=scope,
        scope_reasons=reasons,
        sequence=sequence,
    )


def _is_image(header: Header) -> bool:
    return header.has_pixels and header.modality not in _NO_IMAGE


def _modality_of(header: Header) -> str:
    if header.modality in ("", "OT"):
        if header.sop_class_uid in _MR_CLASSES:
            return "MR"
        if header.sop_class_uid in _CT_CLASSES:
            return "CT"
    return header.modality


def _matches(rule: Rule, header: Header, calling_ae: str) -> bool:
    if rule.calling_ae_titles and calling_ae not in rule.calling_ae_titles:
        return False
    wanted = (
        (rule.modality, (header.modality,)),
        (rule.body_part, (header.body_part,)),
        (rule.image_type, header.image_type),
        (rule.series_description, (header.series_description,)),
        (rule.protocol_name, (header.protocol_name,)),
        (rule.manufacturer, (header.manufacturer,)),
        (rule.model_name, (header.model_name,)),
        (rule.sop_class_uid, (header.sop_class_uid,)),
    )
    return all(_one_matches(values, patterns) for patterns, values in wanted if patterns)


def _one_matches(values: tuple[str, ...], patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(value.upper(), pattern.upper()) for value in values for pattern in patterns)


def _localiser(first: Header, series: Sequence[Header]) -> _Left | None:
    if any(value.upper() in ("LOCALIZER", "SCOUT") for value in first.image_type):
        return _Left("localiser", "Image Type says LOCALIZER: it only plans the scan.", "localiser")
    if _LOCALISER.search(first.series_description):
        return _Left("localiser", "Series Description names a localiser: it only plans the scan.", "localiser")
    if _three_planes(series):
        return _Left("localiser", "It shows three planes with few slices each, as a localiser does.", "localiser")
    return None


def _three_planes(series: Sequence[Header]) -> bool:
    seen: dict[tuple[int, int, int], Orientation] = {}
    frames = [frame for header in series for frame in header.frames]
    if not 3 <= len(frames) <= _LOCALISER_FRAMES:
        return False
    for frame in frames:
        if frame.orientation is None or frame.position_mm is None:
            return False
        direction = geometry.normal(frame.orientation)
        largest = max(range(3), key=lambda axis: abs(direction[axis]))
        main = [int(axis == largest) for axis in range(3)]
        seen[(main[0], main[1], main[2])] = frame.orientation
    return len(seen) == 3


def _derived(first: Header, series: Sequence[Header]) -> _Left | None:
    for value in first.image_type[2:]:
        kind = _MAPS.get(value.strip().upper())
        if kind is not None:
            return _Left(
                "derived", f"Image Type says {value.strip().upper()}: it is {kind}, computed from a scan.", "derived"
            )
    # "t1_mpr_sag_p2_iso" is how Siemens names an MPRAGE as acquired: there the Image Type has the word.
    acquired = tuple(value.strip().upper() for value in first.image_type[:2]) == ("ORIGINAL", "PRIMARY")
    for found in _MAP_TEXT.findall(first.series_description):
        if not (acquired and found.lower() == "mpr"):
            return _Left("derived", f'Series Description says "{found}": it was computed from a scan.', "derived")
    secondary = first.sop_class_uid.startswith(_SECONDARY_CAPTURE) or first.modality == "OT"
    if secondary and _PAPER.search(" ".join((first.series_description, *first.image_type))):
        return _Left("screenshot", "It is a secondary capture of a page or screen, not of a slice.", "derived")
    return None


def _modality(first: Header, series: Sequence[Header]) -> _Left | None:
    modality = _modality_of(first)
    if modality == "CT":
        return _Left("modality", "It is CT, for which the model was not validated.", "no head")
    # Pictures that people wrapped come as OT or SC, or say nothing.
    if modality in ("MR", "OT", "SC", ""):
        return None
    return _Left("modality", f"Its modality is {modality}; only MR of the head is analysed.", "no head")


def _body_part(first: Header, series: Sequence[Header]) -> _Left | None:
    text = " ".join((first.series_description, first.protocol_name))
    if _BRAIN_PART.search(first.body_part) or _BRAIN_TEXT.search(text):
        return None
    if first.body_part and _OTHER_TEXT.search(first.body_part.replace("_", " ")):
        return _Left("body part", f"Body Part Examined is {first.body_part}, not the head.", "no head")
    if (found := _OTHER_TEXT.search(text.replace("_", " "))) is not None:
        return _Left(
            "body part", f'Series Description or Protocol Name says "{found.group()}", not the head.', "no head"
        )
    return None


def _outside(header: Header, sequence: str, scope: ModelScope) -> tuple[str, ...]:
    """Why the model's validation says nothing about this series; unsure counts as outside."""
    reasons = []
    modality = _modality_of(header)
    if modality not in scope.modalities:
        reasons.append(f"modality {modality or 'not stated'}")
    elif scope.sequences and sequence not in {item.lower() for item in scope.sequences}:
        reasons.append(f"sequence {sequence.upper() if sequence else 'not recognised'}")
    if not _BRAIN_PART.search(header.body_part) and not _BRAIN_TEXT.search(header.series_description):
        reasons.append(f"body part {header.body_part or 'not stated'}")
    if header.sop_class_uid.startswith(_SECONDARY_CAPTURE):
        reasons.append("secondary capture")
    elif header.image_type[:1] == ("DERIVED",):
        reasons.append("derived image")
    if header.samples_per_pixel > 1 or header.photometric.startswith("PALETTE"):
        reasons.append("colour image")
    return tuple(reasons)


def _what(header: Header, sequence: str) -> str:
    parts = [_modality_of(header) or "no modality", sequence.upper(), header.body_part]
    return ", ".join(part for part in parts if part)
