"""Bad peers of every kind at once: the good ones are served meanwhile. The full number stands in tests/long."""

import contextlib
import socket
from pathlib import Path

from demo.ports import free_port
from dicomguard.store import counters
from tests.attackers import PEERS, Attack, attacked, good_peers
from tests.certificates import Authority
from tests.fuzz import wire
from tests.instances import part10_file
from tests.peers import Need, wait_for
from tests.receiver import LiveReceiver, associated, receiver, send


def tls(need: Need, folder: Path) -> tuple[int, str]:
    """A free port and the configuration of TLS on it."""
    authority = Authority(need, folder)
    server, port = authority.issue("server"), free_port()
    return port, (
        f'[tls]\nport = {port}\ncertificate = "{server.certificate}"\nkey = "{server.key}"\n'
        f'authorities = "{authority.certificate}"\n'
    )


def resident_kib(live: LiveReceiver) -> int:
    return int(Path(f"/proc/{live.process.pid}/status").read_text().split("VmHWM:")[1].split()[0])


def cuts(live: LiveReceiver) -> dict[str, int]:
    with live.store().read() as tx:
        found: dict[str, int] = {}
        for row in counters.listing(tx):
            if row.name.startswith(counters.CUT):
                reason = row.name.removeprefix(counters.CUT)
                found[reason] = found.get(reason, 0) + row.value
    return found


def test_good_peers_are_served_while_bad_ones_do_all_they_can(need: Need, tmp_path: Path) -> None:
    port, more = tls(need, tmp_path / "ca")
    attack = Attack(silent=60, drips=12, headers=2, rate=30, silent_tls=12)
    with receiver(tmp_path / "state", peers=PEERS, more=more) as live:
        with attacked(live.port, port, attack) as running:
            harassed = good_peers(live.port, seconds=6, run=1)
            # Within their deadline all that drip are gone.
            wait_for(lambda: "unassociated" in cuts(live), seconds=30, what="the first drip that is cut")
        # What it costs them is measured in tests/long, with nothing beside it.
        assert harassed.images > 10
        assert len(harassed.echoes) > 10
        assert running.counts["associations"] > 30
        assert {"protocol", "stranger", "crowded"} <= set(cuts(live))
        assert resident_kib(live) < 150 << 10
        assert live.process.poll() is None
        assert not live.events("connection.failed")
        print(
            f"C-ECHO {1e3 * harassed.echo_p99_s:.0f} ms p99, C-STORE {harassed.rate:.0f}/s; "
            f"cut {cuts(live)}; {running.counts}"
        )


def knock(port: int, times: int) -> int:
    """Connections from one address as fast as they go, each closed at once; how many were reset."""
    reset = 0
    for _ in range(times):
        with socket.create_connection(("127.0.0.1", port), timeout=10) as one, contextlib.suppress(OSError):
            # A byte, for the kernel keeps silent connections to itself.
            one.sendall(b"\x01")
            one.settimeout(0.05)
            with contextlib.suppress(TimeoutError):
                try:
                    one.recv(1)
                except ConnectionResetError:
                    reset += 1
    return reset


def test_a_flood_from_the_address_of_an_open_association_is_refused_and_the_association_goes_on(
    tmp_path: Path,
) -> None:
    files = [part10_file(tmp_path / f"in{number}", sop=f"1.2.3.{number}") for number in range(6)]
    more = "[receive]\nconnections_per_s = 2\n"
    with receiver(tmp_path, more=more) as live, associated(live, files) as association:
        assert send(association, files[0]) == 0x0000
        for file in files[1:]:
            assert knock(live.port, 20) > 0
            assert send(association, file) == 0x0000
        wait_for(lambda: cuts(live).get("too_many", 0) > 50, what="the refused ones in the counts")
        lines = [line for line in live.events("connection.cut") if line["reason"] == "too_many"]
        # One line for all of the first minute, which says what to do.
        assert len(lines) == 1
        assert "raise connections_per_s" in lines[0]["cause"]

        def served() -> bool:
            request = wire.associate_rq([(wire.VERIFICATION, wire.IMPLICIT)], calling="CT1", called="DICOMGUARD")
            try:
                with wire.associated(live.port, request, timeout_s=5):
                    return True
            except (OSError, AssertionError):
                return False

        # Once the flood is over the address has its turn again.
        wait_for(served, seconds=20, what="a new association of the same address")
