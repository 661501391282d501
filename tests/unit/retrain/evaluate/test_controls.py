"""Controls that could not fail would prove nothing: each is shown a plant that it must find, and its absence."""

from pathlib import Path

import numpy as np
import pytest

from dicomguard.retrain.evaluate import checks, format_only
from dicomguard.retrain.evaluate.metrics import auc
from dicomguard.retrain.evaluate.records import AUTHENTIC, DoseRecord, FormatRecord, OutsideRecord, SliceRecord
from dicomguard.retrain.tamper.study import Acquisition, write_planes
from tests.unit.retrain.tamper.phantom import phantom


def formats(*, planted: float, people: int = 20, seed: int = 0) -> list[FormatRecord]:
    """Twins with equal features but noise, `planted` added to the number of unused values of the forged ones."""
    rng = np.random.default_rng(seed)
    records = []
    for person in range(people):
        for _ in range(6):
            shared = rng.normal(0, 1, len(format_only.NAMES))
            for forged in (False, True):
                row = shared + rng.normal(0, 0.3, len(shared))
                row[format_only.NAMES.index("unused between")] += planted * forged
                records.append(
                    FormatRecord(source="s", patient=f"s/{person}", forged=forged, features=tuple(map(float, row)))
                )
    return records


def row(rows: list[dict[str, object]], name: str) -> dict[str, object]:
    return next(one for one in rows if str(one["control"]).startswith(name))


def controls(**records: object) -> list[dict[str, object]]:
    nothing: dict[str, object] = {"slices": (), "formats": (), "doses": (), "outside": (), "processing": ()}
    return checks.controls(**(nothing | records))  # type: ignore[arg-type]


def test_a_planted_difference_of_format_is_found() -> None:
    found = row(controls(formats=formats(planted=3.0)), "format-only")
    assert found["holds"] is False
    assert isinstance(found["auc"], float)
    assert found["auc"] > 0.9


def test_twins_of_one_format_are_at_chance() -> None:
    values = [row(controls(formats=formats(planted=0.0, seed=seed)), "format-only")["auc"] for seed in range(3)]
    assert all(isinstance(value, float) and 0.4 < value < 0.6 for value in values)


def test_a_classifier_never_saw_the_patient_it_judges() -> None:
    # Each patient has a format of his own, forged or not at random: what is learnt of one says nothing of the next.
    rng = np.random.default_rng(1)
    people = [f"p{i}" for i in range(40)]
    forged = rng.random(40) < 0.5
    rows = [[float(i)] for i in range(40)]
    for repeat in range(3):
        rows += [[float(i)] for i in range(40)]
        assert len(rows) == 40 * (repeat + 2)
    logits, fold = format_only.cross_validated(rows, [*forged] * 4, people * 4)
    for person in range(40):
        assert len({int(fold[person + 40 * k]) for k in range(4)}) == 1
    value = auc(logits[np.tile(forged, 4)].tolist(), logits[~np.tile(forged, 4)].tolist())
    assert value is not None
    assert value < 0.75


def test_features_see_a_comb_and_a_low_pass(tmp_path: Path) -> None:
    canvas = phantom(slices=1)
    combed = np.rint(canvas.pixels / 4) * 4
    smooth = np.rint(canvas.pixels.mean(axis=0, keepdims=True) * 0 + np.minimum(canvas.pixels, 120))
    acquisition = Acquisition(key="k", sequence="flair", bits=8, spacing_mm=(0.9, 0.9), positions_mm=(0.0,))
    read = []
    for name, pixels in (("plain", canvas.pixels), ("combed", combed), ("cut", smooth)):
        (path, _), *_ = write_planes(pixels.astype(np.float32), acquisition, tmp_path / name, loose=True)
        read.append(dict(zip(format_only.NAMES, format_only.features(path, canvas.head[0]), strict=True)))
    plain, comb, cut = read
    assert plain["rows"] == 128
    assert comb["unused between"] > plain["unused between"] + 20
    assert comb["odd share"] == 0
    assert cut["largest"] == 120


def slice_of(kind: str, *, before: int, after: int, patient: str) -> SliceRecord:
    return SliceRecord(
        source="s",
        patient=patient,
        family="splice",
        score=0.5,
        twin_score=0.5,
        kind=kind,
        lesion_before=before,
        lesion=after,
    )


def test_lesions_alone_tell_forgeries_where_only_one_direction_was_forged() -> None:
    removals = [slice_of("removed", before=100, after=0, patient=f"p{i}") for i in range(10)]
    adds = [slice_of("added", before=0, after=100, patient=f"p{i}") for i in range(10)]
    one = row(controls(slices=removals), "lesion presence")
    assert one["holds"] is False
    assert one["auc"] == 0.0
    both = row(controls(slices=[*removals, *adds]), "lesion presence")
    assert both["holds"] is True
    assert both["auc"] == 0.5


def dose(strength: float, scores: tuple[float, ...], *, equal: bool = False) -> DoseRecord:
    return DoseRecord(
        source="s",
        patient="p",
        family="splice",
        strength=strength,
        scores=scores,
        twins=(0.1, 0.2),
        flagged=False,
        equal_pixels=equal,
    )


def test_an_identity_forgery_must_change_nothing() -> None:
    good = controls(doses=[dose(0.0, (0.1, 0.2), equal=True), dose(1.0, (0.4, 0.5))])
    assert row(good, "identity")["holds"] is True
    assert row(good, "strength")["holds"] is True
    assert row(controls(doses=[dose(0.0, (0.1, 0.2001), equal=True)]), "identity")["holds"] is False
    assert row(controls(doses=[dose(0.0, (0.1, 0.2), equal=False)]), "identity")["holds"] is False
    assert row(controls(doses=[dose(0.0, (0.5, 0.5)), dose(1.0, (0.4, 0.5))]), "strength")["holds"] is False
    assert row(controls(), "identity")["holds"] is None


@pytest.mark.parametrize(("after", "holds"), [(1, True), (2, False), (0, True)])
def test_an_edit_in_the_air_makes_no_finding_in_the_head(after: int, holds: bool) -> None:
    records = [OutsideRecord(source="s", patient="p", before=1, after=after)]
    assert row(controls(outside=records), "edit outside")["holds"] is holds


def test_processing_that_raises_alarms_is_named() -> None:
    quiet = {"operation": "median", "alarm_ratio": 1.0, "slices_flagged": 1, "slices": 90}
    loud = {"operation": "jpeg", "alarm_ratio": 9.0, "slices_flagged": 9, "slices": 90}
    assert row(controls(processing=[quiet]), "benign")["holds"] is True
    found = row(controls(processing=[quiet, loud]), "benign")
    assert found["holds"] is False
    assert "jpeg 9 of 90" in str(found["reached"])
    assert "median" not in str(found["reached"])


def test_authentic_slices_take_no_part_in_the_lesion_control() -> None:
    quiet = SliceRecord(source="s", patient="p", family=AUTHENTIC, score=0.1, twin_score=None, lesion=9)
    assert not [one for one in controls(slices=[quiet]) if str(one["control"]).startswith("lesion")]
