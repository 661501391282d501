"""Tables of planted records, the gallery's choice, and a page that stands alone."""

import base64
import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from dicomguard.retrain.evaluate import (
    alarms,
    answers,
    drawing,
    gallery,
    goals,
    metrics,
    report,
    strata,
    summary,
)
from dicomguard.retrain.evaluate.drawing import UNIT_TICKS, Axis, Line
from dicomguard.retrain.evaluate.gallery import Keeper, Shot
from dicomguard.retrain.evaluate.records import AUTHENTIC, LesionRecord, ProcessedRecord, SliceRecord, StudyRecord


def one(score: float, *, family: str = "splice", patient: str = "s/a", **more: object) -> SliceRecord:
    twin = None if family == AUTHENTIC else 0.0
    base: dict[str, object] = {"source": "s", "patient": patient, "family": family, "score": score, "twin_score": twin}
    return SliceRecord(**(base | more))  # type: ignore[arg-type]


def records() -> list[SliceRecord]:
    """Ten patients: large splices above all authentic slices, small ones among them."""
    found = []
    for index in range(10):
        who = {"patient": f"s/{index}", "sequence": "flair", "group": "H"}
        quiet = 0.1 + 0.01 * index
        found.append(one(quiet, family=AUTHENTIC, truth="real", answer="real", peers={"ELA": 0.5}, **who))
        found.append(one(0.9, kind="added", area=1000, truth="added", answer="added", peers={"ELA": 0.5}, **who))
        found.append(one(quiet, kind="removed", area=100, truth="removed", answer="absent", peers={"ELA": 0.9}, **who))
    return found


def test_strata_cut_what_they_say() -> None:
    rows = {(row["cut"], row["stratum"]): row for row in strata.strata(records(), threshold=0.5)}
    large, small = rows[("area", "800 to 1599 px")], rows[("area", "64 to 199 px")]
    assert (large["slice_auc"], large["slice_sensitivity"]) == (1.0, 1.0)
    assert (small["slice_auc"], small["slice_sensitivity"]) == (0.5, 0.0)
    assert small["slice_auc_low"] <= 0.5 <= small["slice_auc_high"]
    assert rows[("kind", "added")]["slices"] == 10
    assert rows[("hospital", "s H")]["slice_auc"] == 0.75
    authentic = rows[("source", "s")]["authentic"]
    assert (authentic["slices"], authentic["slices_flagged"], authentic["slice_people"]) == (10, 0, 10)
    assert rows[("kind", "added")]["authentic"] is None


def test_a_scanner_that_scores_high_does_not_help_another() -> None:
    other = [
        SliceRecord(source="t", patient="t/a", family=family, score=2.0, twin_score=None, truth="real")
        for family in (AUTHENTIC, "splice")
    ]
    forged = [r for r in [*records(), *other] if r.family != AUTHENTIC]
    quiet = [r for r in [*records(), *other] if r.family == AUTHENTIC]
    drawn = strata.auc_over_sources(forged, quiet)
    assert drawn is not None
    # 0.75 in s, 0.5 in t; pooling the sources would give 0.66.
    assert drawn.value == pytest.approx((0.75 + 0.5) / 2)


def test_peers_and_the_model_are_judged_alike() -> None:
    rows = {row["family"]: row for row in strata.beside_peers(records(), [])}
    assert rows["splice"]["model slice"] == 0.75
    # ELA sees the ten small ones and ties with the large ones.
    assert rows["splice"]["ELA slice"] == 0.75
    assert rows["splice"]["mirror correlation slice"] == 0.5
    assert rows["mean of families"]["model slice"] == 0.75


def test_four_answers_of_slices() -> None:
    table = answers.four_way(records())
    counts = dict(zip(table["labels"], table["counts"], strict=True))
    assert counts["real"] == (10, 0, 0, 0, 0)
    assert counts["added"] == (0, 0, 10, 0, 0)
    assert counts["removed"] == (0, 10, 0, 0, 0)
    # F1 of real 1, added 1, removed 0, absent 0.
    assert table["macro_f1"] == 0.5


