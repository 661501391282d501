"""Noise that occurs twice: the same residual in two slices, the same strip of background in two places.

Noise never repeats; tissue does, so signs of a residual are compared, in blocks, and not its size.
"""

from collections.abc import Iterable, Sequence
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from dicomguard.analyze.evidence.facts import Facts, Found
from dicomguard.analyze.evidence.plane import Mask, Plane, usual, widened

# By block: signs of the residual, packed, and whether they tell something.
Signs: TypeAlias = tuple[NDArray[np.uint8], Mask]
# Hashes and their rows.
Strips: TypeAlias = tuple[NDArray[np.uint64], NDArray[np.int32]]

_KB = np.array([[-1, 2, -1], [2, -4, 2], [-1, 2, -1]], dtype=np.float32) / 4
_BLOCK = 32
# Of the 1,024 signs of a block so many are compared, the same in each: chance agrees in 0.5 ± 0.03 of them.
_SIGNS = 256
# Blocks of authentic slices agree in 0.77 of the signs at most (neighbours of thin sagittal slices).
_AGREE = 0.85
_FEWEST_BLOCKS = 2
_IN_HEAD = 0.9
# Slices further apart are not compared in stacks longer than this: time grows with its square.
_REACH = 128
_MOST_COMPARED = 256

_STRIP = 48
# A strip tells something when so many of its pixels differ from the background's usual value.
_LIVELY = 0.5
# … and they spread over more than two grey levels.
_LEAST_VARIANCE = 1.0
# One strip in so many is kept, chosen by its content, so that copies choose alike.
_ONE_IN = 32
_FEWEST_STRIPS = 3
# Strips this near are one place, as where rows were doubled by scaling.
_SAME_PLACE_PX = 8
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)


def same_noise(stack: Sequence[Facts], prints: Sequence[Signs]) -> Iterable[Found]:
    """Pairs of slices of which two blocks or more carry one noise. Pixels that are wholly alike are another kind."""
    reach = len(stack) if len(stack) <= _MOST_COMPARED else _REACH
    for gap in range(1, min(reach, len(stack) - 1) + 1):
        for index in range(len(stack) - gap):
            if stack[index].sha256 == stack[index + gap].sha256:
                continue
            (one, valid), (other, also) = prints[index], prints[index + gap]
            differing = np.bitwise_count(one ^ other).sum(axis=1)
            agree = (differing <= (1 - _AGREE) * _SIGNS) & valid & also
            if agree.sum() >= _FEWEST_BLOCKS:
                yield Found(
                    kind="same_noise",
                    strength="strong",
                    parameters={},
                    slices=(stack[index].ref, stack[index + gap].ref),
                )


def signs(plane: Plane, head: Mask) -> Signs:
    """Signs of the residual by block, packed (B×32 bytes), and which blocks are in tissue and have noise at all."""
    rows, columns = plane.shape[0] // _BLOCK, plane.shape[1] // _BLOCK
    chosen = np.random.default_rng(0).permutation(_BLOCK * _BLOCK)[:_SIGNS]

    def blocks(values: NDArray[np.generic]) -> NDArray[np.generic]:
        cut = values[: rows * _BLOCK, : columns * _BLOCK].reshape(rows, _BLOCK, columns, _BLOCK)
        return cut.transpose(0, 2, 1, 3).reshape(rows * columns, -1)[:, chosen]

    residual = cv2.filter2D(plane, cv2.CV_32F, _KB)
    valid = (blocks(head).mean(axis=1) > _IN_HEAD) & (blocks(residual != 0).mean(axis=1) > _IN_HEAD)
    return np.packbits(blocks(residual > 0).astype(np.bool_), axis=1), np.asarray(valid)


def background(stack: Sequence[Facts], found: Sequence[Strips]) -> Iterable[Found]:
    """Strips of background noise that occur a second time, elsewhere in the slice or in another slice."""
    hashes, owners, rows = [], [], []
    known: set[str] = set()
    for index, (own, row) in enumerate(found):
        # Slices that are wholly alike are another kind.
        if stack[index].sha256 not in known:
            known.add(stack[index].sha256)
            hashes.append(own)
            rows.append(row)
            owners.append(np.full(len(own), index, np.int32))
    everything, owner, row = np.concatenate(hashes), np.concatenate(owners), np.concatenate(rows)
    order = np.argsort(everything, kind="stable")
    same = everything[order][1:] == everything[order][:-1]
    first, second = order[:-1][same], order[1:][same]
    apart = (owner[first] != owner[second]) | (np.abs(row[first] - row[second]) > _SAME_PLACE_PX)
    pairs, counts = np.unique(np.stack([owner[first], owner[second]])[:, apart], axis=1, return_counts=True)
    for (one, other), count in zip(pairs.T, counts, strict=True):
        if count >= _FEWEST_STRIPS:
            slices = tuple(stack[index].ref for index in sorted({int(one), int(other)}))
            yield Found(kind="background_repeats", strength="strong", parameters={}, slices=slices)


def strips(plane: Plane, head: Mask) -> Strips:
    """Hashes of the lively strips of 48 pixels of a row in the background, and their rows."""
    height, width = plane.shape
    outside = ~widened(head)
    if width <= _STRIP or not outside.any():
        return np.zeros(0, np.uint64), np.zeros(0, np.int32)
    values = plane.astype(np.int64)

    def windows(wanted: NDArray[np.generic]) -> NDArray[np.int64]:
        sums = np.concatenate([np.zeros((height, 1), np.int64), np.cumsum(wanted, axis=1, dtype=np.int64)], axis=1)
        return np.asarray(sums[:, _STRIP:] - sums[:, :-_STRIP])

    offset = values - usual(plane[outside])
    variance = windows(offset**2) / _STRIP - (windows(offset) / _STRIP) ** 2
    lively = (windows(outside) == _STRIP) & (windows(offset != 0) >= _LIVELY * _STRIP) & (variance >= _LEAST_VARIANCE)
    # A polynomial in an odd number modulo 2^64: each window's sum, divided by the power of its first pixel.
    with np.errstate(over="ignore"):
        powers = np.cumprod(np.full(width, _MULTIPLIER))
        terms = values.astype(np.uint64) * powers
        sums = np.concatenate([np.zeros((height, 1), np.uint64), np.cumsum(terms, axis=1, dtype=np.uint64)], axis=1)
        inverse = np.cumprod(np.full(width, np.uint64(pow(int(_MULTIPLIER), -1, 1 << 64))))
        hashes = (sums[:, _STRIP:] - sums[:, :-_STRIP]) * inverse[: width - _STRIP + 1]
    kept = lively & ((hashes >> np.uint64(40)) % np.uint64(_ONE_IN) == 0)
    return hashes[kept], np.nonzero(kept)[0].astype(np.int32)
