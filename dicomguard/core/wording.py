"""The sentences people read: report, page and command line all take them from here.

Order of the summary: what was found · how sure · what was looked at · what it can mean besides · what the files say ·
what to do.
Slice numbers are Instance Numbers, as a viewer shows them. No sentence claims more than "signs of".
Knows values and words; layout, DICOM and pixels are other rooms' business.
"""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from dicomguard.core import english
from dicomguard.core.finding import Evidence, Finding
from dicomguard.core.places import Places, Ref, series_name
from dicomguard.core.study import Manifest
from dicomguard.core.templates import capital, fill, inside, listed, say
from dicomguard.core.verdict import NO_MODEL, Conflict, SeriesReport, SliceReport, Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Texts:
    """All sentences of one verdict, in one language."""

    summary: str
    # One per series.
    extent: tuple[str, ...]
    # "" when all slices were analysed.
    not_looked_at: str
    scope: str
    # DICOM-level evidence, one each.
    evidence: tuple[str, ...]
    conflicts: tuple[str, ...]
    # "" for the first revision.
    revision: str
    next_step: str
    use: str
    model: str
    # Pixel-level evidence by finding id.
    findings: Mapping[str, tuple[str, ...]]
    # Finding id → sentence that the region reaches a slice that was not analysed.
    touches_skipped: Mapping[str, str]


def answer(category: str) -> str:
    """The plain words of the page and the command line: "Tumor Added (Deepfake)"."""
    return english.ANSWERS[category]


def result(category: str) -> str:
    """The result inside a sentence: "tumor added, signs of forgery"."""
    return english.RESULTS[category]


def segment_label(finding_id: str, category: str) -> str:
    """Label of a segment: "F1 added, signs of forgery"."""
    return f"{finding_id} {'real, ' if category == 'real' else ''}{english.FINDINGS[category]}"


def sentence(key: str, parameters: Mapping[str, Any], *, slices: str = "") -> str:
    """Evidence as a whole sentence; `slices` is what `{slices}` stands for. Raises `Broken` for an unknown key."""
    if key in english.PIXEL:
        return f"{capital(fill(english.PIXEL, key, parameters))}."
    return fill(english.FILES, key, {**parameters, "slices": slices, "Slices": capital(slices)})


def compose(verdict: Verdict, manifest: Manifest, earlier: Verdict | None = None) -> Texts:
    """Every sentence of the verdict; `earlier` is the verdict that this one replaces, where it is at hand."""
    places = Places(manifest)
    evidence = tuple(_file_evidence(item, places) for item in verdict.evidence)
    strong = [text for text, item in zip(evidence, verdict.evidence, strict=True) if item.strength == "strong"]
    conflicts = [_conflict(conflict, places) for conflict in verdict.conflicts]
    if manifest.patient_ids > 1:
        conflicts.append(say("two_patients", count=manifest.patient_ids))
    # "No action follows" would be wrong beside a file that says its pixels are synthetic, or two that contradict.
    calm = verdict.category in ("real", "absent") and bool(strong or conflicts)
    next_step = english.TEXTS["next_files" if calm else f"next_{verdict.category}"]
    not_looked_at = _not_looked_at(verdict, places)
    revision = _revision(verdict, earlier)
    scope = _scope(verdict, places)
    summary = [
        revision,
        *_found(verdict, places),
        _slices_above(verdict, places),
        _coverage(verdict),
        *_notes(verdict, places),
        not_looked_at,
        english.TEXTS.get(f"limits_{verdict.category}", ""),
        scope if verdict.coverage.outside_scope else "",
        *strong,
        *conflicts,
        next_step,
    ]
    return Texts(
        summary=" ".join(part for part in summary if part),
        extent=_extent(verdict, places),
        not_looked_at=not_looked_at,
        scope=scope,
        evidence=evidence,
        conflicts=tuple(conflicts),
        revision=revision,
        next_step=next_step,
        use=english.TEXTS["use"],
        model=english.TEXTS["no_model"]
        if verdict.model == NO_MODEL
        else say("model", id=verdict.model.id, point=verdict.model.operating_point.name),
        findings={
            finding.id: tuple(sentence(item.sentence_key, item.parameters) for item in finding.evidence)
            for finding in verdict.findings
        },
        touches_skipped={
            finding.id: say("touches_skipped", id=finding.id)
            for finding in verdict.findings
            if finding.touches_skipped_slice
        },
    )


