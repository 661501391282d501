"""Rules of the house that no linter knows."""

import re
import subprocess
from dataclasses import fields
from pathlib import Path

import pytest

from dicomguard import config
from dicomguard.config.sections import SECTIONS

ROOT = Path(__file__).resolve().parents[2]


def tracked(*patterns: str) -> list[Path]:
    """Files that belong to the repository; a copy without git has no such list."""
    done = subprocess.run(["git", "ls-files", "-z", *patterns], cwd=ROOT, capture_output=True, check=False)
    assert done.returncode == 0, "the house rules are checked in a git checkout"
    return [ROOT / name for name in done.stdout.decode().split("\0") if name and (ROOT / name).is_file()]


def test_no_room_for_leftovers() -> None:
    banned = re.compile(r"^(utils?|helpers?|common|misc|stuff)(\.py)?$")
    found = [path for path in tracked("*.py") if any(banned.match(part) for part in path.relative_to(ROOT).parts)]
    assert not found


def test_modules_stay_one_thing() -> None:
    long = [path.name for path in tracked("dicomguard/**/*.py") if len(path.read_text().splitlines()) > 500]
    assert not long


def test_generated_configuration_page_is_current() -> None:
    assert (ROOT / "docs" / "configuration.md").read_text() == config.describe()


def test_shipped_configuration_is_sound() -> None:
    loaded = config.load(ROOT / "config" / "dicomguard.toml")
    assert loaded.peers
    assert loaded.routes


def test_every_key_of_the_configuration_is_read() -> None:
    """A limit that nothing reads promises what is not held."""
    text = "\n".join(path.read_text() for path in tracked("dicomguard/**/*.py"))
    keys = [key.name for kind in SECTIONS for key in fields(kind)]
    assert len(keys) > 50
    assert [key for key in keys if not re.search(rf"\.{key}\b", text)] == []


def test_every_metric_is_explained_in_operations() -> None:
    text = (ROOT / "docs" / "operations.md").read_text()
    names = re.findall(r'"(dicomguard_[a-z_]+)"', (ROOT / "dicomguard" / "metrics.py").read_text())
    assert names
    assert [name for name in names if name not in text] == []


@pytest.mark.parametrize("page", ["architecture", "security"])
def test_documents_name_modules_that_exist(page: str) -> None:
    def exists(name: str) -> bool:
        path = name.removesuffix(".py").replace(".", "/")
        return any(
            (folder / f"{path}{end}").exists()
            for folder in (ROOT, ROOT / "dicomguard", ROOT / "tests")
            for end in ("", ".py")
        )

    text = (ROOT / "docs" / f"{page}.md").read_text()
    names = re.findall(r"`([a-z_]+(?:[/.][a-z_]+)+|[a-z_]+/)`", text)
    assert len(names) > 10
    # The form of an event, a key of the configuration.
    others = {"noun.past_verb", "retrain.two_people"}
    assert [name for name in names if not name.endswith((".json", ".toml")) and not exists(name)] == sorted(
        others.intersection(names)
    )


def test_repository_stays_small() -> None:
    size = sum(path.stat().st_size for path in tracked())
    assert size < 60 << 20


@pytest.mark.parametrize("word", ["/wo" + "rk/", "/tmp/" + "build", "TO" + "DO", "FIX" + "ME"])
def test_no_machine_path_and_nothing_unfinished(word: str) -> None:
    found = [
        path.relative_to(ROOT)
        for path in tracked("*.py", "*.md", "*.toml", "*.sh", "*.html", "Makefile", "*.yaml", "*.lua", "*.json")
        if word in path.read_text(errors="replace") and "vendor" not in path.parts
    ]
    assert not found


def test_every_event_is_explained_in_operations() -> None:
    text = (ROOT / "docs" / "operations.md").read_text()
    call = re.compile(r'\.(?:event|warning|error|crashed)\(\s*"([a-z_]+\.[a-z_]+)"')
    events = {name for path in tracked("dicomguard/**/*.py") for name in call.findall(path.read_text())}
    assert len(events) > 30
    assert sorted(name for name in events if f"`{name}`" not in text) == []
