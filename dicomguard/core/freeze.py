"""Freezing: the kept copies of a study become the ordered list that one analysis covers.

The manifest does not depend on the order of arrival. Nothing is dropped: a slice that is not analysed stays in the list
with its reason (a key of `english.REASONS`), so that coverage can be counted.
"""

import hashlib
import itertools
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial

from dicomguard.core import geometry, selection
from dicomguard.core.instance import FrameGeometry, Header, Instance
from dicomguard.core.study import CONFLICT_COPY, ConflictCopy, Manifest, OpenedBecause, SeriesPlan, SliceFile
from dicomguard.core.verdict import ModelScope

# The deepest feature map of a smaller picture holds too few pixels.
SMALLEST_SIDE = 96
# Vendors print the time of one echo differently from slice to slice; those of two echoes lie farther apart (ms).
SAME_ECHO_MS = 0.2
# Legacy and true multi-frame classes number their frames even when there is one.
_MULTI_FRAME = ("1.2.840.10008.5.1.4.1.1.4.1", "1.2.840.10008.5.1.4.1.1.2.1")
# Limits that keep one study from using up the child; beyond them slices are listed as not looked at.
MOST_SLICES = 20_000


def freeze(
    copies: Iterable[tuple[Header, Instance]],
    *,
    study_instance_uid: str,
    revision: int,
    opened_because: OpenedBecause,
    calling_ae: str,
    rules: Sequence[selection.Rule],
    scope: ModelScope,
    patient_ids: int = 1,
) -> Manifest:
    """List what the analysis of one revision may look at."""
    by_series: dict[str, list[tuple[Header, Instance]]] = defaultdict(list)
    ordered = _numbered(copies)
    for header, instance in ordered:
        by_series[header.series_instance_uid].append((header, instance))
    plans: list[SeriesPlan] = []
    for uid in sorted(by_series, key=lambda uid: (_number(by_series[uid]), uid)):
        plans += _plans(by_series[uid], calling_ae=calling_ae, rules=rules, scope=scope)
    plans = _limited(plans)
    return Manifest(
        study_instance_uid=study_instance_uid,
        revision=revision,
        opened_because=opened_because,
        series=tuple(plans),
        conflicts=_conflicts(ordered),
        patient_ids=patient_ids,
    )


def _numbered(copies: Iterable[tuple[Header, Instance]]) -> list[tuple[Header, Instance]]:
    """In order, ordinals counted within the study: the store counts all copies under a UID, whatever their study.

    Somebody who exports a study anew with a few slices changed must not have those counted as copies of the old ones.
    """
    first: dict[str, int] = {}
    numbered = []
    for header, instance in sorted(copies, key=lambda one: (one[1].sop_instance_uid, one[1].ordinal, one[1].sha256)):
        lowest = first.setdefault(instance.sop_instance_uid, instance.ordinal)
        numbered.append((header, replace(instance, ordinal=instance.ordinal - lowest)))
    return numbered


def unreadable(instance: Instance) -> Header:
    """Stands for the header of a kept file that cannot be read: one slice, not looked at, which its study outlives."""
    return Header(
        sop_instance_uid=instance.sop_instance_uid,
        sop_class_uid=instance.sop_class_uid,
        study_instance_uid=instance.study_instance_uid,
        series_instance_uid=instance.series_instance_uid,
        transfer_syntax_uid=instance.transfer_syntax_uid,
        frames=(FrameGeometry(position_mm=None, orientation=None, spacing_mm=None),),
        has_pixels=True,
    )


def hashed(text: str) -> str:
    """Sixteen digits of the SHA-256 of a text that may name somebody; "" stays ""."""
    return hashlib.sha256(text.encode()).hexdigest()[:16] if text else ""


def _number(series: list[tuple[Header, Instance]]) -> int:
    numbers = [header.series_number for header, _ in series if header.series_number is not None]
    return min(numbers, default=1 << 31)


def _plans(
    series: list[tuple[Header, Instance]], *, calling_ae: str, rules: Sequence[selection.Rule], scope: ModelScope
) -> list[SeriesPlan]:
    headers = [header for header, _ in series]
    decide = partial(selection.decide, rules=rules, calling_ae=calling_ae, scope=scope)
    choice = decide(headers)
    sources: dict[str, tuple[Header, Instance, int]] = {}
    for header, instance in series:
        if not header.has_pixels or choice.rule == selection.NO_IMAGE:
            continue
        for index in range(len(header.frames)):
            key = f"{instance.sop_instance_uid}/{index:06d}/{instance.ordinal}"
            sources[key] = (header, instance, index)
    stacks = geometry.arrange(planes([(key, header, index) for key, (header, _, index) in sources.items()]))
    if not stacks:
        return [_plan(headers[0], choice, None, (), 1)]
    result = []
    for stack in stacks:
        members = [sources[placed.key][0] for placed in stack.planes]
        # Beside a magnitude that is analysed its phase is left out, as a series of phase images alone is. The word in
        # a few headers must hide no slice of a magnitude.
        phase = [one for one in members if selection.component(one.image_type) == selection.PHASE]
        chosen = decide(phase) if choice.analysed and 2 * len(phase) > len(members) else choice
        slices = tuple(_at(_file(*sources[placed.key], choice=chosen), placed.position_mm) for placed in stack.planes)
        result.append(_plan(members[0], chosen, stack, slices, len(stacks)))
    return result


