"""The page at a port that another program has."""

import socket
import subprocess
import sys
from pathlib import Path

from dicomguard.errors import Unavailable


def test_a_page_whose_port_is_taken_says_so_and_may_be_started_again(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        (tmp_path / "node.toml").write_text(f"[web]\nport = {port}\n")
        done = subprocess.run(
            [sys.executable, "-m", "dicomguard.web", "--config", tmp_path / "node.toml"],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    assert done.returncode == Unavailable.exit_status, done.stderr
    assert f"Port {port} of [web] on 127.0.0.1 cannot be opened: Address already in use." in done.stderr
    assert "page.opened" not in done.stderr
