"""The tree of the report: what stands where, and under which code."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from pydicom.dataset import Dataset

from dicomguard.sr import codes, content
from tests.sr_cases import Case, Spot, case, enhanced, frames, identical_pixels, single_frame

FORGED = [
    Spot(category="added", places=[2, 3, 4]),
    Spot(category="removed", places=[3], centre=(8, 8), radius=4, p_forged=0.7),
    Spot(category="real", places=[1], centre=(32, 28), radius=3, p_forged=0.1),
]


def sr(made: Case, **arguments: Any) -> Dataset:
    return made.build(**arguments)[-1].dataset


def source() -> list[tuple[Dataset, int | None]]:
    return frames(single_frame())


def walk(item: Dataset) -> Iterator[Dataset]:
    for child in item.get("ContentSequence", []):
        yield child
        yield from walk(child)


def concept(item: Dataset) -> str:
    return str(item.ConceptNameCodeSequence[0].CodeValue) if item.get("ConceptNameCodeSequence") else ""


def value(item: Dataset) -> Any:
    for keyword in ("TextValue", "UID"):
        if keyword in item:
            return item[keyword].value
    if "ConceptCodeSequence" in item:
        return item.ConceptCodeSequence[0].CodeValue
    return item.MeasuredValueSequence[0].NumericValue


def container(ds: Dataset, code: codes.Code) -> Any:
    (found,) = [item for item in ds.ContentSequence if concept(item) == code.value]
    return found


def values(ds: Dataset, code: codes.Code) -> list[Any]:
    return [
        value(item)
        for item in container(ds, codes.QUALITATIVE_EVALUATIONS).ContentSequence
        if concept(item) == code.value
    ]


@pytest.mark.parametrize(
    ("made", "title", "result", "sign", "processing"),
    [
        (lambda: case("real", [source()], [FORGED[2]]), "DG0001", "DG2001", "272519000", "111242"),
        (lambda: case("absent", [source()]), "DG0002", "DG2002", "272519000", "111241"),
        (lambda: case("added", [source()], FORGED[:1]), "DG0003", "DG2003", "52101004", "111242"),
        (lambda: case("removed", [source()], FORGED[1:2]), "DG0004", "DG2004", "52101004", "111242"),
        (lambda: case("not_analysable", [source()]), "DG0005", "DG2005", "373068000", "111245"),
        (lambda: case("absent", [source()], skipped={(0, 0): "lossy"}), "DG0002", "DG2002", "272519000", "111243"),
        (lambda: case("added", [source()], FORGED, skipped={(0, 0): "x"}), "DG0003", "DG2003", "52101004", "111244"),
    ],
)
def test_result(made: Any, title: str, result: str, sign: str, processing: str) -> None:
    ds = sr(made())
    assert concept(ds) == title
    assert values(ds, codes.STUDY_RESULT) == [result]
    assert values(ds, codes.SIGN_OF_FORGERY) == [sign]
    assert values(ds, codes.PROCESSING_SUMMARY) == [processing]
    assert (ds.PreliminaryFlag, ds.CompletionFlag, ds.VerificationFlag) == ("PRELIMINARY", "COMPLETE", "UNVERIFIED")
    assert values(ds, codes.INTENDED_USE)[0] == "DG4021" and "Not for diagnosis" in values(ds, codes.INTENDED_USE)[1]


def test_order_of_the_template() -> None:
    ds = sr(case("added", [source()], FORGED))
    assert [concept(item) for item in ds.ContentSequence] == [
        "121049", "121005", "121012", "121013", "121014", "121015", "121016", "121058", "126010", "C0034375",
    ]  # fmt: skip
    assert ds.ContentTemplateSequence[0].TemplateIdentifier == "1500"
    for item in (ds, *walk(ds)):
        if item.ValueType == "CONTAINER":
            assert item.ContinuityOfContent == "SEPARATE"


def test_two_groups_for_each_finding_under_one_tracking_uid() -> None:
    groups = container(sr(case("added", [source()], FORGED)), codes.IMAGING_MEASUREMENTS).ContentSequence
    kinds = [group.ContentTemplateSequence[0].TemplateIdentifier for group in groups]
    assert kinds == ["1411", "1410"] * 3
    for first, second in zip(groups[::2], groups[1::2], strict=True):
        names = [[value(item) for item in group.ContentSequence[:2]] for group in (first, second)]
        assert names[0] == names[1] and [concept(item) for item in first.ContentSequence[:2]] == ["112039", "112040"]
        first_uid = next(item for item in first.ContentSequence if item.ValueType == "UIDREF")
        assert concept(first_uid) == "112040"
        assert any(item.ValueType == "SCOORD" for item in second.ContentSequence)
    assert len({value(group.ContentSequence[1]) for group in groups}) == 3


def test_group_of_a_finding() -> None:
    spot = replace(FORGED[0], touches_skipped=True)
    group = container(sr(case("added", [source()], [spot])), codes.IMAGING_MEASUREMENTS).ContentSequence[0]
    said = {concept(item): value(item) for item in group.ContentSequence if item.ValueType not in ("IMAGE", "SCOORD")}
    assert (said["118565006"], said["DG1003"], said["DG1004"]) == ("9505.4", "0.93", "0.88")
    assert (said["121071"], said["276214006"], said["DG1001"]) == ("DG3001", "309825002", "DG2003")
    assert said["DG1017"] == "Noise inside is 38 % below tissue of equal brightness."
    assert said["DG1014"] == "The region F1 reaches a slice that was not analysed; it may go on there."
    assert said["121232"].endswith(".3") and said["111000"] == "123110"


def test_outline_is_closed_and_names_its_frame() -> None:
    (header,) = enhanced()
    ds = sr(case("removed", [[(header, n) for n in range(1, 7)]], [Spot(category="removed", places=[2, 3])]))
    (line,) = [item for item in walk(ds) if item.ValueType == "SCOORD"]
    assert line.GraphicData[:2] == line.GraphicData[-2:]
    (image,) = line.ContentSequence
    assert image.RelationshipType == "SELECTED FROM"
    assert image.ReferencedSOPSequence[0].ReferencedFrameNumber == 3
    (evidence,) = ds.CurrentRequestedProcedureEvidenceSequence
    # A multi-frame instance is named once.
    assert len(evidence.ReferencedSeriesSequence[0].ReferencedSOPSequence) == 1


@pytest.mark.parametrize("outline", [(), ((1.0, 1.0), (5.0, 1.0), (5.0, 5.0))])
def test_open_or_missing_outline_is_closed(outline: tuple[tuple[float, float], ...]) -> None:
    made = case("added", [source()], FORGED[:1])
    finding = made.verdict.findings[0]
    slices = tuple(replace(item, outline_px=outline) for item in finding.slices)
    verdict = replace(made.verdict, findings=(replace(finding, slices=slices),))
    (line,) = [item for item in walk(sr(replace(made, verdict=verdict))) if item.ValueType == "SCOORD"]
    assert line.GraphicData[:2] == line.GraphicData[-2:] and len(line.GraphicData) in (8, 10)


def test_no_finding_no_number() -> None:
    ds = sr(case("absent", [source()]))
    assert not [item for item in walk(ds) if item.ValueType == "NUM"]
    (group,) = container(ds, codes.IMAGING_MEASUREMENTS).ContentSequence
    assert [concept(item) for item in group.ContentSequence] == [
        "112039", "112040", "DG1000", "DG1002", "111017", "DG1008",
    ]  # fmt: skip


def test_without_frame_of_reference_the_outline_carries_all() -> None:
    bare = frames(single_frame(change=lambda ds: delattr(ds, "FrameOfReferenceUID")))
    built = case("added", [bare], FORGED[:1]).build()
    assert [item.result.kind for item in built] == ["SR"]
    (group,) = container(built[0].dataset, codes.IMAGING_MEASUREMENTS).ContentSequence
    found = [concept(item) for item in group.ContentSequence]
    assert found.count("DG1001") == 1 and {"DG1003", "42798000", "111030", "118565006"} <= set(found)
    assert "121191" not in found
    assert any("there is no segmentation" in text for text in values(built[0].dataset, codes.EXTENT))


def test_no_volume_or_area_is_not_zero() -> None:
    made = case("added", [source()], FORGED[:1])
    finding = made.verdict.findings[0]
    flat = replace(finding, volume_mm3=0.0, slices=tuple(replace(item, area_mm2=0.0) for item in finding.slices))
    ds = sr(replace(made, verdict=replace(made.verdict, findings=(flat,))))
    assert not {"118565006", "42798000"} & {concept(item) for item in walk(ds)}


def test_sentences() -> None:
    headers = single_frame()
    made = case(
        "added", [frames(headers)], FORGED, skipped={(0, 0): "lossy"}, outside=True, conflict=True,
        evidence=[identical_pixels(headers[2:4])],
    )  # fmt: skip
    ds = sr(made)
    assert values(ds, codes.FILE_EVIDENCE) == ["DG4012"]
    assert values(ds, codes.SCOPE)[0] == "DG4002" and values(ds, codes.SCOPE)[1].startswith("Outside the validated")
    assert "hold identical pixels" in values(ds, codes.FILE_EVIDENCE_TEXT)[0]
    assert "different pixels arrived" in values(ds, codes.CONFLICT)[0]
    assert "Not looked at" in values(ds, codes.NOT_LOOKED_AT)[0]
    assert values(ds, codes.REVISION) == [] and len(values(ds, codes.SUMMARY)) == 1
    assert values(sr(case("absent", [source()])), codes.FILE_EVIDENCE) == ["DG4011"]


def test_files_that_nobody_could_decode_are_not_said_to_be_without_evidence() -> None:
    assert values(sr(case("not_analysable", [source()])), codes.FILE_EVIDENCE) == [codes.UNDETERMINED.value]


def test_every_report_names_its_model() -> None:
    for made in (case("absent", [source()]), case("not_analysable", [source()]), case("added", [source()], FORGED)):
        ds = sr(made)
        assert "Model lf-2026.11-a1b2c3d4, operating point alert." in values(ds, codes.EXTENT)
        assert ds.SoftwareVersions[1] == "model lf-2026.11-a1b2c3d4"


def test_evidence_names_all_that_arrived() -> None:
    made = case("absent", [source(), frames(single_frame(2, series=5))], skipped={(0, 0): "lossy", (1, 0): "localiser"})
    (study,) = sr(made).CurrentRequestedProcedureEvidenceSequence
    assert [len(series.ReferencedSOPSequence) for series in study.ReferencedSeriesSequence] == [7, 2]


def test_title_of_a_measurement_report_brings_an_image_library() -> None:
    ds = sr(case("added", [source()], FORGED, skipped={(0, 0): "lossy"}), title="126000")
    assert concept(ds) == "126000"
    (group,) = container(ds, codes.IMAGE_LIBRARY).ContentSequence
    assert len(group.ContentSequence) == 6
    # Without coordinates that title would crash a viewer.
    assert concept(sr(case("absent", [source()]), title="126000")) == "DG0002"


def test_every_code_is_in_the_table() -> None:
    known = {(item.value, item.scheme, item.meaning) for item in _all_codes()}
    headers = single_frame()
    made = case("added", [frames(headers)], FORGED, evidence=[identical_pixels(headers[2:4])])
    for built in made.build(title="126000"):
        for element in built.dataset.iterall():
            if element.keyword.endswith("CodeSequence"):
                for item in element.value:
                    assert (item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning) in known


def _all_codes() -> Iterator[codes.Code]:
    for item in vars(codes).values():
        if isinstance(item, codes.Code):
            yield item
        elif isinstance(item, dict):
            for entry in item.values():
                yield from entry if isinstance(entry, tuple) else (entry,) if isinstance(entry, codes.Code) else ()


def test_codes_are_legal_and_unique() -> None:
    seen: dict[tuple[str, str], str] = {}
    for item in _all_codes():
        assert len(item.value) <= 16 and len(item.scheme) <= 16 and len(item.meaning) <= 64, item
        assert seen.setdefault((item.scheme, item.value), item.meaning) == item.meaning


@pytest.mark.parametrize(
    ("number", "digits", "text"),
    [(20.0, 1, "20"), (9505.44, 1, "9505.4"), (0.93, 4, "0.93"), (-0.00001, 4, "0"), (100.0, 0, "100"), (0.0, 4, "0")],
)
def test_decimal(number: float, digits: int, text: str) -> None:
    assert content.decimal(number, digits) == text
