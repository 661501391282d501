"""The sentences: whole texts as a reader sees them, limits on length, words that are never used."""

import re
import string
from dataclasses import replace

import pytest
from pydicom.dataset import Dataset

from dicomguard.core import english, wording
from dicomguard.core.finding import Coverage
from dicomguard.core.verdict import NO_MODEL, Category, Predecessor, Verdict
from dicomguard.errors import Broken
from tests.sr_cases import Case, Spot, case, frames, identical_pixels, single_frame

TABLES = {
    "PIXEL": english.PIXEL,
    "FILES": english.FILES,
    "TEXTS": english.TEXTS,
    "REASONS": english.REASONS,
    "NOTES": english.NOTES,
}


def texts(made: Case, earlier: Verdict | None = None) -> wording.Texts:
    return wording.compose(made.verdict, made.manifest, earlier)


def source(count: int = 20) -> list[tuple[Dataset, int | None]]:
    return frames(single_frame(count))


# ---- whole texts --------------------------------------------------------------------------------------------------


def test_real() -> None:
    assert texts(case("real", [source()], [Spot(category="real", places=range(7, 14), p_forged=0.04)])).summary == (
        "A region that looks like a brain tumor was found on slices 8 to 14 of series 3 (F1, about 9.5 ml). "
        "No sign of forgery was found in it. Forgery score 0.04; alert threshold 0.62. All 20 slices were analysed. "
        "A forgery can be missed, also one of a kind that the program was trained on. "
        "No action follows from this report; please read the images as usual."
    )


def test_absent() -> None:
    assert texts(case("absent", [source()])).summary == (
        "No tumor-like region and no sign of forgery were found on slices 1 to 20 of series 3. "
        "Forgery score 0.03; alert threshold 0.62. All 20 slices were analysed. "
        "This does not exclude a tumor or a forgery: the program sees only brain tumors of the kinds it was trained "
        "on, and it misses some forgeries. No action follows from this report; please read the images as usual."
    )


def test_slices_that_stand_out_alone_are_named_where_the_study_is_not_flagged() -> None:
    made = case("absent", [source()])
    high = {3: 0.71, 4: 0.62, 9: 0.619}
    slices = tuple(replace(one, forgery=high.get(i, one.forgery)) for i, one in enumerate(made.verdict.slices))
    verdict = replace(made.verdict, slices=slices)
    said = texts(replace(made, verdict=verdict)).summary
    assert (
        "alert threshold 0.62. At or above the alert threshold by themselves, which is too little to flag the study: "
        "slices 4 and 5 of series 3 (highest score 0.71); 2 of the 100 authentic slices that the threshold was set on "
        "were so too. All 20 slices were analysed."
    ) in said
    point = replace(verdict.model.operating_point, n_authentic=0, flagged=0)
    untried = replace(verdict, model=replace(verdict.model, operating_point=point))
    assert "(highest score 0.71). All 20" in texts(replace(made, verdict=untried)).summary
    flagged = case("added", [source()], [Spot(category="added", places=range(7, 14))])
    loud = tuple(replace(one, forgery=0.9) for one in flagged.verdict.slices)
    assert "by themselves" not in texts(replace(flagged, verdict=replace(flagged.verdict, slices=loud))).summary


def test_added() -> None:
    made = texts(case("added", [source()], [Spot(category="added", places=range(7, 14))]))
    assert made.summary == (
        "The region F1 on slices 8 to 14 of series 3 (about 9.5 ml) looks like a tumor, but its pixels do not fit the "
        "rest of the scan: noise inside is 38 % below tissue of equal brightness. This is consistent with a tumor that "
        "was added to the images. Forgery score 0.93, alert threshold 0.62; none of 100 authentic studies scored as "
        "high; at this threshold 2 of the 100 authentic slices that it was set on were flagged (95 % upper bound 6.2 "
        "%, if those of one person were independent). All 20 slices were analysed. "
        "Denoising, stitching or a burned-in overlay can look alike, and a tumor that was removed can be "
        "taken for one that was added. "
        "Please do not rely on this region before comparing it with the images on the scanner or in the modality's own "
        "archive, and tell the PACS administrator. Other regions and slices were judged separately."
    )
    assert made.findings == {"F1": ("Noise inside is 38 % below tissue of equal brightness.",)}


