"""Canonical JSON: equal values give equal bytes, and nothing that cannot be written passes."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicomguard.core import canon
from dicomguard.errors import Broken

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)


def test_keys_are_sorted_and_text_is_composed() -> None:
    assert canon.encode({"b": 1, "a": "e\u0301"}) == '{"a":"é","b":1}'.encode()


def test_negative_zero_is_zero() -> None:
    assert canon.encode(-0.0) == canon.encode(0.0)


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_not_finite_is_refused(number: float) -> None:
    with pytest.raises(Broken, match="cannot be written as JSON"):
        canon.encode({"x": [number]})


@given(VALUES)
def test_reading_and_writing_again_gives_the_same_bytes(value: canon.Json) -> None:
    once = canon.encode(value)
    assert canon.encode(json.loads(once)) == once
    assert canon.sha256(value) == canon.sha256(json.loads(once))
