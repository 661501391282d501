from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dicomguard.cli import app
from dicomguard.clock import SystemClock
from dicomguard.errors import Refused
from dicomguard.store import audit, studies
from dicomguard.store.db import Limits, Store, open_store
from tests import web_cases


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = open_store(tmp_path / "state", "", SystemClock(), limits=Limits(low_bytes=1, stop_bytes=1))
    yield opened
    opened.close()


@pytest.fixture
def config(tmp_path: Path) -> str:
    path = tmp_path / "node.toml"
    path.write_text('[node]\nstate = "state"\n[storage]\nlow_bytes = 1\nstop_bytes = 1\n')
    return str(path)


def run(*arguments: str) -> str:
    answer = CliRunner().invoke(app, ["queue", *arguments], catch_exceptions=False)
    assert answer.exit_code == 0, answer.output
    return answer.output


def test_a_study_is_held_analysed_cancelled_and_taken_up_again(store: Store, config: str, tmp_path: Path) -> None:
    key = web_cases.receive(store, tmp_path / "in", web_cases.datasets())
    by = ("--by", "ada", "--config", config)
    assert run("list", "--config", config).strip() == "Nothing waits."
    run("hold", key, *by)
    run("release", key, *by)
    run("analyse", key, *by)
    with pytest.raises(Refused, match="under way"):
        run("cancel", key, *by)
    with store.begin() as tx:
        studies.open_revision(tx, key, closed_because="forced", now=store.clock.now())
    assert '"state": "opened"' in run("list", "--json", "--config", config)
    assert "retry" in run("cancel", key, *by)
    assert run("list", "--config", config).strip() == "Nothing waits."
    run("retry", key, *by)
    with store.read() as tx:
        lines = [(line.actor, line.action) for line in audit.recent(tx)]
    assert set(lines) == {("ada", f"study.{word}") for word in ("held", "freed", "forced", "cancelled", "retried")}


@pytest.mark.parametrize(
    ("state", "goes_on"),
    [("opened", True), ("analysing", True), ("judged", True), ("built", True), ("delivering", False), ("done", False)],
)
def test_a_hold_says_that_the_report_under_way_goes_on(
    store: Store, config: str, tmp_path: Path, state: str, goes_on: bool
) -> None:
    key = web_cases.receive(store, tmp_path / "in", web_cases.datasets())
    by = ("--by", "ada", "--config", config)
    said = run("hold", key, *by)
    assert "is not judged" in said and "under way" not in said
    run("release", key, *by)
    with store.begin() as tx:
        studies.open_revision(tx, key, closed_because="forced", now=store.clock.now())
        studies.advance(tx, key, 1, state, from_=("opened",))
    said = run("hold", key, *by)
    assert ("The report under way goes on; cancel it to stop it: dicomguard queue cancel" in said) is goes_on
    assert "under way" not in run("release", key, *by)


@pytest.mark.parametrize(
    "command",
    [("queue", "list"), ("models", "list"), ("models", "rollback", "--by", "ada"), ("retrain", "--list")],
    ids=" ".join,
)
def test_a_folder_without_a_node_is_refused_and_stays_empty(tmp_path: Path, command: tuple[str, ...]) -> None:
    path = tmp_path / "node.toml"
    path.write_text('[node]\nstate = "nowhere"\n')
    with pytest.raises(Refused, match="holds no node"):
        CliRunner().invoke(app, [*command, "--config", str(path)], catch_exceptions=False)
    assert [found.name for found in tmp_path.iterdir()] == ["node.toml"]
