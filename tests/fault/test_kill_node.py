"""The whole node under its supervisor: what dies is started again, what is asked to stop stops, studies get through."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from demo.ports import free_port
from dicomguard.core.delivery import Event
from dicomguard.core.peer import Destination
from dicomguard.deliver import storage
from dicomguard.flow.engine import lock_state
from tests import studies
from tests.conftest import ROOT
from tests.peer import Peer, peer, until


class Node:
    """A node that was started by its command."""

    def __init__(self, folder: Path, archive_port: int) -> None:
        self.port, self.page, self.health_port = free_port(), free_port(), free_port()
        self.config = folder / "node.toml"
        self.state = folder / "state"
        self.log = folder / "log"
        self.out = folder / "out"
        self.config.write_text(f"""
[node]
port = {self.port}
state = "{self.state}"
[peers.test]
ae_title = "TEST"
addresses = ["127.0.0.1"]
[destinations.archive]
ae_title = "ARCHIVE"
host = "127.0.0.1"
port = {archive_port}
[[routes]]
name = "all"
to = ["archive"]
[completion]
quiet_s = 0.5
[analysis]
threads = 1
[web]
port = {self.page}
health_port = {self.health_port}
""")
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it says that it is ready."""
        with self.log.open("ab") as log, self.out.open("wb") as out:
            command = [sys.executable, "-m", "dicomguard", "serve", "--config", str(self.config)]
            self.process = subprocess.Popen(command, cwd=ROOT, stdout=out, stderr=log)
        until(lambda: b"kept in" in self.out.read_bytes(), 60)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Ask it to stop; its exit status."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(30)

    def child(self, module: str) -> int:
        """Process id of the child that runs the module now."""
        assert self.process is not None
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    parent = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
                    arguments = (entry / "cmdline").read_bytes().split(b"\0")
                except (FileNotFoundError, ProcessLookupError):
                    continue
                if parent == self.process.pid and module.encode() in arguments and b"dicomguard.child" not in arguments:
                    return int(entry.name)
        return 0

    def get(self, path: str) -> tuple[int, bytes]:
        """Status and body of the health port."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.health_port}{path}", timeout=5) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    def health(self) -> dict[str, Any]:
        """The document of /health."""
        document: dict[str, Any] = json.loads(self.get("/health")[1])
        return document

    def send(self, folder: Path, study: str) -> None:
        """A study of three slices, each stored."""
        files = studies.save(folder / study, studies.series(3, study=study))
        ours = Destination(name="node", ae_title="DICOMGUARD", host="127.0.0.1", port=self.port)
        sent = storage.send(files, ours, calling_ae="TEST")
        assert [item.answer.event for item in sent] == [Event.STORED] * 3

    def events(self, name: str) -> list[dict[str, Any]]:
        """Lines of the log with this event."""
        lines = [line for line in self.log.read_text().splitlines() if line.startswith("{")]
        return [document for line in lines if (document := json.loads(line))["event"] == name]


@contextmanager
def running(folder: Path, archive: Peer) -> Iterator[Node]:
    """A node that is ready; killed at the end if the test did not stop it."""
    node = Node(folder, archive.port)
    node.start()
    try:
        yield node
    finally:
        if node.process is not None and node.process.poll() is None:
            node.process.kill()
            node.process.wait()


def test_each_process_is_started_again_and_the_study_gets_through(tmp_path: Path) -> None:
    with peer() as archive, running(tmp_path, archive) as node:
        assert node.get("/health/live") == (200, b"alive\n")
        assert node.get("/health/ready")[0] == 200
        assert node.get("/nothing")[0] == 404
        for module in ("dicomguard.scp", "dicomguard.flow", "dicomguard.web"):
            os.kill(node.child(module), signal.SIGKILL)
        until(lambda: len(node.events("process.died")) == 3, 10)
        until(lambda: all(node.child(m) for m in ("dicomguard.scp", "dicomguard.flow", "dicomguard.web")), 20)
        until(lambda: node.get("/health/ready")[0] == 200, 30)
        node.send(tmp_path, "one")
        until(lambda: bool(archive.received), 60)
        until(lambda: b'dicomguard_deliveries{destination="archive",state="sent"} 1.0' in node.get("/metrics")[1], 10)
        metrics = node.get("/metrics")[1].decode()
        assert 'dicomguard_studies{state="done"} 1.0' in metrics
        assert 'dicomguard_process_restarts_total{process="worker"} 1.0' in metrics
        assert node.stop() == 0


def test_a_node_stopped_in_the_middle_of_an_analysis_goes_on_where_it_was(tmp_path: Path) -> None:
    with peer() as archive, running(tmp_path, archive) as node:
        node.send(tmp_path, "two")
        until(lambda: bool(node.events("study.frozen")), 30)
        began = time.monotonic()
        assert node.stop(signal.SIGINT) == 0
        assert time.monotonic() - began < 15
        assert not any(node.child(module) for module in ("dicomguard.scp", "dicomguard.flow", "dicomguard.analyze"))
        # The end of the analysis child was ours and not the study's; it was written down before the worker ended.
        assert not node.events("child.ended")
        assert {event["step"] for event in node.events("step.left")} == {"analyse"}
        node.start()
        until(lambda: bool(archive.received), 60)
        assert [event["category"] for event in node.events("study.judged")] != ["not_analysable"]
        assert node.stop() == 0
    assert len(set(archive.uids())) == len(archive.uids())


def test_a_dead_destination_is_yellow_and_the_node_stays_ready(tmp_path: Path) -> None:
    with peer() as archive:
        dead = Peer(port=free_port())
        with running(tmp_path, dead) as node:
            node.send(tmp_path, "three")
            until(lambda: bool(node.events("delivery.attempted")), 60)
            parts = node.health()["parts"]
            shown = {"waiting": 1, "not_committed": 0, "commitment_late": 0}
            assert parts["destination archive"] == {"state": "yellow", **shown}
            assert node.get("/health/ready")[0] == 200
        assert not archive.received


def test_a_second_node_on_the_same_folder_is_refused(tmp_path: Path) -> None:
    with peer() as archive, running(tmp_path, archive) as node:
        second = subprocess.run(
            [sys.executable, "-m", "dicomguard", "serve", "--config", str(node.config)],
            cwd=ROOT, capture_output=True, text=True, timeout=30, check=False,
        )  # fmt: skip
        assert second.returncode == 2
        assert "is in use by another running node" in second.stderr


def test_the_death_of_the_supervisor_takes_its_children_along(tmp_path: Path) -> None:
    with peer() as archive, running(tmp_path, archive) as node:
        children = [node.child(module) for module in ("dicomguard.scp", "dicomguard.flow", "dicomguard.web")]
        assert node.process is not None
        node.process.kill()
        node.process.wait()
        until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in children), 10)
        node.start()
        assert node.stop() == 0


@pytest.mark.parametrize("text", ["[node]\nport = 70000\n", "[nod]\n", '[node]\nhost = "0.0.0.0"\n'])
def test_an_impossible_configuration_ends_at_once_with_a_sentence(tmp_path: Path, text: str) -> None:
    config = tmp_path / "node.toml"
    config.write_text(text)
    done = subprocess.run(
        [sys.executable, "-m", "dicomguard", "serve", "--config", str(config)],
        cwd=ROOT, capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert f"{config}:" in done.stderr


def test_a_changed_configuration_is_taken_over_by_receivers_and_worker(tmp_path: Path) -> None:
    with peer() as archive, running(tmp_path, archive) as node:
        text = node.config.read_text()
        changed = text.replace('ae_title = "TEST"', 'ae_title = "OTHER"').replace("quiet_s = 0.5", "quiet_s = 0.7")
        node.config.write_text(changed)
        assert node.process is not None
        node.process.send_signal(signal.SIGHUP)
        parts = len([name for name in node.health()["parts"] if name.startswith("receiver")]) + 1
        # The processes look for it every second or two, and take what the node has read, not what stands there by then.
        until(lambda: len(node.events("configuration.reloaded")) == 1, 20)
        node.config.write_text("[nothing]")
        until(lambda: len(node.events("configuration.taken")) == parts, 40)
        assert {(*line["name"],) for line in node.events("configuration.taken")} == {
            ("completion.quiet_s", "peers.test")
        }
        node.config.write_text(changed.replace("threads = 1", "threads = 2"))
        node.process.send_signal(signal.SIGHUP)
        until(lambda: len(node.events("configuration.postponed")) == 1, 20)
        assert node.events("configuration.postponed")[0]["name"] == ["analysis.threads"]
        assert not node.events("configuration.refused")
        node.config.write_text("[nothing]")
        node.process.send_signal(signal.SIGHUP)
        until(lambda: len(node.events("configuration.refused")) == 1, 20)
        assert node.stop() == 0


# Both in one edit; the port waits for a restart, the peer would not.
_FIRST_PEER_WITH_TLS = f"""[tls]
port = 2762
certificate = "c"
key = "k"
authorities = "a"
[peers.bound]
ae_title = "BOUND"
addresses = ["127.0.0.1"]
key_sha256 = ["{"0" * 64}"]
"""


@pytest.mark.parametrize(
    ("change", "said"), [("[nothing]\n", "refused"), (_FIRST_PEER_WITH_TLS, "refused"), ("state = ", "postponed")]
)
def test_a_process_that_dies_is_started_again_on_the_configuration_that_is_in_force(
    tmp_path: Path, change: str, said: str
) -> None:
    """The file has got a fault, or something that waits for a restart: the processes must not part ways over it."""
    with peer() as archive, running(tmp_path, archive) as node:
        elsewhere = tmp_path / "elsewhere"
        text = node.config.read_text()
        moved = text.replace(f'state = "{node.state}"', f'state = "{elsewhere}"')
        node.config.write_text(moved if change.startswith("state") else text + change)
        assert node.process is not None
        node.process.send_signal(signal.SIGHUP)
        until(lambda: len(node.events(f"configuration.{said}")) == 1, 20)
        for module in ("dicomguard.scp", "dicomguard.flow", "dicomguard.web"):
            os.kill(node.child(module), signal.SIGKILL)
        until(lambda: len(node.events("process.died")) == 3, 10)
        until(lambda: all(node.child(m) for m in ("dicomguard.scp", "dicomguard.flow", "dicomguard.web")), 20)
        until(lambda: node.get("/health/ready")[0] == 200, 30)
        assert len(node.events("process.died")) == 3
        assert not elsewhere.exists()
        assert node.stop() == 0


@pytest.mark.long
def test_a_process_that_cannot_be_started_for_now_is_tried_again(tmp_path: Path) -> None:
    with peer() as archive, running(tmp_path, archive) as node:
        assert node.process is not None
        usual = resource.prlimit(node.process.pid, resource.RLIMIT_NOFILE)
        # No further descriptor, and so no pipe for a child.
        resource.prlimit(node.process.pid, resource.RLIMIT_NOFILE, (3, usual[1]))
        os.kill(node.child("dicomguard.flow"), signal.SIGKILL)
        until(lambda: len(node.events("process.postponed")) == 2, 20)
        assert node.events("process.postponed")[0]["process"] == "worker"
        resource.prlimit(node.process.pid, resource.RLIMIT_NOFILE, usual)
        until(lambda: bool(node.child("dicomguard.flow")), 20)
        until(lambda: node.get("/health/ready")[0] == 200, 30)
        assert node.stop() == 0


@pytest.mark.long
def test_a_process_that_refuses_to_run_after_the_start_does_not_take_the_others_along(tmp_path: Path) -> None:
    with peer() as archive, running(tmp_path, archive) as node:
        os.kill(node.child("dicomguard.flow"), signal.SIGKILL)
        until(lambda: len(node.events("process.died")) == 1, 10)
        # The worker that comes finds the folder taken, which is a refusal.
        with lock_state(node.state, name="worker"):
            until(lambda: len(node.events("process.died")) == 2, 20)
            assert "refuses to run" in node.events("process.died")[1]["reason"]
            assert node.health()["parts"]["worker"]["state"] == "red"
            node.send(tmp_path, "four")
        until(lambda: node.get("/health/ready")[0] == 200, 60)
        until(lambda: bool(archive.received), 60)
        assert node.stop() == 0