def no_segmentation(series_number: int | None) -> str:
    """Said when a finding's series has no Frame of Reference."""
    return say("no_segmentation", series=capital(series_name(series_number)))


def slice_name(verdict_slice: Ref, manifest: Manifest) -> str:
    """ "slice 9 of series 3", "frame 4 of series 7"."""
    return Places(manifest).name([verdict_slice])


# ---- what was found -----------------------------------------------------------------------------------------------


def _found(verdict: Verdict, places: Places) -> list[str]:
    category = verdict.category
    if category == "not_analysable":
        return [say("not_analysable", reason=_reason(verdict, places))]
    if category == "absent":
        return [say("absent", analysed=places.name(_analysed(verdict))), _score(verdict)]
    headline = verdict.findings[0]
    place = places.name((item.sop_instance_uid, item.frame) for item in headline.slices)
    extent = size(headline)
    why = listed([fill(english.PIXEL, item.sentence_key, item.parameters) for item in headline.evidence[:2]])
    parts = [
        say(
            category,
            place=place,
            id=headline.id,
            size=f", {extent}" if extent else "",
            size_parenthesis=f" ({extent})" if extent else "",
            why=f": {why}" if why else "",
        ),
        _score(verdict),
    ]
    if len(verdict.findings) > 1:
        regions = "; ".join(segment_label(item.id, item.category) for item in verdict.findings)
        reason = english.TEXTS["highest_tumor" if category == "real" else "highest"]
        parts.append(say("several", count=len(verdict.findings), list=regions, headline=reason))
    return parts


def _score(verdict: Verdict) -> str:
    point, score, rank = verdict.model.operating_point, verdict.score.forgery, verdict.score.authentic_rank
    assert score is not None, "only a study that is not analysable has no score"
    if verdict.category in ("real", "absent"):
        return say("score_alert", score=score, threshold=point.forgery)
    if rank is None or rank.of == 0:
        first = say("score_no_rank", score=score, threshold=point.forgery)
    else:
        words = say("rank_some" if rank.as_high else "rank_none", as_high=rank.as_high, of=rank.of)
        first = say("score_rank", score=score, threshold=point.forgery, rank=words)
    if point.n_authentic == 0:
        return f"{first}."
    upper = 100 * point.false_alarm_upper
    return first + say("false_alarms", flagged=point.flagged, n=point.n_authentic, upper=upper)


def _slices_above(verdict: Verdict, places: Places) -> str:
    """Said of a study that is not flagged: what its slices say by themselves is not passed by in silence."""
    if verdict.category not in ("real", "absent"):
        return ""
    point = verdict.model.operating_point
    above = {
        (item.sop_instance_uid, item.frame): item.forgery
        for item in verdict.slices
        if item.forgery is not None and item.forgery >= point.forgery
    }
    if not above:
        return ""
    known = say("slices_above_known", flagged=point.flagged, n=point.n_authentic) if point.n_authentic else ""
    return say("slices_above", slices=places.name(above), highest=max(above.values()), known=known)


def size(finding: Finding) -> str:
    """ "about 9.5 ml" with two significant digits, or the diameter where there is no volume."""
    millilitres = finding.volume_mm3 / 1000
    if millilitres >= 0.01:
        digits = 0 if millilitres >= 9.95 else 1 if millilitres >= 0.995 else 2
        if millilitres >= 99.5:
            millilitres = round(millilitres, -1)
        return say("size_ml", ml=f"{millilitres:.{digits}f}")
    return say("size_mm", mm=finding.extent_mm) if finding.extent_mm > 0 else ""


