"""A manifest is the same however the instances arrived, and nothing that arrived is missing from it."""

import random
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from dicomguard.core import freeze
from dicomguard.core.instance import FrameGeometry, Header, Instance
from dicomguard.core.selection import Rule
from dicomguard.core.study import Manifest
from dicomguard.core.verdict import ModelScope

SCOPE = ModelScope(modalities=("MR",), body_parts=("HEAD",), sequences=("flair",))
MR = "1.2.840.10008.5.1.4.1.1.4"
Pair = tuple[Header, Instance]


def copy(sop: str, *, z: float | None = 0.0, series: str = "1.2", ordinal: int = 0, **change: Any) -> Pair:
    position = None if z is None else (0.0, 0.0, z)
    frame = FrameGeometry(position_mm=position, orientation=(1.0, 0, 0, 0, 1.0, 0), spacing_mm=(1.0, 1.0))
    header = Header(
        sop_instance_uid=sop,
        sop_class_uid=MR,
        study_instance_uid="1",
        series_instance_uid=series,
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        modality="MR",
        series_description="FLAIR",
        body_part="HEAD",
        rows=256,
        columns=256,
        has_pixels=True,
        frames=(frame,),
        series_number=3,
        instance_number=int(sop.split(".")[-1]),
    )
    return replace(header, **change), Instance(
        sop_instance_uid=sop,
        sop_class_uid=MR,
        study_instance_uid="1",
        series_instance_uid=series,
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        sha256=f"{sop}-{ordinal}",
        size_bytes=1,
        path=f"{sop}-{ordinal}.dcm",
        calling_ae=f"AE{ordinal}",
        called_ae="",
        address="",
        received_at=datetime(2026, 1, 2, tzinfo=UTC),
        ordinal=ordinal,
    )


def frozen(*copies: Pair, **change: Any) -> Manifest:
    options: dict[str, Any] = {
        "study_instance_uid": "1",
        "revision": 1,
        "opened_because": "first",
        "calling_ae": "",
        "rules": (),
        "scope": SCOPE,
    }
    return freeze.freeze(copies, **(options | change))


def test_order_of_arrival_does_not_matter() -> None:
    copies = [copy(f"1.{i}", z=5.0 * ((7 * i) % 11)) for i in range(11)]
    shuffled = copies.copy()
    random.Random(3).shuffle(shuffled)
    assert frozen(*shuffled) == frozen(*copies)
    assert frozen(*shuffled).sha256 == frozen(*copies).sha256
    (plan,) = frozen(*copies).series
    assert [item.position_mm for item in plan.slices] == [5.0 * i for i in range(11)]
    assert (plan.kind, plan.analysed, plan.scope, plan.sequence) == ("regular", True, "inside", "flair")


def test_manifest_survives_its_json() -> None:
    manifest = frozen(copy("1.1"), copy("1.2", z=5.0), copy("1.1", ordinal=1))
    assert Manifest.from_json(manifest.to_json()) == manifest


def test_conflict_copy_is_listed_and_not_analysed() -> None:
    manifest = frozen(copy("1.1"), copy("1.2", z=5.0), copy("1.2", z=5.0, ordinal=1))
    slices = [item for plan in manifest.series for item in plan.slices]
    assert [(item.sha256, item.skipped) for item in slices] == [
        ("1.1-0", ""),
        ("1.2-0", ""),
        ("1.2-1", "conflict copy"),
    ]
    assert [(item.sop_instance_uid, item.analysed) for item in manifest.conflicts] == [("1.2", True), ("1.2", False)]
    assert len({item.calling_ae_hash for item in manifest.conflicts}) == 2


def test_a_study_exported_anew_has_no_conflicts_with_the_old_one() -> None:
    """The store counts on under a UID that it knows from another study; here it is the only copy."""
    manifest = frozen(copy("1.1"), copy("1.2", z=5.0, ordinal=1), copy("1.3", z=9.0, ordinal=2))
    assert [item.skipped for plan in manifest.series for item in plan.slices] == ["", "", ""]
    assert manifest.conflicts == ()
    again = frozen(copy("1.1"), copy("1.2", z=5.0, ordinal=1), copy("1.2", z=5.0, ordinal=3))
    assert [(item.sha256, item.analysed) for item in again.conflicts] == [("1.2-1", True), ("1.2-3", False)]


def paired(count: int = 6, *, first: dict[str, Any], second: dict[str, Any], lost: str = "") -> list[Pair]:
    """Two images at each place, in one series, without Instance Numbers; in order of their UIDs they are shuffled."""
    copies = [
        copy(f"1.{7 * i + 3 * e}.{e}", z=5.0 * i, **({"instance_number": None} | (second if e else first)))
        for i in range(count)
        for e in (0, 1)
    ]
    return [one for one in copies if one[0].sop_instance_uid != lost]


