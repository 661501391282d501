"""check-config as typed."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from dicomguard.cli import app


@pytest.mark.parametrize("rest", ["u:hunter2/b@h/n", "u:hunter2:b@h/n", "u@h/n?password=hunter2", "u:hunter2@h/n"])
def test_the_password_of_the_database_is_not_printed(tmp_path: Path, rest: str) -> None:
    """What is printed here is copied into tickets."""
    file = tmp_path / "dicomguard.toml"
    file.write_text(f'[database]\nurl = "postgresql+psycopg://{rest}"\n')
    done = CliRunner().invoke(app, ["check-config", str(file)])
    assert done.exit_code == 0, done.output
    assert "hunter2" not in done.output
    assert "database   postgresql+psycopg://u" in done.output and "@h/n\n" in done.output


def test_the_database_in_the_state_folder_is_named_as_such(tmp_path: Path) -> None:
    file = tmp_path / "dicomguard.toml"
    file.write_text("")
    assert "database   SQLite in the state folder\n" in CliRunner().invoke(app, ["check-config", str(file)]).output
