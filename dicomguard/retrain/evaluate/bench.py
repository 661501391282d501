"""The judging loop: write, judge, note the scores, delete. Knows no table and no threshold of its own."""

import tempfile
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np

from dicomguard.errors import DicomguardError
from dicomguard.retrain.evaluate import format_only, metrics, peers, places
from dicomguard.retrain.evaluate.archives import patient_of, unpacked
from dicomguard.retrain.evaluate.cases import SMALLEST_MASK_PX, Case, Forgery, forge
from dicomguard.retrain.evaluate.gallery import Keeper, Shot
from dicomguard.retrain.evaluate.records import (
    AUTHENTIC,
    UNTOUCHED,
    FormatRecord,
    LesionRecord,
    Mark,
    PlaceRecord,
    ProcessedRecord,
    SliceRecord,
    StudyRecord,
)
from dicomguard.retrain.evaluate.scoring import Score, Scored
from dicomguard.retrain.tamper import postprocess
from dicomguard.retrain.tamper.families import Family
from dicomguard.retrain.tamper.forged import Mask, Pixels
from dicomguard.retrain.tamper.postprocess import Postprocess
from dicomguard.retrain.tamper.study import write_planes

Progress = Callable[[int, int], None]
T = TypeVar("T")
U = TypeVar("U")