def _reason(verdict: Verdict, places: Places) -> str:
    """Why nothing was analysed: "series 1 (localiser …); series 2 and 3 (it is CT …)", or what befell the whole."""
    # Reason → Series Instance UIDs; a dictionary keeps their order.
    groups: dict[str, dict[str, None]] = {}
    for item in verdict.slices:
        reason = places.why(item)
        # What befell the analysis and not its slices is said without them.
        of = {} if reason == item.reason and reason not in english.REASONS.values() else {item.series: None}
        groups.setdefault(reason, {}).update(of)
    for plan in places.without_slices:
        groups.setdefault(inside(plan.reason), {}).update({plan.series_instance_uid: None})
    named = [
        say("not_analysable_series", series=places.series_names(uids), reason=reason) if uids else reason
        for reason, uids in groups.items()
    ]
    return "; ".join(named) or english.TEXTS["no_objects"]


# ---- what was looked at -------------------------------------------------------------------------------------------


def _analysed(verdict: Verdict) -> list[Ref]:
    return [(item.sop_instance_uid, item.frame) for item in verdict.slices if item.state == "analysed"]


def _coverage(verdict: Verdict) -> str:
    coverage = verdict.coverage
    if verdict.category == "not_analysable":
        return ""
    if coverage.slices_analysed < coverage.slices_total:
        return say("partly_analysed", analysed=coverage.slices_analysed, total=coverage.slices_total)
    return say("one_analysed" if coverage.slices_total == 1 else "all_analysed", total=coverage.slices_total)


def _notes(verdict: Verdict, places: Places) -> list[str]:
    """What the analysed slices are worth, where they are known to be worth less."""
    notes = []
    for reason in english.NOTES:
        of = dict.fromkeys(
            item.series_instance_uid for item in verdict.series if item.analysed and reason in item.scope_reasons
        )
        if of:
            notes.append(fill(english.NOTES, reason, {"series": places.series_names(of)}))
    return notes


def _not_looked_at(verdict: Verdict, places: Places) -> str:
    """Whole series by their reason, then slices of the others."""
    if verdict.category == "not_analysable":
        return ""
    whole: dict[str, list[SliceReport]] = {}
    parts: list[str] = []
    for _, group in itertools.groupby(verdict.slices, key=lambda item: item.series):
        members = list(group)
        by_reason: dict[str, list[SliceReport]] = {}
        for item in members:
            if item.state == "skipped":
                by_reason.setdefault(places.why(item), []).append(item)
        for reason, skipped in by_reason.items():
            if len(skipped) == len(members):
                whole.setdefault(reason, []).extend(skipped)
                continue
            name, noun, numbers = places.parts([(item.sop_instance_uid, item.frame) for item in skipped])
            parts.append(say("some_slices", series=name, noun=noun, numbers=numbers, reason=reason))
    for reason, skipped in reversed(whole.items()):
        series = places.series_names(dict.fromkeys(item.series for item in skipped))
        noun = places.parts([(item.sop_instance_uid, item.frame) for item in skipped])[1]
        parts.insert(0, say("whole_series", series=series, count=len(skipped), noun=noun, reason=reason))
    return say("not_looked_at", list="; ".join(parts)) if parts else ""


def _extent(verdict: Verdict, places: Places) -> tuple[str, ...]:
    """One sentence a series, its stacks together."""
    series: dict[str, list[SeriesReport]] = {}
    for item in verdict.series:
        series.setdefault(item.series_instance_uid, []).append(item)
    return tuple(
        say(
            "extent" if sum(item.slices_total for item in stacks) else "extent_empty",
            series=capital(places.series_name(uid)),
            analysed=sum(item.slices_analysed for item in stacks),
            total=sum(item.slices_total for item in stacks),
            reason=" ".join(dict.fromkeys(f"{capital(item.reason.rstrip('. '))}." for item in stacks)),
        )
        for uid, stacks in series.items()
    )


