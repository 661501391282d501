"""The head of a weights file is read without torch, and a wrong file is refused in words."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

from dicomguard.analyze import weights
from dicomguard.analyze.scores import UNCALIBRATED, Calibration
from dicomguard.errors import Broken, Refused


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


def test_head_survives_the_file(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_file({"x": np.zeros(3, dtype=np.float16)}, str(path), metadata=weights.to_metadata(head()))
    found = weights.read_head(path)
    assert replace(found, sha256="") == head()
    assert len(found.sha256) == 64


def test_shipped_weights_have_a_head_and_are_small() -> None:
    path = weights.shipped()
    found = weights.read_head(path)
    assert path.stat().st_size < 6e6
    assert 0 < found.operating_point.forgery < 1
    assert found.operating_point.n_authentic > 100
    assert any("CC BY-NC-SA" in licence for licence in found.training["data"].values())
    Calibration.from_record(found.calibration)


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