def _echoes(headers: Sequence[Header]) -> dict[float | None, str]:
    """A mark for each Echo Time of a series, one for times that are hardly apart."""
    times = sorted({header.echo_time_ms for header in headers if header.echo_time_ms is not None})
    marks: dict[float | None, str] = {None: ""}
    for before, time in itertools.pairwise([-math.inf, *times]):
        marks[time] = marks[before] if time - before <= SAME_ECHO_MS else str(time)
    return marks


def _limited(plans: Sequence[SeriesPlan]) -> list[SeriesPlan]:
    """Stacks in their order as long as one analysis takes them; the rest keeps its slices with the reason."""
    chosen, result = 0, []
    for plan in plans:
        count = sum(not item.skipped for item in plan.slices)
        if chosen + count > MOST_SLICES:
            slices = tuple(replace(item, skipped=item.skipped or "memory limit") for item in plan.slices)
            result.append(replace(plan, analysed=False, slices=slices))
        else:
            chosen += count
            result.append(plan)
    return result


def planes(frames: Sequence[tuple[str, Header, int]]) -> list[geometry.Plane]:
    """Frames of one series, each as (key, header, index in its object), as `geometry.arrange` takes them."""
    echoes = _echoes([header for _, header, _ in frames])
    return [_plane(key, header, index, echoes) for key, header, index in frames]


def _plane(key: str, header: Header, index: int, echoes: dict[float | None, str]) -> geometry.Plane:
    frame = header.frames[index]
    return geometry.Plane(
        key=key,
        position_mm=frame.position_mm,
        orientation=frame.orientation,
        size=(header.rows, header.columns),
        pixel_spacing_mm=frame.spacing_mm,
        number=(header.instance_number or 0, index),
        stack=frame.stack,
        marks=(
            _mark(header.echo_number),
            echoes[header.echo_time_ms],
            selection.component(header.image_type),
            _mark(header.b_value),
            # Last: some vendors count images or packages with it.
            _mark(header.temporal_position),
        ),
    )


def _mark(value: float | None) -> str:
    return "" if value is None else str(value)


def _file(header: Header, instance: Instance, index: int, *, choice: selection.Choice) -> SliceFile:
    skipped: str = "" if choice.analysed else choice.skipped or "derived"
    if not skipped and instance.ordinal > 0:
        skipped = CONFLICT_COPY
    if not skipped and not min(header.rows, header.columns):
        skipped = "undecodable"
    if not skipped and min(header.rows, header.columns) < SMALLEST_SIDE:
        skipped = "too small"
    return SliceFile(
        sop_instance_uid=header.sop_instance_uid,
        sop_class_uid=header.sop_class_uid,
        frame=index + 1 if len(header.frames) > 1 or header.sop_class_uid in _MULTI_FRAME else None,
        path=instance.path,
        sha256=instance.sha256,
        position_mm=None,
        instance_number=header.instance_number,
        skipped=skipped,
    )


def _at(file: SliceFile, position_mm: float | None) -> SliceFile:
    # A ten-thousandth of a millimetre is finer than any scanner; more digits would make hashes depend on arithmetic.
    return replace(file, position_mm=None if position_mm is None else round(position_mm, 4) + 0.0)


def _plan(
    header: Header, choice: selection.Choice, stack: geometry.Stack | None, slices: tuple[SliceFile, ...], stacks: int
) -> SeriesPlan:
    spacing = stack.spacing_mm if stack is not None else None
    return SeriesPlan(
        series_instance_uid=header.series_instance_uid,
        series_number=header.series_number,
        modality=header.modality,
        description_hash=hashed(header.series_description),
        frame_of_reference_uid=header.frame_of_reference_uid,
        analysed=choice.analysed and any(not item.skipped for item in slices),
        reason=choice.reason,
        scope=choice.scope,
        scope_reasons=choice.scope_reasons,
        kind=stack.kind if stack is not None else "single",
        spacing_mm=(round(spacing[0], 4), round(spacing[1], 4)) if spacing is not None else None,
        tilt_deg=round(stack.tilt_deg, 2) if stack is not None else 0.0,
        pixel_spacing_mm=stack.pixel_spacing_mm if stack is not None else None,
        stacks=stacks,
        slices=slices,
        sequence=choice.sequence,
    )


def _conflicts(copies: list[tuple[Header, Instance]]) -> tuple[ConflictCopy, ...]:
    disputed = {instance.sop_instance_uid for _, instance in copies if instance.ordinal > 0}
    return tuple(
        ConflictCopy(
            sop_instance_uid=instance.sop_instance_uid,
            sha256=instance.sha256,
            received_at=instance.received_at.isoformat(timespec="seconds"),
            calling_ae_hash=hashed(instance.calling_ae),
            analysed=instance.ordinal == 0,
        )
        for _, instance in copies
        if instance.sop_instance_uid in disputed
    )
