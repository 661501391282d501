"""Mutated DICOM files: pydicom's own test files and synthetic studies with lying lengths, VRs, nesting, UIDs and texts.

A mutator knows where elements lie (PS3.5 7.1), so that most mutants get past the first bytes. Everything is drawn from
the generator that is given: one seed, the same files.
"""

import io
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tests import studies
from tests.fuzz.values import CHARSETS, DEEP, LENGTHS, LONG_VRS, READ, SHORTS, SYNTAXES, TEXTS, UNDEFINED, VRS
from tests.instances import PYDICOM

# Larger ones would only be slower.
MOST_SEED_BYTES = 48 << 10
# As far as a file is followed: mutations beyond would meet the same readers.
_MOST_ELEMENTS = 400


@dataclass(frozen=True, slots=True)
class Element:
    """Where one lies."""

    group: int
    number: int
    vr: bytes
    begin: int
    # Of the length field, and its width: 2 or 4.
    length_at: int
    width: int
    # Of the value; `end` is where the next begins (for undefined lengths and sequences: the first item).
    value: int
    end: int


@dataclass(frozen=True, slots=True)
class Seed:
    """A file to begin with."""

    name: str
    data: bytes
    elements: tuple[Element, ...]


@dataclass(frozen=True, slots=True)
class Mutant:
    """A file of a stranger, and how it was made."""

    recipe: str
    data: bytes


def walk(data: bytes) -> tuple[Element, ...]:
    """Elements in little endian as far as they can be followed, into sequences; empty for what is no Part 10 file."""
    if data[128:132] != b"DICM":
        return ()
    found: list[Element] = []
    explicit, at = True, 132
    while at + 8 <= len(data) and len(found) < _MOST_ELEMENTS:
        group, number = struct.unpack_from("<HH", data, at)
        if group != 2 and (not found or found[-1].group == 2):
            explicit = _is_explicit(data, found)
        element = _element(data, at, group, number, explicit=explicit or group == 2)
        if element is None:
            break
        found.append(element)
        at = element.end
    return tuple(found)


def _is_explicit(data: bytes, meta: Sequence[Element]) -> bool:
    for element in meta:
        if (element.group, element.number) == (0x0002, 0x0010):
            return data[element.value : element.end].rstrip(b"\0 ") != b"1.2.840.10008.1.2"
    return True


def _element(data: bytes, at: int, group: int, number: int, *, explicit: bool) -> Element | None:
    if group == 0xFFFE or not explicit:
        vr, length_at, width = b"", at + 4, 4
    else:
        vr = data[at + 4 : at + 6]
        length_at, width = (at + 8, 4) if vr in LONG_VRS else (at + 6, 2)
    if length_at + width > len(data):
        return None
    length = int.from_bytes(data[length_at : length_at + width], "little")
    value = length_at + width
    inside = length == UNDEFINED or vr == b"SQ" or (group == 0xFFFE and number == 0xE000)
    return Element(group, number, vr, at, length_at, width, value, value if inside else min(len(data), value + length))


