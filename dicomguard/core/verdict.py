"""The verdict on one study revision, and its document `dicomguard.verdict/1` (docs/contracts).

An impossible verdict is refused at construction. No patient name, id, birth date or accession number enters.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, is_dataclass
from typing import Any, Literal, TypeVar

from dicomguard.core import canon
from dicomguard.core.finding import (
    Coverage,
    Evidence,
    FalseAlarms,
    Finding,
    FindingCategory,
    FindingSlice,
    Rank,
    Sentence,
    SliceRef,
)
from dicomguard.core.study import GeometryKind, Manifest, OpenedBecause, Scope, SeriesPlan
from dicomguard.errors import Broken

SCHEMA = "dicomguard.verdict/1"
SCORE_DIGITS = 4

Category = Literal["real", "absent", "added", "removed", "not_analysable"]
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Predecessor:
    """The last revision that began delivery."""

    verdict_sha256: str
    revision: int
    sr_sop_instance_uid: str
    sr_sop_class_uid: str
    sr_series_instance_uid: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """What was frozen."""

    study_instance_uid: str
    revision: int
    manifest_sha256: str
    predecessor: Predecessor | None
    opened_because: OpenedBecause


@dataclass(frozen=True, slots=True, kw_only=True)
class Software:
    """Who wrote the document."""

    name: str
    version: str
    analyze_version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelScope:
    """What the model was validated for."""

    modalities: tuple[str, ...]
    body_parts: tuple[str, ...]
    sequences: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatingPoint:
    """Thresholds, and what they cost on authentic slices of validation patients."""

    name: str
    forgery: float
    tumor: float
    # 95 % upper bound of the share of authentic slices flagged.
    false_alarm_upper: float
    n_authentic: int
    flagged: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """The weights that judged."""

    id: str
    name: str
    version: str
    weights_sha256: str
    architecture: str
    card: str
    scope: ModelScope
    operating_point: OperatingPoint


# Stands in verdicts of a node that cannot read its weights; it judges nothing.
NO_MODEL = Model(
    id="none",
    name="dicomguard",
    version="",
    weights_sha256="",
    architecture="",
    card="",
    scope=ModelScope(modalities=(), body_parts=(), sequences=()),
    operating_point=OperatingPoint(name="none", forgery=1, tumor=1, false_alarm_upper=1, n_authentic=0, flagged=0),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """Study level, 0…1; None when not analysable."""

    forgery: float | None
    tumor: float | None
    authentic_rank: Rank | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Geometry:
    """How the slices of a series lie."""

    kind: GeometryKind
    spacing_mm: tuple[float, float] | None
    tilt_deg: float
    stacks: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesReport:
    """One series: analysed or not, and why."""

    series_instance_uid: str
    modality: str
    description_hash: str
    frame_of_reference_uid: str
    analysed: bool
    reason: str
    scope: Scope
    scope_reasons: tuple[str, ...]
    slices_total: int
    slices_analysed: int
    geometry: Geometry


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceReport:
    """One slice: its forgery score, or why it was skipped."""

    series: str
    sop_instance_uid: str
    frame: int | None
    position_mm: float | None
    state: Literal["analysed", "skipped"]
    reason: str
    forgery: float | None
    pixel_sha256: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyReport:
    """One of several copies under one SOP Instance UID."""

    pixel_sha256: str
    received_at: str
    calling_ae_hash: str
    analysed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Conflict:
    """Same SOP Instance UID, different pixels."""

    sop_instance_uid: str
    copies: tuple[CopyReport, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Masks:
    """The file beside the document with one packed array per finding and slice, key `F1/<sop>/<frame>`."""

    file: str
    sha256: str
    encoding: str = "packbits-row-major"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The whole answer for one revision of one study."""

    study: Study
    # RFC 3339, UTC: end of the analysis, the only time from which objects get theirs.
    created: str
    software: Software
    model: Model
    category: Category
    score: Score
    headline_finding: str | None
    series: tuple[SeriesReport, ...]
    slices: tuple[SliceReport, ...]
    findings: tuple[Finding, ...]
    coverage: Coverage
    evidence: tuple[Evidence, ...] = ()
    conflicts: tuple[Conflict, ...] = ()
    masks: Masks | None = None

    def __post_init__(self) -> None:
        for problem in _impossible(self):
            raise Broken(f"{problem} This verdict cannot be; find out who built it.")

    def to_json(self) -> dict[str, Any]:
        """The document as a JSON value."""
        return {"schema": SCHEMA, **_rounded(asdict(self))}

    def to_bytes(self) -> bytes:
        """Canonical bytes, as kept in `verdict.json`."""
        return canon.encode(self.to_json())

    @property
    def sha256(self) -> str:
        """Identity of the verdict."""
        return canon.sha256(self.to_json())

    @property
    def decoded(self) -> bool:
        """Whether pixels of any slice were read; else nothing was looked for in the files either."""
        return any(item.state == "analysed" or item.pixel_sha256 for item in self.slices)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Verdict":
        """Read a document; refuse an unknown major version, ignore unknown keys of a known one."""
        schema = str(value.get("schema", ""))
        if schema != SCHEMA:
            raise Broken(f'The verdict has schema "{schema}", not "{SCHEMA}". Use the version that wrote it.')
        return _verdict(value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Region:
    """A linked region before it has a category: calibrated probabilities."""

    p_forged: float
    # That the study shows a tumor here; decides between real and absent.
    p_tumor: float
    # That there is a tumor now, if the region is forged: put in or wiped away; decides between added and removed.
    p_lesion: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """The answer for a study, and which regions are reported."""

    category: Category
    # Place of the region in the input, and what it is; the headline first, then by score.
    reported: tuple[tuple[int, FindingCategory], ...]


def decide(regions: Sequence[Region], *, forgery: float, slices_analysed: int, point: OperatingPoint) -> Decision:
    """The four answers: forged beats real, the highest forgery score is the headline.

    `forgery` is the study's calibrated score: it alone raises the alarm. A study under alarm has at least one forged
    region, the one most likely forged; without an alarm no region is called forged.
    """
    if slices_analysed == 0:
        return Decision(category="not_analysable", reported=())
    alarm = forgery >= point.forgery and bool(regions)
    most = max(range(len(regions)), key=lambda i: (regions[i].p_forged, -i)) if alarm else -1
    forged: list[tuple[int, FindingCategory]] = []
    real: list[tuple[int, FindingCategory]] = []
    for index, region in enumerate(regions):
        tumor = region.p_tumor >= point.tumor
        if alarm and (index == most or region.p_forged >= point.forgery):
            forged.append((index, "added" if region.p_lesion >= 0.5 else "removed"))
        elif tumor:
            real.append((index, "real"))
    forged.sort(key=lambda item: (-regions[item[0]].p_forged, item[0]))
    real.sort(key=lambda item: (-regions[item[0]].p_tumor, item[0]))
    if forged:
        return Decision(category=forged[0][1], reported=(*forged, *real))
    return Decision(category="real" if real else "absent", reported=tuple(real))


def not_analysable(
    manifest: Manifest,
    reason: str,
    *,
    model: Model,
    software: Software,
    created: str,
    predecessor: Predecessor | None = None,
) -> Verdict:
    """The verdict on a study that was not looked at, as after a child that died: no score, no finding.

    `reason` is one of the keys of `english.REASONS`, or another short phrase of that kind.
    """
    slices = tuple(
        SliceReport(
            series=plan.series_instance_uid,
            sop_instance_uid=item.sop_instance_uid,
            frame=item.frame,
            position_mm=item.position_mm,
            state="skipped",
            reason=item.skipped or reason,
            forgery=None,
            pixel_sha256=None,
        )
        for plan in manifest.series
        for item in plan.slices
    )
    return Verdict(
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
        category="not_analysable",
        score=Score(forgery=None, tumor=None, authentic_rank=None),
        headline_finding=None,
        series=tuple(series_report(plan, slices_analysed=0, failed=reason) for plan in manifest.series),
        slices=slices,
        findings=(),
        coverage=coverage(manifest, slices_analysed=0, head_area_share=0.0),
        conflicts=(),
    )


def series_report(
    plan: SeriesPlan, *, slices_analysed: int, failed: str = "", outside: tuple[str, ...] = ()
) -> SeriesReport:
    """What the document says of one stack of a series.

    `failed` says why a chosen one was not looked at, `outside` what only its pixels say against the scope.
    """
    chosen = plan.analysed and slices_analysed == 0
    return SeriesReport(
        series_instance_uid=plan.series_instance_uid,
        modality=plan.modality,
        description_hash=plan.description_hash,
        frame_of_reference_uid=plan.frame_of_reference_uid,
        analysed=slices_analysed > 0,
        reason=f"It was chosen, but no slice could be analysed: {failed}." if chosen else plan.reason,
        scope="outside" if outside else plan.scope,
        scope_reasons=(*plan.scope_reasons, *outside),
        slices_total=len(plan.slices),
        slices_analysed=slices_analysed,
        geometry=Geometry(kind=plan.kind, spacing_mm=plan.spacing_mm, tilt_deg=plan.tilt_deg, stacks=plan.stacks),
    )


def coverage(manifest: Manifest, *, slices_analysed: int, head_area_share: float, outside: bool = False) -> Coverage:
    """What was looked at of everything that has pixels; a series that a rule left out counts as not looked at.

    `outside`: pixels say so of some series that is inside the scope by its headers.
    """
    total = sum(len(plan.slices) for plan in manifest.series)
    return Coverage(
        slices_total=total,
        slices_analysed=slices_analysed,
        head_area_share=head_area_share,
        complete=slices_analysed == total > 0,
        # Where nothing was looked at there is no score whose error rate could be unknown.
        outside_scope=slices_analysed > 0
        and (outside or any(plan.scope == "outside" for plan in manifest.series if plan.analysed)),
    )


def _impossible(verdict: Verdict) -> list[str]:
    problems = []
    category, findings, coverage = verdict.category, verdict.findings, verdict.coverage
    point = verdict.model.operating_point
    kinds = Counter(finding.category for finding in findings)
    if category in ("added", "removed", "real") and kinds[category] == 0:
        problems.append(f'The category is "{category}" without a finding of that category.')
    if category == "real" and any(f.category != "real" and f.p_forged >= point.forgery for f in findings):
        problems.append('The category is "real" with a forged finding above the operating point.')
    if category == "absent" and findings:
        problems.append(f'The category is "absent" with {len(findings)} findings.')
    if category == "not_analysable" and (verdict.score.forgery is not None or verdict.score.tumor is not None):
        problems.append("A study that is not analysable has a score.")
    if category != "not_analysable" and (verdict.score.forgery is None or verdict.score.tumor is None):
        problems.append(f'The category is "{category}" without a score.')
    if coverage.slices_analysed > coverage.slices_total:
        problems.append(f"{coverage.slices_analysed} of {coverage.slices_total} slices were analysed.")
    analysed = {(s.sop_instance_uid, s.frame) for s in verdict.slices if s.state == "analysed"}
    if coverage.slices_total != len(verdict.slices) or coverage.slices_analysed != len(analysed):
        problems.append("The coverage does not equal the sum of the slices.")
    if any((s.sop_instance_uid, s.frame) not in analysed for finding in findings for s in finding.slices):
        problems.append("A finding lies on a slice that was not analysed.")
    if len({finding.id for finding in findings}) != len(findings):
        problems.append("Two findings have one id.")
    if (verdict.headline_finding is None) != (not findings):
        problems.append("The headline finding is missing, or names nothing.")
    elif findings and verdict.headline_finding != findings[0].id:
        problems.append("The headline finding is not the first.")
    return problems


def _rounded(value: Any) -> Any:
    # Scores and shares to four digits, as the contract says; coordinates and millimetres need no more either.
    if isinstance(value, float):
        return round(value, SCORE_DIGITS)
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(item) for item in value]
    return value


