"""Sentences that the files themselves give, and silence on ordinary studies."""

from dataclasses import replace
from typing import Any

import pytest

from dicomguard.analyze.evidence import Facts, gather
from dicomguard.core import english
from dicomguard.core.finding import Evidence

HEADER: dict[str, Any] = {
    "manufacturer": "A",
    "model_name": "M",
    "device_serial": "1",
    "software_versions": "v1",
    "lossy": "",
    "synthetic": False,
    "derived": False,
    "smallest": None,
    "largest": None,
    "stored_range": [0, 900],
}


def stack(count: int = 6, **header: Any) -> list[Facts]:
    return [
        Facts(
            series="1.2",
            sop_instance_uid=f"1.{i}",
            frame=None,
            position_mm=5.0 * i,
            sha256=f"{i}",
            blank=False,
            header={**HEADER, **header},
        )
        for i in range(count)
    ]


def changed(index: int, slices: list[Facts], **change: Any) -> list[Facts]:
    header = change.pop("header", {})
    item = slices[index]
    slices[index] = replace(item, **change, header={**item.header, **header})
    return slices


def kinds(found: tuple[Evidence, ...]) -> list[tuple[str, list[str]]]:
    return [(item.kind, [ref.sop_instance_uid for ref in item.slices]) for item in found]


def test_ordinary_study_is_silent() -> None:
    assert gather([stack(), []]) == ()


@pytest.mark.parametrize(
    ("slices", "kind", "named"),
    [
        (changed(4, stack(), sha256="1"), "identical_pixels", ["1.1", "1.4"]),
        (changed(2, stack(), header={"software_versions": "Photo 9"}), "header_changes", ["1.2"]),
        (changed(2, stack(), header={"device_serial": ""}), "header_changes", ["1.2"]),
        (changed(3, stack(), header={"lossy": "01"}), "lossy_flag_differs", ["1.3"]),
        (changed(3, stack(), header={"synthetic": True}), "synthetic", ["1.3"]),
        (changed(3, stack(), header={"derived": True}), "derived", ["1.3"]),
        (changed(3, stack(), header={"smallest": 0, "largest": 800}), "pixel_range", ["1.3"]),
        ([*stack(3), *changed(2, stack(6))[4:]], "position_gap", ["1.2", "1.4"]),
    ],
)
def test_each_kind(slices: list[Facts], kind: str, named: list[str]) -> None:
    found = gather([slices])
    assert kinds(found) == [(kind, named)]
    assert found[0].sentence_key in english.FILES
    assert 0 <= found[0].authentic_false_alarms.k <= found[0].authentic_false_alarms.n


@pytest.mark.parametrize(
    "slices",
    [
        # Empty slices are alike in every scan.
        changed(1, changed(4, stack(), sha256="1", blank=True), blank=True),
        # "00" and absent say the same.
        changed(3, stack(), header={"lossy": "00"}),
        # Both at one value: the writer states nothing.
        changed(3, stack(), header={"smallest": 0, "largest": 0}),
        changed(3, stack(), header={"smallest": 0, "largest": 900}),
        # Of a multi-frame object the range is that of all frames.
        changed(3, stack(), frame=4, header={"smallest": 0, "largest": 800}),
        changed(3, stack(), position_mm=None),
        changed(2, stack(3), position_mm=40.0),
    ],
)
def test_what_is_no_evidence(slices: list[Facts]) -> None:
    assert gather([slices]) == ()


def test_whole_series_compressed_alike_is_no_difference() -> None:
    assert gather([stack(lossy="01")]) == ()


def test_identical_pixels_are_found_across_series_and_ids_count_up() -> None:
    other = [replace(item, series="1.3", sop_instance_uid=f"2.{i}", sha256=f"x{i}") for i, item in enumerate(stack())]
    other[0] = replace(other[0], sha256="5")
    found = gather([stack(synthetic=True), other])
    assert [item.id for item in found] == ["E1", "E2"]
    assert kinds(found)[0] == ("identical_pixels", ["1.5", "2.0"])


def test_one_instance_seen_twice_is_not_two() -> None:
    assert gather([stack(), stack()]) == ()


def test_long_lists_are_cut() -> None:
    (found,) = gather([stack(200, synthetic=True)])
    assert len(found.slices) == 50


def timed(times: list[str], **header: Any) -> list[Facts]:
    return [
        replace(item, header={**item.header, "acquisition_time": time})
        for item, time in zip(stack(len(times), **header), times, strict=True)
    ]


def clock(second: int) -> str:
    return f"{second // 3600 % 24:02d}{second // 60 % 60:02d}{second % 60:02d}.000000"


@pytest.mark.parametrize("step", [10, -10])
@pytest.mark.parametrize("packages", [1, 2])
def test_a_series_through_midnight_is_in_order(step: int, packages: int) -> None:
    first = 24 * 3600 - 200 if step > 0 else 24 * 3600 + 30
    order = [place for package in range(packages) for place in range(package, 24, packages)]
    times = [clock(first + step * order.index(place)) for place in range(24)]
    assert {time[:2] for time in times} == {"23", "00"}
    assert gather([timed(times)]) == ()


@pytest.mark.parametrize("odd", ["030000.0", "120000.0", "220000.0"])
def test_a_time_of_another_hour_is_out_of_order_before_and_after_midnight(odd: str) -> None:
    for first in (9 * 3600, 24 * 3600 - 200):
        times = [clock(first + 10 * place) for place in range(24)]
        times[12] = odd
        assert kinds(gather([timed(times)])) == [("time_order", ["1.12"])]
