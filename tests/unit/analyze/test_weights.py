"""The head of a weights file is read without torch, and a wrong file is refused in words."""

import json
import re
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

from dicomguard.analyze import weights
from dicomguard.analyze.card import Card, FalseAlarms
from dicomguard.analyze.scores import UNCALIBRATED, Calibration
from dicomguard.errors import Broken, Refused
from tests.conftest import ROOT


def head() -> weights.WeightsHead:
    return weights.WeightsHead(
        id="w",
        version="1",
        architecture="a",
        channels=("I",),
        scope=weights.Scope(modalities=("MR",), body_parts=("HEAD",), sequences=("T1",)),
        operating_point=weights.OperatingPoint(
            name="alert", forgery=0.5, tumor=0.5, n_authentic=10, flagged=0, false_alarm_upper=0.26
        ),
        calibration=UNCALIBRATED.to_record(),
        authentic_scores=(0.1, 0.2),
        training={"seed": 1},
        sha256="",
    )


def card() -> Card:
    return Card(
        false_alarms=(FalseAlarms(flagged=1, of=20, upper=0.217, studies="of one clinic"),),
        intended_use="a",
        not_validated="b",
        never_seen="c",
        figures="d",
        known_failures="e",
        parent="",
    )


COUNT = card().to_json()["false_alarms"][0]


def test_head_survives_the_file(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_file({"x": np.zeros(3, dtype=np.float16)}, str(path), metadata=weights.to_metadata(head()))
    found = weights.read_head(path)
    assert replace(found, sha256="") == head()
    assert len(found.sha256) == 64


def test_a_card_travels_in_the_head_and_its_false_alarms_are_read_first(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    with_card = replace(head(), card=card())
    save_file({"x": np.zeros(3, dtype=np.float16)}, str(path), metadata=weights.to_metadata(with_card))
    assert replace(weights.read_head(path), sha256="") == with_card
    lines = list(card().lines())
    assert lines[0] == ("False alarms", "1 of 20 authentic studies flagged (95 % upper bound 21.7 %): of one clinic")
    assert lines[-1] == ("Training began with", "chance")


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"false_alarms": []}, "0 counts"),
        ({"false_alarms": 3}, "is no list"),
        ({"false_alarms": [{"flagged": 1}]}, "lacks or misnames"),
        ({"false_alarms": [{**COUNT, "flagged": 21}]}, "is no count"),
        ({"false_alarms": [{**COUNT, "flagged": True}]}, "is no count"),
        ({"false_alarms": [{**COUNT, "upper": 0.04}]}, "below their rate"),
        ({"false_alarms": [{**COUNT, "upper": float("nan")}]}, "below their rate"),
        ({"intended_use": ""}, '"intended_use"'),
        ({"figures": 0.9}, '"figures"'),
        ({"known_failures": "x" * 2001}, '"known_failures"'),
        ({"never_seen": "half \ud800"}, '"never_seen"'),
        ({"not_validated": "two\nlines"}, '"not_validated"'),
        ({"parent": None}, '"parent"'),
        ({"more": "x"}, "lacks or misnames"),
    ],
)
def test_a_card_that_is_none_is_refused_in_words(changes: dict[str, object], word: str) -> None:
    record = json.loads(weights.to_metadata(replace(head(), card=card()))["dicomguard"])
    with pytest.raises(Refused, match=word):
        weights.from_record({**record, "card": {**record["card"], **changes}}, sha256="")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


@given(
    st.one_of(
        JSON,
        st.builds(lambda name, value: {**card().to_json(), name: value}, st.sampled_from([*card().to_json()]), JSON),
        st.builds(
            lambda name, value: {**card().to_json(), "false_alarms": [{**COUNT, name: value}]},
            st.sampled_from([*COUNT]),
            JSON,
        ),
    )
)
def test_any_card_is_read_or_refused(value: object) -> None:
    record = json.loads(weights.to_metadata(head())["dicomguard"])
    with suppress(Refused):
        found = weights.from_record({**record, "card": value}, sha256="").card
        for _, text in () if found is None else found.lines():
            text.encode()


@pytest.mark.parametrize("record", ["3", '"x"', "[]", "null", "{}", "[" * 100_000])
def test_a_record_that_is_no_object_is_refused(tmp_path: Path, record: str) -> None:
    path = tmp_path / "w.safetensors"
    text = json.dumps({"__metadata__": {"dicomguard": record}}).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text)
    with pytest.raises((Refused, Broken)):
        weights.read_head(path)


def test_shipped_weights_have_a_head_and_are_small() -> None:
    path = weights.shipped()
    found = weights.read_head(path)
    assert path.stat().st_size < 6e6
    assert 0 < found.operating_point.forgery < 1
    assert found.operating_point.n_authentic > 100
    assert any("CC BY-NC-SA" in licence for licence in found.training["data"].values())
    Calibration.from_record(found.calibration)


def test_the_shipped_card_says_what_the_page_says() -> None:
    found = weights.read_head(weights.shipped())
    assert found.card is not None
    page = " ".join((ROOT / "docs" / "model-card.md").read_text().split())
    assert found.id in page
    tested, calibrated, elsewhere = found.card.false_alarms
    assert f"Of {tested.of} authentic studies of test patients {tested.flagged} are flagged" in page
    assert f"95 % upper bound {100 * tested.upper:.0f} %" in page
    assert sum(score >= found.operating_point.forgery for score in found.authentic_scores) == calibrated.flagged
    assert f"alert of stacks on {calibrated.of} stacks" in page
    assert f"{elsewhere.flagged} of {elsewhere.of} whole studies" in page
    decimals = re.compile(r"[0-9]\.[0-9]{2,3}")
    assert set(decimals.findall(found.card.figures)) <= set(decimals.findall(page))


def test_reading_loads_no_torch() -> None:
    code = (
        "import sys; from dicomguard.analyze import weights; weights.read_head(weights.shipped()); "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0


def test_absent_and_foreign_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused):
        weights.read_head(tmp_path / "none")
    foreign = tmp_path / "foreign.safetensors"
    save_file({"x": np.zeros(1, dtype=np.float16)}, str(foreign), metadata={"format": "pt"})
    with pytest.raises(Refused):
        weights.read_head(foreign)


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(raw: bytes) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "w.safetensors"
        path.write_bytes(raw)
        with pytest.raises((Refused, Broken)):
            weights.read_head(path)


def test_another_schema_is_broken(tmp_path: Path) -> None:
    record = json.loads(weights.to_metadata(head())["dicomguard"])
    with pytest.raises(Broken):
        weights.from_record({**record, "schema": 2}, sha256="")
    with pytest.raises(Broken):
        weights.from_record({name: v for name, v in record.items() if name != "scope"}, sha256="")
