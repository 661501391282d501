"""One job from manifest to verdict: decode, judge, measure, decide. The child's main story.

Knows neither where the pixels come from (a `Reader`) nor what judges them (a `Judge`), nor the time of day (`now`).
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np

from dicomguard import part10
from dicomguard.analyze import domain, evidence, masks, traces
from dicomguard.analyze.findings import Candidate, Stack, build, rank
from dicomguard.analyze.judging import Judge, JudgedStack, Plane
from dicomguard.analyze.pixels import Slice, Undecoded
from dicomguard.core import verdict
from dicomguard.core.job import AnalysisJob
from dicomguard.core.study import Manifest, SeriesPlan, SliceFile
from dicomguard.core.verdict import Conflict, CopyReport, Masks, Model, Score, Software, Study, Verdict
from dicomguard.errors import Broken

MASKS_FILE = "masks.npz"

# Regions less likely than this, as lesion and as forgery, are hardly ever reported.
_WORTH_A_SENTENCE = 0.2

# Pixels of one stack that are held at once: 2,000 slices of 512². What is beyond is named, not analysed.
MOST_PIXELS = 2000 * 512 * 512

Progress = Callable[[int, int], None]


class Source(Protocol):
    """Gives decoded frames; `pixels.Reader`, or memory in a test."""

    def read(self, path: Path, frame: int | None) -> Slice | Undecoded:
        """One frame; counts from 1, None is the only one."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The verdict and the bytes beside it."""

    verdict: Verdict
    # `masks.npz`; None without findings.
    masks: bytes | None


def examine(
    job: AnalysisJob,
    *,
    judge: Judge,
    source: Source,
    model: Model,
    software: Software,
    created: Callable[[], str],
    authentic_scores: Sequence[float] = (),
    progress: Progress = lambda done, total: None,
) -> Answer:
    """Analyse a frozen study. Raise `Broken` when a file is not the one that was frozen."""
    root = Path(job.files_root)
    wanted = sum(not item.skipped for plan in job.manifest.series for item in plan.slices if plan.analysed)
    searched = sum(map(_searched, job.manifest.series))
    done = 0
    stacks: list[Stack] = []
    checked: set[str] = set()
    for plan in job.manifest.series:
        stack = Stack(plan=plan, places=[], facts=[], skipped={}, hashes={})
        stacks.append(stack)
        if not plan.analysed:
            continue
        planes: list[Plane] = []
        pixels = 0
        for place, item in enumerate(plan.slices):
            if item.skipped:
                continue
            _verify(root, item, checked)
            decoded = source.read(root / item.path, item.frame)
            done += 1
            # Half of the way is decoding, half is judging.
            progress(done, 2 * wanted)
            if isinstance(decoded, Undecoded):
                stack.skipped[place] = decoded.reason
                continue
            if domain.saturated(decoded.pixels):
                stack.skipped[place] = "saturated"
                continue
            pixels += decoded.pixels.size
            if pixels > MOST_PIXELS:
                stack.skipped[place] = "memory limit"
                continue
            stack.places.append(place)
            stack.hashes[place] = decoded.sha256
            stack.facts.append(facts_of(plan, item, decoded))
            planes.append(decoded.pixels)
        _drop_odd(stack, planes)
        if planes:
            stack.seen = evidence.inspect(stack.facts, planes)
            stack.judged = _judged(judge, plan, stack.places, planes, elsewhere=searched - _searched(plan))
            compressed = any(found.kind == "compression_traces" for found in stack.seen)
            stack.outside = domain.outside(planes, plan, stack.judged, compressed=compressed)
        done += len(stack.places)
        progress(min(done, 2 * wanted), 2 * wanted)
    return _answer(job, stacks, model, software, created(), authentic_scores)


def _searched(plan: SeriesPlan) -> int:
    """Slices of a stack that are to be judged beside each other; loose pictures are judged one by one."""
    if not plan.analysed:
        return 0
    return sum(not item.skipped and item.position_mm is not None for item in plan.slices)


