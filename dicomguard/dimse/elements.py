"""Elements of a dataset one after the other, without building it (PS3.5 7.1 and 7.5).

A parser makes a thousand bytes of objects from an item of eight; whoever reads a stranger's nested dataset in a process
that must stay small goes through it with this.
"""

import struct
from collections.abc import Collection, Iterator
from typing import NamedTuple

from dicomguard.errors import Refused

ITEM = 0xFFFEE000
_ITEM_END, _SEQUENCE_END = 0xFFFEE00D, 0xFFFEE0DD
_UNDEFINED = 0xFFFFFFFF
# Sequences in sequences; and elements and items in all.
MOST_DEPTH = 8
MOST_ELEMENTS = 200_000
# Their length has four bytes behind two that are reserved.
_LONG = frozenset(name.encode() for name in "OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
_TAG, _SHORT, _WORD = struct.Struct("<HH"), struct.Struct("<H"), struct.Struct("<I")


class Element(NamedTuple):
    """An element or the begin of an item."""

    # 0 outside of sequences, 1 for an item of one of these, 2 for an element in it, and so on.
    depth: int
    tag: int
    # None for a sequence and an item: what is in them follows.
    value: memoryview | None


class _Level(NamedTuple):
    """What is being gone through: a dataset, or a sequence."""

    # None: a delimiter ends it.
    end: int | None
    of_items: bool
    explicit: bool


def walk(content: memoryview, *, explicit: bool, sequences: Collection[int]) -> Iterator[Element]:
    """All of a little endian dataset; a sequence of defined length is entered when it is one of `sequences`.

    Raises `Refused` for what is no dataset, and for one that is nested too deeply or has too many elements.
    """
    levels = [_Level(end=len(content), of_items=False, explicit=explicit)]
    at = 0
    for _ in range(MOST_ELEMENTS):
        while levels and levels[-1].end == at:
            levels.pop()
        if not levels:
            return
        level, depth = levels[-1], len(levels) - 1
        most = next(one.end for one in reversed(levels) if one.end is not None)
        tag, vr, length, at = _head(content, at, most, explicit=level.explicit)
        if tag in (_ITEM_END, _SEQUENCE_END):
            if level.end is not None or (tag == _SEQUENCE_END) != level.of_items or length:
                raise _broken(at)
            levels.pop()
            continue
        if level.of_items != (tag == ITEM):
            raise _broken(at)
        if length != _UNDEFINED and length > most - at:
            raise _broken(at)
        nested = level.of_items or length == _UNDEFINED or tag in sequences
        yield Element(depth, tag, None if nested else content[at : at + length])
        if not nested:
            at += length
            continue
        if depth >= 2 * MOST_DEPTH:
            raise Refused(f"The dataset has sequences in sequences, more than {MOST_DEPTH} deep.")
        end = None if length == _UNDEFINED else at + length
        # PS3.5 6.2.2, note 2: what has no VR of its own is implicit.
        levels.append(_Level(end=end, of_items=not level.of_items, explicit=level.explicit and vr != b"UN"))
    raise Refused(f"The dataset has more than {MOST_ELEMENTS} elements.")


def _head(content: memoryview, at: int, most: int, *, explicit: bool) -> tuple[int, bytes, int, int]:
    """Tag, VR ("" in an implicit dataset and for items), length, and where the value begins."""
    if at + 8 > most:
        raise _broken(at)
    group, number = _TAG.unpack_from(content, at)
    tag = group << 16 | number
    if not explicit or group == 0xFFFE:
        return tag, b"", _WORD.unpack_from(content, at + 4)[0], at + 8
    vr = bytes(content[at + 4 : at + 6])
    if vr not in _LONG:
        return tag, vr, _SHORT.unpack_from(content, at + 6)[0], at + 8
    if at + 12 > most:
        raise _broken(at)
    return tag, vr, _WORD.unpack_from(content, at + 8)[0], at + 12


def _broken(at: int) -> Refused:
    return Refused(f"The dataset cannot be read at byte {at}. Correct it at its sender.")