def test_removed_with_partial_coverage() -> None:
    made = case(
        "removed",
        [source(24)],
        [Spot(category="removed", places=range(5, 10), p_forged=0.81, touches_skipped=True)],
        skipped={(0, 0): "no head", (0, 1): "no head", (0, 16): "undecodable", (0, 23): "too small"},
    )
    made = replace(made, verdict=replace(made.verdict, score=replace(made.verdict.score, authentic_rank=None)))
    said = texts(made)
    assert said.summary.startswith(
        "On slices 6 to 10 of series 3 the region F1 (about 9.5 ml) shows no tumor, but its pixels do not fit the rest "
        "of the scan: its texture repeats another place of the same slice. This is consistent with a tumor that was "
        "removed from the images. Forgery score 0.81; alert threshold 0.62; at this threshold 2 of the 100"
    )
    assert "20 of 24 slices were analysed. Not looked at: series 3: slices 1 and 2 (no head); " in said.summary
    assert "series 3: slice 17 (could not be decoded); series 3: slice 24 (too few pixels)." in said.summary
    assert said.not_looked_at.endswith("A forgery there would not be seen.")
    assert said.touches_skipped == {"F1": "The region F1 reaches a slice that was not analysed; it may go on there."}
    assert said.next_step.startswith("Please compare with the images on the scanner, with earlier studies")


def test_threshold_that_was_never_tried_on_authentic_studies_claims_nothing() -> None:
    made = case("added", [source()], [Spot(category="added", places=[3])])
    point = replace(made.verdict.model.operating_point, n_authentic=0, flagged=0)
    model = replace(made.verdict.model, operating_point=point)
    said = texts(replace(made, verdict=replace(made.verdict, model=model))).summary
    assert "Forgery score 0.93, alert threshold 0.62; none of 100 authentic studies scored as high. All 20" in said


def test_not_analysable() -> None:
    said = texts(case("not_analysable", [source(3)]))
    assert said.summary == (
        "The images could not be analysed: series 3 (could not be decoded). Nothing can be said about their "
        "authenticity. This is neither good nor bad news. Please read the images as if this report did not exist."
    )
    assert said.not_looked_at == said.scope == ""


def test_why_nothing_could_be_analysed() -> None:
    """What a rule says of a series, the word of its slices, or what befell the whole."""
    stacks = [frames(single_frame(3, series=number)) for number in (3, 4, 5)]
    made = case("not_analysable", stacks)
    ct = "It is CT, for which the model was not validated."
    plans = made.manifest.series
    manifest = replace(
        made.manifest,
        series=(
            replace(plans[0], analysed=False, reason=ct),
            replace(plans[1], analysed=False, reason=ct),
            plans[2],
            replace(plans[2], series_instance_uid="9.9", series_number=9, slices=(), reason="It is a document."),
        ),
    )
    words = {3: "no head", 4: "no head", 5: "undecodable"}
    series = {plan.series_instance_uid: plan.series_number for plan in plans}
    slices = tuple(replace(item, reason=words[series[item.series] or 0]) for item in made.verdict.slices)
    assert texts(replace(made, manifest=manifest, verdict=replace(made.verdict, slices=slices))).summary.startswith(
        "The images could not be analysed: series 3 and 4 (it is CT, for which the model was not validated); "
        "series 5 (could not be decoded); series 9 (it is a document). Nothing"
    )
    failed = tuple(replace(item, reason="the analysis failed") for item in slices)
    assert texts(replace(made, verdict=replace(made.verdict, slices=failed))).summary.startswith(
        "The images could not be analysed: the analysis failed. Nothing"
    )
    empty = replace(made.verdict, slices=(), series=(), coverage=Coverage(
        slices_total=0, slices_analysed=0, head_area_share=0, complete=False, outside_scope=False
    ))  # fmt: skip
    said = texts(replace(made, manifest=replace(manifest, series=()), verdict=replace(empty, model=NO_MODEL)))
    assert said.summary.startswith("The images could not be analysed: the study holds no images. Nothing")
    assert said.model == "No model has judged, since its weights could not be read."


