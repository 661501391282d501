"""Canonical JSON and its SHA-256: the same value gives the same bytes on every machine.

Keys sorted, no spaces, UTF-8, Unicode NFC, no NaN or infinity.
"""

import hashlib
import json
import math
import unicodedata
from collections.abc import Mapping, Sequence

from dicomguard.errors import Broken

Json = None | bool | int | float | str | Sequence["Json"] | Mapping[str, "Json"]


def _normal(value: Json) -> Json:
    if isinstance(value, str):
        return unicodedata.normalize("NFC", value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise Broken(f"The number {value} cannot be written as JSON. Find out where it was computed.")
        # -0.0 and 0.0 are equal and must give equal bytes.
        return value + 0.0
    if isinstance(value, Mapping):
        return {unicodedata.normalize("NFC", key): _normal(item) for key, item in value.items()}
    if isinstance(value, Sequence):
        return [_normal(item) for item in value]
    return value


def encode(value: Json) -> bytes:
    """Canonical bytes of a JSON value; raises `Broken` for a number that is not finite."""
    text = json.dumps(_normal(value), sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.encode("utf-8")


def sha256(value: Json) -> str:
    """Hexadecimal SHA-256 of the canonical bytes."""
    return hashlib.sha256(encode(value)).hexdigest()
