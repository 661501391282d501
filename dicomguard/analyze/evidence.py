"""What the files themselves say, beside the network: headers, order and pixel hashes of one study (detection.md 11).

Pure: facts in, sentences out. It knows no score and changes none. Each kind says how often authentic studies show it.
"""

import itertools
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from dicomguard.core.finding import Evidence, FalseAlarms, SliceRef, Strength
from dicomguard.core.geometry import GAP_FACTOR

# Attributes that one acquisition writes alike into each slice.
_CONSTANT = {
    "manufacturer": "Manufacturer",
    "model_name": "Manufacturer's Model Name",
    "device_serial": "Device Serial Number",
    "software_versions": "Software Versions",
}
# Sentences name slices; beyond this the list says nothing more.
_MOST_SLICES = 50


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
    # As `analyze.decoding.facts` gives it, and `stored_range`.
    header: dict[str, Any]

    @property
    def ref(self) -> SliceRef:
        """The slice as evidence names it."""
        return SliceRef(sop_instance_uid=self.sop_instance_uid, frame=self.frame)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    kind: str
    strength: Strength
    parameters: dict[str, Any]
    slices: tuple[SliceRef, ...]


def gather(stacks: Sequence[Sequence[Facts]]) -> tuple[Evidence, ...]:
    """All evidence of a study; each stack holds the decoded slices of one series in order along the normal."""
    found: list[_Found] = list(_identical([item for stack in stacks for item in stack]))
    for stack in stacks:
        for check in _CHECKS:
            found += check(stack)
    return tuple(
        Evidence(
            id=f"E{number}",
            kind=item.kind,
            strength=item.strength,
            sentence_key=item.kind,
            parameters=item.parameters,
            slices=item.slices[:_MOST_SLICES],
            authentic_false_alarms=FALSE_ALARMS[item.kind],
        )
        for number, item in enumerate(found, start=1)
    )


def _identical(slices: Sequence[Facts]) -> Iterable[_Found]:
    by_hash: dict[str, list[Facts]] = defaultdict(list)
    for item in slices:
        if not item.blank:
            by_hash[item.sha256].append(item)
    for same in by_hash.values():
        if len({(item.sop_instance_uid, item.frame) for item in same}) > 1:
            yield _Found(
                kind="identical_pixels", strength="strong", parameters={}, slices=tuple(item.ref for item in same)
            )


def _gaps(stack: Sequence[Facts]) -> Iterable[_Found]:
    positions = [item.position_mm for item in stack]
    known = [position for position in positions if position is not None]
    if len(known) < 4 or len(known) != len(positions):
        return
    steps = [b - a for a, b in itertools.pairwise(known)]
    usual = sorted(steps)[len(steps) // 2]
    for index, step in enumerate(steps):
        if step > GAP_FACTOR * usual:
            yield _Found(
                kind="position_gap",
                strength="notable",
                parameters={"gap_mm": round(step, 2), "usual_mm": round(usual, 2)},
                slices=(stack[index].ref, stack[index + 1].ref),
            )


def _changes(stack: Sequence[Facts]) -> Iterable[_Found]:
    for name, attribute in _CONSTANT.items():
        values = Counter(str(item.header.get(name, "")) for item in stack)
        if len(values) < 2:
            continue
        usual = values.most_common(1)[0][0]
        yield _Found(
            kind="header_changes",
            strength="notable",
            parameters={"attribute": attribute},
            slices=tuple(item.ref for item in stack if str(item.header.get(name, "")) != usual),
        )


def _lossy(stack: Sequence[Facts]) -> Iterable[_Found]:
    # Absent and "00" both say: never compressed with loss.
    lossy = [item for item in stack if item.header.get("lossy") == "01"]
    if 0 < len(lossy) < len(stack):
        yield _Found(
            kind="lossy_flag_differs", strength="notable", parameters={}, slices=tuple(item.ref for item in lossy)
        )


def _stated(stack: Sequence[Facts]) -> Iterable[_Found]:
    synthetic = tuple(item.ref for item in stack if item.header.get("synthetic"))
    if synthetic:
        yield _Found(kind="synthetic", strength="strong", parameters={}, slices=synthetic)
    derived = tuple(item.ref for item in stack if item.header.get("derived") and not item.header.get("synthetic"))
    if derived:
        yield _Found(kind="derived", strength="info", parameters={}, slices=derived)


def _range(stack: Sequence[Facts]) -> Iterable[_Found]:
    """Smallest and Largest Image Pixel Value against the stored pixels (PS3.3 C.7.6.3.1)."""
    wrong = []
    for item in stack:
        header = item.header
        declared, actual = (header.get("smallest"), header.get("largest")), header.get("stored_range")
        # Writers that leave both at one value state nothing; multi-frame objects state the range of all frames.
        if None in declared or actual is None or declared[0] == declared[1] or item.frame is not None:
            continue
        if actual[0] < declared[0] or actual[1] > declared[1]:
            wrong.append(item.ref)
    if wrong:
        yield _Found(kind="pixel_range", strength="info", parameters={}, slices=tuple(wrong))


_CHECKS: tuple[Callable[[Sequence[Facts]], Iterable[_Found]], ...] = (_gaps, _changes, _lossy, _stated, _range)

# Authentic DICOM on which each kind was counted: 4 whole studies (Philips MR and CT, Siemens MR twice) and 11 single
# instances of other scanners, in which only the kinds of one slice can show. Two slices of one Philips study state
# other Software Versions than the rest; 6 instances were written as DERIVED by a converter.
FALSE_ALARMS = {
    "identical_pixels": FalseAlarms(k=0, n=4),
    "position_gap": FalseAlarms(k=0, n=4),
    "header_changes": FalseAlarms(k=1, n=4),
    "lossy_flag_differs": FalseAlarms(k=0, n=4),
    "synthetic": FalseAlarms(k=0, n=15),
    "derived": FalseAlarms(k=6, n=15),
    "pixel_range": FalseAlarms(k=0, n=15),
}
