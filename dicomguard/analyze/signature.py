"""Digital signatures in a dataset (PS3.15 C, PS3.3 C.12.1.1.3): is the MAC of the signed attributes the signed one?

Checked: RSA signatures (PKCS #1 v1.5) of the dataset itself over MD5, RIPEMD-160, SHA-1 and SHA-2, with the key of the
certificate beside them. Not checked: who the certificate belongs to, whether somebody vouches for it, its dates, time
stamps, other kinds of keys, and signatures inside sequences; what cannot be checked is "unchecked", never "broken".
"""

import hashlib
import hmac
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

import pydicom
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_data_element
from pydicom.tag import BaseTag, Tag
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian

Outcome: TypeAlias = Literal["valid", "broken", "unchecked"]

# MAC Algorithm (0400,0015) → name in hashlib and prefix of DigestInfo (RFC 8017 9.2).
_ALGORITHMS = {
    "RIPEMD160": ("ripemd160", bytes.fromhex("3021300906052b2403020105000414")),
    "MD5": ("md5", bytes.fromhex("3020300c06082a864886f70d020505000410")),
    "SHA1": ("sha1", bytes.fromhex("3021300906052b0e03021a05000414")),
    "SHA256": ("sha256", bytes.fromhex("3031300d060960864801650304020105000420")),
    "SHA384": ("sha384", bytes.fromhex("3041300d060960864801650304020205000430")),
    "SHA512": ("sha512", bytes.fromhex("3051300d060960864801650304020305000440")),
}
_RSA = bytes.fromhex("2a864886f70d010101")
_ITEM, _END = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0"
# Of the signature itself all goes into the MAC but certificate, signature and time stamps (C.12.1.1.3.1.2).
_OUTSIDE = frozenset({0x04000115, 0x04000120, 0x04000305, 0x04000310})
_LONG = frozenset("OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
# Signatures of one dataset that are looked at.
_MOST = 16
_UNDEFINED = 0xFFFFFFFF
# A longer key would keep the decoder busy.
_MOST_BYTES = 1024
_PIXELS = Tag(0x7FE0, 0x0010)


class _UncheckableError(Exception):
    """The signature is of a kind that is not checked here."""


def check(dataset: pydicom.Dataset) -> list[Outcome]:
    """The outcome of each signature of the dataset, in order; empty for an unsigned one."""
    if "DigitalSignaturesSequence" not in dataset:
        return []
    name = getattr(dataset, "filename", None)
    # Bytes as they were received: attributes that were looked at are kept decoded.
    fresh = pydicom.dcmread(name) if name else dataset
    items = fresh.DigitalSignaturesSequence
    return [_outcome(fresh, item) for item in items[:_MOST]] if isinstance(items, pydicom.Sequence) else ["unchecked"]


def _outcome(dataset: pydicom.Dataset, item: pydicom.Dataset) -> Outcome:
    try:
        parameters = next(p for p in dataset.MACParametersSequence if p.MACIDNumber == item.MACIDNumber)
        name, prefix = _ALGORITHMS[str(parameters.MACAlgorithm)]
        tags = parameters.DataElementsSigned
        several = isinstance(tags, list | pydicom.multival.MultiValue)
        stream = b"".join(_signed(dataset, list(tags) if several else [tags]))
        key = _key(bytes(item.CertificateOfSigner))
        _comparable(dataset, str(parameters.MACCalculationTransferSyntaxUID), stream)
        stream += b"".join(_encoded(item, tag) for tag in sorted(item.keys()) if tag not in _OUTSIDE)
        digest = hashlib.new(name, stream, usedforsecurity=False).digest()
        return "valid" if _is_of(bytes(item.Signature), key, prefix + digest) else "broken"
    except _MissingError:
        return "broken"
    except (_UncheckableError, StopIteration, KeyError, AttributeError, ValueError, IndexError, TypeError):
        return "unchecked"


class _MissingError(Exception):
    """An attribute that was signed is not there any more."""


def _signed(dataset: pydicom.Dataset, tags: "list[BaseTag]") -> Iterator[bytes]:
    for tag in tags:
        if tag not in dataset:
            raise _MissingError
        yield _encoded(dataset, Tag(tag))


def _comparable(dataset: pydicom.Dataset, syntax: str, stream: bytes) -> None:
    """The MAC is of one encoding of the pixels; those of another cannot be compared."""
    own = str(dataset.file_meta.TransferSyntaxUID)
    plain = (ImplicitVRLittleEndian, "1.2.840.10008.1.2.1", DeflatedExplicitVRLittleEndian)
    if own == ExplicitVRBigEndian or syntax == ExplicitVRBigEndian:
        raise _UncheckableError
    pixels = _PIXELS.to_bytes(4, "big")
    touched = pixels[1::-1] + pixels[:1:-1] in stream
    if touched and own != syntax and not (own in plain and syntax in plain):
        raise _UncheckableError


def _encoded(dataset: pydicom.Dataset, tag: BaseTag) -> bytes:
    """An element as it goes into the MAC: Explicit VR Little Endian; sequences and fragments without any length."""
    raw: DataElement | RawDataElement = dataset.get_item(tag)
    vr = raw.VR or (dictionary_VR(tag) if not tag.is_private else "UN")
    head = tag.group.to_bytes(2, "little") + tag.element.to_bytes(2, "little") + vr.encode("ascii")
    if vr == "SQ":
        inner = (
            _ITEM + b"".join(_encoded(item, inside) for inside in sorted(item.keys())) for item in dataset[tag].value
        )
        return head + b"\0\0" + b"".join(inner) + _END
    undefined = raw.length == _UNDEFINED if isinstance(raw, RawDataElement) else raw.is_undefined_length
    if undefined:
        return head + b"\0\0" + b"".join(_ITEM + fragment for fragment in _fragments(raw.value or b"")) + _END
    if isinstance(raw, RawDataElement) and raw.VR and raw.is_little_endian:
        value = raw.value or b""
        value += b"\0" * (len(value) % 2)
        size = b"\0\0" + len(value).to_bytes(4, "little") if vr in _LONG else len(value).to_bytes(2, "little")
        return head + size + value
    return _written(dataset[tag])


def _written(element: DataElement) -> bytes:
    if " or " in element.VR:
        raise _UncheckableError
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, False
    write_data_element(buffer, element)
    return bytes(buffer.getvalue())


def _fragments(value: bytes) -> Iterator[bytes]:
    place = 0
    while value[place : place + 4] == _ITEM:
        size = int.from_bytes(value[place + 4 : place + 8], "little")
        yield value[place + 8 : place + 8 + size]
        place += 8 + size


@dataclass(frozen=True, slots=True, kw_only=True)
class _Key:
    modulus: int
    exponent: int


def _key(certificate: bytes) -> _Key:
    """The RSA key of an X.509 certificate (RFC 5280 4.1)."""
    body = next(_values(certificate))
    fields = list(_values(next(_values(body))))
    # Version, serial number, algorithm, issuer, validity, subject, key; the first version leaves the version out.
    algorithm, bits = _values(fields[6 if _tagged(body) else 5])
    if next(_values(algorithm)) != _RSA:
        raise _UncheckableError
    (numbers,) = _values(bits[1:])
    modulus, exponent = (int.from_bytes(number, "big") for number in _values(numbers))
    return _Key(modulus=modulus, exponent=exponent)


def _tagged(body: bytes) -> bool:
    return next(_values(body))[:1] == b"\xa0"


def _values(data: bytes) -> Iterator[bytes]:
    """The contents of DER elements one after the other."""
    place = 0
    while place < len(data):
        size, place = data[place + 1], place + 2
        if size & 0x80:
            count = size & 0x7F
            size, place = int.from_bytes(data[place : place + count], "big"), place + count
        if place + size > len(data):
            raise _UncheckableError
        yield data[place : place + size]
        place += size


def _is_of(signature: bytes, key: _Key, digest_info: bytes) -> bool:
    size = (key.modulus.bit_length() + 7) // 8
    if not len(digest_info) + 11 <= size <= _MOST_BYTES or len(signature) < size or key.exponent >= 1 << 32:
        raise _UncheckableError
    opened = pow(int.from_bytes(signature[:size], "big"), key.exponent, key.modulus).to_bytes(size, "big")
    expected = b"\0\x01" + b"\xff" * (size - len(digest_info) - 3) + b"\0" + digest_info
    return hmac.compare_digest(opened, expected)
