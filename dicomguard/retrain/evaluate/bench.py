"""The judging loop: write, judge, note the scores, delete. Knows no table and no threshold of its own."""

import tarfile
import tempfile
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from dicomguard.errors import DicomguardError, Refused
from dicomguard.retrain.evaluate import metrics
from dicomguard.retrain.evaluate.cases import SMALLEST_MASK_PX, Case, Forgery, forge
from dicomguard.retrain.evaluate.scoring import Score, Scored, study_of
from dicomguard.retrain.evaluate.summary import AUTHENTIC, ProcessedRecord, SliceRecord, StudyRecord
from dicomguard.retrain.tamper import postprocess
from dicomguard.retrain.tamper.families import FAMILIES
from dicomguard.retrain.tamper.forged import Pixels
from dicomguard.retrain.tamper.postprocess import Postprocess
from dicomguard.retrain.tamper.second_hand import SECOND_HAND
from dicomguard.retrain.tamper.study import write_planes

Progress = Callable[[int, int], None]

# Self-blends are no attack; they train only.
_FAMILIES = (*(family for family in FAMILIES.values() if family.name != "self-blend"), *SECOND_HAND.values())


class Bench:
    """The judging loop and what it has seen so far."""

    def __init__(self, score: Score, *, seed: int, progress: Progress) -> None:
        self._score, self._seed, self._progress = score, seed, progress
        self._done, self._total = 0, 0
        self.slices: list[SliceRecord] = []
        self.studies: list[StudyRecord] = []
        self.processed: list[ProcessedRecord] = []
        # (source, family) → cases on which the family found nothing to do.
        self.unforged: dict[tuple[str, str], int] = defaultdict(int)
        # The shipped threshold as the verdicts state it.
        self.threshold = 0.5

    def judge(self, cases: Sequence[Case], per_family: Mapping[str, int]) -> None:
        """Authentic studies, then each family on so many cases of each source."""
        chosen = {source: spread(own, _most(per_family, source)) for source, own in _by_source(cases).items()}
        self._total += len(cases) + len(_FAMILIES) * sum(len(own) for own in chosen.values())
        for source, own in _by_source(cases).items():
            twins = {case.key: self._authentic(case) for case in own}
            for family in _FAMILIES:
                for case in chosen[source]:
                    forgery = forge(case, family, own, seed=self._seed)
                    if forgery is None:
                        self.unforged[(source, family.name)] += 1
                    else:
                        self._forged(forgery, twins[case.key])
                    self._step()

    def judge_processed(self, cases: Sequence[Case], per_operation: Mapping[str, int]) -> None:
        """The same operation on an authentic study and on one forgery of it, for each operation.

        Families take turns over the cases, so that an operation meets several.
        """
        operations = [*postprocess.OPERATIONS, *postprocess.HELD_BACK]
        by_source = {source: spread(own, _most(per_operation, source)) for source, own in _by_source(cases).items()}
        self._total += len(operations) * sum(len(own) for own in by_source.values())
        for source, own in by_source.items():
            donors = [case for case in cases if case.source == source]
            for place, case in enumerate(own):
                family = _FAMILIES[(3 * place + len(source)) % len(_FAMILIES)]
                forgery = forge(case, family, donors, seed=self._seed)
                for operation in operations:
                    self._processed(case, forgery, operation)
                    self._step()

    def _processed(self, case: Case, forgery: Forgery | None, operation: str) -> None:
        chance = np.random.default_rng([self._seed, zlib.crc32(f"{case.key}/{operation}".encode())])
        amount = float(chance.uniform(0.4, 0.6))
        step = Postprocess(steps=(operation,), amounts=(amount,), seed=int(chance.integers(2**32)))
        low, high = 0.0, float(2**case.bits - 1)
        stacks = [(False, case.pixels)] + ([(True, forgery.pixels())] if forgery is not None else [])
        for forged, pixels in stacks:
            name = f"{operation}/{'forged' if forged else AUTHENTIC}"
            scored, scores, _ = self._planes(case, step.apply(pixels, low, high), name)
            wanted = [
                value
                for z, value in scores.items()
                if not forged or (forgery is not None and int(forgery.mask(z)[0].sum()) >= SMALLEST_MASK_PX)
            ]
            self.processed.append(
                ProcessedRecord(
                    operation=operation,
                    source=case.source,
                    patient=case.patient,
                    forged=forged,
                    scores=tuple(wanted),
                    flagged=scored.document["category"] in ("added", "removed"),
                )
            )

    def _step(self) -> None:
        self._done += 1
        self._progress(self._done, self._total)

    def _planes(self, case: Case, pixels: Pixels, name: str) -> tuple[Scored, dict[int, float], list[str]]:
        """Write, judge, delete; gives the verdict, scores by plane, and the SOP Instance UIDs in order."""
        with tempfile.TemporaryDirectory() as folder:
            written = write_planes(pixels, case.acquisition(name), Path(folder), loose=case.loose)
            scored = self._score([path for path, _ in written])
        point = scored.document["model"]["operating_point"]
        self.threshold = float(point["forgery"])
        place = {sop: z for z, (_, sop) in enumerate(written)}
        scores = {
            place[item["sop_instance_uid"]]: float(item["forgery"])
            for item in scored.document["slices"]
            if item["forgery"] is not None
        }
        return scored, scores, [sop for _, sop in written]

    def _authentic(self, case: Case) -> dict[int, float]:
        scored, scores, _ = self._planes(case, case.pixels, AUTHENTIC)
        for value in scores.values():
            self.slices.append(
                SliceRecord(source=case.source, patient=case.patient, family=AUTHENTIC, score=value, twin_score=None)
            )
        truth = "real" if case.lesion.any() else "absent"
        self.studies.append(_study(scored, case.source, case.patient, AUTHENTIC, truth))
        self._step()
        return scores

    def _forged(self, forgery: Forgery, twin: Mapping[int, float]) -> None:
        case, family = forgery.case, forgery.family
        scored, scores, sops = self._planes(case, forgery.pixels(), family.name)
        for z, value in scores.items():
            mask, ignored = forgery.mask(z)
            if int(mask.sum()) < SMALLEST_MASK_PX or z not in twin:
                continue
            found = scored.forged.get(sops[z])
            hit = metrics.overlap(mask & False if found is None else found, mask, ignored)
            self.slices.append(
                SliceRecord(
                    source=case.source,
                    patient=case.patient,
                    family=family.name,
                    score=value,
                    twin_score=twin[z],
                    f1=hit.f1,
                    iou=hit.iou,
                )
            )
        truth = forgery.forged.kind if forgery.forged.kind in ("added", "removed") else ""
        self.studies.append(_study(scored, case.source, case.patient, family.name, truth))

    def judge_archives(self, folder: Path) -> None:
        """Each DICOM study of each archive, authentic as found: counted for false alarms only."""
        for archive in sorted(folder.glob("*.tar.xz")):
            name = f"dicom {archive.name.removesuffix('.tar.xz')}"
            with _unpacked(archive) as studies:
                for number, files in enumerate(studies):
                    try:
                        scored = self._score(files)
                    except DicomguardError:
                        # Archives also hold what no node analyses; it raises no alarm.
                        continue
                    person = f"{name}/{number}"
                    self.studies.append(_study(scored, name, person, AUTHENTIC, ""))
                    self.slices += [
                        SliceRecord(
                            source=name, patient=person, family=AUTHENTIC, score=float(item["forgery"]), twin_score=None
                        )
                        for item in scored.document["slices"]
                        if item["forgery"] is not None
                    ]


