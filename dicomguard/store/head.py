"""The head of a plain dataset without a parser: raw values of a few attributes, at a hundredth of the cost.

Only what is beyond doubt is read here: little endian, ascending tags, known VRs, defined lengths, ASCII values, up to
Pixel Data and within the first 64 KiB. For everything else the answer is None, and pydicom reads the head (PS3.5 7.1).
"""

import struct
from collections.abc import Mapping
from typing import BinaryIO

HEAD_BYTES = 64 << 10
_PREAMBLE_BYTES = 132
_SYNTAX = 0x00020010
_PIXEL_DATA = 0x7FE00010
_EXPLICIT = b"1.2.840.10008.1.2.1"
_IMPLICIT = b"1.2.840.10008.1.2"
# Compressed pixels lie in an explicit little endian dataset (PS3.5 A.4); the deflated one and big endian are others.
_COMPRESSED = b"1.2.840.10008.1.2.4."
_RLE = b"1.2.840.10008.1.2.5"
_SHORT = frozenset(name.encode() for name in "AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split())
_LONG = frozenset(name.encode() for name in "OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
_UNDEFINED = 0xFFFFFFFF
_EXPLICIT_SHORT, _EXPLICIT_LONG, _IMPLICIT_HEAD = struct.Struct("<HH2sH"), struct.Struct("<I"), struct.Struct("<HHI")


def plain(value: bytes) -> bool:
    """Whether a value means the same in every character set: ASCII without escape sequences (PS3.5 6.1.2.5)."""
    return value.isascii() and b"\x1b" not in value


def scan(file: BinaryIO, wanted: Mapping[int, bytes]) -> dict[int, bytes] | None:
    """Values of the wanted tags (with their VRs) of a Part 10 file at its beginning; None where it is not plain."""
    data = file.read(HEAD_BYTES)
    if data[128:_PREAMBLE_BYTES] != b"DICM":
        return None
    found: dict[int, bytes] = {}
    at = _walk(data, _PREAMBLE_BYTES, {_SYNTAX: b"UI"}, found, explicit=True, meta=True)
    syntax = found.pop(_SYNTAX, b"").rstrip(b"\0 ")
    if at is None or not _is_known(syntax):
        return None
    end = _walk(data, at, wanted, found, explicit=syntax != _IMPLICIT, meta=False)
    return None if end is None else found


def _is_known(syntax: bytes) -> bool:
    return syntax in (_EXPLICIT, _IMPLICIT, _RLE) or syntax.startswith(_COMPRESSED)


def _walk(
    data: bytes, at: int, wanted: Mapping[int, bytes], found: dict[int, bytes], *, explicit: bool, meta: bool
) -> int | None:
    """Fill `found` and return where the file meta information ends, or the head; None at anything unusual."""
    last = -1
    whole = len(data)
    while at < whole:
        if at + 8 > whole:
            return None
        if explicit:
            group, number, vr, length = _EXPLICIT_SHORT.unpack_from(data, at)
        else:
            group, number, length = _IMPLICIT_HEAD.unpack_from(data, at)
            vr = b""
        tag = group << 16 | number
        if tag == _PIXEL_DATA or (meta and group != 2):
            return at
        if tag <= last or tag > _PIXEL_DATA:
            return None
        last = tag
        at += 8
        if vr in _LONG:
            if at + 4 > whole:
                return None
            (length,) = _EXPLICIT_LONG.unpack_from(data, at)
            at += 4
        elif explicit and vr not in _SHORT:
            return None
        if length == _UNDEFINED or length > whole - at:
            return None
        if tag in wanted:
            value = data[at : at + length]
            if (explicit and vr != wanted[tag]) or not plain(value):
                return None
            found[tag] = value
        at += length
    # The end of the file, unless the file goes on behind what was read.
    return at if whole < HEAD_BYTES else None
