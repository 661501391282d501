"""The protocol of an evaluation, one story: read the test patients, forge, write, judge, count.

Both twins are written by one writer and judged by one child. Thresholds are the model's own; nothing is chosen here.
"""

import json
import tarfile
import tempfile
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dicomguard.errors import DicomguardError
from dicomguard.retrain.evaluate import metrics, report
from dicomguard.retrain.evaluate.cases import Case, Forgery, forge, read
from dicomguard.retrain.evaluate.scoring import Score, Scored, Scorer, study_of
from dicomguard.retrain.evaluate.summary import AUTHENTIC, SliceRecord, StudyRecord, summarise
from dicomguard.retrain.tamper.families import FAMILIES
from dicomguard.retrain.tamper.forged import Pixels
from dicomguard.retrain.tamper.second_hand import SECOND_HAND
from dicomguard.retrain.tamper.study import write_planes

SCHEMA = "dicomguard.evaluation/1"
_SMALLEST_MASK_PX = 64

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much is forged and judged."""

    # People of each source; None for all.
    most_people: int | None
    # Forged studies of each family in each source.
    per_family: int
    # Whether the DICOM archives of the data folder are judged for false alarms.
    archives: bool


STANDARD = Size(most_people=None, per_family=16, archives=True)
FAST = Size(most_people=4, per_family=2, archives=False)


def evaluate(
    data_root: Path,
    weights: Path,
    *,
    out: Path,
    keys: Collection[str] = (),
    seed: int = 2026,
    fast: bool = False,
    progress: Progress | None = None,
    score: Score | None = None,
) -> dict[str, Any]:
    """Evaluate weights on the test patients of `data_root` (or on `keys`, "source/patient") and write the report.

    Writes `report.json` and `report.html` to `out` and gives the same as a value. `score` replaces the production path
    in tests; without it the weights are judged by an analysis child.
    """
    size = FAST if fast else STANDARD
    out.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        model: dict[str, Any] = {}
        if score is None:
            scorer = stack.enter_context(Scorer(weights))
            score, model = scorer, asdict(scorer.model)
        run = _Run(score, seed=seed, size=size, progress=progress or (lambda done, total: None))
        run.judge(read(data_root, keys, most_people=size.most_people))
        if size.archives:
            run.judge_archives(data_root / "dicom")
    threshold = model.get("operating_point", {}).get("forgery", run.threshold)
    document = {
        "schema": SCHEMA,
        "seed": seed,
        "size": "fast" if fast else "standard",
        "split": "given keys" if keys else "test",
        "model": model,
        "threshold": threshold,
        **summarise(run.slices, run.studies, run.unforged, threshold=threshold),
    }
    (out / "report.json").write_text(json.dumps(document, indent=1, sort_keys=True) + "\n")
    (out / "report.html").write_text(report.html(document))
    return document


class _Run:
    """The judging loop and what it has seen so far."""

    def __init__(self, score: Score, *, seed: int, size: Size, progress: Progress) -> None:
        self._score, self._seed, self._size, self._progress = score, seed, size, progress
        self._done, self._total = 0, 1
        self.slices: list[SliceRecord] = []
        self.studies: list[StudyRecord] = []
        # (source, family) → cases on which the family found nothing to do.
        self.unforged: dict[tuple[str, str], int] = defaultdict(int)
        # The shipped threshold as the verdicts state it.
        self.threshold = 0.5

    def judge(self, cases: Sequence[Case]) -> None:
        """Authentic studies first, then each family on as many cases as the size says."""
        by_source: dict[str, list[Case]] = defaultdict(list)
        for case in cases:
            by_source[case.source].append(case)
        families = [*(f for f in FAMILIES.values() if f.name != "self-blend"), *SECOND_HAND.values()]
        chosen = {s: _spread(own, self._size.per_family) for s, own in by_source.items()}
        self._total = len(cases) + len(families) * sum(len(own) for own in chosen.values())
        for source, own in by_source.items():
            twins = {case.key: self._authentic(case) for case in own}
            for family in families:
                for case in chosen[source]:
                    forgery = forge(case, family, own, seed=self._seed)
                    if forgery is None:
                        self.unforged[(source, family.name)] += 1
                    else:
                        self._forged(forgery, twins[case.key])
                    self._step()

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
            if int(mask.sum()) < _SMALLEST_MASK_PX or z not in twin:
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


def _spread(cases: Sequence[Case], most: int) -> list[Case]:
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
            file.extractall(folder, filter="data")
        by_study: dict[str, list[Path]] = defaultdict(list)
        for path in sorted(Path(folder).rglob("*")):
            study = study_of(path) if path.is_file() else None
            if study is not None:
                by_study[study].append(path)
        yield [by_study[study] for study in sorted(by_study)]
