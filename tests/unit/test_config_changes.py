from pathlib import Path

import pytest

from dicomguard import config
from dicomguard.config.changes import changed, renewed
from dicomguard.errors import Refused

BASE = """
[receive]
idle_s = 60
[peers.ct1]
ae_title = "CT1"
addresses = ["192.0.2.7"]
[destinations.archive]
ae_title = "ARCHIVE"
host = "archive.example"
port = 104
[[routes]]
name = "all"
to = ["archive"]
"""


def parse(text: str) -> config.Config:
    return config.parse(text, base=Path("/"), path=None)


@pytest.mark.parametrize(
    ("old", "new", "taken", "waiting"),
    [
        ("idle_s = 60", "idle_s = 30\nconnections_per_s = 5", ["receive.connections_per_s", "receive.idle_s"], []),
        ("idle_s = 60", "processes = 3", [], ["receive.processes"]),
        ("idle_s = 60", "max_instance_bytes = 1048576", [], ["receive.max_instance_bytes"]),
        ("192.0.2.7", "192.0.2.8", ["peers.ct1"], []),
        ("peers.ct1", "peers.ct2", ["peers.ct1", "peers.ct2"], []),
        ("port = 104", "port = 105", [], ["destinations.archive"]),
        ('name = "all"', 'name = "every"', [], ["routes"]),
        ("[receive]", "[node]\nport = 9\n[completion]\nquiet_s = 5\n[receive]", ["completion.quiet_s"], ["node.port"]),
        ("[receive]", "[receive]", [], []),
    ],
)  # fmt: skip
def test_table(old: str, new: str, taken: list[str], waiting: list[str]) -> None:
    before, after = parse(BASE), parse(BASE.replace(old, new))
    now = renewed(before, after)
    assert changed(before, now) == taken
    assert changed(now, after) == waiting


def test_what_was_taken_over_is_in_force_and_the_rest_is_as_before() -> None:
    before = parse(BASE)
    now = renewed(before, parse("[receive]\nidle_s = 5\nmax_instance_bytes = 1048576\n"))
    assert (now.receive.idle_s, now.peers) == (5, ())
    assert now.receive.max_instance_bytes == before.receive.max_instance_bytes
    assert now.routes == before.routes


TLS = "[tls]\nport = 2762\ncertificate = 'c'\nkey = 'k'\nauthorities = 'a'\n"


@pytest.mark.parametrize(
    ("old", "new", "apart", "waiting"),
    [
        # A peer is bound to its key in the same edit that opens the port with TLS.
        (
            BASE,
            TLS + BASE.replace("[destinations", f"key_sha256 = ['{'0' * 64}']\n[destinations"),
            "peers.ct1",
            "tls.port, tls.certificate, tls.key, tls.authorities",
        ),
        # The last peer leaves in the same edit that closes the receiver to the network.
        ("[node]\nhost = '0.0.0.0'\n" + BASE, "[receive]\nidle_s = 60\n", "peers.ct1", "node.host"),
    ],
)
def test_two_sound_files_of_which_no_sound_mix_can_be_made(old: str, new: str, apart: str, waiting: str) -> None:
    """Every process would refuse the mix, and be started again for ever."""
    with pytest.raises(Refused, match="belong together") as caught:
        renewed(parse(old), parse(new))
    assert apart in str(caught.value) and waiting in str(caught.value) and "Restart" in str(caught.value)