def test_several() -> None:
    spots = [
        Spot(category="added", places=[1, 2]),
        Spot(category="removed", places=[4], centre=(8, 8), radius=4, p_forged=0.7),
        Spot(category="real", places=[5], centre=(30, 8), radius=4, p_forged=0.1),
    ]
    assert (
        "3 regions: F1 added, signs of forgery; F2 removed, signs of forgery; F3 real, no sign of forgery. "
        "The result in the title is that of the region with the highest forgery score; each region is described on its "
        "own."
    ) in texts(case("added", [source(8)], spots)).summary
    real = [replace(spots[2], centre=(20, 18)), spots[2]]
    assert "that of the region with the highest tumor score" in texts(case("real", [source(8)], real)).summary


def test_outside_scope() -> None:
    said = texts(case("absent", [source(4)], outside=True))
    assert said.scope == (
        "Outside the validated scope: the program was validated for MR FLAIR and T1 with contrast of the head; "
        "series 3: modality CT. The scores have no known error rate here."
    )
    assert said.scope in said.summary
    made = case("absent", [source(4)])
    scope = replace(made.verdict.model.scope, sequences=("FLAIR", "T1C"), body_parts=("BRAIN", "HEAD"))
    model = replace(made.verdict.model, scope=scope)
    said = texts(replace(made, verdict=replace(made.verdict, model=model)))
    assert said.scope == "Inside the validated scope (MR FLAIR and T1 with contrast of the brain and head)."


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        (
            "lossy compression",
            "All 4 slices were analysed. The slices of series 3 were compressed with loss, which can",
        ),
        (
            "traces of lossy compression",
            "All 4 slices were analysed. Slices of series 3 look compressed with loss, which can",
        ),
        ("fine noise missing", "All 4 slices were analysed. Fine noise is missing in series 3, as after smoothing"),
    ],
)
def test_what_the_analysed_slices_are_worth(reason: str, words: str) -> None:
    made = case("absent", [source(4)], outside=True)
    series = tuple(replace(item, scope_reasons=(reason,)) for item in made.verdict.series)
    said = texts(replace(made, verdict=replace(made.verdict, series=series)))
    assert words in said.summary
    assert f"series 3: {reason}." in said.scope


def test_evidence_of_the_files() -> None:
    headers = single_frame(12)
    said = texts(case("absent", [frames(headers)], evidence=[identical_pixels([headers[6], headers[11]])]))
    assert said.evidence == (
        "Slices 7 and 12 of series 3 hold identical pixels under different identifiers. Compare these slices with the "
        "copy on the scanner or in the modality's own archive. This finding comes from the files, not from the image "
        "analysis, and did not change the score; it was seen in 0 of 180 authentic studies.",
    )


def test_strong_evidence_of_the_files_is_never_followed_by_no_action() -> None:
    headers = single_frame(12)
    strong = identical_pixels([headers[6], headers[11]])
    cases: list[tuple[Category, list[Spot]]] = [
        ("absent", []),
        ("real", [Spot(category="real", places=[1], p_forged=0.1)]),
    ]
    for category, spots in cases:
        said = texts(case(category, [frames(headers)], spots, evidence=[strong]))
        assert said.evidence[0] in said.summary and "No action follows" not in said.summary
        assert "please show the evidence of the files to the PACS administrator" in said.next_step
        assert said.summary.endswith(said.next_step)
        weak = texts(case(category, [frames(headers)], spots, evidence=[replace(strong, strength="notable")]))
        assert weak.evidence == said.evidence and weak.evidence[0] not in weak.summary
        assert "No action follows" in weak.summary
    forged = texts(case("added", [frames(headers)], [Spot(category="added", places=[1])], evidence=[strong]))
    assert forged.evidence[0] in forged.summary and "do not rely on this region" in forged.summary


def test_conflict_and_two_patients() -> None:
    made = case("absent", [source(4)], conflict=True)
    made = replace(made, manifest=replace(made.manifest, patient_ids=2))
    assert "No action follows" not in texts(made).summary
    assert texts(made).conflicts == (
        "2 copies of slice 1 of series 3 with different pixels arrived under one identifier, "
        "at 24 Nov 2026 00:10:00 UTC from sender aaaaaaaa and at 24 Nov 2026 00:11:00 UTC from sender bbbbbbbb. "
        "The one of 24 Nov 2026 00:10:00 UTC was analysed; all are kept. "
        "Only one of them can be what the scanner made.",
        "The study carries 2 different Patient IDs; this report carries that of the first analysed instance.",
    )


