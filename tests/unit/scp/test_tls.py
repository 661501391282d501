import ssl
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicomguard.errors import Refused
from dicomguard.scp.tls import key_sha256
from tests.certificates import Authority
from tests.peers import Need


def test_the_key_of_a_certificate_is_that_of_openssl(need: Need, tmp_path: Path) -> None:
    authority = Authority(need, tmp_path)
    holder = authority.issue("one")
    assert key_sha256(ssl.PEM_cert_to_DER_cert(holder.certificate.read_text())) == holder.key_sha256
    # An elliptic curve key, and a certificate that signs itself.
    assert key_sha256(ssl.PEM_cert_to_DER_cert(authority.certificate.read_text())) != holder.key_sha256


@given(st.binary(max_size=200))
def test_anything_is_a_key_or_refused(content: bytes) -> None:
    try:
        assert len(key_sha256(content)) == 64
    except Refused:
        return


def test_a_certificate_cut_off_is_refused(need: Need, tmp_path: Path) -> None:
    holder = Authority(need, tmp_path).issue("one")
    whole = ssl.PEM_cert_to_DER_cert(holder.certificate.read_text())
    with pytest.raises(Refused, match="no public key"):
        key_sha256(whole[:40])
