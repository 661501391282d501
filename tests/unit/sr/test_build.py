"""Same input, same bytes; other input, other UIDs; what disagrees is refused."""

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from dicomguard.core.verdict import Predecessor
from dicomguard.errors import Broken
from dicomguard.sr.build import Earlier, fallback, file_bytes, tracking_uids
from tests.sr_cases import NODE, NODE_ELSEWHERE, Case, Spot, case, disc, enhanced, frames, single_frame

SPOTS = [
    Spot(category="added", places=[2, 3, 4]),
    Spot(category="real", places=[1, 2], centre=(8, 8), radius=4, p_forged=0.1),
]


def added(**arguments: Any) -> Case:
    return case("added", [frames(single_frame())], SPOTS, **arguments)


def digest() -> str:
    """Of all objects of two cases; also run in a child process."""
    (header,) = enhanced()
    multi = case("removed", [[(header, n) for n in range(1, 7)]], [Spot(category="removed", places=[2, 3])])
    data = b"".join(built.data for made in (added(), multi) for built in made.build())
    return hashlib.sha256(data).hexdigest()


def test_order_and_identity() -> None:
    built = added().build()
    assert [(item.result.kind, item.result.order) for item in built] == [("SEG", 0), ("SR", 1)]
    for item in built:
        ds = dcmread(BytesIO(item.data))
        assert item.result.sop_instance_uid == ds.SOPInstanceUID == ds.file_meta.MediaStorageSOPInstanceUID
        assert (item.result.series_instance_uid, item.result.sop_class_uid) == (ds.SeriesInstanceUID, ds.SOPClassUID)
        assert item.result.sha256 == hashlib.sha256(item.data).hexdigest()
        assert file_bytes(item.dataset) == item.data
    assert [item.result.kind for item in case("absent", [frames(single_frame())]).build()] == ["SR"]


def test_build_twice_gives_the_same_bytes() -> None:
    assert [item.data for item in added().build()] == [item.data for item in added().build()]


