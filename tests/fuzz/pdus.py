"""Mutated associations: streams of PDUs from pynetdicom's encoders with lying lengths, types, ids, order and cuts.

A stream is a list of byte strings, one a PDU as its sender meant it; what a mutation does to one, the receiver has to
find out. Everything is drawn from the generator that is given.
"""

import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from tests.fuzz import wire
from tests.instances import MR, part10_bytes

CT = "1.2.840.10008.5.1.4.1.1.2"
COMMITMENT = "1.2.840.10008.1.20.1"
CALLING = "CT1"
LENGTHS = (0, 1, 2, 3, 4, 5, 6, 7, 67, 68, 69, 0xFF, 0xFFFF, 0x1FFFF, 0x20000, 0x20001, 0x3FFFA, 0x40000, 0x7FFFFFFF)
LENGTHS_32 = (*LENGTHS, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)
LENGTHS_16 = tuple(length for length in LENGTHS if length <= 0xFFFF)
BYTES = (
    0,
    1,
    2,
    3,
    4,
    5,
    7,
    8,
    0x10,
    0x20,
    0x21,
    0x30,
    0x40,
    0x50,
    0x51,
    0x52,
    0x54,
    0x55,
    0x58,
    0x7F,
    0x80,
    0xFE,
    0xFF,
)
# Of C-STORE and its like (PS3.7 Annex E), of nothing, and of responses.
FIELDS = (
    0x0001,
    0x0010,
    0x0020,
    0x0021,
    0x0030,
    0x0100,
    0x0110,
    0x0120,
    0x0130,
    0x0140,
    0x0150,
    0x0FFF,
    0x8001,
    0x8030,
    0xFFFF,
    0,
)
# Fixed part of an A-ASSOCIATE-RQ with the header of its PDU.
_ITEMS_AT = 74

Stream = tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Mutant:
    """What a peer sends, PDU by PDU, and how it was made; `whole` when nothing about it is wrong."""

    recipe: str
    stream: Stream
    whole: bool = False


def dataset() -> bytes:
    """A small MR image, explicit VR little endian, without file meta information."""
    data = part10_bytes(pixels=bytes(range(16)) * 40, Rows=16, Columns=40)
    return data[144 + int.from_bytes(data[140:144], "little") :]


def seeds() -> list[Stream]:
    """Ordinary associations of several kinds."""
    contexts = [
        (wire.VERIFICATION, wire.IMPLICIT),
        (MR, wire.EXPLICIT),
        (CT, wire.IMPLICIT),
        (COMMITMENT, wire.EXPLICIT),
    ]
    opened = wire.associate_rq(contexts, calling=CALLING)
    many = wire.associate_rq([(MR, wire.EXPLICIT)] * 20, calling=CALLING)
    echo = tuple(wire.c_echo_rq(context_id=1))
    store = tuple(wire.c_store_rq(dataset(), sop_class=MR, sop_instance="1.2.3.4", context_id=3, max_pdu_bytes=256))
    one_pdu = _joined(wire.c_store_rq(dataset(), sop_class=MR, sop_instance="1.2.3.5", context_id=3))
    release, abort = wire.release_rq(), wire.abort()
    return [
        (opened, release),
        (opened, *echo, release),
        (opened, *store, release),
        (opened, one_pdu, release),
        (opened, *store, *echo, *store, release),
        (opened, *store[:3], abort),
        (opened, abort),
        (many, one_pdu, release),
        *((opened, _with_field(echo[0], field), release) for field in FIELDS),
    ]


def _joined(pdus: Sequence[bytes]) -> bytes:
    """All PDVs in one P-DATA-TF."""
    body = b"".join(pdu[6:] for pdu in pdus)
    return struct.pack(">BxI", wire.P_DATA, len(body)) + body


def _with_field(pdu: bytes, field: int) -> bytes:
    """The command of another request or response."""
    at = pdu.index(b"\x00\x00\x00\x01\x02\x00\x00\x00") + 8
    return pdu[:at] + struct.pack("<H", field) + pdu[at + 2 :]


def pieces(data: bytes, rng: np.random.Generator, *, max_pdu_bytes: int) -> list[bytes]:
    """P-DATA-TFs of one C-STORE request, cut into PDVs and PDUs at random places."""
    command, *_ = wire.c_store_rq(b"", sop_class=MR, sop_instance="1.2.3.6", context_id=3)
    command = _with_dataset(command)
    parts = [*_cut(command[12:], 0x01, rng), *_cut(data, 0x00, rng)]
    pdus, body = [], b""
    for part in parts:
        if body and (len(body) + len(part) > max_pdu_bytes or rng.random() < 0.5):
            pdus.append(struct.pack(">BxI", wire.P_DATA, len(body)) + body)
            body = b""
        body += part
    return [*pdus, struct.pack(">BxI", wire.P_DATA, len(body)) + body]


def _with_dataset(pdu: bytes) -> bytes:
    at = pdu.index(b"\x00\x00\x00\x08\x02\x00\x00\x00") + 8
    return pdu[:at] + b"\x01\x00" + pdu[at + 2 :]


