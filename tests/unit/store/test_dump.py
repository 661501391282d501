"""What the client programs of PostgreSQL are given."""

import os
from pathlib import Path

import pytest

from dicomguard.store import dump


@pytest.mark.parametrize(
    "url",
    [
        "postgresql+psycopg://node:s3cret@db.example/dicomguard",
        "postgresql+psycopg://node@db.example/dicomguard?password=s3cret&sslmode=require",
    ],
)
def test_a_password_stands_in_no_process_list(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = tmp_path / "seen"
    program = tmp_path / "pg_dump"
    program.write_text(f'#!/bin/sh\necho "$@" > {seen}\necho "$PGPASSWORD" >> {seen}\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    dump.write(url, tmp_path / "out")
    arguments, password = seen.read_text().splitlines()
    assert "s3cret" not in arguments and "db.example/dicomguard" in arguments
    assert password == "s3cret"
    assert ("sslmode=require" in arguments) is ("sslmode" in url)