def _scope(verdict: Verdict, places: Places) -> str:
    """ "" where nothing was analysed: there is no score that a scope could speak of."""
    scope = verdict.model.scope
    if verdict.coverage.slices_analysed == 0:
        return ""
    validated = " ".join(
        [
            listed(scope.modalities),
            listed([english.SEQUENCES.get(item.lower(), item) for item in scope.sequences]),
            f"of the {listed([item.lower() for item in scope.body_parts]) or english.TEXTS['head']}",
        ]
    ).replace("  ", " ")
    if not verdict.coverage.outside_scope:
        return say("inside_scope", scope=validated)
    outside: dict[str, dict[str, None]] = {}
    for item in verdict.series:
        if item.scope == "outside" and item.analysed:
            reasons = outside.setdefault(places.series_name(item.series_instance_uid), {})
            reasons.update(dict.fromkeys(item.scope_reasons or (item.modality,)))
    named = [f"{series}: {', '.join(reasons)}" for series, reasons in outside.items()]
    return say("outside_scope", scope=validated, series="; ".join(named) or english.TEXTS["unknown_reason"])


# ---- files, conflicts, revisions ----------------------------------------------------------------------------------


def _file_evidence(item: Evidence, places: Places) -> str:
    refs = [(ref.sop_instance_uid, ref.frame) for ref in item.slices]
    first = sentence(item.sentence_key, item.parameters, slices=places.name(refs) if refs else "")
    alarms = item.authentic_false_alarms
    counted = say("alarms", k=alarms.k, n=alarms.n) if alarms.n else english.TEXTS["alarms_unknown"]
    return f"{first} {english.FILES_NEXT[item.sentence_key]} {say('from_files', alarms=counted)}"


def _conflict(conflict: Conflict, places: Places) -> str:
    told = [(_clock(copy.received_at, "%H:%M:%S"), copy) for copy in conflict.copies]
    copies = [say("conflict_copy", time=time, sender=copy.calling_ae_hash[:8]) for time, copy in told]
    analysed = next((time for time, copy in told if copy.analysed), "")
    # Of two in one second the time does not tell which; the analysed one leads the list (`core.freeze`).
    key = "conflict_one" if sum(time == analysed for time, _ in told) == 1 else "conflict_first"
    return say(
        "conflict",
        count=len(conflict.copies),
        slice=places.instance(conflict.sop_instance_uid),
        copies=listed(copies),
        analysed=say(key if analysed else "conflict_none", time=analysed),
    )


def _revision(verdict: Verdict, earlier: Verdict | None) -> str:
    study = verdict.study
    if study.predecessor is None:
        return ""
    because = english.TEXTS[f"because_{study.opened_because}"]
    if earlier is None:
        return say("revision", number=study.revision, before=study.predecessor.revision, date="", because=because)
    more = verdict.coverage.slices_total - earlier.coverage.slices_total
    if study.opened_because == "late_instance" and more > 0:
        because = say(f"because_late_instance_{'one' if more == 1 else 'counted'}", count=more)
    first = say(
        "revision",
        number=study.revision,
        before=study.predecessor.revision,
        date=f" of {_clock(earlier.created)}",
        because=because,
    )
    old, new = result(earlier.category), result(verdict.category)
    return f"{first} {say('revision_same' if old == new else 'revision_changed', old=old, new=new)}"


def _clock(rfc3339: str, form: str = "%H:%M") -> str:
    """ "24 Nov 2026 00:12 UTC", without help of the locale."""
    moment = datetime.fromisoformat(rfc3339)
    months = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
    offset = moment.strftime("%z")
    place = " UTC" if offset == "+0000" else f" {offset}" if offset else ""
    return f"{moment.day} {months[moment.month - 1]} {moment.year} {moment:{form}}{place}"
