"""`evaluate` refuses what it cannot use before it begins."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from dicomguard.cli import app
from dicomguard.errors import Refused


def test_a_folder_without_trials_is_refused(tmp_path: Path) -> None:
    (tmp_path / "index.csv").write_text("")
    arguments = ["evaluate", str(tmp_path), "--trials", str(tmp_path), "--output", str(tmp_path / "out")]
    with pytest.raises(Refused, match=r"holds no left_out\*\.json, shuffled\.json or stock\.json"):
        CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert not (tmp_path / "out").exists()
