"""UIDs are legal, repeatable, and different whenever anything differs."""

import itertools
import re
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from dicomguard.core import uid

PARTS = st.lists(st.one_of(st.text(max_size=12), st.integers(0, 99)), min_size=1, max_size=4)


@given(PARTS)
def test_form(parts: list[str | int]) -> None:
    made = uid.derive("x", *parts)
    assert re.fullmatch(r"2\.25\.(0|[1-9][0-9]*)", made) and len(made) <= 44
    assert made == uid.derive("x", *parts)


@given(PARTS, PARTS)
def test_borders_of_parts_count(left: list[str | int], right: list[str | int]) -> None:
    if [str(part) for part in left] != [str(part) for part in right]:
        assert uid.derive("x", *left) != uid.derive("x", *right)


def test_known_value_never_changes() -> None:
    assert uid.derive("sr", "1.2.3", 1) == "2.25.168642618938550902548380116406969245394"
    assert uid.derive("a|b") != uid.derive("a", "b") != uid.derive("a%7Cb")


def test_kinds_never_meet() -> None:
    seg: dict[str, Any] = {
        "study": "1.2",
        "revision": 1,
        "verdict_sha256": "ab",
        "builder": "1",
        "source_series": "1.3",
        "stack": 0,
    }
    sr: dict[str, Any] = {"study": "1.2", "revision": 1, "verdict_sha256": "ab", "builder": "1", "sop_class": "1.4"}
    made = [
        uid.device("1.2"),
        uid.sr_series(study="1.2", device_uid="d", software="s", model="m", sop_class="1.4"),
        uid.sr_instance(**sr),
        uid.seg_series(**seg),
        uid.seg_instance(**seg),
        uid.dimension_organization(uid.seg_instance(**seg)),
        uid.tracking(study="1.2", series="1.3", verdict_sha256="ab", finding_id="F1"),
        uid.study_tracking("1.2"),
        uid.CODING_SCHEME_UID,
    ]
    assert all(a != b for a, b in itertools.combinations(made, 2))


def test_every_part_counts() -> None:
    seg: dict[str, Any] = {
        "study": "1.2",
        "revision": 1,
        "verdict_sha256": "ab",
        "builder": "1",
        "source_series": "1.3",
        "stack": 0,
    }
    first = uid.seg_instance(**seg)
    for name, value in seg.items():
        other = value + 1 if isinstance(value, int) else value + "0"
        assert uid.seg_instance(**{**seg, name: other}) != first, name