def test_of_two_copies_in_one_second_the_analysed_one_is_told_by_its_place() -> None:
    made = case("absent", [source(4)], conflict=True)
    (conflict,) = made.verdict.conflicts
    first, second = conflict.copies
    together = replace(conflict, copies=(first, replace(second, received_at=first.received_at)))
    made = replace(made, verdict=replace(made.verdict, conflicts=(together,)))
    assert "Of these the one named first was analysed; all are kept." in texts(made).conflicts[0]


def test_revision() -> None:
    before = case("absent", [source(20)], created="2026-11-24T00:12:00+00:00")
    predecessor = Predecessor(
        verdict_sha256=before.verdict.sha256,
        revision=1,
        sr_sop_instance_uid="1.2",
        sr_sop_class_uid="1.3",
        sr_series_instance_uid="1.4",
    )
    after = case("added", [source(24)], [Spot(category="added", places=[21])], revision=2, predecessor=predecessor)
    said = texts(after, before.verdict)
    assert said.revision == (
        "This is report 2. It replaces report 1 of 24 Nov 2026 00:12 UTC because 4 more slices arrived. "
        "Changed: result from 'no tumor, no sign of forgery' to 'tumor added, signs of forgery'."
    )
    assert said.summary.startswith(said.revision)
    one = case("absent", [source(21)], revision=2, predecessor=predecessor)
    assert "because one more slice arrived. " in texts(one, before.verdict).revision
    assert texts(after).revision == "This is report 2. It replaces report 1 because more slices arrived."
    same = case("absent", [source(24)], revision=2, predecessor=predecessor)
    assert texts(same, before.verdict).revision.endswith("The result is unchanged: 'no tumor, no sign of forgery'.")
    assert texts(before).revision == ""


# ---- places and sizes ---------------------------------------------------------------------------------------------


def test_slices_without_numbers_and_frames() -> None:
    def strip(ds: Dataset) -> None:
        del ds.InstanceNumber, ds.SeriesNumber

    bare = single_frame(5, change=strip)
    said = texts(case("real", [frames(bare)], [Spot(category="real", places=[0, 1, 3], p_forged=0.1)])).summary
    assert "on slices 1, 2 and 4 (counted along the stack) of a series without number (F1" in said
    one = single_frame(1)[0]
    made = case("absent", [[(one, frame) for frame in (1, 2, 3)]])
    assert "found on frames 1 to 3 of series 3." in texts(made).summary
    assert wording.slice_name((str(one.SOPInstanceUID), 2), made.manifest) == "frame 2 of series 3"


def test_two_series() -> None:
    stacks = [frames(single_frame(3, series=3)), frames(single_frame(2, series=5))]
    said = texts(case("absent", stacks, skipped={(1, 0): "localiser", (1, 1): "localiser"}))
    assert "Not looked at: all of series 5 (2 slices: localiser)." in said.summary
    assert said.extent[1].startswith("Series 5: 0 of 2 slices analysed. ")
    both = texts(case("absent", stacks)).summary
    assert "found on slices 1 to 3 of series 3 and slices 1 and 2 of series 5." in both


def test_a_series_of_two_stacks_is_one_series() -> None:
    """As when a conflict copy or a second echo lies at the places of the first."""
    made = case("absent", [frames(single_frame(3, series=3)), frames(single_frame(2, series=5))], outside=True)
    (first, second), uid = made.manifest.series, made.manifest.series[0].series_instance_uid
    manifest = replace(
        made.manifest, series=(first, replace(second, series_instance_uid=uid, series_number=first.series_number))
    )
    reports = tuple(replace(item, series_instance_uid=uid) for item in made.verdict.series)
    slices = tuple(replace(item, series=uid) for item in made.verdict.slices)
    said = texts(replace(made, manifest=manifest, verdict=replace(made.verdict, series=reports, slices=slices)))
    assert "of the head; series 3: modality CT. The scores" in said.scope
    assert said.extent == ("Series 3: 5 of 5 slices analysed. The rule head-mr matches.",)


def test_whole_series_are_named_together_by_what_the_rule_says() -> None:
    stacks = [frames(single_frame(2, series=number)) for number in (3, 5, 6)]
    made = case("absent", stacks, skipped={(s, i): "derived" for s in (1, 2) for i in (0, 1)})
    left = "Image Type says ADC: it is a map of diffusion (ADC), computed from a scan."
    plans = tuple(replace(plan, analysed=n == 0, reason=left) for n, plan in enumerate(made.manifest.series))
    assert texts(replace(made, manifest=replace(made.manifest, series=plans))).not_looked_at == (
        "Not looked at: all of series 5 and 6 (4 slices: Image Type says ADC: it is a map of diffusion (ADC), computed "
        "from a scan). A forgery there would not be seen."
    )


