"""`dicomguard models card`: what a weights file says of itself."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dicomguard.analyze import weights
from dicomguard.cli import app
from dicomguard.errors import Refused
from tests.unit.flow.test_retraining import weights_file


def run(*arguments: str) -> str:
    answer = CliRunner().invoke(app, ["models", "card", *arguments], catch_exceptions=False)
    assert answer.exit_code == 0, answer.output
    return answer.output


def test_the_shipped_card_is_printed_with_false_alarms_first_and_licences_last() -> None:
    head = weights.read_head(weights.shipped())
    assert head.card is not None
    title, first, *_, last = run().strip().split("\n\n")
    assert title.startswith(head.id)
    assert first.startswith("False alarms: 3 of 75 authentic studies flagged")
    assert "CC BY-NC-SA 4.0" in last
    assert json.loads(run(str(weights.shipped()), "--json")) == json.loads(json.dumps(head.card.to_json()))


def test_weights_without_a_card_are_named(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="dg-1 carries no card"):
        run(str(weights_file(tmp_path / "w.safetensors", "dg-1")))
