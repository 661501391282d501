"""The four answers as a table, what a verdict refuses to be, and its document."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicomguard.core.finding import Coverage, Evidence, FalseAlarms, Finding, FindingSlice, Rank, Sentence, SliceRef
from dicomguard.core.study import Manifest, SeriesPlan, SliceFile
from dicomguard.core.verdict import (
    Conflict,
    CopyReport,
    Geometry,
    Masks,
    Model,
    ModelScope,
    OperatingPoint,
    Predecessor,
    Region,
    Score,
    SeriesReport,
    SliceReport,
    Software,
    Study,
    Verdict,
    coverage,
    decide,
    not_analysable,
    series_report,
)
from dicomguard.errors import Broken

POINT = OperatingPoint(name="alert", forgery=0.6, tumor=0.5, false_alarm_upper=0.062, n_authentic=100, flagged=2)
MODEL = Model(
    id="m1",
    name="dicomguard",
    version="1",
    weights_sha256="ab",
    architecture="a",
    card="docs/model-card.md",
    scope=ModelScope(modalities=("MR",), body_parts=("HEAD",), sequences=("flair",)),
    operating_point=POINT,
)
SOFTWARE = Software(name="dicomguard", version="0.1.0", analyze_version="1")


def decided(*regions: tuple[float, float], forgery: float, analysed: int = 5) -> tuple[str, list[tuple[int, str]]]:
    answer = decide(
        [Region(p_forged=f, p_tumor=t, p_lesion=t) for f, t in regions],
        forgery=forgery,
        slices_analysed=analysed,
        point=POINT,
    )
    return answer.category, list(answer.reported)


@pytest.mark.parametrize(
    ("regions", "forgery", "category", "reported"),
    [
        ([], 0.1, "absent", []),
        ([(0.1, 0.9)], 0.1, "real", [(0, "real")]),
        ([(0.1, 0.4)], 0.1, "absent", []),
        ([(0.9, 0.9)], 0.9, "added", [(0, "added")]),
        ([(0.9, 0.2)], 0.9, "removed", [(0, "removed")]),
        # The highest forgery score is the headline, whatever comes first; real ones follow.
        ([(0.1, 0.99), (0.7, 0.9), (0.8, 0.1)], 0.8, "removed", [(2, "removed"), (1, "added"), (0, "real")]),
        # A study under alarm has a forged region even when none passes alone.
        ([(0.5, 0.9), (0.4, 0.9)], 0.7, "added", [(0, "added"), (1, "real")]),
        # Without an alarm of the study no region is called forged.
        ([(0.9, 0.9), (0.9, 0.1)], 0.5, "real", [(0, "real")]),
        # At the threshold counts as above it.
        ([(0.6, 0.5)], 0.6, "added", [(0, "added")]),
        # An alarm without any region has nothing to show.
        ([], 0.9, "absent", []),
        ([(0.2, 0.7), (0.2, 0.9)], 0.2, "real", [(1, "real"), (0, "real")]),
    ],
)
def test_four_answers(
    regions: list[tuple[float, float]], forgery: float, category: str, reported: list[tuple[int, str]]
) -> None:
    assert decided(*regions, forgery=forgery) == (category, reported)


def test_nothing_analysed_is_not_analysable() -> None:
    assert decided((0.9, 0.9), forgery=0.9, analysed=0) == ("not_analysable", [])


@given(
    regions=st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), max_size=6),
    forgery=st.floats(0, 1),
)
def test_decision_is_consistent(regions: list[tuple[float, float]], forgery: float) -> None:
    category, reported = decided(*regions, forgery=forgery)
    kinds = [kind for _, kind in reported]
    assert len({index for index, _ in reported}) == len(reported)
    assert category == (kinds[0] if kinds else "absent")
    if forgery < POINT.forgery:
        assert category in ("real", "absent")
        assert set(kinds) <= {"real"}
    elif regions:
        assert category in ("added", "removed")
    forged = [regions[index][0] for index, kind in reported if kind != "real"]
    assert forged == sorted(forged, reverse=True)


def finding(**change: Any) -> Finding:
    base = Finding(
        id="F1",
        category="added",
        series="1.2",
        slices=(
            FindingSlice(
                sop_instance_uid="1.2.1",
                frame=None,
                area_mm2=12.5,
                box_px=(1, 2, 3, 4),
                outline_px=((2.0, 1.5), (4.0, 1.5), (4.0, 3.0), (2.0, 1.5)),
            ),
        ),
        key_slice=0,
        volume_mm3=62.5,
        extent_mm=4.0,
        centroid_lps_mm=(1.0, -2.0, 3.0),
        p_forged=0.93,
        p_tumor=0.88,
        authentic_rank=Rank(as_high=0, of=100),
        evidence=(Sentence(sentence_key="noise_below", parameters={"percent": 38.0}),),
        touches_skipped_slice=False,
    )
    return replace(base, **change)


def sliced(sop: str, **change: Any) -> SliceReport:
    base = SliceReport(
        series="1.2",
        sop_instance_uid=sop,
        frame=None,
        position_mm=5.0,
        state="analysed",
        reason="",
        forgery=0.5,
        pixel_sha256="cd",
    )
    return replace(base, **change)


def verdict(**change: Any) -> Verdict:
    parts: dict[str, Any] = {
        "study": Study(
            study_instance_uid="1",
            revision=2,
            manifest_sha256="9b",
            predecessor=Predecessor(
                verdict_sha256="aa",
                revision=1,
                sr_sop_instance_uid="2.25.1",
                sr_sop_class_uid="1.2.840.10008.5.1.4.1.1.88.34",
                sr_series_instance_uid="2.25.2",
            ),
            opened_because="late_instance",
        ),
        "created": "2026-11-24T00:30:00+00:00",
        "software": SOFTWARE,
        "model": MODEL,
        "category": "added",
        "score": Score(forgery=0.93, tumor=0.88, authentic_rank=Rank(as_high=0, of=100)),
        "headline_finding": "F1",
        "series": (
            SeriesReport(
                series_instance_uid="1.2",
                modality="MR",
                description_hash="00",
                frame_of_reference_uid="1.9",
                analysed=True,
                reason="It was taken for a scan of the head.",
                scope="outside",
                scope_reasons=("sequence T2",),
                slices_total=2,
                slices_analysed=1,
                geometry=Geometry(kind="regular", spacing_mm=(5.0, 5.0), tilt_deg=0.0, stacks=1),
            ),
        ),
        "slices": (sliced("1.2.1"), sliced("1.2.2", state="skipped", reason="no head", forgery=None)),
        "findings": (finding(),),
        "coverage": Coverage(
            slices_total=2, slices_analysed=1, head_area_share=0.9, complete=False, outside_scope=True
        ),
        "evidence": (
            Evidence(
                id="E1",
                kind="position_gap",
                strength="notable",
                sentence_key="position_gap",
                parameters={"gap_mm": 10.0, "usual_mm": 5.0},
                slices=(SliceRef(sop_instance_uid="1.2.1", frame=None),),
                authentic_false_alarms=FalseAlarms(k=0, n=0),
            ),
        ),
        "conflicts": (
            Conflict(
                sop_instance_uid="1.2.1",
                copies=(
                    CopyReport(
                        pixel_sha256="x", received_at="2026-11-24T00:00:00+00:00", calling_ae_hash="h", analysed=True
                    ),
                ),
            ),
        ),
        "masks": Masks(file="masks.npz", sha256="ef"),
    }
    return Verdict(**(parts | change))


def test_document_comes_back_equal_and_byte_by_byte() -> None:
    first = verdict()
    again = Verdict.from_json(json.loads(first.to_bytes()))
    assert again == first
    assert again.to_bytes() == first.to_bytes()
    assert again.sha256 == first.sha256


def test_reader_ignores_unknown_keys_and_refuses_an_unknown_major() -> None:
    document = json.loads(verdict().to_bytes())
    assert Verdict.from_json({**document, "new_key": 1}) == verdict()
    with pytest.raises(Broken, match=r"dicomguard\.verdict/2"):
        Verdict.from_json({**document, "schema": "dicomguard.verdict/2"})


def test_numbers_have_the_digits_of_the_contract() -> None:
    document = json.loads(verdict(score=Score(forgery=0.123456, tumor=1 / 3, authentic_rank=None)).to_bytes())
    assert document["score"] == {"forgery": 0.1235, "tumor": 0.3333, "authentic_rank": None}


NO_FINDING: dict[str, Any] = {"findings": (), "headline_finding": None, "masks": None}
QUIET = Score(forgery=0.1, tumor=0.9, authentic_rank=None)


@pytest.mark.parametrize(
    "change",
    [
        NO_FINDING,
        {"category": "removed"},
        {"category": "real", "findings": (finding(category="added", p_forged=0.7),)},
        {"category": "absent"},
        {**NO_FINDING, "category": "not_analysable"},
        {"score": Score(forgery=None, tumor=None, authentic_rank=None)},
        {
            "coverage": Coverage(
                slices_total=1, slices_analysed=2, head_area_share=0, complete=False, outside_scope=False
            )
        },
        {
            "coverage": Coverage(
                slices_total=3, slices_analysed=1, head_area_share=0, complete=False, outside_scope=False
            )
        },
        {"slices": (sliced("1.2.1", state="skipped"), sliced("1.2.2"))},
        {"findings": (finding(), finding())},
        {"headline_finding": None},
        {"headline_finding": "F2"},
    ],
)
def test_impossible_verdicts_are_refused_at_construction(change: dict[str, Any]) -> None:
    with pytest.raises(Broken):
        verdict(**change)


@pytest.mark.parametrize("score", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_never_reach_the_document(score: float) -> None:
    with pytest.raises(Broken):
        verdict(score=Score(forgery=score, tumor=0.1, authentic_rank=None)).to_bytes()


def plan(**change: Any) -> SeriesPlan:
    item = SliceFile(
        sop_instance_uid="1.2.1",
        sop_class_uid="1",
        frame=None,
        path="a",
        sha256="s",
        position_mm=0.0,
        instance_number=1,
    )
    base = SeriesPlan(
        series_instance_uid="1.2",
        series_number=1,
        modality="MR",
        description_hash="",
        frame_of_reference_uid="",
        analysed=True,
        reason="It was taken for a scan of the head.",
        scope="outside",
        scope_reasons=("sequence T2",),
        kind="regular",
        spacing_mm=None,
        tilt_deg=0.0,
        pixel_spacing_mm=None,
        stacks=1,
        slices=(item, replace(item, sop_instance_uid="1.2.2", skipped="too small")),
    )
    return replace(base, **change)


def manifest(*plans: SeriesPlan) -> Manifest:
    return Manifest(study_instance_uid="1", revision=1, opened_because="first", series=plans)


def test_study_that_could_not_be_analysed_has_a_verdict_too() -> None:
    answer = not_analysable(
        manifest(plan()), "time limit", model=MODEL, software=SOFTWARE, created="2026-01-01T00:00:00+00:00"
    )
    assert answer.category == "not_analysable"
    assert [item.reason for item in answer.slices] == ["time limit", "too small"]
    assert answer.series[0].reason == "It was chosen, but no slice could be analysed: time limit."
    assert (answer.coverage.slices_total, answer.coverage.slices_analysed, answer.coverage.complete) == (2, 0, False)
    assert Verdict.from_json(json.loads(answer.to_bytes())) == answer


def test_coverage_counts_what_rules_left_out_and_scope_only_what_was_chosen() -> None:
    left_out = plan(analysed=False, scope="outside", series_instance_uid="1.3")
    inside = plan(scope="inside", scope_reasons=())
    seen = coverage(manifest(inside, left_out), slices_analysed=2, head_area_share=0.5)
    assert (seen.slices_total, seen.complete, seen.outside_scope) == (4, False, False)
    assert coverage(manifest(plan()), slices_analysed=2, head_area_share=1.0).complete
    assert coverage(manifest(plan()), slices_analysed=2, head_area_share=1.0).outside_scope
    assert not coverage(manifest(), slices_analysed=0, head_area_share=0.0).complete


def test_series_keeps_its_rule_when_it_was_analysed() -> None:
    assert series_report(plan(), slices_analysed=1, failed="x").reason == "It was taken for a scan of the head."
    assert series_report(plan(analysed=False), slices_analysed=0, failed="x").analysed is False


def unlike(value: Any, schema: dict[str, Any], where: str = "") -> list[str]:
    """What of a document does not fit the part of JSON Schema that the contract uses; unknown keys count as faults."""
    types = {"object": dict, "array": list, "string": str, "boolean": bool, "null": type(None), "integer": int}
    wanted = [schema["type"]] if isinstance(schema["type"], str) else schema["type"]
    if "number" in wanted and isinstance(value, int | float) and not isinstance(value, bool):
        pass
    elif not any(kind in types and isinstance(value, types[kind]) for kind in wanted):
        return [f"{where} is a {type(value).__name__}, not {wanted}"]
    faults = []
    if ("enum" in schema and value not in schema["enum"]) or ("const" in schema and value != schema["const"]):
        faults.append(f"{where} = {value!r}")
    if isinstance(value, int | float) and not schema.get("minimum", value) <= value <= schema.get("maximum", value):
        faults.append(f"{where} = {value!r} is out of range")
    if isinstance(value, dict) and "properties" in schema:
        faults += [f"{where}.{key} is missing" for key in schema["required"] if key not in value]
        for key, item in value.items():
            known = schema["properties"].get(key)
            faults += [f"{where}.{key} is unknown"] if known is None else unlike(item, known, f"{where}.{key}")
    if isinstance(value, list):
        if not schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value)):
            faults.append(f"{where} has {len(value)} items")
        for index, item in enumerate(value):
            faults += unlike(item, schema["items"], f"{where}[{index}]")
    return faults


def test_documents_fit_the_published_schema() -> None:
    schema = json.loads((Path(__file__).parents[3] / "docs/contracts/verdict-1.schema.json").read_text())
    absent = verdict(**NO_FINDING, category="absent", score=QUIET)
    for item in (verdict(), absent):
        assert unlike(json.loads(item.to_bytes()), schema) == []
    # The check itself can fail.
    document = json.loads(verdict().to_bytes())
    document["score"]["forgery"] = "high"
    document["new"] = 1
    del document["coverage"]["complete"]
    assert len(unlike(document, schema)) == 3