def _cut(data: bytes, kind: int, rng: np.random.Generator) -> list[bytes]:
    """PDVs of a command set (kind 1) or a dataset (kind 0)."""
    places = sorted({0, *(int(at) for at in rng.integers(0, len(data) + 1, int(rng.integers(0, 9))))} - {len(data)})
    found = []
    for begin, end in zip(places, [*places[1:], len(data)], strict=True):
        control = kind | (0x02 if end == len(data) else 0)
        found.append(struct.pack(">IBB", 2 + end - begin, 3, control) + data[begin:end])
    return found


class Mutator:
    """Makes mutants from seeds; a stream that met something new may be added as a seed."""

    def __init__(self, known: Sequence[Stream], rng: np.random.Generator) -> None:
        self.seeds = list(known)
        self._rng = rng
        self._dataset = dataset()
        self._ways: tuple[Callable[[list[bytes]], None], ...] = (
            self._type, self._length, self._reserved, self._drop, self._repeat, self._swap, self._borrow, self._cut_off,
            self._flip, self._flip, self._pdv, self._pdv, self._pdv, self._item, self._item, self._command,
            self._command, self._garbage, self._titles, self._flood, self._padded, self._split,
        )  # fmt: skip

    def mutants(self, count: int) -> Iterator[Mutant]:
        """`count` streams; every sixteenth is sound, but cut into PDVs at random."""
        for number in range(count):
            if number % 16 == 15:
                opened, release = self.seeds[0]
                store = pieces(self._dataset, self._rng, max_pdu_bytes=int(self._rng.integers(64, 8192)))
                yield Mutant("sound", (opened, *store, release), whole=True)
                continue
            stream = list(self.seeds[self._below(len(self.seeds))])
            recipe = []
            for _ in range(1 + self._below(3)):
                way = self._ways[self._below(len(self._ways))]
                recipe.append(way.__name__.strip("_"))
                way(stream)
            yield Mutant("+".join(recipe), tuple(stream))

    def _below(self, limit: int) -> int:
        return int(self._rng.integers(limit))

    def _place(self, stream: list[bytes]) -> int:
        """Of a PDU; those after the first meet more states."""
        return self._below(len(stream)) if self._rng.random() < 0.8 or not stream else 0

    def _put(self, stream: list[bytes], at: int, offset: int, value: bytes) -> None:
        pdu = stream[at]
        stream[at] = pdu[:offset] + value + pdu[offset + len(value) :]

    def _type(self, stream: list[bytes]) -> None:
        self._put(stream, self._place(stream), 0, bytes((BYTES[self._below(len(BYTES))],)))

    def _length(self, stream: list[bytes]) -> None:
        at = self._place(stream)
        length = LENGTHS_32[self._below(len(LENGTHS_32))]
        if self._rng.random() < 0.4:
            length = max(0, len(stream[at]) - 6 + self._below(13) - 6)
        self._put(stream, at, 2, struct.pack(">I", length))

    def _reserved(self, stream: list[bytes]) -> None:
        self._put(stream, self._place(stream), 1, bytes((self._below(256),)))

    def _drop(self, stream: list[bytes]) -> None:
        if len(stream) > 1:
            del stream[self._place(stream)]

    def _repeat(self, stream: list[bytes]) -> None:
        at = self._place(stream)
        stream[at:at] = [stream[at]] * (1 + self._below(4))

    def _swap(self, stream: list[bytes]) -> None:
        one, other = self._place(stream), self._place(stream)
        stream[one], stream[other] = stream[other], stream[one]

    def _borrow(self, stream: list[bytes]) -> None:
        other = self.seeds[self._below(len(self.seeds))]
        stream.insert(self._below(len(stream) + 1), other[self._below(len(other))])

    def _cut_off(self, stream: list[bytes]) -> None:
        at = self._place(stream)
        stream[at] = stream[at][: self._below(len(stream[at]) + 1)]
        if self._rng.random() < 0.5:
            del stream[at + 1 :]

    def _flip(self, stream: list[bytes]) -> None:
        at = self._place(stream)
        changed = bytearray(stream[at])
        for _ in range(1 + self._below(4)):
            if changed:
                changed[self._below(min(len(changed), 300))] = self._below(256)
        stream[at] = bytes(changed)

    def _pdv(self, stream: list[bytes]) -> None:
        """Length, context id or control header of a PDV, or an empty or one more PDV."""
        places = [at for at, pdu in enumerate(stream) if pdu[:1] == b"\x04" and len(pdu) >= 12]
        if not places:
            return self._flip(stream)
        at = places[self._below(len(places))]
        match self._below(5):
            case 0:
                length = LENGTHS_32[self._below(len(LENGTHS_32))]
                self._put(stream, at, 6, struct.pack(">I", length))
            case 1:
                self._put(stream, at, 10, bytes((BYTES[self._below(len(BYTES))],)))
            case 2:
                self._put(stream, at, 11, bytes((self._below(5) if self._rng.random() < 0.8 else self._below(256),)))
            case 3:
                self._put(stream, at, 6, struct.pack(">I", max(0, len(stream[at]) - 10 + self._below(5) - 2)))
            case _:
                extra = struct.pack(">IBB", 2, 3, self._below(4)) * (1 + self._below(20))
                body = stream[at][6:] + extra if self._rng.random() < 0.5 else extra + stream[at][6:]
                stream[at] = struct.pack(">BxI", wire.P_DATA, len(body)) + body
        return None

    def _item(self, stream: list[bytes]) -> None:
        """Type or length of an item of the A-ASSOCIATE-RQ, its value, one more or one less (PS3.8 9.3.2)."""
        pdu = stream[0]
        places = list(_item_places(pdu))
        if not places:
            return self._flip(stream)
        begin, end = places[self._below(len(places))]
        match self._below(6):
            case 0:
                self._put(stream, 0, begin, bytes((BYTES[self._below(len(BYTES))],)))
            case 1:
                self._put(stream, 0, begin + 2, struct.pack(">H", LENGTHS_16[self._below(len(LENGTHS_16))]))
            case 2:
                self._put(stream, 0, begin + 4, self._rng.bytes(min(8, max(1, end - begin - 4))))
            case 3:
                self._resize(stream, pdu[:begin] + pdu[end:])
            case 4:
                self._resize(stream, pdu[:end] + pdu[begin:end] * (1 + self._below(150)) + pdu[end:])
            case _:
                kind = BYTES[self._below(len(BYTES))]
                value = self._rng.bytes(self._below(40))
                self._resize(stream, pdu[:end] + struct.pack(">BxH", kind, len(value)) + value + pdu[end:])
        return None

    def _resize(self, stream: list[bytes], pdu: bytes) -> None:
        """With the length that it has now."""
        stream[0] = pdu[:2] + struct.pack(">I", len(pdu) - 6) + pdu[6:]

    def _command(self, stream: list[bytes]) -> None:
        """An element of a command set: its number, its length or its value."""
        places = [at for at, pdu in enumerate(stream) if pdu[:1] == b"\x04" and len(pdu) > 30 and pdu[11] & 1]
        if not places:
            return self._pdv(stream)
        at = places[self._below(len(places))]
        offsets, offset = [], 12
        while offset + 8 <= len(stream[at]) and len(offsets) < 30:
            offsets.append(offset)
            offset += 8 + int.from_bytes(stream[at][offset + 4 : offset + 8], "little")
        offset = offsets[self._below(len(offsets))]
        match self._below(4):
            case 0:
                self._put(
                    stream, at, offset, struct.pack("<HH", self._below(3), (0, 0x100, 0x110, 0x800)[self._below(4)])
                )
            case 1:
                self._put(stream, at, offset + 4, struct.pack("<I", LENGTHS_32[self._below(len(LENGTHS_32))]))
            case 2:
                self._put(stream, at, offset + 8, struct.pack("<H", FIELDS[self._below(len(FIELDS))]))
            case _:
                self._put(stream, at, offset + 8, self._rng.bytes(1 + self._below(20)))
        return None

    def _garbage(self, stream: list[bytes]) -> None:
        texts = (b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\x00", b"SSH-2.0-x\r\n", bytes(600), b"\xff" * 600)
        stream.insert(self._below(len(stream) + 1), texts[self._below(len(texts))])

    def _titles(self, stream: list[bytes]) -> None:
        """AE titles and protocol version."""
        title = (
            b" " * 16,
            b"\0" * 16,
            b"\xff" * 16,
            b"DICOMGUARD\\\r\n  ",
            b"CT1\0\0\0\0\0\0\0\0\0\0\0\0\0",
            self._rng.bytes(16),
        )
        self._put(stream, 0, (10, 26, 6)[self._below(3)], title[self._below(len(title))])

    def _flood(self, stream: list[bytes]) -> None:
        """Many times the smallest PDU that says nothing."""
        empty = struct.pack(">BxIIBB", wire.P_DATA, 6, 2, 3, self._below(4))
        stream[len(stream) - 1 : len(stream) - 1] = [empty * (1 + self._below(400))]

    def _padded(self, stream: list[bytes]) -> None:
        at = self._place(stream)
        stream[at] += self._rng.bytes(1 + self._below(20))

    def _split(self, stream: list[bytes]) -> None:
        """The order of two halves of a PDU."""
        at = self._place(stream)
        middle = self._below(len(stream[at]) + 1)
        stream[at] = stream[at][middle:] + stream[at][:middle]


def _item_places(pdu: bytes) -> Iterator[tuple[int, int]]:
    """Begin and end of the items of an A-ASSOCIATE-RQ and of the items inside of contexts and user information."""
    at = _ITEMS_AT
    while at + 4 <= len(pdu):
        kind, length = struct.unpack_from(">BxH", pdu, at)
        yield at, min(len(pdu), at + 4 + length)
        # Into what holds items; past what holds none.
        at += {0x20: 8, 0x50: 4}.get(kind, 4 + length)
