"""verify, backup and restore as typed."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from dicomguard.cli import app
from dicomguard.clock import SystemClock
from dicomguard.errors import Refused
from dicomguard.store.db import open_store
from tests.keeping import Kept, finished


def typed(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def node(tmp_path: Path) -> Path:
    """A configuration with an empty state folder of its own."""
    path = tmp_path / "dicomguard.toml"
    path.write_text('[node]\nstate = "state"\n')
    return path


@pytest.fixture
def kept(node: Path, tmp_path: Path) -> Kept:
    store = open_store(tmp_path / "state", "", SystemClock())
    try:
        return finished(store, tmp_path)
    finally:
        store.close()


def test_a_sound_node(node: Path, kept: Kept) -> None:
    done = typed("verify", "--config", node)
    assert done.exit_code == 0, done.output
    assert "1 studies, 2 instances, 2 of their files read: all is well" in done.stdout


def test_a_lost_file_is_named_with_its_remedy_and_mended_on_request(node: Path, kept: Kept, tmp_path: Path) -> None:
    (tmp_path / "state" / kept.instances[0]).unlink()
    said = typed("verify", "--config", node)
    assert said.exit_code == 1
    assert f"row_without_file {kept.key} {kept.instances[0]}" in said.stdout
    assert "have it sent again" in said.stdout
    lines = [json.loads(line) for line in typed("verify", "--json", "--config", node).stdout.splitlines()]
    assert [line.get("kind") for line in lines] == ["row_without_file", None]
    assert lines[-1]["findings"] == 1
    mended = typed("verify", "--repair", "--config", node)
    assert mended.exit_code == 0
    assert "marked missing" in mended.stdout
    assert typed("verify", "--config", node).exit_code == 0


def test_a_folder_without_a_node_is_refused_and_stays_empty(node: Path, tmp_path: Path) -> None:
    assert isinstance(typed("verify", "--config", node).exception, Refused)
    assert not (tmp_path / "state").exists()


def test_backup_and_restore(node: Path, kept: Kept, tmp_path: Path) -> None:
    made = typed("backup", tmp_path / "copy", "--config", node)
    assert made.exit_code == 0, made.output
    assert "all is well" in made.stdout
    other = tmp_path / "other.toml"
    other.write_text('[node]\nstate = "other"\n')
    restored = typed("restore", tmp_path / "copy", "--config", other)
    assert restored.exit_code == 0, restored.output
    said = " ".join(restored.stdout.split())
    assert "0 deliveries that were not over then go out again, with the same bytes and UIDs" in said
    assert (tmp_path / "other" / kept.instances[0]).is_file()
    assert isinstance(typed("restore", tmp_path / "copy", "--config", other).exception, Refused)


def test_what_is_deleted_is_said_beforehand(tmp_path: Path) -> None:
    file = tmp_path / "dicomguard.toml"
    file.write_text("")
    said = typed("check-config", file).stdout
    assert "deletes    images of delivered studies after 30 days; verdict and results after 365 days" in said
    file.write_text("[storage]\nkeep_days = 0\nkeep_results_days = 0\n")
    assert "deletes    nothing" in typed("check-config", file).stdout
