"""The sentences people read: report, page and command line all take them from here.

Order of the summary: what was found · how sure · what was looked at · what it can mean besides · what the files say ·
what to do.
Slice numbers are Instance Numbers, as a viewer shows them. No sentence claims more than "signs of".
Knows values and words; layout, DICOM and pixels are other rooms' business.
"""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from dicomguard.core import english
from dicomguard.core.finding import Evidence, Finding
from dicomguard.core.study import Manifest, SeriesPlan, SliceFile
from dicomguard.core.verdict import NO_MODEL, Conflict, SeriesReport, SliceReport, Verdict
from dicomguard.errors import Broken

# Frame of an instance: SOP Instance UID, and 1-based frame or None.
Ref = tuple[str, int | None]
# More separate stretches than this are counted, not listed.
_MOST_STRETCHES = 6


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
        return f"{_capital(_fill(english.PIXEL, key, parameters))}."
    return _fill(english.FILES, key, {**parameters, "slices": slices, "Slices": _capital(slices)})


def compose(verdict: Verdict, manifest: Manifest, earlier: Verdict | None = None) -> Texts:
    """Every sentence of the verdict; `earlier` is the verdict that this one replaces, where it is at hand."""
    places = Places(manifest)
    evidence = tuple(_file_evidence(item, places) for item in verdict.evidence)
    strong = [text for text, item in zip(evidence, verdict.evidence, strict=True) if item.strength == "strong"]
    conflicts = [_conflict(conflict, places) for conflict in verdict.conflicts]
    if manifest.patient_ids > 1:
        conflicts.append(_text("two_patients", count=manifest.patient_ids))
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
        else _text("model", id=verdict.model.id, point=verdict.model.operating_point.name),
        findings={
            finding.id: tuple(sentence(item.sentence_key, item.parameters) for item in finding.evidence)
            for finding in verdict.findings
        },
        touches_skipped={
            finding.id: _text("touches_skipped", id=finding.id)
            for finding in verdict.findings
            if finding.touches_skipped_slice
        },
    )


def no_segmentation(series_number: int | None) -> str:
    """Said when a finding's series has no Frame of Reference."""
    return _text("no_segmentation", series=_capital(_series_name(series_number)))


def slice_name(verdict_slice: Ref, manifest: Manifest) -> str:
    """ "slice 9 of series 3", "frame 4 of series 7"."""
    return Places(manifest).name([verdict_slice])


# ---- what was found -----------------------------------------------------------------------------------------------


