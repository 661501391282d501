"""An authority and certificates for tests, made by openssl."""

import hashlib
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.peers import Need


@dataclass(frozen=True)
class Holder:
    """A certificate with its key, both PEM."""

    certificate: Path
    key: Path
    # SHA-256 of the public key, as openssl says.
    key_sha256: str


class Authority:
    """Makes certificates."""

    def __init__(self, need: Need, folder: Path) -> None:
        self._openssl = need("openssl", "openssl")
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.certificate, self._key = folder / "ca.pem", folder / "ca.key"
        self._call(
            *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30"),
            *("-keyout", str(self._key), "-out", str(self.certificate), "-subj", f"/CN={folder.name}"),
        )

    def _call(self, *arguments: str) -> bytes:
        done = subprocess.run([self._openssl, *arguments], capture_output=True, timeout=30, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def issue(self, name: str, *, key: Path | None = None, days: int = 30) -> Holder:
        """A certificate of this authority, with a new key or for an old one."""
        key = key or self._folder / f"{name}.key"
        certificate, request = self._folder / f"{name}.pem", self._folder / f"{name}.csr"
        if not key.exists():
            self._call("genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", str(key))
        self._call("req", "-new", "-key", str(key), "-subj", f"/CN={name}", "-out", str(request))
        self._call(
            *("x509", "-req", "-in", str(request), "-CA", str(self.certificate), "-CAkey", str(self._key)),
            *("-CAcreateserial", "-days", str(days), "-out", str(certificate)),
        )
        public = self._call("pkey", "-in", str(key), "-pubout", "-outform", "DER")
        return Holder(certificate, key, hashlib.sha256(public).hexdigest())