def _judged(
    judge: Judge, plan: SeriesPlan, places: Sequence[int], planes: Sequence[Plane], *, elsewhere: int
) -> JudgedStack:
    """The judge's answer with sentences on the regions that may be reported."""
    positions = [plan.slices[place].position_mm for place in places]
    answer = judge.stack(planes, positions_mm=positions, spacing_mm=plan.pixel_spacing_mm, elsewhere=elsewhere)
    placed = None not in positions
    described = tuple(
        replace(region, evidence=(*region.evidence, *traces.describe(planes, region.masks, placed=placed)))
        if max(region.p_forged, region.p_tumor) >= _WORTH_A_SENTENCE
        else region
        for region in answer.regions
    )
    return replace(answer, regions=described)


def _drop_odd(stack: Stack, planes: list[Plane]) -> None:
    """The header's matrix made the stack; a file that decodes to another one is not what it says."""
    shapes = Counter(plane.shape for plane in planes)
    if len(shapes) < 2:
        return
    usual = shapes.most_common(1)[0][0]
    keep = [index for index, plane in enumerate(planes) if plane.shape == usual]
    for index, place in enumerate(stack.places):
        if index not in keep:
            stack.skipped[place] = "undecodable"
            del stack.hashes[place]
    stack.places[:] = [stack.places[index] for index in keep]
    stack.facts[:] = [stack.facts[index] for index in keep]
    planes[:] = [planes[index] for index in keep]


def _verify(root: Path, item: SliceFile, checked: set[str]) -> None:
    """Once per file: the dataset bytes are those that were received."""
    if item.path in checked:
        return
    path = root / item.path
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            file.seek(part10.dataset_offset(path))
            while piece := file.read(1 << 20):
                digest.update(piece)
    except OSError as error:
        raise Broken(
            f"A file of the study cannot be read ({error.strerror}). Look at the disk of the store."
        ) from error
    if digest.hexdigest() != item.sha256:
        raise Broken("A file of the study is not the one that was received. Look at the disk of the store.")
    checked.add(item.path)


def facts_of(plan: SeriesPlan, item: SliceFile, decoded: Slice) -> evidence.Facts:
    return evidence.Facts(
        series=plan.series_instance_uid,
        sop_instance_uid=item.sop_instance_uid,
        frame=item.frame,
        position_mm=item.position_mm,
        sha256=decoded.sha256,
        blank=bool(decoded.pixels.min() == decoded.pixels.max()),
        header=decoded.facts,
    )


def _answer(
    job: AnalysisJob,
    stacks: list[Stack],
    model: Model,
    software: Software,
    created: str,
    authentic_scores: Sequence[float],
) -> Answer:
    manifest = job.manifest
    predecessor = verdict.Predecessor(**job.predecessor) if job.predecessor is not None else None
    scores = _slice_scores(stacks)
    analysed = len(scores)
    candidates = [
        Candidate(stack=stack, region=region)
        for stack in stacks
        if stack.judged is not None
        for region in stack.judged.regions
    ]
    judged = [stack.judged for stack in stacks if stack.judged is not None]
    forgery = max((item.forgery for item in judged), default=0.0)
    tumor = max((item.tumor for item in judged), default=0.0)
    decision = verdict.decide(
        [
            verdict.Region(p_forged=one.region.p_forged, p_tumor=one.region.p_tumor, p_lesion=one.region.p_lesion)
            for one in candidates
        ],
        forgery=forgery,
        slices_analysed=analysed,
        point=model.operating_point,
    )
    findings, packed = build(candidates, decision, root=Path(job.files_root), authentic_scores=authentic_scores)
    data = masks.pack(packed) if packed else None
    if decision.category == "not_analysable":
        score = Score(forgery=None, tumor=None, authentic_rank=None)
    else:
        score = Score(forgery=forgery, tumor=tumor, authentic_rank=rank(forgery, authentic_scores))
    built = Verdict(
        study=Study(
            study_instance_uid=manifest.study_instance_uid,
            revision=manifest.revision,
            manifest_sha256=manifest.sha256,
            predecessor=predecessor,
            opened_because=manifest.opened_because,
        ),
        created=created,
        software=software,
        model=model,
        category=decision.category if findings or decision.category in ("absent", "not_analysable") else "absent",
        score=score,
        headline_finding=findings[0].id if findings else None,
        series=tuple(_series(stack, scores) for stack in stacks),
        slices=tuple(_slices(stacks, scores)),
        findings=tuple(findings),
        coverage=verdict.coverage(
            manifest,
            slices_analysed=analysed,
            head_area_share=_head_share(stacks),
            outside=any(stack.outside for stack in stacks),
        ),
        evidence=evidence.gather(
            [stack.facts for stack in stacks if stack.facts], [item for stack in stacks for item in stack.seen]
        ),
        conflicts=_conflict_reports(manifest, Path(job.files_root)),
        masks=None if data is None else Masks(file=MASKS_FILE, sha256=hashlib.sha256(data).hexdigest()),
    )
    return Answer(verdict=built, masks=data)