def _by_source(cases: Sequence[Case]) -> dict[str, list[Case]]:
    by_source: dict[str, list[Case]] = defaultdict(list)
    for case in cases:
        by_source[case.source].append(case)
    return by_source


def _most(limits: Mapping[str, int], source: str) -> int:
    return limits.get(source, limits[""])


def spread(cases: Sequence[Case], most: int) -> list[Case]:
    """At most so many cases, evenly over the people."""
    if len(cases) <= most:
        return list(cases)
    return [cases[round(index * (len(cases) - 1) / max(1, most - 1))] for index in range(most)]


def _study(scored: Scored, source: str, patient: str, family: str, truth: str) -> StudyRecord:
    value = scored.document["score"]["forgery"]
    return StudyRecord(
        source=source,
        patient=patient,
        family=family,
        truth=truth,
        answer=str(scored.document["category"]),
        score=None if value is None else float(value),
    )


@contextmanager
def _unpacked(archive: Path) -> Iterator[list[list[Path]]]:
    """The studies of a tar archive, unpacked into a folder that goes away."""
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(archive) as file:
            # Names stay inside the folder, and only plain files are taken: a filter of tarfile needs Python 3.11.4.
            plain = [member for member in file.getmembers() if member.isfile()]
            if any(Path(member.name).is_absolute() or ".." in Path(member.name).parts for member in plain):
                raise Refused(f"{archive.name} holds a path outside itself. Pack the folder again.")
            file.extractall(folder, members=plain)
        by_study: dict[str, list[Path]] = defaultdict(list)
        for path in sorted(Path(folder).rglob("*")):
            study = study_of(path) if path.is_file() else None
            if study is not None:
                by_study[study].append(path)
        yield [by_study[study] for study in sorted(by_study)]