def firsts(manifest: Manifest) -> list[list[str]]:
    """By stack, which of the pair each slice is."""
    return [[item.sop_instance_uid[-1] for item in plan.slices] for plan in manifest.series]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"echo_number": 1.0}, {"echo_number": 2.0}),
        ({"echo_time_ms": 30.0}, {"echo_time_ms": 90.0}),
        # As of a vendor that counts echoes and one that does not.
        ({"echo_number": 1.0, "echo_time_ms": 2.3}, {"echo_number": 1.0, "echo_time_ms": 4.6}),
        ({"echo_number": 1.0}, {"echo_number": None}),
        ({"temporal_position": 1.0}, {"temporal_position": 2.0}),
        ({"b_value": 0.0}, {"b_value": 1000.0}),
        ({"image_type": ("ORIGINAL", "PRIMARY", "R_FFE", "R", "FFE")}, {"image_type": ("ORIGINAL", "PRIMARY", "I")}),
        ({"image_type": ("ORIGINAL", "PRIMARY", "MAGNITUDE")}, {"image_type": ("ORIGINAL", "PRIMARY", "REAL")}),
    ],
)
@pytest.mark.parametrize("lost", ["", "1.14.0", "1.17.1"])
def test_classic_images_of_several_volumes_become_stacks_of_one(
    first: dict[str, Any], second: dict[str, Any], lost: str
) -> None:
    manifest = frozen(*paired(first=first, second=second, lost=lost))
    full, less = sorted(firsts(manifest), key=len, reverse=True)
    assert {len(set(stack)) for stack in (full, less)} == {1}
    assert (len(full), len(less)) == (6, 5 if lost else 6)
    assert not any(item.skipped for plan in manifest.series for item in plan.slices)


