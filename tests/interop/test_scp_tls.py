"""TLS on its own port, by DCMTK and by OpenSSL: who gets in, and what the others are told in the log."""

import contextlib
import os
import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from demo.ports import free_port
from dicomguard.dimse.ae import make_ae
from dicomguard.dimse.contexts import VERIFICATION
from dicomguard.store import counters, refusals, studies
from tests.certificates import Authority, Holder
from tests.instances import PYDICOM, part10_file
from tests.peers import Need, wait_for
from tests.receiver import LiveReceiver, associated, receiver


@dataclass
class Secured:
    """A receiver with a TLS port; CT1 has the certificate `right`."""

    live: LiveReceiver
    port: int
    authority: Authority
    server: Holder
    right: Holder
    wrong: Holder
    untrusted: Holder

    def context(self, holder: Holder | None) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=self.authority.certificate)
        context.check_hostname = False
        if holder is not None:
            context.load_cert_chain(holder.certificate, holder.key)
        return context

    def refusals(self) -> list[str]:
        with self.live.store().read() as tx:
            return [row.reason for row in refusals.recent(tx)]

    def wait_for_refusal(self, words: str) -> None:
        """Cause and next step stand on the list of refusals and in the log."""
        wait_for(lambda: any(words in reason for reason in self.refusals()), what=f"the refusal: {words}")

        def logged() -> bool:
            return any(words in line["reason"] for line in self.live.events("association.refused"))

        wait_for(logged, what=f"the line in the log: {words}")


@contextlib.contextmanager
def secured(need: Need, folder: Path, *, processes: int = 1) -> Iterator[Secured]:
    authority = Authority(need, folder / "ca")
    server, right, wrong = (authority.issue(name) for name in ("server", "right", "wrong"))
    untrusted = Authority(need, folder / "other").issue("untrusted")
    port = free_port()
    keys = (
        f'[tls]\nport = {port}\ncertificate = "{server.certificate}"\nkey = "{server.key}"\n'
        f'authorities = "{authority.certificate}"\n'
        f'[peers.bound]\nae_title = "CT1"\naddresses = ["127.0.0.1"]\nkey_sha256 = ["{right.key_sha256.upper()}"]\n'
    )
    peers = {"mr1": ("MR1", "127.0.0.1")}
    with receiver(folder / "state", peers=peers, more=keys, processes=processes) as live:
        yield Secured(live, port, authority, server, right, wrong, untrusted)


