"""Judged studies for tests of the page: real store, real freeze, real SR and SEG; only the analysis is written by hand.

The regions are where `tests.studies` drew its bright disc, so that a picture with outlines can be looked at.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pydicom.dataset import FileDataset

from dicomguard import headers, part10
from dicomguard.core import freeze
from dicomguard.core.finding import Coverage, Finding, FindingCategory, FindingSlice, Rank, Sentence
from dicomguard.core.study import Manifest, SeriesPlan
from dicomguard.core.verdict import Category, Geometry, Score, SeriesReport, SliceReport, Software, Study, Verdict
from dicomguard.sr.build import build
from dicomguard.store import intake, results, studies
from dicomguard.store.db import Store
from dicomguard.store.files import write_durably
from tests import studies as drawn
from tests.sr_cases import MODEL, NODE

# Row, column, radius of the disc.
DISC = (58, 74, 11)


def datasets(
    *, study: str = "forged", name: str = "DOE^JANE", count: int = 9, tumor_on: Sequence[int] = (4, 5, 6)
) -> list[FileDataset]:
    """A small FLAIR series with a bright disc on some slices."""
    made = drawn.series(count, study=study, tumor=DISC, tumor_on=tumor_on)
    for ds in made:
        ds.PatientName, ds.PatientID, ds.StudyDate = name, f"ID-{study}", "20261103"
        ds.StudyDescription, ds.BodyPartExamined = "MR head", "HEAD"
    return made


def receive(store: Store, folder: Path, made: Sequence[FileDataset], *, calling_ae: str = "MR01") -> str:
    """Take all instances as if `calling_ae` had sent them; returns the study's key."""
    sender = intake.Sender(peer="mr", calling_ae=calling_ae, called_ae="DICOMGUARD", address="192.0.2.7")
    keys = {intake.receive_file(store, sender, path, channel="dimse").study_key for path in drawn.save(folder, made)}
    (key,) = keys
    return key


def judge(
    store: Store, key: str, category: Category, *, tumor_on: Sequence[int] = (4, 5, 6), state: str = "done"
) -> Verdict:
    """Close the study and keep manifest, verdict, SR and SEG of its next revision."""
    now = store.clock.now()
    with store.begin() as tx:
        revision = studies.open_revision(tx, key, closed_because="no instance for 0:01:00", now=now)
        instances = studies.instances(tx, key, revision.number)
    manifest = freeze.freeze(
        ((headers.read_header(store.root / one.path), one) for one in instances),
        study_instance_uid=revision.study_instance_uid,
        revision=revision.number,
        opened_because=revision.opened_because,
        calling_ae=revision.calling_ae,
        rules=(),
        scope=MODEL.scope,
    )
    verdict = _verdict(manifest, category, tumor_on)
    heads = {one.sop_instance_uid: part10.read_dataset_head(store.root / one.path) for one in instances}
    masks = {
        finding.id: [(place.sop_instance_uid, place.frame, _disc(manifest)) for place in finding.slices]
        for finding in verdict.findings
    }
    built = build(verdict, manifest, headers=heads, masks=masks, node=NODE)
    path = f"results/{key}/r{revision.number}/verdict.json"
    write_durably(store.disk, store.root, path, [verdict.to_bytes()])
    results.keep(store, key, revision.number, [(one.result, one.data) for one in built])
    with store.begin() as tx:
        studies.keep_manifest(tx, key, revision.number, manifest)
        studies.keep_verdict(
            tx,
            key,
            revision.number,
            verdict_sha256=verdict.sha256,
            path=path,
            category=category,
            score=verdict.score.forgery,
            complete=True,
            model_id=verdict.model.id,
            now=now,
        )
        studies.advance(tx, key, revision.number, state, from_=("opened",))
    return verdict


def _disc(manifest: Manifest) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    rows = columns = 128
    y, x = np.mgrid[0:rows, 0:columns]
    return np.asarray(np.hypot(y - DISC[0], x - DISC[1]) <= DISC[2])