def study(family: str, score: float, patient: str, marks: tuple[tuple[float, bool], ...]) -> StudyRecord:
    answer = "added" if score > 0.5 else "real"
    truth = "real" if family == AUTHENTIC else "added"
    return StudyRecord(source="s", patient=patient, family=family, truth=truth, answer=answer, score=score, marks=marks)


def studies() -> list[StudyRecord]:
    found = []
    for index in range(10):
        found.append(study(AUTHENTIC, 0.1, f"s/{index}", ()))
        found.append(study("splice", 0.9, f"s/{index}", ((0.9, True),) if index < 6 else ((0.8, False),)))
    return found


def test_froc_and_roc_and_calibration_of_studies() -> None:
    found = answers.frocs(studies(), [])
    assert [row["title"] for row in found] == ["own families"]
    assert found[0]["at_half"]["value"] == 0.6
    lesions = [LesionRecord(source="s", patient="s/1", marks=((0.9, True),), wanted=True, dice=0.8)]
    assert answers.frocs(studies(), lesions)[-1]["dice_of_hits"] == 0.8
    roc = {(row["level"], row["hand"]): row for row in answers.rocs(records(), studies())}
    assert roc[("study", "families")]["auc"] == 1.0
    assert roc[("slice", "families")]["auc"] == 0.75
    study_at_half = answers.calibration(records(), studies())["study at 50%"]
    # Said 0.1 and 0.9; the bin in the middle holds one of each and is right on average.
    assert study_at_half["ece"] == pytest.approx(0.09)
    assert study_at_half["brier"] == pytest.approx(0.01)


def test_false_alarms_by_what_scans_show() -> None:
    dicom = StudyRecord(source="dicom x", patient="x/0", family=AUTHENTIC, truth="", answer="added", score=0.9)
    rows = {row["kind"]: row for row in alarms.by_kind(records(), [*studies(), dicom], threshold=0.5)}
    assert (rows["all test patients"]["studies_flagged"], rows["all test patients"]["studies"]) == (0, 10)
    assert rows["all test patients"]["people_upper"] == pytest.approx(1 - 0.05**0.1, abs=1e-4)
    assert (rows["DICOM as found"]["studies_flagged"], rows["DICOM as found"]["studies"]) == (1, 1)
    assert rows["without a marked lesion"]["studies"] == 0


def test_bounds_count_people() -> None:
    """Ten people; one has three studies, of which two are flagged, and all the slices that are."""
    more = [study(AUTHENTIC, score, "s/3", ()) for score in (0.9, 0.9)]
    loud = [one(0.9, family=AUTHENTIC, patient="s/3", truth="real") for _ in range(5)]
    row = alarms.count([r for r in records() if r.family == AUTHENTIC] + loud, [*studies()[::2], *more], 0.5)
    assert (row["studies"], row["studies_flagged"]) == (12, 2)
    assert (row["people"], row["people_flagged"]) == (10, 1)
    assert row["people_upper"] == pytest.approx(metrics.upper_bound(1, 10), abs=1e-4)
    assert (row["slices"], row["slices_flagged"]) == (15, 5)
    assert (row["slice_people"], row["slice_people_flagged"]) == (10, 1)


def test_nobody_flagged_of_nobody_is_no_bound() -> None:
    row = alarms.count([], [], 0.5)
    assert (row["people"], row["people_upper"], row["slice_people_upper"]) == (0, 1.0, 1.0)
    assert report.people_cells(row) == ["0 of 0", "–"]


def test_processing_against_the_same_studies_untouched() -> None:
    def processed(operation: str, scores: tuple[float, ...], forged: bool) -> ProcessedRecord:
        return ProcessedRecord(
            operation=operation, source="s", patient="s/a", forged=forged, scores=scores, flagged=False
        )

    rows = summary.processing(
        [
            processed("untouched", (0.1, 0.2), False),
            processed("untouched", (0.9, 0.8), True),
            processed("jpeg", (0.6, 0.7), False),
            processed("jpeg", (0.6, 0.7), True),
        ],
        threshold=0.5,
    )
    jpeg, untouched = rows
    assert (jpeg["slice_auc"], jpeg["auc_drop"], jpeg["alarm_ratio"]) == (0.5, 0.5, 5.0)
    assert (untouched["auc_drop"], untouched["alarm_ratio"]) == (0.0, 1.0)