def test_many_stretches_are_counted() -> None:
    made = case("absent", [source(30)], skipped={(0, place): "no head" for place in range(0, 30, 2)})
    assert "slices 1, 3, 5, 7, 9, 11 and 9 more (no head)" in texts(made).not_looked_at


@pytest.mark.parametrize(
    ("volume_mm3", "words"),
    [
        (9505.4, "about 9.5 ml"),
        (9960.0, "about 10 ml"),
        (123456.0, "about 120 ml"),
        (42317.0, "about 42 ml"),
        (231.0, "about 0.23 ml"),
        (0.0, "about 23 mm across"),
    ],
)
def test_two_significant_digits(volume_mm3: float, words: str) -> None:
    made = case("real", [source(4)], [Spot(category="real", places=[1], p_forged=0.1)])
    finding = replace(made.verdict.findings[0], volume_mm3=volume_mm3)
    assert f"(F1, {words})" in texts(replace(made, verdict=replace(made.verdict, findings=(finding,)))).summary
    bare = replace(finding, volume_mm3=0.0, extent_mm=0.0)
    assert "(F1)." in texts(replace(made, verdict=replace(made.verdict, findings=(bare,)))).summary


# ---- rules for all sentences --------------------------------------------------------------------------------------


@pytest.mark.parametrize("table", TABLES)
def test_length_and_forbidden_words(table: str) -> None:
    for key, template in TABLES[table].items():
        assert len(template) <= 320, key
        assert not re.search(r"\bprove|fake|\bguarantee|\bcertain|diagnos|manipulat|\bcriminal", template, re.I) or (
            key == "use" and "Not for diagnosis" in template
        ), key
        assert template == template.strip() or key == "by_place", key


def test_negative_results_promise_nothing() -> None:
    for key in ("real", "absent", "limits_real", "limits_absent", "next_real", "next_absent", "score_alert"):
        assert not re.search(r"\b(normal|clean|authentic|safe|genuine)\b", english.TEXTS[key], re.I), key


def test_answers_are_the_plain_words() -> None:
    assert [wording.answer(key) for key in ("real", "absent", "added", "removed", "not_analysable")] == [
        "Brain Tumor Detected (Real)",
        "No Tumor Detected",
        "Tumor Added (Deepfake)",
        "Tumor Removed (Deepfake)",
        "Not Analysable",
    ]
    # The word of the page stays out of every report.
    assert "fake" not in " ".join(value for table in TABLES.values() for value in table.values()).lower()


@pytest.mark.parametrize("key", [*english.PIXEL, *english.FILES])
def test_every_evidence_sentence_renders(key: str) -> None:
    template = {**english.PIXEL, **english.FILES}[key]
    names = {name for _, name, _, _ in string.Formatter().parse(template) if name}
    parameters = {name: "Software Versions" if name in ("attribute", "channel") else 12.3 for name in names}
    said = wording.sentence(key, parameters, slices="slices 3 and 4 of series 2")
    assert said[0].isupper() and said.endswith(".") and "{" not in said and len(said) <= 200


@pytest.mark.parametrize("key", english.FILES)
def test_evidence_of_one_slice_agrees_in_number(key: str) -> None:
    """What can be said of a single slice names it where no verb follows; the others always name several."""
    several = {"identical_pixels", "same_noise", "position_gap", "position_repeat"}
    assert key in several or "{Slices}" not in english.FILES[key]


def test_unknown_key_or_missing_parameter_is_broken() -> None:
    with pytest.raises(Broken, match="no sentence with the key"):
        wording.sentence("nothing", {})
    with pytest.raises(Broken, match="lacks or cannot print"):
        wording.sentence("noise_below", {})
    with pytest.raises(Broken, match="not in the manifest"):
        wording.slice_name(("9.9", None), case("absent", [source(2)]).manifest)


def test_labels_fit_a_segment() -> None:
    assert [wording.segment_label("F12", key) for key in ("real", "added", "removed")] == [
        "F12 real, no sign of forgery",
        "F12 added, signs of forgery",
        "F12 removed, signs of forgery",
    ]
