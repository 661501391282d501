"""What a node has accepted reaches its processes as it is."""

import fcntl
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from dicomguard import config
from dicomguard.config import Accepted
from dicomguard.errors import Refused

# Keys of each kind: texts, numbers, lists, paths below the file, words of a choice, and those that are left out.
TEXT = """
[node]
ae_title = "NODE"
state = "kept"
[database]
url = "postgresql+psycopg://user:secret@host/name"
[receive]
idle_s = 30
[tls]
port = 2762
certificate = "node.pem"
key = "/etc/node.key"
authorities = "../authorities.pem"
[web]
allowed_hosts = ["dicomguard.hospital.example"]
[peers.ct1]
ae_title = "CT1"
addresses = ["192.0.2.7", "2001:db8::/32"]
idle_s = 5
urgent = "always"
[peers.alpha]
ae_title = "ALPHA"
addresses = ["192.0.2.8"]
[destinations.archive]
ae_title = "ARCHIVE"
host = "archive.example"
port = 104
commitment = true
[[routes]]
name = "all"
calling_ae_titles = ["CT1"]
to = ["archive", "sender"]
[[rules]]
name = "ct"
action = "analyse"
modality = ["CT"]
"""


def given(accepted: Accepted) -> config.Config:
    """As a process reads it."""
    return config.load(accepted.name)


@pytest.mark.parametrize("text", ["", TEXT])
def test_it_is_read_as_it_was_put(tmp_path: Path, text: str) -> None:
    """Also relative paths, for which there is no folder any more, and also from another one."""
    file = tmp_path / "node.toml"
    file.write_text(text)
    loaded = config.load(file)
    accepted = Accepted(loaded)
    file.write_text("[nothing]")
    assert given(accepted) == replace(loaded, file=accepted.name)
    accepted.close()


def test_without_a_file_the_defaults_are_given_whatever_the_environment_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = config.load(None)
    accepted = Accepted(loaded)
    monkeypatch.setenv(config.ENVIRONMENT, str(tmp_path / "none.toml"))
    assert given(accepted) == replace(loaded, file=accepted.name)


def test_what_is_put_later_takes_its_place(tmp_path: Path) -> None:
    long, short = (config.parse(text, base=tmp_path, path=None) for text in (TEXT, ""))
    accepted = Accepted(long)
    for one in (short, long, short):
        accepted.put(one)
        assert given(accepted) == replace(one, file=accepted.name)


def test_a_process_never_reads_the_half_of_it(tmp_path: Path) -> None:
    accepted = Accepted(config.parse(TEXT, base=tmp_path, path=None))
    code = """
import pathlib, sys
from dicomguard import config
print("reads", flush=True)
print(config.load(pathlib.Path(sys.argv[1])).receive.idle_s)
"""
    # As a writer in the middle has it.
    fcntl.lockf(accepted.descriptor, fcntl.LOCK_EX)
    os.ftruncate(accepted.descriptor, 100)
    command = [sys.executable, "-c", code, str(accepted.name)]
    with subprocess.Popen(command, pass_fds=[accepted.descriptor], stdout=subprocess.PIPE, text=True) as reader:
        assert reader.stdout is not None
        assert reader.stdout.readline() == "reads\n"
        with pytest.raises(subprocess.TimeoutExpired):
            reader.wait(0.3)
        accepted.put(config.parse("[receive]\nidle_s = 7\n", base=tmp_path, path=None))
        assert reader.stdout.readline() == "7.0\n"


def test_a_fault_is_named_as_one_of_the_persons_file(tmp_path: Path) -> None:
    """None is expected, but for an update of the program under a running node."""
    loaded = config.parse("", base=tmp_path, path=Path("node.toml"))
    accepted = Accepted(replace(loaded, node=replace(loaded.node, timezone="Mars/Olympus")))
    with pytest.raises(Refused, match=r'^node\.toml: there is no time zone "Mars/Olympus"'):
        given(accepted)


@pytest.mark.parametrize("descriptor", ["999999", "other"])
def test_the_name_is_of_no_use_to_others(descriptor: str, tmp_path: Path) -> None:
    with (tmp_path / "other").open("w+") as other:
        name = Path(f"accepted:{other.fileno() if descriptor == 'other' else descriptor}")
        with pytest.raises(Refused, match="Name a TOML file"):
            config.load(name)


def test_a_file_may_have_a_name_like_it(tmp_path: Path) -> None:
    (tmp_path / "accepted:5").write_text("[receive]\nidle_s = 7\n")
    assert config.load(tmp_path / "accepted:5").receive.idle_s == 7
