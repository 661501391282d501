"""SIGHUP: peers, bounds and certificates of new associations, while those that are open go on."""

import signal
import socket
import ssl
from collections.abc import Callable
from pathlib import Path

from demo.ports import free_port
from dicomguard.dimse.ae import make_ae
from dicomguard.dimse.contexts import VERIFICATION
from dicomguard.store import log_figures
from tests.certificates import Authority
from tests.instances import part10_file
from tests.peers import Need, wait_for
from tests.receiver import LiveReceiver, associated, receiver, send


def rewrite(live: LiveReceiver, change: Callable[[str], str]) -> None:
    """Change the file of a running receiver and have it read, by each of its processes."""
    file = live.state.parent / "dicomguard.toml"
    file.write_text(change(file.read_text()))
    before = len(live.events())
    for process in live.processes:
        process.send_signal(signal.SIGHUP)

    def said() -> int:
        return sum(line["event"].startswith("configuration.") for line in live.events()[before:])

    wait_for(lambda: said() == len(live.processes), what="what the receiver says of the file")


def answer(live: LiveReceiver, calling: str) -> str:
    """On a busy machine pynetdicom loses one rejection in a hundred, its own acceptor's too: it is asked again then."""
    ae = make_ae(calling)
    ae.add_requested_context(VERIFICATION)
    for _ in range(5):
        association = ae.associate("127.0.0.1", live.port, ae_title="DICOMGUARD")
        if association.is_established:
            association.release()
            return "accepted"
        if association.is_rejected:
            return "rejected"
    return "nothing"


def test_peers_change_for_new_associations_and_those_that_are_open_go_on(tmp_path: Path) -> None:
    first, second = part10_file(tmp_path / "in"), part10_file(tmp_path / "more", sop="1.2.3.4")
    with receiver(tmp_path, peers={"ct1": ("CT1", "127.0.0.1")}) as live, associated(live, [first]) as association:
        assert send(association, first) == 0x0000
        assert answer(live, "MR9") == "rejected"
        rewrite(live, lambda text: text.replace('"CT1"', '"MR9"').replace("[peers.ct1]", "[peers.mr9]"))
        assert answer(live, "MR9") == "accepted"
        assert answer(live, "CT1") == "rejected"
        # It was let in under the old file.
        assert send(association, second) == 0x0000
        (taken,) = live.events("configuration.taken")
        assert taken["name"] == ["peers.ct1", "peers.mr9"]


def test_a_file_with_a_fault_changes_nothing_and_its_line_is_said(tmp_path: Path) -> None:
    with receiver(tmp_path) as live:
        rewrite(live, lambda text: text + "\n[peers.broken]\nae_title = 'A-TITLE-THAT-IS-TOO-LONG'\n")
        (refused,) = live.events("configuration.refused")
        assert "dicomguard.toml:" in refused["reason"]
        assert answer(live, "CT1") == "accepted"


def test_bounds_change_for_new_associations(tmp_path: Path) -> None:
    with receiver(tmp_path) as live, associated(live, [part10_file(tmp_path / "in")]):
        rewrite(live, lambda text: text + "\n[receive]\nmax_associations = 1\n")
        assert answer(live, "MR1") == "rejected"
        rewrite(live, lambda text: text.replace("max_associations = 1\n", "max_associations = 2\n"))
        assert answer(live, "MR1") == "accepted"


def test_certificates_change_for_new_connections_and_an_open_association_goes_on(need: Need, tmp_path: Path) -> None:
    """Its own key and all: what was agreed at the handshake holds until the association ends."""
    authority = Authority(need, tmp_path / "ca")
    server, client, port = authority.issue("server"), authority.issue("client"), free_port()
    more = (
        f'[tls]\nport = {port}\ncertificate = "{server.certificate}"\nkey = "{server.key}"\n'
        f'authorities = "{authority.certificate}"\n'
        f'[peers.bound]\nae_title = "BOUND"\naddresses = ["127.0.0.1"]\nkey_sha256 = ["{client.key_sha256}"]\n'
    )
    context = ssl.create_default_context(cafile=authority.certificate)
    context.check_hostname = False
    context.load_cert_chain(client.certificate, client.key)

    def serial() -> str:
        with (
            socket.create_connection(("127.0.0.1", port), timeout=10) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as connection,
        ):
            return str((connection.getpeercert() or {})["serialNumber"])

    with receiver(tmp_path / "node", more=more) as live:
        ae = make_ae("BOUND")
        ae.add_requested_context(VERIFICATION)
        association = ae.associate("127.0.0.1", port, ae_title="DICOMGUARD", tls_args=(context, "localhost"))
        assert association.is_established
        old = serial()
        authority.issue("server")
        rewrite(live, lambda text: text)
        wait_for(lambda: bool(live.events("certificate.renewed")), what="the renewal")
        assert serial() != old
        assert association.send_c_echo().Status == 0x0000
        association.release()
        assert association.is_released


def test_the_heartbeat_says_how_the_receiver_stands(tmp_path: Path) -> None:
    files = [part10_file(tmp_path / f"in{number}", sop=f"1.2.3.{number}") for number in range(3)]
    with receiver(tmp_path) as live, associated(live, files) as association:
        for file in files:
            assert send(association, file) == 0x0000

        def figures() -> list[log_figures.Figures]:
            store = live.store()
            with store.read() as tx:
                return log_figures.listing(tx, store.clock.now())

        wait_for(lambda: [one.records for one in figures()] == [3], what="the three instances in its figures")
        (one,) = figures()
        assert (one.slot, one.associations, one.unfiled) == ("0", {"ct1": 1}, 0)
        assert 1 <= sum(one.flushes) <= 3
        assert one.free_segments in (2, 3)
        assert one.flush_s > 0
        store = live.store()
        assert live.stop() == 0
        with store.read() as tx:
            assert log_figures.listing(tx, store.clock.now()) == []
