"""The structured report: Comprehensive 3D SR after TID 1500 (PS3.3 A.35.13, PS3.16; results.md 2.2).

Each finding has two groups under one tracking UID: TID 1411 names its segment, TID 1410 outlines it on its key slice;
a viewer that ignores segments still shows where. The study's result stands in the Qualitative Evaluations of the root.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from pydicom.dataset import Dataset
from pydicom.uid import Comprehensive3DSRStorage, ComprehensiveSRStorage

from dicomguard.core import uid
from dicomguard.core.finding import Finding
from dicomguard.core.study import Manifest
from dicomguard.core.verdict import Category, Verdict
from dicomguard.core.wording import Texts
from dicomguard.sr import codes, content, provenance
from dicomguard.sr.content import HAS_CONCEPT_MOD, HAS_OBS_CONTEXT, SELECTED_FROM
from dicomguard.sr.provenance import PRODUCT, Provenance
from dicomguard.sr.segmentation import algorithm_parameters, tracking_id

SOP_CLASS_UID = str(Comprehensive3DSRStorage)
# The tree has no SCOORD3D and is valid unchanged as this class, which more archives accept.
FALLBACK_SOP_CLASS_UID = str(ComprehensiveSRStorage)
# "private" says the result in the title and opens as text; "126000" opens as an overlay where there are outlines.
Title = Literal["private", "126000"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentReference:
    """Where a finding lies as a segment."""

    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    segment_number: int


def build(
    verdict: Verdict,
    manifest: Manifest,
    texts: Texts,
    shared: Provenance,
    *,
    builder: str,
    title: Title,
    series_number: int,
    segments: Mapping[str, SegmentReference],
    tracking_uids: Mapping[str, str],
    no_segmentation: Sequence[str],
) -> Dataset:
    """The report; `segments` and `tracking_uids` by finding id, `no_segmentation` sentences to be said."""
    study = verdict.study
    software = f"{PRODUCT} {shared.node.version}"
    ds = provenance.start(
        shared,
        sop_class_uid=SOP_CLASS_UID,
        sop_instance_uid=uid.sr_instance(
            study=study.study_instance_uid,
            revision=study.revision,
            verdict_sha256=verdict.sha256,
            builder=builder,
            sop_class=SOP_CLASS_UID,
        ),
        series_instance_uid=uid.sr_series(
            study=study.study_instance_uid,
            device_uid=shared.node.device_uid,
            software=software,
            model=shared.model_id,
            sop_class=SOP_CLASS_UID,
        ),
        modality="SR",
        series_number=series_number,
        series_description=f"{PRODUCT} report (research)",
        instance_number=study.revision,
    )
    ds.ReferencedPerformedProcedureStepSequence = []
    ds.PreliminaryFlag = "PRELIMINARY"
    ds.CompletionFlag = "COMPLETE"
    ds.VerificationFlag = "UNVERIFIED"
    ds.PerformedProcedureCodeSequence = []
    if shared.requests:
        ds.ReferencedRequestSequence = list(shared.requests)
    ds.CurrentRequestedProcedureEvidenceSequence = [_evidence(manifest, segments)]
    if study.predecessor is not None:
        before = study.predecessor
        ds.PredecessorDocumentsSequence = [
            _study_reference(
                study.study_instance_uid,
                {before.sr_series_instance_uid: {before.sr_sop_instance_uid: before.sr_sop_class_uid}},
            )
        ]
    tree = _Tree(
        verdict=verdict,
        manifest=manifest,
        texts=texts,
        shared=shared,
        segments=segments,
        tracking_uids=tracking_uids,
        no_segmentation=tuple(no_segmentation),
    )
    with_overlay = title == "126000" and bool(verdict.findings)
    root = content.container(
        codes.IMAGING_MEASUREMENT_REPORT if with_overlay else codes.TITLES[verdict.category],
        tree.children(image_library=with_overlay),
        template="1500",
        relation=None,
    )
    ds.update(root)
    return ds


def _evidence(manifest: Manifest, segments: Mapping[str, SegmentReference]) -> Dataset:
    """All that arrived, skipped instances too, and our segmentations."""
    series: dict[str, dict[str, str]] = {}
    for plan in manifest.series:
        for item in plan.slices:
            series.setdefault(plan.series_instance_uid, {})[item.sop_instance_uid] = item.sop_class_uid
    for segment in segments.values():
        series.setdefault(segment.series_instance_uid, {})[segment.sop_instance_uid] = segment.sop_class_uid
    return _study_reference(manifest.study_instance_uid, series)


def _study_reference(study_instance_uid: str, series: Mapping[str, Mapping[str, str]]) -> Dataset:
    """Hierarchical SOP instance reference (PS3.3 C.17.2.1): series → instance → class."""
    study = Dataset()
    study.StudyInstanceUID = study_instance_uid
    items = []
    for series_instance_uid, instances in series.items():
        item = Dataset()
        item.SeriesInstanceUID = series_instance_uid
        references = []
        for sop_instance_uid, sop_class_uid in instances.items():
            reference = Dataset()
            reference.ReferencedSOPClassUID = sop_class_uid
            reference.ReferencedSOPInstanceUID = sop_instance_uid
            references.append(reference)
        item.ReferencedSOPSequence = references
        items.append(item)
    study.ReferencedSeriesSequence = items
    return study


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tree:
    """The content below the root, in the order of the template."""

    verdict: Verdict
    manifest: Manifest
    texts: Texts
    shared: Provenance
    segments: Mapping[str, SegmentReference]
    tracking_uids: Mapping[str, str]
    no_segmentation: tuple[str, ...]

    def children(self, *, image_library: bool) -> list[Dataset]:
        return [
            content.code(codes.LANGUAGE, codes.ENGLISH, HAS_CONCEPT_MOD),
            *self._observer(),
            *self._procedure(),
            *([self._library()] if image_library else []),
            content.container(codes.IMAGING_MEASUREMENTS, self._groups(), template=""),
            content.container(codes.QUALITATIVE_EVALUATIONS, self._qualitative(), template=""),
        ]

    def _observer(self) -> list[Dataset]:
        node = self.shared.node
        return [
            content.code(codes.OBSERVER_TYPE, codes.DEVICE, HAS_OBS_CONTEXT),
            content.uidref(codes.DEVICE_UID, node.device_uid, HAS_OBS_CONTEXT),
            content.text(codes.DEVICE_NAME, node.name, HAS_OBS_CONTEXT),
            content.text(codes.DEVICE_MANUFACTURER, PRODUCT, HAS_OBS_CONTEXT),
            content.text(codes.DEVICE_MODEL, PRODUCT, HAS_OBS_CONTEXT),
            content.text(codes.DEVICE_SERIAL, node.name, HAS_OBS_CONTEXT),
        ]

    def _procedure(self) -> list[Dataset]:
        values = self.shared.procedures or (codes.IMAGING_PROCEDURE.item(),)
        return [content.code_item(codes.PROCEDURE_REPORTED, value, HAS_CONCEPT_MOD) for value in values]

    def _library(self) -> Dataset:
        """TID 1600, one group per analysed series."""
        groups = []
        for plan in self.manifest.series:
            if plan.analysed:
                images = [
                    content.image(
                        sop_class_uid=item.sop_class_uid, sop_instance_uid=item.sop_instance_uid, frame=item.frame
                    )
                    for item in plan.slices
                    if not item.skipped
                ]
                groups.append(content.container(codes.IMAGE_LIBRARY_GROUP, images, template=""))
        return content.container(codes.IMAGE_LIBRARY, groups, template="1600")

    # ---- findings ----

    def _groups(self) -> list[Dataset]:
        if not self.verdict.findings:
            return [self._group_of_study()]
        groups = []
        for finding in self.verdict.findings:
            segment = self.segments.get(finding.id)
            if segment is not None:
                groups.append(self._group_of_segment(finding, segment))
            groups.append(self._group_of_outline(finding, alone=segment is None))
        return groups

    def _tracking(self, identifier: str, tracking_uid: str) -> list[Dataset]:
        # The first UIDREF of a group is the one that viewers take.
        return [
            content.text(codes.TRACKING_ID, identifier, HAS_OBS_CONTEXT),
            content.uidref(codes.TRACKING_UID, tracking_uid, HAS_OBS_CONTEXT),
        ]

    def _kind(self, finding: Finding) -> list[Dataset]:
        category, kind = codes.FINDING_CODES[finding.category]
        return [content.code(codes.FINDING_CATEGORY, category), content.code(codes.FINDING, kind)]

    def _judgement(self, finding: Finding) -> list[Dataset]:
        """Site, algorithm, numbers and evidence of a finding: once, in its first group."""
        verdict = self.verdict
        volume = [content.num(codes.VOLUME, finding.volume_mm3, codes.CUBIC_MILLIMETRE, digits=1)]
        touches = self.texts.touches_skipped.get(finding.id)
        return [
            content.code(codes.FINDING_SITE, codes.BRAIN, HAS_CONCEPT_MOD),
            content.text(codes.ALGORITHM_NAME, PRODUCT, HAS_CONCEPT_MOD),
            content.text(
                codes.ALGORITHM_VERSION, f"{verdict.software.version}, model {verdict.model.id}", HAS_CONCEPT_MOD
            ),
            content.text(codes.ALGORITHM_MANUFACTURER, PRODUCT, HAS_CONCEPT_MOD),
            *(
                content.text(codes.ALGORITHM_PARAMETERS, item, HAS_CONCEPT_MOD)
                for item in algorithm_parameters(verdict)
            ),
            content.code(codes.ALGORITHM_FAMILY, codes.ARTIFICIAL_INTELLIGENCE, HAS_CONCEPT_MOD),
            *(volume if finding.volume_mm3 > 0 else []),
            content.num(codes.FORGERY_SCORE, finding.p_forged, codes.NO_UNIT, digits=4),
            content.num(codes.TUMOR_SCORE, finding.p_tumor, codes.NO_UNIT, digits=4),
            content.code(codes.FINDING_AUTHENTICITY, codes.RESULTS[finding.category]),
            content.code(codes.SIGN_OF_FORGERY, codes.ABSENT if finding.category == "real" else codes.PRESENT),
            *(content.text(codes.PIXEL_EVIDENCE, item) for item in self.texts.findings[finding.id]),
            *([content.text(codes.NOT_LOOKED_AT, touches)] if touches else []),
        ]

    def _group_of_segment(self, finding: Finding, segment: SegmentReference) -> Dataset:
        """TID 1411."""
        children = [
            *self._tracking(tracking_id(finding), self.tracking_uids[finding.id]),
            *self._kind(finding),
            *self._judgement(finding),
            content.image(
                sop_class_uid=segment.sop_class_uid,
                sop_instance_uid=segment.sop_instance_uid,
                concept=codes.REFERENCED_SEGMENT,
                segment=segment.segment_number,
            ),
            content.uidref(codes.SOURCE_SERIES, finding.series),
        ]
        return content.container(codes.MEASUREMENT_GROUP, children, template="1411")

    def _group_of_outline(self, finding: Finding, *, alone: bool) -> Dataset:
        """TID 1410; `alone` when there is no segment to carry the judgement."""
        key = finding.slices[finding.key_slice]
        source = content.image(
            sop_class_uid=self._sop_class(key.sop_instance_uid),
            sop_instance_uid=key.sop_instance_uid,
            relation=SELECTED_FROM,
            frame=key.frame,
        )
        authenticity = content.code(codes.FINDING_AUTHENTICITY, codes.RESULTS[finding.category])
        children = [
            *self._tracking(tracking_id(finding), self.tracking_uids[finding.id]),
            *self._kind(finding),
            *(self._judgement(finding) if alone else []),
            *([content.num(codes.AREA, key.area_mm2, codes.SQUARE_MILLIMETRE, digits=2)] if key.area_mm2 > 0 else []),
            *([] if alone else [authenticity]),
            content.polyline(codes.IMAGE_REGION, _closed(key.outline_px, key.box_px), source),
        ]
        return content.container(codes.MEASUREMENT_GROUP, children, template="1410")

    def _group_of_study(self) -> Dataset:
        """TID 1501 without any number: viewers fall over a number without coordinates."""
        identity = uid.study_tracking(self.verdict.study.study_instance_uid)
        children = [*self._tracking(f"{PRODUCT} study", identity), *self._study_codes()]
        return content.container(codes.MEASUREMENT_GROUP, children, template="1501")

    def _sop_class(self, sop_instance_uid: str) -> str:
        return next(
            item.sop_class_uid
            for plan in self.manifest.series
            for item in plan.slices
            if item.sop_instance_uid == sop_instance_uid
        )

    # ---- the study ----

    def _study_codes(self) -> list[Dataset]:
        verdict = self.verdict
        outside = verdict.coverage.outside_scope
        return [
            content.code(codes.STUDY_RESULT, codes.RESULTS[verdict.category]),
            content.code(codes.SIGN_OF_FORGERY, _sign(verdict.category)),
            content.code(codes.PROCESSING_SUMMARY, _processing(verdict)),
            content.code(codes.SCOPE, codes.OUTSIDE_SCOPE if outside else codes.INSIDE_SCOPE),
        ]

    def _qualitative(self) -> list[Dataset]:
        verdict, texts = self.verdict, self.texts
        evidence = codes.FILE_EVIDENCE_PRESENT if verdict.evidence else codes.NO_FILE_EVIDENCE
        sentences = [
            (codes.SUMMARY, [texts.summary]),
            (codes.EXTENT, [*texts.extent, *self.no_segmentation, texts.model]),
            (codes.NOT_LOOKED_AT, [texts.not_looked_at]),
            (codes.FILE_EVIDENCE_TEXT, texts.evidence),
            (codes.CONFLICT, texts.conflicts),
            (codes.SCOPE, [texts.scope]),
            (codes.REVISION, [texts.revision]),
            (codes.NEXT_STEP, [texts.next_step]),
            (codes.INTENDED_USE, [texts.use]),
        ]
        return [
            *self._study_codes(),
            content.code(codes.FILE_EVIDENCE, evidence),
            content.code(codes.INTENDED_USE, codes.RESEARCH_USE),
            *(content.text(concept, item) for concept, items in sentences for item in items if item),
        ]


def _sign(category: Category) -> codes.Code:
    match category:
        case "added" | "removed":
            return codes.PRESENT
        case "real" | "absent":
            return codes.ABSENT
        case "not_analysable":
            return codes.UNDETERMINED


def _processing(verdict: Verdict) -> codes.Code:
    if verdict.category == "not_analysable":
        return codes.NONE_SUCCEEDED
    by_findings = codes.ALL_SUCCEEDED if verdict.coverage.complete else codes.PARTLY_SUCCEEDED
    return by_findings[bool(verdict.findings)]


def _closed(outline: Sequence[tuple[float, float]], box: tuple[int, int, int, int]) -> Sequence[tuple[float, float]]:
    """A closed polygon of (column, row); the box where the outline is degenerate."""
    if len(outline) < 3:
        row0, column0, row1, column1 = box
        outline = [(column0, row0), (column1, row0), (column1, row1), (column0, row1)]
    return outline if outline[0] == outline[-1] else [*outline, outline[0]]
