"""What the child says of each input: the messages over the wall between the web process and the child that unpacks."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

Kind = Literal["unpacked", "dicom", "picture", "refused"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much one upload may be after unpacking."""

    # Bytes of all files together.
    total_bytes: int
    # Files, whatever they are.
    files: int
    # Bytes that one byte of a ZIP may unpack to.
    zip_ratio: int
    # A ZIP in a ZIP is depth 1.
    zip_depth: int = 1
    # Pixels of one picture or one page of it.
    picture_pixels: int = 36_000_000
    # Pages of one TIFF.
    pages: int = 1000

    def to_json(self) -> dict[str, Any]:
        """JSON value."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Limits":
        """Inverse of `to_json`."""
        return cls(**value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One input, and what becomes of it."""

    kind: Kind
    # As the sender's browser or ZIP called it; shown to the sender, never logged, never a path.
    name: str
    # File below the folder of the upload: a DICOM file, or for a picture a dataset in explicit little endian; or "".
    path: str = ""
    # Two sentences, for refused inputs.
    sentence: str = ""
    sop_class_uid: str = ""
    sop_instance_uid: str = ""

    def to_json(self) -> dict[str, Any]:
        """JSON value."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Item":
        """Inverse of `to_json`."""
        return cls(**value)
