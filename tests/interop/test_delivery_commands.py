"""`dicomguard send` and `dicomguard echo` against DCMTK and a scripted peer, as a person types them."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from pydicom.uid import MRImageStorage

from demo.ports import free_port
from tests import studies
from tests.conftest import ROOT
from tests.peer import peer
from tests.peers import storescp

Need = Callable[[str, str], str]


def dicomguard(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The command, to its end."""
    command = [sys.executable, "-m", "dicomguard", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """A folder of three slices and a text."""
    studies.save(tmp_path / "study", studies.series(3))
    (tmp_path / "study" / "readme.txt").write_text("not for sending")
    return tmp_path / "study"


def test_a_folder_is_sent_without_what_is_no_dicom(study: Path, tmp_path: Path, need: Need) -> None:
    with storescp(need, tmp_path / "archive") as archive:
        done = dicomguard("send", str(study), "--to", f"ARCHIVE@127.0.0.1:{archive.port}")
        assert done.returncode == 0, done.stderr
        assert len(archive.files()) == 3
    assert done.stdout == "3 of 3 instances stored by ARCHIVE\n"


def test_each_instance_gets_its_json_line_and_a_refusal_its_exit_status(study: Path) -> None:
    with peer(status=lambda _, arrived: 0xA900 if arrived == 1 else 0) as archive:
        done = dicomguard("send", str(study), "--to", f"ARCHIVE@127.0.0.1:{archive.port}", "--json")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["status"] for line in lines] == ["0000", "A900", "0000"]
    assert [line["event"] for line in lines] == ["stored", "form_refused", "stored"]
    assert done.returncode == 1


def test_a_file_that_was_named_must_be_dicom(study: Path) -> None:
    done = dicomguard("send", str(study / "readme.txt"), "--to", f"ARCHIVE@127.0.0.1:{free_port()}")
    assert done.returncode == 2
    assert done.stderr.endswith("dicomguard: readme.txt is no DICOM file (PS3.10). Leave it out.\n")


def test_nobody_there(study: Path) -> None:
    port = free_port()
    sent = dicomguard("send", str(study), "--to", f"ARCHIVE@127.0.0.1:{port}")
    assert (sent.returncode, sent.stdout) == (1, "0 of 3 instances stored by ARCHIVE\n")
    echoed = dicomguard("echo", f"ARCHIVE@127.0.0.1:{port}", "--json")
    assert echoed.returncode == 1
    assert json.loads(echoed.stdout)["answered"] is False


@pytest.mark.parametrize("host", ["pacs.invalid", "pacs..example"])
def test_a_host_that_no_name_service_knows_was_not_reached(host: str) -> None:
    """RFC 2606 keeps .invalid free; an empty label is no name at all."""
    echoed = dicomguard("echo", f"ARCHIVE@{host}:104", "--json")
    assert echoed.returncode == 1
    said = json.loads(echoed.stdout)
    assert said["answered"] is False
    assert said["reason"].startswith(f'The host name "{host}" of ARCHIVE is not known to the name service.')


def test_echo_answers(tmp_path: Path, need: Need) -> None:
    with storescp(need, tmp_path / "archive") as archive:
        done = dicomguard("echo", f"ARCHIVE@127.0.0.1:{archive.port}")
    assert done.returncode == 0
    assert done.stdout.startswith(f"ARCHIVE at 127.0.0.1:{archive.port} answers. (")


def test_titles_that_do_not_match_are_said(study: Path) -> None:
    with peer(check_called=True, classes=(MRImageStorage,)) as archive:
        done = dicomguard("send", str(study), "--to", f"ELSEWHERE@127.0.0.1:{archive.port}")
    assert done.returncode == 1
    # The progress bar wraps lines.
    assert "the called AE title is not theirs" in " ".join(done.stderr.split())
