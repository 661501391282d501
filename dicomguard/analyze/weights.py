"""What a weights file says of itself, read without torch.

A safetensors file begins with eight bytes (little-endian length) and a JSON object; our record is one JSON text under
`__metadata__.dicomguard`. The SHA-256 of the whole file is its identity. Knows no network and no tensor.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dicomguard.analyze.card import Card
from dicomguard.errors import Broken, Refused

SCHEMA = 1
# Name under which weights say which network they fit: that of `net.model`.
ARCHITECTURE = "gn-fpn-16-128-f48-maskrcnn-2"
_RECORD = "dicomguard"
# A head larger than this is no head of ours: tensors are a few hundred.
_LARGEST_HEAD_BYTES = 4 * 2**20
_SHIPPED = Path(__file__).parent / "weights_data" / "dicomguard.safetensors"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """What the weights were validated on."""

    modalities: tuple[str, ...]
    body_parts: tuple[str, ...]
    sequences: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatingPoint:
    """Frozen thresholds and the false alarms counted with them on authentic validation slices."""

    name: str
    # A slice or study with a forgery score at or above this is flagged; 0…1.
    forgery: float
    # A lesion with a tumor score at or above this counts; 0…1.
    tumor: float
    # Authentic units (slices) scored, how many were flagged, and the 95 % upper bound on the rate (Clopper-Pearson).
    n_authentic: int
    flagged: int
    false_alarm_upper: float


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightsHead:
    """The record in the head of a weights file."""

    id: str
    version: str
    architecture: str
    channels: tuple[str, ...]
    scope: Scope
    operating_point: OperatingPoint
    # Parameters of the score: read by `net.detector` (see `scores.Calibration`).
    calibration: Mapping[str, Any]
    # Forgery scores of authentic studies, ascending: the rank of a score among them is reported.
    authentic_scores: tuple[float, ...]
    # Seed, steps, data sets with licences.
    training: Mapping[str, Any]
    sha256: str
    # None in files that were written before there were cards.
    card: Card | None = None


def read_head(path: Path) -> WeightsHead:
    """The record of a weights file and the hash of its bytes."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise Refused(
            f"The weights file {path} cannot be read ({error.strerror}). Give the path of weights."
        ) from error
    length = int.from_bytes(raw[:8], "little")
    if len(raw) < 8 or not 0 < length <= min(_LARGEST_HEAD_BYTES, len(raw) - 8):
        raise Refused(f"{path.name} does not begin with a safetensors head. Give a .safetensors file of dicomguard.")
    try:
        record = json.loads(json.loads(raw[8 : 8 + length])["__metadata__"][_RECORD])
        if not isinstance(record, dict):
            raise TypeError(f"the record is a {type(record).__name__}")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise Refused(
            f"{path.name} holds no record of dicomguard in its head. Give weights made by dicomguard."
        ) from error
    return from_record(record, sha256=hashlib.sha256(raw).hexdigest())


def check(head: WeightsHead, name: str) -> None:
    """Raise `Refused` where the weights, called `name`, are of another network than this version runs."""
    if head.architecture != ARCHITECTURE:
        raise Refused(
            f'{name} fits the network "{head.architecture}"; this version runs "{ARCHITECTURE}". '
            "Use weights of this version (of an approved model: roll back), or retrain."
        )


def from_record(record: Mapping[str, Any], *, sha256: str) -> WeightsHead:
    """A head from its JSON record."""
    if record.get("schema") != SCHEMA:
        raise Broken(f"Weights record schema {record.get('schema')} is not {SCHEMA}. Use weights of this version.")
    try:
        scope, point = record["scope"], record["operating_point"]
        return WeightsHead(
            id=record["id"],
            version=record["version"],
            architecture=record["architecture"],
            channels=tuple(record["channels"]),
            scope=Scope(**{name: tuple(scope[name]) for name in ("modalities", "body_parts", "sequences")}),
            operating_point=OperatingPoint(**point),
            calibration=record["calibration"],
            authentic_scores=tuple(record["authentic_scores"]),
            training=record["training"],
            sha256=sha256,
            card=None if record.get("card") is None else Card.from_json(record["card"]),
        )
    except (KeyError, TypeError) as error:
        raise Broken(f"The weights record lacks or misnames {error}. Restore the weights file.") from error


def to_metadata(head: WeightsHead) -> dict[str, str]:
    """The metadata of a safetensors file that carries this head; the hash is the file's own and not inside."""
    record = {
        "schema": SCHEMA,
        "id": head.id,
        "version": head.version,
        "architecture": head.architecture,
        "channels": list(head.channels),
        "scope": {name: list(getattr(head.scope, name)) for name in ("modalities", "body_parts", "sequences")},
        "operating_point": {
            name: getattr(head.operating_point, name)
            for name in ("name", "forgery", "tumor", "n_authentic", "flagged", "false_alarm_upper")
        },
        "calibration": dict(head.calibration),
        "authentic_scores": list(head.authentic_scores),
        "training": dict(head.training),
        **({} if head.card is None else {"card": head.card.to_json()}),
    }
    return {_RECORD: json.dumps(record, sort_keys=True)}


def shipped() -> Path:
    """The weights that come with the package."""
    return _SHIPPED
