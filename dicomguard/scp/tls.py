"""TLS on its own port (BCP 195, PS3.15 B.9 and successors): 1.2 at least, ECDHE with AEAD, a client certificate always.

A certificate counts by the SHA-256 of its public key, so that a renewed one with the same key needs no new
configuration. The files are read again when they change; a bad change leaves the old ones in force.
"""

import hashlib
import socket
import ssl
from dataclasses import dataclass
from pathlib import Path

from dicomguard import log
from dicomguard.errors import Refused

_LOG = log.get("scp")
_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
# First byte of a handshake record (RFC 8446 5.1).
_HANDSHAKE_RECORD = 0x16
# Parts of a TBSCertificate before its public key (RFC 5280 4.1): serial number, algorithm, issuer, validity, subject.
_BEFORE_KEY = 5
_VERSION_TAG, _SEQUENCE_TAG = 0xA0, 0x30

# What to do about a failed handshake, by OpenSSL's word for it.
_REMEDIES = {
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "it shows no certificate; give the sender one, and its authority to us",
    "UNSUPPORTED_PROTOCOL": "it offers no TLS 1.2 or 1.3; turn that on at the sender",
    "NO_SHARED_CIPHER": "it offers no ECDHE suite with AES-GCM or ChaCha20; turn one on at the sender",
    "TLSV1_ALERT_UNKNOWN_CA": "it does not trust our certificate; give our authority to the sender",
    "SSLV3_ALERT_BAD_CERTIFICATE": "it does not take our certificate; look at its log",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": "it does not take our certificate; look at its log",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Files:
    """PEM files: our certificate with its chain, its key, and whom we trust to vouch for peers."""

    certificate: Path
    key: Path
    authorities: Path


class Certificates:
    """The context of new connections; `renew` reads the files again when they changed."""

    def __init__(self, files: Files) -> None:
        """Raises `Refused` when the files are of no use."""
        self._files = files
        self._stamp = self._stamps()
        self.context = _context(files)

    def _stamps(self) -> tuple[tuple[int, int, int], ...]:
        found = []
        for path in (self._files.certificate, self._files.key, self._files.authorities):
            try:
                state = path.stat()
                found.append((state.st_ino, state.st_mtime_ns, state.st_size))
            except OSError:
                found.append((0, 0, 0))
        return tuple(found)

    def renew(self, *, anyway: bool = False) -> None:
        """New connections get the new files; running ones keep what they have."""
        stamp = self._stamps()
        if stamp == self._stamp and not anyway:
            return
        self._stamp = stamp
        try:
            self.context = _context(self._files)
        except Refused as error:
            _LOG.error("certificate.refused", reason=str(error))
            return
        _LOG.event("certificate.renewed", file=self._files.certificate.name)


def _context(files: Files) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_CIPHERS)
    context.verify_mode = ssl.CERT_REQUIRED
    # No session is resumed: each connection shows its certificate under the authorities of now.
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_TICKET
    context.num_tickets = 0
    try:
        context.load_cert_chain(files.certificate, files.key)
        context.load_verify_locations(files.authorities)
    except (OSError, ValueError) as error:
        what = getattr(error, "reason", None) or getattr(error, "strerror", None) or "not PEM"
        raise Refused(
            f"Certificate, key or authorities of [tls] cannot be used ({what}): {files.certificate}, {files.key}, "
            f"{files.authorities}. Name PEM files that exist and belong together."
        ) from None
    return context


def speaks_tls(connected: socket.socket) -> bool | None:
    """Whether the first byte is of a handshake; it is left where it is. None when the peer hung up before it."""
    first = connected.recv(1, socket.MSG_PEEK)
    return first == bytes([_HANDSHAKE_RECORD]) if first else None


def reason_of(error: OSError) -> str:
    """A failed handshake in words, with what to do."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return (
            f"its certificate is not trusted ({error.verify_message}); "
            "renew it, or add its authority to authorities of [tls]"
        )
    word = getattr(error, "reason", None) or "the connection ended"
    return _REMEDIES.get(str(word), f"the TLS handshake failed ({word}); look at the log of the sender")


def key_sha256(certificate: bytes) -> str:
    """SHA-256 of the Subject Public Key Info in a DER certificate, in hex (RFC 7469 2.4). Raises `Refused`."""
    try:
        tbs = _inside(_inside(certificate, 0)[0], 0)[0]
        at = _inside(tbs, 0)[1] if tbs[0] == _VERSION_TAG else 0
        for _ in range(_BEFORE_KEY):
            at = _inside(tbs, at)[1]
        end = _inside(tbs, at)[1]
        if tbs[at] != _SEQUENCE_TAG or end > len(tbs):
            raise IndexError
    except IndexError:
        raise Refused("A certificate has no public key where one belongs. Make a new one.") from None
    return hashlib.sha256(tbs[at:end]).hexdigest()


def _inside(der: bytes, at: int) -> tuple[bytes, int]:
    """Content of the DER value at an offset, and the offset behind it (X.690 8.1)."""
    length, start = der[at + 1], at + 2
    if length & 0x80:
        count = length & 0x7F
        length = int.from_bytes(der[start : start + count], "big")
        start += count
    return der[start : start + length], start + length