def _read(kind: type[T], value: dict[str, Any], **built: Any) -> T:
    """Build a dataclass from the keys it knows; `built` are the fields that are not plain."""
    assert is_dataclass(kind)
    known: dict[str, Any] = {}
    for field in fields(kind):
        if field.name in built:
            known[field.name] = built[field.name]
        elif field.name in value:
            item = value[field.name]
            known[field.name] = tuple(item) if isinstance(item, list) else item
    return kind(**known)


def _maybe(kind: type[T], value: dict[str, Any] | None) -> T | None:
    return None if value is None else _read(kind, value)


def _finding(value: dict[str, Any]) -> Finding:
    slices = tuple(
        _read(FindingSlice, item, outline_px=tuple((float(x), float(y)) for x, y in item["outline_px"]))
        for item in value["slices"]
    )
    return _read(
        Finding,
        value,
        slices=slices,
        authentic_rank=_maybe(Rank, value["authentic_rank"]),
        evidence=tuple(_read(Sentence, item) for item in value["evidence"]),
    )


def _verdict(value: dict[str, Any]) -> Verdict:
    model, score, study = value["model"], value["score"], value["study"]
    return _read(
        Verdict,
        value,
        study=_read(Study, study, predecessor=_maybe(Predecessor, study.get("predecessor"))),
        software=_read(Software, value["software"]),
        model=_read(
            Model,
            model,
            scope=_read(ModelScope, model["scope"]),
            operating_point=_read(OperatingPoint, model["operating_point"]),
        ),
        score=_read(Score, score, authentic_rank=_maybe(Rank, score.get("authentic_rank"))),
        series=tuple(_read(SeriesReport, item, geometry=_read(Geometry, item["geometry"])) for item in value["series"]),
        slices=tuple(_read(SliceReport, item) for item in value["slices"]),
        findings=tuple(_finding(item) for item in value["findings"]),
        coverage=_read(Coverage, value["coverage"]),
        evidence=tuple(
            _read(
                Evidence,
                item,
                slices=tuple(_read(SliceRef, ref) for ref in item["slices"]),
                authentic_false_alarms=_read(FalseAlarms, item["authentic_false_alarms"]),
            )
            for item in value.get("evidence", [])
        ),
        conflicts=tuple(
            _read(Conflict, item, copies=tuple(_read(CopyReport, copy) for copy in item["copies"]))
            for item in value.get("conflicts", [])
        ),
        masks=_maybe(Masks, value.get("masks")),
    )
