"""The two documents that pass the wall between a worker and an analysis child."""

from dataclasses import asdict, dataclass
from typing import Any

from dicomguard.core.study import Manifest

# Of the child that decodes: memory, and seconds for one frame, the reading of its file included.
DECODE_MEMORY_BYTES = 4 << 30
DECODE_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class AnalysisJob:
    """What the child is asked."""

    manifest: Manifest
    # Folder below which the paths of the manifest lie.
    files_root: str
    # Folder that receives verdict.json and masks.npz.
    output: str
    weights: str
    # "cpu", "cuda" or "" for the best there is.
    device: str = ""
    threads: int = 2
    # Seconds until the child is killed.
    deadline_s: float = 1800.0
    decode_memory_bytes: int = DECODE_MEMORY_BYTES
    decode_s: float = DECODE_S
    # Facts of the last revision that began delivery, for `study.predecessor`; None for the first.
    predecessor: dict[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        """JSON value with the manifest inside."""
        return {
            **{key: value for key, value in asdict(self).items() if key != "manifest"},
            "manifest": self.manifest.to_json(),
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "AnalysisJob":
        """Inverse of `to_json`."""
        return cls(**{**value, "manifest": Manifest.from_json(value["manifest"])})


@dataclass(frozen=True, slots=True, kw_only=True)
class AnalysisReport:
    """What the child left in the output folder; hashes are verified by the reader."""

    verdict_path: str
    verdict_sha256: str
    # None when there is no finding.
    masks_path: str | None
    masks_sha256: str | None
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """JSON value."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "AnalysisReport":
        """Inverse of `to_json`."""
        return cls(**value)