# A finding hits when it covers this share of the forged pixels, or overlaps them this well.
_COVERED, _OVERLAPPING = 0.3, 0.2
_FORGED = ("added", "removed")


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A case after the production path."""

    scored: Scored
    # Plane → score; planes that were not analysed are missing.
    scores: Mapping[int, float]
    # SOP Instance UIDs in the order of the planes.
    sops: Sequence[str]
    # Plane → format features, for the planes asked for.
    features: Mapping[int, tuple[float, ...]]

    @property
    def flagged(self) -> bool:
        """Whether the study was called forged."""
        return self.scored.document["category"] in _FORGED

    def answer(self, z: int) -> str:
        """What is said of one plane: the category of its most suspect finding of forgery, else real, else absent."""
        here = [region for region in self.scored.regions if region.masks.get(self.sops[z], _NOTHING).any()]
        forged = [region for region in here if region.category in _FORGED]
        if forged:
            return max(forged, key=lambda region: region.p_forged).category
        return "real" if here else "absent"


_NOTHING = np.zeros((1, 1), np.bool_)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seen:
    """What one study shows."""

    study: StudyRecord
    slices: list[SliceRecord] = field(default_factory=list)
    lesions: list[LesionRecord] = field(default_factory=list)
    formats: list[FormatRecord] = field(default_factory=list)
    placed: list[PlaceRecord] = field(default_factory=list)
    shots: list[Shot] = field(default_factory=list)


class Bench:
    """The judging loop and what it has seen so far; `at_once` studies are forged and judged beside each other."""

    def __init__(
        self, score: Score, *, seed: int, progress: Progress, families: Sequence[Family], at_once: int = 1
    ) -> None:
        self._score, self.seed, self._progress, self._at_once = score, seed, progress, at_once
        self._done, self._total = 0, 0
        self.families = families
        self.slices: list[SliceRecord] = []
        self.studies: list[StudyRecord] = []
        self.lesions: list[LesionRecord] = []
        self.processed: list[ProcessedRecord] = []
        self.formats: list[FormatRecord] = []
        self.placed: list[PlaceRecord] = []
        self.gallery = Keeper()
        # (source, family) → cases on which the family found nothing to do.
        self.unforged: dict[tuple[str, str], int] = defaultdict(int)
        # The shipped threshold as the verdicts state it.
        self.threshold = 0.5

    def expect(self, steps: int) -> None:
        """So many steps more are to come."""
        self._total += steps

    def _step(self) -> None:
        """One study, or forgery of one, is done."""
        self._done += 1
        self._progress(self._done, self._total)

    def each(self, do: Callable[[T], U], items: Sequence[T]) -> Iterator[U]:
        """What `do` gives for each item, in order; each one is a step that was expected."""
        threads = ThreadPoolExecutor(self._at_once)
        try:
            for found in threads.map(do, items):
                yield found
                self._step()
        finally:
            threads.shutdown(cancel_futures=True)

    def judge(self, cases: Sequence[Case], per_family: Mapping[str, int]) -> None:
        """Authentic studies, then each family on so many cases of each source."""
        chosen = {source: spread(own, most(per_family, source)) for source, own in by_source(cases).items()}
        self.expect(len(cases) + len(self.families) * sum(len(own) for own in chosen.values()))
        for source, own in by_source(cases).items():
            twins: dict[str, Judged] = {}
            for case, (judged, seen) in zip(own, self.each(self._authentic, own), strict=True):
                twins[case.key] = judged
                self._keep(seen)
            self._judge_forged(own, chosen[source], twins)

    def _judge_forged(self, own: Sequence[Case], chosen: Sequence[Case], twins: Mapping[str, Judged]) -> None:
        pairs = [(family, case) for family in self.families for case in chosen]

        def judge(pair: tuple[Family, Case]) -> _Seen | None:
            forgery = forge(pair[1], pair[0], own, seed=self.seed)
            return None if forgery is None else self._forged(forgery, twins[pair[1].key])

        for (family, case), seen in zip(pairs, self.each(judge, pairs), strict=True):
            if seen is None:
                self.unforged[(case.source, family.name)] += 1
            else:
                self._keep(seen)

    def _keep(self, seen: _Seen) -> None:
        self.studies.append(seen.study)
        self.slices += seen.slices
        self.lesions += seen.lesions
        self.formats += seen.formats
        self.placed += seen.placed
        for shot in seen.shots:
            self.gallery.offer(shot)

    def judge_processed(self, cases: Sequence[Case], per_operation: Mapping[str, int]) -> None:
        """The same operation on an authentic study and on one forgery of it, for each operation and for none.

        Families take turns over the cases, so that an operation meets several.
        """
        operations = [UNTOUCHED, *postprocess.OPERATIONS, *postprocess.HELD_BACK]
        chosen = {source: spread(own, most(per_operation, source)) for source, own in by_source(cases).items()}
        self.expect(len(operations) * sum(len(own) for own in chosen.values()))
        for source, donors in by_source(cases).items():
            for place, case in enumerate(chosen[source]):
                family = self.families[(3 * place + len(source)) % len(self.families)]
                forgery = forge(case, family, donors, seed=self.seed)
                for records in self.each(partial(self._processed, case, forgery), operations):
                    self.processed += records

    def _processed(self, case: Case, forgery: Forgery | None, operation: str) -> list[ProcessedRecord]:
        chance = np.random.default_rng([self.seed, zlib.crc32(f"{case.key}/{operation}".encode())])
        amount = float(chance.uniform(0.4, 0.6))
        steps = () if operation == UNTOUCHED else (operation,)
        done = Postprocess(steps=steps, amounts=(amount,) * len(steps), seed=int(chance.integers(2**32)))
        low, high = 0.0, float(2**case.bits - 1)
        stacks = [(False, case.pixels)] + ([(True, forgery.pixels())] if forgery is not None else [])
        records = []
        for forged, pixels in stacks:
            name = f"{operation}/{'forged' if forged else AUTHENTIC}"
            judged = self.planes(case, done.apply(pixels, low, high), name)
            # An operation may move the forged pixels, or cut them off.
            wanted = [
                value
                for z, value in judged.scores.items()
                if not forged or (forgery and int(done.moved(forgery.mask(z)[0]).sum()) >= SMALLEST_MASK_PX)
            ]
            records.append(
                ProcessedRecord(
                    operation=operation,
                    source=case.source,
                    patient=case.patient,
                    forged=forged,
                    scores=tuple(wanted),
                    flagged=judged.flagged,
                )
            )
        return records

    def planes(self, case: Case, pixels: Pixels, name: str, *, featured: Sequence[int] = ()) -> Judged:
        """Write a stack as one study, judge it, delete it; `featured` planes also get their format features."""
        with tempfile.TemporaryDirectory() as folder:
            written = write_planes(pixels, case.acquisition(name), Path(folder), loose=case.loose)
            scored = self._score([path for path, _ in written])
            features = {z: format_only.features(written[z][0], case.head[z]) for z in featured}
        point = scored.document["model"]["operating_point"]
        self.threshold = float(point["forgery"])
        place = {sop: z for z, (_, sop) in enumerate(written)}
        scores = {
            place[item["sop_instance_uid"]]: float(item["forgery"])
            for item in scored.document["slices"]
            if item["forgery"] is not None
        }
        return Judged(scored=scored, scores=scores, sops=[sop for _, sop in written], features=features)

    def _authentic(self, case: Case) -> tuple[Judged, _Seen]:
        stack = case.pixels
        judged = self.planes(case, stack, AUTHENTIC, featured=range(len(stack)))
        truth = "real" if case.lesion.any() else "absent"
        marks = tuple((region.p_forged, False) for region in judged.scored.regions)
        seen = _Seen(study=_study(judged.scored, case, AUTHENTIC, truth, marks))
        for z, value in judged.scores.items():
            marked = int(case.lesion[z].sum())
            said = peers.maps(stack[z], case.head[z])
            seen.slices.append(
                SliceRecord(
                    source=case.source,
                    patient=case.patient,
                    family=AUTHENTIC,
                    score=value,
                    twin_score=None,
                    group=case.group,
                    sequence=case.sequence,
                    truth="real" if marked else "absent",
                    answer=judged.answer(z),
                    lesion_before=marked,
                    lesion=marked,
                    peers={peer: peers.score(one, case.head[z]) for peer, one in said.items()},
                )
            )
            seen.lesions.append(_lesion(case, z, judged))
            found = judged.scored.forged.get(judged.sops[z])
            seen.shots.append(
                Shot(
                    kind="false alarm",
                    patient=case.patient,
                    family=AUTHENTIC,
                    score=value,
                    f1=None,
                    plane=stack[z],
                    truth=np.zeros_like(case.head[z]),
                    model=np.zeros_like(case.head[z]) if found is None else found,
                )
            )
        return judged, seen

    def _forged(self, forgery: Forgery, authentic: Judged) -> _Seen:
        case, family = forgery.case, forgery.family
        stack = forgery.pixels()
        counted = [z for z in range(len(stack)) if int(forgery.mask(z)[0].sum()) >= SMALLEST_MASK_PX]
        twin = authentic
        if not np.array_equal(forgery.twin(), case.pixels):
            # A forger who goes over the whole slice is compared with the authentic slice that he went over.
            twin = self.planes(case, forgery.twin(), f"{family.name}/twin", featured=counted)
        judged = self.planes(case, stack, family.name, featured=counted)
        truth = forgery.forged.kind if forgery.forged.kind in _FORGED else ""
        marks = _marks(judged, {z: forgery.mask(z)[0] for z in counted})
        seen = _Seen(study=_study(judged.scored, case, family.name, truth, marks))
        for z in counted:
            if z in judged.scores and z in twin.scores:
                self._forged_slice(seen, forgery, z, stack[z], judged, twin, truth)
        return seen

    def _forged_slice(
        self, seen: _Seen, forgery: Forgery, z: int, plane: Pixels, judged: Judged, twin: Judged, truth: str
    ) -> None:
        case, family, head = forgery.case, forgery.family, forgery.case.head[z]
        mask, ignored = forgery.mask(z)
        found = judged.scored.forged.get(judged.sops[z], np.zeros_like(mask))
        hit = metrics.overlap(found, mask, ignored)
        said = peers.maps(plane, head)
        seen.slices.append(
            SliceRecord(
                source=case.source,
                patient=case.patient,
                family=family.name,
                score=judged.scores[z],
                twin_score=twin.scores[z],
                group=case.group,
                sequence=case.sequence,
                kind=forgery.forged.kind,
                area=int(mask.sum()),
                truth=truth,
                answer=judged.answer(z),
                f1=hit.f1,
                iou=hit.iou,
                lesion_before=int(case.lesion[z].sum()),
                lesion=int(forgery.forged.lesion[z - forgery.first].sum()),
                peers={peer: peers.score(one, head) for peer, one in said.items()},
            )
        )
        model = np.zeros(mask.shape, np.float32)
        for region in judged.scored.regions:
            if judged.sops[z] in region.masks:
                model = np.maximum(model, np.float32(region.p_forged) * region.masks[judged.sops[z]])
        seen.placed.append(
            PlaceRecord(
                source=case.source,
                patient=case.patient,
                family=family.name,
                placed=places.place(head, mask, {"model": model, **said}),
            )
        )
        for forged, side in ((False, twin), (True, judged)):
            seen.formats.append(
                FormatRecord(source=case.source, patient=case.patient, forged=forged, features=side.features[z])
            )
        seen.shots.append(
            Shot(
                kind="hit" if judged.scores[z] >= self.threshold and hit.f1 > 0 else "miss",
                patient=case.patient,
                family=family.name,
                score=judged.scores[z],
                f1=hit.f1,
                plane=plane,
                truth=mask,
                model=found,
            )
        )

    def judge_archives(self, folder: Path) -> None:
        """Each DICOM study of each archive, authentic as found: counted for false alarms only."""
        for archive in sorted(folder.glob("*.tar.xz")):
            name = f"dicom {archive.name.removesuffix('.tar.xz')}"
            with unpacked(archive) as studies:
                for number, files in enumerate(studies):
                    try:
                        scored = self._score(files)
                    except DicomguardError:
                        # Archives also hold what no node analyses; it raises no alarm.
                        continue
                    # A person may have several studies, in several archives.
                    person = f"dicom/{patient_of(files[0]) or f'{archive.name}/{number}'}"
                    value = scored.document["score"]["forgery"]
                    self.studies.append(
                        StudyRecord(
                            source=name,
                            patient=person,
                            family=AUTHENTIC,
                            truth="",
                            answer=str(scored.document["category"]),
                            score=None if value is None else float(value),
                        )
                    )
                    self.slices += [
                        SliceRecord(
                            source=name, patient=person, family=AUTHENTIC, score=float(item["forgery"]), twin_score=None
                        )
                        for item in scored.document["slices"]
                        if item["forgery"] is not None
                    ]


def by_source(cases: Sequence[Case]) -> dict[str, list[Case]]:
    """Cases of each source, in their order."""
    found: dict[str, list[Case]] = defaultdict(list)
    for case in cases:
        found[case.source].append(case)
    return found


def most(limits: Mapping[str, int], source: str) -> int:
    """The limit of a source; "" holds for sources not named."""
    return limits.get(source, limits[""])


def spread(cases: Sequence[Case], count: int) -> list[Case]:
    """At most so many cases, evenly over the people."""
    if len(cases) <= count:
        return list(cases)
    return [cases[round(index * (len(cases) - 1) / max(1, count - 1))] for index in range(count)]


def _study(scored: Scored, case: Case, family: str, truth: str, marks: tuple[Mark, ...]) -> StudyRecord:
    value = scored.document["score"]["forgery"]
    return StudyRecord(
        source=case.source,
        patient=case.patient,
        family=family,
        truth=truth,
        answer=str(scored.document["category"]),
        score=None if value is None else float(value),
        marks=marks,
        group=case.group,
    )


def _marks(judged: Judged, wanted: Mapping[int, Mask]) -> tuple[Mark, ...]:
    """Each finding of a forged study by p(forged), and whether it hits the forged pixels of all planes together."""
    total = sum(int(mask.sum()) for mask in wanted.values())
    marks = []
    for region in judged.scored.regions:
        common = sum(
            int((region.masks[judged.sops[z]] & mask).sum())
            for z, mask in wanted.items()
            if judged.sops[z] in region.masks
        )
        marks.append((region.p_forged, _is_hit(common, total, sum(int(m.sum()) for m in region.masks.values()))))
    return tuple(marks)


def _is_hit(common: int, true: int, said: int) -> bool:
    if not common:
        return False
    return common >= _COVERED * true or common / (true + said - common) >= _OVERLAPPING


def _lesion(case: Case, z: int, judged: Judged) -> LesionRecord:
    """Findings on one authentic plane as answers to the question of a lesion."""
    lesion, sop = case.lesion[z], judged.sops[z]
    wanted = int(lesion.sum()) >= SMALLEST_MASK_PX
    marks: list[Mark] = []
    dice: list[float] = []
    for region in judged.scored.regions:
        mask = region.masks.get(sop)
        if mask is None or not mask.any():
            continue
        hit = wanted and _is_hit(int((mask & lesion).sum()), int(lesion.sum()), int(mask.sum()))
        # A mark on a lesion too small to count is neither; one that only touches one that counts is false.
        if hit or wanted or not (mask & lesion).any():
            marks.append((region.p_tumor, hit))
        if hit:
            dice.append(metrics.overlap(mask, lesion).f1)
    return LesionRecord(
        source=case.source, patient=case.patient, marks=tuple(marks), wanted=wanted, dice=max(dice, default=None)
    )
