"""AE titles that a person types, before anything goes to the network."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from dicomguard.cli import app
from dicomguard.errors import Refused

TITLES = ["SEVENTEEN_LETTERS", "", "   ", "BACK\\SLASH", "ÄRZTE", "TAB\tBED"]


def run(*arguments: str) -> None:
    CliRunner().invoke(app, arguments, catch_exceptions=False)


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "one.dcm"
    path.write_bytes(b"x")
    return str(path)


@pytest.mark.parametrize("title", TITLES)
def test_our_own_title_is_checked(title: str, file: str) -> None:
    with pytest.raises(Refused, match=r"in \[--as\]|of \[--as\]"):
        run("echo", "PACS@127.0.0.1:104", "--as", title)
    with pytest.raises(Refused, match=r"in \[--as\]|of \[--as\]"):
        run("send", file, "--to", "PACS@127.0.0.1:104", "--as", title)


@pytest.mark.parametrize("title", [title for title in TITLES if title])
def test_so_is_that_of_the_other_side(title: str, file: str) -> None:
    with pytest.raises(Refused, match=r"\[AE_TITLE@HOST:PORT\]"):
        run("echo", f"{title}@127.0.0.1:104")
    with pytest.raises(Refused, match=r"\[AE_TITLE@HOST:PORT\]"):
        run("send", file, "--to", f"{title}@127.0.0.1:104")