def _outline() -> tuple[tuple[float, float], ...]:
    steps = [2 * math.pi * step / 40 for step in range(41)]
    row, column, radius = DISC
    # Pixel centres lie at half coordinates.
    return tuple((column + 0.5 + radius * math.cos(a), row + 0.5 + radius * math.sin(a)) for a in steps)


def _finding(plan: SeriesPlan, category: FindingCategory, tumor_on: Sequence[int]) -> Finding:
    row, column, radius = DISC
    places = tuple(
        FindingSlice(
            sop_instance_uid=plan.slices[index].sop_instance_uid,
            frame=plan.slices[index].frame,
            area_mm2=math.pi * radius**2,
            box_px=(row - radius, column - radius, row + radius + 1, column + radius + 1),
            outline_px=_outline(),
        )
        for index in tumor_on
    )
    forged = category != "real"
    return Finding(
        id="F1",
        category=category,
        series=plan.series_instance_uid,
        slices=places,
        key_slice=len(places) // 2,
        volume_mm3=5.0 * math.pi * radius**2 * len(places),
        extent_mm=2.0 * radius,
        centroid_lps_mm=(10.0, -6.0, 25.0),
        p_forged=0.93 if forged else 0.05,
        p_tumor=0.12 if category == "removed" else 0.88,
        authentic_rank=Rank(as_high=0, of=100) if forged else Rank(as_high=71, of=100),
        evidence=(Sentence(sentence_key="noise_below", parameters={"percent": 38.0}),) if forged else (),
        touches_skipped_slice=False,
    )


def _verdict(manifest: Manifest, category: Category, tumor_on: Sequence[int]) -> Verdict:
    plan = manifest.series[0]
    findings = (_finding(plan, category, tumor_on),) if category in ("real", "added", "removed") else ()
    marked = {place.sop_instance_uid for finding in findings for place in finding.slices}
    forged = category in ("added", "removed")
    score = Score(
        forgery=0.93 if forged else 0.05,
        tumor=0.88 if category in ("real", "added") else 0.12,
        authentic_rank=Rank(as_high=0, of=100) if forged else Rank(as_high=71, of=100),
    )
    return Verdict(
        study=Study(
            study_instance_uid=manifest.study_instance_uid,
            revision=manifest.revision,
            manifest_sha256=manifest.sha256,
            predecessor=None,
            opened_because=manifest.opened_because,
        ),
        created="2026-11-24T00:30:00+00:00",
        software=Software(name="dicomguard", version="0.1.0", analyze_version="1"),
        model=MODEL,
        category=category,
        score=score,
        headline_finding="F1" if findings else None,
        series=tuple(_series(one) for one in manifest.series),
        slices=tuple(
            SliceReport(
                series=plan.series_instance_uid,
                sop_instance_uid=item.sop_instance_uid,
                frame=item.frame,
                position_mm=item.position_mm,
                state="analysed",
                reason="",
                forgery=0.9 if forged and item.sop_instance_uid in marked else 0.06,
                pixel_sha256=item.sha256,
            )
            for item in plan.slices
        ),
        findings=findings,
        coverage=Coverage(
            slices_total=len(plan.slices),
            slices_analysed=len(plan.slices),
            head_area_share=1.0,
            complete=True,
            outside_scope=plan.scope == "outside",
        ),
    )


def _series(plan: SeriesPlan) -> SeriesReport:
    return SeriesReport(
        series_instance_uid=plan.series_instance_uid,
        modality=plan.modality,
        description_hash=plan.description_hash,
        frame_of_reference_uid=plan.frame_of_reference_uid,
        analysed=plan.analysed,
        reason=plan.reason,
        scope=plan.scope,
        scope_reasons=plan.scope_reasons,
        slices_total=len(plan.slices),
        slices_analysed=len(plan.slices),
        geometry=Geometry(kind=plan.kind, spacing_mm=plan.spacing_mm, tilt_deg=plan.tilt_deg, stacks=plan.stacks),
    )