@pytest.mark.parametrize(
    ("value", "falling", "band"),
    [(0.95, False, "target"), (0.5, False, "below the least"), (0.87, False, "least"), (0.99, False, "moonshot")],
)
def test_bands_of_goals(value: float, falling: bool, band: str) -> None:
    assert goals._band(goals._Goal(row=1, metric="m", bands=(0.87, 0.93, 0.98), falling=falling), value) == band


def test_bands_of_what_should_fall() -> None:
    goal = goals._Goal(row=14, metric="m", bands=(0.05, 0.02, 0.0), falling=True)
    assert [goals._band(goal, value) for value in (0.0, 0.01, 0.05, 0.06)] == [
        "moonshot",
        "target",
        "least",
        "below the least",
    ]
    assert goals._band(goal, None) == ""


def shot(kind: gallery.Kind, score: float, patient: str, family: str = "splice") -> Shot:
    plane = np.tile(np.arange(100, dtype=np.float32), (100, 1))
    truth, model = np.zeros((100, 100), np.bool_), np.zeros((100, 100), np.bool_)
    truth[10:30, 10:30] = True
    model[50:80, 50:80] = True
    return Shot(kind=kind, patient=patient, family=family, score=score, f1=0.25, plane=plane, truth=truth, model=model)


def test_the_gallery_keeps_the_worst_of_each_person() -> None:
    keeper = Keeper()
    for index in range(12):
        keeper.offer(shot("miss", 0.1 * index, f"p{index}"))
        keeper.offer(shot("miss", 0.1 * index + 0.05, f"p{index}"))
        keeper.offer(shot("false alarm", 0.1 * index, f"p{index}"))
    assert [round(one.score, 2) for one in keeper.shots("miss")] == [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]
    assert [round(one.score, 2) for one in keeper.shots("false alarm")][:2] == [1.1, 1.0]
    assert keeper.shots("hit") == []


def picture(one: Shot) -> np.ndarray:
    uri = gallery.png(one)
    data = base64.b64decode(uri.removeprefix("data:image/png;base64,"))
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def test_the_outline_of_a_small_region_keeps_its_colour_among_all_greys() -> None:
    rng = np.random.default_rng(0)
    truth = np.zeros((256, 256), np.bool_)
    truth[100:109, 120:129] = True
    small = replace(
        shot("miss", 0.1, "p"),
        plane=rng.normal(100, 30, (256, 256)).astype(np.float32),
        truth=truth,
        model=np.zeros_like(truth),
    )
    image = picture(small)
    assert (image == np.array(gallery._TRUTH)).all(axis=2).sum() == 32
    assert np.ptp(image[:, :256].astype(int), axis=2).max() == 0


def test_a_picture_shows_both_outlines() -> None:
    image = picture(shot("hit", 0.9, "p"))
    left, right = image[:, : image.shape[1] // 2 - 4].astype(int), image[:, image.shape[1] // 2 + 4 :].astype(int)
    assert np.ptp(left, axis=2).max() <= 8
    green = (right[:, :, 1] - right[:, :, 0] > 60) & (right[:, :, 1] - right[:, :, 2] > 60)
    orange = (right[:, :, 0] - right[:, :, 2] > 120) & (right[:, :, 0] > right[:, :, 1])
    assert green[:100].sum() > 100
    assert orange[100:].sum() > 100
    assert not green[150:, 150:].any()


def test_a_chart_is_svg_with_its_name_said() -> None:
    unit = Axis(title="x", ticks=UNIT_TICKS)
    svg = drawing.chart("A <name>", unit, unit, [Line(title="line", points=[(0, 0), (1, 1)])], diagonal=True)
    assert 'aria-label="A &lt;name&gt;: line"' in svg
    assert "<script" not in svg
    # From the lower left corner to the upper right one.
    assert 'd="M46.0 258.0L328.0 12.0"' in svg
    logarithmic = Axis(title="x", ticks=(0.125, 0.5, 4.0), logarithmic=True)
    assert logarithmic.share(0.5) == pytest.approx(2 / 5)
    assert logarithmic.share(9) == 1.0