@pytest.fixture(scope="module")
def running(need: Need, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    with secured(need, tmp_path_factory.mktemp("tls")) as running:
        yield running


def storescu(need: Need, node: Secured, holder: Holder, calling: str, file: Path) -> str:
    program = need("storescu", "dcmtk")
    command = [
        *(program, "-v", "+tls", str(holder.key), str(holder.certificate), "+cf", str(node.authority.certificate)),
        *("-aet", calling, "-aec", "DICOMGUARD", "127.0.0.1", str(node.port), str(file)),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return done.stdout + done.stderr


def echo(node: Secured, holder: Holder | None, calling: str) -> str:
    """Of pynetdicom: "accepted", "rejected (n, n, n)" or "nothing"."""
    ae = make_ae(calling)
    ae.add_requested_context(VERIFICATION)
    association = ae.associate(
        "127.0.0.1", node.port, ae_title="DICOMGUARD", tls_args=(node.context(holder), "localhost")
    )
    if association.is_established:
        status = int(association.send_c_echo().Status)
        association.release()
        return "accepted" if status == 0 else f"{status:04X}"
    if association.is_rejected:
        answer = association.acceptor.primitive
        return f"rejected {(answer.result, answer.result_source, answer.diagnostic)}"
    return "nothing"


def handshake(node: Secured, context: ssl.SSLContext) -> str:
    """ "alive" when the connection stays open after the handshake, else "refused"."""
    try:
        with (
            socket.create_connection(("127.0.0.1", node.port), timeout=10) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as connection,
        ):
            connection.settimeout(1.0)
            try:
                return "refused" if connection.recv(1) == b"" else "talks"
            except TimeoutError:
                return "alive"
    except (ssl.SSLError, ConnectionError):
        return "refused"


def test_storescu_of_dcmtk_with_the_right_certificate_stores(running: Secured, need: Need) -> None:
    said = storescu(need, running, running.right, "CT1", PYDICOM / "CT_small.dcm")
    assert "(Success)" in said, said
    with running.live.store().read() as tx:
        (line,) = studies.listing(tx, limit=9)
        assert line.calling_ae == "CT1"


def test_a_large_instance_comes_whole_over_tls(running: Secured, need: Need, tmp_path: Path) -> None:
    file = part10_file(tmp_path, sop="1.2.3.4.77", study="1.2.3.4", pixels=os.urandom(8 << 20))
    assert "(Success)" in storescu(need, running, running.right, "CT1", file)
    running.live.settle()
    content = file.read_bytes()
    assert any(path.read_bytes().endswith(content[-(8 << 20) :]) for path in running.live.state.rglob("*.dcm"))


def test_the_right_certificate_with_its_own_title(running: Secured) -> None:
    assert echo(running, running.right, "CT1") == "accepted"


def test_a_wrong_certificate_of_the_right_authority(running: Secured) -> None:
    assert echo(running, running.wrong, "CT1") == "rejected (1, 1, 1)"
    running.wait_for_refusal(f"add it to key_sha256 if it is right: {running.wrong.key_sha256}")


def test_the_right_certificate_with_a_foreign_title(running: Secured) -> None:
    assert echo(running, running.right, "MR1") == "rejected (1, 1, 1)"
    reason = f"the certificate is named for no peer; add it to key_sha256 if it is right: {running.right.key_sha256}"
    running.wait_for_refusal(reason)


def test_a_peer_with_a_certificate_does_not_get_in_without_tls(running: Secured, tmp_path: Path) -> None:
    file = part10_file(tmp_path)
    with associated(running.live, [file], calling_ae="CT1") as association:
        assert association.is_rejected
    running.wait_for_refusal("the peer has a certificate and must come by TLS")
    with associated(running.live, [file], calling_ae="MR1") as association:
        assert association.is_established


def test_a_certificate_of_another_authority(running: Secured) -> None:
    assert handshake(running, running.context(running.untrusted)) == "refused"
    running.wait_for_refusal("; renew it, or add its authority to authorities of [tls]")


def test_no_certificate(running: Secured) -> None:
    assert handshake(running, running.context(None)) == "refused"
    running.wait_for_refusal("it shows no certificate; give the sender one")


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion")
def test_tls_1_1_is_refused(running: Secured) -> None:
    old = running.context(running.right)
    old.set_ciphers("ALL:@SECLEVEL=0")
    old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    assert handshake(running, old) == "refused"
    running.wait_for_refusal("it offers no TLS 1.2 or 1.3; turn that on at the sender")


@pytest.mark.parametrize(
    ("ciphers", "answer"),
    [("ECDHE+AESGCM", "alive"), ("ECDHE+CHACHA20", "alive"), ("AES128-SHA:ECDHE-RSA-AES128-SHA", "refused")],
)
def test_only_ephemeral_keys_and_authenticated_encryption(running: Secured, ciphers: str, answer: str) -> None:
    context = running.context(running.right)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(ciphers)
    assert handshake(running, context) == answer


def plaintext(node: Secured) -> bytes:
    """What it is answered: nothing."""
    # Shorter than the deadline of the handshake, which nobody has to wait for.
    with socket.create_connection(("127.0.0.1", node.port), timeout=5) as peer:
        peer.sendall(b"\x01\x00\x00\x00\x00\xc8")
        with contextlib.suppress(ConnectionResetError):
            return peer.recv(1)
    return b""


def test_plaintext_is_closed_and_counted(running: Secured) -> None:
    assert plaintext(running) == b""
    running.wait_for_refusal("it speaks no TLS on the TLS port; use TLS at the sender")

    def counted() -> int:
        with running.live.store().read() as tx:
            return sum(row.value for row in counters.listing(tx) if row.name == "connections_cut_plaintext")

    assert counted() == 1


def test_silent_clients_hold_nobody_up(running: Secured) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(12):
            stack.enter_context(socket.create_connection(("127.0.0.1", running.port), timeout=10))
        assert echo(running, running.right, "CT1") == "accepted"


def serial_number(node: Secured) -> str:
    """Of the certificate that it shows."""
    with (
        socket.create_connection(("127.0.0.1", node.port), timeout=10) as plain,
        node.context(node.right).wrap_socket(plain, server_hostname="localhost") as connection,
    ):
        return str((connection.getpeercert() or {})["serialNumber"])


def test_files_are_renewed_without_a_restart(need: Need, tmp_path: Path) -> None:
    with secured(need, tmp_path) as node:
        first = serial_number(node)
        # A bad file changes nothing.
        kept = node.server.certificate.read_bytes()
        node.server.certificate.write_text("no certificate")
        wait_for(lambda: bool(node.live.events("certificate.refused")), what="the refusal of the file")
        assert serial_number(node) == first
        node.server.certificate.write_bytes(kept)
        wait_for(lambda: len(node.live.events("certificate.renewed")) == 1, what="the old file")
        node.authority.issue("server", key=node.server.key)
        wait_for(lambda: len(node.live.events("certificate.renewed")) == 2, what="the renewal")
        assert serial_number(node) != first
        # A certificate that is renewed under its old key is still the peer's.
        renewed = node.authority.issue("right-again", key=node.right.key)
        assert renewed.key_sha256 == node.right.key_sha256
        assert echo(node, renewed, "CT1") == "accepted"


def test_each_of_two_processes_lets_in_refuses_and_renews(need: Need, tmp_path: Path) -> None:
    with secured(need, tmp_path, processes=2) as node:
        for number in (0, 1):
            file = part10_file(tmp_path / "in", sop=f"1.2.3.4.{number}")
            with node.live.only(number):
                assert "(Success)" in storescu(need, node, node.right, "CT1", file)
                assert "Association Rejected" in storescu(need, node, node.right, "MR1", file)
                assert "Association Rejected" in storescu(need, node, node.wrong, "CT1", file)
                assert handshake(node, node.context(node.untrusted)) == "refused"
                assert plaintext(node) == b""
        node.wait_for_refusal("the certificate is named for no peer")
        node.wait_for_refusal("it speaks no TLS on the TLS port")
        with node.live.store().read() as tx:
            (line,) = studies.listing(tx, limit=9)
            assert line.instance_count == 2
        first = serial_number(node)
        renewed = node.authority.issue("server", key=node.server.key)
        assert renewed.key_sha256 == node.server.key_sha256
        wait_for(lambda: len(node.live.events("certificate.renewed")) == 2, what="the renewal by both")
        for number in (0, 1):
            with node.live.only(number):
                assert serial_number(node) != first


def test_without_its_files_the_receiver_refuses_to_start(need: Need, tmp_path: Path) -> None:
    from dicomguard.errors import Refused
    from dicomguard.scp.tls import Certificates, Files

    authority = Authority(need, tmp_path)
    one, two = authority.issue("one"), authority.issue("two")
    shutil.copy(one.certificate, tmp_path / "copy.pem")
    for files in (
        Files(certificate=tmp_path / "none.pem", key=one.key, authorities=authority.certificate),
        Files(certificate=one.certificate, key=two.key, authorities=authority.certificate),
    ):
        with pytest.raises(Refused, match="belong together"):
            Certificates(files)