@pytest.mark.parametrize("zone", ["Pacific/Kiritimati", "America/St_Johns"])
def test_other_time_zone_locale_and_hash_seed_of_the_process(zone: str) -> None:
    code = "import locale, tests.unit.sr.test_build as t; locale.setlocale(locale.LC_ALL, ''); print(t.digest())"
    environment = {**os.environ, "TZ": zone, "LC_ALL": "C.UTF-8", "LANGUAGE": "de", "PYTHONHASHSEED": "7"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == digest()


CHANGES: dict[str, Callable[[], Case]] = {
    "revision": lambda: added(revision=2),
    "created": lambda: added(created="2026-11-24T00:30:01+00:00"),
    "skipped": lambda: added(skipped={(0, 0): "no head"}),
    "verdict": lambda: case("real", [frames(single_frame())], [SPOTS[1]]),
}


def uids(made: Case, **arguments: Any) -> set[str]:
    return {item.result.sop_instance_uid for item in made.build(**arguments)}


@pytest.mark.parametrize("name", CHANGES)
def test_other_verdict_other_instances(name: str) -> None:
    assert not uids(added()) & uids(CHANGES[name]())


@pytest.mark.parametrize(
    "arguments",
    [
        {"node": replace(NODE, name="b")},
        {"node": replace(NODE, device_uid="2.25.7")},
        {"node": replace(NODE, version="0.2")},
        {"node": NODE_ELSEWHERE},
        {"title": "126000"},
    ],
)
def test_other_builder_other_instances(arguments: dict[str, Any]) -> None:
    assert not uids(added()) & uids(added(), **arguments)


def test_series() -> None:
    first, second = added().build(), added(revision=2).build()
    # Reports of all revisions share a series, segmentations do not.
    assert first[1].result.series_instance_uid == second[1].result.series_instance_uid
    assert (first[1].dataset.InstanceNumber, second[1].dataset.InstanceNumber) == (1, 2)
    assert first[0].result.series_instance_uid != second[0].result.series_instance_uid
    other = added().build(node=replace(NODE, version="0.2"))
    assert other[1].result.series_instance_uid != first[1].result.series_instance_uid
    numbers = [item.dataset.SeriesNumber for item in first]
    assert numbers == [9001, 9000]
    taken = case("added", [frames(single_frame(series=9000)), frames(single_frame(series=9002))], SPOTS)
    assert [item.dataset.SeriesNumber for item in taken.build()] == [9003, 9001]
    for item in first:
        assert len(item.dataset.SeriesDescription) <= 64


def test_two_series_and_two_stacks_have_their_own_segmentations() -> None:
    stacks = [frames(single_frame(series=3)), frames(single_frame(series=5))]
    spots = [SPOTS[0], Spot(category="removed", places=[1], stack=1, p_forged=0.7)]
    first, second, sr = case("added", stacks, spots).build()
    assert [first.dataset.SegmentSequence[0].SegmentLabel[:2], second.dataset.SegmentSequence[0].SegmentLabel[:2]] == [
        "F1",
        "F2",
    ]
    assert first.dataset.ReferencedSeriesSequence[0].SeriesInstanceUID.endswith(".3")
    assert second.dataset.ReferencedSeriesSequence[0].SeriesInstanceUID.endswith(".5")
    series = {
        item.SeriesInstanceUID
        for item in sr.dataset.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence
    }
    assert {first.result.series_instance_uid, second.result.series_instance_uid} < series and len(series) == 4

    (header,) = enhanced(6, stacks=2)
    split = [[(header, frame) for frame in range(begin, 13, 2)] for begin in (1, 2)]
    one, two, _ = case("added", split, [SPOTS[0], Spot(category="real", places=[1], stack=1, p_forged=0.1)]).build()
    assert one.result.series_instance_uid != two.result.series_instance_uid
    # Each frame names the one source frame that was analysed, not all at its position.
    sources = [
        group.DerivationImageSequence[0].SourceImageSequence[0].ReferencedFrameNumber
        for group in two.dataset.PerFrameFunctionalGroupsSequence
    ]
    assert sources == [4]


def test_turned_slices_of_one_plan_are_split() -> None:
    def turn(ds: Dataset) -> None:
        if ds.InstanceNumber > 3:
            ds.ImageOrientationPatient = [0, 1, 0, 0, 0, -1]
            ds.ImagePositionPatient = [4 * int(ds.InstanceNumber), -80, -80]

    made = case("added", [frames(single_frame(change=turn))], [Spot(category="added", places=[1, 2, 3, 4])]).build()
    assert [item.result.kind for item in made] == ["SEG", "SEG", "SR"]
    assert len({item.result.sop_instance_uid for item in made}) == 3
    assert [item.dataset.NumberOfFrames for item in made[:2]] == [2, 2]


# ---- revisions ----------------------------------------------------------------------------------------------------


def replaced(after_spots: list[Spot]) -> tuple[Case, list[Any], list[Any]]:
    before = added()
    first = before.build()
    predecessor = Predecessor(
        verdict_sha256=before.verdict.sha256,
        revision=1,
        sr_sop_instance_uid=first[-1].result.sop_instance_uid,
        sr_sop_class_uid=first[-1].result.sop_class_uid,
        sr_series_instance_uid=first[-1].result.series_instance_uid,
    )
    kept = dcmread(BytesIO(first[-1].data))
    earlier = Earlier(verdict=before.verdict, masks=before.masks, tracking_uids=tracking_uids(kept))
    after = case(
        after_spots[0].category,
        [frames(single_frame(9))],
        after_spots,
        revision=2,
        predecessor=predecessor,
        earlier=earlier,
    )
    return after, first, after.build()


def test_predecessor_is_named_and_regions_keep_their_tracking() -> None:
    moved = [
        Spot(category="added", places=[2, 3], radius=6),
        Spot(category="real", places=[6], centre=(30, 30), radius=4, p_forged=0.1),
        Spot(category="real", places=[1, 2, 3], centre=(8, 9), radius=4, p_forged=0.1),
    ]
    _, first, second = replaced(moved)
    old, new = tracking_uids(first[-1].dataset), tracking_uids(second[-1].dataset)
    assert set(old) == {"F1", "F2"} and set(new) == {"F1", "F2", "F3"}
    assert new["F1"] == old["F1"]
    # F2 became F3: the pixels decide, not the number.
    assert new["F3"] == old["F2"] and new["F2"] not in old.values()
    assert {segment.TrackingUID for segment in second[0].dataset.SegmentSequence} == set(new.values())
    (study,) = second[-1].dataset.PredecessorDocumentsSequence
    (series,) = study.ReferencedSeriesSequence
    assert series.SeriesInstanceUID == first[-1].result.series_instance_uid
    assert series.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == first[-1].result.sop_instance_uid
    assert "PredecessorDocumentsSequence" not in first[-1].dataset


def test_other_category_or_little_overlap_is_a_new_region() -> None:
    for spot in (
        Spot(category="removed", places=[2, 3, 4]),
        Spot(category="added", places=[2, 3, 4], centre=(20, 26)),
        Spot(category="added", places=[5, 6]),
    ):
        made, first, second = replaced([spot])
        assert not set(tracking_uids(first[-1].dataset).values()) & set(tracking_uids(second[-1].dataset).values())
        assert made.verdict.study.revision == 2


def test_reports_without_findings_have_no_tracking() -> None:
    assert tracking_uids(case("absent", [frames(single_frame())]).build()[0].dataset) == {}
    assert tracking_uids(Dataset()) == {}


# ---- fall-back ----------------------------------------------------------------------------------------------------


def test_fallback_is_the_same_tree_as_another_object() -> None:
    sr = added().build()[-1]
    other = fallback(sr.dataset)
    assert other.result.kind == "SR-2D" and other.result.sop_class_uid == "1.2.840.10008.5.1.4.1.1.88.33"
    assert other.dataset.ContentSequence == sr.dataset.ContentSequence
    assert {other.result.sop_instance_uid, other.result.series_instance_uid}.isdisjoint(
        {sr.result.sop_instance_uid, sr.result.series_instance_uid}
    )
    assert fallback(dcmread(BytesIO(sr.data))).data == other.data
    # The original is as it was.
    assert file_bytes(sr.dataset) == sr.data


# ---- what disagrees -----------------------------------------------------------------------------------------------


def test_disagreements_are_broken() -> None:
    made = added()
    sop, frame, mask = made.masks["F1"][0]
    with pytest.raises(Broken, match="another manifest"):
        replace(made, manifest=replace(made.manifest, patient_ids=2)).build()
    with pytest.raises(Broken, match=r"header of .* is missing"):
        replace(made, headers={}).build()
    with pytest.raises(Broken, match="no header of any instance"):
        replace(case("not_analysable", [frames(single_frame())]), headers={}).build()
    for masks in ({}, {"F1": [(f"{sop}.9", frame, mask)]}, {**made.masks, "F2": made.masks["F2"][:1]}):
        with pytest.raises(Broken, match="other slices than the verdict"):
            replace(made, masks=masks).build()
    with pytest.raises(Broken, match="does not fit the source"):
        cut = {key: [(sop, frame, mask[:-1]) for sop, frame, mask in value] for key, value in made.masks.items()}
        replace(made, masks=cut).build()
    both = {"F1": made.masks["F1"], "F2": [(sop, frame, disc((20, 18), 2))]}
    spots = [SPOTS[0], Spot(category="real", places=[2], radius=2, p_forged=0.1)]
    with pytest.raises(Broken, match="overlap"):
        replace(case("added", [frames(single_frame())], spots), masks=both).build()


def test_finding_with_empty_masks_is_outlined_only() -> None:
    made = added()
    empty = {key: [(sop, frame, mask & False) for sop, frame, mask in value] for key, value in made.masks.items()}
    (sr,) = replace(made, masks=empty).build()
    groups = sr.dataset.ContentSequence[8].ContentSequence
    assert [group.ContentTemplateSequence[0].TemplateIdentifier for group in groups] == ["1410", "1410"]