def _slice_scores(stacks: list[Stack]) -> dict[tuple[int, int], float]:
    """(stack, place) → score of every slice that was judged; the reasons of the others are filled in."""
    scores: dict[tuple[int, int], float] = {}
    for number, stack in enumerate(stacks):
        if stack.judged is None:
            continue
        for place, score, skipped in zip(stack.places, stack.judged.scores, stack.judged.skipped, strict=True):
            if score is None:
                stack.skipped[place] = skipped
            else:
                scores[(number, place)] = score
    return scores


def _series(stack: Stack, scores: Mapping[tuple[int, int], float]) -> verdict.SeriesReport:
    analysed = 0
    if stack.judged is not None:
        analysed = sum(score is not None for score in stack.judged.scores)
    reasons = Counter(stack.skipped.values())
    failed = reasons.most_common(1)[0][0] if reasons else "no slice"
    return verdict.series_report(stack.plan, slices_analysed=analysed, failed=failed, outside=stack.outside)


def _slices(stacks: list[Stack], scores: Mapping[tuple[int, int], float]) -> Iterable[verdict.SliceReport]:
    for number, stack in enumerate(stacks):
        for place, item in enumerate(stack.plan.slices):
            score = scores.get((number, place))
            reason = item.skipped or stack.skipped.get(place, "")
            yield verdict.SliceReport(
                series=stack.plan.series_instance_uid,
                sop_instance_uid=item.sop_instance_uid,
                frame=item.frame,
                position_mm=item.position_mm,
                state="skipped" if score is None else "analysed",
                reason=reason,
                forgery=score,
                pixel_sha256=stack.hashes.get(place),
            )


def _head_share(stacks: list[Stack]) -> float:
    """Head pixels in judged slices over head pixels of all chosen slices; one not decoded counts as the usual one.

    The usual one of its stack; where nothing of that was decoded, of the other stacks.
    """
    seen: list[int] = []
    unseen = 0.0
    # Slices of stacks that show no head of their own.
    unknown = 0
    for stack in stacks:
        if stack.judged is None:
            unknown += len(stack.skipped)
            continue
        pairs = zip(stack.judged.scores, stack.judged.head_pixels, strict=True)
        heads = [pixels for score, pixels in pairs if score is not None]
        seen += heads
        lost = len(stack.skipped) - sum(score is None for score in stack.judged.scores)
        unseen += lost * float(np.mean(heads)) if heads else 0.0
        unseen += sum(p for s, p in zip(stack.judged.scores, stack.judged.head_pixels, strict=True) if s is None)
    unseen += unknown * float(np.mean(seen)) if seen else 0.0
    total = sum(seen) + unseen
    return round(sum(seen) / total, 4) if total > 0 else 0.0


def _conflict_reports(manifest: Manifest, root: Path) -> tuple[Conflict, ...]:
    """Copies per disputed instance with the hash of their pixels as sent."""
    paths = {item.sha256: item.path for plan in manifest.series for item in plan.slices}
    copies: dict[str, list[CopyReport]] = {}
    for copy in manifest.conflicts:
        path = paths.get(copy.sha256)
        pixels = part10.pixel_sha256(root / path) if path is not None else None
        copies.setdefault(copy.sop_instance_uid, []).append(
            CopyReport(
                pixel_sha256=pixels or "",
                received_at=copy.received_at,
                calling_ae_hash=copy.calling_ae_hash,
                analysed=copy.analysed,
            )
        )
    return tuple(Conflict(sop_instance_uid=uid, copies=tuple(items)) for uid, items in copies.items())