def _found(verdict: Verdict, places: "Places") -> list[str]:
    category = verdict.category
    if category == "not_analysable":
        return [_text("not_analysable", reason=_reason(verdict, places))]
    if category == "absent":
        return [_text("absent", analysed=places.name(_analysed(verdict))), _score(verdict)]
    headline = verdict.findings[0]
    place = places.name((item.sop_instance_uid, item.frame) for item in headline.slices)
    extent = size(headline)
    why = _listed([_fill(english.PIXEL, item.sentence_key, item.parameters) for item in headline.evidence[:2]])
    parts = [
        _text(
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
        listed = "; ".join(segment_label(item.id, item.category) for item in verdict.findings)
        reason = english.TEXTS["highest_tumor" if category == "real" else "highest"]
        parts.append(_text("several", count=len(verdict.findings), list=listed, headline=reason))
    return parts


def _score(verdict: Verdict) -> str:
    point, score, rank = verdict.model.operating_point, verdict.score.forgery, verdict.score.authentic_rank
    assert score is not None, "only a study that is not analysable has no score"
    if verdict.category in ("real", "absent"):
        return _text("score_alert", score=score, threshold=point.forgery)
    if rank is None or rank.of == 0:
        first = _text("score_no_rank", score=score, threshold=point.forgery)
    else:
        words = _text("rank_some" if rank.as_high else "rank_none", as_high=rank.as_high, of=rank.of)
        first = _text("score_rank", score=score, threshold=point.forgery, rank=words)
    if point.n_authentic == 0:
        return f"{first}."
    upper = 100 * point.false_alarm_upper
    return first + _text("false_alarms", flagged=point.flagged, n=point.n_authentic, upper=upper)


def _slices_above(verdict: Verdict, places: "Places") -> str:
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
    known = _text("slices_above_known", flagged=point.flagged, n=point.n_authentic) if point.n_authentic else ""
    return _text("slices_above", slices=places.name(above), highest=max(above.values()), known=known)


def size(finding: Finding) -> str:
    """ "about 9.5 ml" with two significant digits, or the diameter where there is no volume."""
    millilitres = finding.volume_mm3 / 1000
    if millilitres >= 0.01:
        digits = 0 if millilitres >= 9.95 else 1 if millilitres >= 0.995 else 2
        if millilitres >= 99.5:
            millilitres = round(millilitres, -1)
        return _text("size_ml", ml=f"{millilitres:.{digits}f}")
    return _text("size_mm", mm=finding.extent_mm) if finding.extent_mm > 0 else ""


def _reason(verdict: Verdict, places: "Places") -> str:
    """Why nothing was analysed: "series 1 (localiser …); series 2 and 3 (it is CT …)", or what befell the whole."""
    # Reason → Series Instance UIDs; a dictionary keeps their order.
    groups: dict[str, dict[str, None]] = {}
    for item in verdict.slices:
        reason = places.why(item)
        # What befell the analysis and not its slices is said without them.
        of = {} if reason == item.reason and reason not in english.REASONS.values() else {item.series: None}
        groups.setdefault(reason, {}).update(of)
    for plan in places.without_slices:
        groups.setdefault(_inside(plan.reason), {}).update({plan.series_instance_uid: None})
    named = [
        _text("not_analysable_series", series=places.series_names(uids), reason=reason) if uids else reason
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
        return _text("partly_analysed", analysed=coverage.slices_analysed, total=coverage.slices_total)
    return _text("one_analysed" if coverage.slices_total == 1 else "all_analysed", total=coverage.slices_total)


def _notes(verdict: Verdict, places: "Places") -> list[str]:
    """What the analysed slices are worth, where they are known to be worth less."""
    notes = []
    for reason in english.NOTES:
        of = dict.fromkeys(
            item.series_instance_uid for item in verdict.series if item.analysed and reason in item.scope_reasons
        )
        if of:
            notes.append(_fill(english.NOTES, reason, {"series": places.series_names(of)}))
    return notes


def _not_looked_at(verdict: Verdict, places: "Places") -> str:
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
            parts.append(_text("some_slices", series=name, noun=noun, numbers=numbers, reason=reason))
    for reason, skipped in reversed(whole.items()):
        series = places.series_names(dict.fromkeys(item.series for item in skipped))
        noun = places.parts([(item.sop_instance_uid, item.frame) for item in skipped])[1]
        parts.insert(0, _text("whole_series", series=series, count=len(skipped), noun=noun, reason=reason))
    return _text("not_looked_at", list="; ".join(parts)) if parts else ""


def _extent(verdict: Verdict, places: "Places") -> tuple[str, ...]:
    """One sentence a series, its stacks together."""
    series: dict[str, list[SeriesReport]] = {}
    for item in verdict.series:
        series.setdefault(item.series_instance_uid, []).append(item)
    return tuple(
        _text(
            "extent" if sum(item.slices_total for item in stacks) else "extent_empty",
            series=_capital(places.series_name(uid)),
            analysed=sum(item.slices_analysed for item in stacks),
            total=sum(item.slices_total for item in stacks),
            reason=" ".join(dict.fromkeys(f"{_capital(item.reason.rstrip('. '))}." for item in stacks)),
        )
        for uid, stacks in series.items()
    )


def _scope(verdict: Verdict, places: "Places") -> str:
    """ "" where nothing was analysed: there is no score that a scope could speak of."""
    scope = verdict.model.scope
    if verdict.coverage.slices_analysed == 0:
        return ""
    validated = " ".join(
        [
            _listed(scope.modalities),
            _listed([english.SEQUENCES.get(item.lower(), item) for item in scope.sequences]),
            f"of the {_listed([item.lower() for item in scope.body_parts]) or english.TEXTS['head']}",
        ]
    ).replace("  ", " ")
    if not verdict.coverage.outside_scope:
        return _text("inside_scope", scope=validated)
    outside: dict[str, dict[str, None]] = {}
    for item in verdict.series:
        if item.scope == "outside" and item.analysed:
            reasons = outside.setdefault(places.series_name(item.series_instance_uid), {})
            reasons.update(dict.fromkeys(item.scope_reasons or (item.modality,)))
    named = [f"{series}: {', '.join(reasons)}" for series, reasons in outside.items()]
    return _text("outside_scope", scope=validated, series="; ".join(named) or english.TEXTS["unknown_reason"])


# ---- files, conflicts, revisions ----------------------------------------------------------------------------------


def _file_evidence(item: Evidence, places: "Places") -> str:
    refs = [(ref.sop_instance_uid, ref.frame) for ref in item.slices]
    first = sentence(item.sentence_key, item.parameters, slices=places.name(refs) if refs else "")
    alarms = item.authentic_false_alarms
    counted = _text("alarms", k=alarms.k, n=alarms.n) if alarms.n else english.TEXTS["alarms_unknown"]
    return f"{first} {english.FILES_NEXT[item.sentence_key]} {_text('from_files', alarms=counted)}"


def _conflict(conflict: Conflict, places: "Places") -> str:
    told = [(_clock(copy.received_at, "%H:%M:%S"), copy) for copy in conflict.copies]
    copies = [_text("conflict_copy", time=time, sender=copy.calling_ae_hash[:8]) for time, copy in told]
    analysed = next((time for time, copy in told if copy.analysed), "")
    # Of two in one second the time does not tell which; the analysed one leads the list (`core.freeze`).
    key = "conflict_one" if sum(time == analysed for time, _ in told) == 1 else "conflict_first"
    return _text(
        "conflict",
        count=len(conflict.copies),
        slice=places.instance(conflict.sop_instance_uid),
        copies=_listed(copies),
        analysed=_text(key if analysed else "conflict_none", time=analysed),
    )


def _revision(verdict: Verdict, earlier: Verdict | None) -> str:
    study = verdict.study
    if study.predecessor is None:
        return ""
    because = english.TEXTS[f"because_{study.opened_because}"]
    if earlier is None:
        return _text("revision", number=study.revision, before=study.predecessor.revision, date="", because=because)
    more = verdict.coverage.slices_total - earlier.coverage.slices_total
    if study.opened_because == "late_instance" and more > 0:
        because = _text(f"because_late_instance_{'one' if more == 1 else 'counted'}", count=more)
    first = _text(
        "revision",
        number=study.revision,
        before=study.predecessor.revision,
        date=f" of {_clock(earlier.created)}",
        because=because,
    )
    old, new = result(earlier.category), result(verdict.category)
    return f"{first} {_text('revision_same' if old == new else 'revision_changed', old=old, new=new)}"


def _clock(rfc3339: str, form: str = "%H:%M") -> str:
    """ "24 Nov 2026 00:12 UTC", without help of the locale."""
    moment = datetime.fromisoformat(rfc3339)
    months = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
    offset = moment.strftime("%z")
    place = " UTC" if offset == "+0000" else f" {offset}" if offset else ""
    return f"{moment.day} {months[moment.month - 1]} {moment.year} {moment:{form}}{place}"


# ---- places -------------------------------------------------------------------------------------------------------


class Places:
    """Names of slices as a viewer shows them."""

    def __init__(self, manifest: Manifest) -> None:
        self._of: dict[Ref, tuple[SeriesPlan, SliceFile, int]] = {}
        self._first: dict[str, Ref] = {}
        self._numbers: dict[str, int | None] = {}
        self._plans = manifest.series
        for plan in manifest.series:
            self._numbers.setdefault(plan.series_instance_uid, plan.series_number)
            for place, item in enumerate(plan.slices, start=1):
                ref = (item.sop_instance_uid, item.frame)
                self._of.setdefault(ref, (plan, item, place))
                self._first.setdefault(item.sop_instance_uid, ref)

    @property
    def without_slices(self) -> tuple[SeriesPlan, ...]:
        """Series of objects that are no images."""
        return tuple(plan for plan in self._plans if not plan.slices)

    def why(self, item: SliceReport) -> str:
        """Why the slice was not analysed, as it stands in parentheses; "" when it was."""
        plan = self._entry((item.sop_instance_uid, item.frame))[0]
        if item.state == "analysed":
            return ""
        reason = item.reason or english.TEXTS["unknown_reason"]
        # A series that a rule left out has its own sentence, which says more than the word of its slices.
        if not plan.analysed and reason in ("derived", "no head"):
            return _inside(plan.reason)
        return english.REASONS.get(reason, reason)

    def series_names(self, series_instance_uids: Iterable[str]) -> str:
        """ "series 3, 4 and 7"."""
        numbers = [self._numbers.get(uid) for uid in series_instance_uids]
        known = sorted({number for number in numbers if number is not None})
        names = [_text("series", number=_listed([str(number) for number in known]))] if known else []
        if nameless := numbers.count(None):
            key = "series_unnumbered" if nameless == 1 else "series_unnumbered_many"
            names.append(_text(key, count=nameless))
        return _listed(names)

    def instance(self, sop_instance_uid: str) -> str:
        """Its first frame by name; what is no image has no slice."""
        first = self._first.get(sop_instance_uid)
        return english.TEXTS["no_slice"] if first is None else self.name([first])

    def series_name(self, series_instance_uid: str) -> str:
        """ "series 3"."""
        return _series_name(self._numbers.get(series_instance_uid))

    def name(self, refs: Iterable[Ref]) -> str:
        """ "slices 8 to 14 of series 3 and slice 2 of series 5"."""
        groups: dict[str, list[Ref]] = {}
        for ref in refs:
            groups.setdefault(self._entry(ref)[0].series_instance_uid, []).append(ref)
        named = []
        for members in groups.values():
            series, noun, numbers = self.parts(members)
            named.append(_text("of_series", slices=f"{noun} {numbers}", series=series))
        return _listed(named)

    def parts(self, refs: Sequence[Ref]) -> tuple[str, str, str]:
        """("series 3", "slices", "8 to 14") for frames of one series."""
        entries = [self._entry(ref) for ref in refs]
        frames = all(item.frame is not None for _, item, _ in entries)
        numbered = frames or all(item.instance_number is not None for _, item, _ in entries)
        numbers = [
            (item.frame if frames else item.instance_number) if numbered else place for _, item, place in entries
        ]
        key = ("frame" if frames else "slice") + ("" if len(refs) == 1 else "s")
        words = _stretches([number for number in numbers if number is not None])
        suffix = "" if numbered else english.TEXTS["by_place"]
        return _series_name(entries[0][0].series_number), english.TEXTS[key], words + suffix

    def _entry(self, ref: Ref) -> tuple[SeriesPlan, SliceFile, int]:
        try:
            return self._of[ref]
        except KeyError:
            raise Broken(
                f"The slice {ref[0]} (frame {ref[1]}) of the verdict is not in the manifest. Analyse the study again."
            ) from None


def _series_name(number: int | None) -> str:
    return english.TEXTS["series_unnumbered"] if number is None else _text("series", number=number)


def _stretches(numbers: Sequence[int]) -> str:
    """[8, 9, 10, 12] → "8 to 10 and 12"."""
    runs: list[tuple[int, int]] = []
    for number in sorted(set(numbers)):
        if runs and number == runs[-1][1] + 1:
            runs[-1] = (runs[-1][0], number)
        else:
            runs.append((number, number))
    to = english.TEXTS["to"]
    words = []
    for a, b in runs[:_MOST_STRETCHES]:
        words += [f"{a} {to} {b}"] if b > a + 1 else [f"{number}" for number in range(a, b + 1)]
    rest = sum(b - a + 1 for a, b in runs[_MOST_STRETCHES:])
    return _listed([*words, _text("more", count=rest)] if rest else words)


def _listed(words: Sequence[str]) -> str:
    if len(words) < 2:
        return "".join(words)
    return f"{', '.join(words[:-1])} {english.TEXTS['and']} {words[-1]}"


# ---- templates ----------------------------------------------------------------------------------------------------


def _text(key: str, **parameters: Any) -> str:
    return _fill(english.TEXTS, key, parameters)


def _fill(templates: Mapping[str, str], key: str, parameters: Mapping[str, Any]) -> str:
    template = templates.get(key)
    if template is None:
        raise Broken(
            f'There is no sentence with the key "{key}". Use the version of dicomguard that wrote the verdict.'
        )
    try:
        return template.format_map(parameters)
    except (KeyError, ValueError) as error:
        raise Broken(f'The sentence "{key}" lacks or cannot print a parameter ({error}). Analyse again.') from None


def _inside(sentence: str) -> str:
    """A whole sentence as it stands in parentheses: "it is CT, for which …"."""
    bare = sentence.rstrip(". ")
    return f"i{bare[1:]}" if bare.startswith(("It ", "Its ")) else bare


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