def seeds() -> list[Seed]:
    """Small files of every kind that pydicom tests itself with, and studies that reach the end of the analysis."""
    files = {
        path.name: path.read_bytes()
        for path in sorted(PYDICOM.rglob("*.dcm"))
        if path.is_file() and path.stat().st_size <= MOST_SEED_BYTES
    }
    plain = studies.series(3, size=(96, 96))
    judged = {f"series-{number}": _bytes(ds) for number, ds in enumerate(plain)}
    judged["enhanced"] = _bytes(studies.enhanced(plain))
    for syntax in ("1.2.840.10008.1.2.5", "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.90"):
        judged[f"compressed-{syntax}"] = _bytes(studies.compressed(studies.series(1, size=(96, 96))[0], syntax))
    few = [Seed(name, data, walk(data)) for name, data in judged.items()]
    # The few that go all the way are drawn as often as the many that stop early.
    return [Seed(name, data, walk(data)) for name, data in files.items()] + few * (len(files) // len(few))


def _bytes(ds: studies.FileDataset) -> bytes:
    target = io.BytesIO()
    ds.file_meta.MediaStorageSOPInstanceUID, ds.file_meta.MediaStorageSOPClassUID = ds.SOPInstanceUID, ds.SOPClassUID
    ds.save_as(target, enforce_file_format=True)
    return target.getvalue()


def encoded(tag: tuple[int, int], vr: bytes, value: bytes, *, explicit: bool) -> bytes:
    """One element with the given value, padded to even length."""
    value += b"\0" * (len(value) % 2) if vr in (b"UI", b"OB", b"UN") else b" " * (len(value) % 2)
    head = struct.pack("<HH", *tag)
    if not explicit:
        return head + struct.pack("<I", len(value)) + value
    if vr in LONG_VRS:
        return head + vr + struct.pack("<2xI", len(value)) + value
    return head + vr + struct.pack("<H", len(value) & 0xFFFF) + value


class Mutator:
    """Makes mutants from seeds; what gave a new answer may be added as a seed."""

    def __init__(self, known: Sequence[Seed], rng: np.random.Generator) -> None:
        self.seeds = list(known)
        self._rng = rng
        self._ways: tuple[Callable[[bytes, tuple[Element, ...]], bytes], ...] = (
            self._vr, self._length, self._value, self._charset, self._nest, self._undefined, self._tag, self._drop,
            self._repeat, self._swap, self._truncate, self._flip, self._splice, self._syntax, self._meta, self._item,
            self._pixels, self._short, self._short, self._text, self._text, self._text,
        )  # fmt: skip

    def mutants(self, count: int) -> Iterator[Mutant]:
        """`count` files, each of one to four mutations of a seed."""
        for _ in range(count):
            seed = self.seeds[int(self._rng.integers(len(self.seeds)))]
            data, elements, recipe = seed.data, seed.elements, [seed.name]
            for _ in range(int(self._rng.integers(1, 5))):
                way = self._ways[int(self._rng.integers(len(self._ways)))]
                recipe.append(way.__name__.strip("_"))
                data = way(data, elements)
                elements = walk(data)
            yield Mutant("+".join(recipe), data)

    def _one(self, choices: Sequence[bytes]) -> bytes:
        return choices[int(self._rng.integers(len(choices)))]

    def _any(self, elements: tuple[Element, ...]) -> Element | None:
        return elements[int(self._rng.integers(len(elements)))] if elements else None

    def _vr(self, data: bytes, elements: tuple[Element, ...]) -> bytes:
        element = self._any(elements)
        if element is None or not element.vr:
            return self._flip(data, elements)
        vr = self._one(VRS) if self._rng.random() < 0.8 else self._rng.bytes(2)
        return data[: element.begin + 4] + vr + data[element.begin + 6 :]

    def _length(self, data: bytes, elements: tuple[Element, ...]) -> bytes:
        element = self._any(elements)
        if element is None:
            return self._flip(data, elements)
        length = LENGTHS[int(self._rng.integers(len(LENGTHS)))]
        if self._rng.random() < 0.4:
            length = max(0, element.end - element.value + int(self._rng.integers(-9, 10)))
        field = (length & ((1 << 8 * element.width) - 1)).to_bytes(element.width, "little")
        return data[: element.length_at] + field + data[element.value :]

    def _value(self, data: bytes, elements: tuple[Element, ...]) -> bytes:
        element = self._any(elements)
        if element is None or element.end == element.value:
            return self._flip(data, elements)
        size = min(64, element.end - element.value)
        text = self._one(TEXTS)[:size]
        noise = text if self._rng.random() < 0.5 else self._rng.bytes(size)
        return data[: element.value] + noise + data[element.value + len(noise) :]

    def _put(self, data: bytes, elements: tuple[Element, ...], tag: tuple[int, int], value: bytes) -> bytes:
        """Replace the element or insert it where it belongs."""
        explicit = any(element.vr for element in elements if element.group != 2)
        new = encoded(tag, READ.get(tag, b"LO"), value, explicit=explicit)
        for element in elements:
            place = (element.group, element.number)
            if place == tag:
                return data[: element.begin] + new + data[element.end :]
            if element.group not in (2, 0xFFFE) and place > tag:
                return data[: element.begin] + new + data[element.begin :]
        return data + new

    def _text(self, data: bytes, elements: tuple[Element, ...]) -> bytes:
        tags = list(READ)
        return self._put(data, elements, tags[int(self._rng.integers(len(tags)))], self._one(TEXTS))

    def _charset(self, data: bytes, elements: tuple[Element, ...]) -> bytes:
        data = self._put(data, elements, (0x0008, 0x0005), self._one(CHARSETS))
        return self._put(data, walk(data), (0x0010, 0x0010), self._one(TEXTS))

    def _short(self, data: bytes, elements: tuple[Element, ...]) -> bytes:
        tags = [tag for tag, vr in READ.items() if vr == b"US"]
        value = struct.pack("<H", SHORTS[int(self._rng.integers(len(SHORTS)))]) * int(self._rng.integers(1, 3))
        return self._put(data, elements, tags[int(self._rng.integers(len(tags)))], value)

    def _nest(self, data: bytes, elements: tuple[Element, ...]) -> bytes:
        element = self._any(tuple(item for item in elements if item.group not in (2, 0xFFFE)))
        if element is None:
            return data
        depth = DEEP[int(self._rng.integers(len(DEEP)))]
        head = struct.pack("<HH", element.group, element.number) + (b"SQ\0\0" if element.vr else b"")
        opened = (head + struct.pack("<I", UNDEFINED) + struct.pack("<HHI", 0xFFFE, 0xE000, UNDEFINED)) * depth
        closed = struct.pack("<HHIHHI", 0xFFFE, 0xE00D, 0, 0xFFFE, 0xE0DD, 0) * (
            depth if self._rng.random() < 0.7 else 0
        )
        return data[: element.begin] + opened + closed + data[element.begin :]

    def _undefined(self, data: bytes, elements: tuple[Element, ...]) -> bytes:
        element = self._any(tuple(item for item in elements if item.width == 4))
        if element is None:
            return self._truncate(data, elements)
        tail = struct.pack("<HHI", 0xFFFE, 0xE0DD, 0) if self._rng.random() < 0.5 else b""
        value = data[element.value : element.end]
        return data[: element.length_at] + b"\xff" * 4 + value + tail + data[element.end :]

    def _tag(self, data: bytes, elements: tuple[Element, ...]) -> bytes:
        element = self._any(elements)
        if element is None:
            return self._flip(data, elements)
        odd = (
            (0xFFFE, 0xE000),
            (0xFFFE, 0xE00D),
            (0xFFFE, 0xE0DD),
            (0, 0),
            (2, 0x10),
            (0x0009, 0x0010),
            (0xFFFF, 0xFFFF),
        )
        tags = (*odd, *READ)
        return (
            data[: element.begin]
            + struct.pack("<HH", *tags[int(self._rng.integers(len(tags)))])
            + data[element.begin + 4 :]
        )

    def _drop(self, data: bytes, elements: tuple[Element, ...]) -> bytes:
        element = self._any(elements)
        return data if element is None else data[: element.begin] + data[element.end :]

    def _repeat(self, data: bytes, elements: tuple[Element, ...]) -> bytes:
        element = self._any(elements)
        if element is None:
            return data + data[-64:]
        times = int(self._rng.integers(1, 200)) if element.end - element.begin < 64 else 1
        return data[: element.end] + data[element.begin : element.end] * times + data[element.end :]

    def _swap(self, data: bytes, elements: tuple[Element, ...]) -> bytes:
        one, other = self._any(elements), self._any(elements)
        if one is None or other is None or one.end > other.begin:
            return self._flip(data, elements)
        middle = data[one.end : other.begin]
        return (
            data[: one.begin] + data[other.begin : other.end] + middle + data[one.begin : one.end] + data[other.end :]
        )

    def _truncate(self, data: bytes, elements: tuple[Element, ...]) -> bytes:
        element = self._any(elements)
        if element is None or self._rng.random() < 0.3:
            return data[: int(self._rng.integers(len(data) + 1))]
        return data[: max(0, element.begin + int(self._rng.integers(0, 13)))]

    def _flip(self, data: bytes, elements: tuple[Element, ...]) -> bytes:
        changed = bytearray(data)
        # Most of a file are pixels; what comes before them is what readers trip over.
        limit = len(data) if self._rng.random() < 0.3 else min(len(data), 2000)
        for _ in range(int(self._rng.integers(1, 9))):
            if limit:
                changed[int(self._rng.integers(limit))] = int(self._rng.integers(256))
        return bytes(changed)

    def _splice(self, data: bytes, elements: tuple[Element, ...]) -> bytes:
        other = self.seeds[int(self._rng.integers(len(self.seeds)))]
        here, there = self._any(elements), self._any(other.elements)
        if here is None or there is None:
            return data + other.data[:200]
        return data[: here.begin] + other.data[there.begin :]

    def _syntax(self, data: bytes, elements: tuple[Element, ...]) -> bytes:
        for element in elements:
            if (element.group, element.number) == (0x0002, 0x0010):
                value = self._one(SYNTAXES) if self._rng.random() < 0.8 else self._one(TEXTS)
                return data[: element.begin] + encoded((2, 0x10), b"UI", value, explicit=True) + data[element.end :]
        return self._flip(data, elements)

    def _meta(self, data: bytes, elements: tuple[Element, ...]) -> bytes:
        changed = bytearray(data)
        for _ in range(int(self._rng.integers(1, 4))):
            if len(changed) > 400:
                changed[int(self._rng.integers(124, 400))] = int(self._rng.integers(256))
        return bytes(changed)

    def _item(self, data: bytes, elements: tuple[Element, ...]) -> bytes:
        element = self._any(tuple(item for item in elements if item.group == 0xFFFE or item.vr == b"SQ"))
        if element is None:
            return self._nest(data, elements)
        item = struct.pack("<HHI", 0xFFFE, 0xE000, LENGTHS[int(self._rng.integers(len(LENGTHS)))])
        return data[: element.value] + item * int(self._rng.integers(1, 400)) + data[element.value :]

    def _pixels(self, data: bytes, elements: tuple[Element, ...]) -> bytes:
        for element in reversed(elements):
            if (element.group, element.number) == (0x7FE0, 0x0010):
                changed = bytearray(data)
                first = min(element.value + 32, len(data))
                for _ in range(int(self._rng.integers(1, 33))):
                    at = int(self._rng.integers(element.value, len(data))) if self._rng.random() < 0.5 else first
                    changed[min(at + int(self._rng.integers(64)), len(data) - 1)] = int(self._rng.integers(256))
                return bytes(changed[: int(self._rng.integers(first, len(changed) + 1))])
        return self._flip(data, elements)


def written(folder: Path, mutant: Mutant) -> Path:
    """As a file that is replaced by the next one."""
    path = folder / "mutant.dcm"
    path.write_bytes(mutant.data)
    return path