@pytest.mark.parametrize(
    "marked",
    [
        lambda i: {"echo_number": 1.0, "echo_time_ms": 90.0, "temporal_position": 1.0, "b_value": 0.0},
        lambda i: {"echo_time_ms": 90.01 + 0.01 * (i % 2)},
        lambda i: {"echo_time_ms": 89.9 + 0.05 * i},
        lambda i: {"temporal_position": float(i)},
        lambda i: {"temporal_position": float(i % 2), "echo_number": float(i // 4)},
        lambda i: {"image_type": ("ORIGINAL", "PRIMARY", "M" if i % 2 else "OTHER")},
    ],
)
def test_an_ordinary_series_keeps_its_manifest_whatever_its_slices_say(marked: Any) -> None:
    copies = [copy(f"1.{i}", z=5.0 * i, image_type=("ORIGINAL", "PRIMARY")) for i in range(9)]
    plain = frozen(*copies)
    assert frozen(*((replace(header, **marked(i)), kept) for i, (header, kept) in enumerate(copies))) == plain
    assert len(plain.series) == 1


def test_times_of_one_echo_that_are_printed_differently_tear_no_repetition_apart() -> None:
    copies = paired(first={"instance_number": 1}, second={"instance_number": 2})
    printed = [(replace(header, echo_time_ms=90.04 + 0.02 * (n % 3)), kept) for n, (header, kept) in enumerate(copies)]
    assert frozen(*printed) == frozen(*copies)


MAGNITUDE, PHASE = ("ORIGINAL", "PRIMARY", "M_FFE", "M"), ("ORIGINAL", "PRIMARY", "PHASE MAP", "P")


@pytest.mark.parametrize("lost", ["", "1.14.0"])
def test_of_magnitude_and_phase_the_magnitude_is_analysed(lost: str) -> None:
    """Also where a file is lost and phase images are the more."""
    manifest = frozen(*paired(first={"image_type": MAGNITUDE}, second={"image_type": PHASE}, lost=lost))
    by_kind = {kinds[0]: plan for kinds, plan in zip(firsts(manifest), manifest.series, strict=True)}
    assert (by_kind["0"].analysed, by_kind["1"].analysed) == (True, False)
    assert {item.skipped for item in by_kind["0"].slices} == {""}
    assert {item.skipped for item in by_kind["1"].slices} == {"derived"}
    assert "a phase image" in by_kind["1"].reason
    assert "scan of the head" in by_kind["0"].reason


def test_a_slice_that_calls_itself_phase_is_looked_at_with_its_volume() -> None:
    """A word in its header must not hide one slice of a magnitude."""
    copies = [copy(f"1.{i}", z=5.0 * i, image_type=PHASE if i == 4 else MAGNITUDE) for i in range(9)]
    (plan,) = frozen(*copies).series
    assert [item.skipped for item in plan.slices] == [""] * 9


def test_a_stray_magnitude_makes_no_scan_of_phase_images() -> None:
    copies = [copy(f"1.{i}", z=5.0 * i, image_type=MAGNITUDE if i == 4 else PHASE) for i in range(9)]
    (plan,) = frozen(*copies).series
    assert {item.skipped for item in plan.slices} == {"derived"}


def test_a_report_among_phase_images_does_not_decide_for_them() -> None:
    copies = [copy(f"1.{i}", z=5.0 * i, image_type=PHASE) for i in range(3)]
    (plan,) = frozen(*copies, copy("1.9", modality="SR", has_pixels=False)).series
    assert [item.skipped for item in plan.slices] == ["derived"] * 3


def test_a_rule_that_includes_a_series_includes_its_phase() -> None:
    copies = paired(first={"image_type": MAGNITUDE}, second={"image_type": PHASE})
    manifest = frozen(*copies, rules=(Rule(name="all", action="analyse"),))
    assert [plan.analysed for plan in manifest.series] == [True, True]


def test_small_slices_and_left_out_series_keep_their_slices_with_a_reason() -> None:
    manifest = frozen(
        copy("1.1", rows=64),
        copy("1.2", series="1.3", series_description="localizer"),
        copy("1.3", series="1.4", modality="US"),
    )
    assert {(item.sop_instance_uid, item.skipped) for plan in manifest.series for item in plan.slices} == {
        ("1.1", "too small"),
        ("1.2", "localiser"),
        ("1.3", "no head"),
    }
    assert not any(plan.analysed for plan in manifest.series)


def test_objects_without_pixels_have_a_plan_and_no_slices() -> None:
    (plan,) = frozen(copy("1.1", modality="SR", has_pixels=False)).series
    assert (plan.analysed, plan.slices, plan.reason) == (False, (), "It is a structured report, not an image.")


def test_rule_that_leaves_out_gives_its_slices_a_reason() -> None:
    (plan,) = frozen(copy("1.1"), rules=(Rule(name="none", action="skip"),)).series
    assert plan.slices[0].skipped == "derived"
    assert 'Rule "none"' in plan.reason


def test_frames_are_numbered_in_multi_frame_objects_only() -> None:
    frames = tuple(
        FrameGeometry(position_mm=(0.0, 0.0, 3.0 * z), orientation=(1.0, 0, 0, 0, 1.0, 0), spacing_mm=None)
        for z in (2, 0, 1)
    )
    (one,) = frozen(copy("1.1")).series
    (many,) = frozen(copy("1.2", frames=frames, sop_class_uid="1.2.840.10008.5.1.4.1.1.4.1")).series
    assert one.slices[0].frame is None
    assert [item.frame for item in many.slices] == [2, 3, 1]


def test_series_are_in_order_of_their_numbers() -> None:
    manifest = frozen(copy("1.1", series="1.9", series_number=2), copy("1.2", series="1.3", series_number=None))
    assert [plan.series_instance_uid for plan in manifest.series] == ["1.9", "1.3"]


def test_descriptions_leave_only_as_hash() -> None:
    manifest = frozen(copy("1.1", series_description="FLAIR Jane Doe"))
    assert "Jane" not in str(manifest.to_json())
    assert freeze.hashed("") == ""


def test_of_an_endless_study_the_first_stacks_are_analysed_and_the_rest_is_named() -> None:
    frame = FrameGeometry(position_mm=None, orientation=None, spacing_mm=None)
    manifest = frozen(
        copy("1.1", frames=(frame,) * 10, series="1.2", series_number=1),
        copy("1.2", frames=(frame,) * freeze.MOST_SLICES, series="1.3", series_number=2),
        copy("1.3", series="1.4", series_number=3),
    )
    first, endless, last = manifest.series
    assert (first.analysed, endless.analysed, last.analysed) == (True, False, True)
    assert {item.skipped for item in endless.slices} == {"memory limit"}
    assert len(endless.slices) == freeze.MOST_SLICES
    assert not any(item.skipped for plan in (first, last) for item in plan.slices)


def test_a_file_that_cannot_be_read_is_a_slice_that_was_not_looked_at() -> None:
    (_, instance), good = copy("1.1"), copy("1.2")
    manifest = frozen((freeze.unreadable(instance), instance), good)
    slices = {item.sop_instance_uid: item.skipped for plan in manifest.series for item in plan.slices}
    assert slices == {"1.1": "undecodable", "1.2": ""}
