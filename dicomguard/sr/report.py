"""The structured report: Comprehensive 3D SR after TID 1500 (PS3.3 A.35.13, PS3.16).

Each finding has two groups under one tracking UID: TID 1411 names its segment, TID 1410 outlines it on its key slice;
a viewer that ignores segments still shows where. The study's result stands in the Qualitative Evaluations of the root.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from highdicom.sr import (
    AlgorithmIdentification,
    Comprehensive3DSR,
    ContainerContentItem,
    ContentItem,
    DeviceObserverIdentifyingAttributes,
    FindingSite,
    LanguageOfContentItemAndDescendants,
    ObserverContext,
    TrackingIdentifier,
)
from pydicom.dataset import Dataset
from pydicom.uid import Comprehensive3DSRStorage, ComprehensiveSRStorage

from dicomguard.core import uid
from dicomguard.core.finding import Finding
from dicomguard.core.study import Manifest
from dicomguard.core.verdict import Category, Verdict
from dicomguard.core.wording import Texts
from dicomguard.sr import codes, content, provenance
from dicomguard.sr.content import HAS_CONCEPT_MOD
from dicomguard.sr.provenance import PRODUCT, Provenance
from dicomguard.sr.segmentation import algorithm_parameters, algorithm_version, tracking_id

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
    objects: Mapping[str, tuple[str, str]],
) -> Dataset:
    """The report; `segments` and `tracking_uids` by finding id, `no_segmentation` sentences to be said.

    `objects`: SOP Instance UID → Series Instance and SOP Class UID of what arrived and has no slices.
    """
    study = verdict.study
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
    ds = _Document(
        evidence=_evidence(manifest, shared, segments, objects),
        content=content.container(
            codes.IMAGING_MEASUREMENT_REPORT if with_overlay else codes.TITLES[verdict.category],
            tree.children(image_library=with_overlay),
            template="1500",
            relation=None,
        ),
        series_instance_uid=uid.sr_series(
            study=study.study_instance_uid,
            device_uid=shared.node.device_uid,
            software=f"{PRODUCT} {shared.node.version}",
            model=shared.model_id,
            sop_class=SOP_CLASS_UID,
        ),
        sop_instance_uid=uid.sr_instance(
            study=study.study_instance_uid,
            revision=study.revision,
            verdict_sha256=verdict.sha256,
            builder=builder,
            sop_class=SOP_CLASS_UID,
        ),
        series_number=series_number,
        series_description=f"{PRODUCT} report (research)",
        instance_number=study.revision,
        is_complete=True,
        requested_procedures=list(shared.requests) or None,
        previous_versions=_predecessor(verdict),
        **provenance.arguments(shared),
    )
    # Verbatim, since the library takes no code that lacks anything: which procedure it was is the source's to say.
    reported = [item for item in ds.ContentSequence if item.name.value == codes.PROCEDURE_REPORTED.value]
    for item, value in zip(reported, shared.procedures, strict=False):
        item.ConceptCodeSequence = [value]
    provenance.complete(ds, shared)
    return ds


class _Document(Comprehensive3DSR):  # type: ignore[misc]
    """The document without the library's copy of patient and study, which `provenance` writes."""

    def copy_patient_and_study_information(self, dataset: Dataset) -> None:
        """Nothing: it would also refuse a first instance of a SOP class that the library does not know."""


def _evidence(
    manifest: Manifest,
    shared: Provenance,
    segments: Mapping[str, SegmentReference],
    objects: Mapping[str, tuple[str, str]],
) -> list[Dataset]:
    """All that arrived, skipped instances too, and our segmentations."""
    arrived = {
        item.sop_instance_uid: (plan.series_instance_uid, item.sop_class_uid)
        for plan in manifest.series
        for item in plan.slices
    }
    made = {item.sop_instance_uid: (item.series_instance_uid, item.sop_class_uid) for item in segments.values()}
    return [
        provenance.source(
            shared, series_instance_uid=series, sop_instance_uid=sop_instance_uid, sop_class_uid=sop_class_uid
        )
        for sop_instance_uid, (series, sop_class_uid) in {**arrived, **objects, **made}.items()
    ]


