"""An evaluation through the production path: real files, a real analysis child, weights that know nothing."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from dicomguard.analyze import channels, weights
from dicomguard.analyze.net.model import Network
from dicomguard.analyze.scores import UNCALIBRATED
from dicomguard.retrain.evaluate.protocol import evaluate
from tests.unit.retrain.evaluate.planes import KEYS, PEOPLE, SLICES, write_archive


def untrained(path: Path) -> Path:
    torch.manual_seed(0)
    head = weights.WeightsHead(
        id="untrained",
        version="0",
        architecture=weights.ARCHITECTURE,
        channels=channels.NAMES,
        scope=weights.Scope(modalities=("MR",), body_parts=("HEAD",), sequences=("flair",)),
        operating_point=weights.OperatingPoint(
            name="alert", forgery=0.5, tumor=0.5, n_authentic=0, flagged=0, false_alarm_upper=1.0
        ),
        calibration=UNCALIBRATED.to_record(),
        authentic_scores=(),
        training={},
        sha256="",
    )
    state = {name: value.contiguous() for name, value in Network().state_dict().items()}
    save_file(state, str(path), metadata=weights.to_metadata(head))
    return path


@pytest.mark.smoke
def test_the_production_path_from_planes_to_report(tmp_path: Path) -> None:
    root = write_archive(tmp_path / "archive")
    document = evaluate(
        root, untrained(tmp_path / "w.safetensors"), out=tmp_path / "out", keys=KEYS, fast=True, at_once=2
    )
    assert json.loads((tmp_path / "out" / "report.json").read_text())["model"]["id"] == "untrained"
    assert document["threshold"] == 0.5
    alarms = document["false_alarms"]
    assert [(row["source"], row["studies"], row["slices"]) for row in alarms] == [("own", PEOPLE, PEOPLE * SLICES)]
    assert {row["group"] for row in document["families"]} >= {"pde", "exemplar", "gradient", "paste", "second hand"}
    assert sum(row["studies"] for row in document["families"]) >= 6
    # Weights that know nothing cannot tell the twins apart by anything but pixels.
    paired = [row["slice_auc_paired"] for row in document["families"] if row["slice_auc_paired"] is not None]
    assert 0.3 < sum(paired) / len(paired) < 0.7