def _predecessor(verdict: Verdict) -> list[Dataset] | None:
    before = verdict.study.predecessor
    if before is None:
        return None
    report = Dataset()
    report.StudyInstanceUID = verdict.study.study_instance_uid
    report.SeriesInstanceUID = before.sr_series_instance_uid
    report.SOPInstanceUID = before.sr_sop_instance_uid
    report.SOPClassUID = before.sr_sop_class_uid
    return [report]


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

    def children(self, *, image_library: bool) -> list[ContentItem]:
        return [
            *LanguageOfContentItemAndDescendants(codes.ENGLISH.concept()),
            *self._observer(),
            # One for each procedure of the source; its codes are put in when the document stands.
            *(
                content.code(codes.PROCEDURE_REPORTED, codes.IMAGING_PROCEDURE, HAS_CONCEPT_MOD)
                for _ in self.shared.procedures or (None,)
            ),
            *([self._library()] if image_library else []),
            content.container(codes.IMAGING_MEASUREMENTS, self._groups(), template=None),
            content.container(codes.QUALITATIVE_EVALUATIONS, self._qualitative(), template=None),
        ]

    def _observer(self) -> ObserverContext:
        node = self.shared.node
        return ObserverContext(
            codes.DEVICE.concept(),
            DeviceObserverIdentifyingAttributes(
                uid=node.device_uid,
                name=node.name,
                manufacturer_name=PRODUCT,
                model_name=PRODUCT,
                serial_number=node.name,
            ),
        )

    def _library(self) -> ContainerContentItem:
        """TID 1600, one group per analysed series; without the descriptors that the library's template adds."""
        groups = []
        for plan in self.manifest.series:
            if plan.analysed:
                images = [
                    content.image(
                        codes.SOURCE,
                        sop_class_uid=item.sop_class_uid,
                        sop_instance_uid=item.sop_instance_uid,
                        frame=item.frame,
                    )
                    for item in plan.slices
                    if not item.skipped
                ]
                groups.append(content.container(codes.IMAGE_LIBRARY_GROUP, images, template=None))
        return content.container(codes.IMAGE_LIBRARY, groups, template="1600")

    # ---- findings ----

    def _groups(self) -> list[ContainerContentItem]:
        if not self.verdict.findings:
            return [self._group_of_study()]
        groups = []
        for finding in self.verdict.findings:
            segment = self.segments.get(finding.id)
            if segment is not None:
                groups.append(self._group_of_segment(finding, segment))
            groups.append(self._group_of_outline(finding, alone=segment is None))
        return groups

    def _kind(self, finding: Finding) -> list[ContentItem]:
        """Identity and kind. The first UIDREF of a group is the one that viewers take."""
        category, kind = codes.FINDING_CODES[finding.category]
        return [
            *TrackingIdentifier(self.tracking_uids[finding.id], tracking_id(finding)),
            content.code(codes.FINDING_CATEGORY, category),
            content.code(codes.FINDING, kind),
        ]

    def _judgement(self, finding: Finding) -> list[ContentItem]:
        """Site, algorithm, numbers and evidence of a finding: once, in its first group."""
        verdict = self.verdict
        volume = [content.num(codes.VOLUME, finding.volume_mm3, codes.CUBIC_MILLIMETRE, digits=1)]
        touches = self.texts.touches_skipped.get(finding.id)
        return [
            FindingSite(codes.BRAIN.concept()),
            *AlgorithmIdentification(
                name=PRODUCT,
                version=algorithm_version(verdict),
                parameters=algorithm_parameters(verdict),
                family=codes.ARTIFICIAL_INTELLIGENCE.concept(),
                manufacturer=PRODUCT,
            ),
            *(volume if finding.volume_mm3 > 0 else []),
            content.num(codes.FORGERY_SCORE, finding.p_forged, codes.NO_UNIT, digits=4),
            content.num(codes.TUMOR_SCORE, finding.p_tumor, codes.NO_UNIT, digits=4),
            content.code(codes.FINDING_AUTHENTICITY, codes.RESULTS[finding.category]),
            content.code(codes.SIGN_OF_FORGERY, codes.ABSENT if finding.category == "real" else codes.PRESENT),
            *(content.text(codes.PIXEL_EVIDENCE, item) for item in self.texts.findings[finding.id]),
            *([content.text(codes.NOT_LOOKED_AT, touches)] if touches else []),
        ]

    def _group_of_segment(self, finding: Finding, segment: SegmentReference) -> ContainerContentItem:
        """TID 1411."""
        children = [
            *self._kind(finding),
            *self._judgement(finding),
            content.image(
                codes.REFERENCED_SEGMENT,
                sop_class_uid=segment.sop_class_uid,
                sop_instance_uid=segment.sop_instance_uid,
                segment=segment.segment_number,
            ),
            content.uidref(codes.SOURCE_SERIES, finding.series),
        ]
        return content.container(codes.MEASUREMENT_GROUP, children, template="1411")

    def _group_of_outline(self, finding: Finding, *, alone: bool) -> ContainerContentItem:
        """TID 1410; `alone` when there is no segment to carry the judgement."""
        key = finding.slices[finding.key_slice]
        authenticity = content.code(codes.FINDING_AUTHENTICITY, codes.RESULTS[finding.category])
        children = [
            *self._kind(finding),
            *(self._judgement(finding) if alone else []),
            *([content.num(codes.AREA, key.area_mm2, codes.SQUARE_MILLIMETRE, digits=2)] if key.area_mm2 > 0 else []),
            *([] if alone else [authenticity]),
            content.region(
                _closed(key.outline_px, key.box_px),
                sop_class_uid=self._sop_class(key.sop_instance_uid),
                sop_instance_uid=key.sop_instance_uid,
                frame=key.frame,
            ),
        ]
        return content.container(codes.MEASUREMENT_GROUP, children, template="1410")

    def _group_of_study(self) -> ContainerContentItem:
        """TID 1501 without any number: viewers fall over a number without coordinates."""
        identity = uid.study_tracking(self.verdict.study.study_instance_uid)
        children = [*TrackingIdentifier(identity, f"{PRODUCT} study"), *self._study_codes()]
        return content.container(codes.MEASUREMENT_GROUP, children, template="1501")

    def _sop_class(self, sop_instance_uid: str) -> str:
        return next(
            item.sop_class_uid
            for plan in self.manifest.series
            for item in plan.slices
            if item.sop_instance_uid == sop_instance_uid
        )

    # ---- the study ----

    def _study_codes(self) -> list[ContentItem]:
        verdict = self.verdict
        scope = codes.OUTSIDE_SCOPE if verdict.coverage.outside_scope else codes.INSIDE_SCOPE
        return [
            content.code(codes.STUDY_RESULT, codes.RESULTS[verdict.category]),
            content.code(codes.SIGN_OF_FORGERY, _sign(verdict.category)),
            content.code(codes.PROCESSING_SUMMARY, _processing(verdict)),
            # No score was given that a scope could speak of.
            content.code(codes.SCOPE, scope if verdict.coverage.slices_analysed else codes.UNDETERMINED),
        ]

    def _qualitative(self) -> list[ContentItem]:
        verdict, texts = self.verdict, self.texts
        # Without a slice that could be decoded nothing was looked for.
        none = codes.NO_FILE_EVIDENCE if verdict.decoded else codes.UNDETERMINED
        evidence = codes.FILE_EVIDENCE_PRESENT if verdict.evidence else none
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
